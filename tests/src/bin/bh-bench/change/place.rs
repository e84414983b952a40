//! Where it is measured: a controller, an agent, two virtual clusters and others, and a prober.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_tests::sandbox::{Host, Sandbox};

use super::Size;
use super::prober::{Verdict, now};
use super::stages::{self, Span};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Addresses of the two virtual clusters that are measured.
pub(super) const ADDRESSES_OF_THE_TWO: u32 = 4;
/// Of the one that is sent to. Nobody has it: what arrives there is of no interest.
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// First of the others' addresses.
const OTHERS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 0);

/// The virtual cluster that the prober is in; its name ends in the name of its file.
const PROBER: &str = "prober";

/// Everything that is needed.
pub(super) struct Place {
    // Dropped in this order: processes end before their cgroups and namespaces go.
    _prober: Process,
    verdicts: Receiver<Verdict>,
    agent: Process,
    controller: Process,
    _sandbox: Sandbox,
    home: Home,
    /// Whether datagrams are denied now.
    denied: bool,
    /// When each change was.
    spans: Vec<Span>,
}

impl Place {
    /// Makes it, and returns when the prober is denied.
    pub(super) fn new(programs: &Path, dir: &Path, size: Size) -> Result<Self> {
        let programs = std::path::absolute(programs)?;
        let home = Home::create(dir)?;
        home.write_objects(size)?;
        let sandbox = Sandbox::new(1)?;
        let controller = Process::start("bulkhead-controller", &home, |command| {
            command.arg(programs.join("bulkhead-controller"));
            command.arg("--config").arg(home.objects());
            command.arg("--data-dir").arg(home.0.join("controller"));
            command.arg("--agents-listen").arg(home.socket("agents"));
            command.arg("--operators-listen").arg(home.socket("operators"));
        })?;
        let agent = Process::start("bulkhead-agent", &home, |command| {
            command.arg(programs.join("bulkhead-agent"));
            command.arg("--cgroup-root").arg(sandbox.cgroups.root());
            command.arg("--bpffs").arg(sandbox.bpffs.path().join("bulkhead"));
            command.arg("--run-dir").arg(home.0.join("run"));
            command.args(["run", "--node", "bench", "--sample-interval", "1s", "--window", "5s"]);
            command.arg("--controller").arg(home.socket("agents"));
            command.arg("--state-dir").arg(home.0.join("agent"));
            command.arg("--bpf-object").arg(programs.join("bulkhead.bpf.o"));
        })?;
        let mut running = [agent, controller];
        until("the agent has made its cgroups", || {
            running.iter_mut().try_for_each(Process::check)?;
            Ok(sandbox.cgroups.root().join(PROBER).is_dir())
        })?;
        let [agent, controller] = running;
        let [host] = sandbox.network.hosts() else { bail!("the sandbox has other than one host") };
        host.ip(&format!("neigh add {TARGET} lladdr 02:00:00:00:00:09 dev eth0"))?;
        let (prober, verdicts) = prober(&sandbox.cgroups.leaf(PROBER)?, host)?;
        let mut place = Self {
            _prober: prober,
            verdicts,
            agent,
            controller,
            _sandbox: sandbox,
            home,
            denied: false,
            spans: Vec::new(),
        };
        while !place.denied {
            place.denied = place.verdict().context("wait until the prober is denied")?.denied;
        }
        // What the start still does is not measured.
        thread::sleep(Duration::from_secs(3));
        ensure!(place.verdicts.try_recv().is_err(), "the verdict changes by itself");
        Ok(place)
    }

    /// Where everything is that has a path.
    pub(super) fn home(&self) -> &Path {
        &self.home.0
    }

    /// Makes the other verdict right, and waits for it. Returns how long that took, and how long
    /// the prober's last datagram with the old verdict was before its first with the new.
    pub(super) fn change(&mut self) -> Result<(Duration, Duration)> {
        let (beside, path) = self.home.prepare_prober(self.denied)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let begun = now();
        fs::rename(&beside, &path).with_context(|| format!("replace {}", path.display()))?;
        let verdict = self.verdict()?;
        self.agent.check()?;
        self.controller.check()?;
        ensure!(verdict.denied != self.denied, "the verdict has not changed");
        self.denied = verdict.denied;
        let at = Duration::from_nanos(verdict.at);
        let took = at.checked_sub(begun).context("the verdict changed before the file")?;
        self.spans.push(Span { begun: since_epoch, judged: since_epoch + took });
        Ok((took, at.saturating_sub(Duration::from_nanos(verdict.before))))
    }

    /// Where the time of the changes went.
    pub(super) fn stages(&self) -> Result<String> {
        let log = |process: &Process| {
            let log = process.log.as_ref().context("it has no log")?;
            fs::read_to_string(log).with_context(|| format!("read {}", log.display()))
        };
        stages::told(&self.spans, &log(&self.controller)?, &log(&self.agent)?)
    }

    fn verdict(&self) -> Result<Verdict> {
        self.verdicts.recv_timeout(PATIENCE).context("the prober says nothing")
    }
}

fn prober(cgroup: &Path, host: &Host) -> Result<(Process, Receiver<Verdict>)> {
    let to = SocketAddr::new(TARGET.into(), 9);
    let mut child = Command::new(env::current_exe().context("find this program")?)
        .arg("change-prober")
        .arg("--cgroup")
        .arg(cgroup)
        .arg("--netns")
        .arg(host.namespace())
        .args(["--to", &to.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the prober")?;
    let output = child.stdout.take().context("its output is a pipe")?;
    let (sender, verdicts) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(verdict) = serde_json::from_str(&line) else { return };
            if sender.send(verdict).is_err() {
                return;
            }
        }
    });
    Ok((Process { name: "the prober", child, log: None }, verdicts))
}

/// A program that goes on until it is killed; dropped, it is.
struct Process {
    name: &'static str,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts a program that ends with this process.
    fn start(name: &'static str, home: &Home, told: impl FnOnce(&mut Command)) -> Result<Self> {
        let log = home.0.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        told(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} through setpriv (Debian: util-linux)"))?;
        Ok(Self { name, child, log: Some(log) })
    }

    fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let said = self.log.as_ref().and_then(|log| fs::read_to_string(log).ok());
        bail!("{} ended with {status}:\n{}", self.name, said.unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A directory of ours; dropped, it is gone.
struct Home(PathBuf);

impl Home {
    fn create(dir: &Path) -> Result<Self> {
        let path = std::path::absolute(dir)?.join(format!("change-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.0.join(name).display())
    }

    fn write_objects(&self, size: Size) -> Result<()> {
        let objects = self.objects();
        fs::create_dir(&objects).with_context(|| format!("make {}", objects.display()))?;
        let config = "apiVersion: bulkhead.dev/v1alpha1\nkind: BulkheadConfig\n\
                      metadata: {name: bulkhead}\nspec: {clusterRanges: [\"10.64.0.0/10\"]}\n";
        write(&objects.join("bulkhead.yaml"), config)?;
        let next = |from: Ipv4Addr, n| Ipv4Addr::from(u32::from(from) + n);
        let target: Vec<_> = (0..ADDRESSES_OF_THE_TWO - 1).map(|n| next(TARGET, n)).collect();
        write(&objects.join("target.yaml"), &object("target", &target, None))?;
        for other in 0..size.others {
            let first = next(OTHERS, other * size.addresses);
            let addresses: Vec<_> = (0..size.addresses).map(|n| next(first, n)).collect();
            let name = format!("other-{other:03}");
            write(&objects.join(format!("{name}.yaml")), &object(&name, &addresses, None))?;
        }
        let (beside, path) = self.prepare_prober(false)?;
        fs::rename(&beside, &path).with_context(|| format!("replace {}", path.display()))
    }

    /// Writes the prober's object beside its place; returns both paths.
    fn prepare_prober(&self, allowed: bool) -> Result<(PathBuf, PathBuf)> {
        let allow = allowed.then_some("target");
        let beside = self.0.join("prober.new");
        write(&beside, &object(PROBER, &[Ipv4Addr::new(10, 77, 0, 1)], allow))?;
        Ok((beside, self.objects().join("prober.yaml")))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("left behind: {}: {error}", self.0.display());
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A virtual cluster that enforces.
fn object(name: &str, addresses: &[Ipv4Addr], allow: Option<&str>) -> String {
    let mut text = format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: VirtualCluster\nmetadata: {{name: {name}}}\n\
         spec:\n  network:\n    mode: Enforce\n"
    );
    if let Some(allowed) = allow {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    allow: [{{virtualCluster: {allowed}}}]");
    }
    text.push_str("  members:\n    addresses:\n");
    for address in addresses {
        let _ = writeln!(text, "    - {address}");
    }
    text
}
