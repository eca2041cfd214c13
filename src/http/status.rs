//! `/healthz` and `/metrics`: whoever runs the server sees at a glance that it is well.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Sender, bounded};
use ipnet::IpNet;
use tungstenite::handshake::server::Request;
use tungstenite::http::Method;

use super::request::Answer;
use crate::hub::Event;
use crate::limits::Admission;
use crate::ops::metrics::{Counters, Process, exposition};

/// How long the hub has to answer before the server counts as not well.
const PATIENCE: Duration = Duration::from_secs(1);

/// What they look at.
pub struct Eyes {
    /// Who may read the metrics, beside loopback.
    pub allow: Vec<IpNet>,
    pub counters: Arc<Counters>,
    pub admission: Admission,
    pub hub: Sender<Event>,
    pub started: (Instant, SystemTime),
}

impl Eyes {
    /// The answer to a request for one of the two; `None`: it is for something else. The address is the client's, or
    /// `None` where a proxy asks and does not say for whom.
    pub fn answer(&self, request: &Request, address: Option<IpAddr>) -> Option<Answer> {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/metrics") {
            return None;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refused = Answer::new("405 Method Not Allowed", "Only GET and HEAD are answered here.");
            return Some(refused.with("Allow: GET, HEAD"));
        }
        if path == "/metrics" && !self.may_read(request, address) {
            let line = "Loopback and METRICS_ALLOW may read this, and nobody else.";
            return Some(Answer::new("403 Forbidden", line));
        }
        let told = match path {
            "/healthz" => self.ask_hub(Event::Alive).map(|()| Answer::new("200 OK", "The chat is well.")),
            _ => self
                .ask_hub(Event::Report)
                .map(|report| Answer::metrics(exposition(&self.counters, &report, &self.process()))),
        };
        Some(told.unwrap_or_else(|| Answer::new("503 Service Unavailable", "The chat does not answer.")))
    }

    fn may_read(&self, request: &Request, address: Option<IpAddr>) -> bool {
        // Behind a proxy on the same machine everybody's peer is loopback, whether the proxy is trusted or not.
        let is_forwarded =
            ["x-forwarded-for", "forwarded"].iter().any(|name| request.headers().contains_key(*name));
        address.is_some_and(|address| {
            let is_local = address.is_loopback() && !is_forwarded;
            is_local || self.allow.iter().any(|net| net.contains(&address))
        })
    }

    fn ask_hub<T>(&self, question: fn(Sender<T>) -> Event) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let (asker, answer) = bounded(1);
        self.hub.send_deadline(question(asker), until).ok()?;
        answer.recv_deadline(until).ok()
    }

    fn process(&self) -> Process {
        let (instant, time) = self.started;
        Process {
            connections: self.admission.connections(),
            started: time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            uptime: instant.elapsed().as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::ops::metrics::HubReport;

    fn eyes(hub: Sender<Event>) -> Eyes {
        let settings = Settings::from_pairs([("METRICS_ALLOW", "10.0.0.0/8")]).unwrap();
        Eyes {
            allow: settings.metrics_allow,
            counters: Arc::default(),
            admission: Admission::new(&settings.limits),
            hub,
            started: (Instant::now(), SystemTime::now()),
        }
    }

    fn status(eyes: &Eyes, method: &str, path: &str, address: Option<[u8; 4]>) -> Option<String> {
        let request = tungstenite::http::Request::builder().method(method).uri(path).body(()).unwrap();
        let answer = eyes.answer(&request, address.map(IpAddr::from))?;
        Some(answer.to_string().split(':').next().unwrap().to_owned())
    }

    #[test]
    fn who_may_read_what() {
        // A hub that answers as often as it is asked.
        let (hub, inbox) = bounded::<Event>(1);
        let thread = std::thread::spawn(move || {
            for event in inbox {
                match event {
                    Event::Report(asker) => asker.send(HubReport::default()).unwrap(),
                    Event::Alive(asker) => asker.send(()).unwrap(),
                    _ => {}
                }
            }
        });
        let eyes = eyes(hub);
        let (near, allowed, far) = (Some([127, 0, 0, 1]), Some([10, 9, 8, 7]), Some([192, 0, 2, 1]));
        for (method, path, address, expected) in [
            ("GET", "/metrics", near, Some("200 OK")),
            ("HEAD", "/metrics", allowed, Some("200 OK")),
            ("GET", "/metrics", far, Some("403 Forbidden")),
            ("GET", "/metrics", None, Some("403 Forbidden")),
            ("GET", "/healthz", far, Some("200 OK")),
            ("POST", "/healthz", near, Some("405 Method Not Allowed")),
            ("GET", "/metrics/", near, None),
            ("GET", "/", near, None),
        ] {
            assert_eq!(
                status(&eyes, method, path, address).as_deref(),
                expected,
                "{method} {path} {address:?}"
            );
        }
        // Forwarded by a proxy that nobody has told of.
        let forwarded =
            tungstenite::http::Request::builder().uri("/metrics").header("X-Forwarded-For", "192.0.2.1");
        let answer = eyes.answer(&forwarded.body(()).unwrap(), near.map(IpAddr::from)).unwrap();
        assert!(answer.to_string().starts_with("403"), "{answer}");
        drop(eyes);
        thread.join().unwrap();
    }

    #[test]
    fn a_hub_that_does_not_answer_is_not_well() {
        let (hub, inbox) = bounded(1);
        assert_eq!(status(&eyes(hub), "GET", "/healthz", None).unwrap(), "503 Service Unavailable");
        assert_eq!(inbox.len(), 1, "it was asked");
    }
}
