//! Certificates renewed under live traffic: people talk through every renewal and lose nothing, new connections
//! get the new certificate, and a bad pair changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    SignatureAlgorithm,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use tempfile::TempDir;
use time::{Duration as Days, OffsetDateTime};
use tungstenite::WebSocket;

use crate::client::{Client, ClientStream};
use crate::program::Folder;
use crate::server::{TestServer, Transport};

/// How the server is made to notice.
#[derive(Clone, Copy, PartialEq)]
enum Trigger {
    /// As SIGHUP does.
    Asked,
    Unattended,
}

#[test]
fn people_talk_through_every_renewal_when_asked() {
    talk_through_renewals(Trigger::Asked);
}

#[test]
fn people_talk_through_every_renewal_unattended() {
    talk_through_renewals(Trigger::Unattended);
}

fn talk_through_renewals(trigger: Trigger) {
    let house = House::new(&PKCS_ECDSA_P256_SHA256);
    let server = house.serve(trigger);
    let (mut ann, mut bob) = (house.join(&server, "Ann"), house.join(&server, "Bob"));
    assert_eq!(ann.hears(), "system: Bob joined.");
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        // They talk all the time: whatever a renewal should lose, one of them misses.
        let talk = scope.spawn(|| {
            let mut said = 0;
            while !done.load(Ordering::Relaxed) {
                said += 1;
                bob.public(&said.to_string());
                assert_eq!(ann.hears(), format!("Bob: {said}"));
            }
            said
        });
        let renewed =
            std::panic::catch_unwind(AssertUnwindSafe(|| renew_in_all_ways(&house, &server, trigger)));
        done.store(true, Ordering::Relaxed);
        renewed.unwrap();
        talk.join().unwrap()
    });
    assert!(said > 1, "nothing was said meanwhile");
}

fn renew_in_all_ways(house: &House, server: &TestServer, trigger: Trigger) {
    type Write = fn(&House, &Issued);
    let renewals: [(&str, &SignatureAlgorithm, Write); 4] = [
        ("replaced by rename", &PKCS_ECDSA_P256_SHA256, House::replace_by_rename),
        ("links re-pointed, as certbot does", &PKCS_ECDSA_P256_SHA256, House::repoint),
        ("rewritten in place", &PKCS_ECDSA_P384_SHA384, House::rewrite),
        ("another type of key", &PKCS_ED25519, House::repoint),
    ];
    for (how, kind, write) in renewals {
        let issued = Issued::new(kind, 90);
        write(house, &issued);
        if trigger == Trigger::Asked {
            // A burst does no harm.
            (0..50).for_each(|_| server.reload());
        }
        house.until_served(server, &issued, trigger, how);
    }
}

/// Idle, with the certificate looked at and a client there.
#[test]
fn the_look_costs_no_cpu_worth_the_name() {
    let folder = Folder::new();
    let pair = crate::server::pair();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key) = (path(&pair.cert), path(&pair.key));
    // Longer than a look takes to come round.
    let settings = [
        ("PORT", "0"),
        ("USE_SSL", "true"),
        ("SSL_CERT_PATH", &*cert),
        ("SSL_KEY_PATH", &*key),
        ("PING_INTERVAL", "12"),
    ];
    let server = folder.tinychat(&[]).envs(&settings).start();
    let mut client = Client::connect(server.address, Transport::Wss);
    let used = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
        let nanoseconds = |task: std::io::Result<fs::DirEntry>| {
            let schedstat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            schedstat.split(' ').next().unwrap_or_default().parse().unwrap_or(0)
        };
        tasks.map(nanoseconds).sum()
    };
    let before = used();
    assert!(
        matches!(client.socket.read(), Ok(tungstenite::Message::Ping(_))),
        "the ping tells that the time is over"
    );
    let used = Duration::from_nanos(used() - before);
    assert!(used < Duration::from_millis(60), "{used:?} in twelve idle seconds");
}

#[test]
fn an_rsa_certificate_gives_way_to_an_ec_one() {
    let house = House::new(&PKCS_ECDSA_P256_SHA256);
    house.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        "rsa.key",
        "-out",
        "rsa.crt",
    ]);
    fs::rename(house.path("rsa.key"), house.path("key")).unwrap();
    fs::rename(house.path("rsa.crt"), house.path("cert")).unwrap();
    let server = house.serve(Trigger::Asked);
    let rsa = served(server.address);
    let issued = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    house.replace_by_rename(&issued);
    server.reload();
    assert_ne!(served(server.address), rsa);
    assert_eq!(served(server.address), issued.der);
}

#[test]
fn a_bad_pair_keeps_the_old_one() {
    let house = House::new(&PKCS_ECDSA_P256_SHA256);
    let server = house.serve(Trigger::Asked);
    let good = served(server.address);
    let other = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    let expired = Issued::new(&PKCS_ECDSA_P256_SHA256, -1);
    let early = Issued::between(&PKCS_ECDSA_P256_SHA256, 1, 90);
    let bad: [(&str, &dyn Fn()); 7] = [
        ("a pair caught between the two writes", &|| fs::write(house.path("cert"), &other.cert).unwrap()),
        ("a half-written key", &|| fs::write(house.path("key"), &other.key[..other.key.len() / 2]).unwrap()),
        ("an empty file", &|| fs::write(house.path("key"), "").unwrap()),
        ("an expired certificate", &|| house.rewrite(&expired)),
        ("a certificate that is not valid yet", &|| house.rewrite(&early)),
        ("a folder in the key's place", &|| {
            fs::remove_file(house.path("key")).unwrap();
            fs::create_dir(house.path("key")).unwrap();
        }),
        ("nothing in the key's place", &|| fs::remove_dir(house.path("key")).unwrap()),
    ];
    for (what, spoil) in bad {
        spoil();
        server.reload();
        assert_eq!(served(server.address), good, "{what}");
    }
    house.rewrite(&other);
    server.reload();
    assert_eq!(served(server.address), other.der, "and then a good one is taken");
}

/// However long the second write takes: the unattended look takes the pair when it is whole.
#[test]
fn a_pair_caught_between_the_two_writes_is_taken_when_it_is_whole() {
    let house = House::new(&PKCS_ECDSA_P256_SHA256);
    let server = house.serve(Trigger::Unattended);
    let good = served(server.address);
    let issued = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    fs::write(house.path("cert"), &issued.cert).unwrap();
    for _ in 0..50 {
        assert_eq!(served(server.address), good);
    }
    fs::write(house.path("key"), &issued.key).unwrap();
    house.until_served(&server, &issued, Trigger::Unattended, "whole");
}

#[test]
fn a_reload_does_not_turn_tls_on() {
    let house = House::new(&PKCS_ECDSA_P256_SHA256);
    fs::rename(house.path("key"), house.path("elsewhere")).unwrap();
    let server = TestServer::with_check_interval(Transport::Ws, &house.settings(), LOOK);
    fs::rename(house.path("elsewhere"), house.path("key")).unwrap();
    server.reload();
    server.join("Ann, over ws").hears_nothing();
}

/// How often the server looks, for tests that wait for it.
const LOOK: Duration = Duration::from_millis(20);

/// A folder with a pair in it, `cert` and `key`.
struct House {
    folder: TempDir,
}

/// A certificate and its key, as PEM.
struct Issued {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Issued {
    fn new(kind: &'static SignatureAlgorithm, days: i64) -> Self {
        Self::between(kind, -30, days)
    }

    /// Valid from and to so many days from now.
    fn between(kind: &'static SignatureAlgorithm, from: i64, to: i64) -> Self {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = OffsetDateTime::now_utc() + Days::days(from);
        parameters.not_after = OffsetDateTime::now_utc() + Days::days(to);
        let cert = parameters.self_signed(&key).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }
}

impl House {
    fn new(kind: &'static SignatureAlgorithm) -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        house.rewrite(&Issued::new(kind, 90));
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> [(&'static str, String); 3] {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        [("USE_SSL", "true".into()), ("SSL_CERT_PATH", path("cert")), ("SSL_KEY_PATH", path("key"))]
    }

    fn serve(&self, trigger: Trigger) -> TestServer {
        // Asked servers look by themselves as well, but not while a test runs.
        let look = if trigger == Trigger::Asked { Duration::from_secs(3600) } else { LOOK };
        TestServer::with_check_interval(Transport::Wss, &self.settings(), look)
    }

    fn join(&self, server: &TestServer, name: &str) -> Client {
        let socket = std::net::TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(crate::client::HANG)).unwrap();
        let connection = ClientConnection::new(trusting_anybody(), "localhost".try_into().unwrap()).unwrap();
        let stream = ClientStream::Tls(Box::new(StreamOwned::new(connection, socket)));
        let (socket, _): (WebSocket<ClientStream>, _) =
            tungstenite::client("wss://localhost/", stream).unwrap();
        let mut client = Client { socket, users: Vec::new(), lists: 0 };
        client.join(name);
        assert_eq!(client.next()["type"], "command_list");
        client.next();
        client
    }

    fn rewrite(&self, issued: &Issued) {
        fs::write(self.path("cert"), &issued.cert).unwrap();
        fs::write(self.path("key"), &issued.key).unwrap();
    }

    fn replace_by_rename(&self, issued: &Issued) {
        for (name, text) in [("key", &issued.key), ("cert", &issued.cert)] {
            fs::write(self.path("new"), text).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    /// Writes new files aside and has the links lead to them.
    fn repoint(&self, issued: &Issued) {
        let archive = self.path("archive");
        let number = fs::read_dir(&archive).map_or(0, Iterator::count);
        fs::create_dir_all(&archive).unwrap();
        for (name, text) in [("cert", &issued.cert), ("key", &issued.key)] {
            let target = Path::new("archive").join(format!("{name}{number}.pem"));
            fs::write(self.folder.path().join(&target), text).unwrap();
            symlink(target, self.path("new")).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    /// Waits until new connections get this certificate. None of them fails in between.
    fn until_served(&self, server: &TestServer, issued: &Issued, trigger: Trigger, how: &str) {
        let start = std::time::Instant::now();
        while served(server.address) != issued.der {
            assert!(trigger == Trigger::Unattended, "{how}: asked, but not done");
            assert!(start.elapsed() < crate::client::HANG, "{how}: not noticed");
        }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            std::process::Command::new("openssl").args(arguments).current_dir(self.folder.path()).output();
        let output = output.expect("these tests need the openssl command: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The certificate that a new connection gets.
fn served(address: SocketAddr) -> CertificateDer<'static> {
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(crate::client::HANG)).unwrap();
    let mut connection = ClientConnection::new(trusting_anybody(), "localhost".try_into().unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    connection.peer_certificates().unwrap()[0].clone().into_owned()
}

fn trusting_anybody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth())
}

/// Believes any certificate: which it is, the tests see for themselves.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
