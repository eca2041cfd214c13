//! How many log lines below `warn` one address may cause, so that none can fill the log: a token bucket per address, in
//! a table of limited size.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::client_network::Network;

/// How many lines one address may cause at once: more than its clients cause if all of them leave and join again, at
/// the default `MAX_CONNECTIONS_PER_IP`.
const BURST_LINES: u32 = 256;
/// One more line per this time: two per second, a join and a leave at the default `JOIN_RATE`.
const LINE_INTERVAL: Duration = Duration::from_millis(500);
/// How long suppressed lines are counted before they are reported.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How many addresses have a bucket of their own. All others share one.
const MAX_ADDRESSES: usize = 4096;
/// How often idle addresses may be searched for when the table is full.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The buckets of all addresses. Loopback has one as well, because clients behind a proxy that is not in
/// `TRUSTED_PROXIES` come from there.
#[derive(Default)]
pub struct LogLimit {
    addresses: HashMap<Network, Bucket>,
    others: Bucket,
    /// `None`: nothing was suppressed since the last report.
    next_report: Option<Instant>,
    last_sweep: Option<Instant>,
}

#[derive(Default)]
struct Bucket {
    /// When the whole burst is available again; `None`: it is.
    full_at: Option<Instant>,
    /// Since the last report.
    suppressed: u64,
}

/// How many lines were suppressed since the previous report.
#[derive(Debug, PartialEq)]
pub struct Suppressed {
    /// `None`: the addresses without a bucket of their own.
    pub address: Option<Network>,
    pub lines: u64,
}

impl LogLimit {
    /// Whether a line about this address may be logged.
    pub fn allow(&mut self, address: Network, now: Instant) -> bool {
        if !self.addresses.contains_key(&address) && !self.has_room(now) {
            return self.others.allow(now) || self.suppressed(now);
        }
        self.addresses.entry(address).or_default().allow(now) || self.suppressed(now)
    }

    /// What was suppressed, if a report is due.
    pub fn report(&mut self, now: Instant) -> Vec<Suppressed> {
        if self.next_report.is_some_and(|due| due <= now) { self.report_all() } else { Vec::new() }
    }

    /// What was suppressed since the last report.
    pub fn report_all(&mut self) -> Vec<Suppressed> {
        self.next_report = None;
        let addresses = self.addresses.iter_mut().map(|(&address, bucket)| (Some(address), bucket));
        let buckets = addresses.chain([(None, &mut self.others)]);
        let counts = buckets.map(|(address, bucket)| (address, std::mem::take(&mut bucket.suppressed)));
        counts.filter(|&(_, lines)| lines > 0).map(|(address, lines)| Suppressed { address, lines }).collect()
    }

    /// Schedules a report of a suppressed line. Always returns `false`.
    fn suppressed(&mut self, now: Instant) -> bool {
        self.next_report.get_or_insert(now + REPORT_INTERVAL);
        false
    }

    /// Whether the table has room for another address.
    fn has_room(&mut self, now: Instant) -> bool {
        let may_sweep = self.last_sweep.is_none_or(|last| now >= last + SWEEP_INTERVAL);
        if self.addresses.len() >= MAX_ADDRESSES && may_sweep {
            self.last_sweep = Some(now);
            self.addresses.retain(|_, bucket| !bucket.is_idle(now));
        }
        self.addresses.len() < MAX_ADDRESSES
    }
}

impl Bucket {
    fn allow(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + LINE_INTERVAL;
        let is_allowed = full_at <= now + LINE_INTERVAL * BURST_LINES;
        if is_allowed {
            self.full_at = Some(full_at);
        } else {
            self.suppressed += 1;
        }
        is_allowed
    }

    /// Whether nothing is lost if this bucket is dropped.
    fn is_idle(&self, now: Instant) -> bool {
        self.suppressed == 0 && self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

impl fmt::Display for Suppressed {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.address {
            Some(address) => write!(formatter, "{address}: {} more lines were not logged", self.lines)?,
            None => write!(formatter, "{} lines about other addresses were not logged", self.lines)?,
        }
        formatter.write_str(" (limit per address)")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> Network {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    #[test]
    fn an_address_may_cause_a_burst_and_then_two_lines_per_second() {
        let (start, eve, bob) = (Instant::now(), address(1), address(2));
        let mut limit = LogLimit::default();
        let mut allowed = |address, now, lines| (0..lines).filter(|_| limit.allow(address, now)).count();
        assert_eq!(allowed(eve, start, 1000), BURST_LINES as usize);
        assert_eq!(allowed(bob, start, 1), 1);
        assert_eq!(allowed(eve, start + Duration::from_secs(1), 1000), 2);
        assert_eq!(allowed(eve, start + Duration::from_secs(3600), 1000), BURST_LINES as usize);
    }

    #[test]
    fn what_was_suppressed_is_reported_after_a_minute() {
        let (start, eve) = (Instant::now(), address(0xC000_0207));
        let mut limit = LogLimit::default();
        assert_eq!(limit.next_report, None);
        let lines = BURST_LINES as u64 + 40;
        assert_eq!((0..lines).filter(|_| !limit.allow(eve, start)).count(), 40);
        assert_eq!(limit.next_report, Some(start + REPORT_INTERVAL));
        assert_eq!(limit.report(start), []);
        let reports = limit.report(start + REPORT_INTERVAL);
        assert_eq!(reports, [Suppressed { address: Some(eve), lines: 40 }]);
        assert!(reports[0].to_string().starts_with("192.0.2.7: 40 more lines were not logged"));
        assert_eq!((limit.next_report, limit.report_all()), (None, Vec::new()));
    }

    #[test]
    fn the_number_of_buckets_is_limited() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let addresses = MAX_ADDRESSES as u32 + 2 * BURST_LINES;
        let allowed = (0..addresses).filter(|&number| limit.allow(address(number), start)).count();
        assert_eq!(limit.addresses.len(), MAX_ADDRESSES);
        assert_eq!(allowed, MAX_ADDRESSES + BURST_LINES as usize);
        assert_eq!(limit.report_all(), [Suppressed { address: None, lines: BURST_LINES.into() }]);
        // Idle addresses make room.
        assert!(limit.allow(address(addresses), start + SWEEP_INTERVAL));
        assert_eq!(limit.addresses.len(), 1);
    }
}
