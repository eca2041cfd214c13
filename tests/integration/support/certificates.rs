//! Certificates and private keys in files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tinychat::tls::self_signed;

use super::program::Folder;

/// Algorithms as arguments of `openssl genpkey -algorithm`.
pub const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";
pub const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";

pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    _folder: TempDir,
}

/// A self-signed certificate for `localhost` and its key, created once for all tests.
pub fn localhost() -> &'static CertificateFiles {
    static FILES: OnceLock<CertificateFiles> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
        let request = self_signed::Request {
            cert: cert.clone(),
            key: key.clone(),
            days: 30,
            host: "localhost".into(),
            force: false,
        };
        self_signed::generate(&request).unwrap();
        CertificateFiles { cert, key, _folder: folder }
    })
}

/// A folder with `root.crt`, which clients trust, and `server.crt` and `server.key`, which it has signed; created
/// by openssl as a certificate authority does it.
pub fn folder_with_certificate(algorithm: &str) -> Folder {
    let folder = Folder::new();
    folder.write("req.cnf", "[req]\ndistinguished_name = name\n[name]\n");
    folder.write("ca.cnf", "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n");
    folder.write("leaf.cnf", "basicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:localhost\n");
    create_key(&folder, "root", P256);
    openssl(
        &folder,
        "req -x509 -config req.cnf -key root.key -subj /CN=Root -days 30 -out root.crt \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    );
    create_key(&folder, "server", algorithm);
    issue(&folder, "server", "leaf", "root");
    folder
}

/// Replaces `server.crt` by one that an intermediate authority, `middle.crt`, has issued.
pub fn issue_through_middle(folder: &Folder) {
    create_key(folder, "middle", P256);
    issue(folder, "middle", "ca", "root");
    issue(folder, "server", "leaf", "middle");
}

/// Creates `NAME.key`.
pub fn create_key(folder: &Folder, name: &str, algorithm: &str) {
    openssl(folder, &format!("genpkey -algorithm {algorithm} -out {name}.key"));
}

/// Issues `NAME.crt` for `NAME.key`, of this kind (`ca` or `leaf`), signed by the key of another certificate.
pub fn issue(folder: &Folder, name: &str, kind: &str, issuer: &str) {
    openssl(folder, &format!("req -new -config req.cnf -key {name}.key -subj /CN={name} -out {name}.csr"));
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -days 30 \
             -extfile {kind}.cnf -out {name}.crt"
        ),
    );
}

/// Runs openssl in the folder, with arguments separated by spaces.
pub fn openssl(folder: &Folder, arguments: &str) {
    folder.run_tool("openssl", &arguments.split_whitespace().collect::<Vec<_>>());
}

/// Asserts that the text contains no 16 characters of the base64 in a key file.
pub fn assert_no_key_material(key: &Path, text: &str) {
    let key = String::from_utf8_lossy(&fs::read(key).unwrap()).into_owned();
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let words = key.split(|c| !is_base64(c)).filter(|word| word.len() >= 16);
    for part in words.flat_map(|word| word.as_bytes().chunks_exact(16)) {
        let part = std::str::from_utf8(part).unwrap();
        assert!(!text.contains(part), "{part:?} of the key is in {text}");
    }
}
