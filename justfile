# Plain commands, explained in CONTRIBUTING.md. `just --list` shows the recipes.

# Build and run the server
run *flags:
    cargo run --release -- {{flags}}

# Build the release binary
build:
    cargo build --release

# Run all tests
test:
    cargo test

# Run the tests of several servers as one chat
test-cluster:
    cargo test --features cluster --lib cluster
    cargo test --features cluster --test integration cluster

# Run only the documentation tests
test-docs:
    cargo test --test integration docs

# Check formatting and lints
check:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Check the types of the chat page and lint it
check-page:
    npm ci --prefix .ci/page
    npm run --prefix .ci/page check

# Run a fuzz target for ten minutes
fuzz target:
    fuzz/run {{target}} -max_total_time=600

# Run everything that CI runs (Debian; may need root)
ci:
    .ci/run

# Measure a server under load
bench:
    cargo bench

# Measure the pure parts
bench-parts:
    cargo bench --bench parts

# Update the screenshots in docs/screenshots/
screenshots:
    cargo test --test integration screenshots -- --ignored
