//! The store's file: what it is, how it is created, and how it is copied.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use log::{info, warn};
use rusqlite::Connection;
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::geteuid;

use super::error::StoreError;
use super::schema::APPLICATION_ID;

/// The start of every SQLite database (<https://www.sqlite.org/fileformat.html>, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The length of the header, and where the application id is in it.
const HEADER_BYTES: usize = 100;
const APPLICATION_ID_AT: usize = 68;

/// Which file a path leads to: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileIdentity(u64, u64);

impl FileIdentity {
    /// `None`: there is no file.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(file) => Ok(Some(Self::from(&file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&Metadata> for FileIdentity {
    fn from(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

/// The path without symbolic links, so that all servers lock the same file.
///
/// # Errors
/// The folder does not exist, or cannot be searched, or the path is a symbolic link that leads nowhere.
pub fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    match fs::canonicalize(path) {
        Ok(path) => return Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(StoreError::NoFolder(path.into()));
        }
        Err(error) => return Err(StoreError::io(path, error)),
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(StoreError::DanglingLink(path.into()));
    }
    let name = path.file_name().ok_or_else(|| StoreError::NotAFile(path.into()))?;
    match fs::canonicalize(folder_of(path)) {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::NoFolder(path.into())),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// Whether the file has to be created or filled. Its header is read without SQLite, which could change the database of
/// another program: it completes interrupted transactions when it opens one.
///
/// # Errors
/// It is not TinyChat's database.
pub fn is_new(path: &Path) -> Result<bool, StoreError> {
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(StoreError::io(path, error)),
    };
    if !file.is_file() {
        return Err(StoreError::NotAFile(path.into()));
    }
    let mut header = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header))
        .map_err(|error| StoreError::io(path, error))?;
    if header.is_empty() {
        return Ok(true);
    }
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return Err(StoreError::NotSqlite(path.into()));
    }
    let id = &header[APPLICATION_ID_AT..APPLICATION_ID_AT + 4];
    if id == APPLICATION_ID.to_be_bytes() { Ok(false) } else { Err(StoreError::OtherProgram(path.into())) }
}

/// Creates an empty file that only its owner can read. SQLite gives the files beside it the same mode and owner.
///
/// # Errors
/// The folder does not exist or is not writable.
pub fn create(path: &Path) -> Result<(), StoreError> {
    match create_new(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::NoFolder(path.into())),
        Err(source)
            if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
        {
            Err(StoreError::FolderNotWritable { path: path.into(), source })
        }
        Err(error) => Err(StoreError::io(path, error)),
    }
}

/// Creates a file that only its owner can read. If root creates it, it belongs to the owner of its folder: otherwise a
/// server that runs as that user could not use it.
pub fn create_new(path: &Path) -> io::Result<File> {
    // Fails if the path is a link: its folder's owner could have created that, and would get the file that it leads to.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if geteuid().is_root()
        && let Err(error) = give_to_owner_of(folder_of(path), &file)
    {
        warn!("{} belongs to root and not to the owner of its folder ({error})", path.display());
    }
    Ok(file)
}

fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let folder = fs::metadata(folder)?;
    Ok(fchown(file, Some(Uid::from_raw(folder.uid())), Some(Gid::from_raw(folder.gid())))?)
}

/// Takes all permissions of the database and its log from the group and others.
pub fn make_private(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(path, suffix);
        let Ok(file) = fs::metadata(&path) else { continue };
        let mode = file.permissions().mode() & 0o7777;
        if mode & 0o077 == 0 {
            continue;
        }
        match fs::set_permissions(&path, Permissions::from_mode(mode & 0o700)) {
            Ok(()) => {
                info!("The permissions of {} were {mode:o}: now only its owner can read it", path.display())
            }
            Err(error) => warn!("Others than its owner can use {} (mode {mode:o}; {error})", path.display()),
        }
    }
}

/// Writes a complete and durable copy of the database to `path`, and replaces what is there.
///
/// # Errors
/// The copy cannot be written. Nothing is left of it.
pub fn copy_into(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let temporary = beside(path, ".tmp");
    let copied = write_copy(connection, &temporary).and_then(|()| {
        fs::rename(&temporary, path)
            .and_then(|()| sync_folder(path))
            .map_err(|error| StoreError::io(path, error))
    });
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied
}

fn write_copy(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let io = |error| StoreError::io(path, error);
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    // SQLite accepts an empty file, and keeps its mode.
    create(path)?;
    let text = path.to_str().ok_or_else(|| io(io::Error::other("its path is not UTF-8")))?;
    connection.execute("VACUUM INTO ?1", [text]).map_err(|error| StoreError::sqlite(path, error))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(io)
}

/// Makes a new name in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with this text after it: `tinychat.db-wal`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
