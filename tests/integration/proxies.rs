//! nginx and Caddy in front of a server, as docs/operations.md configures them. What they report about clients counts
//! in limits, bans and the log.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tungstenite::Error;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{Request, StatusCode};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{Client, ClientStream, TIMEOUT};
use crate::support::program::{Folder, Process};
use crate::support::reverse_proxy::{Kind, ReverseProxy};
use crate::support::server::Transport;

/// An address that no proxy trusts.
const OTHER_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn nginx() {
    clients_behind_it_are_like_others(Kind::Nginx);
}

#[test]
fn nginx_under_a_path() {
    clients_behind_it_are_like_others(Kind::NginxPath);
}

#[test]
fn caddy() {
    clients_behind_it_are_like_others(Kind::Caddy);
}

#[test]
fn caddy_under_a_path() {
    clients_behind_it_are_like_others(Kind::CaddyPath);
}

fn clients_behind_it_are_like_others(kind: Kind) {
    let folder = Folder::new();
    let settings = [
        ("PORT", "0"),
        ("DATABASE_PATH", "off"),
        ("MOD_PASSWORD", "secret"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("MAX_CONNECTIONS_PER_IP", "1"),
    ];
    let mut server = folder.tinychat(&[]).envs(&settings).start();
    let Some(proxy) = ReverseProxy::start(kind, server.address) else { return };
    pages_are_served_and_the_metrics_are_not(&proxy);
    let bob = one_room(&proxy, &server);
    a_client_cannot_claim_an_address(&proxy, bob);
    one_address_is_limited(&proxy, &mut server);
    one_address_is_banned(&proxy, &server);
}

fn pages_are_served_and_the_metrics_are_not(proxy: &ReverseProxy) {
    let page = get(proxy, proxy.path);
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<title>TinyChat</title>"), "{page}");
    let script = get(proxy, &format!("{}chat.js", proxy.path));
    assert!(script.starts_with("HTTP/1.1 200 "), "{script}");
    let metrics = get(proxy, &format!("{}metrics", proxy.path));
    assert!(metrics.starts_with("HTTP/1.1 403 "), "{metrics}");
    if proxy.path != "/" {
        let redirect = get(proxy, proxy.path.trim_end_matches('/'));
        let location = redirect.lines().find(|line| line.to_lowercase().starts_with("location: "));
        assert!(redirect.starts_with("HTTP/1.1 30") && location.unwrap().ends_with("/chat/"), "{redirect}");
    }
}

/// Members are in one room, however they are connected. Returns the direct one, a moderator.
fn one_room(proxy: &ReverseProxy, server: &Process) -> Client {
    let mut bob = server.join("Bob");
    let mut ann = upgraded(request(proxy, "192.0.2.1"), proxy).unwrap();
    ann.join_and_wait("Ann");
    assert_eq!(bob.next_line(), "system: Ann joined.");
    ann.public("hello");
    assert_eq!(bob.next_line(), "Ann: hello");
    bob.public("hi");
    assert_eq!(ann.next_line(), "Bob: hi");
    ann.leave();
    assert_eq!(bob.next_line(), "system: Ann left.");
    bob.command("/login secret");
    assert_eq!(bob.next_line(), "system: Bob is now a moderator.");
    bob
}

/// What a client itself sends does not count, only what proxies add.
fn a_client_cannot_claim_an_address(proxy: &ReverseProxy, mut bob: Client) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((OTHER_LOOPBACK, 0)).into()).unwrap();
    socket.connect(&proxy.address.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let stream = ClientStream::over(socket, Transport::Wss);
    let mut eve = Client::upgrade(stream, request(proxy, "192.0.2.66"));
    eve.join_and_wait("Eve");
    assert_eq!(bob.next_line(), "system: Eve joined.");
    bob.command("/info Eve");
    let info = bob.next_line();
    assert!(info.starts_with(&format!("system: Eve: member, from {OTHER_LOOPBACK}, ")), "{info}");
    eve.leave();
    bob.leave();
}

fn one_address_is_limited(proxy: &ReverseProxy, server: &mut Process) {
    let mut ann = upgraded(request(proxy, "192.0.2.2"), proxy).unwrap();
    ann.join_and_wait("Ann");
    let line = server.wait_for_line("192.0.2.2 (through 127.0.0.1:");
    assert!(line.ends_with("): Ann joined."), "{line}");
    assert_eq!(upgraded(request(proxy, "192.0.2.2"), proxy).err(), Some(StatusCode::SERVICE_UNAVAILABLE));
    let line = server.wait_for_line("rejected with 503");
    assert!(line.contains("192.0.2.2 (through 127.0.0.1:"), "{line}");
    let mut cid = upgraded(request(proxy, "192.0.2.3"), proxy).unwrap();
    cid.join_and_wait("Cid");
    ann.leave();
    cid.leave();
}

fn one_address_is_banned(proxy: &ReverseProxy, server: &Process) {
    let mut bob = server.join("Bob");
    bob.command("/login secret");
    assert_eq!(bob.next_line(), "system: Bob is now a moderator.");
    let mut dan = upgraded(request(proxy, "192.0.2.4"), proxy).unwrap();
    dan.join_and_wait("Dan");
    assert_eq!(bob.next_line(), "system: Dan joined.");
    bob.command("/ban Dan 1h spam");
    assert_eq!(dan.close_code(), Some(CloseCode::Policy));
    // The permit of the closed connection may not have been released yet.
    let start = Instant::now();
    let mut again = loop {
        match upgraded(request(proxy, "192.0.2.4"), proxy) {
            Ok(client) => break client,
            Err(status) => assert!(start.elapsed() < TIMEOUT, "still {status}"),
        }
    };
    assert!(again.next_line().starts_with("error: You are banned"));
    assert_eq!(again.close_code(), Some(CloseCode::Policy));
    let mut eve = upgraded(request(proxy, "192.0.2.5"), proxy).unwrap();
    eve.join_and_wait("Eve");
}

/// An upgrade request of a client whose address another proxy, on this machine, has reported.
fn request(proxy: &ReverseProxy, client: &str) -> Request<()> {
    let url = format!("wss://localhost:{}{}", proxy.address.port(), proxy.path);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("X-Forwarded-For", client.parse().unwrap());
    request
}

fn upgraded(request: Request<()>, proxy: &ReverseProxy) -> Result<Client, StatusCode> {
    match tungstenite::client(request, ClientStream::connect(proxy.address, Transport::Wss)) {
        Ok((socket, _)) => Ok(Client::new(socket)),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

fn get(proxy: &ReverseProxy, path: &str) -> String {
    let mut stream = ClientStream::connect(proxy.address, Transport::Wss);
    let port = proxy.address.port();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}
