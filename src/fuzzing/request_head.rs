//! A request head from any peer, and the response to it.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::server::Request;
use tungstenite::http::StatusCode;

use super::http_response::HttpResponse;
use crate::http::{self, Monitoring, Rejection, Response, Route, Router, TrustedProxies};
use crate::hub;
use crate::limits::{ClientLog, LimitExceeded, Permits};

/// The longest head, in bytes, of which every prefix is parsed.
const MAX_SPLIT: usize = 512;
/// The longest response, in bytes: a file of the chat page.
const MAX_RESPONSE: usize = 256 * 1024;

static ROUTERS: LazyLock<[Router; 2]> = LazyLock::new(|| [router(true), router(false)]);

/// The first byte chooses the settings and the peer, the rest is what the peer sends.
pub fn request_head(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let chosen = |bit: u8| choice >> bit & 1 == 1;
    let peer = [[192, 0, 2, 1], [10, 0, 0, 1], [127, 0, 0, 1], [10, 9, 8, 7]][usize::from(choice & 3)];
    let router = &ROUTERS[usize::from(chosen(2))];
    match http::parse(bytes) {
        Ok(None) => {}
        Ok(Some((request, length))) => {
            assert!(length <= bytes.len());
            assert_prefixes_are_incomplete(&bytes[..length]);
            check_request(router, &request, peer.into(), chosen(3));
        }
        Err(rejection) => check_response(&rejection.response(), None),
    }
}

fn check_request(router: &Router, request: &Request, peer: IpAddr, secure: bool) {
    let client = router.proxies.client(peer, request);
    assert!(router.proxies.contains(peer) || client.ip() == peer, "a client has forged its address");
    let exceeded =
        [LimitExceeded::Server, LimitExceeded::Address].map(|limit| Rejection::Limit(limit).response());
    exceeded.iter().for_each(|response| check_response(response, Some(request)));
    match router.route(request, client, secure) {
        Ok(Route::Respond(response)) => {
            assert_ne!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            check_response(&response, Some(request));
        }
        Ok(Route::Upgrade(response)) => {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            check_response(&response, Some(request));
        }
        Err(rejection) => check_response(&rejection.response(), Some(request)),
    }
}

/// A shorter prefix of a complete head must be incomplete.
fn assert_prefixes_are_incomplete(head: &[u8]) {
    if head.len() <= MAX_SPLIT {
        for cut in 0..head.len() {
            assert!(matches!(http::parse(&head[..cut]), Ok(None)), "after {cut} bytes it is not incomplete");
        }
    }
}

fn check_response(response: &Response, request: Option<&Request>) {
    let bytes = http::encode(response, request.map(Request::method));
    assert!(bytes.len() <= MAX_RESPONSE, "{} bytes", bytes.len());
    let is_head = request.is_some_and(|request| request.method() == "HEAD");
    let response = HttpResponse::parse(&bytes, is_head);
    match response.status {
        101 => {
            let key = request.and_then(|request| request.headers().get("sec-websocket-key"));
            let accept = derive_accept_key(key.expect("only a key is accepted").as_bytes());
            assert_eq!(response.header("Sec-WebSocket-Accept"), Some(accept.as_str()));
            assert_eq!(response.header("Upgrade"), Some("websocket"));
            assert_eq!(response.header("Connection"), Some("Upgrade"));
        }
        200 | 304 | 400 | 403 | 404 | 405 | 426 | 431 | 503 => {
            assert!(matches!(response.header("Connection"), None | Some("close")));
            if response.status != 304 {
                assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
            }
        }
        other => panic!("the server never responds with {other}"),
    }
    assert_eq!(response.header("Set-Cookie").or(response.header("Location")), None);
    if let Some(policy) = response.header("Content-Security-Policy") {
        check_policy(policy);
    }
}

/// The `Host` that is part of the policy must not add anything to it.
fn check_policy(policy: &str) {
    let directives: Vec<Vec<&str>> =
        policy.split(';').map(|part| part.split_whitespace().collect()).collect();
    let names: Vec<&str> = directives.iter().filter_map(|words| words.first().copied()).collect();
    let expected = [
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "manifest-src",
        "connect-src",
        "base-uri",
        "form-action",
        "frame-ancestors",
        "require-trusted-types-for",
        "trusted-types",
    ];
    assert_eq!(names, expected, "{policy}");
    for words in &directives {
        match words[..] {
            ["connect-src", "'self'"] => {}
            ["connect-src", "'self'", ws, wss] => {
                let host = ws.strip_prefix("ws://").expect("ws:// first");
                assert_eq!(wss.strip_prefix("wss://"), Some(host), "{policy}");
                assert!(!host.is_empty() && !host.contains(['*', '\'', '/']), "{policy}");
            }
            [name, _] => assert_ne!(name, "connect-src", "{policy}"),
            _ => panic!("{policy}"),
        }
    }
}

/// A router that serves the page and allows every origin, or one without the page that allows a single origin.
fn router(page: bool) -> Router {
    let (hub, _thread) =
        hub::start(hub::HubSettings::empty(), Arc::default(), ClientLog::new(Arc::default()), || {})
            .expect("the hub starts");
    let networks = |text: &str| vec![text.parse().expect("a network")];
    Router {
        monitoring: Monitoring::new(
            networks("10.9.0.0/16"),
            Arc::default(),
            Permits::new(1, None),
            hub,
            None,
        ),
        page,
        allowed_origins: (!page).then(|| vec!["https://chat.example.com".parse().expect("an origin")]),
        proxies: TrustedProxies::new(networks("10.0.0.0/16")),
    }
}
