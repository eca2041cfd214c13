//! The tables, and how older ones are upgraded. docs/operations.md describes the tables and columns; a test compares.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::StoreError;
use super::files::{beside, copy_into};

/// Identifies the file as TinyChat's: `TCht`.
pub const APPLICATION_ID: u32 = 0x5443_6874;

/// One step for each version. A new store runs all of them, and an older one those that it lacks. A step that has been
/// released is never changed.
pub const SCHEMA: &[&str] = &["
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        timestamp TEXT NOT NULL,
        type TEXT NOT NULL,
        username TEXT NOT NULL,
        content TEXT NOT NULL,
        txn_id TEXT
    ) STRICT;
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY,
        name TEXT,
        network TEXT,
        moderator TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER,
        reason TEXT NOT NULL
    ) STRICT;
    CREATE TABLE time_outs (
        name TEXT NOT NULL,
        spelling TEXT NOT NULL,
        skeleton TEXT NOT NULL,
        moderator TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE moderators (
        name TEXT NOT NULL,
        spelling TEXT NOT NULL,
        skeleton TEXT NOT NULL,
        hash TEXT NOT NULL,
        added INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        moderator TEXT NOT NULL,
        address TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT,
        until INTEGER,
        reason TEXT
    ) STRICT;
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

/// Creates the tables in a new database, or upgrades them. A copy of an older database is left beside it.
///
/// # Errors
/// The database is newer than `steps`, or it cannot be written.
pub fn migrate(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let version = version(connection).map_err(sqlite)?;
    let known = steps.len() as u32;
    if version > known {
        return Err(StoreError::Newer { path: path.into(), version, known });
    }
    if version == known {
        return Ok(());
    }
    let is_empty = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    let is_new: bool = connection.query_row(is_empty, [], |row| row.get(0)).map_err(sqlite)?;
    if !is_new {
        copy_into(connection, &backup_path(path, version))?;
    }
    let transaction = connection.transaction().map_err(sqlite)?;
    let missing = steps.iter().skip(version as usize).copied().collect::<String>();
    let script = format!("PRAGMA application_id={APPLICATION_ID}; {missing} PRAGMA user_version={known};");
    transaction.execute_batch(&script).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)
}

/// The number of steps that the database has.
pub fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Where the copy of an older database is left.
fn backup_path(path: &Path, version: u32) -> PathBuf {
    beside(path, &format!(".v{version}-backup"))
}
