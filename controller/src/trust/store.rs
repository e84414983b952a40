//! Where the built-in authority's keys are kept: a directory of ours alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::authority::{AuthorityError, Lives, Material, Pair};
use super::certificates::{CERTIFICATE, KEY};

/// What peers must trust.
pub const BUNDLE: &str = "ca.crt";
const SIGNING: &str = "signing.crt";
const SIGNING_KEY: &str = "signing.key";
const NEXT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// Why the authority's files are not there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file.
    #[error("{operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in them.
    #[error("the authority in {path}")]
    Authority {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: AuthorityError,
    },
    /// Others' files.
    #[error(
        "{path} holds a certificate but no authority of ours; leave out --tls-self-signed to use \
         it, or name an empty directory"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory of a built-in authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// Where.
    pub directory: PathBuf,
    /// DNS names and IP addresses of the server.
    pub names: Vec<String>,
    /// How long things live.
    pub lives: Lives,
}

impl Store {
    /// Makes what is missing or due; whether anything was. Blocks.
    pub fn renew(&self, now: SystemTime) -> Result<bool, StoreError> {
        let have = self.read()?;
        let next = Material::next(have.as_ref(), &self.names, now, &self.lives)
            .map_err(|source| StoreError::Authority { path: self.directory.clone(), source })?;
        match next {
            Some(next) => self.write(&next).map(|()| true),
            None => Ok(false),
        }
    }

    /// The same, where an error must end nothing.
    pub fn renew_or_tell(&self) {
        match self.renew(SystemTime::now()) {
            Ok(true) => {
                tracing::info!(directory = %self.directory.display(), "certificates renewed");
            }
            Ok(false) => {}
            Err(error) => tracing::error!("{}", crate::reason::chain(&error)),
        }
    }

    fn read(&self) -> Result<Option<Material>, StoreError> {
        let file = |name: &str| -> Result<Option<String>, StoreError> {
            let path = self.directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(StoreError::File { operation: "read", path, source }),
            }
        };
        let pair = |certificate, key| -> Result<Option<Pair>, StoreError> {
            let (certificate, key) = (file(certificate)?, file(key)?);
            Ok(certificate.zip(key).map(|(certificate, key)| Pair { certificate, key }))
        };
        let leaf = pair(CERTIFICATE, KEY)?;
        let Some(signing) = pair(SIGNING, SIGNING_KEY)? else {
            if leaf.is_some() {
                return Err(StoreError::NotOurs { path: self.directory.clone() });
            }
            return Ok(None);
        };
        let Some(leaf) = leaf else { return Ok(None) };
        Ok(Some(Material {
            bundle: file(BUNDLE)?.unwrap_or_else(|| signing.certificate.clone()),
            signing,
            next: pair(NEXT, NEXT_KEY)?,
            certificate: leaf.certificate,
            key: leaf.key,
        }))
    }

    /// Each file whole. The bundle first: what it does not hold must never be shown. The serving
    /// certificate last: without it all is made anew.
    fn write(&self, material: &Material) -> Result<(), StoreError> {
        let directory = &self.directory;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| file("make directory", directory, source))?;
        let Material { bundle, signing, next, certificate, key } = material;
        let mut files = vec![
            (BUNDLE, Some(bundle)),
            (SIGNING_KEY, Some(&signing.key)),
            (SIGNING, Some(&signing.certificate)),
            (NEXT_KEY, next.as_ref().map(|next| &next.key)),
            (NEXT, next.as_ref().map(|next| &next.certificate)),
        ];
        files.extend([(KEY, Some(key)), (CERTIFICATE, Some(certificate))]);
        for (name, text) in files {
            let path = directory.join(name);
            match text {
                Some(text) => replace(&path, text)?,
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(file("remove", &path, error));
                    }
                    Ok(()) | Err(_) => {}
                },
            }
        }
        Ok(())
    }
}

fn file(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::File { operation, path: path.to_owned(), source }
}

fn replace(path: &Path, text: &str) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|source| file("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    fn store(directory: &Path) -> Store {
        let names = vec!["controller".to_owned()];
        Store { directory: directory.to_owned(), names, lives: Lives::default() }
    }

    #[test]
    fn an_empty_directory_is_filled_once_and_renewed_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("tls"));
        let now = SystemTime::now();
        assert!(store.renew(now).unwrap());
        assert!(!store.renew(now).unwrap());
        for entry in fs::read_dir(&store.directory).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
        let read = |name: &str| fs::read_to_string(store.directory.join(name)).unwrap();
        let before = (read(BUNDLE), read(CERTIFICATE));
        assert!(store.renew(now + Duration::from_hours(24 * 21)).unwrap());
        assert_eq!(read(BUNDLE), before.0);
        assert_ne!(read(CERTIFICATE), before.1);
        // At two thirds of the authority's life the next is there, and a day later it signs.
        let late = now + Duration::from_hours(24 * 250);
        assert!(store.renew(late).unwrap());
        let next = read(NEXT);
        assert!(read(BUNDLE).contains(&next) && read(SIGNING) != next);
        assert!(store.renew(late + Duration::from_hours(25)).unwrap());
        assert_eq!(read(SIGNING), next);
        assert!(!store.directory.join(NEXT_KEY).exists());
    }

    #[test]
    fn a_certificate_of_others_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CERTIFICATE), "theirs").unwrap();
        fs::write(dir.path().join(KEY), "theirs").unwrap();
        let refused = store(dir.path()).renew(SystemTime::now()).unwrap_err();
        assert!(matches!(refused, StoreError::NotOurs { .. }), "{refused}");
        assert_eq!(fs::read_to_string(dir.path().join(KEY)).unwrap(), "theirs");
    }
}
