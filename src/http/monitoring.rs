//! `/healthz`, for anyone, and `/metrics`, for loopback and `METRICS_ALLOW`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Sender, bounded};
use ipnet::IpNet;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderValue, Method, StatusCode, header};

use super::forwarded::ClientAddress;
use super::response::{self, Response};
use crate::hub::Event;
use crate::limits::Permits;
use crate::ops::metrics::{Counters, ProcessStats, exposition};

/// How long the hub may take to respond before the server counts as unhealthy.
const HUB_TIMEOUT: Duration = Duration::from_secs(1);
/// Prometheus' text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Responds to requests for `/healthz` and `/metrics`.
pub struct Monitoring {
    /// Who may read the metrics, in addition to loopback.
    allow: Vec<IpNet>,
    counters: Arc<Counters>,
    permits: Permits,
    hub: Sender<Event>,
    started: (Instant, SystemTime),
}

impl Monitoring {
    pub fn new(allow: Vec<IpNet>, counters: Arc<Counters>, permits: Permits, hub: Sender<Event>) -> Self {
        Self { allow, counters, permits, hub, started: (Instant::now(), SystemTime::now()) }
    }

    /// The response to a request for one of the two paths; `None` for any other path.
    pub fn response(&self, request: &Request, client: ClientAddress) -> Option<Response> {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/metrics") {
            return None;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(response::method_not_allowed());
        }
        Some(if path == "/healthz" {
            self.health()
        } else if self.may_read_metrics(request, client) {
            self.metrics()
        } else {
            let line = "Only loopback and the networks in METRICS_ALLOW may read the metrics.";
            response::text(StatusCode::FORBIDDEN, line)
        })
    }

    fn health(&self) -> Response {
        let probe = |reply: Sender<()>| {
            Event::Probe(Box::new(move || {
                // This thread may have timed out.
                let _ = reply.try_send(());
            }))
        };
        match self.ask_hub(probe) {
            Some(()) => response::text(StatusCode::OK, "OK"),
            None => unresponsive(),
        }
    }

    fn metrics(&self) -> Response {
        let Some(hub) = self.ask_hub(Event::Stats) else { return unresponsive() };
        let page = exposition(&self.counters, &hub, &self.process());
        let mut response = response::text(StatusCode::OK, page.trim_end());
        response.headers_mut().insert(header::CONTENT_TYPE, METRICS_TYPE);
        response
    }

    fn may_read_metrics(&self, request: &Request, client: ClientAddress) -> bool {
        let address = match client {
            ClientAddress::Peer(address) | ClientAddress::Forwarded(address) => address,
            ClientAddress::Unknown(_) => return false,
        };
        self.allow.iter().any(|network| network.contains(&address)) || is_local(request, address)
    }

    fn ask_hub<T>(&self, question: impl FnOnce(Sender<T>) -> Event) -> Option<T> {
        let deadline = Instant::now() + HUB_TIMEOUT;
        let (sender, reply) = bounded(1);
        self.hub.send_deadline(question(sender), deadline).ok()?;
        reply.recv_deadline(deadline).ok()
    }

    fn process(&self) -> ProcessStats {
        let (instant, time) = self.started;
        ProcessStats {
            connections: self.permits.connections(),
            started: time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            uptime: instant.elapsed().as_secs_f64(),
        }
    }
}

/// Whether a request comes from this machine. Behind a proxy on this machine, trusted or not, every peer is loopback,
/// so forwarded requests do not count.
fn is_local(request: &Request, address: IpAddr) -> bool {
    let headers = request.headers();
    address.is_loopback() && !headers.contains_key("x-forwarded-for") && !headers.contains_key("forwarded")
}

fn unresponsive() -> Response {
    response::text(StatusCode::SERVICE_UNAVAILABLE, "The hub does not respond.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::HubStats;

    fn monitoring(hub: Sender<Event>) -> Monitoring {
        let allow = vec!["10.0.0.0/8".parse().unwrap()];
        Monitoring::new(allow, Arc::default(), Permits::new(1, None), hub)
    }

    fn status(monitoring: &Monitoring, method: &str, path: &str, client: ClientAddress) -> Option<u16> {
        let request = tungstenite::http::Request::builder().method(method).uri(path).body(()).unwrap();
        Some(monitoring.response(&request, client)?.status().as_u16())
    }

    #[test]
    fn the_metrics_are_for_loopback_and_allowed_networks() {
        let (hub, inbox) = bounded::<Event>(1);
        let thread = std::thread::spawn(move || {
            for event in inbox {
                match event {
                    Event::Stats(reply) => reply.send(HubStats::default()).unwrap(),
                    Event::Probe(respond) => respond(),
                    _ => {}
                }
            }
        });
        let monitoring = monitoring(hub);
        let [local, allowed, other] =
            [[127, 0, 0, 1], [10, 9, 8, 7], [192, 0, 2, 1]].map(|ip| ClientAddress::Peer(ip.into()));
        let unknown = ClientAddress::Unknown([127, 0, 0, 1].into());
        for (method, path, client, expected) in [
            ("GET", "/metrics", local, Some(200)),
            ("HEAD", "/metrics", allowed, Some(200)),
            ("GET", "/metrics", other, Some(403)),
            ("GET", "/metrics", unknown, Some(403)),
            ("GET", "/metrics", ClientAddress::Forwarded([10, 9, 8, 7].into()), Some(200)),
            ("GET", "/healthz", other, Some(200)),
            ("POST", "/healthz", local, Some(405)),
            ("GET", "/metrics/", local, None),
            ("GET", "/", local, None),
        ] {
            assert_eq!(status(&monitoring, method, path, client), expected, "{method} {path} {client:?}");
        }
        // Forwarded by a proxy that is not in TRUSTED_PROXIES.
        for header in ["X-Forwarded-For", "Forwarded"] {
            let forwarded =
                tungstenite::http::Request::builder().uri("/metrics").header(header, "for=192.0.2.1");
            let response = monitoring.response(&forwarded.body(()).unwrap(), local).unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{header}");
        }
        drop(monitoring);
        thread.join().unwrap();
    }

    #[test]
    fn an_unresponsive_hub_is_unhealthy() {
        let (hub, inbox) = bounded(1);
        let client = ClientAddress::Peer([127, 0, 0, 1].into());
        assert_eq!(status(&monitoring(hub), "GET", "/healthz", client), Some(503));
        assert_eq!(inbox.len(), 1, "the hub was sent a probe");
    }
}
