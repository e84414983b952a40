//! Sees what is on the machine; changes nothing.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::get::{UNPACKED, modules};
use crate::command::find;

/// How the presence of a need is seen.
pub(super) enum Probe {
    /// A program answers, with at least this version (empty: any).
    Program { program: &'static str, arg: &'static str, at_least: &'static [u32] },
    /// Debian packages are installed.
    Packages(&'static [&'static str]),
    /// Exactly these Python packages were unpacked into the cache.
    Modules { name: &'static str, packages: &'static [&'static str] },
}

/// What a probe saw.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Present, in this version.
    Yes(String),
    /// Present, but older than we need.
    TooOld(String),
    /// Absent.
    No,
}

/// The compiler that builds the kernel programs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BpfToolchain {
    /// rustup's nightly with rust-src: core is built from source.
    Nightly,
    /// Debian's rustc with core prebuilt for the kernel's virtual machine.
    Debian,
}

/// Nightly where it can build core, else Debian's.
pub(crate) fn bpf_toolchain() -> BpfToolchain {
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .stderr(Stdio::null())
        .output();
    let has_core = sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        let core = "lib/rustlib/src/rust/library/core/Cargo.toml";
        output.status.success() && std::path::Path::new(sysroot.trim()).join(core).is_file()
    });
    if has_core { BpfToolchain::Nightly } else { BpfToolchain::Debian }
}

impl Probe {
    /// Looks.
    pub(super) fn look(&self) -> Result<Found> {
        match self {
            Self::Program { program, arg, at_least } => look_for_program(program, arg, at_least),
            Self::Packages(packages) => look_for_packages(packages),
            Self::Modules { name, packages } => look_for_modules(name, packages),
        }
    }

    /// What was looked for, for an error.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Program { program, arg, at_least } => {
                format!("`{program} {arg}` does not tell version {} or newer", dotted(at_least))
            }
            Self::Packages(packages) => {
                format!("dpkg-query does not list all of {}", packages.join(", "))
            }
            Self::Modules { packages, .. } => {
                format!("the cache does not hold {}", packages.join(", "))
            }
        }
    }
}

fn look_for_program(program: &str, arg: &str, at_least: &[u32]) -> Result<Found> {
    let Some(path) = find(program) else {
        return Ok(Found::No);
    };
    let output = Command::new(&path)
        .arg(arg)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {} {arg}", path.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let Some(version) = version_in(&String::from_utf8_lossy(&said)) else {
        // A program that tells no version is only good enough where any will do.
        return Ok(if at_least.is_empty() { Found::Yes(String::new()) } else { Found::No });
    };
    let text = dotted(&version);
    Ok(if version.as_slice() >= at_least { Found::Yes(text) } else { Found::TooOld(text) })
}

fn look_for_packages(packages: &[&str]) -> Result<Found> {
    if find("dpkg-query").is_none() {
        return Ok(Found::No);
    }
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Abbrev}${Version}\n"])
        .args(packages)
        .output()
        .context("run dpkg-query")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let versions: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ii ")).collect();
    if output.status.success() && versions.len() >= packages.len() {
        return Ok(Found::Yes(versions.first().copied().unwrap_or_default().to_owned()));
    }
    Ok(Found::No)
}

fn look_for_modules(name: &str, packages: &[&str]) -> Result<Found> {
    let unpacked = modules(name)?.join(UNPACKED);
    if !unpacked.is_file() {
        return Ok(Found::No);
    }
    let unpacked =
        fs::read_to_string(&unpacked).with_context(|| format!("read {}", unpacked.display()))?;
    let wanted = packages.join("\n");
    Ok(if unpacked == wanted { Found::Yes(String::new()) } else { Found::TooOld(String::new()) })
}

/// The first dotted number in `text`.
pub(super) fn version_in(text: &str) -> Option<Vec<u32>> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .filter(|word| word.contains('.'))
        .find_map(|word| word.trim_matches('.').split('.').map(|n| n.parse().ok()).collect())
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        let qemu = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)";
        assert_eq!(version_in(qemu), Some(vec![10, 0, 2]));
        assert_eq!(version_in("mke2fs 1.47.0 (5-Feb-2023)"), Some(vec![1, 47, 0]));
        assert_eq!(version_in("1.75.0\n"), Some(vec![1, 75, 0]));
        assert_eq!(version_in("no number"), None);
    }

    #[test]
    fn an_older_program_is_too_old() {
        let found = look_for_program("sh", "-c", &[1]).expect("sh starts");
        assert_eq!(found, Found::No, "a shell tells no version");
        let found = look_for_program("cargo", "--version", &[999]).expect("cargo starts");
        assert!(matches!(found, Found::TooOld(_)), "{found:?}");
        let found = look_for_program("cargo", "--version", &[1, 85]).expect("cargo starts");
        assert!(matches!(found, Found::Yes(_)), "{found:?}");
    }
}
