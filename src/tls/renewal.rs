//! Renews the certificate while the server runs: reloads it when its files change or on SIGHUP, and logs when it
//! expires. If the new files cannot be used, the old certificate stays in use.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use log::{error, info, warn};
use rustls::ServerConfig;

use super::certificate::Diagnostic;
use super::change_detector::{ChangeDetector, Snapshot};
use super::error::{FileError, PemRole, TlsError};
use super::identity::{Identity, fallback_allowed};
use crate::config::{CERTIFICATE_CHECK_INTERVAL, TlsFiles};
use crate::ops::metrics::Counters;

/// How often the days left are logged if nothing changes.
const REPORT_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificate that new connections get. How often its files are checked is part of [`TlsFiles`].
pub struct Renewal {
    /// `None`: `USE_SSL=false`.
    files: Option<TlsFiles>,
    /// `None`: plaintext, either by `USE_SSL=false` or as a fallback.
    identity: Option<Identity>,
    changes: ChangeDetector<Snapshot>,
    report_at: Instant,
    /// Whether the last reload failed. It is retried once per [`REPORT_INTERVAL`].
    reload_failed: bool,
    counters: Arc<Counters>,
}

impl Renewal {
    /// Loads the certificate at startup.
    ///
    /// # Errors
    /// The files cannot be used, and falling back to plaintext is not allowed.
    pub fn start(files: Option<&TlsFiles>, counters: Arc<Counters>) -> Result<Self, Vec<TlsError>> {
        let now = Instant::now();
        let interval = files.map_or(CERTIFICATE_CHECK_INTERVAL, |files| files.check_interval);
        let mut renewal = Self {
            files: files.cloned(),
            identity: None,
            changes: ChangeDetector::new(snapshot(files), interval, now),
            report_at: now + REPORT_INTERVAL,
            reload_failed: false,
            counters,
        };
        let Some(files) = files else { return Ok(renewal) };
        match Identity::load(files) {
            Ok(identity) => {
                info!("SSL/TLS enabled: cert={}, key={}", files.cert.display(), files.key.display());
                renewal.serve(identity);
            }
            Err(errors) if fallback_allowed(files, &errors) => {
                errors.iter().for_each(|error| error!("{error}"));
                warn!("Falling back to unencrypted ws://: set SSL_REQUIRED=true to forbid that");
            }
            Err(errors) => return Err(errors),
        }
        Ok(renewal)
    }

    /// The configuration for new connections; `None`: plaintext.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.identity.as_ref().map(|identity| identity.config.clone())
    }

    /// When [`Self::tick`] is due; `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.files.as_ref().map(|_| self.changes.next_check().min(self.report_at))
    }

    /// Does what is due: checks the files, reloads them if they have changed, and logs the daily report.
    pub fn tick(&mut self, now: Instant) {
        if self.files.is_none() {
            return;
        }
        if now >= self.changes.next_check() && self.changes.check(snapshot(self.files.as_ref()), now) {
            self.load(now);
        }
        if now >= self.report_at {
            self.report_at = now + REPORT_INTERVAL;
            if self.reload_failed {
                // The certificate may have been rejected because it was not valid yet.
                self.load(now);
            } else {
                self.report();
            }
        }
    }

    /// Reloads the files now, as on SIGHUP.
    pub fn reload(&mut self, now: Instant) {
        if self.files.is_none() {
            info!("No certificate to reload: USE_SSL is false");
            return;
        }
        self.changes.loaded(snapshot(self.files.as_ref()), now);
        self.load(now);
    }

    /// Logs the certificate's names, issuer, days left and diagnostics.
    pub fn report(&self) {
        let (Some(files), Some(identity)) = (&self.files, &self.identity) else { return };
        let now = SystemTime::now();
        if let Some(info) = &identity.info {
            info!("Certificate {info}; {} days left", info.days_left(now));
        }
        for diagnostic in identity.diagnostics(files, now) {
            match diagnostic {
                Diagnostic::Warning(text) => warn!("{}: {text}", files.cert.display()),
                Diagnostic::Error(text) => error!("{}: {text}", files.cert.display()),
            }
        }
    }

    fn load(&mut self, now: Instant) {
        let Some(files) = &self.files else { return };
        if self.identity.is_none() {
            warn!("A reload cannot turn TLS on; still serving unencrypted ws://: restart to serve wss://");
            return;
        }
        match Identity::load(files).and_then(|identity| reject_outside_validity(files, identity)) {
            Ok(identity) => {
                info!("Certificate reloaded: cert={}, key={}", files.cert.display(), files.key.display());
                self.serve(identity);
                self.report();
                self.report_at = now + REPORT_INTERVAL;
                self.reload_failed = false;
            }
            Err(errors) => {
                self.reload_failed = true;
                errors.iter().for_each(|error| error!("{error}"));
                warn!("The certificate was not reloaded: the previous one stays in use");
            }
        }
    }

    fn serve(&mut self, identity: Identity) {
        self.counters.certificate(identity.info.as_ref().map(|info| info.not_after));
        self.identity = Some(identity);
    }
}

fn snapshot(files: Option<&TlsFiles>) -> Snapshot {
    Snapshot::of(files.into_iter().flat_map(|files| [files.cert.as_path(), &files.key]))
}

/// Rejects a certificate that has expired or is not valid yet. Such a certificate is accepted at startup, when there is
/// no other, but must not replace the one in use.
fn reject_outside_validity(files: &TlsFiles, identity: Identity) -> Result<Identity, Vec<TlsError>> {
    let now = SystemTime::now();
    let error = match &identity.info {
        Some(info) if info.has_expired(now) => FileError::Expired,
        Some(info) if info.is_not_yet_valid(now) => FileError::NotYetValid,
        _ => return Ok(identity),
    };
    Err(vec![TlsError::new(PemRole::Certificate, &files.cert, error)])
}
