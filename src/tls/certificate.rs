//! What a certificate says of itself, for people: names, issuer, days left, key type, and what is wrong with it.

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

/// With fewer days left a certificate should have been renewed: certbot does it with 30.
const WARN_BELOW_DAYS: i64 = 14;
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
        })
    }

    pub fn names_shown(&self) -> String {
        if self.names.is_empty() { "no name".into() } else { self.names.join(", ") }
    }

    pub fn issuer_shown(&self) -> String {
        format!("{}{}", self.issuer, if self.self_signed { " (self-signed)" } else { "" })
    }

    /// The whole days for which it is still good; negative once it has expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix_seconds(now)).div_euclid(SECONDS_PER_DAY)
    }

    /// Whether it is not valid yet.
    pub fn is_early(&self, now: SystemTime) -> bool {
        unix_seconds(now) < self.not_before
    }
}

/// Something about a certificate that its owner should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Concern {
    Warning(String),
    Error(String),
}

/// What is wrong, or soon will be, with a chain that is good enough to serve.
pub fn concerns(chain: &[CertificateDer], facts: &Facts, now: SystemTime) -> Vec<Concern> {
    let days = facts.days_left(now);
    let mut concerns = Vec::new();
    if days < 0 {
        concerns.push(Concern::Error(format!("the certificate expired {}: renew it", ago(-days))));
    } else if days < WARN_BELOW_DAYS {
        let days = if days == 1 { "1 day".into() } else { format!("{days} days") };
        concerns.push(Concern::Warning(format!("the certificate expires in {days}: renew it")));
    }
    let mut warn = |text: &str| concerns.push(Concern::Warning(text.into()));
    if facts.is_early(now) {
        warn("the certificate is not valid yet: check the clock of this machine, or wait");
    }
    if facts.names.is_empty() {
        warn(
            "the certificate has no names (subjectAltName), and clients will refuse it: have it issued anew",
        );
    }
    if chain.len() == 1 && !facts.self_signed {
        warn(
            "the certificate comes without its chain, and many clients will refuse it: set SSL_CERT_PATH to the file \
             with the chain (certbot's fullchain.pem, not its cert.pem)",
        );
    }
    if chain.windows(2).any(|pair| !is_issued_by(&pair[0], &pair[1])) {
        warn(
            "the chain is in the wrong order, and some clients will refuse it: after the server's own certificate \
             each must be followed by its issuer",
        );
    }
    concerns
}

/// Whether the chain's leaf is for this host name or address, by the rules that clients have.
pub fn is_for(chain: &[CertificateDer], name: &ServerName) -> bool {
    let leaf = chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    leaf.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
}

/// Whether a certificate names the next as its issuer; `true` where one is not understood.
fn is_issued_by(certificate: &CertificateDer, issuer: &CertificateDer) -> bool {
    let parsed = Certificate::from_der(certificate).ok().zip(Certificate::from_der(issuer).ok());
    parsed.is_none_or(|(certificate, issuer)| {
        certificate.tbs_certificate().issuer() == issuer.tbs_certificate().subject()
    })
}

fn ago(days: i64) -> String {
    if days == 1 { "within the last day".into() } else { format!("{} days ago", days - 1) }
}

impl fmt::Display for Facts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(
            formatter,
            "for {}; issued by {}; key {}",
            self.names_shown(),
            self.issuer_shown(),
            self.key_type
        )
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

/// A name as people read it.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
    use time::OffsetDateTime;

    use super::*;

    /// The day on which certificates begin, and the days for which they last.
    const FIRST_DAY: i64 = 20_000;
    const DAYS: i64 = 90;

    /// Noon of a day of the certificates' lives.
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

    /// A certificate for these names, with its issuer behind it.
    fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
        let mut authority = parameters("Authority", &[]);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issued = authority.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(authority, key);
        let leaf = parameters("server", names).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        vec![leaf.der().clone(), issued]
    }

    /// What its owner should know of a chain on a day, errors marked.
    fn concerns_on(day: i64, chain: &[CertificateDer]) -> String {
        let concerns = concerns(chain, &Facts::of(chain).unwrap(), on_day(day));
        let lines = concerns.into_iter().map(|concern| match concern {
            Concern::Warning(text) => text,
            Concern::Error(text) => format!("error: {text}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn facts_are_what_the_certificate_says() {
        let chain = chain(&["chat.example.com", "*.example.com", "192.0.2.7", "2001:db8::7"]);
        let facts = Facts::of(&chain).unwrap();
        assert_eq!(facts.names_shown(), "chat.example.com, *.example.com, 192.0.2.7, 2001:db8::7");
        assert_eq!((&*facts.issuer, facts.self_signed), ("CN=Authority", false));
        assert_eq!(facts.key_type, "EC, P-256");

        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let alone = [parameters("Alone", &[]).self_signed(&key).unwrap().der().clone()];
        let facts = Facts::of(&alone).unwrap();
        assert_eq!(facts.issuer_shown(), "CN=Alone (self-signed)");
        assert_eq!((&*facts.names_shown(), &*facts.key_type), ("no name", "Ed25519"));
    }

    #[test]
    fn what_is_no_certificate_has_no_facts_and_is_for_nobody() {
        for chain in
            [vec![], vec![CertificateDer::from(vec![0x30, 0x00])], vec![CertificateDer::from(vec![])]]
        {
            assert_eq!(Facts::of(&chain), None);
            assert!(!is_for(&chain, &"localhost".try_into().unwrap()));
        }
    }

    #[test]
    fn days_left_are_whole_days_and_then_negative() {
        let facts = Facts::of(&chain(&["localhost"])).unwrap();
        for (day, left) in [(0, DAYS - 1), (DAYS - 1, 0), (DAYS, -1), (DAYS + 1, -2), (-1, DAYS)] {
            assert_eq!(facts.days_left(on_day(day)), left, "on day {day}");
        }
    }

    #[test]
    fn an_end_that_is_near_or_past_is_told() {
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
            assert_eq!(concerns_on(day, &chain), expected, "on day {day}");
        }
    }

    #[test]
    fn a_chain_that_clients_will_refuse_is_told() {
        let good = chain(&["localhost"]);
        assert!(concerns_on(0, &good[..1]).contains("without its chain"));
        let nameless = chain(&[]);
        assert!(concerns_on(0, &nameless).contains("no names (subjectAltName)"));
        let stranger = chain(&["localhost"]).remove(0);
        let wrong_order = [good[0].clone(), stranger, good[1].clone()];
        assert!(concerns_on(0, &wrong_order).contains("wrong order"));
        // Alone and self-signed is as it should be.
        assert_eq!(concerns_on(0, &good[1..]), concerns_on(0, &nameless[1..]));
        assert!(!concerns_on(0, &good[1..]).contains("chain"));
    }

    #[test]
    fn a_certificate_is_for_its_names_as_clients_see_it() {
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
            assert_eq!(is_for(&chain, &name.try_into().unwrap()), expected, "{name}");
        }
    }
}
