//! `cargo xtask lint`: everything that can be said about the tree without running it.
//!
//! Every check runs, also after one has failed, so that one round shows all there is to mend.

mod deploy;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::codegen;
use crate::command::Cmd;
use crate::paths;
use crate::setup::{self, Group};

/// The gRPC contract as it was last published; what it has, newer versions must keep.
///
/// A committed image and not a git revision: a shallow or a fresh clone has none to compare with.
const BASELINE: &str = "proto/baseline.txtpb";

/// The fuzz targets, a workspace of their own.
const FUZZ: &str = "tests/fuzz/Cargo.toml";

/// Seconds that fetching the database of advisories may take.
const FETCH_SECONDS: &str = "60";

/// Options of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take today's gRPC contract as published: from now on it must be kept. For a release.
    #[arg(long)]
    publish_contract: bool,
    /// Do not ask before adding a missing tool to this machine.
    #[arg(long, short)]
    yes: bool,
}

/// How a check went.
enum Verdict {
    Passed,
    /// It could not be made here, for this reason; told, never silent.
    LeftOut(String),
}

type Check = (&'static str, fn() -> Result<Verdict>);

const CHECKS: &[Check] = &[
    ("formatting", formatting),
    ("formatting of the kernel programs", formatting_of_ebpf),
    ("formatting of the fuzz targets", formatting_of_fuzz),
    ("gRPC contract: style", contract_style),
    ("gRPC contract: nothing published is broken", contract_kept),
    ("licences, banned crates, sources", crates),
    ("security advisories", advisories),
    ("generated files are current", generated),
    ("manifests: the chart says the same", deploy::chart),
    ("manifests: overlays, by kubectl", deploy::overlays),
    ("manifests: as Kubernetes' schemas have them", deploy::schemas),
    ("manifests: what admission policies decide", deploy::admission),
    ("clippy", clippy),
];

/// Runs the verb.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Group::Lint], args.yes)?;
    if args.publish_contract {
        return buf("take the gRPC contract as published")?
            .args(["build", "proto", "--exclude-source-info", "--output", BASELINE])
            .show();
    }
    let (mut failed, mut left_out) = (Vec::new(), 0);
    for (name, check) in CHECKS {
        let began = Instant::now();
        let verdict = check();
        let seconds = began.elapsed().as_secs_f64();
        match verdict {
            Ok(Verdict::Passed) => println!("ok        {name} ({seconds:.1} s)"),
            Ok(Verdict::LeftOut(reason)) => {
                println!("left out  {name}: {reason}");
                left_out += 1;
            }
            Err(error) => {
                println!("FAILED    {name} ({seconds:.1} s)\n    {error:#}");
                failed.push(*name);
            }
        }
    }
    if left_out > 0 {
        println!("{left_out} of {} checks left out", CHECKS.len());
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} of {} checks failed: {}", failed.len(), CHECKS.len(), failed.join("; "))
}

fn formatting() -> Result<Verdict> {
    passed(cargo("check formatting").args(["fmt", "--all", "--check"]))
}

fn formatting_of_ebpf() -> Result<Verdict> {
    // Not --all: that would follow the shared layouts into the whole other workspace.
    let only = ["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"];
    passed(cargo("check formatting").args(only))
}

fn formatting_of_fuzz() -> Result<Verdict> {
    passed(cargo("check formatting").args(["fmt", "--check", "--manifest-path", FUZZ]))
}

fn contract_style() -> Result<Verdict> {
    passed(buf("check the style of the gRPC contract")?.args(["lint", "proto"]))
}

fn contract_kept() -> Result<Verdict> {
    if !paths::root().join(BASELINE).is_file() {
        bail!("{BASELINE} is missing: restore it from git (a release writes it anew)");
    }
    let why = "compare the gRPC contract with the published one";
    passed(buf(why)?.args(["breaking", "proto", "--against", BASELINE]))
}

fn crates() -> Result<Verdict> {
    let checks = ["check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    for manifest in ["Cargo.toml", "ebpf/Cargo.toml", FUZZ] {
        deny(manifest)?.args(checks).show()?;
    }
    Ok(Verdict::Passed)
}

fn advisories() -> Result<Verdict> {
    let fetch = deny("Cargo.toml")?.args(["fetch", "db"]);
    if let Err(error) = fetch.within(FETCH_SECONDS)?.read() {
        let error = error.to_string();
        let reason = error.trim_end().lines().last().unwrap_or_default().trim();
        return Ok(Verdict::LeftOut(format!("their database cannot be fetched here ({reason})")));
    }
    for manifest in ["Cargo.toml", "ebpf/Cargo.toml", FUZZ] {
        deny(manifest)?.args(["check", "--disable-fetch", "advisories"]).show()?;
    }
    Ok(Verdict::Passed)
}

fn generated() -> Result<Verdict> {
    codegen::run(&codegen::Args::CHECK).map(|()| Verdict::Passed)
}

fn clippy() -> Result<Verdict> {
    let all = ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--locked"];
    passed(cargo("find mistakes").args(all).args(["--", "--deny", "warnings"]))
}

fn passed(cmd: Cmd) -> Result<Verdict> {
    cmd.show().map(|()| Verdict::Passed)
}

fn cargo(why: &str) -> Cmd {
    Cmd::new("cargo", why)
}

fn buf(why: &str) -> Result<Cmd> {
    Cmd::tool("buf", why)
}

fn deny(manifest: &str) -> Result<Cmd> {
    let why = format!("check the crates of {manifest}");
    let deny = Cmd::tool("cargo-deny", why)?.args(["--manifest-path", manifest]);
    let config = Path::new("deny.toml");
    let whole = ["--workspace", "--all-features", "--log-level", "error", "--config"];
    Ok(deny.args(whole).arg(paths::root().join(config)))
}
