//! Why the store cannot be used.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rustix::process::Pid;
use thiserror::Error;

/// Why the store cannot be opened, read or changed. Each message is one line that names the file, the reason and the
/// remedy.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "The store {} cannot be used: its folder does not exist; create the folder, or set DATABASE_PATH to \
         another file",
        .0.display()
    )]
    NoFolder(PathBuf),
    #[error(
        "The store {} cannot be created: its folder is not writable ({source}); give the user that runs TinyChat \
         write access to the folder, or set DATABASE_PATH to another file, or to off",
        path.display()
    )]
    FolderNotWritable { path: PathBuf, source: io::Error },
    #[error(
        "The store {} is not writable ({reason}); give the user that runs TinyChat write access to the file and its \
         folder, or set DATABASE_PATH to another file",
        path.display()
    )]
    NotWritable { path: PathBuf, reason: String },
    #[error("The store {} is not a file; set DATABASE_PATH to the path of a file", .0.display())]
    NotAFile(PathBuf),
    #[error(
        "The store {} is not a SQLite database; move the file away, or set DATABASE_PATH to another file",
        .0.display()
    )]
    NotSqlite(PathBuf),
    #[error(
        "The store {} is the database of another program; set DATABASE_PATH to another file",
        .0.display()
    )]
    OtherProgram(PathBuf),
    #[error(
        "The store {} is damaged ({}); restore a backup, or move the file away to start with an empty store",
        path.display(), one_line(reason)
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "The store {} was made by a newer TinyChat (schema {version}; this one knows {known}); upgrade TinyChat, or \
         restore a backup from before the upgrade",
        path.display()
    )]
    Newer { path: PathBuf, version: u32, known: u32 },
    #[error("The store {} is in use by a server of an older version; restart that server first", .0.display())]
    OlderServer(PathBuf),
    #[error(
        "The store {} is in use by another TinyChat{}; stop that server, or set another DATABASE_PATH",
        path.display(), process(*pid)
    )]
    InUse { path: PathBuf, pid: Option<Pid> },
    #[error(
        "The store {} is a symbolic link to a file that does not exist; remove the link, \
         or set DATABASE_PATH to another file",
        .0.display()
    )]
    DanglingLink(PathBuf),
    #[error(
        "The store {} holds another chat, and cannot be renamed ({source}); give the user that runs TinyChat write \
         access to its folder, or set DATABASE_PATH to another file",
        path.display()
    )]
    NotSetAside { path: PathBuf, source: io::Error },
    #[error("There is no store at {}; it is created when the server starts", .0.display())]
    Missing(PathBuf),
    #[error("The store {} cannot be used ({source}); check the disk and the file's permissions", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "The store {} cannot be used ({}); check the disk and the file's permissions",
        path.display(), one_line(&source.to_string())
    )]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    #[error("The output cannot be written ({0})")]
    Output(io::Error),
}

impl StoreError {
    /// Whether there is no store yet, and none can be created in the folder. If `DATABASE_PATH` is not set, the server
    /// runs without one.
    pub fn is_folder_not_writable(&self) -> bool {
        matches!(self, Self::FolderNotWritable { .. })
    }

    /// `path`: of the store.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.into();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, reason: source.to_string() },
            Some(ErrorCode::NotADatabase) => Self::NotSqlite(path),
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::NotWritable { path, reason: source.to_string() }
            }
            _ => Self::Sqlite { path, source },
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, reason: source.to_string() }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// SQLite's reasons can have several lines.
fn one_line(reason: &str) -> String {
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn process(pid: Option<Pid>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}
