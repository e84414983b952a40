//! `cargo xtask build-ebpf`: builds the kernel programs, and checks the object that comes out.

mod inspect;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use bulkhead_abi::ABI_VERSION;

use crate::command::{self, Cmd};
use crate::paths;
use crate::setup::{self, BpfToolchain};

/// Debian's compiler for the web and BPF targets; it never comes from rustup.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Little-endian like every machine that we build on.
const TARGET: &str = "bpfel-unknown-none";

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build them with the layouts of another version, for tests of upgrade and downgrade.
    #[arg(long)]
    next: bool,
}

impl Args {
    /// The programs of this version.
    pub(crate) const OURS: Self = Self { next: false };
    /// Those of another one.
    pub(crate) const NEXT: Self = Self { next: true };

    fn features(&self) -> &[&str] {
        if self.next { &["--features", "next"] } else { &[] }
    }

    const fn abi_version(&self) -> u32 {
        if self.next { ABI_VERSION + 1 } else { ABI_VERSION }
    }

    fn object_path(&self) -> PathBuf {
        if self.next { next_object_path() } else { object_path() }
    }
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(target_endian = "big") {
        bail!("the kernel programs are built for little-endian machines only: build on one");
    }
    let linker = linker()?;
    let toolchain = Toolchain::find()?;
    eprintln!("  {}", toolchain.because());
    let built = toolchain.build(&linker, args.features())?;

    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let summary = inspect::inspect(&object, args.abi_version())
        .with_context(|| format!("the object {} is not fit to load", built.display()))?;
    let path = args.object_path();
    install(&object, &path)?;
    eprintln!("  {summary}");
    println!("{}", path.display());
    Ok(())
}

/// Where the checked object is.
pub(crate) fn object_path() -> PathBuf {
    paths::target().join("bpf/bulkhead.bpf.o")
}

/// Where that of another version is.
pub(crate) fn next_object_path() -> PathBuf {
    paths::target().join("bpf/bulkhead-next.bpf.o")
}

/// A reader sees the old object or the new one, never half of one; the same object is left
/// alone, so that nothing that watches its time is built again.
fn install(object: &[u8], path: &Path) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == object) {
        return Ok(());
    }
    let dir = path.parent().context("the object's path has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let new = path.with_extension("o.new");
    fs::write(&new, object).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path)
        .with_context(|| format!("cannot rename {} to {}", new.display(), path.display()))
}

fn linker() -> Result<PathBuf> {
    command::find("bpf-linker").context(
        "bpf-linker is missing: it turns rustc's output into a BPF object; \
         `cargo xtask setup` gets it",
    )
}

/// What can compile for the kernel.
enum Toolchain {
    /// The ordinary way of aya: a nightly that builds `core` from its source.
    Nightly,
    /// Debian's rustc-web, which brings `core` for this target ready-made.
    Debian { version: String },
}

impl Toolchain {
    /// The same choice as `setup` makes.
    fn find() -> Result<Self> {
        match setup::bpf_toolchain() {
            BpfToolchain::Nightly => Ok(Self::Nightly),
            BpfToolchain::Debian => match debian() {
                Ok(version) => Ok(Self::Debian { version }),
                Err(why_not) => bail!(
                    "no compiler for {TARGET}, which the kernel programs are built for (rustup \
                     has no nightly with rust-src; {why_not}): `cargo xtask setup` gets one"
                ),
            },
        }
    }

    fn because(&self) -> String {
        match self {
            Self::Nightly => "compiler: rustup's nightly, because it has rust-src".to_owned(),
            Self::Debian { version } => {
                format!("compiler: Debian's {version}, because rustup has no nightly with rust-src")
            }
        }
    }

    /// Builds, and returns what cargo made.
    fn build(&self, linker: &Path, features: &[&str]) -> Result<PathBuf> {
        let dir = paths::target().join("ebpf");
        let what = "build the kernel programs";
        let build = match self {
            Self::Nightly => without_inherited(Cmd::tool("rustup", what)?).args([
                "run",
                "nightly",
                "cargo",
                "build",
                "-Z",
                "build-std=core",
            ]),
            Self::Debian { .. } => without_inherited(Cmd::tool("cargo", what)?)
                .arg("build")
                .env("RUSTC", DEBIAN_RUSTC)
                // The programs use unstable language features, as a nightly has them.
                .env("RUSTC_BOOTSTRAP", "1"),
        };
        build
            .env("CARGO_ENCODED_RUSTFLAGS", flags(linker)?)
            .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(&dir)
            .args(features)
            .dir(paths::root().join("ebpf"))
            .step("compile ebpf/")?;
        Ok(dir.join(TARGET).join("release/bulkhead"))
    }
}

/// The version of Debian's compiler if it has `core` for our target, or why it will not do.
fn debian() -> Result<String, String> {
    if !Path::new(DEBIAN_RUSTC).exists() {
        return Err(format!("there is no {DEBIAN_RUSTC}"));
    }
    let rustc = |args: &[&str]| {
        Cmd::new(DEBIAN_RUSTC, "look for a compiler with the BPF target")
            .args(args)
            .read()
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("{DEBIAN_RUSTC} does not answer: {error:#}"))
    };
    let libraries = rustc(&["--print", "target-libdir", "--target", TARGET])?;
    let has_core = fs::read_dir(&libraries).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    });
    if !has_core {
        return Err(format!("{DEBIAN_RUSTC} has no core library for {TARGET}"));
    }
    let version = rustc(&["--version"])?;
    Ok(version.split(" (").next().unwrap_or(&version).to_owned())
}

/// Takes away what the cargo that runs this program, or its user, set for the outer workspace.
fn without_inherited(command: Cmd) -> Cmd {
    let bends = |key: &String| {
        ["RUSTC", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
            || ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO"].contains(&key.as_str())
    };
    env::vars_os()
        .filter_map(|(key, _)| key.into_string().ok())
        .filter(bends)
        .fold(command, |command, key| command.env_remove(&key))
}

/// Compiler flags, in cargo's encoding: separated by 0x1f, so that paths may hold spaces.
fn flags(linker: &Path) -> Result<OsString> {
    let mut linker_flag = OsString::from("-Clinker=");
    linker_flag.push(linker);
    // The object is the same wherever it is built.
    let mut remap = OsString::from("--remap-path-prefix=");
    remap.push(paths::root());
    remap.push("=bulkhead");
    let flags = [
        OsString::from(format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH)),
        // BTF is made from debug information.
        OsString::from("-Cdebuginfo=2"),
        OsString::from("-Clink-arg=--btf"),
        linker_flag,
        remap,
        registry_remap()?,
    ];
    Ok(flags.join(&OsString::from("\x1f")))
}

fn registry_remap() -> Result<OsString> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?)
            .join(".cargo"),
    };
    let mut remap = OsString::from("--remap-path-prefix=");
    remap.push(home.join("registry/src"));
    remap.push("=registry");
    Ok(remap)
}
