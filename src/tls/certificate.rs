//! Parses certificates (names, issuer, validity, key type) and diagnoses problems with them.

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// With fewer days left than this, a warning is logged. certbot renews with 30 days left.
const WARN_BELOW_DAYS: i64 = 14;
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// What the leaf of a chain contains.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateInfo {
    /// The host names and addresses in its subjectAltName.
    pub names: Vec<String>,
    pub issuer: String,
    /// Whether the issuer is the subject.
    pub self_signed: bool,
    /// Unix time, in seconds.
    pub not_before: i64,
    /// Unix time, in seconds.
    pub not_after: i64,
    pub key_type: String,
}

impl CertificateInfo {
    /// Parses the leaf, which is the first of the chain. `None` if it cannot be parsed here, which does not mean that
    /// clients refuse it.
    pub fn parse(chain: &[CertificateDer]) -> Option<Self> {
        let leaf = Certificate::from_der(chain.first()?).ok()?;
        let leaf = leaf.tbs_certificate();
        Some(Self {
            names: names(leaf),
            issuer: display_name(leaf.issuer()),
            self_signed: leaf.issuer() == leaf.subject(),
            not_before: seconds(leaf.validity().not_before),
            not_after: seconds(leaf.validity().not_after),
            key_type: key_type(leaf),
        })
    }

    pub fn display_names(&self) -> String {
        if self.names.is_empty() { "no name".into() } else { self.names.join(", ") }
    }

    pub fn display_issuer(&self) -> String {
        format!("{}{}", self.issuer, if self.self_signed { " (self-signed)" } else { "" })
    }

    /// The whole days until it expires; negative after that.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix_seconds(now)).div_euclid(SECONDS_PER_DAY)
    }

    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.not_after
    }

    pub fn is_not_yet_valid(&self, now: SystemTime) -> bool {
        unix_seconds(now) < self.not_before
    }
}

impl fmt::Display for CertificateInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (names, issuer) = (self.display_names(), self.display_issuer());
        write!(formatter, "for {names}; issued by {issuer}; key {}", self.key_type)
    }
}

/// A problem with the certificate or its key, for the server's administrator.
#[derive(Clone, Debug, PartialEq)]
pub enum Diagnostic {
    Warning(String),
    Error(String),
}

/// Diagnoses problems, present or imminent, of a chain that can be served.
pub fn diagnose(chain: &[CertificateDer], info: &CertificateInfo, now: SystemTime) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let days = info.days_left(now);
    if info.has_expired(now) {
        diagnostics.push(Diagnostic::Error(format!("the certificate expired {}: renew it", ago(-days))));
    } else if days < WARN_BELOW_DAYS {
        let days = if days == 1 { "1 day".into() } else { format!("{days} days") };
        diagnostics.push(Diagnostic::Warning(format!("the certificate expires in {days}: renew it")));
    }
    let mut warn = |text: &str| diagnostics.push(Diagnostic::Warning(text.into()));
    if info.is_not_yet_valid(now) {
        warn("the certificate is not valid yet: check the clock of this machine, or wait");
    }
    if info.names.is_empty() {
        warn(
            "the certificate has no names (subjectAltName), and clients will refuse it: get one issued with the \
             server's name",
        );
    }
    if chain.len() == 1 && !info.self_signed {
        warn(
            "the certificate comes without its chain, and many clients will refuse it: set SSL_CERT_PATH to the file \
             with the chain (certbot's fullchain.pem, not its cert.pem)",
        );
    }
    if chain.windows(2).any(|pair| !is_issued_by(&pair[0], &pair[1])) {
        warn(
            "the chain is in the wrong order, and some clients will refuse it: the server's own certificate comes \
             first, and each is followed by that of its issuer",
        );
    }
    diagnostics
}

/// Whether the leaf is for this host name or address, by the rules that clients apply.
pub fn is_valid_for(chain: &[CertificateDer], name: &ServerName) -> bool {
    let leaf = chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    leaf.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
}

/// Whether the issuer of one certificate is the subject of the other; `true` if one cannot be parsed here.
fn is_issued_by(certificate: &CertificateDer, issuer: &CertificateDer) -> bool {
    let parsed = Certificate::from_der(certificate).ok().zip(Certificate::from_der(issuer).ok());
    parsed.is_none_or(|(certificate, issuer)| {
        certificate.tbs_certificate().issuer() == issuer.tbs_certificate().subject()
    })
}

/// `days` is rounded up.
fn ago(days: i64) -> String {
    if days == 1 { "within the last day".into() } else { format!("{} days ago", days - 1) }
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

fn display_name(name: &x509_cert::name::Name) -> String {
    let name = name.to_string();
    if name.is_empty() { "an unnamed issuer".into() } else { name }
}

fn key_type(leaf: &x509_cert::TbsCertificate) -> String {
    let info = leaf.subject_public_key_info();
    let parameters = info.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match (info.algorithm.oid, curve) {
        (RSA, _) => {
            // The encoding and the exponent add 10 to 41 bytes to the modulus.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
    use time::OffsetDateTime;

    use super::*;

    /// The day since 1970 from which the test certificates are valid, and for how many days.
    const FIRST_DAY: i64 = 20_000;
    const DAYS: i64 = 90;

    /// Noon of a day, counted from the first day on which the test certificates are valid.
    fn on_day(day: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(((FIRST_DAY + day) * SECONDS_PER_DAY + SECONDS_PER_DAY / 2) as u64)
    }

    fn parameters(common_name: &str, names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let day = |day: i64| OffsetDateTime::from_unix_timestamp(day * SECONDS_PER_DAY).unwrap();
        (parameters.not_before, parameters.not_after) = (day(FIRST_DAY), day(FIRST_DAY + DAYS));
        parameters
    }

    /// A certificate for these names, then that of its issuer.
    fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
        let mut authority = parameters("Authority", &[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issued = authority.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(authority, key);
        let leaf = parameters("server", names).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        vec![leaf.der().clone(), issued]
    }

    /// The diagnostics of a chain on a day, one per line.
    fn diagnose_on(day: i64, chain: &[CertificateDer]) -> String {
        let diagnostics = diagnose(chain, &CertificateInfo::parse(chain).unwrap(), on_day(day));
        let lines = diagnostics.into_iter().map(|diagnostic| match diagnostic {
            Diagnostic::Warning(text) => text,
            Diagnostic::Error(text) => format!("error: {text}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_certificate_is_parsed() {
        let chain = chain(&["chat.example.com", "*.example.com", "192.0.2.7", "2001:db8::7"]);
        let info = CertificateInfo::parse(&chain).unwrap();
        assert_eq!(info.display_names(), "chat.example.com, *.example.com, 192.0.2.7, 2001:db8::7");
        assert_eq!((&*info.issuer, info.self_signed), ("CN=Authority", false));
        assert_eq!(info.key_type, "EC, P-256");

        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let alone = [parameters("Alone", &[]).self_signed(&key).unwrap().der().clone()];
        let info = CertificateInfo::parse(&alone).unwrap();
        assert_eq!(info.display_issuer(), "CN=Alone (self-signed)");
        assert_eq!((&*info.display_names(), &*info.key_type), ("no name", "Ed25519"));
    }

    #[test]
    fn bytes_that_are_not_a_certificate_have_no_info_and_no_name() {
        for chain in
            [vec![], vec![CertificateDer::from(vec![0x30, 0x00])], vec![CertificateDer::from(vec![])]]
        {
            assert_eq!(CertificateInfo::parse(&chain), None);
            assert!(!is_valid_for(&chain, &"localhost".try_into().unwrap()));
        }
    }

    #[test]
    fn days_left_are_whole_days_and_negative_after_expiry() {
        let info = CertificateInfo::parse(&chain(&["localhost"])).unwrap();
        for (day, left) in [(0, DAYS - 1), (DAYS - 1, 0), (DAYS, -1), (DAYS + 1, -2), (-1, DAYS)] {
            assert_eq!(info.days_left(on_day(day)), left, "on day {day}");
        }
    }

    #[test]
    fn dates_are_diagnosed() {
        let chain = chain(&["localhost"]);
        for (day, expected) in [
            (0, ""),
            (DAYS - 15, ""),
            (DAYS - 14, "the certificate expires in 13 days: renew it"),
            (DAYS - 2, "the certificate expires in 1 day: renew it"),
            (DAYS - 1, "the certificate expires in 0 days: renew it"),
            (DAYS, "error: the certificate expired within the last day: renew it"),
            (DAYS + 3, "error: the certificate expired 3 days ago: renew it"),
            (-1, "the certificate is not valid yet: check the clock of this machine, or wait"),
        ] {
            assert_eq!(diagnose_on(day, &chain), expected, "on day {day}");
        }
    }

    #[test]
    fn chains_that_clients_will_refuse_are_diagnosed() {
        let good = chain(&["localhost"]);
        assert!(diagnose_on(0, &good[..1]).contains("without its chain"));
        let nameless = chain(&[]);
        assert!(diagnose_on(0, &nameless).contains("no names (subjectAltName)"));
        let unrelated = chain(&["localhost"]).remove(0);
        let wrong_order = [good[0].clone(), unrelated, good[1].clone()];
        assert!(diagnose_on(0, &wrong_order).contains("wrong order"));
        // A self-signed certificate needs no chain.
        assert_eq!(diagnose_on(0, &good[1..]), diagnose_on(0, &nameless[1..]));
        assert!(!diagnose_on(0, &good[1..]).contains("chain"));
    }

    #[test]
    fn names_match_by_the_rules_of_clients() {
        let chain = chain(&["chat.example.com", "*.example.org", "192.0.2.7"]);
        for (name, expected) in [
            ("chat.example.com", true),
            ("CHAT.example.com", true),
            ("example.com", false),
            ("any.example.org", true),
            ("any.more.example.org", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("server", false),
        ] {
            assert_eq!(is_valid_for(&chain, &name.try_into().unwrap()), expected, "{name}");
        }
    }
}
