//! The built-in certificate authority, for clusters that have none: what should be there at a
//! moment, by what is there. Pure: where it is kept is the caller's.
//!
//! Everybody who must know us trusts a bundle. A new authority is first added to the bundle, and
//! signs only when everybody has had time to read it; an old one stays in the bundle until it
//! ends. So a peer that reads the bundle now and then is never without a server that it trusts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_proto::rustls::pki_types::CertificateDer;
use bulkhead_proto::rustls::pki_types::pem::PemObject as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use x509_parser::extensions::GeneralName;

/// How far back a certificate is valid: clocks differ.
const BEFORE: Duration = Duration::from_hours(1);

/// How long things live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lives {
    /// An authority.
    pub authority: Duration,
    /// A serving certificate.
    pub leaf: Duration,
    /// From when a new authority is in the bundle to when it signs: longer than any peer takes to
    /// read the bundle again.
    pub overlap: Duration,
}

impl Default for Lives {
    /// A year, 30 days, and a day.
    fn default() -> Self {
        let day = Duration::from_hours(24);
        Self { authority: day * 365, leaf: day * 30, overlap: day }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Making one.
    #[error("make a certificate for {names}")]
    Make {
        /// For which names.
        names: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// One that is there.
    #[error(
        "the stored {what} cannot be used; remove it, and everybody must read the CA's file anew"
    )]
    Unusable {
        /// Which.
        what: &'static str,
    },
}

/// An authority: certificate and key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// Everything that is kept. All texts are PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// What peers must trust: the bundle, to be published.
    pub bundle: String,
    /// The authority that signs now.
    pub signing: Pair,
    /// The one that will.
    pub next: Option<Pair>,
    /// The serving certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Keys are never shown.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

impl Material {
    /// What should be there; `None`: what is. `names`: DNS names and IP addresses of the server.
    pub fn next(
        have: Option<&Self>,
        names: &[String],
        now: SystemTime,
        lives: &Lives,
    ) -> Result<Option<Self>, AuthorityError> {
        let Some(have) = have else {
            return Self::first(names, now, lives).map(Some);
        };
        let mut wanted = have.clone();
        let signing = Span::of(&have.signing.certificate, "certificate of the CA")?;
        let mut leaf_due = {
            let leaf = Span::of(&have.certificate, "serving certificate")?;
            // A crash between the two files leaves a key of another.
            leaf.names != sorted(names)
                || now >= leaf.at(2, 3)
                || !belong(&have.certificate, &have.key)
        };
        let whole = belong(&have.signing.certificate, &have.signing.key);
        if let Some(next) = &have.next {
            let since = Span::of(&next.certificate, "certificate of the next CA")?.from + BEFORE;
            if now >= since + lives.overlap || now >= signing.to || !whole {
                wanted.signing = next.clone();
                wanted.next = None;
                leaf_due = true;
            }
        } else if now >= signing.at(2, 3) || !whole {
            let next = authority(now, lives)?;
            if now >= signing.to || !whole {
                // Too late to be gentle: everybody must read the bundle anew.
                wanted.signing = next;
                leaf_due = true;
            } else {
                wanted.next = Some(next);
            }
        }
        wanted.bundle = bundle(&wanted, &have.bundle, now)?;
        if leaf_due {
            (wanted.certificate, wanted.key) = leaf(&wanted.signing, names, now, lives)?;
        }
        Ok((wanted != *have).then_some(wanted))
    }

    fn first(names: &[String], now: SystemTime, lives: &Lives) -> Result<Self, AuthorityError> {
        let signing = authority(now, lives)?;
        let (certificate, key) = leaf(&signing, names, now, lives)?;
        Ok(Self { bundle: signing.certificate.clone(), signing, next: None, certificate, key })
    }
}

/// A new authority.
fn authority(now: SystemTime, lives: &Lives) -> Result<Pair, AuthorityError> {
    let made = || -> Result<Pair, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Each has a name of its own, so that no certificate is tried against a wrong one.
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        params.distinguished_name.push(DnType::CommonName, format!("Bulkhead CA {since}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + lives.authority).into();
        let certificate = params.self_signed(&key)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    };
    made().map_err(|source| AuthorityError::Make { names: "the CA".to_owned(), source })
}

/// A new serving certificate, which ends no later than who signed it, and its key.
fn leaf(
    signing: &Pair,
    names: &[String],
    now: SystemTime,
    lives: &Lives,
) -> Result<(String, String), AuthorityError> {
    let last = Span::of(&signing.certificate, "certificate of the CA")?.to;
    let made = || -> Result<(String, String), rcgen::Error> {
        let issuer =
            Issuer::from_ca_cert_pem(&signing.certificate, KeyPair::from_pem(&signing.key)?)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bulkhead-controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + lives.leaf).min(last).into();
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    made().map_err(|source| AuthorityError::Make { names: names.join(", "), source })
}

/// The authorities that sign, will sign, and have signed what may still be shown.
fn bundle(wanted: &Material, before: &str, now: SystemTime) -> Result<String, AuthorityError> {
    let mut bundle = wanted.signing.certificate.clone();
    if let Some(next) = &wanted.next {
        bundle.push_str(&next.certificate);
    }
    for old in blocks(before) {
        if !bundle.contains(old) && now < Span::of(old, "bundle of CAs")?.to {
            bundle.push_str(old);
        }
    }
    Ok(bundle)
}

/// Whether a key is that of a certificate.
fn belong(certificate: &str, key: &str) -> bool {
    let same = || {
        let key = KeyPair::from_pem(key).ok()?.subject_public_key_info();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(certificate.public_key().raw == key)
    };
    same().unwrap_or_default()
}

/// Each certificate of a text, with its line ends.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive("-----END CERTIFICATE-----\n").filter(|block| block.contains("BEGIN"))
}

/// When a certificate is valid, and for whom.
struct Span {
    from: SystemTime,
    to: SystemTime,
    names: Vec<String>,
}

impl Span {
    fn of(pem: &str, what: &'static str) -> Result<Self, AuthorityError> {
        Self::parse(pem).ok_or(AuthorityError::Unusable { what })
    }

    fn parse(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let at =
            |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
        let validity = certificate.validity();
        let names = match certificate.subject_alternative_name().ok()? {
            Some(names) => names.value.general_names.iter().filter_map(name).collect(),
            None => Vec::new(),
        };
        Some(Self {
            from: at(validity.not_before.timestamp())?,
            to: at(validity.not_after.timestamp())?,
            names: sorted(&names),
        })
    }

    /// After this part of its life.
    fn at(&self, part: u32, of: u32) -> SystemTime {
        self.from + self.to.duration_since(self.from).unwrap_or_default() / of * part
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            ref bytes => <[u8; 16]>::try_from(bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// Names as certificates hold them, in order, each once.
fn sorted(names: &[String]) -> Vec<String> {
    let one = |name: &String| match name.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.clone(),
    };
    let mut names: Vec<String> = names.iter().map(one).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a server can have this name: of the DNS, or an IP address.
pub fn is_name(name: &str) -> bool {
    let params = CertificateParams::new(vec![name.to_owned()]);
    params.is_ok_and(|params| {
        matches!(params.subject_alt_names.as_slice(), [SanType::DnsName(_) | SanType::IpAddress(_)])
    }) && bulkhead_proto::TlsAddress::new(name, 1).is_some()
}

#[cfg(test)]
mod tests;
