//! Where it is measured: two hosts on one wire, the processes at its ends, and the kernel's
//! state, which is switched from one variant to the next.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_tests::bench::empty::Empty;
use bulkhead_tests::bench::node::{Counted, FIRST, GREEN, Node, PREFIX_BITS};
use bulkhead_tests::sandbox::Host;

use super::end::{Order, Pattern, Said, WIRE};
use super::nft::{Hook, Set, Table};
use super::{ADDRESSES, Variant};

/// First port of the receiver that is in no virtual cluster.
const OUTSIDER: u16 = 9000;
/// First port of the receiver that is a member.
const MEMBER: u16 = 9010;

/// What is sent after each switch before anything is measured.
const WARM_UP: u32 = 5_000;

/// The ends' real-time priority.
const PRIORITY: &str = "10";

/// How long programs may go on after their links were unpinned.
const OFF_WITHIN: Duration = Duration::from_secs(5);

/// Two hosts on one wire.
pub(crate) struct Place {
    // Dropped in this order: processes end before their cgroups and namespaces go.
    sender: End,
    /// They live as long as this does.
    _receivers: [End; 2],
    /// At the output and the input.
    peers: Vec<(Set, [Table; 2])>,
    empty: Empty,
    attached: bool,
    addresses: u32,
    node: Node,
}

impl Place {
    /// Bulkhead and, on demand, its peers, with every address known.
    pub(crate) fn new(object: &Path, sets: &[Set]) -> Result<Self> {
        let node = Node::new(object, 2, ADDRESSES)?;
        let [near, far] = node.sandbox.network.hosts() else {
            bail!("the sandbox has other than two hosts");
        };
        connect(near, far)?;
        let group = node.sandbox.cgroups.root().join(GREEN);
        let member = (group.as_path(), node.sandbox.cgroups.virtual_cluster_level());
        let table = |host, hook, set| Table::load(host, (hook, set), member, ADDRESSES);
        let tables = |set: &Set| {
            let output = table(near, Hook::Output, *set)?;
            Ok((*set, [output, table(far, Hook::Input, *set)?]))
        };
        let peers = sets.iter().map(tables).collect::<Result<Vec<_>>>()?;
        let leaf = || node.sandbox.cgroups.leaf(GREEN);
        let receivers = [
            End::start(far, None, &["receive", "--port", &OUTSIDER.to_string()])?,
            End::start(far, Some(&leaf()?), &["receive", "--port", &MEMBER.to_string()])?,
        ];
        let ports = [OUTSIDER, MEMBER].map(|port| port.to_string());
        let send = ["send", "--port", &ports[0], "--port", &ports[1]];
        let sender = End::start(near, Some(&leaf()?), &send)?;
        let (empty, attached, addresses) = (Empty::load()?, false, ADDRESSES);
        Ok(Self { sender, _receivers: receivers, peers, empty, attached, addresses, node })
    }

    /// Makes only the first so many addresses known.
    pub(crate) fn know(&mut self, addresses: u32) -> Result<()> {
        self.addresses = addresses;
        self.node.know(addresses)
    }

    /// How long a program has run, and how often, as the kernel has it.
    pub(crate) fn ran(&mut self, program: Program) -> Result<(Duration, u64)> {
        let info = match program {
            Program::Empty => self.empty.egress()?.info()?,
            Program::Ours(name) => self.node.program(name)?,
        };
        Ok((info.run_time(), info.run_count()))
    }

    /// Sends packets while the kernel does what the variant says; nanoseconds a packet.
    pub(crate) fn send(&mut self, variant: Variant, pattern: Pattern, packets: u32) -> Result<f64> {
        self.switch(variant, pattern)?;
        let before = self.node.counted()?;
        let took = self.order(variant, pattern, packets)?;
        let counted = self.node.counted()?.since(before);
        let expected = expected(variant, packets);
        ensure!(counted == expected, "Bulkhead has counted {counted:?} instead of {expected:?}");
        Ok(took)
    }

    /// Puts the kernel into the variant's state, and sends a little.
    pub(crate) fn switch(&mut self, variant: Variant, pattern: Pattern) -> Result<()> {
        for (set, [output, input]) in &mut self.peers {
            let awake = variant.nft() == Some(*set);
            output.set_awake(awake)?;
            input.set_awake(awake && variant.is_received_by_a_member())?;
        }
        self.empty.set_attached(&self.node.sandbox.cgroups, variant.is_empty())?;
        if variant.is_ours() && !self.attached {
            self.node.bpf.attach_all().context("attach")?;
        } else if !variant.is_ours() && self.attached {
            self.node.take_off()?;
        }
        self.attached = variant.is_ours();
        let deadline = Instant::now() + OFF_WITHIN;
        loop {
            let before = self.node.counted()?;
            self.order(variant, pattern, WARM_UP)?;
            let counted = self.node.counted()?.since(before);
            if counted == expected(variant, WARM_UP) {
                return Ok(());
            }
            // The kernel ends a link that is unpinned when it comes round to it.
            ensure!(
                Instant::now() < deadline,
                "Bulkhead has counted {counted:?} of {WARM_UP} packets as {variant:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn order(&mut self, variant: Variant, pattern: Pattern, packets: u32) -> Result<f64> {
        let port = if variant.is_received_by_a_member() { MEMBER } else { OUTSIDER };
        let took =
            self.sender.order(Order { pattern, port, packets, addresses: self.addresses })?;
        let tables = self.peers.iter_mut().flat_map(|(_, tables)| tables);
        let awake = tables.filter(|table| table.is_awake());
        awake.for_each(|table| table.expect(packets));
        Ok(took)
    }

    /// That nftables has counted every packet that it had to, and no other.
    pub(crate) fn check_nft(&self) -> Result<()> {
        self.peers.iter().flat_map(|(_, tables)| tables).try_for_each(Table::check)
    }
}

/// A program whose run time can be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The one that does nothing, at egress.
    Empty,
    /// One of the product's, by its name; it must be attached.
    Ours(&'static str),
}

/// What Bulkhead must count.
fn expected(variant: Variant, packets: u32) -> Counted {
    let packets = u64::from(packets);
    match variant {
        Variant::Egress => Counted { sent: packets, received: 0, all: packets },
        Variant::Both => Counted { sent: packets, received: packets, all: 2 * packets },
        _ => Counted::default(),
    }
}

/// A wire between two hosts, and every address of the virtual cluster behind its far end.
fn connect(near: &Host, far: &Host) -> Result<()> {
    let (mac, prefix) = ("02:00:00:00:00:02", format!("{FIRST}/{PREFIX_BITS}"));
    near.ip(&format!(
        "link add {WIRE} type veth peer name {WIRE} address {mac} netns {}",
        far.namespace().file_name().context("a namespace has a name")?.to_string_lossy()
    ))?;
    near.ip(&format!("addr add 10.99.0.1/30 dev {WIRE}"))?;
    far.ip(&format!("addr add 10.99.0.2/30 dev {WIRE}"))?;
    near.ip(&format!("link set {WIRE} up"))?;
    far.ip(&format!("link set {WIRE} up"))?;
    // Nobody asks for it again in the middle of a measurement.
    near.ip(&format!("neigh replace 10.99.0.2 lladdr {mac} nud permanent dev {WIRE}"))?;
    near.ip(&format!("route add {prefix} via 10.99.0.2 dev {WIRE}"))?;
    far.ip(&format!("route add local {prefix} dev lo"))
}

/// A process at one end; dropped, it is killed.
struct End {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl End {
    fn start(host: &Host, cgroup: Option<&Path>, side: &[&str]) -> Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        // Nothing else gets the processor while a burst is sent.
        let mut command = Command::new("chrt");
        command.args(["--fifo", PRIORITY]).arg(own);
        command.arg("network-end").arg("--netns").arg(host.namespace());
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command.args(side).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().context("start an end of the wire by chrt (Debian: util-linux)")?;
        let stdin = child.stdin.take().context("stdin is a pipe")?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        let mut end = Self { child, stdin, lines: BufReader::new(stdout).lines() };
        match end.said()? {
            Said::Ready => Ok(end),
            Said::Took { .. } => bail!("an end of the wire has begun by itself"),
        }
    }

    fn order(&mut self, order: Order) -> Result<f64> {
        writeln!(self.stdin, "{}", serde_json::to_string(&order)?).context("order packets")?;
        match self.said()? {
            Said::Took { nanoseconds } => Ok(nanoseconds),
            Said::Ready => bail!("the sender has begun anew"),
        }
    }

    fn said(&mut self) -> Result<Said> {
        let line =
            self.lines.next().context("an end of the wire has ended; it says why above")??;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
