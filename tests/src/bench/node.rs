//! A node with the product's own object and tables, opened as the agent opens them, that knows
//! many addresses: what the datapath is measured on.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, loaded_programs};
use bulkhead_abi::{
    ABI_VERSION, Address, Class, Direction, FarEnd, MODE_ENFORCE, Member, Outcome, Prefix,
};
use bulkhead_agent::kernel::bpf::{Bpf, BpfOptions, Capacities};

use crate::sandbox::Sandbox;

/// The virtual cluster that is measured.
pub const GREEN: &str = "green";
/// Its number.
const GREEN_NUMBER: u32 = 7;

/// When the counters begin; nothing here asks.
const EPOCH: u64 = 1;

/// The first address of the virtual cluster; the others follow.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// Bits of the prefix that holds all of them.
pub const PREFIX_BITS: u32 = 15;

/// A node whose programs are loaded.
#[derive(Debug)]
pub struct Node {
    // Dropped first: its links and maps go before the cgroup and the BPF file system.
    /// Programs and tables.
    pub bpf: Bpf,
    /// Where they are.
    pub sandbox: Sandbox,
    pin_dir: PathBuf,
}

impl Node {
    /// A node with one virtual cluster, which owns that many addresses and enforces.
    pub fn new(object: &Path, hosts: u8, addresses: u32) -> Result<Self> {
        ensure!(addresses <= 1 << (32 - PREFIX_BITS), "the prefix holds fewer addresses");
        let sandbox = Sandbox::new(hosts)?;
        let pin_dir = sandbox.bpffs.path().join(format!("bulkhead/v{ABI_VERSION}"));
        let (bpf, _) = Bpf::open(&BpfOptions {
            object: object.to_owned(),
            pin_dir: pin_dir.clone(),
            cgroup_root: sandbox.cgroups.root().to_owned(),
            ancestor_level: sandbox.cgroups.virtual_cluster_level(),
            upper_level: 0,
            capacities: Capacities::default(),
            epoch_if_new: EPOCH,
        })
        .context("load the kernel programs")?;
        let node = Self { bpf, sandbox, pin_dir };
        node.fill(addresses)?;
        Ok(node)
    }

    fn fill(&self, addresses: u32) -> Result<()> {
        let tables = self.bpf.tables();
        let cluster = FarEnd { virtual_cluster: 0, flags: FarEnd::CLUSTER };
        let own = FarEnd { virtual_cluster: 0, flags: FarEnd::NODE };
        let prefix = |ip, bits: u32| Prefix { prefix_len: 96 + bits, address: address(ip) };
        let prefixes = [
            (prefix(Ipv4Addr::new(10, 0, 0, 0), 8), cluster),
            (prefix(Ipv4Addr::new(127, 0, 0, 0), 8), own),
        ];
        tables.prefixes.put(&prefixes).context("write prefixes")?;
        self.know(addresses)?;
        let id = self.sandbox.cgroups.id(GREEN)?;
        tables.counters.create(id).context("make counters")?;
        let member = Member { virtual_cluster: GREEN_NUMBER, mode: MODE_ENFORCE };
        tables.members.put(&[(id, member)]).context("write the member")
    }

    /// Makes exactly the first so many addresses known.
    pub fn know(&self, addresses: u32) -> Result<()> {
        let table = &self.bpf.tables().addresses;
        let far = FarEnd { virtual_cluster: GREEN_NUMBER, flags: FarEnd::CLUSTER };
        let wanted: Vec<_> = (0..addresses).map(|index| (address(peer(index)), far)).collect();
        let known = table.read_all().context("read addresses")?;
        let last = address(peer(addresses));
        let others: Vec<_> = known.into_iter().map(|(a, _)| a).filter(|a| *a >= last).collect();
        table.remove(&others).context("remove addresses")?;
        table.put(&wanted).context("write addresses")
    }

    /// Takes every program off again; tables and counters stay. What the kernel still has to end
    /// then, it ends a little later.
    pub fn take_off(&self) -> Result<()> {
        let links = self.pin_dir.join("links");
        for link in fs::read_dir(&links).with_context(|| format!("list {}", links.display()))? {
            let path = link?.path();
            fs::remove_file(&path).with_context(|| format!("unpin {}", path.display()))?;
        }
        Ok(())
    }

    /// What the kernel knows of an attached program.
    pub fn program(&self, name: &str) -> Result<ProgramInfo> {
        let pin = self.pin_dir.join("links").join(name);
        let link = PinnedLink::from_pin(&pin);
        let link = FdLink::from(link.with_context(|| format!("open {}", pin.display()))?);
        let id = link.info()?.program_id();
        loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
            .with_context(|| format!("the kernel does not list {name}"))
    }

    /// What the virtual cluster's cells say.
    pub fn counted(&self) -> Result<Counted> {
        let id = self.sandbox.cgroups.id(GREEN)?;
        let all = self.bpf.tables().counters.read_all().context("read counters")?;
        let (_, counters) =
            all.into_iter().find(|(cgroup, _)| *cgroup == id).context("nothing is counted")?;
        let passed = |direction: Direction| {
            counters.cells[direction as usize][Class::Own as usize][Outcome::Passed as usize]
                .packets
        };
        let cells = counters.cells.iter().flatten().flatten();
        let all = cells.map(|cell| cell.packets).sum();
        Ok(Counted { sent: passed(Direction::Egress), received: passed(Direction::Ingress), all })
    }
}

/// Packets that were counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counted {
    /// Sent inside the virtual cluster, and passed.
    pub sent: u64,
    /// Received inside the virtual cluster, and passed.
    pub received: u64,
    /// In every cell together.
    pub all: u64,
}

impl Counted {
    /// What was counted since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            all: self.all - before.all,
        }
    }
}

/// An address of the virtual cluster.
pub fn peer(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + index)
}

/// As the tables have it.
pub fn address(ip: Ipv4Addr) -> Address {
    Address::from_v4(ip.octets())
}
