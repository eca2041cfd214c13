//! PEM files to a rustls configuration. Every failure names its file, what is wrong, and how to mend it.

pub mod certificate;
mod renewal;
pub mod self_signed;

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc")]
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
#[cfg(not(feature = "aws-lc"))]
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pemfile::Item;

use crate::config::TlsFiles;
use crate::ops::Escaped;
use certificate::Concern;

pub use renewal::{LOOK_INTERVAL, Renewal};

/// Larger files are no certificates, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A certificate with its key, ready to serve.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Loads the pair.
///
/// # Errors
/// What is wrong with either file, or with both.
pub fn load(files: &TlsFiles) -> Result<Identity, Vec<TlsError>> {
    let provider = Arc::new(default_provider());
    let (chain, key) = match (load_chain(&files.cert), load_key(&files.key, &provider)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    match configure(files, chain.clone(), key, provider) {
        Ok(config) => Ok(Identity { config: Arc::new(config), chain }),
        Err((wrong, remedy)) => {
            let path = files.cert.clone();
            Err(vec![TlsError::Unusable { what: What::Certificate, path, wrong, remedy }])
        }
    }
}

/// Whether plaintext may take the place of what is wrong: only of files that are missing, and if nothing forbids it.
pub fn may_fall_back(files: &TlsFiles, errors: &[TlsError]) -> bool {
    !files.required && errors.iter().all(|error| matches!(error, TlsError::Missing { .. }))
}

/// What is wrong with the key file's permissions: that others than its owner and group may touch it.
pub fn key_concern(path: &Path) -> Option<Concern> {
    const OTHERS: u32 = 0o007;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS != 0).then(|| {
        let path = path.display();
        Concern::Warning(format!(
            "everybody on this machine may read the private key {path}: chmod o= {path}"
        ))
    })
}

/// Builds the configuration of SPEC.md: TLS 1.2 and 1.3, with resumption.
fn configure(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, (String, &'static str)> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            let wrong = format!("it does not belong to the private key {}", Escaped(files.key.display()));
            let remedy = "set SSL_CERT_PATH and SSL_KEY_PATH to files that were issued together; in a chain the \
                          server's own certificate comes first";
            return Err((wrong, remedy));
        }
        Err(error) => return Err((format!("it cannot be used ({error})"), "have it issued anew")),
    }
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| (error.to_string(), "this build lacks what TLS needs: build it anew"))?;
    let mut config =
        builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer =
        Ticketer::new().map_err(|error| (error.to_string(), "the system gives no random numbers"))?;
    Ok(config)
}

fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = What::Certificate;
    let pem = Pem::load(what, path)?;
    let certificates = pem.items.into_iter().filter_map(|item| match item {
        Item::X509Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let chain: Vec<_> = certificates.collect();
    if !chain.is_empty() {
        return Ok(chain);
    }
    let (wrong, remedy) = match pem.looks {
        Looks::Key | Looks::EncryptedKey => {
            ("it holds a private key and no certificate", "SSL_CERT_PATH and SSL_KEY_PATH may be swapped")
        }
        _ => looks_wrong(pem.looks, "no certificate (BEGIN CERTIFICATE) is in it"),
    };
    Err(unusable(what, path, wrong, remedy))
}

fn load_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, TlsError> {
    let what = What::Key;
    let pem = Pem::load(what, path)?;
    let key = pem.items.into_iter().find_map(|item| match item {
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::from(key)),
        Item::Pkcs8Key(key) => Some(key.into()),
        Item::Sec1Key(key) => Some(key.into()),
        _ => None,
    });
    match key {
        Some(key) => provider.key_provider.load_private_key(key).map_err(|error| {
            let wrong = format!("the key in it cannot be used ({error})");
            let remedy = "use RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519";
            TlsError::Unusable { what, path: path.into(), wrong, remedy }
        }),
        None => {
            let (wrong, remedy) = match pem.looks {
                Looks::EncryptedKey => (
                    "the key in it is encrypted with a passphrase, which a server cannot type",
                    "store it decrypted: openssl pkey -in KEY -out NEW, with NEW readable for the server alone",
                ),
                Looks::Certificate => (
                    "it holds a certificate and no private key",
                    "SSL_CERT_PATH and SSL_KEY_PATH may be swapped",
                ),
                looks => looks_wrong(looks, "no private key (BEGIN PRIVATE KEY) is in it"),
            };
            Err(unusable(what, path, wrong, remedy))
        }
    }
}

/// A PEM file's sections.
struct Pem {
    items: Vec<Item>,
    looks: Looks,
}

/// What a file looks like, to say so when it has not what is asked for.
#[derive(Clone, Copy)]
enum Looks {
    Certificate,
    Key,
    EncryptedKey,
    Der,
    Empty,
    Other,
}

impl Pem {
    fn load(what: What, path: &Path) -> Result<Self, TlsError> {
        let bytes = read(what, path)?;
        let looks = Looks::of(&bytes);
        if let (What::Key, Looks::EncryptedKey) = (what, looks) {
            // The sections that can be read would not be what was meant.
            return Ok(Self { items: Vec::new(), looks });
        }
        // Editors of other systems begin a file with a byte order mark.
        let mut text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        // The library's errors quote the line, which may be the key.
        let damaged = |_| {
            let wrong =
                "it is damaged PEM (BEGIN and END each need a line of their own, with base64 between them)";
            unusable(what, path, wrong, "copy it anew, whole, as text")
        };
        let items = rustls_pemfile::read_all(&mut text).collect::<Result<_, _>>().map_err(damaged)?;
        Ok(Self { items, looks })
    }
}

impl Looks {
    fn of(bytes: &[u8]) -> Self {
        let has = |label: &str| bytes.windows(label.len()).any(|window| window == label.as_bytes());
        match bytes {
            [] => Self::Empty,
            _ if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => Self::EncryptedKey,
            _ if has("PRIVATE KEY-----") => Self::Key,
            _ if has("BEGIN CERTIFICATE") => Self::Certificate,
            // An ASN.1 sequence, its length in bytes of their own or, as in short keys, in one: DER.
            [0x30, 0x82 | 0x81, ..] => Self::Der,
            [0x30, length, content @ ..] if content.len() == usize::from(*length) => Self::Der,
            _ => Self::Other,
        }
    }
}

fn looks_wrong(looks: Looks, otherwise: &'static str) -> (&'static str, &'static str) {
    match looks {
        Looks::Der => ("it is DER, not PEM", "convert it with openssl (-inform DER -outform PEM)"),
        Looks::Empty => ("it is empty", "write it anew"),
        _ => (otherwise, "it must be a PEM file: text with a BEGIN and an END line"),
    }
}

fn read(what: What, path: &Path) -> Result<Vec<u8>, TlsError> {
    let io_error = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => TlsError::Missing { what, path: path.into() },
        ErrorKind::PermissionDenied => unusable(
            what,
            path,
            "it may not be read (permission denied)",
            "let the user that runs TinyChat read it, and nobody else; the README says how with certbot",
        ),
        _ => TlsError::Unusable {
            what,
            path: path.into(),
            wrong: format!("it cannot be read ({error})"),
            remedy: "check the path and the disk",
        },
    };
    // Opening a pipe would wait for its writer.
    let about = std::fs::metadata(path).map_err(io_error)?;
    if !about.is_file() {
        return Err(unusable(what, path, "it is not a file", "set the path of the PEM file itself"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(io_error)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unusable(what, path, "it is larger than 1 MiB", "set the path of the PEM file itself"));
    }
    Ok(bytes)
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Certificate,
    Key,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Certificate => "SSL_CERT_PATH",
            Self::Key => "SSL_KEY_PATH",
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsError {
    Missing {
        what: What,
        path: PathBuf,
    },
    /// It is there and no use, which no fallback may hide.
    Unusable {
        what: What,
        path: PathBuf,
        wrong: String,
        remedy: &'static str,
    },
}

/// A certificate that may not take the place of another, for its time is over or has not come.
pub fn untimely(path: &Path, wrong: &str, remedy: &'static str) -> TlsError {
    unusable(What::Certificate, path, wrong, remedy)
}

fn unusable(what: What, path: &Path, wrong: &str, remedy: &'static str) -> TlsError {
    TlsError::Unusable { what, path: path.into(), wrong: wrong.into(), remedy }
}

impl fmt::Display for TlsError {
    /// On one line, whatever the path.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Missing { what, path } => write!(
                formatter,
                "SSL {} not found: {} (make a pair for testing with \"tinychat generate-certs\", or set {} to yours)",
                what.name(),
                Escaped(path.display()),
                what.setting()
            ),
            Self::Unusable { what, path, wrong, remedy } => {
                write!(
                    formatter,
                    "SSL {} unusable: {}: {wrong}; {remedy}",
                    what.name(),
                    Escaped(path.display())
                )
            }
        }
    }
}
