//! A year of the built-in authority, hour by hour.

use bulkhead_proto::rustls::RootCertStore;
use bulkhead_proto::rustls::client::WebPkiServerVerifier;
use bulkhead_proto::rustls::client::danger::ServerCertVerifier as _;
use bulkhead_proto::rustls::crypto::ring;
use bulkhead_proto::rustls::pki_types::{ServerName, UnixTime};
use std::sync::Arc;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// As a client of ours would judge that certificate, with that bundle, at that time.
fn trusts(bundle: &str, certificate: &str, name: &str, at: SystemTime) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for block in blocks(bundle) {
        roots.add(CertificateDer::from_pem_slice(block.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap());
    let judged = verifier.verify_server_cert(&leaf, &[], &name, &[], at);
    judged.map(drop).map_err(|error| error.to_string())
}

#[test]
fn what_is_made_first_is_trusted_under_its_names_only() {
    let now = SystemTime::now();
    let of = names(&["bulkhead-controller.bulkhead-system.svc", "127.0.0.1", "::1"]);
    let made = Material::next(None, &of, now, &Lives::default()).unwrap().unwrap();
    for name in &of {
        trusts(&made.bundle, &made.certificate, name, now).unwrap();
    }
    assert!(trusts(&made.bundle, &made.certificate, "localhost", now).is_err());
    let late = now + DAY * 31;
    assert!(trusts(&made.bundle, &made.certificate, "127.0.0.1", late).is_err());
    let again = Material::next(Some(&made), &of, now, &Lives::default()).unwrap();
    assert_eq!(again, None, "nothing is due");
}

#[test]
fn other_names_are_another_certificate_of_the_same_authority() {
    let now = SystemTime::now();
    let lives = Lives::default();
    let made = Material::next(None, &names(&["a.example"]), now, &lives).unwrap().unwrap();
    let same = Material::next(Some(&made), &names(&["a.example", "a.example"]), now, &lives);
    assert_eq!(same.unwrap(), None);
    let more = names(&["b.example", "10.0.0.1"]);
    let other = Material::next(Some(&made), &more, now, &lives).unwrap().unwrap();
    assert_eq!(other.bundle, made.bundle);
    trusts(&made.bundle, &other.certificate, "10.0.0.1", now).unwrap();
    assert!(trusts(&made.bundle, &other.certificate, "a.example", now).is_err());
}

/// Peers that read the bundle only every 20 hours always trust what they are shown, for four
/// generations of authorities.
#[test]
fn peers_that_read_the_bundle_now_and_then_are_never_without_a_server() {
    let of = names(&["controller"]);
    let lives = Lives { authority: DAY * 90, leaf: DAY * 9, overlap: DAY };
    let mut now = SystemTime::now();
    let end = now + DAY * 365;
    let mut have = Material::next(None, &of, now, &lives).unwrap().unwrap();
    let (mut read, mut read_at) = (have.bundle.clone(), now);
    let (mut authorities, mut leaves, mut most) = (1, 1, 1);
    while now < end {
        if let Some(next) = Material::next(Some(&have), &of, now, &lives).unwrap() {
            authorities += usize::from(next.signing != have.signing);
            leaves += usize::from(next.certificate != have.certificate);
            have = next;
            assert_eq!(Material::next(Some(&have), &of, now, &lives).unwrap(), None, "settled");
        }
        most = most.max(blocks(&have.bundle).count());
        if now.duration_since(read_at).unwrap() >= Duration::from_hours(20) {
            (read, read_at) = (have.bundle.clone(), now);
        }
        trusts(&read, &have.certificate, "controller", now).unwrap();
        now += Duration::from_hours(1);
    }
    assert!((5..=7).contains(&authorities), "{authorities}");
    assert!((55..=75).contains(&leaves), "{leaves}");
    assert!((2..=3).contains(&most), "{most} authorities in one bundle");
}

#[test]
fn an_authority_that_ended_unattended_is_replaced() {
    let of = names(&["controller"]);
    let (now, lives) = (SystemTime::now(), Lives::default());
    let made = Material::next(None, &of, now, &lives).unwrap().unwrap();
    let late = now + lives.authority + DAY;
    let next = Material::next(Some(&made), &of, late, &lives).unwrap().unwrap();
    trusts(&next.bundle, &next.certificate, "controller", late).unwrap();
    assert_eq!(blocks(&next.bundle).count(), 1, "what has ended is in no bundle");
}

#[test]
fn what_a_crash_left_between_two_files_is_made_whole() {
    let of = names(&["controller"]);
    let (now, lives) = (SystemTime::now(), Lives::default());
    let made = Material::next(None, &of, now, &lives).unwrap().unwrap();
    let other = Material::next(None, &of, now, &lives).unwrap().unwrap();
    let torn = Material { key: other.key.clone(), ..made.clone() };
    let mended = Material::next(Some(&torn), &of, now, &lives).unwrap().unwrap();
    assert!(belong(&mended.certificate, &mended.key));
    assert_eq!(mended.bundle, made.bundle);
    // The next authority's key is there already, its certificate not yet.
    let later = now + lives.authority / 4 * 3;
    let with_next = Material::next(Some(&made), &of, later, &lives).unwrap().unwrap();
    let next = with_next.next.clone().unwrap();
    let mut torn = with_next.clone();
    torn.signing.key.clone_from(&next.key);
    let mended = Material::next(Some(&torn), &of, later, &lives).unwrap().unwrap();
    assert!(mended.signing == next && mended.next.is_none());
    trusts(&with_next.bundle, &mended.certificate, "controller", later).unwrap();
}

#[test]
fn what_is_stored_and_broken_is_named() {
    let of = names(&["controller"]);
    let (now, lives) = (SystemTime::now(), Lives::default());
    let mut made = Material::next(None, &of, now, &lives).unwrap().unwrap();
    made.signing.certificate.truncate(100);
    let refused = Material::next(Some(&made), &of, now, &lives).unwrap_err().to_string();
    assert!(refused.contains("certificate of the CA"), "{refused}");
}

#[test]
fn names_are_of_the_dns_or_addresses() {
    assert!(["controller", "a.b.svc", "10.0.0.1", "::1"].into_iter().all(is_name));
    assert!(!["", "a b", "https://a", "a:1", "-"].into_iter().any(is_name));
}
