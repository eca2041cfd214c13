//! Creates a self-signed certificate and key for testing.

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

/// The longest validity, in days: 100 years.
pub const MAX_DAYS: u32 = 36_500;

/// What to create.
pub struct Request {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The days until the certificate expires, up to [`MAX_DAYS`].
    pub days: u32,
    /// A host name or an address, in addition to `localhost`, `127.0.0.1` and `::1`.
    pub host: String,
    /// Whether existing files are replaced.
    pub force: bool,
}

/// Why the certificate and key were not created.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("{0} already exists: choose another path, or replace it with --force")]
    Exists(PathBuf),
    #[error("certificate and key cannot both be {0}: choose two paths")]
    SameFile(PathBuf),
    #[error(
        "{0:?} is not a host name or address: give one like chat.example.com (in its xn-- form if it has letters \
         beyond ASCII)"
    )]
    Host(String),
    #[error("{path} cannot be written ({source}): check the path and its permissions")]
    Write { path: PathBuf, source: io::Error },
    #[error("the certificate cannot be created: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Creates both files and their folders. The key file is created with mode 0600.
///
/// # Errors
/// See [`GenerateError`]. On an error no file is created or replaced, except if only the last of the two renames
/// fails.
pub fn generate(request: &Request) -> Result<(), GenerateError> {
    let absolute = |path| std::path::absolute(path).map_err(|source| write_error(path, source));
    if absolute(&request.cert)? == absolute(&request.key)? {
        return Err(GenerateError::SameFile(request.cert.clone()));
    }
    let key = KeyPair::generate()?;
    let certificate = parameters(request)?.self_signed(&key)?;
    if !request.force {
        let existing = [&request.key, &request.cert].into_iter().find(|path| path.symlink_metadata().is_ok());
        if let Some(path) = existing {
            return Err(GenerateError::Exists(path.clone()));
        }
    }
    // Both are written before either is renamed, so that a failure does not leave a key without its certificate.
    let mut key = NewFile::write(&request.key, 0o600, &key.serialize_pem(), request.force)?;
    let mut cert = NewFile::write(&request.cert, 0o644, &certificate.pem(), request.force)?;
    key.keep()?;
    cert.keep()
}

fn parameters(request: &Request) -> Result<CertificateParams, GenerateError> {
    let mut names = vec![name(&request.host)?];
    let loopback = [
        name("localhost")?,
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    for name in loopback {
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
    // A client's clock may be slow.
    parameters.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    parameters.not_after = OffsetDateTime::now_utc() + Duration::days(request.days.into());
    Ok(parameters)
}

/// A host name, which may start with the wildcard `*.`, or an address.
fn name(host: &str) -> Result<SanType, GenerateError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let host = host.to_ascii_lowercase();
    let is_name = DnsName::try_from(host.strip_prefix("*.").unwrap_or(&host)).is_ok();
    match host.as_str().try_into() {
        Ok(name) if is_name => Ok(SanType::DnsName(name)),
        _ => Err(GenerateError::Host(host)),
    }
}

/// A new file, removed again when dropped unless it was kept.
struct NewFile<'a> {
    path: &'a Path,
    /// Where the file is until it is kept. With `--force` this is a temporary name, otherwise `path`.
    temporary: PathBuf,
    is_kept: bool,
}

impl<'a> NewFile<'a> {
    /// Creates the file with its mode, and its folders.
    fn write(path: &'a Path, mode: u32, text: &str, force: bool) -> Result<Self, GenerateError> {
        let error = |source| write_error(path, source);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| match source.kind() {
                // A file has the folder's name. Not `Exists`, because --force does not replace it.
                ErrorKind::AlreadyExists => error(ErrorKind::NotADirectory.into()),
                _ => error(source),
            })?;
        }
        if force && path.is_dir() {
            return Err(error(ErrorKind::IsADirectory.into()));
        }
        let mut name = path.file_name().ok_or_else(|| error(ErrorKind::InvalidInput.into()))?.to_owned();
        if force {
            name.push(format!(".{}.new", std::process::id()));
        }
        let temporary = path.with_file_name(name);
        let mut file = create(&temporary, mode).map_err(error)?;
        let new = Self { path, temporary, is_kept: false };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(error)?;
        Ok(new)
    }

    fn keep(&mut self) -> Result<(), GenerateError> {
        fs::rename(&self.temporary, self.path).map_err(|source| write_error(self.path, source))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

fn write_error(path: &Path, source: io::Error) -> GenerateError {
    match source.kind() {
        ErrorKind::AlreadyExists => GenerateError::Exists(path.into()),
        _ => GenerateError::Write { path: path.into(), source },
    }
}
