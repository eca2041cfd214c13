//! What the server counts of itself, and how Prometheus reads it (its text format, version 0.0.4).
//!
//! The hub counts in its own plain numbers and hands them over when it is asked, so that counting costs it nothing.
//! What connections' threads count are rare events, and bytes.

use std::fmt::{self, Display, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counted by many threads.
#[derive(Default)]
pub struct Counters {
    refused: [AtomicU64; RefusalReason::ALL.len()],
    failed: [AtomicU64; HandshakeFailure::ALL.len()],
    cut_off: [AtomicU64; CutOffReason::ALL.len()],
    received_bytes: AtomicU64,
    /// Seconds since 1970; 0: there is no certificate.
    certificate_not_after: AtomicI64,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RefusalReason {
    ServerFull,
    AddressFull,
    Origin,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HandshakeFailure {
    /// The client went.
    Closed,
    TimedOut,
    Tls,
    /// It spoke HTTP, but not well.
    Http,
    /// It spoke TLS on the plain port, or plain HTTP on the TLS port.
    WrongPort,
}

/// Why a client was cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CutOffReason {
    BacklogFull,
    Stalled,
    /// No answer to a ping.
    NoPong,
    /// A broken rule of the WebSocket protocol, which it was told with a close code.
    Violation,
}

impl RefusalReason {
    const ALL: [(Self, &str); 3] =
        [(Self::ServerFull, "server_full"), (Self::AddressFull, "address_full"), (Self::Origin, "origin")];
}

impl HandshakeFailure {
    const ALL: [(Self, &str); 5] = [
        (Self::Closed, "gone"),
        (Self::TimedOut, "timed_out"),
        (Self::Tls, "tls"),
        (Self::Http, "http"),
        (Self::WrongPort, "wrong_port"),
    ];
}

impl CutOffReason {
    const ALL: [(Self, &str); 4] = [
        (Self::BacklogFull, "queue_full"),
        (Self::Stalled, "stuck"),
        (Self::NoPong, "silent"),
        (Self::Violation, "broke_protocol"),
    ];
}

impl Counters {
    pub fn refused(&self, reason: RefusalReason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn failed(&self, reason: HandshakeFailure) {
        self.failed[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn cut_off(&self, reason: CutOffReason) {
        self.cut_off[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Notes until when the certificate in use is valid, in seconds since 1970.
    pub fn certificate(&self, not_after: Option<i64>) {
        self.certificate_not_after.store(not_after.unwrap_or(0), Relaxed);
    }
}

/// What the hub has counted, and how it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HubStats {
    /// Connected, joined or not.
    pub connected: usize,
    pub members: usize,
    pub joins: u64,
    pub publics: u64,
    pub commands: u64,
    pub errors: u64,
    pub deliveries: u64,
    pub sent_bytes: u64,
    pub batches: u64,
    pub events: u64,
    /// What waits for the hub.
    pub inbox: usize,
    pub slow_clients: usize,
    pub backlog_bytes: usize,
}

/// What is known outside of the hub and the counters.
pub struct ProcessStats {
    /// Everybody who holds a place, also while the handshake goes on.
    pub connections: usize,
    /// Seconds since 1970.
    pub started: f64,
    pub uptime: f64,
}

/// Everything, as Prometheus reads it.
pub fn exposition(counters: &Counters, hub: &HubStats, process: &ProcessStats) -> String {
    let mut page = Exposition(String::new());
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.metric("tinychat_build_info", "gauge", "The version that runs.", [(&version[..], 1)]);
    page.one(
        "process_start_time_seconds",
        "gauge",
        "When the server started, in seconds since 1970.",
        process.started,
    );
    page.one("tinychat_uptime_seconds", "gauge", "For how long the server runs.", process.uptime);
    let guests = hub.connected.saturating_sub(hub.members);
    let states = [
        ("handshake", process.connections.saturating_sub(hub.connected)),
        ("connected", guests),
        ("joined", hub.members),
    ];
    let states = states.map(|(state, count)| ([("state", state)], count));
    page.metric("tinychat_connections", "gauge", "Connections by what they have come to.", by_ref(&states));
    page.one("tinychat_members", "gauge", "Who is in the room.", hub.members);
    let kinds =
        [("join", hub.joins), ("public", hub.publics), ("command", hub.commands), ("error", hub.errors)];
    let kinds = kinds.map(|(kind, count)| ([("type", kind)], count));
    let help = "Messages from clients by type; error is what was no message.";
    page.metric("tinychat_messages_received_total", "counter", help, by_ref(&kinds));
    page.one(
        "tinychat_deliveries_total",
        "counter",
        "Messages to clients, one for each who gets it.",
        hub.deliveries,
    );
    page.one("tinychat_sent_bytes_total", "counter", "Bytes of messages to clients.", hub.sent_bytes);
    let received = counters.received_bytes.load(Relaxed);
    page.one("tinychat_received_bytes_total", "counter", "Bytes of messages from clients.", received);
    let reasons = labelled(&counters.refused, RefusalReason::ALL);
    page.metric("tinychat_refused_total", "counter", "Connections refused, by reason.", by_ref(&reasons));
    let reasons = labelled(&counters.failed, HandshakeFailure::ALL);
    page.metric(
        "tinychat_handshake_failures_total",
        "counter",
        "Handshakes failed, by reason.",
        by_ref(&reasons),
    );
    let reasons = labelled(&counters.cut_off, CutOffReason::ALL);
    page.metric("tinychat_cut_off_total", "counter", "Clients cut off, by reason.", by_ref(&reasons));
    page.one("tinychat_hub_batches_total", "counter", "Batches that the hub has handled.", hub.batches);
    page.one("tinychat_hub_events_total", "counter", "Events in those batches.", hub.events);
    page.one("tinychat_hub_inbox_events", "gauge", "Events that wait for the hub.", hub.inbox);
    page.one("tinychat_slow_clients", "gauge", "Clients for whom something waits.", hub.slow_clients);
    page.one("tinychat_send_queue_bytes", "gauge", "Bytes that wait for slow clients.", hub.backlog_bytes);
    let not_after = counters.certificate_not_after.load(Relaxed);
    if not_after != 0 {
        let help = "When the certificate in use expires, in seconds since 1970.";
        page.one("tinychat_certificate_expiry_timestamp_seconds", "gauge", help, not_after);
    }
    page.0
}

type Labels<'a> = [(&'static str, &'a str); 1];

fn by_ref<'a, V: Copy>(
    samples: &'a [(Labels<'a>, V)],
) -> impl Iterator<Item = (&'a [(&'static str, &'a str)], V)> {
    samples.iter().map(|(labels, value)| (&labels[..], *value))
}

fn labelled<T, const N: usize>(
    counts: &[AtomicU64; N],
    all: [(T, &'static str); N],
) -> Vec<(Labels<'static>, u64)> {
    counts.iter().zip(all).map(|(count, (_, label))| ([("reason", label)], count.load(Relaxed))).collect()
}

struct Exposition(String);

impl Exposition {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help, [(&[][..], value)]);
    }

    fn metric<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [(&'static str, &'a str)], V)>,
    ) {
        let mut write =
            |line: fmt::Arguments| writeln!(self.0, "{line}").expect("a String takes whatever is written");
        write(format_args!("# HELP {name} {help}"));
        write(format_args!("# TYPE {name} {kind}"));
        for (labels, value) in samples {
            match labels {
                // The labels are this file's own, and need no escapes.
                [(label, named)] => write(format_args!("{name}{{{label}=\"{named}\"}} {value}")),
                _ => write(format_args!("{name} {value}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_their_reason_counts() {
        for (at, (reason, _)) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, (reason, _)) in HandshakeFailure::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, (reason, _)) in CutOffReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
    }

    #[test]
    fn what_is_counted_is_told() {
        let counters = Counters::default();
        counters.refused(RefusalReason::Origin);
        counters.failed(HandshakeFailure::Tls);
        counters.failed(HandshakeFailure::Tls);
        counters.cut_off(CutOffReason::Stalled);
        counters.received(70);
        let hub = HubStats { connected: 5, members: 3, publics: 9, backlog_bytes: 12, ..HubStats::default() };
        let process = ProcessStats { connections: 7, started: 1000.5, uptime: 2.5 };
        let page = exposition(&counters, &hub, &process);
        for line in [
            "tinychat_connections{state=\"handshake\"} 2",
            "tinychat_connections{state=\"connected\"} 2",
            "tinychat_connections{state=\"joined\"} 3",
            "tinychat_messages_received_total{type=\"public\"} 9",
            "tinychat_refused_total{reason=\"origin\"} 1",
            "tinychat_refused_total{reason=\"server_full\"} 0",
            "tinychat_handshake_failures_total{reason=\"tls\"} 2",
            "tinychat_cut_off_total{reason=\"stuck\"} 1",
            "tinychat_received_bytes_total 70",
            "tinychat_send_queue_bytes 12",
            "process_start_time_seconds 1000.5",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("certificate"), "there is none");
        counters.certificate(Some(1_800_000_000));
        let page = exposition(&counters, &hub, &process);
        assert!(page.ends_with("\ntinychat_certificate_expiry_timestamp_seconds 1800000000\n"), "{page}");
    }
}
