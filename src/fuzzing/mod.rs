//! The entry points of the fuzz targets in `fuzz/` (CONTRIBUTING.md). They accept any bytes, and panic if the server
//! breaks a rule.
//!
//! The tests below run them on the seeds in `fuzz/corpus-seeds/`. Every input that has found a bug is added there.

mod client_bytes;
mod env_file;
mod http_response;
mod log_bytes;
mod pem_files;
mod request_head;
mod transcript;

pub use client_bytes::client_bytes;
pub use env_file::env_file;
pub use log_bytes::log_bytes;
pub use pem_files::pem_files;
pub use request_head::request_head;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use proptest::prelude::*;

    use super::*;

    /// The seeds of a target, with their paths.
    fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus-seeds").join(target);
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let seeds: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        assert!(seeds.len() > 8, "{target}: the seeds were not found");
        seeds
    }

    fn run_seeds(target: &str, mut run: impl FnMut(&[u8])) {
        for (path, seed) in seeds(target) {
            println!("{}", path.display());
            run(&seed);
        }
    }

    #[test]
    fn client_byte_seeds_break_no_rule() {
        run_seeds("client_bytes", client_bytes);
    }

    #[test]
    fn request_head_seeds_break_no_rule() {
        run_seeds("request_head", request_head);
    }

    #[test]
    fn pem_file_seeds_break_no_rule() {
        let folder = tempfile::tempdir().unwrap();
        run_seeds("pem_files", |seed| pem_files(folder.path(), seed));
    }

    #[test]
    fn env_file_seeds_break_no_rule() {
        run_seeds("env_file", env_file);
    }

    #[test]
    fn log_byte_seeds_break_no_rule() {
        run_seeds("log_bytes", log_bytes);
    }

    proptest! {
        /// Valid steps, in any order.
        #[test]
        fn no_steps_of_clients_break_a_rule(steps in proptest::collection::vec(step(), 0..60)) {
            client_bytes(&steps.concat());
        }
    }

    fn step() -> impl Strategy<Value = Vec<u8>> {
        let actions = prop_oneof![
            "j(Ann|Bob|Bob I|ann|\u{fdfa}{1,3})",
            "J(Ann|Bob|Cid)",
            "p.{1,40}",
            "c/(whisper|to|login|help) ?(Ann|Bob|Bob I|secret)? ?[0-9a-z]{0,4}",
            "c/(kick|ban|unban|unto|info|bans) ?(Ann|Bob|Bob I|\"Cid\"|192.0.2.[12])? ?([1-9][sm])? ?[a-z]{0,3}",
            "c/delete [1-9][0-9]?",
            "t\\{\"type\":\"(join|public)\",\"(username|content)\":\"[a-z]{0,5}\"\\}",
            "a[0-7]",
            "t\\{\"type\":\"(public|history)\",\"content\":\"x\",\"txn_id\":\"[a-z]{0,3}\"\\}",
            "[dshkzrR]",
        ];
        (0..4u8, actions).prop_map(|(client, action)| [&[0xF5, b'0' + client], action.as_bytes()].concat())
    }
}
