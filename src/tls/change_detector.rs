//! Detects that files have changed, once the change is complete.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long changed files must stay the same before they are loaded, because a certificate and its key are written
/// one after the other.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Decides when to load files whose state `S` is checked periodically: when it differs from the state that was loaded,
/// and is the same at two checks in a row.
pub struct ChangeDetector<S> {
    interval: Duration,
    next_check: Instant,
    /// The state that was last loaded, successfully or not: a failed load is not retried until the files change.
    loaded: S,
    /// The state at the last check, if it was a new one.
    changing: Option<S>,
}

impl<S: PartialEq> ChangeDetector<S> {
    pub fn new(loaded: S, interval: Duration, now: Instant) -> Self {
        Self { interval, next_check: now + interval, loaded, changing: None }
    }

    /// When [`Self::check`] is due.
    pub fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Compares the current state, and returns whether to load the files now.
    pub fn check(&mut self, current: S, now: Instant) -> bool {
        if current == self.loaded {
            self.changing = None;
            self.next_check = now + self.interval;
            return false;
        }
        if self.changing.as_ref() == Some(&current) {
            self.loaded(current, now);
            return true;
        }
        self.changing = Some(current);
        self.next_check = now + SETTLE_TIME.min(self.interval);
        false
    }

    /// Records the state that is being loaded.
    pub fn loaded(&mut self, current: S, now: Instant) {
        self.loaded = current;
        self.changing = None;
        self.next_check = now + self.interval;
    }
}

/// The metadata of some files. It differs after any change.
#[derive(Debug, PartialEq)]
pub struct Snapshot(Vec<Result<FileState, ErrorKind>>);

#[derive(Debug, PartialEq)]
struct FileState {
    /// With symbolic links resolved.
    target: PathBuf,
    device_and_inode: (u64, u64),
    size: u64,
    /// The mtime, in seconds and nanoseconds.
    modified: (i64, i64),
    /// The ctime. It changes with the permissions, too, so that a reload is tried after they were fixed.
    changed: (i64, i64),
}

impl Snapshot {
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let states = paths.into_iter().map(|path| FileState::of(path).map_err(|error| error.kind()));
        Self(states.collect())
    }
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        let target = fs::canonicalize(path)?;
        let metadata = fs::metadata(&target)?;
        Ok(Self {
            target,
            device_and_inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The indices of the checks, one second apart, that load the files.
    fn loads(states: &[u32]) -> Vec<usize> {
        let mut now = Instant::now();
        let mut detector = ChangeDetector::new(0, SETTLE_TIME, now);
        let mut loads = Vec::new();
        for (at, &state) in states.iter().enumerate() {
            now += SETTLE_TIME;
            assert!(detector.next_check() <= now);
            if detector.check(state, now) {
                loads.push(at);
            }
        }
        loads
    }

    #[test]
    fn a_change_is_loaded_once_after_it_has_settled() {
        assert_eq!(loads(&[0, 0, 0]), [0; 0]);
        assert_eq!(loads(&[0, 1, 1, 1, 1]), [2]);
        assert_eq!(loads(&[1, 2, 3, 3, 3]), [3], "not while the files are changing");
        assert_eq!(loads(&[1, 0, 0, 1, 1]), [4], "not if the change was undone");
        assert_eq!(loads(&[1, 1, 2, 2, 1, 1]), [1, 3, 5]);
    }

    #[test]
    fn files_loaded_on_demand_are_not_loaded_again() {
        let now = Instant::now();
        let interval = 10 * SETTLE_TIME;
        let mut detector = ChangeDetector::new(0, interval, now);
        detector.check(1, now);
        assert_eq!(detector.next_check(), now + SETTLE_TIME);
        detector.loaded(1, now);
        assert_eq!(detector.next_check(), now + interval);
        assert_eq!((detector.check(1, now), detector.check(1, now)), (false, false));
    }

    #[test]
    fn a_snapshot_changes_with_every_way_to_replace_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (cert, key) = (path("cert"), path("key"));
        let snapshot = || Snapshot::of([cert.as_path(), &key]);
        let mut seen = vec![snapshot()];
        let mut assert_changed = |how: &str| {
            let now = snapshot();
            assert!(!seen.contains(&now), "{how}");
            assert_eq!(now, snapshot(), "{how}");
            seen.push(now);
        };
        fs::write(path("one"), "1").unwrap();
        fs::write(path("two"), "1").unwrap();
        std::os::unix::fs::symlink("one", &cert).unwrap();
        assert_changed("created");
        fs::write(path("one"), "22").unwrap();
        assert_changed("rewritten in place");
        std::os::unix::fs::symlink("two", path("new")).unwrap();
        fs::rename(path("new"), &cert).unwrap();
        assert_changed("a link to another file");
        fs::write(&key, "k").unwrap();
        assert_changed("the other file created");
        fs::write(path("key.new"), "k").unwrap();
        fs::rename(path("key.new"), &key).unwrap();
        assert_changed("replaced by rename");
        fs::remove_file(path("two")).unwrap();
        assert_changed("removed");
    }
}
