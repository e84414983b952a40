//! The lab's Kubernetes as verbs of the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Cluster, Options, keeper};
use crate::progress;
use crate::setup::{self, Group};

/// How long a node may take to be back after a reboot.
const REBOOT: Duration = Duration::from_mins(6);

#[derive(clap::Subcommand)]
pub(in crate::lab) enum Verb {
    /// Start a Kubernetes of two nodes, and leave it running.
    Up {
        /// How many nodes, one or two.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
        nodes: u8,
        /// Memory of each node, in MiB.
        #[arg(long, default_value_t = Options::MEMORY_MIB)]
        memory: u32,
        #[command(flatten)]
        place: Place,
    },
    /// What runs: processes, nodes, pods.
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// End the Kubernetes and remove all of its files.
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Run a command on a node, or a shell.
    Ssh {
        #[command(flatten)]
        place: Place,
        /// node-1 or node-2.
        node: String,
        /// The command and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// kubectl with administrators' rights.
    Kubectl {
        #[command(flatten)]
        place: Place,
        /// What kubectl is given.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Copy a file to a node.
    Copy {
        #[command(flatten)]
        place: Place,
        /// node-1 or node-2.
        node: String,
        /// The file here.
        from: PathBuf,
        /// Its path there.
        to: String,
    },
    /// Bring container images (an archive as `docker save` writes it) to every node.
    Load {
        #[command(flatten)]
        place: Place,
        /// The archive.
        archive: PathBuf,
    },
    /// Reboot a node and wait until it is Ready again.
    Reboot {
        #[command(flatten)]
        place: Place,
        /// node-1 or node-2.
        node: String,
    },
    /// End a process (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, node-2).
    Stop {
        #[command(flatten)]
        place: Place,
        /// Which.
        process: String,
    },
    /// Start a stopped process again; a node then begins from its image.
    Start {
        #[command(flatten)]
        place: Place,
        /// Which.
        process: String,
    },
    /// See whether pods of different nodes reach each other, Services and names.
    Check {
        #[command(flatten)]
        place: Place,
    },
    /// What a running Kubernetes hangs on; started by `up`.
    #[command(hide = true)]
    Keep {
        /// The cluster's directory.
        dir: PathBuf,
    },
}

/// Which cluster.
#[derive(clap::Args)]
pub(in crate::lab) struct Place {
    /// The cluster's directory; target/lab/kubernetes when not given.
    #[arg(long, env = "BULKHEAD_LAB_DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> Result<PathBuf> {
        self.dir.as_ref().map_or_else(
            || Ok(Options::default_dir()),
            |dir| std::path::absolute(dir).with_context(|| format!("{} is no path", dir.display())),
        )
    }

    fn cluster(&self) -> Result<Cluster> {
        Cluster::running(&self.dir()?)
    }
}

/// Runs the verb.
pub(in crate::lab) fn run(verb: &Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up { nodes, memory, place } => up(*nodes, *memory, place)?,
        Verb::Status { place } => status(&place.cluster()?)?,
        Verb::Down { place } => Cluster::down(&place.dir()?)?,
        Verb::Ssh { place, node, command } => {
            return Ok(place.cluster()?.node(node)?.show(command)?.into());
        }
        Verb::Kubectl { place, args } => {
            return place.cluster()?.kubectl_command().args(args).show().map(|()| 0.into());
        }
        Verb::Copy { place, node, from, to } => place.cluster()?.node(node)?.copy(from, to)?,
        Verb::Load { place, archive } => place.cluster()?.load(archive)?,
        Verb::Reboot { place, node } => reboot(&place.cluster()?, node)?,
        Verb::Stop { place, process } => place.cluster()?.stop(process)?,
        Verb::Start { place, process } => place.cluster()?.resume(process)?,
        Verb::Check { place } => place.cluster()?.check()?,
        Verb::Keep { dir } => keeper::keep(dir)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(nodes: u8, memory_mib: u32, place: &Place) -> Result<()> {
    setup::ensure(&[Group::Lab, Group::Kubernetes], false)?;
    let began = Instant::now();
    let dir = place.dir()?;
    let cluster = Cluster::up(&Options { dir, nodes, memory_mib, outlive: true })?;
    eprintln!("Kubernetes is up after {:.0} s", began.elapsed().as_secs_f64());
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn status(cluster: &Cluster) -> Result<()> {
    println!("PROCESS                  PID");
    for (name, pid) in keeper::running(&cluster.dir)? {
        println!("{name:<24} {pid}");
    }
    for node in cluster.nodes() {
        let up = node.run(&["uptime", "-p"]).map_or_else(
            |error| format!("does not answer: {error:#}"),
            |said| said.trim().to_owned(),
        );
        println!("\n{} {} {up}", node.name(), node.address());
    }
    println!("\n{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
    println!("{}", cluster.kubectl(&["get", "pods", "-A", "-o", "wide"])?);
    Ok(())
}

fn reboot(cluster: &Cluster, name: &str) -> Result<()> {
    let node = cluster.node(name)?;
    let before = node.boot_id()?;
    progress::during(format!("Rebooting {name}"), |_| {
        node.reboot()?;
        cluster.wait(&format!("{name} to boot"), REBOOT, || Ok(node.boot_id()? != before))?;
        // Its old condition may stand for a while: what counts is what the new kubelet says.
        let path = "jsonpath={.status.nodeInfo.bootID}";
        let after = node.boot_id()?;
        cluster.wait(&format!("the kubelet of {name}"), REBOOT, || {
            Ok(cluster.kubectl(&["get", "node", name, "-o", path])? == after)
        })?;
        cluster.wait_nodes_ready(cluster.nodes().len())
    })
}
