//! The metrics, and their page in Prometheus' text format (version 0.0.4). See docs/operations.md.
//!
//! The hub keeps its own counts in plain integers, and reports them on request. Atomics are for the connections'
//! threads, which count only bytes and rare events.

use std::fmt::{self, Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use Kind::{Counter, Gauge};

use super::logging;

/// The counters that several threads share.
#[derive(Default)]
pub struct Counters {
    refused: [AtomicU64; RefusalReason::ALL.len()],
    failed: [AtomicU64; HandshakeFailure::ALL.len()],
    cut_off: [AtomicU64; CutOffReason::ALL.len()],
    received_bytes: AtomicU64,
    wrong_passwords: AtomicU64,
    wrong_join_passwords: AtomicU64,
    suppressed_lines: AtomicU64,
    store_queue_bytes: AtomicUsize,
    store_lost_messages: AtomicU64,
    store_failures: AtomicU64,
    /// Unix time, in seconds; 0: no certificate.
    certificate_not_after: AtomicI64,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RefusalReason {
    ServerFull,
    AddressFull,
    Origin,
    Banned,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HandshakeFailure {
    /// The client closed the connection.
    Closed,
    TimedOut,
    Tls,
    /// Not a valid HTTP request, or not a valid upgrade.
    Http,
    /// TLS on a plain port, or plain HTTP on a TLS port.
    WrongPort,
}

/// Why a client was cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CutOffReason {
    BacklogFull,
    Stalled,
    /// No answer to a ping.
    NoPong,
    /// A violation of the WebSocket protocol. The client was sent a close code.
    Violation,
}

impl RefusalReason {
    const ALL: [(Self, &str); 4] = [
        (Self::ServerFull, "server_full"),
        (Self::AddressFull, "address_full"),
        (Self::Origin, "origin"),
        (Self::Banned, "banned"),
    ];
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

    pub fn wrong_password(&self) {
        self.wrong_passwords.fetch_add(1, Relaxed);
    }

    pub fn wrong_join_password(&self) {
        self.wrong_join_passwords.fetch_add(1, Relaxed);
    }

    /// Counts a line that was not logged because one address has caused too many.
    pub fn suppressed_line(&self) {
        self.suppressed_lines.fetch_add(1, Relaxed);
    }

    /// Adds to the bytes that wait to be stored.
    pub fn store_queue_add(&self, bytes: usize) {
        self.store_queue_bytes.fetch_add(bytes, Relaxed);
    }

    /// Subtracts bytes that were added before.
    pub fn store_queue_remove(&self, bytes: usize) {
        self.store_queue_bytes.fetch_sub(bytes, Relaxed);
    }

    /// How many bytes wait to be stored.
    pub fn store_queue_bytes(&self) -> usize {
        self.store_queue_bytes.load(Relaxed)
    }

    /// Counts a message that could not be stored.
    pub fn store_lost_message(&self) {
        self.store_lost(1);
    }

    /// Counts messages that could not be stored.
    pub fn store_lost(&self, messages: u64) {
        self.store_lost_messages.fetch_add(messages, Relaxed);
    }

    /// How many messages could not be stored since the start.
    pub fn store_lost_messages(&self) -> u64 {
        self.store_lost_messages.load(Relaxed)
    }

    /// How many attempts to write or read the store have failed since the start.
    #[cfg(test)]
    pub fn store_failures(&self) -> u64 {
        self.store_failures.load(Relaxed)
    }

    /// Counts an attempt to write or read the store that has failed.
    pub fn store_failure(&self) {
        self.store_failures.fetch_add(1, Relaxed);
    }

    /// Sets the expiry of the certificate in use, in seconds since 1970.
    pub fn certificate(&self, not_after: Option<i64>) {
        self.certificate_not_after.store(not_after.unwrap_or(0), Relaxed);
    }
}

/// The hub's counters since the start, and its present state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HubStats {
    /// Members and guests.
    pub connected: usize,
    /// Connections that have joined.
    pub joined: usize,
    /// Members whose connection was lost.
    pub away: usize,
    pub joins: u64,
    pub publics: u64,
    pub privates: u64,
    pub commands: u64,
    pub history_requests: u64,
    pub errors: u64,
    pub deliveries: u64,
    pub sent_bytes: u64,
    pub batches: u64,
    pub events: u64,
    /// Events waiting for the hub.
    pub inbox: usize,
    pub slow_clients: usize,
    pub backlog_bytes: usize,
}

/// Figures about the process as a whole.
pub struct ProcessStats {
    /// All connections that hold a permit, including those in the handshake.
    pub connections: usize,
    /// Unix time, in seconds.
    pub started: f64,
    /// Seconds.
    pub uptime: f64,
}

/// Figures about the log that several servers share.
#[allow(dead_code, reason = "only with the feature cluster")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterStats {
    /// The name and the number of this server.
    pub name: Arc<str>,
    pub node: u32,
    /// Entries in the log that this server has not applied.
    pub lag_entries: u64,
    /// What this server has appended and not read back.
    pub queue_entries: usize,
    pub queue_bytes: usize,
    /// Since this server has last renewed its lease.
    pub lease_age: Duration,
    pub snapshot_bytes: usize,
    /// Entries since the last snapshot.
    pub snapshot_age_entries: u64,
    /// Of messages that wait to be written to the shared history.
    pub history_bytes: usize,
    pub reconnects: u64,
    pub round_trip: Duration,
    /// How long the Redis or Valkey server has not answered.
    pub silence: Duration,
}

/// Writes all metrics in Prometheus' text format. `cluster`: if several servers are one chat.
pub fn exposition(
    counters: &Counters,
    hub: &HubStats,
    process: &ProcessStats,
    cluster: Option<&ClusterStats>,
) -> String {
    let mut page = Exposition(String::new());
    page.labeled(
        Gauge,
        "tinychat_build_info",
        "The version that is running.",
        "version",
        [(env!("CARGO_PKG_VERSION"), 1)],
    );
    page.single(
        Gauge,
        "process_start_time_seconds",
        "When the server started, in seconds since 1970.",
        process.started,
    );
    page.single(Gauge, "tinychat_uptime_seconds", "Seconds since the server started.", process.uptime);
    page.labeled(
        Gauge,
        "tinychat_connections",
        "Connections by state.",
        "state",
        [
            ("handshake", process.connections.saturating_sub(hub.connected)),
            ("connected", hub.connected.saturating_sub(hub.joined)),
            ("joined", hub.joined),
        ],
    );
    page.single(Gauge, "tinychat_members", "Members in the room.", hub.joined + hub.away);
    page.single(
        Gauge,
        "tinychat_members_away",
        "Members whose connection was lost and that may resume.",
        hub.away,
    );
    page.labeled(
        Counter,
        "tinychat_messages_received_total",
        "Messages from clients by type; error counts what was not a valid message.",
        "type",
        [
            ("join", hub.joins),
            ("public", hub.publics),
            ("private", hub.privates),
            ("command", hub.commands),
            ("history", hub.history_requests),
            ("error", hub.errors),
        ],
    );
    page.single(
        Counter,
        "tinychat_deliveries_total",
        "Messages sent to clients, counted once per recipient.",
        hub.deliveries,
    );
    page.single(Counter, "tinychat_sent_bytes_total", "Bytes of messages sent to clients.", hub.sent_bytes);
    page.single(
        Counter,
        "tinychat_received_bytes_total",
        "Bytes of messages received from clients.",
        counters.received_bytes.load(Relaxed),
    );
    page.labeled(
        Counter,
        "tinychat_refused_total",
        "Refused connections, by reason.",
        "reason",
        by_reason(&counters.refused, RefusalReason::ALL),
    );
    page.labeled(
        Counter,
        "tinychat_handshake_failures_total",
        "Failed handshakes, by reason.",
        "reason",
        by_reason(&counters.failed, HandshakeFailure::ALL),
    );
    page.labeled(
        Counter,
        "tinychat_cut_off_total",
        "Clients cut off, by reason.",
        "reason",
        by_reason(&counters.cut_off, CutOffReason::ALL),
    );
    page.single(
        Counter,
        "tinychat_wrong_passwords_total",
        "Wrong passwords sent to /login.",
        counters.wrong_passwords.load(Relaxed),
    );
    page.single(
        Counter,
        "tinychat_wrong_join_passwords_total",
        "Wrong passwords in joins.",
        counters.wrong_join_passwords.load(Relaxed),
    );
    page.labeled(
        Counter,
        "tinychat_log_lines_dropped_total",
        "Lines dropped because the log was not read fast enough, by level.",
        "level",
        logging::dropped_lines(),
    );
    page.single(
        Counter,
        "tinychat_log_lines_suppressed_total",
        "Lines not logged because one address caused too many.",
        counters.suppressed_lines.load(Relaxed),
    );
    page.single(Counter, "tinychat_hub_batches_total", "Batches handled by the hub.", hub.batches);
    page.single(Counter, "tinychat_hub_events_total", "Events in those batches.", hub.events);
    page.single(Gauge, "tinychat_hub_inbox_events", "Events waiting for the hub.", hub.inbox);
    page.single(Gauge, "tinychat_slow_clients", "Clients with a backlog.", hub.slow_clients);
    page.single(Gauge, "tinychat_send_queue_bytes", "Bytes queued for slow clients.", hub.backlog_bytes);
    page.single(
        Gauge,
        "tinychat_store_queue_bytes",
        "Bytes waiting to be stored.",
        counters.store_queue_bytes.load(Relaxed),
    );
    page.single(
        Counter,
        "tinychat_store_lost_messages_total",
        "Messages that could not be stored.",
        counters.store_lost_messages.load(Relaxed),
    );
    page.single(
        Counter,
        "tinychat_store_failures_total",
        "Failed attempts to write or read the store.",
        counters.store_failures.load(Relaxed),
    );
    let not_after = counters.certificate_not_after.load(Relaxed);
    if not_after != 0 {
        page.single(
            Gauge,
            "tinychat_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970.",
            not_after,
        );
    }
    if let Some(cluster) = cluster {
        page.cluster(cluster);
    }
    page.0
}

fn by_reason<T, const N: usize>(
    counts: &[AtomicU64; N],
    reasons: [(T, &'static str); N],
) -> impl Iterator<Item = (&'static str, u64)> {
    reasons.into_iter().zip(counts).map(|((_, label), count)| (label, count.load(Relaxed)))
}

/// The text of the page.
struct Exposition(String);

enum Kind {
    Counter,
    Gauge,
}

impl Exposition {
    fn cluster(&mut self, stats: &ClusterStats) {
        let name = [(&*stats.name, stats.node)];
        self.labeled(Gauge, "tinychat_cluster_node", "The number and the name of this server.", "name", name);
        self.single(
            Gauge,
            "tinychat_cluster_log_lag_entries",
            "Entries in the log that this server has not applied.",
            stats.lag_entries,
        );
        self.single(
            Gauge,
            "tinychat_cluster_queue_entries",
            "Entries that this server has appended and not read back.",
            stats.queue_entries,
        );
        self.single(Gauge, "tinychat_cluster_queue_bytes", "Bytes of these entries.", stats.queue_bytes);
        self.single(
            Gauge,
            "tinychat_cluster_lease_age_seconds",
            "Seconds since this server last renewed its lease.",
            stats.lease_age.as_secs_f64(),
        );
        self.single(
            Gauge,
            "tinychat_cluster_snapshot_bytes",
            "Bytes of the last snapshot that this server has read or written.",
            stats.snapshot_bytes,
        );
        self.single(
            Gauge,
            "tinychat_cluster_snapshot_age_entries",
            "Entries in the log since the last snapshot.",
            stats.snapshot_age_entries,
        );
        self.single(
            Gauge,
            "tinychat_cluster_history_waiting_bytes",
            "Bytes of messages that wait to be written to the shared history.",
            stats.history_bytes,
        );
        self.single(
            Counter,
            "tinychat_cluster_reconnects_total",
            "Lost connections to the Redis or Valkey server that were opened again.",
            stats.reconnects,
        );
        self.single(
            Gauge,
            "tinychat_cluster_round_trip_seconds",
            "Duration of the last call that wrote something.",
            stats.round_trip.as_secs_f64(),
        );
        self.single(
            Gauge,
            "tinychat_cluster_silence_seconds",
            "Seconds since the Redis or Valkey server last answered.",
            stats.silence.as_secs_f64(),
        );
    }

    /// A metric with one value.
    fn single(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.header(kind, name, help);
        self.line(format_args!("{name} {value}"));
    }

    /// A metric with one value per label.
    fn labeled<'a, V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        self.header(kind, name, help);
        for (labeled, value) in values {
            self.line(format_args!("{name}{{{label}=\"{labeled}\"}} {value}"));
        }
    }

    fn header(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments) {
        writeln!(self.0, "{line}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_of_their_variants() {
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
    fn every_count_is_on_the_page() {
        let counters = Counters::default();
        counters.refused(RefusalReason::Origin);
        counters.failed(HandshakeFailure::Tls);
        counters.failed(HandshakeFailure::Tls);
        counters.cut_off(CutOffReason::Stalled);
        counters.received(70);
        counters.wrong_password();
        (0..2).for_each(|_| counters.wrong_join_password());
        (0..3).for_each(|_| counters.suppressed_line());
        let hub = HubStats { connected: 5, joined: 3, publics: 9, backlog_bytes: 12, ..HubStats::default() };
        let process = ProcessStats { connections: 7, started: 1000.5, uptime: 2.5 };
        let page = exposition(&counters, &hub, &process, None);
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
            "tinychat_wrong_passwords_total 1",
            "tinychat_wrong_join_passwords_total 2",
            "tinychat_log_lines_dropped_total{level=\"warn\"} 0",
            "tinychat_log_lines_suppressed_total 3",
            "tinychat_send_queue_bytes 12",
            "process_start_time_seconds 1000.5",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("certificate"), "there is no certificate");
        counters.certificate(Some(1_800_000_000));
        let page = exposition(&counters, &hub, &process, None);
        assert!(page.ends_with("\ntinychat_certificate_expiry_timestamp_seconds 1800000000\n"), "{page}");
    }

    #[test]
    fn the_docs_list_the_metrics_of_one_of_several_servers() {
        let docs = include_str!("../../docs/operations.md");
        let section = docs.split("### Metrics of several servers\n").nth(1).unwrap();
        let rows = section.split("\n#").next().unwrap().lines().filter(|line| line.starts_with("| `"));
        let documented: Vec<String> = rows
            .map(|row| {
                let mut cells = row.trim_start_matches("| `").split(" | ");
                let name = cells.next().unwrap().trim_end_matches('`').split('{').next().unwrap();
                format!("# TYPE {name} {}", cells.next().unwrap())
            })
            .collect();
        let stats = ClusterStats {
            name: "one".into(),
            node: 7,
            round_trip: Duration::from_micros(1500),
            ..ClusterStats::default()
        };
        let process = ProcessStats { connections: 0, started: 0.0, uptime: 0.0 };
        let page = |cluster| exposition(&Counters::default(), &HubStats::default(), &process, cluster);
        let (with, without) = (page(Some(&stats)), page(None));
        let own = with.strip_prefix(&without).expect("the others are the same");
        assert_eq!(own.lines().filter(|line| line.starts_with("# TYPE ")).collect::<Vec<_>>(), documented);
        assert!(own.contains("\ntinychat_cluster_node{name=\"one\"} 7\n"), "{own}");
        assert!(own.contains("\ntinychat_cluster_round_trip_seconds 0.0015\n"), "{own}");
    }
}
