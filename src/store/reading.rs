//! Reading the store from other processes, whether or not a server is running: `tinychat export`, `audit` and `check`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};
use rustix::fs::{Access, access};
use rustix::process::Pid;

use super::error::StoreError;
use super::files::{self, beside};
use super::lock::server_pid;
use super::messages::{COLUMNS, read};
use super::moderation::meta;
use super::schema::{SCHEMA, version};
use super::{MAX_AGE_KEY, int};
use crate::ops::Escaped;
use crate::ops::clock;

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What `tinychat check` reports.
#[derive(Debug)]
pub struct Inspection {
    /// How many messages are kept.
    pub messages: u64,
    /// The size of the database and its log, in bytes.
    pub bytes: u64,
    /// The version of the schema. Older than [`schema_version`]: the server will upgrade it.
    pub version: u32,
    /// When the oldest and the newest message were sent, in milliseconds since 1970; `None`: there are none.
    pub times: Option<(u64, u64)>,
    /// The server that uses it.
    pub in_use: Option<Pid>,
}

/// The version of the schema that this program writes.
pub fn schema_version() -> u32 {
    SCHEMA.len() as u32
}

/// Writes the kept messages as JSON lines, the oldest first, as they were sent, without those that are too old by the
/// limit of the last server.
///
/// # Errors
/// The store cannot be read, or the output cannot be written.
pub fn export(path: &Path, out: &mut dyn Write) -> Result<(), StoreError> {
    let connection = open_for_reading(path)?;
    let max_age = meta(&connection, MAX_AGE_KEY).map_err(|error| StoreError::sqlite(path, error))?;
    let max_age: u64 = max_age.and_then(|millis| millis.parse().ok()).unwrap_or(u64::MAX);
    let oldest_kept = int(clock::unix_millis().saturating_sub(max_age));
    let sql = format!("SELECT {COLUMNS} FROM messages WHERE time >= {oldest_kept} ORDER BY id");
    for_each(path, &connection, &sql, |row| {
        let message = read(row).map_err(|error| StoreError::sqlite(path, error))?;
        out.write_all(&message.json).and_then(|()| out.write_all(b"\n")).map_err(StoreError::Output)
    })?;
    out.flush().map_err(StoreError::Output)
}

/// Writes the audit log, the oldest act first: one line for each, with the columns of the table `audit`
/// separated by tabs.
///
/// # Errors
/// The store cannot be read, or the output cannot be written.
pub fn audit(path: &Path, out: &mut dyn Write) -> Result<(), StoreError> {
    let connection = open_for_reading(path)?;
    let sql = "SELECT time, moderator, address, action, target, until, reason FROM audit ORDER BY id";
    for_each(path, &connection, sql, |row| {
        let line = audit_line(row).map_err(|error| StoreError::sqlite(path, error))?;
        writeln!(out, "{line}").map_err(StoreError::Output)
    })?;
    out.flush().map_err(StoreError::Output)
}

/// Checks the store without creating or changing anything. `None`: there is none, and the server can create it.
///
/// # Errors
/// The server cannot use it.
pub fn inspect(path: &Path) -> Result<Option<Inspection>, StoreError> {
    let path = &files::resolve(path)?;
    let is_new = files::is_new(path)?;
    if path.exists() {
        let access = access(path, Access::READ_OK | Access::WRITE_OK);
        access.map_err(|error| StoreError::io(path, error.into()))?;
    } else {
        let folder = path.parent().unwrap_or(Path::new("/"));
        access(folder, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| StoreError::FolderNotWritable { path: path.clone(), source: error.into() })?;
    }
    if is_new {
        return Ok(None);
    }
    let in_use = server_pid(path)?;
    let connection = open_for_reading(path)?;
    let sqlite = |error| StoreError::sqlite(path, error);
    let version = version(&connection).map_err(sqlite)?;
    let integrity: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if integrity != "ok" {
        return Err(StoreError::Damaged { path: path.clone(), reason: integrity });
    }
    let messages = connection.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0));
    let time = |order| {
        let sql = format!("SELECT time FROM messages ORDER BY id {order} LIMIT 1");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok().map(i64::cast_unsigned)
    };
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    Ok(Some(Inspection {
        messages: messages.map_err(sqlite)?.cast_unsigned(),
        bytes: size(path) + size(&beside(path, "-wal")),
        version,
        times: time("ASC").zip(time("DESC")),
        in_use,
    }))
}

/// Opens an existing store for reading.
///
/// # Errors
/// There is none, or it is not TinyChat's, or it is of a newer one.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, StoreError> {
    // SQLite's other files are beside the file itself, not beside a symbolic link to it.
    let path = &files::resolve(path)?;
    if files::is_new(path)? {
        return Err(StoreError::Missing(path.into()));
    }
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Without a log, no server is running. SQLite would create one, and leave it behind.
    let connection = if beside(path, "-wal").exists() {
        Connection::open_with_flags(path, read_only)
    } else {
        Connection::open_with_flags(immutable(path), read_only | OpenFlags::SQLITE_OPEN_URI)
    };
    let connection = connection.map_err(|error| match fs::File::open(path) {
        Err(source) => StoreError::io(path, source),
        Ok(_) => StoreError::sqlite(path, error),
    })?;
    let sqlite = |error| StoreError::sqlite(path, error);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    let version = version(&connection).map_err(sqlite)?;
    if version > schema_version() {
        return Err(StoreError::Newer { path: path.into(), version, known: schema_version() });
    }
    Ok(connection)
}

/// A URI (<https://www.sqlite.org/uri.html>) that opens the file without locks and without other files beside it.
fn immutable(path: &Path) -> OsString {
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => uri.push(byte),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    OsString::from_vec(uri)
}

fn for_each(
    path: &Path,
    connection: &Connection,
    sql: &str,
    mut handle: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let mut select = connection.prepare(sql).map_err(sqlite)?;
    let mut rows = select.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        handle(row)?;
    }
    Ok(())
}

fn audit_line(row: &Row) -> rusqlite::Result<String> {
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let time = |column| -> rusqlite::Result<String> {
        let millis: Option<i64> = row.get(column)?;
        Ok(millis.map(|millis| clock::utc(millis.cast_unsigned())).unwrap_or_default())
    };
    let columns = [time(0)?, text(1)?, text(2)?, text(3)?, text(4)?, time(5)?, text(6)?];
    // A reason may contain tabs.
    Ok(columns.map(|column| Escaped(column).to_string()).join("\t"))
}
