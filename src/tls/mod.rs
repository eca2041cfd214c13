//! TLS: from PEM files to a rustls configuration, and its renewal while the server runs. See docs/tls.md.

mod renewal;
mod change_detector;
mod identity;
mod certificate;
mod pem;
mod error;
pub mod self_signed;

pub use certificate::{CertificateInfo, Diagnostic};
pub use error::{FileError, PemRole, TlsError};
#[cfg(all(feature = "aws-lc", feature = "cluster"))]
pub use identity::install_default_provider;
pub use identity::{Identity, fallback_allowed};
pub use renewal::Renewal;
