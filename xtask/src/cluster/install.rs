//! Bulkhead on a cluster, by its manifests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::pods::{self, Pod};
use crate::build_ebpf;
use crate::command::Cmd;
use crate::demo::artifacts::Artifacts;
use crate::demo::programs;
use crate::dist::archive::Entry;
use crate::dist::image::{Image, User};
use crate::lab::kubernetes::Cluster;
use crate::lab::libraries;
use crate::paths;
use crate::progress;
use crate::test::faults::Extent;

/// Namespace of our own programs.
pub(super) const OURS: &str = "bulkhead-system";

/// Names of the two virtual clusters, and of their namespaces.
pub(super) const TEAMS: [&str; 2] = ["team-a", "team-b"];

/// A namespace of no virtual cluster.
pub(super) const PLAIN: &str = "plain";

/// How long our programs may take to be ready.
const PATIENCE: Duration = Duration::from_mins(4);

const NAMESPACES: &str = include_str!("namespaces.yaml");
const OBJECTS: &str = include_str!("objects.yaml");
const WORKLOAD: &str = include_str!("workload.yaml");
const QUIET: &str = include_str!("quiet.yaml");

/// A cluster with everything on it.
pub(super) struct Installed<'a> {
    pub(super) cluster: &'a Cluster,
    /// The operators' command, on this machine.
    ctl: PathBuf,
    /// How much of each check.
    pub(super) extent: Extent,
}

impl<'a> Installed<'a> {
    /// Brings images, manifests, two virtual clusters and their pods.
    pub(super) fn on(
        cluster: &'a Cluster,
        artifacts: &Artifacts,
        dir: &Path,
        extent: Extent,
    ) -> Result<Self> {
        progress::during("Making and loading images", |_| {
            for image in images(artifacts, dir)? {
                cluster.load(&image)?;
            }
            Ok(())
        })?;
        progress::during("Pods that run before anything is installed", |_| {
            cluster.apply(NAMESPACES)?;
            for namespace in TEAMS.iter().chain([&PLAIN]) {
                cluster.apply(&WORKLOAD.replace("NAMESPACE", namespace))?;
            }
            cluster.apply(&QUIET.replace("NAMESPACE", TEAMS[1]))?;
            for namespace in TEAMS.iter().chain([&PLAIN]) {
                cluster.wait_pods_ready(namespace, "app=web", cluster.nodes().len())?;
            }
            cluster.wait_pods_ready(TEAMS[1], "app=quiet", cluster.nodes().len())
        })?;
        progress::during("Installing by the manifests", |_| {
            let overlay = paths::root().join("deploy/overlays/ephemeral");
            let overlay = overlay.to_string_lossy();
            // Objects of a kind can only be sent once the API server serves the kind.
            cluster.wait("the manifests to be taken", PATIENCE, || {
                cluster.kubectl(&["apply", "--validate=false", "-k", &overlay]).map(|_| true)
            })?;
            cluster
                .wait("our objects to be taken", PATIENCE, || cluster.apply(OBJECTS).map(|()| true))
        })?;
        Ok(Self { cluster, ctl: program(artifacts, "bulkheadctl")?.to_owned(), extent })
    }

    /// The pods of a team, or of nobody, in which a server answers, by node.
    pub(super) fn web(&self, namespace: &str) -> Result<Vec<Pod>> {
        pods::find(self.cluster, namespace, "app=web")
    }

    /// Those that nobody's probes talk with.
    pub(super) fn quiet(&self, namespace: &str) -> Result<Vec<Pod>> {
        pods::find(self.cluster, namespace, "app=quiet")
    }

    /// A field of an object, by jsonpath.
    pub(super) fn field(&self, object: &[&str], path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        self.cluster.kubectl(&[&["get"], object, &["-o", &path]].concat())
    }

    /// Waits until a virtual cluster's condition is as given.
    pub(super) fn wait_condition(&self, name: &str, kind: &str, status: &str) -> Result<()> {
        let path = format!("{{.status.conditions[?(@.type==\"{kind}\")].status}}");
        let what = format!("{name} to be {kind}={status}");
        self.cluster.wait(&what, PATIENCE, || {
            let now = self.field(&["virtualcluster", name], &path)?;
            if now == status {
                return Ok(true);
            }
            anyhow::bail!("it is {now:?}")
        })
    }

    /// Runs `bulkheadctl` as an administrator of the cluster would, over the API server's
    /// forwarded port and with a token minted by it.
    pub(super) fn ctl(&self, args: &[&str]) -> Result<String> {
        self.ctl_command(args).read()
    }

    fn ctl_command(&self, args: &[&str]) -> Cmd {
        Cmd::new(&self.ctl, "ask as operators do")
            .args(["--kubernetes", "--timeout", "2m"])
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig())
    }

    /// `preflight`, which ends with a status of its own where something will not be enforced.
    pub(super) fn preflight(&self) -> Result<Value> {
        let command = self.ctl_command(&["preflight", "--output", "json"]);
        let output = command.into_command().output().context("run bulkheadctl preflight")?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1)), "preflight: {told}");
        serde_json::from_slice(&output.stdout).context("preflight's answer is no JSON")
    }

    /// The same, and its answer as JSON.
    pub(super) fn ctl_json(&self, args: &[&str]) -> Result<Value> {
        let said = self.ctl(&[args, &["--output", "json"]].concat())?;
        serde_json::from_str(&said).with_context(|| format!("{args:?} is no JSON: {said:?}"))
    }

    /// The agents' pods, by node.
    pub(super) fn agents(&self) -> Result<Vec<Pod>> {
        pods::find(self.cluster, OURS, "app.kubernetes.io/name=bulkhead-agent")
    }

    /// How many pods each agent has registered of each virtual cluster, as it says itself, by node.
    pub(super) fn registered(&self) -> Result<Vec<BTreeMap<String, usize>>> {
        let said = |agent: Pod| {
            let status = ["/usr/bin/bulkhead-agent", "status", "--json"];
            let status: Value = serde_json::from_str(&agent.exec(self.cluster, &status)?)
                .with_context(|| format!("the status that {agent} tells is no JSON"))?;
            let all = status["pods"]["registered"].as_array();
            let all = all.with_context(|| format!("{agent} tells of no pods: {status}"))?;
            let one = |one: &Value| {
                let name = one["virtual_cluster"].as_str()?.to_owned();
                Some((name, usize::try_from(one["pods"].as_u64()?).ok()?))
            };
            Ok(all.iter().filter_map(one).collect())
        };
        self.agents()?.into_iter().map(said).collect()
    }

    /// Keeps what our programs said, for whoever looks for the cause of a failure.
    pub(super) fn keep_logs(&self, dir: &Path) {
        for selector in ["bulkhead-agent", "bulkhead-controller"] {
            let label = format!("app.kubernetes.io/name={selector}");
            let args = ["logs", "-n", OURS, "-l", &label, "--tail=-1", "--prefix"];
            let text = self.cluster.kubectl(&args).unwrap_or_else(|error| format!("{error:#}"));
            // There is nothing better to do with an error here.
            let _ = fs::write(dir.join(format!("{selector}.log")), text);
        }
    }
}

fn program<'a>(artifacts: &'a Artifacts, name: &str) -> Result<&'a Path> {
    let path = artifacts.programs.get(name);
    path.map(PathBuf::as_path).with_context(|| format!("cargo has not built {name}"))
}

/// Images of the programs as they were built for tests: linked with this machine's libraries,
/// which they bring along.
fn images(artifacts: &Artifacts, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for (name, user) in [("agent", User::Root), ("controller", User::Number(65_532))] {
        let payload = dir.join(format!("image-{name}"));
        if payload.exists() {
            fs::remove_dir_all(&payload).with_context(|| format!("clear {}", payload.display()))?;
        }
        fs::create_dir_all(&payload).with_context(|| format!("create {}", payload.display()))?;
        let program_name = format!("bulkhead-{name}");
        let stripped = payload.join(&program_name);
        programs::install(program(artifacts, &program_name)?, &stripped)?;
        let mut entries = vec![
            Entry::program(&stripped, &format!("usr/bin/{program_name}"))?,
            Entry::text(b"hosts: files dns\n", "etc/nsswitch.conf"),
        ];
        for (to, from) in libraries::of(&payload, &stripped)? {
            entries.push(Entry::program(&from, &to.to_string_lossy())?);
        }
        if name == "agent" {
            let object = build_ebpf::object_path();
            entries.push(Entry::file(&object, "usr/lib/bulkhead/bulkhead.bpf.o")?);
        }
        let image = Image {
            reference: format!("localhost/bulkhead/{name}:{}", env!("CARGO_PKG_VERSION")),
            entrypoint: vec![format!("/usr/bin/{program_name}")],
            user,
            entries,
        };
        let path = dir.join(format!("{program_name}.oci.tar"));
        image.write(&path)?;
        made.push(path);
    }
    Ok(made)
}
