//! The SQLite connection that writes: opening, transactions, checkpoints, and a file that was deleted while it is open.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::files::{self, FileIdentity, beside, copy_into};
use super::lock::Lock;
use super::reading::open_for_reading;
use super::schema::{SCHEMA, migrate, version};

/// Files up to this size are checked completely at the start, in bytes. It takes some 20 ms.
const CHECKED_BYTES: u64 = 16 * 1024 * 1024;
/// How long to wait for a transaction of another process.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command waits for a transaction of the server.
const COMMAND_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a checkpoint waits for readers in other processes.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);
/// SQLite's page cache, in KiB.
const CACHE_KIB: u32 = 2048;
/// The write-ahead log, and its index.
pub const LOG_SUFFIXES: [&str; 2] = ["-wal", "-shm"];

pub struct Database {
    connection: Connection,
    path: PathBuf,
    files: Files,
    /// See [`Self::notice_other_writers`].
    data_version: i64,
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

/// The files of an open database. They are only looked at from outside: to open and close one of them would end SQLite's
/// locks (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
struct Files {
    database: FileIdentity,
    /// The size of the database, in bytes. It changes with checkpoints only.
    bytes: u64,
    /// The write-ahead log, and its index.
    log: [Option<FileIdentity>; 2],
}

/// What is at the path of an open database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FileState {
    Same,
    Deleted,
    /// Only the write-ahead log or its index.
    LogDeleted,
    Replaced,
    /// Cut short, or overwritten in place, by something other than SQLite.
    Overwritten,
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

    /// The same as [`Self::open`], without reading all of the file.
    pub fn open_unchecked(path: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
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
        // The first time that it is read in this mode, SQLite creates the log.
        connection.execute_batch("SELECT 1 FROM sqlite_schema").map_err(sqlite)?;
        let files = Files::of(path)
            .map_err(|error| StoreError::io(path, error))?
            .ok_or_else(|| StoreError::io(path, ErrorKind::NotFound.into()))?;
        let data_version = data_version(&connection).map_err(sqlite)?;
        Ok(Self {
            connection,
            path: path.into(),
            files,
            data_version,
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
        if let Ok(Some(files)) = Files::of(&self.path)
            && files.database == self.files.database
        {
            self.files.bytes = files.bytes;
        }
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        is_busy.map(|is_busy| !is_busy)
    }

    /// Whether another process has changed the database since the last call.
    pub fn notice_other_writers(&mut self) -> rusqlite::Result<bool> {
        let version = data_version(&self.connection)?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// The size of the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        fs::metadata(beside(&self.path, "-wal")).map_or(0, |file| file.len())
    }

    /// Compares what is at the paths with what is open. Takes some 5 µs.
    ///
    /// # Errors
    /// The folder cannot be searched.
    pub fn file_state(&mut self) -> io::Result<FileState> {
        let Some(files) = Files::of(&self.path)? else { return Ok(FileState::Deleted) };
        if files.database != self.files.database {
            return Ok(FileState::Replaced);
        }
        if files.bytes != self.files.bytes {
            if !self.has_resized(files.bytes).map_err(io::Error::other)? {
                return Ok(FileState::Overwritten);
            }
            self.files.bytes = files.bytes;
        }
        Ok(if files.log == self.files.log { FileState::Same } else { FileState::LogDeleted })
    }

    /// Whether another process can have given the database this size through SQLite.
    fn has_resized(&self, bytes: u64) -> rusqlite::Result<bool> {
        if bytes < self.files.bytes {
            return Ok(data_version(&self.connection)? != self.data_version);
        }
        let pragma =
            |name| self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        Ok(bytes <= (pragma("page_count")? * pragma("page_size")?).cast_unsigned())
    }

    /// Leaves the files as they are from now on, without a log, which would be applied to what has taken the place of the
    /// database.
    pub fn abandon(&mut self) {
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        for (suffix, own) in LOG_SUFFIXES.into_iter().zip(self.files.log) {
            let path = beside(&self.path, suffix);
            if own.is_some() && FileIdentity::of(&path).is_ok_and(|identity| identity == own) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Writes the complete database to its path again after one of its files was deleted, and continues with the new
    /// files.
    ///
    /// # Errors
    /// It cannot be written. The database is as before.
    pub fn write_again(&mut self) -> Result<(), StoreError> {
        let copy = beside(&self.path, ".copy");
        copy_into(&self.connection, &copy)?;
        // SQLite finds these by name, and they belong to the file that is gone.
        for suffix in LOG_SUFFIXES {
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
        (self.connection, self.files) = (reopened.connection, reopened.files);
        self.data_version = reopened.data_version;
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

impl Files {
    /// `None`: there is no database.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let file = match fs::metadata(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let [log, index] = LOG_SUFFIXES.map(|suffix| FileIdentity::of(&beside(path, suffix)));
        Ok(Some(Self { database: FileIdentity::from(&file), bytes: file.len(), log: [log?, index?] }))
    }
}

/// A number that changes when another connection has changed the database.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}
