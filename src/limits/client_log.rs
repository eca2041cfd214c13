//! Logs what clients do, within the [`LogLimit`] of their addresses.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{Level, info, log_enabled};

use super::client_network::Network;
use super::log_limit::{LogLimit, Suppressed};
use crate::ops::metrics::Counters;

/// The log for lines that a client can cause in a loop. All threads share its limit.
#[derive(Clone)]
pub struct ClientLog {
    limit: Arc<Mutex<LogLimit>>,
    counters: Arc<Counters>,
}

impl ClientLog {
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { limit: Arc::default(), counters }
    }

    /// Logs a line at `info`, unless this address has caused too many.
    pub fn info(&self, address: impl Into<Network>, line: fmt::Arguments) {
        if !log_enabled!(Level::Info) {
            return;
        }
        let now = Instant::now();
        self.report_due(now);
        // The lock is released before the line is logged.
        let is_allowed = self.limit().allow(address.into(), now);
        if is_allowed {
            info!("{line}");
        } else {
            self.counters.suppressed_line();
        }
    }

    /// Logs how many lines were suppressed, if that is due. Call it once per [`super::REPORT_INTERVAL`].
    pub fn report_due(&self, now: Instant) {
        let reports = self.limit().report(now);
        log_all(&reports);
    }

    /// Logs how many lines were suppressed, at shutdown.
    pub fn report_all(&self) {
        let reports = self.limit().report_all();
        log_all(&reports);
    }

    fn limit(&self) -> MutexGuard<'_, LogLimit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_all(reports: &[Suppressed]) {
    reports.iter().for_each(|report| info!("{report}"));
}
