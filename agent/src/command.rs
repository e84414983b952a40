//! What each subcommand does: thin shells around the library.

mod ask;
mod kubernetes;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bulkhead_abi::programs;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

pub use ask::{plan, status};
pub use run::run;

use crate::admin;
use crate::args::{DetachArgs, ExecArgs, Places, ProbeArgs};
use crate::kernel::bpf;
use crate::kernel::bpf::usage::{Ability, Field};
use crate::kernel::cgroup::CgroupTree;
use crate::kernel::delegate::Root;
use crate::kernel::exec::{self, ExecError, ExecOptions};
use crate::kernel::probe::features::{self, Feature};
use crate::kernel::probe::{ControlSupport, Files, Probe};

/// Starts a process inside a virtual cluster and gives its exit status.
pub fn exec(places: &Places, args: ExecArgs) -> Result<ExitCode> {
    let probe = Probe::read(&Files::host()).context("find out what this node is")?;
    let root = Root::choose(&probe, places.cgroup_root.as_deref())?;
    let tree = CgroupTree::open(root.path()).context(
        "open the root of the virtual clusters' cgroups; is the agent of this node running?",
    )?;
    // Inside, a process could talk with everybody while nothing is attached.
    let links = places.bpffs.join(format!("v{}", bulkhead_abi::ABI_VERSION)).join("links");
    anyhow::ensure!(
        programs::ALL.iter().all(|program| links.join(program).exists()),
        "nothing is enforced on this node: there are no links in {}; start its agent",
        links.display()
    );
    let started = exec::run(&ExecOptions {
        tree: &tree,
        virtual_cluster: args.virtual_cluster,
        command: args.command,
    });
    match started {
        Ok(exit) => Ok(ExitCode::from(exit.shell_code())),
        // As a shell gives it: 127 not found, 126 not executable.
        Err(error @ ExecError::Execute { errno, .. }) => {
            eprintln!("bulkhead-agent: {:#}", anyhow::Error::new(error));
            Ok(ExitCode::from(if errno == Errno::ENOENT { 127 } else { 126 }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says what this node is and what it can enforce.
pub fn probe(places: &Places, args: ProbeArgs) -> Result<ExitCode> {
    let probe = Probe::read(&Files::host()).context("find out what this node is")?;
    let root = Root::choose(&probe, places.cgroup_root.as_deref());
    // Where no agent has run yet there is no root, and what the mount says has to do.
    let files = root.ok().and_then(|root| CgroupTree::open(root.path()).ok());
    let files = files.and_then(|tree| tree.control_files().ok());
    let controls = probe.controls(files.as_ref());
    let mount = probe.cgroup2.as_ref().map(|mount| mount.mount_point.as_path());
    let tried = args.features.then(|| features::all(mount));
    let text = if args.output.json {
        probe_json(&probe, &controls, tried.as_deref())?
    } else {
        probe_text(&probe, &controls, tried.as_deref().unwrap_or_default())
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn probe_text(probe: &Probe, controls: &[ControlSupport], features: &[Feature]) -> String {
    let line = |support: &ControlSupport| match &support.result {
        Ok(()) => format!("{:<24} yes\n", support.control.file()),
        Err(reason) => format!("{:<24} no: {reason}\n", support.control.file()),
    };
    let controls: String = controls.iter().map(line).collect();
    let line = |feature: &Feature| format!("{:<42} {}\n", feature.name, feature.answer);
    let features: String = features.iter().map(line).collect();
    let line = |(files, how): (&str, String)| format!("{files:<32} {how}\n");
    let usage: String = usage_sources().into_iter().map(line).collect();
    format!("{probe}\n{controls}\n{usage}\n{features}").trim_end().to_owned() + "\n"
}

/// How a usage pass learns what each file says: from the cgroup iterator, or from the file for a
/// reason.
fn usage_sources() -> Vec<(&'static str, String)> {
    let ability = Ability::of_this_kernel();
    let source = |field: Field| match &ability {
        Err(why) => format!("from files: {why}"),
        Ok(ability) => {
            let missing = ability.missing().iter().find(|(missing, _)| *missing == field);
            missing.map_or_else(
                || "from the cgroup iterator".to_owned(),
                |(_, why)| format!("from files: {why}"),
            )
        }
    };
    let told = Field::ALL.into_iter().map(|field| (field.files(), source(field)));
    let never = "from files: the kernel makes it when it is read";
    told.chain([("io.stat, cpu.pressure", never.to_owned())]).collect()
}

fn probe_json(
    probe: &Probe,
    controls: &[ControlSupport],
    features: Option<&[Feature]>,
) -> Result<String> {
    let feature = |feature: &Feature| {
        serde_json::json!({
            "group": feature.group,
            "name": feature.name,
            "used": feature.used,
            "fallback": feature.fallback,
            "answer": feature.answer.word(),
            "why": feature.answer.why(),
        })
    };
    let control = |support: &ControlSupport| {
        serde_json::json!({
            "control": support.control.file(),
            "supported": support.result.is_ok(),
            "reason": support.result.as_ref().err(),
        })
    };
    let bound: &BTreeSet<String> = &probe.controllers.bound_to_v1;
    let value = serde_json::json!({
        "kernel_release": probe.kernel_release,
        "boot_id": probe.boot_id,
        "online_cpus": probe.online_cpus,
        "memory_bytes": probe.memory_bytes,
        "swap_bytes": probe.swap_bytes,
        "pid_max": probe.pid_max,
        "cgroup2_mount": probe.cgroup2.as_ref().map(|mount| &mount.mount_point),
        "controllers": probe.controllers.available,
        "controllers_bound_to_v1": bound,
        "systemd": probe.systemd,
        "security_modules": probe.security_modules,
        "btf": probe.btf,
        "pressure": probe.pressure,
        "controls": controls.iter().map(control).collect::<Vec<_>>(),
        "usage": usage_sources().into_iter().collect::<BTreeMap<_, _>>(),
        "features": features.map(|all| all.iter().map(feature).collect::<Vec<_>>()),
    });
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Takes everything of ours off this node's kernel.
pub fn detach(places: &Places, args: DetachArgs) -> Result<ExitCode> {
    let socket = places.run_dir.join(admin::SOCKET);
    anyhow::ensure!(
        UnixStream::connect(&socket).is_err(),
        "an agent answers at {}, and would attach everything again; stop it first",
        socket.display()
    );
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    if args.hold {
        // They wait for us from here on, also where we are PID 1, which has no default for them.
        ends.thread_block().context("block SIGTERM and SIGINT")?;
    }
    let done = bpf::detach(&places.bpffs).context("take programs and tables off")?;
    let off = [("link", &done.links), ("map", &done.maps), ("directory", &done.directories)];
    let off = off.into_iter().flat_map(|(what, paths)| paths.iter().map(move |path| (what, path)));
    let off = off.map(|(what, path)| format!("{what} {} is off\n", path.display()));
    let left = done.leftovers.iter();
    let left = left.map(|(path, why)| format!("{} is still there: {why}\n", path.display()));
    let mut text: String = off.chain(left).collect();
    if text.is_empty() {
        text = format!("nothing of ours is pinned in {}\n", places.bpffs.display());
    }
    print(&text)?;
    if args.cgroups {
        print(&remove_cgroups(places)?)?;
    }
    if !done.leftovers.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if args.hold {
        ends.wait().context("wait for SIGTERM or SIGINT")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove_cgroups(places: &Places) -> Result<String> {
    let probe = Probe::read(&Files::host()).context("find out what this node is")?;
    let root = Root::choose(&probe, places.cgroup_root.as_deref())?;
    let removed =
        root.unmake().context("remove the virtual clusters' cgroups; end their processes first")?;
    let path = root.path().display();
    Ok(if removed { format!("cgroup {path} is off\n") } else { String::new() })
}

/// To standard output; whoever reads it may have seen enough.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}
