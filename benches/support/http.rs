//! HTTP requests to the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustls::StreamOwned;

use super::Result;
use super::child::Child;
use super::connection::client_connection;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The response to a GET, with its head.
pub fn get(server: &Child, path: &str) -> Result<String> {
    let socket = TcpStream::connect(server.address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match &server.tls {
        Some(config) => exchange(StreamOwned::new(client_connection(config)?, socket), &request),
        None => exchange(socket, &request),
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        // Without `close_notify`.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Ok(String::from_utf8(response)?),
    }
}

/// The sum of this metric over all its labels that contain `label`.
pub fn metric(server: &Child, name: &str, label: &str) -> Result<f64> {
    let page = get(server, "/metrics")?;
    let mut found = None;
    for line in page.lines() {
        let Some((key, value)) = line.rsplit_once(' ') else { continue };
        let (key_name, labels) = key.split_once('{').unwrap_or((key, ""));
        if key_name == name && labels.contains(label) {
            *found.get_or_insert(0.0) += value.parse::<f64>()?;
        }
    }
    Ok(found.ok_or_else(|| io::Error::other(format!("/metrics has no {name}: {page}")))?)
}
