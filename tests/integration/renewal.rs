//! Certificate renewal under live traffic (docs/tls.md): new connections get the new certificate, open connections
//! lose nothing, and an unusable file changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    SignatureAlgorithm,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use time::{Duration as Days, OffsetDateTime};
use tungstenite::Message;

use crate::support::certificates::{localhost, openssl};
use crate::support::client::{Client, ClientStream, TIMEOUT, connect, tls_config};
use crate::support::program::Folder;
use crate::support::server::{TestServer, Transport};

/// What makes the server reload its certificate.
#[derive(Clone, Copy, PartialEq)]
enum Trigger {
    /// On request, as on SIGHUP.
    Reload,
    /// By itself, once the files have changed.
    Automatic,
}

/// How often the server checks the files in tests of [`Trigger::Automatic`].
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

#[test]
fn no_message_is_lost_while_certificates_are_reloaded() {
    chat_through_renewals(Trigger::Reload);
}

#[test]
fn no_message_is_lost_while_certificates_are_renewed_automatically() {
    chat_through_renewals(Trigger::Automatic);
}

fn chat_through_renewals(trigger: Trigger) {
    let files = CertificateFolder::new(&PKCS_ECDSA_P256_SHA256);
    let server = files.serve(trigger);
    let (mut ann, mut bob) = (join(&server, "Ann"), join(&server, "Bob"));
    assert_eq!(ann.next_line(), "system: Bob joined.");
    let is_done = AtomicBool::new(false);
    let messages = std::thread::scope(|scope| {
        let chat = scope.spawn(|| {
            let mut messages = 0;
            while !is_done.load(Ordering::Relaxed) {
                messages += 1;
                bob.public(&messages.to_string());
                assert_eq!(ann.next_line(), format!("Bob: {messages}"));
            }
            messages
        });
        // The other thread must end even if this fails.
        let renewed = catch_unwind(AssertUnwindSafe(|| renew_in_all_ways(&files, &server, trigger)));
        is_done.store(true, Ordering::Relaxed);
        renewed.unwrap();
        chat.join().unwrap()
    });
    assert!(messages > 1, "no messages were sent during the renewals");
}

fn renew_in_all_ways(files: &CertificateFolder, server: &TestServer, trigger: Trigger) {
    type Write = fn(&CertificateFolder, &Issued);
    let renewals: [(&str, &SignatureAlgorithm, Write); 4] = [
        ("replaced by rename", &PKCS_ECDSA_P256_SHA256, CertificateFolder::replace_by_rename),
        ("symbolic links changed, as by certbot", &PKCS_ECDSA_P256_SHA256, CertificateFolder::change_links),
        ("rewritten in place", &PKCS_ECDSA_P384_SHA384, CertificateFolder::rewrite),
        ("another type of key", &PKCS_ED25519, CertificateFolder::change_links),
    ];
    for (how, algorithm, write) in renewals {
        let issued = Issued::new(algorithm, 90);
        write(files, &issued);
        if trigger == Trigger::Reload {
            // Many requests at once have the same effect as one.
            (0..50).for_each(|_| server.reload());
        }
        wait_until_served(server, &issued, trigger, how);
    }
}

#[test]
fn checking_the_certificate_uses_almost_no_cpu_time() {
    let folder = Folder::new();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key) = (path(&localhost().cert), path(&localhost().key));
    // A ping after 12 s ends the measurement. In this time the server checks the files at least once.
    let settings = [
        ("PORT", "0"),
        ("USE_SSL", "true"),
        ("SSL_CERT_PATH", &*cert),
        ("SSL_KEY_PATH", &*key),
        ("PING_INTERVAL", "12"),
    ];
    let server = folder.tinychat(&[]).envs(&settings).start();
    let mut client = Client::connect(server.address, Transport::Wss);
    // Of all threads, including those that have ended: the sum over `/proc/PID/task` once shrank in between. In ticks
    // of 10 ms (proc_pid_stat(5)).
    let cpu_time = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 =
            after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    };
    let before = cpu_time();
    assert!(matches!(client.socket.read(), Ok(Message::Ping(_))));
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time in 12 s without traffic");
}

#[test]
fn an_rsa_certificate_can_be_replaced_by_an_ec_certificate() {
    let files = CertificateFolder::new(&PKCS_ECDSA_P256_SHA256);
    openssl(
        &files.0,
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key -out cert",
    );
    let server = files.serve(Trigger::Reload);
    let rsa = served(server.address);
    let issued = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    files.replace_by_rename(&issued);
    server.reload();
    assert_ne!(served(server.address), rsa);
    assert_eq!(served(server.address), issued.der);
}

#[test]
fn unusable_files_do_not_replace_the_certificate() {
    let files = CertificateFolder::new(&PKCS_ECDSA_P256_SHA256);
    let server = files.serve(Trigger::Reload);
    let good = served(server.address);
    let other = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    let expired = Issued::new(&PKCS_ECDSA_P256_SHA256, -1);
    let not_yet_valid = Issued::between(&PKCS_ECDSA_P256_SHA256, 1, 90);
    let (cert, key) = (files.0.path("cert"), files.0.path("key"));
    let changes: [(&str, &dyn Fn()); 7] = [
        ("a new certificate with the old key", &|| fs::write(&cert, &other.cert).unwrap()),
        ("half of a key", &|| fs::write(&key, &other.key[..other.key.len() / 2]).unwrap()),
        ("an empty file", &|| fs::write(&key, "").unwrap()),
        ("an expired certificate", &|| files.rewrite(&expired)),
        ("a certificate that is not valid yet", &|| files.rewrite(&not_yet_valid)),
        ("a folder instead of the key", &|| {
            fs::remove_file(&key).unwrap();
            fs::create_dir(&key).unwrap();
        }),
        ("no key", &|| fs::remove_dir(&key).unwrap()),
    ];
    for (what, change) in changes {
        change();
        server.reload();
        assert_eq!(served(server.address), good, "{what}");
    }
    files.rewrite(&other);
    server.reload();
    assert_eq!(served(server.address), other.der, "good files after the unusable ones");
}

/// Regardless of how much later the key is written.
#[test]
fn an_automatic_renewal_waits_until_both_files_are_written() {
    let files = CertificateFolder::new(&PKCS_ECDSA_P256_SHA256);
    let server = files.serve(Trigger::Automatic);
    let old = served(server.address);
    let issued = Issued::new(&PKCS_ECDSA_P256_SHA256, 90);
    files.0.write("cert", &issued.cert);
    let written = Instant::now();
    // Long enough for several checks.
    while written.elapsed() < 10 * CHECK_INTERVAL {
        assert_eq!(served(server.address), old);
    }
    files.0.write("key", &issued.key);
    wait_until_served(&server, &issued, Trigger::Automatic, "both files written");
}

#[test]
fn a_reload_does_not_turn_tls_on() {
    let files = CertificateFolder::new(&PKCS_ECDSA_P256_SHA256);
    fs::rename(files.0.path("key"), files.0.path("elsewhere")).unwrap();
    let server = TestServer::with_check_interval(Transport::Ws, &files.settings(), CHECK_INTERVAL);
    fs::rename(files.0.path("elsewhere"), files.0.path("key")).unwrap();
    server.reload();
    server.join("Ann").assert_nothing_received();
}

/// A folder with a certificate and its key, `cert` and `key`.
struct CertificateFolder(Folder);

impl CertificateFolder {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let files = Self(Folder::new());
        files.rewrite(&Issued::new(algorithm, 90));
        files
    }

    fn settings(&self) -> [(&'static str, String); 3] {
        let path = |name| self.0.path(name).to_str().unwrap().to_owned();
        [("USE_SSL", "true".into()), ("SSL_CERT_PATH", path("cert")), ("SSL_KEY_PATH", path("key"))]
    }

    fn serve(&self, trigger: Trigger) -> TestServer {
        // For `Reload` an interval longer than any test, so that nothing happens automatically.
        let interval = if trigger == Trigger::Reload { Duration::from_secs(3600) } else { CHECK_INTERVAL };
        TestServer::with_check_interval(Transport::Wss, &self.settings(), interval)
    }

    fn rewrite(&self, issued: &Issued) {
        self.0.write("cert", &issued.cert);
        self.0.write("key", &issued.key);
    }

    fn replace_by_rename(&self, issued: &Issued) {
        for (name, pem) in [("key", &issued.key), ("cert", &issued.cert)] {
            self.0.write("new", pem);
            fs::rename(self.0.path("new"), self.0.path(name)).unwrap();
        }
    }

    /// Writes new files, and makes `cert` and `key` symbolic links to them.
    fn change_links(&self, issued: &Issued) {
        let number = fs::read_dir(self.0.path("archive")).map_or(0, Iterator::count);
        for (name, pem) in [("cert", &issued.cert), ("key", &issued.key)] {
            let target = format!("archive/{name}{number}.pem");
            self.0.write(&target, pem);
            symlink(target, self.0.path("new")).unwrap();
            fs::rename(self.0.path("new"), self.0.path(name)).unwrap();
        }
    }
}

/// A certificate and its key, as PEM.
struct Issued {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Issued {
    /// Expires in this many days.
    fn new(algorithm: &'static SignatureAlgorithm, days: i64) -> Self {
        Self::between(algorithm, -30, days)
    }

    /// Valid between these days, counted from now.
    fn between(algorithm: &'static SignatureAlgorithm, from: i64, to: i64) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = OffsetDateTime::now_utc() + Days::days(from);
        parameters.not_after = OffsetDateTime::now_utc() + Days::days(to);
        let cert = parameters.self_signed(&key).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
    }
}

/// A client that has joined, whatever the certificate.
fn join(server: &TestServer, name: &str) -> Client {
    let stream = ClientStream::tls(server.address, trust_any(), "localhost".try_into().unwrap());
    let mut client = Client::upgrade(stream, "wss://localhost/");
    client.join_and_wait(name);
    client
}

/// Waits until new connections get this certificate. Every handshake until then must succeed.
fn wait_until_served(server: &TestServer, issued: &Issued, trigger: Trigger, how: &str) {
    let start = Instant::now();
    while served(server.address) != issued.der {
        assert!(
            trigger == Trigger::Automatic,
            "{how}: the first connection after the reload got the old one"
        );
        assert!(start.elapsed() < TIMEOUT, "{how}: the change is not noticed");
    }
}

/// The certificate that a new connection gets.
fn served(address: SocketAddr) -> CertificateDer<'static> {
    let mut socket = connect(address);
    let mut connection = ClientConnection::new(trust_any(), "localhost".try_into().unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    connection.peer_certificates().unwrap()[0].clone().into_owned()
}

fn trust_any() -> Arc<ClientConfig> {
    let config = tls_config().dangerous().with_custom_certificate_verifier(Arc::new(TrustAny));
    Arc::new(config.with_no_client_auth())
}

/// Accepts any certificate: the tests compare it themselves.
#[derive(Debug)]
struct TrustAny;

impl ServerCertVerifier for TrustAny {
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
