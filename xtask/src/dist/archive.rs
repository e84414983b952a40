//! Archives whose bytes depend on nothing but what is in them: no times, no owners, sorted.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::{Builder, EntryType, Header, HeaderMode};

/// Something in an archive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Bytes { mode: u32, content: Vec<u8> },
    Link(PathBuf),
}

impl Entry {
    /// A program.
    pub(crate) fn program(from: &Path, path: &str) -> Result<Self> {
        Self::read(from, path, 0o755)
    }

    /// A file that is only read.
    pub(crate) fn file(from: &Path, path: &str) -> Result<Self> {
        Self::read(from, path, 0o644)
    }

    /// A file of these bytes.
    pub(crate) fn text(content: &[u8], path: &str) -> Self {
        let kind = Kind::Bytes { mode: 0o644, content: content.to_vec() };
        Self { path: PathBuf::from(path), kind }
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: PathBuf::from(path), kind: Kind::Link(PathBuf::from(to)) }
    }

    /// Puts a file or a program below a directory.
    pub(crate) fn place(&self, root: &Path) -> Result<()> {
        let Kind::Bytes { mode, content } = &self.kind else {
            bail!("{} is no file", self.path.display());
        };
        let path = root.join(&self.path);
        let parent = path.parent().context("a file has no directory")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))
            .with_context(|| format!("set the permissions of {}", path.display()))
    }

    fn read(from: &Path, path: &str, mode: u32) -> Result<Self> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        Ok(Self { path: PathBuf::from(path), kind: Kind::Bytes { mode, content } })
    }
}

/// The entries, with the directories that they are in, as one archive.
pub(crate) fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort();
    let mut builder = Builder::new(Vec::new());
    builder.mode(HeaderMode::Deterministic);
    let mut made = BTreeSet::new();
    for entry in entries {
        ensure!(entry.path.is_relative(), "{} is not relative", entry.path.display());
        for parent in parents(&entry.path) {
            if made.insert(parent.to_owned()) {
                append(&mut builder, parent, EntryType::Directory, 0o755, &[])?;
            }
        }
        ensure!(made.insert(entry.path.clone()), "{} is there twice", entry.path.display());
        match &entry.kind {
            Kind::Bytes { mode, content } => {
                append(&mut builder, &entry.path, EntryType::Regular, *mode, content)?;
            }
            Kind::Link(to) => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                builder
                    .append_link(&mut header, &entry.path, to)
                    .with_context(|| format!("put {} into an archive", entry.path.display()))?;
            }
        }
    }
    builder.into_inner().context("end an archive")
}

/// The directories above a path, the outermost first.
fn parents(path: &Path) -> Vec<&Path> {
    let mut above: Vec<&Path> =
        path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
    above.reverse();
    above
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(
    builder: &mut Builder<Vec<u8>>,
    path: &Path,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode, content.len() as u64);
    builder
        .append_data(&mut header, path, content)
        .with_context(|| format!("put {} into an archive", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn the_same_entries_give_the_same_bytes_in_any_order() {
        let a = Entry::text(b"a", "etc/a");
        let b = Entry::link("usr/bin/b", "a");
        let one = tar(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(one, tar(&[b, a]).unwrap());
        assert_eq!(names(&one), ["etc", "etc/a", "usr", "usr/bin", "usr/bin/b"]);
    }

    #[test]
    fn one_path_has_one_content() {
        let twice = [Entry::text(b"a", "a"), Entry::text(b"b", "a")];
        assert!(tar(&twice).unwrap_err().to_string().contains("twice"));
    }
}
