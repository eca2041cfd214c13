//! The tables, and how older ones are upgraded. docs/operations.md describes the tables and columns; a test compares.

use std::path::{Path, PathBuf};

use log::info;
use rusqlite::Connection;

use super::error::StoreError;
use super::files::{beside, copy_into};

/// Identifies the file as TinyChat's: `TCht`.
pub const APPLICATION_ID: u32 = 0x5443_6874;

/// One step for each version. A new store runs all of them, and an older one those that it lacks. A step that has been
/// released is never changed.
pub const SCHEMA: &[&str] = &[
    "
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        timestamp TEXT NOT NULL,
        type TEXT NOT NULL,
        username TEXT NOT NULL,
        content TEXT NOT NULL,
        txn_id TEXT
    ) STRICT;
    CREATE INDEX messages_by_time ON messages (time);
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
    ",
    "
    CREATE TABLE deletions (
        id INTEGER PRIMARY KEY,
        message INTEGER NOT NULL
    ) STRICT;
    ",
    "
    DROP INDEX messages_by_time;
    ",
];

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
        let backup = backup_path(path, version);
        copy_into(connection, &backup)?;
        info!(
            "The store {} is upgraded from schema {version} to {known}; {} is a copy of it",
            path.display(),
            backup.display()
        );
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Row;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_docs_list_all_tables_and_columns() {
        let docs =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
        let section = docs.split("### Tables\n").nth(1).unwrap().split("\n#").next().unwrap();
        let cells = |row: &str| row.split(" | ").map(str::to_owned).collect::<Vec<_>>();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")).map(cells);
        let documented: Vec<(String, String)> = rows
            .flat_map(|row| {
                let columns = row[1].split(", ").map(|column| column.trim_matches('`').to_owned());
                columns.map(|column| (row[0].trim_matches('`').to_owned(), column)).collect::<Vec<_>>()
            })
            .collect();
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("unused"), SCHEMA).unwrap();
        let sql = "SELECT tables.name, columns.name FROM sqlite_schema AS tables \
                   JOIN pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'";
        let column = |row: &Row| Ok((row.get(0)?, row.get(1)?));
        let columns =
            connection.prepare(sql).unwrap().query_map([], column).unwrap().collect::<Result<Vec<_>, _>>();
        assert_eq!(documented, columns.unwrap());
    }

    /// In a folder, a store with a schema of one table, and a second step for it.
    fn old_store(folder: &TempDir) -> (PathBuf, Connection, [&'static str; 2]) {
        let steps = [
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT);",
            "ALTER TABLE notes ADD COLUMN author TEXT; UPDATE notes SET author = 'Ann';",
        ];
        let path = folder.path().join("tinychat.db");
        let mut connection = Connection::open(&path).unwrap();
        migrate(&mut connection, &path, &steps[..1]).unwrap();
        connection.execute_batch("INSERT INTO notes VALUES (1, 'hello')").unwrap();
        (path, connection, steps)
    }

    #[test]
    fn an_older_schema_is_upgraded_and_a_copy_is_left() {
        let folder = TempDir::new().unwrap();
        let (path, mut connection, steps) = old_store(&folder);
        migrate(&mut connection, &path, &steps).unwrap();
        assert_eq!(version(&connection), Ok(2));
        let author: String = connection.query_row("SELECT author FROM notes", [], |row| row.get(0)).unwrap();
        assert_eq!(author, "Ann");
        let backup = backup_path(&path, 1);
        assert!(backup.ends_with("tinychat.db.v1-backup"));
        assert!(!crate::store::files::is_new(&backup).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&backup).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let copy = Connection::open(&backup).unwrap();
        assert_eq!(version(&copy), Ok(1));
        let columns = copy.query_row("SELECT count(*) FROM pragma_table_info('notes')", [], |row| row.get(0));
        assert_eq!(columns, Ok(2));
        // An upgrade that has been done is not repeated.
        fs::remove_file(&backup).unwrap();
        migrate(&mut connection, &path, &steps).unwrap();
        assert!(!backup.exists());
    }

    #[test]
    fn the_copy_of_an_older_store_belongs_to_the_folders_owner() {
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = TempDir::new().unwrap();
        let (path, mut connection, steps) = old_store(&folder);
        // Without being root, to whom it belongs already.
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(65534), Some(65534)).unwrap();
        }
        migrate(&mut connection, &path, &steps).unwrap();
        let owner = |path: &Path| fs::metadata(path).map(|file| (file.uid(), file.gid())).unwrap();
        assert_eq!(owner(&backup_path(&path, 1)), owner(folder.path()));
    }

    #[test]
    fn an_upgrade_that_fails_changes_nothing() {
        let folder = TempDir::new().unwrap();
        let (path, mut connection, [first, second]) = old_store(&folder);
        let error = migrate(&mut connection, &path, &[first, second, "INSERT INTO nowhere VALUES (1);"]);
        assert!(matches!(error, Err(StoreError::Sqlite { .. })), "{error:?}");
        assert_eq!(version(&connection), Ok(1));
        let columns =
            connection.query_row("SELECT count(*) FROM pragma_table_info('notes')", [], |row| row.get(0));
        assert_eq!(columns, Ok(2));
    }

    #[test]
    fn a_newer_schema_is_not_touched() {
        let folder = TempDir::new().unwrap();
        let (path, mut connection, steps) = old_store(&folder);
        migrate(&mut connection, &path, &steps).unwrap();
        let error = migrate(&mut connection, &path, &steps[..1]).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 2, known: 1, .. }), "{error}");
    }
}
