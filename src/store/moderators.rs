//! The named moderators: their names, which are reserved, and the hashes of their passwords.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::database::Database;
use super::error::StoreError;
use super::int;
use super::moderation::{record_command, username};
use super::reading::open_for_reading;
use crate::chat::{NamedModerator, Username};
use crate::ops::clock;

/// Adds a moderator, or replaces its hash and the spelling of its name. The store is created if there is none. A server
/// that is running applies the change on SIGHUP. Returns whether the moderator is new.
///
/// # Errors
/// The store cannot be used.
pub fn add(path: &Path, name: &Username, hash: &str) -> Result<bool, StoreError> {
    let mut database = Database::open_for_command(path)?;
    let added = database.write(true, |connection| {
        let replaced = delete(connection, name)?;
        insert(connection, name, hash, int(clock::unix_millis()))?;
        record_command(connection, if replaced { "set-password" } else { "add-moderator" }, name)?;
        Ok(!replaced)
    });
    added.map_err(|error| StoreError::sqlite(path, error))
}

/// Removes the moderator with this name, or with one that counts as the same. Returns whether there was one.
///
/// # Errors
/// The store cannot be used, or there is none.
pub fn remove(path: &Path, name: &Username) -> Result<bool, StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing(path.into()));
    }
    let mut database = Database::open_for_command(path)?;
    database
        .write(true, |connection| {
            let removed = delete(connection, name)?;
            if removed {
                record_command(connection, "remove-moderator", name)?;
            }
            Ok(removed)
        })
        .map_err(|error| StoreError::sqlite(path, error))
}

/// All named moderators, in the order in which they were added.
///
/// # Errors
/// The store cannot be read, or there is none.
pub fn list(path: &Path) -> Result<Vec<NamedModerator>, StoreError> {
    let connection = open_for_reading(path)?;
    all(&connection).map_err(|error| StoreError::sqlite(path, error))
}

/// All named moderators.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<NamedModerator>> {
    let moderator = |row: &Row| {
        Ok((username(row, 0)?.zip(Some(row.get(1)?))).map(|(name, hash)| NamedModerator { name, hash }))
    };
    let sql = "SELECT name, hash FROM moderators ORDER BY added, rowid";
    let rows: Vec<_> = connection.prepare(sql)?.query_map([], moderator)?.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().flatten().collect())
}

/// Stores these moderators in place of the earlier ones.
pub(super) fn replace(
    connection: &Connection,
    moderators: &[NamedModerator],
    now_unix_millis: u64,
) -> rusqlite::Result<()> {
    let added = |moderator: &NamedModerator| {
        let sql = "SELECT added FROM moderators WHERE name = ?1";
        let added = connection.query_row(sql, [moderator.name.shown()], |row| row.get(0)).optional()?;
        Ok(added.unwrap_or(int(now_unix_millis)))
    };
    let added = moderators.iter().map(added).collect::<rusqlite::Result<Vec<i64>>>()?;
    connection.execute("DELETE FROM moderators", [])?;
    moderators
        .iter()
        .zip(added)
        .try_for_each(|(NamedModerator { name, hash }, added)| insert(connection, name, hash, added))
}

fn insert(connection: &Connection, name: &Username, hash: &str, added: i64) -> rusqlite::Result<()> {
    let (spelling, skeleton) = (name.key().spelling(), name.key().skeleton());
    let values = params![name.shown(), spelling, skeleton, hash, added];
    connection.execute("INSERT INTO moderators VALUES (?1, ?2, ?3, ?4, ?5)", values).map(drop)
}

/// Returns whether there was one.
fn delete(connection: &Connection, name: &Username) -> rusqlite::Result<bool> {
    let (spelling, skeleton) = (name.key().spelling(), name.key().skeleton());
    let sql = "DELETE FROM moderators WHERE spelling = ?1 OR skeleton = ?2";
    Ok(connection.execute(sql, [spelling, skeleton])? > 0)
}
