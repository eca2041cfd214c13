//! Compresses the chat page's files, so that the program needs no compressor.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() {
    let page = "src/http/web";
    println!("cargo::rerun-if-changed={page}");
    let output = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    for entry in fs::read_dir(page).expect("the page's folder is readable") {
        let path = entry.expect("the page's folder is readable").path();
        let content = fs::read(&path).expect("the page's files are readable");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let compressed = encoder.write_all(&content).and_then(|()| encoder.finish());
        let mut name = path.file_name().expect("a file has a name").to_owned();
        name.push(".gz");
        let compressed = compressed.expect("writing to memory does not fail");
        fs::write(Path::new(&output).join(name), compressed).expect("OUT_DIR is writable");
    }
}
