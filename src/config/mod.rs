//! The settings, from flags, the environment and `.env`.

mod env_file;
mod settings;

pub use settings::*;
