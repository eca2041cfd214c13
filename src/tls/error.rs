//! Why a certificate and key cannot be used. Messages name the file, what is wrong, and how to fix it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::ops::Escaped;

/// An error in the certificate or its key. The message is a single line, even if the path contains control characters.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "SSL {} not found: {} (create a certificate and key for testing with \"tinychat generate-certs\", or set {} \
         to the path of your own)",
        .role.name(), Escaped(.path.display()), .role.setting()
    )]
    NotFound { role: PemRole, path: PathBuf },
    /// The file exists, so the server never falls back to plaintext.
    #[error("SSL {} unusable: {}: {error}", .role.name(), Escaped(.path.display()))]
    Unusable {
        role: PemRole,
        path: PathBuf,
        #[source]
        error: FileError,
    },
    #[error("TLS cannot be set up ({0}): check that the system provides random numbers")]
    Setup(#[source] rustls::Error),
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PemRole {
    Certificate,
    PrivateKey,
}

/// What is wrong with a file, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "it cannot be read (permission denied); let the user that runs TinyChat read it, and no other user: \
         docs/tls.md says how with certbot"
    )]
    PermissionDenied(#[source] io::Error),
    #[error("it cannot be read ({0}); check the path and the disk")]
    Io(#[source] io::Error),
    #[error("it is not a file; set the path of the PEM file itself")]
    NotAFile,
    #[error("it is larger than 1 MiB; set the path of the PEM file itself")]
    TooLarge,
    #[error("it is empty; create it again")]
    Empty,
    #[error("it is DER, not PEM; convert it with openssl (-inform DER -outform PEM)")]
    Der,
    #[error(
        "it is damaged PEM (BEGIN and END each need a line of their own, with base64 between them); copy the whole \
         file again, as text"
    )]
    Damaged,
    #[error("it contains a private key and no certificate; SSL_CERT_PATH and SSL_KEY_PATH may be swapped")]
    KeyInsteadOfCertificate,
    #[error("it contains a certificate and no private key; SSL_CERT_PATH and SSL_KEY_PATH may be swapped")]
    CertificateInsteadOfKey,
    #[error(
        "it contains no certificate (BEGIN CERTIFICATE); it must be a PEM file: text with a BEGIN and an END line"
    )]
    NoCertificate,
    #[error(
        "it contains no private key (BEGIN PRIVATE KEY); it must be a PEM file: text with a BEGIN and an END line"
    )]
    NoKey,
    #[error(
        "the key in it is encrypted with a passphrase, which TinyChat cannot ask for; store it decrypted: openssl \
         pkey -in KEY -out NEW, with NEW readable only by the server"
    )]
    EncryptedKey,
    #[error(
        "the key in it cannot be used ({0}); use RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519"
    )]
    UnsupportedKey(#[source] rustls::Error),
    #[error("it cannot be used ({0}); get a new certificate issued")]
    InvalidCertificate(#[source] rustls::Error),
    #[error(
        "it does not belong to the private key {}; set SSL_CERT_PATH and SSL_KEY_PATH to files that were issued \
         together; in a chain the server's own certificate comes first",
        Escaped(.key.display())
    )]
    KeyMismatch { key: PathBuf },
    #[error("it has expired; renew it")]
    Expired,
    #[error("it is not valid yet; check the clock of this machine, or wait")]
    NotYetValid,
}

impl TlsError {
    pub fn new(role: PemRole, path: &Path, error: FileError) -> Self {
        match error {
            FileError::Io(error) if error.kind() == ErrorKind::NotFound => {
                Self::NotFound { role, path: path.into() }
            }
            error => Self::Unusable { role, path: path.into(), error },
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::PermissionDenied => Self::PermissionDenied(error),
            _ => Self::Io(error),
        }
    }
}

impl PemRole {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Certificate => "SSL_CERT_PATH",
            Self::PrivateKey => "SSL_KEY_PATH",
        }
    }
}
