//! The certificate, looked after while the server runs: loaded anew when its files change or SIGHUP asks for it,
//! and its expiry announced. Whatever is wrong with a new pair, the old one stays.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{error, info, warn};
use rustls::ServerConfig;

use super::certificate::{Concern, Facts, concerns};
use super::{self as tls, Identity, TlsError};
use crate::config::TlsFiles;
use crate::ops::metrics::Counters;

/// How often the files are looked at. Each look is a few system calls.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long changed files must stay as they are before they are loaded: who changes them writes two.
const SETTLE: Duration = Duration::from_secs(1);
/// How often the expiry is announced while nothing changes.
const REPORT_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What the server serves, and what it was told to.
pub struct Renewal {
    /// `None`: `USE_SSL=false`.
    files: Option<TlsFiles>,
    /// `None`: plaintext, also after falling back to it.
    serving: Option<Identity>,
    watch: Watch<Snapshot>,
    report_at: Instant,
    /// Whether the files were not good enough to take the place of what is served.
    refused: bool,
    counters: Arc<Counters>,
}

impl Renewal {
    /// Loads the pair for the start.
    ///
    /// # Errors
    /// There is none to serve, and plaintext will not do.
    pub fn start(
        files: Option<&TlsFiles>,
        look_interval: Duration,
        counters: Arc<Counters>,
    ) -> Result<Self, Vec<TlsError>> {
        let now = Instant::now();
        let snapshot = Snapshot::of(files);
        let mut renewal = Self {
            files: files.cloned(),
            serving: None,
            watch: Watch::new(snapshot, look_interval, now),
            report_at: now + REPORT_INTERVAL,
            refused: false,
            counters,
        };
        let Some(files) = files else { return Ok(renewal) };
        match tls::load(files) {
            Ok(identity) => {
                info!("SSL/TLS enabled: cert={}, key={}", files.cert.display(), files.key.display());
                renewal.serve(identity);
            }
            Err(errors) => {
                if !tls::may_fall_back(files, &errors) {
                    return Err(errors);
                }
                errors.iter().for_each(|error| error!("{error}"));
                warn!("Falling back to unencrypted ws://: set SSL_REQUIRED=true to forbid that");
            }
        }
        Ok(renewal)
    }

    /// Says in the log what the certificate is, and what is or soon will be wrong with it.
    pub fn report(&self) {
        if let (Some(files), Some(identity)) = (&self.files, &self.serving) {
            report(files, identity);
        }
    }

    /// What new connections get; `None`: plaintext.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.serving.as_ref().map(|identity| identity.config.clone())
    }

    /// Looks at the files at another interval.
    pub fn look_every(&mut self, interval: Duration, now: Instant) {
        self.watch.interval = interval;
        self.watch.next = now + interval;
    }

    /// When [`Self::tick`] next has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.files.as_ref().map(|_| self.watch.next.min(self.report_at))
    }

    /// Looks at the files, if it is time, and loads them if they have changed.
    pub fn tick(&mut self, now: Instant) {
        let Some(files) = self.files.clone() else { return };
        if now >= self.watch.next && self.watch.look(Snapshot::of(Some(&files)), now) == Look::Load {
            self.load(&files, now);
        }
        if now >= self.report_at {
            self.report_at = now + REPORT_INTERVAL;
            // What was too early yesterday may be good today.
            if self.refused { self.load(&files, now) } else { self.report() }
        }
    }

    /// Loads the files now, as SIGHUP asks.
    pub fn reload(&mut self, now: Instant) {
        match self.files.clone() {
            None => info!("Nothing to reload: USE_SSL is false"),
            Some(files) => {
                self.watch.loaded(Snapshot::of(Some(&files)), now);
                self.load(&files, now);
            }
        }
    }

    fn serve(&mut self, identity: Identity) {
        self.counters.certificate(Facts::of(&identity.chain).map(|facts| facts.not_after));
        self.serving = Some(identity);
    }

    fn load(&mut self, files: &TlsFiles, now: Instant) {
        if self.serving.is_none() {
            warn!("A reload cannot turn TLS on, and unencrypted ws:// goes on: restart to serve wss://");
            return;
        }
        match tls::load(files).and_then(|identity| reject_untimely(files, identity)) {
            Ok(identity) => {
                info!("Certificate reloaded: cert={}, key={}", files.cert.display(), files.key.display());
                self.serve(identity);
                self.report();
                self.report_at = now + REPORT_INTERVAL;
                self.refused = false;
            }
            Err(errors) => {
                self.refused = true;
                errors.iter().for_each(|error| error!("{error}"));
                warn!("The certificate was not reloaded: the one before stays in use");
            }
        }
    }
}

/// A certificate that clients refuse is served from the start, if there is no better, but takes no other's place.
fn reject_untimely(files: &TlsFiles, identity: Identity) -> Result<Identity, Vec<TlsError>> {
    let now = SystemTime::now();
    let wrong = Facts::of(&identity.chain).and_then(|facts| match facts.days_left(now) {
        ..0 => Some(("it has expired", "renew it")),
        _ if facts.is_early(now) => Some(("it is not valid yet", "check the clock of this machine, or wait")),
        _ => None,
    });
    match wrong {
        Some((wrong, remedy)) => Err(vec![tls::untimely(&files.cert, wrong, remedy)]),
        None => Ok(identity),
    }
}

fn report(files: &TlsFiles, identity: &Identity) {
    let now = SystemTime::now();
    let Some(facts) = Facts::of(&identity.chain) else {
        return warn!("What the certificate {} says cannot be read here", files.cert.display());
    };
    info!("Certificate {facts}; {} days left", facts.days_left(now));
    let key = tls::key_concern(&files.key);
    for concern in concerns(&identity.chain, &facts, now).into_iter().chain(key) {
        match concern {
            Concern::Warning(text) => warn!("{}: {text}", files.cert.display()),
            Concern::Error(text) => error!("{}: {text}", files.cert.display()),
        }
    }
}

/// Decides when files that were looked at are loaded: when they have changed and are still the same a little later.
struct Watch<S> {
    interval: Duration,
    next: Instant,
    /// The files as they were last loaded, with or without success: what is bad is not tried again.
    loaded: S,
    /// The files as they were at the last look, if that was a change.
    changing: Option<S>,
}

#[derive(Debug, PartialEq)]
enum Look {
    Wait,
    Load,
}

impl<S: PartialEq> Watch<S> {
    fn new(loaded: S, interval: Duration, now: Instant) -> Self {
        Self { interval, next: now + interval, loaded, changing: None }
    }

    fn look(&mut self, seen: S, now: Instant) -> Look {
        if seen == self.loaded {
            self.changing = None;
        } else if self.changing.as_ref() == Some(&seen) {
            self.loaded(seen, now);
            return Look::Load;
        } else {
            self.changing = Some(seen);
            self.next = now + SETTLE.min(self.interval);
            return Look::Wait;
        }
        self.next = now + self.interval;
        Look::Wait
    }

    /// Notes what is loaded.
    fn loaded(&mut self, seen: S, now: Instant) {
        self.loaded = seen;
        self.changing = None;
        self.next = now + self.interval;
    }
}

/// What two files look like from outside.
#[derive(Debug, PartialEq)]
struct Snapshot(Vec<Result<FileState, ErrorKind>>);

#[derive(Debug, PartialEq)]
struct FileState {
    /// Where the symbolic links lead.
    target: PathBuf,
    inode: (u64, u64),
    size: u64,
    /// Of its content and of its attributes: mended permissions are a change, too.
    times: [(i64, i64); 2],
}

impl Snapshot {
    fn of(files: Option<&TlsFiles>) -> Self {
        let paths = files.into_iter().flat_map(|files| [&files.cert, &files.key]);
        Self(paths.map(|path| FileState::of(path).map_err(|error| error.kind())).collect())
    }
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        let target = fs::canonicalize(path)?;
        let about = fs::metadata(&target)?;
        Ok(Self {
            target,
            inode: (about.dev(), about.ino()),
            size: about.size(),
            times: [(about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec())],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each look at these states of the files decides, a second apart.
    fn looks(states: &[u32]) -> Vec<usize> {
        let mut now = Instant::now();
        let mut watch = Watch::new(0, SETTLE, now);
        let mut loads = Vec::new();
        for (at, &state) in states.iter().enumerate() {
            now += SETTLE;
            assert!(watch.next <= now);
            if watch.look(state, now) == Look::Load {
                loads.push(at);
            }
        }
        loads
    }

    #[test]
    fn a_change_is_loaded_once_it_has_settled_and_only_once() {
        assert_eq!(looks(&[0, 0, 0]), [0; 0]);
        assert_eq!(looks(&[0, 1, 1, 1, 1]), [2]);
        assert_eq!(looks(&[1, 2, 3, 3, 3]), [3], "while it changes it is left alone");
        assert_eq!(looks(&[1, 0, 0, 1, 1]), [4], "and changed back it is no change");
        assert_eq!(looks(&[1, 1, 2, 2, 1, 1]), [1, 3, 5]);
    }

    #[test]
    fn what_was_loaded_on_demand_is_not_loaded_again() {
        let now = Instant::now();
        let mut watch = Watch::new(0, LOOK_INTERVAL, now);
        watch.look(1, now);
        watch.loaded(1, now);
        assert_eq!(watch.next, now + LOOK_INTERVAL);
        assert_eq!((watch.look(1, now), watch.look(1, now)), (Look::Wait, Look::Wait));
    }

    #[test]
    fn a_snapshot_tells_renamed_rewritten_repointed_and_mended_files_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files =
            TlsFiles { cert: path("cert"), key: path("key"), required: false, check_interval: LOOK_INTERVAL };
        let mut seen = vec![Snapshot::of(Some(&files))];
        let mut changed = |what: &str| {
            let now = Snapshot::of(Some(&files));
            assert!(!seen.contains(&now), "{what}");
            assert_eq!(now, Snapshot::of(Some(&files)), "{what}");
            seen.push(now);
        };
        fs::write(path("one"), "1").unwrap();
        fs::write(path("two"), "1").unwrap();
        std::os::unix::fs::symlink("one", path("cert")).unwrap();
        changed("a file that was not there");
        fs::write(path("one"), "22").unwrap();
        changed("rewritten in place");
        std::os::unix::fs::symlink("two", path("new")).unwrap();
        fs::rename(path("new"), path("cert")).unwrap();
        changed("a link that leads elsewhere");
        fs::write(path("key"), "k").unwrap();
        changed("the other file");
        fs::write(path("key.new"), "k").unwrap();
        fs::rename(path("key.new"), path("key")).unwrap();
        changed("replaced by rename");
        fs::remove_file(path("two")).unwrap();
        changed("gone");
    }
}
