//! `tinychat moderator`: adds, removes and lists the named moderators.

use std::fmt;
use std::io::{stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use super::hash_password::new_hash;
use super::password_prompt::{PasswordError, read_password};
use super::{EXIT_FAILURE, EXIT_USAGE, flags, print};
use crate::chat::Username;
use crate::config::Settings;
use crate::store::{StoreError, moderators, server_pid};

pub const NAME: &str = "moderator";
/// The shortest password of a named moderator, in characters.
const MIN_PASSWORD_CHARS: usize = 8;

pub fn command() -> Command {
    let name =
        || Arg::new("name").value_name("NAME").required(true).help("The name, in quotes if it has spaces");
    let database = || flags::all().filter(|flag| flag.get_id() == "DATABASE_PATH");
    Command::new(NAME)
        .about("Add, remove or list moderators that have a name and a password of their own")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("add")
                .about("Reserve a name and set its password, which is typed twice or is the first line of standard input")
                .arg(name())
                .args(database()),
        )
        .subcommand(Command::new("remove").about("Remove a moderator, which frees the name").arg(name()).args(database()))
        .subcommand(Command::new("list").about("Print the names of all moderators").args(database()))
}

/// `matches`: of the subcommand with this name.
pub fn run(settings: &Settings, subcommand: &str, matches: &ArgMatches) -> ExitCode {
    let name = || matches.get_one::<String>("name").map_or("", String::as_str);
    let result = match (settings.database.path(), subcommand) {
        (None, _) => Err(ModeratorError::NoStore),
        (Some(path), "add") => parse(name()).and_then(|name| add(path, &name)),
        (Some(path), "remove") => parse(name()).and_then(|name| remove(path, &name)),
        (Some(path), _) => list(path),
    };
    match result {
        Ok(report) => {
            print(stdout(), &report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(stderr(), &format_args!("tinychat {NAME}: {error}\n"));
            let is_usage = matches!(error, ModeratorError::Name(_));
            ExitCode::from(if is_usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

/// Why a command has changed nothing.
#[derive(Debug, Error)]
enum ModeratorError {
    #[error("DATABASE_PATH is off: without a store there are no named moderators")]
    NoStore,
    #[error("{0}")]
    Name(String),
    #[error("{name} counts as the same name as {existing}, which is a moderator already: remove that first")]
    LooksAlike { name: Username, existing: Username },
    #[error("there is no moderator with the name {0}")]
    Unknown(Username),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

fn parse(name: &str) -> Result<Username, ModeratorError> {
    Username::parse(name).map_err(|error| ModeratorError::Name(error.to_string()))
}

fn add(path: &Path, name: &Username) -> Result<String, ModeratorError> {
    let existing = match moderators::list(path) {
        Ok(existing) => existing,
        Err(StoreError::Missing(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let other = existing.into_iter().map(|moderator| moderator.name);
    if let Some(existing) = other.into_iter().find(|other| other != name && other.key().is_same(name.key())) {
        return Err(ModeratorError::LooksAlike { name: name.clone(), existing });
    }
    let hash = new_hash(&read_password(MIN_PASSWORD_CHARS)?)?;
    let is_new = moderators::add(path, name, &hash.to_string())?;
    let done = if is_new { "is now a moderator" } else { "has a new password" };
    Ok(format!("{name} {done}. {}\n", tell_server(path)))
}

fn remove(path: &Path, name: &Username) -> Result<String, ModeratorError> {
    if moderators::remove(path, name)? {
        Ok(format!("{name} is no longer a moderator. {}\n", tell_server(path)))
    } else {
        Err(ModeratorError::Unknown(name.clone()))
    }
}

/// The names, one on each line.
fn list(path: &Path) -> Result<String, ModeratorError> {
    Ok(moderators::list(path)?.into_iter().map(|moderator| format!("{}\n", moderator.name)).collect())
}

/// What became of the server that uses the store: it reloads the moderators on SIGHUP.
enum Told {
    NoServer,
    Server(Pid),
    Failed(String),
}

fn tell_server(path: &Path) -> Told {
    match server_pid(path) {
        Ok(None) => Told::NoServer,
        Ok(Some(pid)) => match kill_process(pid, Signal::HUP) {
            Ok(()) => Told::Server(pid),
            Err(error) => Told::Failed(format!("process {pid}: {error}")),
        },
        Err(error) => Told::Failed(error.to_string()),
    }
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NoServer => formatter.write_str("No server uses the store at the moment."),
            Self::Server(pid) => write!(formatter, "The server (process {pid}) has been told to reload."),
            Self::Failed(error) => write!(
                formatter,
                "The server cannot be told ({error}): reload it, for example with systemctl reload tinychat."
            ),
        }
    }
}
