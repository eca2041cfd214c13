//! What a certificate says of itself, for people: names, issuer, days left, key type.

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// What is worth telling of a certificate and the chain behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    pub issuer: String,
    /// Whether it is its own issuer.
    pub self_signed: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    pub key_type: String,
    /// How many certificates the file holds, the leaf among them.
    pub chain_length: usize,
}

impl Facts {
    /// Reads a chain, the leaf first. `None` if the leaf is not understood here, which does not mean that it is
    /// no good for TLS.
    pub fn of(chain: &[CertificateDer]) -> Option<Self> {
        let leaf = Certificate::from_der(chain.first()?).ok()?;
        let leaf = leaf.tbs_certificate();
        Some(Self {
            names: names(leaf),
            issuer: display_name(leaf.issuer()),
            self_signed: leaf.issuer() == leaf.subject(),
            not_before: seconds(leaf.validity().not_before),
            not_after: seconds(leaf.validity().not_after),
            key_type: key_type(leaf),
            chain_length: chain.len(),
        })
    }

    /// The whole days for which it is still good; negative once it has expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix_seconds(now)).div_euclid(SECONDS_PER_DAY)
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let names = if self.names.is_empty() { "no name".into() } else { self.names.join(", ") };
        let issuer = if self.self_signed { "self-signed" } else { &*format!("issued by {}", self.issuer) };
        write!(formatter, "certificate for {names}; {issuer}; key {}", self.key_type)
    }
}

fn names(leaf: &x509_cert::TbsCertificate) -> Vec<String> {
    let alternative = leaf.get_extension::<SubjectAltName>().ok().flatten();
    alternative
        .map_or_else(Vec::new, |(_, SubjectAltName(names))| names.iter().filter_map(general_name).collect())
}

fn general_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

/// An issuer's common name and organisation, or the whole name where it has neither.
fn display_name(name: &x509_cert::name::Name) -> String {
    let whole = name.to_string();
    if whole.is_empty() { "nobody".into() } else { whole }
}

fn key_type(leaf: &x509_cert::TbsCertificate) -> String {
    let info = leaf.subject_public_key_info();
    let parameters = info.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match (info.algorithm.oid, curve) {
        (RSA, _) => {
            // The modulus is nearly all of the key: what else there is takes less than 32 bytes.
            let bits = info.subject_public_key.raw_bytes().len().saturating_sub(10) / 32 * 32 * 8;
            format!("RSA, {bits} bits")
        }
        (EC, Some(P256)) => "EC, P-256".into(),
        (EC, Some(P384)) => "EC, P-384".into(),
        (ED25519, _) => "Ed25519".into(),
        (other, _) => other.to_string(),
    }
}

fn seconds(time: x509_cert::time::Time) -> i64 {
    time.to_unix_duration().as_secs() as i64
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}
