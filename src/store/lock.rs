//! The lock that keeps a second server away from the same store: a file beside it, locked with fcntl(2), so that the
//! lock ends with the process and others can ask which process holds it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use super::error::StoreError;
use super::files::{FileIdentity, beside, create_new, resolve};

/// Held until it is dropped. It does not exclude a second store in the same process.
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the store at `path`, without waiting.
    ///
    /// # Errors
    /// Another process has it, or its file cannot be created.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        let lock_path = lock_path(path);
        let file = match create_new(&lock_path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).open(&lock_path)
            }
            result => result,
        };
        let file = file.map_err(|source| match source.kind() {
            ErrorKind::NotFound => StoreError::NoFolder(path.into()),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if !path.exists() => {
                StoreError::FolderNotWritable { path: path.into(), source }
            }
            _ => StoreError::io(&lock_path, source),
        })?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => {
                Err(StoreError::InUse { path: path.into(), pid: holder(&file).ok().flatten() })
            }
            Err(error) => Err(StoreError::io(&lock_path, error.into())),
        }
    }

    /// Whether the locked file is still the one at its path: otherwise others can take the lock of another file.
    ///
    /// # Errors
    /// The folder cannot be searched.
    pub fn is_in_place(&self, path: &Path) -> io::Result<bool> {
        let own = FileIdentity::from(&self.file.metadata()?);
        Ok(FileIdentity::of(&lock_path(path))? == Some(own))
    }
}

/// The server that uses the store at `path`. Not for the process that holds the lock: closing the file
/// here would release it.
///
/// # Errors
/// The lock's file exists and cannot be opened, or the store's folder does not exist.
pub fn server_pid(path: &Path) -> Result<Option<Pid>, StoreError> {
    let lock_path = lock_path(&resolve(path)?);
    match File::open(&lock_path).and_then(|file| holder(&file)) {
        Ok(pid) => Ok(pid),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(&lock_path, error)),
    }
}

fn holder(file: &File) -> io::Result<Option<Pid>> {
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(lock.and_then(|lock| lock.pid))
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}
