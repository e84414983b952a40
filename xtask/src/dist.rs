//! `cargo xtask dist`: what is shipped. Static programs, OCI images of them (made here, with no
//! daemon), and an archive of the operators' command; the same bytes from the same commit.

pub(crate) mod archive;
pub(crate) mod image;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use crate::build_ebpf;
use crate::command::Cmd;
use crate::paths;
use archive::Entry;
use image::{Image, User};

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the images are called, without their last part: a registry and a path.
    #[arg(long, value_name = "NAME", default_value = "localhost/bulkhead")]
    repository: String,
    /// The images' tag. Default: the version.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
}

/// Programs that are shipped; each is of the crate of its name.
const PROGRAMS: [&str; 3] = ["bulkhead-agent", "bulkhead-controller", "bulkheadctl"];

/// Whom a program may be that needs no rights on its node: the number that distroless images
/// have made customary.
const NOBODY: u32 = 65_532;

/// Which sources of names the C library asks: it has no file of its own in an empty image.
const NSSWITCH: &[u8] = b"hosts: files dns\n";

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    build_ebpf::run(&build_ebpf::Args::OURS)?;
    let built = build()?;
    let out = paths::target().join("dist/out");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("empty {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let program = |name: &str| -> Result<Entry> {
        let path = built.join(name);
        check_static(&path)?;
        Entry::program(&path, &format!("usr/bin/{name}"))
    };
    // As deploy/Dockerfile takes them.
    let root = paths::target().join("dist/root");
    let images = [
        (
            "agent",
            vec![
                program("bulkhead-agent")?,
                Entry::file(&build_ebpf::object_path(), "usr/lib/bulkhead/bulkhead.bpf.o")?,
                Entry::text(NSSWITCH, "etc/nsswitch.conf"),
            ],
            User::Root,
        ),
        (
            "controller",
            vec![program("bulkhead-controller")?, Entry::text(NSSWITCH, "etc/nsswitch.conf")],
            User::Number(NOBODY),
        ),
    ];
    for (name, entries, user) in images {
        for entry in &entries {
            entry.place(&root)?;
        }
        let image = Image {
            reference: format!("{}/{name}:{}", args.repository, args.tag),
            entrypoint: vec![format!("/usr/bin/bulkhead-{name}")],
            user,
            entries,
        };
        let path = out.join(format!("bulkhead-{name}-{}.oci.tar", args.tag));
        let digest = image.write(&path)?;
        println!("{}  {}  {digest}", path.display(), image.reference);
    }
    let path = out.join(format!("bulkheadctl-{}-{}.tar", args.tag, env::consts::ARCH));
    let command = program("bulkheadctl")?;
    // Found by kubectl as its plug-in.
    let plugin = Entry::link("usr/bin/kubectl-bulkhead", "bulkheadctl");
    fs::write(&path, archive::tar(&[command, plugin])?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Builds the programs and says where they are.
fn build() -> Result<PathBuf> {
    let triple = host()?;
    let target = paths::target().join("dist/build");
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // Differs from build to build, and nobody asks for it.
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
        format!("--remap-path-prefix={}=/bulkhead", paths::root().display()),
    ];
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    Cmd::new(env!("CARGO"), "build what is shipped")
        .args(["build", "--release", "--locked", "--target", &triple, "--target-dir"])
        .arg(&target)
        .args(PROGRAMS.iter().flat_map(|name| ["--package", name, "--bin", name]))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .step("build what is shipped")?;
    Ok(target.join(triple).join("release"))
}

/// The triple of this machine.
fn host() -> Result<String> {
    let said = Cmd::new("rustc", "learn what this machine is").arg("-vV").read()?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

fn cargo_home() -> Option<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// A program that asks for a loader would not start in an image that has none.
fn check_static(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let file = ElfFile64::<Endianness>::parse(&*bytes)
        .with_context(|| format!("{} is no program", path.display()))?;
    let (header, endian) = (file.elf_header(), file.endian());
    let segments = header.program_headers(endian, &*bytes).context("read its segments")?;
    ensure!(!segments.is_empty(), "{} has no segments", path.display());
    if segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP) {
        bail!("{} is not static: it asks for a loader", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_asks_for_a_loader_is_refused() {
        let own = env::current_exe().unwrap();
        let error = check_static(&own).unwrap_err().to_string();
        assert!(error.contains("asks for a loader"), "{error}");
    }
}
