//! Certificates and keys at startup (docs/tls.md): which are accepted, and the errors for all others.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::support::certificates::{
    P256, RSA, assert_no_key_material, create_key, folder_with_certificate, issue, issue_through_middle,
    openssl,
};
use crate::support::client::Client;
use crate::support::program::{Folder, Program};

#[test]
fn every_supported_type_of_key_is_served() {
    let p384 = "EC -pkeyopt ec_paramgen_curve:P-384";
    for (algorithm, traditional) in [(RSA, "RSA "), (P256, "EC "), (p384, "EC "), ("ED25519", "")] {
        let folder = folder_with_certificate(algorithm);
        assert!(folder.read("server.key").starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
        assert_serves(&folder, "server.crt", "server.key");
        if !traditional.is_empty() {
            openssl(&folder, "pkey -in server.key -traditional -out old.key");
            let label = format!("-----BEGIN {traditional}PRIVATE KEY-----");
            assert!(folder.read("old.key").starts_with(&label), "PKCS#1 or SEC1");
            assert_serves(&folder, "server.crt", "old.key");
        }
    }
}

#[test]
fn clients_that_trust_only_the_root_accept_a_chain() {
    let folder = folder_with_certificate(P256);
    issue_through_middle(&folder);
    let chain = folder.read("server.crt") + &folder.read("middle.crt");
    folder.write("fullchain.pem", &chain);
    assert_serves(&folder, "fullchain.pem", "server.key");
    // Some authorities include the root.
    folder.write("with-root.pem", chain + &folder.read("root.crt"));
    assert_serves(&folder, "with-root.pem", "server.key");
}

#[test]
fn pem_files_may_have_text_other_line_endings_or_both_in_one() {
    let folder = folder_with_certificate(P256);
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
fn symbolic_links_as_certbot_makes_them_are_followed() {
    let folder = folder_with_certificate(P256);
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
fn a_missing_file_is_reported_and_the_server_falls_back_to_ws() {
    let folder = folder_with_certificate(P256);
    for (cert, key) in [("none.crt", "server.key"), ("server.crt", "none.key"), ("none.crt", "none.key")] {
        let mut server = secure(folder.tinychat(&[]), cert, key).start();
        server.join("Ann").leave();
        server.wait_for_line("Ann left.");
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
fn a_missing_file_prevents_startup_if_tls_is_required() {
    let folder = folder_with_certificate(P256);
    for (cert, key, missing) in
        [("none.crt", "server.key", 1), ("server.crt", "none.key", 1), ("none.crt", "none.key", 2)]
    {
        let output = secure(folder.tinychat(&[]), cert, key).env("SSL_REQUIRED", "true").run();
        assert_eq!(output.status, Some(1), "{output:?}");
        assert_eq!(output.stderr.lines().count(), missing, "{output:?}");
        assert_eq!(output.stderr.matches(" not found: none.").count(), missing, "{output:?}");
        assert!(!output.stderr.contains("Falling back"), "{output:?}");
    }
    // A dangling link: certbot has removed its target.
    symlink("gone", folder.path("dangling.key")).unwrap();
    let output = secure(folder.tinychat(&["--ssl-required"]), "server.crt", "dangling.key").run();
    assert_eq!(output.status, Some(1));
    assert!(output.stderr.contains("SSL private key not found: dangling.key"), "{output:?}");
}

#[test]
fn files_that_are_not_pem_are_refused() {
    let folder = folder_with_certificate(P256);
    folder.write("folder/file", "");
    folder.run_tool("mkfifo", &["pipe"]);
    folder.write("empty", "");
    folder.write("blank", "\n\n");
    folder.write("garbage", [0xFF, 0x00, 0x13, 0x37].repeat(100));
    folder.write("large", "-".repeat(1024 * 1024 + 1));
    openssl(&folder, "x509 -in server.crt -outform DER -out cert.der");
    openssl(&folder, "pkey -in server.key -outform DER -out key.der");
    let (path, pem) = ("set the path of the PEM file itself", "it must be a PEM file");
    let swapped = "SSL_CERT_PATH and SSL_KEY_PATH may be swapped";
    for (role, item, der) in
        [("certificate", "no certificate", "cert.der"), ("private key", "no private key", "key.der")]
    {
        assert_unusable(&folder, role, "folder", "it is not a file", path);
        assert_unusable(&folder, role, "pipe", "it is not a file", path);
        assert_unusable(&folder, role, "empty", "it is empty", "create it again");
        assert_unusable(&folder, role, "blank", item, pem);
        assert_unusable(&folder, role, "garbage", item, pem);
        assert_unusable(&folder, role, "large", "it is larger than 1 MiB", path);
        assert_unusable(&folder, role, der, "it is DER, not PEM", "-inform DER");
    }
    assert_unusable(&folder, "private key", "server.crt", "a certificate and no private key", swapped);
    assert_unusable(&folder, "certificate", "server.key", "a private key and no certificate", swapped);
    let output = secure(folder.tinychat(&[]), "server.key", "server.crt").run();
    assert_eq!((output.status, output.stderr.matches(swapped).count()), (Some(1), 2), "{output:?}");
}

#[test]
fn short_keys_in_der_are_recognized() {
    let folder = folder_with_certificate(P256);
    openssl(&folder, "ec -in server.key -outform DER -out sec1.der");
    openssl(&folder, "genpkey -algorithm ED25519 -outform DER -out ed25519.der");
    assert_unusable(&folder, "private key", "sec1.der", "it is DER, not PEM", "-inform DER");
    assert_unusable(&folder, "private key", "ed25519.der", "it is DER, not PEM", "-inform DER");
}

#[test]
fn the_error_for_an_encrypted_key_says_how_to_decrypt_it() {
    let folder = folder_with_certificate(RSA);
    openssl(&folder, "pkey -in server.key -aes256 -passout pass:x -out pkcs8.key");
    assert!(folder.read("pkcs8.key").starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    openssl(&folder, "rsa -in server.key -traditional -aes256 -passout pass:x -out pkcs1.key");
    assert!(folder.read("pkcs1.key").contains("Proc-Type: 4,ENCRYPTED"));
    for key in ["pkcs8.key", "pkcs1.key"] {
        assert_unusable(&folder, "private key", key, "encrypted with a passphrase", "openssl pkey -in");
    }
    // A certificate in one file with an encrypted key can be used.
    folder.write("both.pem", folder.read("pkcs8.key") + &folder.read("server.crt"));
    assert_serves(&folder, "both.pem", "server.key");
}

#[test]
fn damaged_files_are_refused() {
    let folder = folder_with_certificate(P256);
    for (role, file) in [("certificate", "server.crt"), ("private key", "server.key")] {
        let pem = folder.read(file);
        let middle = pem.len() / 2;
        let cut = pem.split("-----END").next().unwrap();
        for (name, damaged) in [
            ("changed", format!("{}!?{}", &pem[..middle], &pem[middle + 2..])),
            ("cut", cut.to_owned()),
            // Where line breaks are missing, the key's base64 is on the line of a label.
            ("joined", pem.replace("\n-----END", "-----END")),
            ("one-line", pem.replace('\n', " ")),
            ("cut-line", cut.replace('\n', " ")),
            ("escaped", pem.replace('\n', "\\n")),
        ] {
            folder.write(name, damaged);
            assert_unusable(&folder, role, name, "it is damaged PEM", "copy the whole file again");
        }
    }
    // Valid PEM whose content is neither a certificate nor a key.
    folder.write("no.crt", "-----BEGIN CERTIFICATE-----\nMTIzNA==\n-----END CERTIFICATE-----\n");
    assert_unusable(&folder, "certificate", "no.crt", "cannot be used", "get a new certificate issued");
    folder.write("no.key", "-----BEGIN PRIVATE KEY-----\nMTIzNA==\n-----END PRIVATE KEY-----\n");
    assert_unusable(&folder, "private key", "no.key", "the key in it cannot be used", "P-256");
}

#[test]
fn a_certificate_that_does_not_match_the_key_is_refused() {
    let folder = folder_with_certificate(P256);
    let mismatch = "it does not belong to the private key server.key";
    create_key(&folder, "other", P256);
    issue(&folder, "other", "leaf", "root");
    assert_unusable(&folder, "certificate", "other.crt", mismatch, "issued together");
    folder.write("reversed.crt", folder.read("root.crt") + &folder.read("server.crt"));
    assert_unusable(
        &folder,
        "certificate",
        "reversed.crt",
        mismatch,
        "the server's own certificate comes first",
    );
}

#[test]
fn unsupported_types_and_sizes_of_keys_are_refused() {
    for algorithm in ["EC -pkeyopt ec_paramgen_curve:P-521", "RSA -pkeyopt rsa_keygen_bits:1024"] {
        let folder = folder_with_certificate(algorithm);
        let remedy = "use RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519";
        assert_unusable(&folder, "private key", "server.key", "the key in it cannot be used", remedy);
    }
}

#[test]
fn files_without_read_permission_are_refused() {
    let folder = folder_with_certificate(P256);
    folder.set_mode("server.key", 0o000);
    folder.set_mode("server.crt", 0o644);
    folder.write("locked/server.crt", "");
    folder.set_mode("locked", 0o000);
    folder.write("readable.key", "");
    folder.set_mode("readable.key", 0o644);
    for (cert, key, role, file) in [
        ("server.crt", "server.key", "private key", "server.key"),
        ("locked/server.crt", "readable.key", "certificate", "locked/server.crt"),
    ] {
        let output = secure(folder.tinychat_as_nobody(&[]), cert, key).run();
        let line = output.stderr.lines().find(|line| line.contains(file)).expect(&output.stderr);
        assert_eq!(output.status, Some(1), "{output:?}");
        assert!(
            line.contains(&format!("SSL {role} unusable: {file}: it cannot be read (permission denied)")),
            "{line}"
        );
        assert!(line.contains("let the user that runs TinyChat read it"), "{line}");
        assert!(!output.stderr.contains("Falling back"), "{output:?}");
    }
    folder.set_mode("locked", 0o755);
}

#[test]
fn a_missing_certificate_does_not_hide_an_unusable_key() {
    let folder = folder_with_certificate(P256);
    folder.write("empty.key", "");
    let output = secure(folder.tinychat(&[]), "none.crt", "empty.key").run();
    assert_eq!(output.status, Some(1), "{output:?}");
    assert!(output.stderr.contains("SSL certificate not found: none.crt"), "{output:?}");
    assert!(output.stderr.contains("SSL private key unusable: empty.key: it is empty"), "{output:?}");
    assert!(!output.stderr.contains("Falling back"), "{output:?}");
}

#[test]
fn only_tls_1_2_and_1_3_are_accepted() {
    let folder = folder_with_certificate(P256);
    let server = secure(folder.tinychat(&[]), "server.crt", "server.key").start();
    let address = server.address.to_string();
    let connect_with = |version: &str| {
        Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-cipher", "DEFAULT:@SECLEVEL=0", "-brief"])
            .args(["-CAfile", "root.crt", "-verify_return_error", "-verify_hostname", "localhost"])
            .current_dir(folder.path("."))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for (version, protocol) in [("-tls1_3", Some("TLSv1.3")), ("-tls1_2", Some("TLSv1.2")), ("-tls1_1", None)]
    {
        let output = connect_with(version);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), protocol.is_some(), "{version}: {text}");
        match protocol {
            Some(protocol) => {
                assert!(text.contains(&format!("Protocol version: {protocol}")), "{version}: {text}")
            }
            None => assert!(text.contains(" alert "), "{text}"),
        }
    }
}

/// The program with TLS, this certificate and this key.
fn secure(program: Program, cert: &str, key: &str) -> Program {
    program.envs(&[("USE_SSL", "true"), ("PORT", "0"), ("SSL_CERT_PATH", cert), ("SSL_KEY_PATH", key)])
}

/// Asserts that a server starts with these files, and that a client that trusts only the root can join.
fn assert_serves(folder: &Folder, cert: &str, key: &str) {
    let mut server = secure(folder.tinychat(&[]), cert, key).start();
    Client::trusting(&folder.path("root.crt"), "localhost", server.address).join_and_wait("Ann");
    server.wait_for_line("Ann joined.");
    let log = server.stop();
    assert!(
        log.contains(&format!("[INFO]: [chat_server] SSL/TLS enabled: cert={cert}, key={key}\n")),
        "{log}"
    );
    assert!(log.contains("WebSocket server running: wss://127.0.0.1:"), "{log}");
    assert_no_key_material(&folder.path(key), &log);
}

/// Asserts that startup fails with one line, which names the file, the error and a remedy, if this file is used as
/// the certificate or as the private key (`role`) together with a valid other file.
fn assert_unusable(folder: &Folder, role: &str, file: &str, error: &str, remedy: &str) {
    let (cert, key) = if role == "certificate" { (file, "server.key") } else { ("server.crt", file) };
    let output = secure(folder.tinychat(&[]), cert, key).run();
    let line = &output.stderr;
    assert_eq!(output.status, Some(1), "{file}: {output:?}");
    assert_eq!(line.lines().count(), 1, "{file}: {output:?}");
    let prefix = format!("[ERROR]: [chat_server] SSL {role} unusable: {file}: ");
    assert!(line.contains(&prefix), "{prefix} is not in {line}");
    assert!(line.contains(error), "{file}: {error:?} is not in {line}");
    assert!(line.contains(remedy), "{file}: {remedy:?} is not in {line}");
    assert_no_key_material(&folder.path("server.key"), line);
    if folder.path(file).is_file() {
        assert_no_key_material(&folder.path(file), line);
    }
}
