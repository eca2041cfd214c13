//! Command-line flags. Each row of [`SETTINGS`] has a flag of the same name: `--max-connections` sets
//! `MAX_CONNECTIONS`.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, ValueHint, value_parser};

use crate::config::{SETTINGS, Setting, ValueKind};

/// One flag for each setting.
pub fn all() -> impl Iterator<Item = Arg> {
    SETTINGS.iter().map(flag)
}

/// The value of the flag for the setting of this name, if the command has that flag and it was given.
pub fn value(matches: &ArgMatches, setting: &str) -> Option<OsString> {
    matches.try_get_one(setting).ok().flatten().cloned()
}

fn flag(setting: &Setting) -> Arg {
    let default = setting.default.map_or("unset".into(), |default| format!("default {default}"));
    // Values are parsed later, with those from the environment and the file, so that all errors are reported together.
    let arg = Arg::new(setting.name)
        .long(setting.name.to_lowercase().replace('_', "-"))
        .value_name(placeholder(setting.kind))
        .value_parser(value_parser!(OsString))
        .help(format!("{} [{}, {default}]", setting.help, setting.name));
    match setting.kind {
        // `--use-ssl` is `--use-ssl true`.
        ValueKind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        ValueKind::Password | ValueKind::SecretUrl => arg.allow_hyphen_values(true),
        ValueKind::File => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    }
}

/// The placeholder for the value in `--help`.
fn placeholder(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Address => "ADDRESS",
        ValueKind::Port => "PORT",
        ValueKind::Password => "PASSWORD",
        ValueKind::Switch => "BOOL",
        ValueKind::File => "FILE",
        ValueKind::LogLevel => "LEVEL",
        ValueKind::Count => "COUNT",
        ValueKind::Bytes => "BYTES",
        ValueKind::Seconds => "SECONDS",
        ValueKind::List => "LIST",
        ValueKind::SecretUrl => "URL",
        ValueKind::Name => "NAME",
    }
}
