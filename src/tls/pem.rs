//! Reads PEM files: a certificate chain, or a private key.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;

use super::error::{FileError, PemRole, TlsError};

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads all certificates in a file, in their order.
///
/// # Errors
/// The file does not exist, cannot be read, or has no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path).map_err(|error| TlsError::new(PemRole::Certificate, path, error))
}

/// Reads the first private key in a file: PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
///
/// # Errors
/// The file does not exist, cannot be read, or has no private key, or one that is encrypted.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    private_key(path).map_err(|error| TlsError::new(PemRole::PrivateKey, path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let certificates = sections(&bytes)?.into_iter().filter_map(|section| match section {
        Item::X509Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(match PemKind::of(&bytes) {
        PemKind::Key | PemKind::EncryptedKey => FileError::KeyInsteadOfCertificate,
        PemKind::Der => FileError::Der,
        PemKind::Empty => FileError::Empty,
        PemKind::Certificate | PemKind::Other => FileError::NoCertificate,
    })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = read(path)?;
    let kind = PemKind::of(&bytes);
    if kind == PemKind::EncryptedKey {
        // If there is another key as well, it is not the one that is meant.
        return Err(FileError::EncryptedKey);
    }
    let key = sections(&bytes)?.into_iter().find_map(|section| match section {
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::from(key)),
        Item::Pkcs8Key(key) => Some(key.into()),
        Item::Sec1Key(key) => Some(key.into()),
        _ => None,
    });
    key.ok_or(match kind {
        PemKind::Certificate => FileError::CertificateInsteadOfKey,
        PemKind::Der => FileError::Der,
        PemKind::Empty => FileError::Empty,
        PemKind::Key | PemKind::EncryptedKey | PemKind::Other => FileError::NoKey,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    // Opening a pipe would block until something writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    Ok(bytes)
}

fn sections(bytes: &[u8]) -> Result<Vec<Item>, FileError> {
    // Some editors start a file with a byte order mark.
    let mut text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    // The library's error is dropped because it quotes the line, which may be the key.
    rustls_pemfile::read_all(&mut text).collect::<Result<_, _>>().map_err(|_| FileError::Damaged)
}

/// What a file appears to contain, for the error if it does not contain what it should.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PemKind {
    Certificate,
    Key,
    EncryptedKey,
    Der,
    Empty,
    Other,
}

impl PemKind {
    fn of(bytes: &[u8]) -> Self {
        let has = |label: &str| bytes.windows(label.len()).any(|window| window == label.as_bytes());
        match bytes {
            [] => Self::Empty,
            _ if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => Self::EncryptedKey,
            _ if has("PRIVATE KEY-----") => Self::Key,
            _ if has("BEGIN CERTIFICATE") => Self::Certificate,
            // An ASN.1 SEQUENCE with a long or, as in short keys, a one-byte length.
            [0x30, 0x82 | 0x81, ..] => Self::Der,
            [0x30, length, content @ ..] if content.len() == usize::from(*length) => Self::Der,
            _ => Self::Other,
        }
    }
}
