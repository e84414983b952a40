//! Debian's packages, through the mirror that the machine already uses.
//!
//! Newer suites get package lists of their own in the project's cache: the machine's own
//! sources and lists are read and never changed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::probe::version_in;
use crate::command::Cmd;
use crate::paths;
use crate::progress::Step;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR_VARIABLE: &str = "BULKHEAD_DEBIAN_MIRROR";

/// The Debian archive that this machine uses.
pub(crate) struct Archive {
    /// The address of the main archive.
    pub(crate) mirror: String,
    /// The keyring that its suites are signed with.
    pub(crate) keyring: PathBuf,
    /// The machine's own suite, e.g. `bookworm`; none where the machine is no Debian.
    suite: Option<String>,
    /// Every Debian source of the machine: the suite, its updates and security.
    sources: Vec<Source>,
}

/// One line of apt's sources.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    address: String,
    suite: String,
    components: String,
}

impl Archive {
    /// Reads it from the machine's apt sources, or from `$BULKHEAD_DEBIAN_MIRROR`.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let suite = fs::read_to_string("/etc/os-release")
            .ok()
            .filter(|text| text.lines().any(|line| line == "ID=debian"))
            .and_then(|text| Some(field(&text, "VERSION_CODENAME=")?.trim_matches('"').to_owned()));
        let sources: Vec<Source> = apt_sources(Path::new("/etc/apt"))?
            .into_iter()
            .filter(|source| {
                let of_ours = |suite: &String| {
                    let rest = source.suite.strip_prefix(suite.as_str());
                    rest.is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"))
                };
                suite.as_ref().is_some_and(of_ours) && source.components.contains("main")
            })
            .collect();
        let of_suite = || sources.iter().find(|source| Some(&source.suite) == suite.as_ref());
        let mirror = env::var(MIRROR_VARIABLE)
            .ok()
            .or_else(|| Some(of_suite()?.address.clone()))
            .with_context(|| {
            format!("no Debian source in /etc/apt: name a mirror with {MIRROR_VARIABLE}=ADDRESS")
        })?;
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring");
        }
        Ok(Self { mirror, keyring: KEYRING.into(), suite, sources })
    }

    /// One apt line for `suite` of the main archive.
    pub(crate) fn line(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main", self.keyring.display(), self.mirror)
    }

    /// Installs packages of the machine's own suite.
    pub(super) fn install(&self, packages: &[&str], step: &Step) -> Result<()> {
        let lists = self.update(&[], step)?;
        install(&lists, None, packages, step)
    }

    /// Installs packages, from the suite's backports where its own version is too old.
    pub(super) fn install_at_least(
        &self,
        packages: &[&str],
        at_least: &[u32],
        step: &Step,
    ) -> Result<()> {
        let lists = self.update(&[], step)?;
        if candidate(&lists, packages)?.is_some_and(|version| version.as_slice() >= at_least) {
            return install(&lists, None, packages, step);
        }
        let suite = self.suite.as_ref().context("this machine is no Debian")?;
        let backports = format!("{suite}-backports");
        let lists = self.update(&[&self.line(&backports)], step)?;
        install(&lists, Some(&backports), packages, step)
    }

    /// Unpacks the package `name` of `suite` into `root`, or, where it only stands for another
    /// one, as a kernel without version does, the first that it depends on. Nothing is installed.
    pub(crate) fn unpack(&self, suite: &str, name: &str, root: &Path, step: &Step) -> Result<()> {
        let lists = Self::update_from(&format!("{}\n", self.line(suite)), suite, step)?;
        let shown = Cmd::new("apt-cache", "see what a package depends on")
            .args(lists.options())
            .args(["show", "--no-all-versions", name])
            .read()?;
        let depends = field(&shown, "Depends: ").unwrap_or_default();
        let first = depends.split([' ', ',']).next().unwrap_or_default();
        // A package that stands for the newest of its kind: linux-image-X for linux-image-6.1-X.
        let stands_for = name.split('-').all(|word| first.split('-').any(|other| other == word));
        let package = if stands_for { first } else { name };
        let dir = root.join("packages");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Cmd::privileged("apt-get", format!("get {package}"))?
            .args(lists.options())
            .args(["download", package])
            .dir(&dir)
            .quietly(step)?;
        let archives = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
        for archive in archives.flatten() {
            let unpack = Cmd::new("dpkg-deb", format!("unpack {package}"));
            unpack.arg("-x").arg(archive.path()).arg(root).quietly(step)?;
        }
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// Fetches the original archive of the source package `name` of `suite` into `dir`.
    pub(crate) fn source(&self, suite: &str, name: &str, dir: &Path, step: &Step) -> Result<()> {
        let text = format!("deb-src{}\n", self.line(suite).trim_start_matches("deb"));
        let lists = Self::update_from(&text, &format!("{suite}-sources"), step)?;
        Cmd::privileged("apt-get", format!("get the source package {name}"))?
            .args(lists.options())
            .args(["source", "--download-only", "--only-source", name])
            .dir(dir)
            .quietly(step)
    }

    /// Fetches package lists of the machine's Debian sources and of `more` lines.
    fn update(&self, more: &[&str], step: &Step) -> Result<Lists> {
        let mut text: String = self.sources.iter().map(|source| source.line(KEYRING)).collect();
        for line in more {
            text.extend([line, "\n"]);
        }
        Self::update_from(&text, "", step)
    }

    /// Fetches the package lists of these sources; `apart` names a place of their own.
    fn update_from(text: &str, apart: &str, step: &Step) -> Result<Lists> {
        let dir = paths::cache()?.join("apt").join(apart);
        let lists = Lists { list: dir.join("sources.list"), dir: dir.join("lists") };
        fs::create_dir_all(lists.dir.join("partial"))
            .with_context(|| format!("create {}", lists.dir.display()))?;
        fs::write(&lists.list, text).with_context(|| format!("write {}", lists.list.display()))?;
        // Mirrors that are snapshots serve files whose validity has run out: for what is installed
        // on this machine that is an error, for what runs in the lab it is none.
        let expired: &[&str] =
            if apart.is_empty() { &[] } else { &["-o", "Acquire::Check-Valid-Until=false"] };
        Cmd::privileged("apt-get", "learn which packages there are")?
            .args(lists.options())
            .args(expired)
            .arg("update")
            .quietly(step)?;
        Ok(lists)
    }
}

impl Source {
    fn line(&self, keyring: &str) -> String {
        let Self { address, suite, components } = self;
        format!("deb [signed-by={keyring}] {address} {suite} {components}\n")
    }
}

/// Package lists apart from the machine's own.
struct Lists {
    list: PathBuf,
    dir: PathBuf,
}

impl Lists {
    fn options(&self) -> Vec<String> {
        [
            format!("Dir::Etc::sourcelist={}", self.list.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::Lists={}", self.dir.display()),
            // The machine's own package cache describes its own lists: leave it alone.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // apt's unprivileged downloader cannot enter a home directory.
            "APT::Sandbox::User=root".to_owned(),
            "DPkg::Lock::Timeout=600".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect()
    }
}

fn install(lists: &Lists, release: Option<&str>, packages: &[&str], step: &Step) -> Result<()> {
    Cmd::privileged("env", format!("install {}", packages.join(", ")))?
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(lists.options())
        .args(["install", "--yes", "--no-install-recommends"])
        .args(release.map(|release| format!("--target-release={release}")))
        .args(packages)
        .quietly(step)
}

/// The version that apt would install; none where a package is unknown.
fn candidate(lists: &Lists, packages: &[&str]) -> Result<Option<Vec<u32>>> {
    let policy = Cmd::new("apt-cache", "see which version there is")
        .args(lists.options())
        .arg("policy")
        .args(packages.first())
        .env("LC_ALL", "C")
        .read()?;
    // The number before a colon is Debian's epoch, not a version.
    let version = field(&policy, "  Candidate: ").map(|v| v.split_once(':').map_or(v, |(_, v)| v));
    Ok(version.and_then(version_in))
}

/// What stands after `key` on the first line that begins with it.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// The binary sources under apt's configuration directory, in both of its formats.
fn apt_sources(etc: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(parts.flatten().map(|part| part.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line_source)),
            Some("sources") => text.split("\n\n").for_each(|s| sources.extend(stanza_sources(s))),
            _ => {}
        }
    }
    Ok(sources)
}

/// `deb [options] address suite components…`
fn one_line_source(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let (address, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Source { address, suite, components: words.collect::<Vec<_>>().join(" ") })
}

/// A stanza of a deb822 file: every address with every suite.
fn stanza_sources(stanza: &str) -> Vec<Source> {
    let value = |key| field(stanza, key).unwrap_or_default();
    if !value("Types:").split_whitespace().any(|kind| kind == "deb") || value("Enabled:") == "no" {
        return Vec::new();
    }
    let mut sources = Vec::new();
    for address in value("URIs:").split_whitespace() {
        for suite in value("Suites:").split_whitespace() {
            sources.push(Source {
                address: address.to_owned(),
                suite: suite.to_owned(),
                components: value("Components:").to_owned(),
            });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, suite: &str, components: &str) -> Source {
        Source {
            address: address.to_owned(),
            suite: suite.to_owned(),
            components: components.to_owned(),
        }
    }

    #[test]
    fn both_formats_of_apt_sources_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let etc = dir.path();
        fs::create_dir(etc.join("sources.list.d")).expect("a directory");
        let old = "# c\ndeb-src http://a.test/debian x main\n\
                   deb [arch=amd64 signed-by=/k] http://a.test/debian x main contrib\n";
        fs::write(etc.join("sources.list"), old).expect("written");
        let new = "Types: deb\n# a remark\nURIs: http://b.test/debian\nSuites: x x-updates\n\
                   Components: main\nSigned-By: /k\n\nTypes: deb\nEnabled: no\n\
                   URIs: http://c.test/\nSuites: x\nComponents: main\n";
        fs::write(etc.join("sources.list.d/debian.sources"), new).expect("written");
        let sources = apt_sources(etc).expect("readable");
        let b = "http://b.test/debian";
        assert_eq!(
            sources,
            [
                source("http://a.test/debian", "x", "main contrib"),
                source(b, "x", "main"),
                source(b, "x-updates", "main"),
            ]
        );
    }
}
