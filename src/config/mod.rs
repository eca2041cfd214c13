//! The settings: flags, the environment and `.env`, parsed once into types that cannot hold a wrong value.
//!
//! See docs/configuration.md for what each setting means.

mod cluster;
mod settings;
mod settings_table;
mod parser;
mod values;
mod password;
mod reported_value;
mod env_file;
mod error;

pub use cluster::{ClusterName, ClusterSettings, EngineUrl, NodeName};
pub use env_file::EnvFileError;
pub use error::{ConfigError, ConfigErrors};
pub use password::{MalformedHash, NEW_HASH_ITERATIONS, Password, PasswordHash, SALT_BYTES};
pub use reported_value::{Reason, ReportedValue, mentions_password, names_secret};
pub use settings::{CERTIFICATE_CHECK_INTERVAL, DatabasePath, Limits, MessageRate, Settings, TlsFiles};
pub use settings_table::{SETTINGS, Setting, ValueKind};
pub use values::{Host, Origin, Secret};
