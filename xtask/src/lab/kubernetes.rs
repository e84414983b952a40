//! A whole Kubernetes, thrown away after use: the control plane in processes of this machine,
//! two nodes in virtual machines.
//!
//! All files of one cluster are below its directory, all processes are children of one keeper
//! (see `keeper`); the machine's own network, mounts and cgroups are left alone.

mod build;
mod certificates;
mod check;
mod control_plane;
mod image;
mod keeper;
mod node;
mod verbs;

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::command::Cmd;
use crate::paths;
use crate::progress;
use build::Programs;
use certificates::Certificates;
use control_plane::Ports;
use image::NodeImage;
pub(crate) use node::Node;
pub(super) use verbs::{Verb, run};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(500);

/// How long nodes and pods of the cluster's own may take; emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(8);

/// Memory that the control plane takes, and that this machine keeps, in MiB.
const MEMORY_BESIDE_NODES_MIB: u64 = 2048;

const RESOLVER: &str = include_str!("kubernetes/node/resolver.yaml");

/// Directory of the programs of this Kubernetes; builds them where they are not there yet.
pub(crate) fn programs() -> Result<PathBuf> {
    Ok(Programs::get()?.dir().to_owned())
}

/// What kind of cluster.
pub(crate) struct Options {
    /// Where its files are, an absolute path; nothing may be there yet.
    pub(crate) dir: PathBuf,
    /// One or two.
    pub(crate) nodes: u8,
    /// Memory of each node, in MiB.
    pub(crate) memory_mib: u32,
    /// Whether it goes on when this process ends.
    pub(crate) outlive: bool,
}

impl Options {
    /// Enough for a hundred small pods on each node.
    pub(crate) const MEMORY_MIB: u32 = 3072;

    /// The usual place.
    pub(crate) fn default_dir() -> PathBuf {
        let dir = paths::target().join("lab/kubernetes");
        std::path::absolute(&dir).unwrap_or(dir)
    }
}

/// A cluster that runs; one that does not outlive this process goes down when this is dropped.
pub(crate) struct Cluster {
    dir: PathBuf,
    programs: PathBuf,
    nodes: Vec<Node>,
    outlive: bool,
}

impl Cluster {
    /// Starts one, and returns when its nodes are ready and its resolver answers.
    pub(crate) fn up(options: &Options) -> Result<Self> {
        let dir = &options.dir;
        if keeper::alive(dir)? {
            bail!("a cluster runs in {}: `cargo xtask lab down` first", dir.display());
        }
        ensure!((1..=2).contains(&options.nodes), "a cluster has one node or two");
        let programs = Programs::get()?;
        let image = NodeImage::get(&programs)?;
        let count = nodes_that_fit(options)?;
        clear(dir)?;
        let cluster = progress::during("Starting the cluster", |_| {
            let nodes = plan(options, count, &programs, &image)?;
            keeper::start(dir, options.outlive)?;
            let programs = programs.dir().to_owned();
            Ok(Self { dir: dir.clone(), programs, nodes, outlive: options.outlive })
        })?;
        cluster.settle()?;
        Ok(cluster)
    }

    /// The one that runs in `dir`.
    pub(crate) fn running(dir: &Path) -> Result<Self> {
        if !keeper::alive(dir)? {
            bail!("no cluster runs in {}: `cargo xtask lab up` starts one", dir.display());
        }
        let text = fs::read_to_string(dir.join("cluster")).context("read what cluster this is")?;
        let mut lines = text.lines();
        let programs = PathBuf::from(lines.next().context("the cluster's file is empty")?);
        let mut nodes = Vec::new();
        for (number, port) in (1..).zip(lines) {
            let port = port.parse().with_context(|| format!("port {port:?} of a node"))?;
            nodes.push(Node::new(dir, number, port));
        }
        Ok(Self { dir: dir.to_owned(), programs, nodes, outlive: true })
    }

    /// Ends everything and removes its files; also what a crashed one has left.
    pub(crate) fn down(dir: &Path) -> Result<()> {
        keeper::end(dir)?;
        clear(dir)?;
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", dir.display()))
            }
            _ => Ok(()),
        }
    }

    /// Its nodes, in order.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node `name`.
    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        let node = self.nodes.iter().find(|node| node.name() == name);
        node.with_context(|| format!("there is no node {name}; try node-1"))
    }

    /// Gives administrators' rights on it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("certificates/admin.kubeconfig")
    }

    /// kubectl of the cluster's own version, with administrators' rights.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_command().args(args).read()
    }

    /// What to run as kubectl.
    pub(crate) fn kubectl_command(&self) -> Cmd {
        Cmd::new(self.programs.join("kubectl"), "use the lab's cluster")
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.dir)
    }

    /// Applies objects written in YAML.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        let mut kubectl = self.kubectl_command().args(["apply", "-f", "-"]).into_command();
        kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = kubectl.spawn().context("start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        stdin.write_all(yaml.as_bytes()).context("write to kubectl")?;
        drop(stdin);
        let output = child.wait_with_output().context("wait for kubectl")?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Waits until `done` says true; after an error it is asked again, and the last one is told.
    pub(crate) fn wait(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let why = match done() {
                Ok(true) => return Ok(()),
                Ok(false) => String::new(),
                Err(error) => format!(": {error:#}"),
            };
            if began.elapsed() > patience {
                bail!("waited {patience:?} for {what}{why}; see {}", self.dir.display());
            }
            ensure!(keeper::alive(&self.dir)?, "the cluster ended while we waited for {what}");
            thread::sleep(POLL);
        }
    }

    /// Waits until `count` nodes are Ready.
    pub(crate) fn wait_nodes_ready(&self, count: usize) -> Result<()> {
        let path = "jsonpath={range .items[*]}\
                    {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        self.wait("all nodes to be Ready", PATIENCE, || {
            let said = self.kubectl(&["get", "nodes", "-o", path])?;
            Ok(said.lines().filter(|line| *line == "True").count() == count)
        })
    }

    /// Waits until there are `count` pods with these labels, and all of them are ready.
    pub(crate) fn wait_pods_ready(
        &self,
        namespace: &str,
        labels: &str,
        count: usize,
    ) -> Result<()> {
        let path = "jsonpath={range .items[*]}\
                    {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        let what = format!("{count} pods {labels} in {namespace} to be ready");
        self.wait(&what, PATIENCE, || {
            let said = self.kubectl(&["get", "pods", "-n", namespace, "-l", labels, "-o", path])?;
            let states: Vec<&str> = said.lines().collect();
            Ok(states.len() == count && states.iter().all(|state| *state == "True"))
        })
    }

    /// Loads container images into every node.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        thread::scope(|scope| {
            let loads: Vec<_> =
                self.nodes.iter().map(|node| scope.spawn(|| node.load(archive))).collect();
            loads.into_iter().try_for_each(|load| {
                load.join().map_err(|_| anyhow!("a thread that loads an image panicked"))?
            })
        })
    }

    /// Ends a process of the cluster (`kube-apiserver`, `etcd`, `node-2`) until `resume`.
    pub(crate) fn stop(&self, process: &str) -> Result<()> {
        keeper::stop(&self.dir, process)
    }

    /// Starts a stopped process; a node then begins from its image.
    pub(crate) fn resume(&self, process: &str) -> Result<()> {
        keeper::resume(&self.dir, process)
    }

    /// Whether it does what tests take for granted: pods reach pods, Services, names, tokens.
    pub(crate) fn check(&self) -> Result<()> {
        check::all(self)
    }

    /// From started processes to a cluster that can be used, each stage with its time.
    fn settle(&self) -> Result<()> {
        progress::during("Control plane", |_| {
            self.wait("the API server", PATIENCE, || {
                Ok(self.kubectl(&["get", "--raw", "/readyz"])? == "ok")
            })?;
            // It makes its own first objects a moment after it is ready.
            self.wait("the resolver's objects", PATIENCE, || self.apply(RESOLVER).map(|()| true))
        })?;
        progress::during("Nodes", |_| {
            // Not before kubelets have made them: this one panics over a Node without status.
            for node in &self.nodes {
                let name = node.name();
                let networks = format!(
                    "{{\"spec\":{{\"podCIDR\":\"{0}\",\"podCIDRs\":[\"{0}\"]}}}}",
                    node.pods()
                );
                self.wait(&format!("{name} to register"), PATIENCE, || {
                    self.kubectl(&["patch", "node", &name, "-p", &networks]).map(|_| true)
                })?;
            }
            self.wait_nodes_ready(self.nodes.len())
        })?;
        progress::during("Resolver", |_| {
            self.wait_pods_ready("kube-system", "k8s-app=kube-dns", self.nodes.len())
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.outlive {
            // Logs stay for whoever wants to know what went wrong; the next one clears them.
            let _ = keeper::end(&self.dir);
        }
    }
}

/// Makes everything that the keeper needs to start the cluster.
fn plan(options: &Options, count: u8, programs: &Programs, image: &NodeImage) -> Result<Vec<Node>> {
    let dir = &options.dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("create {}", dir.display()))?;
    let certificates = Certificates::create(&dir.join("certificates"))?;
    Cmd::tool("ssh-keygen", "make the key for the lab's nodes")?
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"])
        .arg(certificates.path("ssh"))
        .read()?;
    let ports = Ports::free()?;
    control_plane::plan(dir, programs, &certificates, &ports)?;
    let [egress_port, ssh_ports @ ..] = control_plane::free_ports::<3>()?;
    fs::write(dir.join("egress.port"), egress_port.to_string()).context("write egress.port")?;
    let nodes: Vec<Node> = (1..=count)
        .zip(ssh_ports)
        .map(|(number, ssh_port)| Node::new(dir, number, ssh_port))
        .collect();
    let server = format!("https://{}:{}", control_plane::HOST_ON_NODE, ports.api);
    certificates.client("kube-proxy", "/CN=system:kube-proxy", &server)?;
    let cluster = node::Plan {
        certificates: &certificates,
        image,
        nodes: &nodes,
        api_port: ports.api,
        egress_port,
        memory_mib: options.memory_mib,
    };
    for node in &nodes {
        node.plan(&cluster)?;
    }
    let mut text = format!("{}\n", programs.dir().display());
    for node in &nodes {
        let _ = writeln!(text, "{}", node.ssh_port());
    }
    fs::write(dir.join("cluster"), text).context("write what cluster this is")?;
    Ok(nodes)
}

/// As many nodes as asked, or one where this machine has no memory for two.
fn nodes_that_fit(options: &Options) -> Result<u8> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))
        .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
        .context("/proc/meminfo tells no MemAvailable")?
        / 1024;
    let needed =
        |nodes: u8| MEMORY_BESIDE_NODES_MIB + u64::from(nodes) * u64::from(options.memory_mib);
    if available >= needed(options.nodes) {
        return Ok(options.nodes);
    }
    if available < needed(1) {
        bail!("{available} MiB of memory are free, a cluster with one node needs {}", needed(1));
    }
    eprintln!(
        "  {available} MiB of memory are free, two nodes need {}: the cluster gets ONE node",
        needed(2)
    );
    Ok(1)
}

/// Removes what an ended cluster left, and only what such a one leaves.
fn clear(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let mark = dir.join("certificates");
    if !paths.is_empty() && !mark.is_dir() {
        bail!("{} holds something else than a cluster: name another place", dir.display());
    }
    // The mark goes last, so that a clearing that was cut short can be taken up again.
    paths.sort_by_key(|path| *path == mark);
    for path in paths {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_cluster_left_is_cleared() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("letter"), "dear").expect("written");
        let error = clear(dir.path()).expect_err("is no cluster's").to_string();
        assert!(error.contains("holds something else"), "{error}");
        fs::create_dir(dir.path().join("certificates")).expect("created");
        clear(dir.path()).expect("looks like a cluster's");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 0);
    }
}
