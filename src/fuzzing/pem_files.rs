//! Certificate and key files: loading them, and the errors and warnings about them.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::config::{CERTIFICATE_CHECK_INTERVAL, TlsFiles};
use crate::ops::Escaped;
use crate::tls::{CertificateInfo, Diagnostic, Identity};

/// Stands for [`SECRET`] in the input. It is not part of PEM.
const SECRET_BYTE: u8 = 0xF5;
/// A line of a private key, which no message may show.
const SECRET: &str = "MC4CAQAwBQYDK2VwBCIEIHVuc2hvd25rZXlieXRlcw";
/// The longest message, in characters.
const MAX_MESSAGE: usize = 1000;

/// A certificate and its key, PEM.
static GOOD: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".into(), "192.0.2.7".into()];
    let certificate = CertificateParams::new(names).and_then(|parameters| parameters.self_signed(&key));
    (certificate.expect("a certificate").pem(), key.serialize_pem())
});

/// The first byte says what the rest is: a certificate file, a key file, or both in one; or the DER in one of them; or
/// the DER of a certificate whose key is not known. The files are written to `folder`.
pub fn pem_files(folder: &Path, bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let (good_cert, good_key) = (GOOD.0.as_bytes().to_vec(), GOOD.1.as_bytes().to_vec());
    let with_secret = || {
        let parts: Vec<&[u8]> = bytes.split(|&byte| byte == SECRET_BYTE).collect();
        parts.join(SECRET.as_bytes())
    };
    let (cert, key) = match choice {
        b'c' => (bytes.to_vec(), good_key),
        b'k' => (good_cert, with_secret()),
        b'b' => (with_secret(), with_secret()),
        b'p' => (good_cert, pem("PRIVATE KEY", bytes)),
        b'r' => (good_cert, pem("RSA PRIVATE KEY", bytes)),
        b's' => (good_cert, pem("EC PRIVATE KEY", bytes)),
        b'i' => ([good_cert, pem("CERTIFICATE", bytes)].concat(), good_key),
        b'd' => (good_cert, good_key),
        _ => (pem("CERTIFICATE", bytes), good_key),
    };
    let files = TlsFiles {
        cert: folder.join("server.crt"),
        key: folder.join("server.key"),
        required: true,
        check_interval: CERTIFICATE_CHECK_INTERVAL,
    };
    for (path, content) in [(&files.cert, cert), (&files.key, key)] {
        fs::write(path, content).expect("a file for the input can be written");
    }
    if choice == b'd' {
        return check_certificate(bytes, &files);
    }
    match Identity::load(&files) {
        Ok(identity) => check_identity(&identity, &files),
        Err(errors) => {
            assert!((1..=2).contains(&errors.len()));
            for error in errors {
                let message = error.to_string();
                assert!(!message.contains(SECRET), "{message}");
                assert!(message.contains(folder.to_str().expect("a path of text")), "{message}");
                assert!(message.len() < MAX_MESSAGE, "{message}");
                assert!(!message.chars().any(char::is_control), "{message:?}");
            }
        }
    }
}

fn check_identity(identity: &Identity, files: &TlsFiles) {
    for name in ["localhost", "192.0.2.7", "::1", "*.example.com", "", "a b"] {
        identity.is_valid_for(name);
    }
    for seconds in [0, 1_800_000_000, 253_402_300_799, u64::from(u32::MAX) << 8] {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        for diagnostic in identity.diagnostics(files, now) {
            let (Diagnostic::Warning(text) | Diagnostic::Error(text)) = diagnostic;
            assert!(!text.is_empty() && text.len() < MAX_MESSAGE, "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        if let Some(info) = &identity.info {
            info.days_left(now);
            assert!(
                !(info.has_expired(now) && info.is_not_yet_valid(now)) || info.not_after < info.not_before
            );
        }
    }
    if let Some(info) = &identity.info {
        let shown = Escaped(info).to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(!info.display_names().is_empty() && !info.display_issuer().is_empty());
    }
}

/// Checks a certificate alone and as its own issuer. It is not loaded, because no key belongs to most inputs.
fn check_certificate(der: &[u8], files: &TlsFiles) {
    let good = Identity::load(files).expect("the certificate and its key are good");
    for count in 1..=2 {
        let chain = vec![CertificateDer::from(der.to_vec()); count];
        let info = CertificateInfo::parse(&chain);
        check_identity(&Identity { config: good.config.clone(), chain, info }, files);
    }
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits =
                group.iter().enumerate().fold(0, |bits, (at, &byte)| bits | u32::from(byte) << (16 - 8 * at));
            for at in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= group.len() { digit } else { b'=' });
            }
        }
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    text
}
