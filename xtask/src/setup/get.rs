//! Gets what is missing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::debian::Archive;
use super::needs::{Need, Source};
use crate::command::{Cmd, find};
use crate::paths;
use crate::progress;

/// The command that gets `need`, for a person to read or to type.
pub(super) fn command(need: &Need) -> Result<String> {
    Ok(match &need.source {
        Source::Debian(packages) => format!("apt-get install {}", packages.join(" ")),
        // Only setup can take backports into account.
        Source::DebianAtLeast(..) => "cargo xtask setup lab".to_owned(),
        Source::Crate { .. } => build_crate(need)?.text(),
        Source::Wheel { .. } => unpack_wheel(need)?.text(),
        Source::Modules { name, packages } => unpack_modules(name, packages)?.text(),
    })
}

/// Gets all of them: Debian's packages first, since programs are built with some of them.
pub(super) fn all(needs: &[Need]) -> Result<()> {
    fs::create_dir_all(paths::tools()?).context("create the tools directory of the cache")?;
    let plain: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.source {
            Source::Debian(packages) => Some(packages),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    if !plain.is_empty() {
        let what = format!("Installing {}", plain.join(", "));
        progress::during(what, |step| archive()?.install(&plain, step))?;
    }
    for need in needs {
        match need.source {
            Source::Debian(_) => {}
            Source::DebianAtLeast(packages, at_least) => {
                progress::during(format!("Installing {}", packages.join(", ")), |step| {
                    archive()?.install_at_least(packages, at_least, step)
                })?;
            }
            Source::Crate { name, version, .. } => {
                build_crate(need)?.step(format!("Building {name} {version}"))?;
            }
            Source::Wheel { name, version, program } => {
                unpack_wheel(need)?.step(format!("Unpacking {name} {version}"))?;
                link(name, program)?;
            }
            Source::Modules { name, packages } => get_modules(name, packages)?,
        }
    }
    Ok(())
}

fn archive() -> Result<Archive> {
    if find("apt-get").is_none() {
        bail!("this machine has no apt-get: get the packages named above in its own way");
    }
    Archive::of_this_machine()
}

fn build_crate(need: &Need) -> Result<Cmd> {
    let Source::Crate { name, version, flags, env } = need.source else {
        bail!("{} does not come from the crates registry", need.name);
    };
    let mut cmd = Cmd::new("cargo", format!("build {name}, which {}", need.why))
        .args(["install", name, "--version", version, "--locked", "--force", "--root"])
        .arg(paths::tools()?)
        .args(flags)
        // A build of our own must not see the settings of the cargo that runs xtask.
        .dir(paths::tools()?.parent().unwrap_or(paths::root()))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    for (key, value) in env {
        cmd = cmd.env(key, value);
    }
    Ok(cmd)
}

fn unpack_wheel(need: &Need) -> Result<Cmd> {
    let Source::Wheel { name, version, .. } = need.source else {
        bail!("{} does not come from a wheel", need.name);
    };
    Ok(Cmd::new("python3", format!("unpack {name}, which {}", need.why))
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"])
        .arg(paths::tools()?.join("wheels").join(name))
        .arg(format!("{name}=={version}")))
}

/// Names, in a directory of modules, the packages that are whole there.
pub(super) const UNPACKED: &str = "unpacked";

/// The directory of Python modules of this name, in the project's cache.
pub(crate) fn modules(name: &str) -> Result<PathBuf> {
    Ok(paths::tools()?.join("wheels").join(name))
}

fn unpack_modules(name: &str, packages: &[&str]) -> Result<Cmd> {
    Ok(Cmd::new("python3", format!("unpack {}", packages.join(", ")))
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(modules(name)?)
        .args(packages))
}

fn get_modules(name: &str, packages: &[&str]) -> Result<()> {
    let dir = modules(name)?;
    // Of other versions, or half of these.
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    unpack_modules(name, packages)?.step(format!("Unpacking {name}"))?;
    let unpacked = dir.join(UNPACKED);
    fs::write(&unpacked, packages.join("\n"))
        .with_context(|| format!("write {}", unpacked.display()))
}

/// Makes a wheel's program findable beside the other tools.
fn link(wheel: &str, program: &str) -> Result<()> {
    let bin = paths::tools()?.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let link_path = bin.join(program);
    if link_path.is_symlink() {
        fs::remove_file(&link_path).with_context(|| format!("replace {}", link_path.display()))?;
    }
    symlink(format!("../wheels/{wheel}/bin/{program}"), &link_path)
        .with_context(|| format!("link {}", link_path.display()))
}
