//! Why the settings cannot be used.

use std::fmt;

use super::env_file::EnvFileError;
use super::password::MalformedHash;
use super::reported_value::ReportedValue;

/// Everything that is wrong with the settings, reported together.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    /// A heading, then one line per error.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        writeln!(formatter, "TinyChat cannot start with these settings:")?;
        self.0.iter().try_for_each(|error| writeln!(formatter, "  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// One error in the settings. Its message is a single line that never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}{value} cannot be used: it must be {allowed}")]
    Invalid { name: &'static str, value: ReportedValue, allowed: String },
    #[error("{name} (its value is not shown) cannot be used: it must not be blank")]
    BlankSecret { name: &'static str },
    #[error("{name} (its value is not shown) cannot be used: it must be a password, or {hash}")]
    MalformedHash { name: &'static str, hash: MalformedHash },
    #[error("{name}: the value is not UTF-8 text; set it again")]
    NotUtf8 { name: &'static str },
    #[error("SSL_REQUIRED=true forbids plaintext, but USE_SSL is false: set USE_SSL=true as well")]
    TlsRequiredButOff,
    #[error(
        "CLUSTER_URL is set, but this program was built without the feature cluster: leave it unset, or build with \
         `cargo build --release --features cluster`"
    )]
    ClusterNotBuilt,
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
}
