//! A certificate and its key, as a rustls configuration.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc")]
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
#[cfg(not(feature = "aws-lc"))]
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};

use super::certificate::{self, CertificateInfo, Diagnostic};
use super::error::{FileError, PemRole, TlsError};
use super::pem;
use crate::config::TlsFiles;

/// The permission bits of users other than the owner and the group.
const MODE_OTHERS: u32 = 0o007;

/// A certificate and its key, ready to serve.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the leaf contains. `None` if it cannot be parsed here, which does not mean that clients refuse it.
    pub info: Option<CertificateInfo>,
}

impl Identity {
    /// Loads the two files.
    ///
    /// # Errors
    /// What is wrong with either file, or with both.
    pub fn load(files: &TlsFiles) -> Result<Self, Vec<TlsError>> {
        let provider = Arc::new(default_provider());
        let (chain, key) = match (pem::read_certificates(&files.cert), load_key(&files.key, &provider)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let info = CertificateInfo::parse(&chain);
        let config = server_config(files, chain.clone(), key, provider).map_err(|error| vec![error])?;
        Ok(Self { config: Arc::new(config), chain, info })
    }

    /// Whether the certificate is for this host name or address, by the rules that clients apply.
    pub fn is_valid_for(&self, name: &str) -> bool {
        ServerName::try_from(name).is_ok_and(|name| certificate::is_valid_for(&self.chain, &name))
    }

    /// Problems with the certificate and the key's permissions, for the server's administrator.
    pub fn diagnostics(&self, files: &TlsFiles, now: SystemTime) -> Vec<Diagnostic> {
        let mut diagnostics = match &self.info {
            Some(info) => certificate::diagnose(&self.chain, info, now),
            None => vec![Diagnostic::Warning("the certificate's names and dates cannot be read".into())],
        };
        diagnostics.extend(diagnose_permissions(&files.key));
        diagnostics
    }
}

/// Whether the server may fall back to plaintext: only if files are missing, and `SSL_REQUIRED` is false.
pub fn fallback_allowed(files: &TlsFiles, errors: &[TlsError]) -> bool {
    !files.required && errors.iter().all(|error| matches!(error, TlsError::NotFound { .. }))
}

/// For connections to the engine, whose library takes the default. With two providers in the program there is none.
#[cfg(all(feature = "aws-lc", feature = "cluster"))]
pub fn install_default_provider() {
    // An error means that there is one.
    let _ = default_provider().install_default();
}

fn load_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, TlsError> {
    let key = pem::read_private_key(path)?;
    let key = provider.key_provider.load_private_key(key);
    key.map_err(|error| TlsError::new(PemRole::PrivateKey, path, FileError::UnsupportedKey(error)))
}

/// TLS 1.2 and 1.3, with session resumption.
fn server_config(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let certified = CertifiedKey::new(chain, key);
    let mismatch = match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => None,
        Err(rustls::Error::InconsistentKeys(_)) => Some(FileError::KeyMismatch { key: files.key.clone() }),
        Err(error) => Some(FileError::InvalidCertificate(error)),
    };
    if let Some(error) = mismatch {
        return Err(TlsError::new(PemRole::Certificate, &files.cert, error));
    }
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?;
    let mut config =
        builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

fn diagnose_permissions(key: &Path) -> Option<Diagnostic> {
    let mode = std::fs::metadata(key).ok()?.permissions().mode();
    (mode & MODE_OTHERS != 0).then(|| {
        let key = key.display();
        Diagnostic::Warning(format!(
            "any user of this machine can access the private key {key}: chmod o= {key}"
        ))
    })
}
