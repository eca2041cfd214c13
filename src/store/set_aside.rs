//! Moves or copies a store away, so that the server can continue with an empty one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::database::{BUSY_TIMEOUT, Database, LOG_SUFFIXES};
use super::error::StoreError;
use super::files::{self, beside, create_new, sync_folder};
use super::lock::Lock;

/// How many stores with the same epoch can be set aside in one folder.
const MAX_BACKUPS: u32 = 100;
/// The most characters of an epoch in a file name.
const MAX_EPOCH_CHARS: usize = 32;

/// Renames a closed store to `tinychat.db.EPOCH-backup`, or to `tinychat.db.EPOCH-backup-2` and so on if there is such
/// a file, and leaves an empty store in its place. For a server that joins a chat other than the one in its store.
/// Returns the new path.
///
/// # Errors
/// The store is in use, or cannot be renamed. It is as before.
#[allow(dead_code, reason = "only with the feature cluster")]
pub fn set_aside(path: &Path, epoch: &str) -> Result<PathBuf, StoreError> {
    let path = &files::resolve(path)?;
    if files::is_new(path)? {
        return Err(StoreError::Missing(path.clone()));
    }
    let _lock = Lock::take(path)?;
    let mut database = Database::open_unchecked(path, BUSY_TIMEOUT)?;
    let closed = database.checkpoint().and_then(|_| database.close());
    closed.map_err(|error| StoreError::sqlite(path, error))?;
    let failed = |source| StoreError::NotSetAside { path: path.clone(), source };
    let backup = reserve(path, epoch).map_err(failed)?;
    let moved = rename(path, &backup);
    if moved.is_err() {
        let _ = fs::remove_file(&backup);
    }
    moved.map_err(failed)?;
    // Otherwise a symbolic link to the store would lead nowhere.
    create_new(path).and_then(|_| sync_folder(path)).map_err(failed)?;
    Ok(backup)
}

/// Copies an open store to a file that is named as by [`set_aside`], and returns its path.
///
/// # Errors
/// It cannot be copied. No file remains.
pub fn back_up(connection: &Connection, path: &Path, epoch: &str) -> Result<PathBuf, StoreError> {
    let backup = reserve(path, epoch).map_err(|error| StoreError::io(path, error))?;
    let copied = files::copy_into(connection, &backup);
    if copied.is_err() {
        let _ = fs::remove_file(&backup);
    }
    copied.map(|()| backup)
}

/// Creates an empty file for the store to replace, so that it replaces nothing else.
fn reserve(path: &Path, epoch: &str) -> io::Result<PathBuf> {
    let epoch: String = epoch.chars().filter(char::is_ascii_alphanumeric).take(MAX_EPOCH_CHARS).collect();
    let numbers = (2..=MAX_BACKUPS).map(|number| format!("-{number}"));
    for number in [String::new()].into_iter().chain(numbers) {
        let backup = beside(path, &format!(".{epoch}-backup{number}"));
        // SQLite would apply what is left of another store.
        if LOG_SUFFIXES.iter().any(|suffix| fs::symlink_metadata(beside(&backup, suffix)).is_ok()) {
            continue;
        }
        match create_new(&backup) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            created => return created.map(|_| backup),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, format!("there are {MAX_BACKUPS} with this epoch")))
}

/// Renames the database, and before it what a reader in another process has kept from being moved into it.
fn rename(path: &Path, to: &Path) -> io::Result<()> {
    for suffix in LOG_SUFFIXES {
        match fs::rename(beside(path, suffix), beside(to, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, to)
}
