//! SPEC.md, "TLS at the start": which certificates and keys serve, and what is said of those that do not.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::client::Client;
use crate::program::{Ended, Folder, Program, assert_tells_nothing_of};

pub const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";
pub const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
const P384: &str = "EC -pkeyopt ec_paramgen_curve:P-384";
const P521: &str = "EC -pkeyopt ec_paramgen_curve:P-521";
const ED25519: &str = "ED25519";

/// A folder with `root.crt`, which clients trust, and the pair `server.crt` and `server.key` under it, made by
/// openssl as a certificate authority would.
pub fn folder_with_pair(algorithm: &str) -> Folder {
    let folder = Folder::new();
    folder.write("req.cnf", "[req]\ndistinguished_name = name\n[name]\n");
    folder.write("ca.cnf", "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n");
    folder.write("leaf.cnf", "basicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:localhost\n");
    make_key(&folder, "root", P256);
    openssl(
        &folder,
        "req -x509 -config req.cnf -key root.key -subj /CN=Root -days 30 -out root.crt \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    );
    make_key(&folder, "server", algorithm);
    issue(&folder, "server", "leaf", "root");
    folder
}

pub fn make_key(folder: &Folder, name: &str, algorithm: &str) {
    openssl(folder, &format!("genpkey -algorithm {algorithm} -out {name}.key"));
}

/// Has one certificate signed by another's key.
pub fn issue(folder: &Folder, name: &str, kind: &str, by: &str) {
    openssl(folder, &format!("req -new -config req.cnf -key {name}.key -subj /CN={name} -out {name}.csr"));
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -days 30 -extfile {kind}.cnf \
             -out {name}.crt"
        ),
    );
}

fn openssl(folder: &Folder, arguments: &str) {
    folder.tool("openssl", &arguments.split_whitespace().collect::<Vec<_>>());
}

fn secure(program: Program, cert: &str, key: &str) -> Program {
    program.envs(&[("USE_SSL", "true"), ("PORT", "0"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key)])
}

/// Starts with this pair, and has a client that trusts the root alone join over wss.
fn assert_serves(folder: &Folder, cert: &str, key: &str) {
    let mut server = secure(folder.tinychat(&[]), cert, key).start();
    Client::trusting(&folder.path("root.crt"), "localhost", server.address).enter("Ann");
    server.hears("Ann joined.");
    let log = server.stop();
    assert!(
        log.contains(&format!("[INFO]: [chat_server] SSL/TLS enabled: cert={cert}, key={key}\n")),
        "{log}"
    );
    assert!(log.contains("WebSocket server running: wss://127.0.0.1:"), "{log}");
    assert_tells_nothing_of(&folder.path(key), &log);
}

#[test]
fn every_kind_of_key_serves() {
    for (algorithm, traditional) in [(RSA, "RSA "), (P256, "EC "), (P384, "EC "), (ED25519, "")] {
        let folder = folder_with_pair(algorithm);
        assert!(folder.read("server.key").starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
        assert_serves(&folder, "server.crt", "server.key");
        if !traditional.is_empty() {
            openssl(&folder, "pkey -in server.key -traditional -out old.key");
            let begins = format!("-----BEGIN {traditional}PRIVATE KEY-----");
            assert!(folder.read("old.key").starts_with(&begins), "PKCS#1 or SEC1");
            assert_serves(&folder, "server.crt", "old.key");
        }
    }
}

#[test]
fn a_chain_reaches_clients_that_trust_its_root_alone() {
    let folder = folder_with_pair(P256);
    make_key(&folder, "middle", P256);
    issue(&folder, "middle", "ca", "root");
    issue(&folder, "server", "leaf", "middle");
    let chain = folder.read("server.crt") + &folder.read("middle.crt");
    folder.write("fullchain.pem", &chain);
    assert_serves(&folder, "fullchain.pem", "server.key");
    // Some authorities send the root along.
    folder.write("with-root.pem", chain + &folder.read("root.crt"));
    assert_serves(&folder, "with-root.pem", "server.key");
}

#[test]
fn pem_is_read_as_people_and_their_tools_write_it() {
    let folder = folder_with_pair(P256);
    let (cert, key) = (folder.read("server.crt"), folder.read("server.key"));
    openssl(&folder, "x509 -in server.crt -text -out text.crt");
    assert!(folder.read("text.crt").starts_with("Certificate:"));
    openssl(&folder, "pkey -in server.key -text -out text.key");
    assert_serves(&folder, "text.crt", "text.key");

    folder.write("crlf.crt", cert.replace('\n', "\r\n"));
    folder.write("crlf.key", key.replace('\n', "\r\n"));
    assert_serves(&folder, "crlf.crt", "crlf.key");

    folder.write("bom.crt", format!("\u{feff}{cert}"));
    folder.write("bom.key", format!("\u{feff}{key}"));
    assert_serves(&folder, "bom.crt", "bom.key");

    folder.write("no-last-newline.crt", cert.trim_end());
    folder.write("no-last-newline.key", key.trim_end());
    assert_serves(&folder, "no-last-newline.crt", "no-last-newline.key");

    folder.write("both.pem", format!("{key}{cert}"));
    assert_serves(&folder, "both.pem", "both.pem");

    openssl(&folder, "ecparam -name prime256v1 -genkey -out server.key");
    assert!(folder.read("server.key").starts_with("-----BEGIN EC PARAMETERS-----"));
    issue(&folder, "server", "leaf", "root");
    assert_serves(&folder, "server.crt", "server.key");
}

#[test]
fn certbots_links_are_followed() {
    let folder = folder_with_pair(P256);
    folder.write("archive/chat.example.com/fullchain1.pem", folder.read("server.crt"));
    folder.write("archive/chat.example.com/privkey1.pem", folder.read("server.key"));
    folder.write("live/chat.example.com/README", "");
    for name in ["fullchain", "privkey"] {
        let link = folder.path(&format!("live/chat.example.com/{name}.pem"));
        symlink(format!("../../archive/chat.example.com/{name}1.pem"), link).unwrap();
    }
    assert_serves(&folder, "live/chat.example.com/fullchain.pem", "live/chat.example.com/privkey.pem");
}

#[test]
fn without_its_files_it_says_so_and_serves_ws() {
    let folder = folder_with_pair(P256);
    for (cert, key) in [("none.crt", "server.key"), ("server.crt", "none.key"), ("none.crt", "none.key")] {
        let mut server = secure(folder.tinychat(&[]), cert, key).start();
        server.join("Ann").leave();
        server.hears("Ann left.");
        let log = server.stop();
        for (missing, line) in [
            (
                cert == "none.crt",
                "[ERROR]: [chat_server] SSL certificate not found: none.crt (create a certificate",
            ),
            (
                key == "none.key",
                "[ERROR]: [chat_server] SSL private key not found: none.key (create a certificate",
            ),
        ] {
            assert_eq!(log.contains(line), missing, "{cert} {key}: {log}");
        }
        assert!(log.contains("tinychat generate-certs") && !log.contains("SSL/TLS enabled"), "{log}");
        let warning = log.find("[WARN]: [chat_server] Falling back to unencrypted ws://").expect(&log);
        let running =
            log.find("[INFO]: [chat_server] WebSocket server running: ws://127.0.0.1:").expect(&log);
        assert!(log.find("[ERROR]").unwrap() < warning && warning < running, "{log}");
    }
}

#[test]
fn without_its_files_it_does_not_start_where_tls_is_required() {
    let folder = folder_with_pair(P256);
    for (cert, key, missing) in
        [("none.crt", "server.key", 1), ("server.crt", "none.key", 1), ("none.crt", "none.key", 2)]
    {
        let ended = secure(folder.tinychat(&[]), cert, key).env("SSL_REQUIRED", "true").run();
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), missing, "{ended:?}");
        assert_eq!(ended.stderr.matches(" not found: none.").count(), missing, "{ended:?}");
        assert!(!ended.stderr.contains("Falling back"), "{ended:?}");
    }
    // The link is there, but leads nowhere: certbot has removed what it led to.
    symlink("gone", folder.path("dangling.key")).unwrap();
    let ended = secure(folder.tinychat(&["--ssl-required"]), "server.crt", "dangling.key").run();
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("SSL private key not found: dangling.key"), "{ended:?}");
}

/// Asserts that there was no start, and one line that names the file, what is wrong and a remedy.
fn assert_refused(folder: &Folder, ended: &Ended, what: &str, file: &str, wrong: &str, remedy: &str) {
    let line = &ended.stderr;
    assert_eq!(ended.status, Some(1), "{file}: {ended:?}");
    assert_eq!(line.lines().count(), 1, "{file}: {ended:?}");
    let begins = format!("[ERROR]: [chat_server] SSL {what} unusable: {file}: ");
    assert!(line.contains(&begins), "{begins} is not in {line}");
    assert!(line.contains(wrong), "{file}: {wrong:?} is not in {line}");
    assert!(line.contains(remedy), "{file}: {remedy:?} is not in {line}");
    assert_tells_nothing_of(&folder.path("server.key"), line);
}

/// Tries a file in place of the certificate or the key beside its good other half, and asserts that it is refused.
fn assert_unusable(folder: &Folder, what: &str, file: &str, wrong: &str, remedy: &str) {
    let (cert, key) = if what == "certificate" { (file, "server.key") } else { ("server.crt", file) };
    let ended = secure(folder.tinychat(&[]), cert, key).run();
    assert_refused(folder, &ended, what, file, wrong, remedy);
    if folder.path(file).is_file() {
        assert_tells_nothing_of(&folder.path(file), &ended.stderr);
    }
}

#[test]
fn files_that_hold_something_else_are_refused() {
    let folder = folder_with_pair(P256);
    folder.write("folder/file", "");
    folder.tool("mkfifo", &["pipe"]);
    folder.write("empty", "");
    folder.write("blank", "\n\n");
    folder.write("garbage", [0xFF, 0x00, 0x13, 0x37].repeat(100));
    folder.write("large", "-".repeat(1024 * 1024 + 1));
    openssl(&folder, "x509 -in server.crt -outform DER -out cert.der");
    openssl(&folder, "pkey -in server.key -outform DER -out key.der");
    let (path, pem) = ("set the path of the PEM file itself", "it must be a PEM file");
    let swapped = "SSL_CERT_PATH and SSL_KEY_PATH may be swapped";
    for (what, item, der) in
        [("certificate", "no certificate", "cert.der"), ("private key", "no private key", "key.der")]
    {
        assert_unusable(&folder, what, "folder", "it is not a file", path);
        assert_unusable(&folder, what, "pipe", "it is not a file", path);
        assert_unusable(&folder, what, "empty", "it is empty", "create it again");
        assert_unusable(&folder, what, "blank", item, pem);
        assert_unusable(&folder, what, "garbage", item, pem);
        assert_unusable(&folder, what, "large", "it is larger than 1 MiB", path);
        assert_unusable(&folder, what, der, "it is DER, not PEM", "-inform DER");
    }
    assert_unusable(&folder, "private key", "server.crt", "a certificate and no private key", swapped);
    assert_unusable(&folder, "certificate", "server.key", "a private key and no certificate", swapped);
    let ended = secure(folder.tinychat(&[]), "server.key", "server.crt").run();
    assert_eq!((ended.status, ended.stderr.matches(swapped).count()), (Some(1), 2), "{ended:?}");
}

#[test]
fn short_keys_in_der_are_known_for_what_they_are() {
    let folder = folder_with_pair(P256);
    openssl(&folder, "ec -in server.key -outform DER -out sec1.der");
    openssl(&folder, "genpkey -algorithm ED25519 -outform DER -out ed25519.der");
    assert_unusable(&folder, "private key", "sec1.der", "it is DER, not PEM", "-inform DER");
    assert_unusable(&folder, "private key", "ed25519.der", "it is DER, not PEM", "-inform DER");
}

#[test]
fn encrypted_keys_are_refused_with_the_way_to_decrypt_them() {
    let folder = folder_with_pair(RSA);
    openssl(&folder, "pkey -in server.key -aes256 -passout pass:x -out pkcs8.key");
    assert!(folder.read("pkcs8.key").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    openssl(&folder, "rsa -in server.key -traditional -aes256 -passout pass:x -out pkcs1.key");
    assert!(folder.read("pkcs1.key").contains("Proc-Type: 4,ENCRYPTED"));
    for key in ["pkcs8.key", "pkcs1.key"] {
        assert_unusable(&folder, "private key", key, "encrypted with a passphrase", "openssl pkey -in");
    }
    // The certificate in a file beside an encrypted key is as good as any.
    folder.write("both.pem", folder.read("pkcs8.key") + &folder.read("server.crt"));
    assert_serves(&folder, "both.pem", "server.key");
}

#[test]
fn damaged_files_are_refused() {
    let folder = folder_with_pair(P256);
    for (what, file) in [("certificate", "server.crt"), ("private key", "server.key")] {
        let whole = folder.read(file);
        let middle = whole.len() / 2;
        let damaged = format!("{}!?{}", &whole[..middle], &whole[middle + 2..]);
        folder.write("damaged", damaged);
        assert_unusable(&folder, what, "damaged", "it is damaged PEM", "copy the whole file again");
        folder.write("cut", whole.split("-----END").next().unwrap());
        assert_unusable(&folder, what, "cut", "it is damaged PEM", "copy the whole file again");
        // Line ends that were lost, in part or altogether, put the key where a label is looked for.
        folder.write("joined", whole.replace("\n-----END", "-----END"));
        assert_unusable(&folder, what, "joined", "it is damaged PEM", "copy the whole file again");
        folder.write("one-line", whole.replace('\n', " "));
        assert_unusable(&folder, what, "one-line", "it is damaged PEM", "copy the whole file again");
        folder.write("cut-line", whole.split("-----END").next().unwrap().replace('\n', " "));
        assert_unusable(&folder, what, "cut-line", "it is damaged PEM", "copy the whole file again");
        folder.write("escaped", whole.replace('\n', "\\n"));
        assert_unusable(&folder, what, "escaped", "it is damaged PEM", "copy the whole file again");
    }
    // Good PEM around something that is no certificate, and no key.
    folder.write("no.crt", "-----BEGIN CERTIFICATE-----\nMTIzNA==\n-----END CERTIFICATE-----\n");
    assert_unusable(&folder, "certificate", "no.crt", "cannot be used", "get a new certificate issued");
    folder.write("no.key", "-----BEGIN PRIVATE KEY-----\nMTIzNA==\n-----END PRIVATE KEY-----\n");
    assert_unusable(&folder, "private key", "no.key", "the key in it cannot be used", "P-256");
}

#[test]
fn certificates_that_do_not_belong_to_the_key_are_refused() {
    let folder = folder_with_pair(P256);
    let wrong = "it does not belong to the private key server.key";
    make_key(&folder, "other", P256);
    issue(&folder, "other", "leaf", "root");
    assert_unusable(&folder, "certificate", "other.crt", wrong, "issued together");
    folder.write("reversed.crt", folder.read("root.crt") + &folder.read("server.crt"));
    assert_unusable(
        &folder,
        "certificate",
        "reversed.crt",
        wrong,
        "the server's own certificate comes first",
    );
}

#[test]
fn keys_that_tls_cannot_use_here_are_refused() {
    for algorithm in [P521, "RSA -pkeyopt rsa_keygen_bits:1024"] {
        let folder = folder_with_pair(algorithm);
        let remedy = "use RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519";
        assert_unusable(&folder, "private key", "server.key", "the key in it cannot be used", remedy);
    }
}

#[test]
fn files_that_may_not_be_read_are_refused() {
    let folder = folder_with_pair(P256);
    folder.set_mode("server.key", 0o000);
    folder.write("locked/server.crt", "");
    folder.set_mode("locked", 0o000);
    folder.set_mode("server.crt", 0o644);
    for (cert, key, what, file) in [
        ("server.crt", "server.key", "private key", "server.key"),
        ("locked/server.crt", "good.key", "certificate", "locked/server.crt"),
    ] {
        folder.write("good.key", "");
        folder.set_mode("good.key", 0o644);
        let ended = secure(folder.tinychat_as_nobody(&[]), cert, key).run();
        let line = ended.stderr.lines().find(|line| line.contains(file)).expect(&ended.stderr);
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(
            line.contains(&format!("SSL {what} unusable: {file}: it cannot be read (permission denied)")),
            "{line}"
        );
        assert!(line.contains("let the user that runs TinyChat read it"), "{line}");
        assert!(!ended.stderr.contains("Falling back"), "{ended:?}");
    }
    folder.set_mode("locked", 0o755);
}

#[test]
fn a_missing_certificate_does_not_hide_an_unusable_key() {
    let folder = folder_with_pair(P256);
    folder.write("empty.key", "");
    let ended = secure(folder.tinychat(&[]), "none.crt", "empty.key").run();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("SSL certificate not found: none.crt"), "{ended:?}");
    assert!(ended.stderr.contains("SSL private key unusable: empty.key: it is empty"), "{ended:?}");
    assert!(!ended.stderr.contains("Falling back"), "{ended:?}");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let folder = folder_with_pair(P256);
    let server = secure(folder.tinychat(&[]), "server.crt", "server.key").start();
    let address = server.address.to_string();
    let speak = |version: &str| {
        Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-cipher", "DEFAULT:@SECLEVEL=0", "-brief"])
            .args(["-CAfile", "root.crt", "-verify_return_error", "-verify_hostname", "localhost"])
            .current_dir(folder.path("."))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for (version, spoken) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2"), ("-tls1_1", "")] {
        let output = speak(version);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), !spoken.is_empty(), "{version}: {said}");
        if spoken.is_empty() {
            assert!(said.contains(" alert "), "{said}");
        } else {
            assert!(said.contains(&format!("Protocol version: {spoken}")), "{version}: {said}");
        }
    }
}
