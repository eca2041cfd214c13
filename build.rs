//! Prepares the chat page's files: without comments and needless spaces, which browsers need not load, and compressed,
//! so that the program needs no compressor.

use std::env;
use std::fs;
use std::path::Path;

use zopfli::{Format, Options};

fn main() {
    let page = "src/http/web";
    println!("cargo::rerun-if-changed={page}");
    let output = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    for entry in fs::read_dir(page).expect("the page's folder is readable") {
        let path = entry.expect("the page's folder is readable").path();
        let mut content = fs::read(&path).expect("the page's files are readable");
        if path.extension().is_some_and(|extension| extension != "png") {
            let text = String::from_utf8(content).expect("the page's texts are UTF-8");
            let mut text = without_comments(&text);
            if path.extension().is_some_and(|extension| extension == "css") {
                text = without_spaces(&text);
            }
            content = text.into_bytes();
        }
        let mut compressed = Vec::new();
        zopfli::compress(Options::default(), Format::Gzip, content.as_slice(), &mut compressed)
            .expect("writing to memory does not fail");
        let name = path.file_name().expect("a file has a name");
        let mut compressed_name = name.to_owned();
        compressed_name.push(".gz");
        fs::write(Path::new(&output).join(name), content).expect("OUT_DIR is writable");
        fs::write(Path::new(&output).join(compressed_name), compressed).expect("OUT_DIR is writable");
    }
}

/// Removes spaces from a style sheet that separate nothing. Its strings contain none of them.
fn without_spaces(text: &str) -> String {
    let text =
        [": ", "; ", ", ", "{ "].iter().fold(text.to_owned(), |text, space| text.replace(space, &space[..1]));
    text.replace(" {", "{").replace(" }", "}")
}

/// Removes comments, indentation and empty lines. It knows only the style of these files, in which no string or regular
/// expression contains the beginning of a comment, and no string has several lines.
fn without_comments(text: &str) -> String {
    let (mut code, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("a comment ends").1;
    }
    code.push_str(rest);
    let lines = code.lines().map(|line| line.split_once("// ").map_or(line, |(line, _)| line).trim());
    lines.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}
