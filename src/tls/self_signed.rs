//! `tinychat generate-certs`: a self-signed pair for testing.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::DnsName;
use time::{Duration, OffsetDateTime};

/// The longest validity, in days: a hundred years.
pub const MAX_DAYS: u32 = 36_500;

/// What to make.
pub struct Request {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub days: u32,
    /// A host name or an address, beside `localhost` and the loopback addresses.
    pub host: String,
    /// Whether files that are there may be replaced.
    pub force: bool,
}

impl fmt::Display for Request {
    /// What was made, and which settings use it.
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (cert, key) = (self.cert.display(), self.key.display());
        writeln!(
            formatter,
            "Made a self-signed certificate for {}, valid for {} days:",
            self.host, self.days
        )?;
        writeln!(formatter, "  certificate: {cert}\n  private key: {key} (readable for you alone)")?;
        writeln!(formatter, "It is for testing: clients must be told to trust it. To use it, set:")?;
        writeln!(formatter, "  USE_SSL=true\n  SSL_CERT_PATH={cert}\n  SSL_KEY_PATH={key}")
    }
}

/// Makes the pair.
///
/// # Errors
/// What stood in the way, and what to do. Without `force` nothing that is there is touched.
pub fn generate(request: &Request) -> Result<(), GenerateError> {
    let absolute =
        |path| std::path::absolute(path).map_err(|error| GenerateError::Write(PathBuf::from(path), error));
    if absolute(&request.cert)? == absolute(&request.key)? {
        return Err(GenerateError::SameFile(request.cert.clone()));
    }
    let key = KeyPair::generate().map_err(|error| GenerateError::Certificate(error.to_string()))?;
    let certificate = parameters(request)?
        .self_signed(&key)
        .map_err(|error| GenerateError::Certificate(error.to_string()))?;
    if !request.force
        && let Some(path) =
            [&request.key, &request.cert].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        return Err(GenerateError::Exists(path.clone()));
    }
    // Both are written before either takes its place, so that a failure leaves no half of a pair.
    let mut key = NewFile::write(&request.key, 0o600, &key.serialize_pem(), request.force)?;
    let mut cert = NewFile::write(&request.cert, 0o644, &certificate.pem(), request.force)?;
    key.keep()?;
    cert.keep()
}

fn parameters(request: &Request) -> Result<CertificateParams, GenerateError> {
    let mut names = vec![name(&request.host)?];
    let local = [
        name("localhost")?,
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    for name in local {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, request.host.as_str());
    parameters.distinguished_name = subject;
    parameters.subject_alt_names = names;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    // A client's clock may be a little behind.
    parameters.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    parameters.not_after = OffsetDateTime::now_utc() + Duration::days(request.days.into());
    Ok(parameters)
}

fn name(host: &str) -> Result<SanType, GenerateError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let host = host.to_ascii_lowercase();
    let plain = host.strip_prefix("*.").unwrap_or(&host);
    let is_name = DnsName::try_from(plain).is_ok();
    match host.as_str().try_into() {
        Ok(name) if is_name => Ok(SanType::DnsName(name)),
        _ => Err(GenerateError::Host(host)),
    }
}

/// A file that was written and is removed again, unless it is kept.
struct NewFile<'a> {
    path: &'a Path,
    /// Where it is until then: aside, if it replaces another.
    new: PathBuf,
    is_kept: bool,
}

impl<'a> NewFile<'a> {
    /// Writes a file that has its mode from its first byte, and makes its folders.
    fn write(path: &'a Path, mode: u32, text: &str, force: bool) -> Result<Self, GenerateError> {
        let failed = |error| failed(path, error);
        if let Some(folder) = path.parent() {
            // A file in a folder's place is there already, too, but no --force replaces it.
            fs::create_dir_all(folder).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => failed(ErrorKind::NotADirectory.into()),
                _ => failed(error),
            })?;
        }
        if force && path.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        let mut name = path.file_name().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?.to_owned();
        if force {
            name.push(format!(".{}.new", std::process::id()));
        }
        let new = path.with_file_name(name);
        let mut file = create(&new, mode).map_err(failed)?;
        let written = Self { path, new, is_kept: false };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(written)
    }

    fn keep(&mut self) -> Result<(), GenerateError> {
        fs::rename(&self.new, self.path).map_err(|error| failed(self.path, error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.new);
        }
    }
}

fn failed(path: &Path, error: io::Error) -> GenerateError {
    match error.kind() {
        ErrorKind::AlreadyExists => GenerateError::Exists(path.into()),
        _ => GenerateError::Write(path.into(), error),
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Why there is no pair.
#[derive(Debug)]
pub enum GenerateError {
    Exists(PathBuf),
    SameFile(PathBuf),
    Host(String),
    Write(PathBuf, io::Error),
    Certificate(String),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Exists(path) => {
                write!(
                    formatter,
                    "{} is there already: choose another path, or replace it with --force",
                    path.display()
                )
            }
            Self::SameFile(path) => {
                write!(formatter, "certificate and key cannot both be {}: choose two paths", path.display())
            }
            Self::Host(host) => write!(
                formatter,
                "{host:?} is no host name or address: give one like chat.example.com (in its xn-- form if it has \
                 letters beyond ASCII)"
            ),
            Self::Write(path, error) => {
                write!(
                    formatter,
                    "{} cannot be written ({error}): check the path and its permissions",
                    path.display()
                )
            }
            Self::Certificate(error) => write!(formatter, "the certificate cannot be made: {error}"),
        }
    }
}

impl std::error::Error for GenerateError {}
