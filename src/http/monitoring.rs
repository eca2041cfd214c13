//! `/healthz`, for anyone, and `/metrics`, for loopback and `METRICS_ALLOW`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tungstenite::handshake::server::Request;
use tungstenite::http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::forwarded::ClientAddress;
use super::response::{self, Response};
use crate::hub::HubHandle;
use crate::limits::Permits;
use crate::ops::metrics::{ClusterStats, Counters, ProcessStats, exposition};

const HEALTH_PATH: &str = "/healthz";
/// What `/healthz` would answer, in the response to plain HTTP on the TLS port.
pub const HEALTH_HEADER: &str = "x-tinychat-health";
const METRICS_PATH: &str = "/metrics";
/// How long the hub may take to respond before the server counts as unhealthy.
const HUB_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the Redis or Valkey server that several servers share may be unresponsive before the server counts as
/// unhealthy.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prometheus' text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// What proxies add to requests that they forward, apart from `X-Forwarded-*`: Forwarded (RFC 7239), Via (RFC 9110),
/// CDN-Loop (RFC 8586), and the names that nginx, load balancers and content delivery networks use.
const PROXY_HEADERS: [&str; 14] = [
    "forwarded",
    "via",
    "cdn-loop",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "x-azure-clientip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-ray",
    "fastly-client-ip",
    "fly-client-ip",
];

/// Responds to requests for `/healthz` and `/metrics`.
pub struct Monitoring {
    /// Who may read the metrics, in addition to loopback.
    allow: Vec<IpNet>,
    counters: Arc<Counters>,
    permits: Permits,
    hub: HubHandle,
    cluster: Option<ClusterSource>,
    started: (Instant, SystemTime),
}

/// Shows the present figures of the log that several servers share.
pub type ClusterSource = Box<dyn Fn() -> ClusterStats + Send + Sync>;

impl Monitoring {
    /// `cluster`: if several servers are one chat.
    pub fn new(
        allow: Vec<IpNet>,
        counters: Arc<Counters>,
        permits: Permits,
        hub: HubHandle,
        cluster: Option<ClusterSource>,
    ) -> Self {
        Self { allow, counters, permits, hub, cluster, started: (Instant::now(), SystemTime::now()) }
    }

    /// Whether connections are reserved for this peer when the server is full. Anyone can be behind a proxy on
    /// loopback.
    pub fn is_reserved_for(&self, peer: IpAddr, is_proxy: bool) -> bool {
        (peer.is_loopback() && !is_proxy) || self.allow.iter().any(|network| network.contains(&peer))
    }

    /// The response to a request for one of the two paths; `None`: it is for another.
    pub fn response(&self, request: &Request, client: ClientAddress) -> Option<Response> {
        let path = request.uri().path();
        if !matches!(path, HEALTH_PATH | METRICS_PATH) {
            return None;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(response::method_not_allowed());
        }
        Some(if path == HEALTH_PATH {
            self.health()
        } else if self.may_read_metrics(request, client) {
            self.metrics()
        } else {
            let line = "Only loopback and the networks in METRICS_ALLOW may read the metrics.";
            response::text(StatusCode::FORBIDDEN, line)
        })
    }

    /// The [`HEALTH_HEADER`] for a request for [`HEALTH_PATH`]: `200 OK`. `None`: it is for another.
    pub fn health_header(&self, request: &Request) -> Option<HeaderValue> {
        if request.uri().path() != HEALTH_PATH {
            return None;
        }
        let health = self.health();
        let line = [health.status().as_str().as_bytes(), b" ", health.body().trim_ascii_end()].concat();
        HeaderValue::from_bytes(&line).ok()
    }

    fn health(&self) -> Response {
        if !self.hub.is_responsive(HUB_TIMEOUT) {
            return unresponsive();
        }
        let silence = self.cluster.as_ref().map_or(Duration::ZERO, |cluster| cluster().silence);
        if silence >= ENGINE_TIMEOUT {
            let line = format!("The Redis or Valkey server has not answered for {} s.", silence.as_secs());
            return response::text(StatusCode::SERVICE_UNAVAILABLE, &line);
        }
        response::text(StatusCode::OK, "OK")
    }

    fn metrics(&self) -> Response {
        let Some(hub) = self.hub.stats(HUB_TIMEOUT) else { return unresponsive() };
        let cluster = self.cluster.as_ref().map(|cluster| cluster());
        let page = exposition(&self.counters, &hub, &self.process(), cluster.as_ref());
        let mut response = response::text(StatusCode::OK, page.trim_end());
        response.headers_mut().insert(header::CONTENT_TYPE, METRICS_TYPE);
        response
    }

    fn may_read_metrics(&self, request: &Request, client: ClientAddress) -> bool {
        let address = match client {
            ClientAddress::Peer(address) | ClientAddress::Forwarded(address) => address,
            ClientAddress::Unknown(_) => return false,
        };
        if address.is_loopback() {
            return is_local(request);
        }
        self.allow.iter().any(|network| network.contains(&address))
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

/// Whether a request from loopback was made on this machine. Behind a proxy on this machine, every peer is loopback,
/// even if the proxy is not trusted.
fn is_local(request: &Request) -> bool {
    !request.headers().keys().any(is_proxy_header)
}

/// Whether only proxies send a header of this name.
fn is_proxy_header(name: &HeaderName) -> bool {
    // Also X-Forwarded-Host, X-Forwarded-Proto and so on.
    name.as_str().starts_with("x-forwarded") || PROXY_HEADERS.contains(&name.as_str())
}

fn unresponsive() -> Response {
    response::text(StatusCode::SERVICE_UNAVAILABLE, "The hub does not respond.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub;
    use crate::limits::ClientLog;

    fn start_hub() -> (HubHandle, std::thread::JoinHandle<std::io::Result<()>>) {
        hub::start(hub::HubSettings::empty(), Arc::default(), ClientLog::new(Arc::default()), || {}).unwrap()
    }

    fn monitoring(hub: HubHandle) -> Monitoring {
        let allow = vec!["10.0.0.0/8".parse().unwrap()];
        Monitoring::new(allow, Arc::default(), Permits::new(1, None), hub, None)
    }

    fn status(monitoring: &Monitoring, method: &str, path: &str, client: ClientAddress) -> Option<u16> {
        let request = tungstenite::http::Request::builder().method(method).uri(path).body(()).unwrap();
        Some(monitoring.response(&request, client)?.status().as_u16())
    }

    /// Behind a proxy that sets only `X-Real-IP`, `/metrics` was once open to everyone.
    #[test]
    fn a_request_through_a_proxy_is_not_local() {
        let request = |header: &str| {
            let request = tungstenite::http::Request::builder().uri("/metrics").header("Host", "localhost");
            let request = request.header("User-Agent", "curl").header("Accept", "*/*").header(header, "a");
            request.body(()).unwrap()
        };
        for header in [
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Proto",
            "X-Forwarded-Prefix",
            "X-Forwarded",
            "X-Real-IP",
            "Via",
            "CF-Connecting-IP",
            "True-Client-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "Fastly-Client-IP",
        ] {
            assert!(!is_local(&request(header)), "{header}");
        }
        for header in PROXY_HEADERS {
            assert!(!is_local(&request(header)), "{header}");
        }
        assert!(is_local(&request("Cache-Control")));

        // Nor does METRICS_ALLOW=127.0.0.1 make it local: the address is the proxy's.
        let (hub, thread) = start_hub();
        let monitoring = Monitoring { allow: vec!["127.0.0.0/8".parse().unwrap()], ..monitoring(hub) };
        let response = monitoring.response(&request("X-Real-IP"), ClientAddress::Peer([127, 0, 0, 1].into()));
        assert_eq!(response.unwrap().status(), StatusCode::FORBIDDEN);
        drop(monitoring);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn the_metrics_are_for_loopback_and_allowed_networks() {
        let (hub, thread) = start_hub();
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
        drop(monitoring);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn connections_are_reserved_for_those_who_may_read_the_metrics() {
        let (hub, thread) = start_hub();
        let monitoring = monitoring(hub);
        let [local, allowed, other] = [[127, 0, 0, 1], [10, 9, 8, 7], [192, 0, 2, 1]].map(IpAddr::from);
        for (peer, is_proxy, expected) in [
            (local, false, true),
            (local, true, false),
            (allowed, false, true),
            (other, false, false),
            (other, true, false),
        ] {
            assert_eq!(monitoring.is_reserved_for(peer, is_proxy), expected, "{peer} {is_proxy}");
        }
        drop(monitoring);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_hub_that_has_ended_is_unhealthy() {
        let (hub, thread) = start_hub();
        hub.send(hub::Event::Shutdown).unwrap();
        thread.join().unwrap().unwrap();
        let client = ClientAddress::Peer([127, 0, 0, 1].into());
        assert_eq!(status(&monitoring(hub), "GET", "/healthz", client), Some(503));
    }

    #[test]
    fn a_server_whose_shared_log_is_silent_is_unhealthy() {
        let (hub, thread) = start_hub();
        let client = ClientAddress::Peer([127, 0, 0, 1].into());
        for (silence, expected) in
            [(Duration::ZERO, 200), (ENGINE_TIMEOUT - Duration::from_millis(1), 200), (ENGINE_TIMEOUT, 503)]
        {
            let stats = ClusterStats { name: "one".into(), silence, ..ClusterStats::default() };
            let source: ClusterSource = Box::new(move || stats.clone());
            let monitoring = Monitoring { cluster: Some(source), ..monitoring(hub.clone()) };
            assert_eq!(status(&monitoring, "GET", "/healthz", client), Some(expected), "{silence:?}");
            assert_eq!(status(&monitoring, "GET", "/metrics", client), Some(200), "{silence:?}");
        }
        drop(hub);
        thread.join().unwrap().unwrap();
    }
}
