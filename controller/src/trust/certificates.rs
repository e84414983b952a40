//! The certificate that the ports show: from files, which may be replaced at any time.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_proto::rustls::crypto::ring;
use bulkhead_proto::rustls::pki_types::pem::PemObject as _;
use bulkhead_proto::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use bulkhead_proto::rustls::server::{ClientHello, ResolvesServerCert};
use bulkhead_proto::rustls::sign::CertifiedKey;
use bulkhead_proto::rustls::{self, ServerConfig, version};
use tokio::sync::watch;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long before its end a certificate is warned about.
const SOON: Duration = Duration::from_hours(7 * 24);
/// Most bytes of a file.
const LONGEST: usize = 1 << 20;

/// The files of a certificate in a directory, named as in a Kubernetes secret of type
/// `kubernetes.io/tls`.
pub const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub const KEY: &str = "tls.key";

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it.
    #[error("{path}: {problem}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// TLS itself.
    #[error("prepare TLS with {path}")]
    Tls {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// How the certificate stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// When it ends, seconds since the Unix epoch.
    pub ends: u64,
    /// What is wrong: that it has ended or ends soon, or that newer files cannot be used.
    pub problem: Option<String>,
}

/// The certificate of a directory, read again when it changes.
pub struct Certificates {
    directory: PathBuf,
    shown: RwLock<Shown>,
    standing: watch::Sender<Standing>,
}

/// What whoever connects now is shown.
struct Shown {
    key: Arc<CertifiedKey>,
    ends: u64,
    files: Files,
}

/// The files as they were read.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads `tls.crt` and `tls.key` of a directory. Blocks.
    pub fn open(directory: &Path) -> Result<Self, CertificateError> {
        let shown = Shown::of(directory, Files::read(directory)?)?;
        let standing = watch::Sender::new(Standing { ends: shown.ends, problem: None });
        let certificates =
            Self { directory: directory.to_owned(), shown: RwLock::new(shown), standing };
        certificates.look();
        Ok(certificates)
    }

    /// How a port speaks TLS with it: whoever connects is shown what is newest then.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|source| CertificateError::Tls { path: self.directory.clone(), source })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// Tells how it stands, and of changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Looks at the files again. What cannot be used changes nothing but the standing. Blocks.
    pub fn look(&self) {
        let problem = self.take_newer().err().map(|error| {
            format!("the newer certificate is not used: {}", crate::reason::chain(&error))
        });
        let ends = self.shown.read().unwrap_or_else(PoisonError::into_inner).ends;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(ends).saturating_sub(now);
        let ending = || {
            let directory = self.directory.display();
            let days = left.as_secs() / 86_400;
            match left {
                Duration::ZERO => Some(format!("the certificate in {directory} has ended")),
                left if left < SOON => {
                    Some(format!("the certificate in {directory} ends in {days} days"))
                }
                _ => None,
            }
        };
        let standing = Standing { ends, problem: problem.or_else(ending) };
        self.standing.send_if_modified(|before| {
            let changed = *before != standing;
            if changed && let Some(problem) = &standing.problem {
                tracing::warn!(ends, "{problem}");
            }
            *before = standing;
            changed
        });
    }

    fn take_newer(&self) -> Result<(), CertificateError> {
        let files = Files::read(&self.directory)?;
        if self.shown.read().unwrap_or_else(PoisonError::into_inner).files == files {
            return Ok(());
        }
        let shown = Shown::of(&self.directory, files)?;
        tracing::info!(ends = shown.ends, "a new certificate is shown from now on");
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// Looks at the files again and again, as long as it is polled; `renew` may replace them
    /// before.
    pub async fn watch(self: Arc<Self>, renew: impl Fn() + Clone + Send + 'static) {
        loop {
            tokio::time::sleep(LOOK).await;
            let (certificates, renew) = (Arc::clone(&self), renew.clone());
            let looked = tokio::task::spawn_blocking(move || {
                renew();
                certificates.look();
            });
            if looked.await.is_err() {
                tracing::error!("looking at the certificates ended early; it is tried again");
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

impl Files {
    fn read(directory: &Path) -> Result<Self, CertificateError> {
        // A kubelet swaps the directory behind a link: both files must be of the same.
        let directory = fs::canonicalize(directory.join(CERTIFICATE))
            .ok()
            .and_then(|file| file.parent().map(Path::to_owned))
            .unwrap_or_else(|| directory.to_owned());
        let read = |name| {
            let path = directory.join(name);
            match fs::read(&path) {
                Ok(bytes) if bytes.len() > LONGEST => {
                    let problem = format!("is longer than {LONGEST} bytes");
                    Err(CertificateError::Unusable { path, problem })
                }
                Ok(bytes) => Ok(bytes),
                Err(source) => Err(CertificateError::Read { path, source }),
            }
        };
        Ok(Self { certificate: read(CERTIFICATE)?, key: read(KEY)? })
    }
}

impl Shown {
    fn of(directory: &Path, files: Files) -> Result<Self, CertificateError> {
        let unusable = |name: &str, problem: String| CertificateError::Unusable {
            path: directory.join(name),
            problem,
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&files.certificate).collect();
        let chain = chain.map_err(|error| unusable(CERTIFICATE, error.to_string()))?;
        let Some(leaf) = chain.first() else {
            return Err(unusable(CERTIFICATE, "holds no certificate in PEM".to_owned()));
        };
        let ends = ends(leaf).ok_or_else(|| unusable(CERTIFICATE, "is no X.509".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|error| unusable(KEY, error.to_string()))?;
        // This also says whether the two belong together.
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|source| CertificateError::Tls { path: directory.to_owned(), source })?;
        Ok(Self { key: Arc::new(key), ends, files })
    }
}

/// When a certificate ends, seconds since the Unix epoch; `None`: it is none.
pub(super) fn ends(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::authority::{Lives, Material};
    use std::os::unix::fs::symlink;

    fn material(names: &[&str]) -> Material {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Material::next(None, &names, SystemTime::now(), &Lives::default()).unwrap().unwrap()
    }

    fn write(directory: &Path, certificate: &str, key: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(CERTIFICATE), certificate).unwrap();
        fs::write(directory.join(KEY), key).unwrap();
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.shown.read().unwrap().key.cert[0].to_vec()
    }

    #[test]
    fn files_are_taken_when_they_change_and_only_if_they_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (material(&["a.example"]), material(&["b.example"]));
        write(dir.path(), &first.certificate, &first.key);
        let certificates = Certificates::open(dir.path()).unwrap();
        let before = shown(&certificates);
        assert_eq!(certificates.standing().borrow().problem, None);
        // Half of a change.
        write(dir.path(), &second.certificate, &first.key);
        certificates.look();
        assert_eq!(shown(&certificates), before);
        let problem = certificates.standing().borrow().problem.clone().unwrap();
        assert!(problem.contains("not used"), "{problem}");
        write(dir.path(), &second.certificate, &second.key);
        certificates.look();
        assert_ne!(shown(&certificates), before);
        assert_eq!(certificates.standing().borrow().problem, None);
        fs::remove_file(dir.path().join(KEY)).unwrap();
        certificates.look();
        assert!(certificates.standing().borrow().problem.as_ref().unwrap().contains(KEY));
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, material) in [("..1", material(&["a"])), ("..2", material(&["b"]))] {
            write(&at(name), &material.certificate, &material.key);
        }
        symlink("..1", at("..data")).unwrap();
        for name in [CERTIFICATE, KEY] {
            symlink(format!("..data/{name}"), at(name)).unwrap();
        }
        let certificates = Certificates::open(dir.path()).unwrap();
        let before = shown(&certificates);
        symlink("..2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        certificates.look();
        assert_ne!(shown(&certificates), before);
    }

    #[test]
    fn an_end_that_is_near_or_past_is_told() {
        let lives = |days: u64| Lives { leaf: Duration::from_hours(24 * days), ..Lives::default() };
        for (days, ago, told) in [(30, 0, None), (5, 0, Some("ends in")), (5, 6, Some("has ended"))]
        {
            let dir = tempfile::tempdir().unwrap();
            let then = SystemTime::now() - Duration::from_hours(24 * ago);
            let names = ["a.example".to_owned()];
            let material = Material::next(None, &names, then, &lives(days)).unwrap().unwrap();
            write(dir.path(), &material.certificate, &material.key);
            let certificates = Certificates::open(dir.path()).unwrap();
            let problem = certificates.standing().borrow().problem.clone();
            match told {
                None => assert_eq!(problem, None),
                Some(told) => assert!(problem.as_ref().unwrap().contains(told), "{problem:?}"),
            }
        }
    }
}
