//! The SQLite connection that writes: opening, transactions, checkpoints, and a file that was deleted while it is open.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::files::{self, FileIdentity, beside, copy_into};
use super::lock::Lock;
use super::reading::open_for_reading;
use super::schema::{SCHEMA, migrate, version};

/// Files up to this size are checked completely at the start, in bytes. It takes some 20 ms.
const CHECKED_BYTES: u64 = 16 * 1024 * 1024;
/// How long to wait for a transaction of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command waits for a transaction of the server.
const COMMAND_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a checkpoint waits for readers in other processes.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);
/// SQLite's page cache, in KiB.
const CACHE_KIB: u32 = 2048;

pub struct Database {
    connection: Connection,
    path: PathBuf,
    identity: FileIdentity,
    /// For a command while no server is running.
    _lock: Option<Lock>,
    /// Called at the start of each transaction, before its commit, and before a checkpoint.
    #[cfg(test)]
    pub hook: Option<Hook>,
}

#[cfg(test)]
pub type Hook = Box<dyn FnMut(Point, &Connection) -> rusqlite::Result<()> + Send>;

/// When [`Database::hook`] is called.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    Begin,
    Commit,
    Checkpoint,
}

/// What is at the path of an open database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FileState {
    Same,
    Deleted,
    Replaced,
}

impl Database {
    /// Opens the store, or creates it, and upgrades its schema. `path`: without symbolic links.
    ///
    /// # Errors
    /// It cannot be used: see [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Self::open_unchecked(path, BUSY_TIMEOUT)?;
        database.quick_check()?;
        Ok(database)
    }

    /// Opens the store, or creates it, for one change while a server may be running.
    ///
    /// # Errors
    /// It cannot be used: see [`StoreError`]. While a server of another version is running, its schema is not upgraded.
    pub fn open_for_command(path: &Path) -> Result<Self, StoreError> {
        let path = &files::resolve(path)?;
        let is_new = files::is_new(path)?;
        let lock = match Lock::take(path) {
            Ok(lock) => Some(lock),
            Err(StoreError::InUse { .. }) if !is_new => None,
            Err(error) => return Err(error),
        };
        if lock.is_none() {
            let server = open_for_reading(path)?;
            let version = version(&server).map_err(|error| StoreError::sqlite(path, error))?;
            if (version as usize) < SCHEMA.len() {
                return Err(StoreError::OlderServer(path.clone()));
            }
        }
        let database = Self::open_unchecked(path, COMMAND_BUSY_TIMEOUT)?;
        Ok(Self { _lock: lock, ..database })
    }

    fn open_unchecked(path: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let sqlite = |error| StoreError::sqlite(path, error);
        if files::is_new(path)? {
            files::create(path)?;
        }
        files::make_private(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(|error| {
            // SQLite does not say why.
            match fs::OpenOptions::new().read(true).write(true).open(path) {
                Err(source) => StoreError::io(path, source),
                Ok(_) => sqlite(error),
            }
        })?;
        if connection.is_readonly("main").map_err(sqlite)? {
            return Err(StoreError::NotWritable {
                path: path.into(),
                reason: "the file is read-only".into(),
            });
        }
        connection.busy_timeout(busy_timeout).map_err(sqlite)?;
        let configure = format!(
            "PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA cache_size=-{CACHE_KIB}; \
             PRAGMA temp_store=MEMORY; PRAGMA trusted_schema=OFF"
        );
        connection.execute_batch(&configure).map_err(sqlite)?;
        migrate(&mut connection, path, SCHEMA)?;
        // Only now, so that the application id is in the file itself from the first transaction on.
        let mode: String =
            connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(sqlite)?;
        if mode != "wal" {
            let reason = "its file system has no shared memory";
            return Err(StoreError::NotWritable { path: path.into(), reason: reason.into() });
        }
        connection.execute_batch("PRAGMA wal_autocheckpoint=0").map_err(sqlite)?;
        let identity = FileIdentity::of(path)
            .map_err(|error| StoreError::io(path, error))?
            .ok_or_else(|| StoreError::io(path, ErrorKind::NotFound.into()))?;
        Ok(Self {
            connection,
            path: path.into(),
            identity,
            _lock: None,
            #[cfg(test)]
            hook: None,
        })
    }

    /// Checks the whole file, unless it is large.
    fn quick_check(&self) -> Result<(), StoreError> {
        let bytes = fs::metadata(&self.path).map_or(0, |file| file.len()) + self.wal_bytes();
        if bytes > CHECKED_BYTES {
            return Ok(());
        }
        let result: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| StoreError::sqlite(&self.path, error))?;
        if result == "ok" {
            Ok(())
        } else {
            Err(StoreError::Damaged { path: self.path.clone(), reason: result })
        }
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a transaction. `is_synced`: on return it survives a power cut, and so do all earlier ones; otherwise it
    /// survives a crash of the process.
    ///
    /// # Errors
    /// Nothing of it is stored.
    pub fn write<R>(
        &mut self,
        is_synced: bool,
        write: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        // In WAL mode, FULL syncs the log at each commit, and NORMAL only at checkpoints.
        let synchronous = if is_synced { "FULL" } else { "NORMAL" };
        self.connection.execute_batch(&format!("PRAGMA synchronous={synchronous}"))?;
        #[cfg(test)]
        if let Some(hook) = &mut self.hook {
            hook(Point::Begin, &self.connection)?;
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let result = write(&self.connection).and_then(|result| {
            #[cfg(test)]
            if let Some(hook) = &mut self.hook {
                hook(Point::Commit, &self.connection)?;
            }
            self.connection.execute_batch("COMMIT")?;
            Ok(result)
        });
        // SQLite rolls back by itself after some errors.
        if result.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    /// Moves the write-ahead log into the database file, and empties it: what was deleted is then in neither of them.
    /// Returns `false` if a reader in another process prevents that for now.
    ///
    /// # Errors
    /// The database cannot be written. The log still has everything.
    pub fn checkpoint(&mut self) -> rusqlite::Result<bool> {
        #[cfg(test)]
        if let Some(hook) = &mut self.hook {
            hook(Point::Checkpoint, &self.connection)?;
        }
        self.connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
        let is_busy =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        is_busy.map(|is_busy| !is_busy)
    }

    /// A number that changes when another process has changed the database.
    pub fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))
    }

    /// The size of the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        fs::metadata(beside(&self.path, "-wal")).map_or(0, |file| file.len())
    }

    /// # Errors
    /// The folder cannot be searched.
    pub fn file_state(&self) -> std::io::Result<FileState> {
        Ok(match FileIdentity::of(&self.path)? {
            Some(identity) if identity == self.identity => FileState::Same,
            Some(_) => FileState::Replaced,
            None => FileState::Deleted,
        })
    }

    /// Writes the complete database to its path again after its file was deleted, and continues with the new file.
    ///
    /// # Errors
    /// It cannot be written. The database is as before.
    pub fn write_again(&mut self) -> Result<(), StoreError> {
        let copy = beside(&self.path, ".copy");
        copy_into(&self.connection, &copy)?;
        // SQLite finds these by name, and they belong to the file that is gone.
        for suffix in ["-wal", "-shm"] {
            match fs::remove_file(beside(&self.path, suffix)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io(&self.path, error));
                }
                _ => {}
            }
        }
        fs::rename(&copy, &self.path)
            .and_then(|()| files::sync_folder(&self.path))
            .map_err(|error| StoreError::io(&self.path, error))?;
        let reopened = Self::open_unchecked(&self.path, BUSY_TIMEOUT)?;
        (self.connection, self.identity) = (reopened.connection, reopened.identity);
        Ok(())
    }

    /// Closes the database. If no other process has it open, only its file remains.
    ///
    /// # Errors
    /// The last checkpoint has failed. Nothing is lost: the next start completes it.
    pub fn close(self) -> rusqlite::Result<()> {
        self.connection.close().map_err(|(_, error)| error)
    }
}
