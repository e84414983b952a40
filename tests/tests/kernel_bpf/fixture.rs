//! A node with two virtual clusters: green on two hosts, red on a third.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bulkhead_abi::{
    Address, Class, Counters, Direction, FarEnd, MODE_ENFORCE, Member, Outcome, Prefix, programs,
};
use bulkhead_agent::kernel::bpf::{Bpf, BpfOptions, Capacities, Opened};
use bulkhead_tests::sandbox::{Host, Running, Sandbox, Traffic};
use serde_json::Value;

pub(crate) const GREEN: u32 = 7;
pub(crate) const RED: u32 = 8;

/// When the counters of a fixture begin.
pub(crate) const EPOCH: u64 = 1_700_000_000_000_000_000;

/// A node on which the programs are attached.
pub(crate) struct Node {
    pub(crate) bpf: Bpf,
    pub(crate) sandbox: Sandbox,
}

impl Node {
    /// A node that enforces, and knows every host.
    pub(crate) fn enforcing() -> Self {
        Self::in_mode(MODE_ENFORCE)
    }

    /// A node that knows every host.
    pub(crate) fn in_mode(mode: u32) -> Self {
        let node = Self::bare();
        node.join("green", GREEN, mode);
        node.join("red", RED, mode);
        for host in [node.green(), node.green_peer()] {
            node.learn(host, GREEN);
        }
        node.learn(node.red(), RED);
        node.bpf.attach_all().expect("attach");
        node
    }

    /// A node without members, before its programs are attached.
    pub(crate) fn bare() -> Self {
        let sandbox = Sandbox::new(3).expect("make a sandbox");
        let (bpf, _) = Bpf::open(&options(&sandbox)).expect("load");
        let cluster = FarEnd { virtual_cluster: 0, flags: FarEnd::CLUSTER };
        let own = FarEnd { virtual_cluster: 0, flags: FarEnd::NODE };
        let prefixes = [
            (prefix("10.77.0.0", 24), cluster),
            (prefix("fd77::", 64), cluster),
            (prefix("127.0.0.0", 8), own),
            (prefix("::1", 128), own),
        ];
        bpf.tables().prefixes.put(&prefixes).expect("write prefixes");
        Self { bpf, sandbox }
    }

    /// Makes a virtual cluster's cgroup known, with counters.
    pub(crate) fn join(&self, name: &str, number: u32, mode: u32) {
        let id = self.id(name);
        let tables = self.bpf.tables();
        tables.counters.create(id).expect("make counters");
        let member = Member { virtual_cluster: number, mode };
        tables.members.put(&[(id, member)]).expect("write member");
    }

    /// Makes a host's addresses known as a virtual cluster's.
    pub(crate) fn learn(&self, host: &Host, number: u32) {
        let far = FarEnd { virtual_cluster: number, flags: FarEnd::CLUSTER };
        let both = [(address(host.v4.into()), far), (address(host.v6.into()), far)];
        self.bpf.tables().addresses.put(&both).expect("write addresses");
    }

    pub(crate) fn green(&self) -> &Host {
        &self.sandbox.network.hosts()[0]
    }

    pub(crate) fn green_peer(&self) -> &Host {
        &self.sandbox.network.hosts()[1]
    }

    pub(crate) fn red(&self) -> &Host {
        &self.sandbox.network.hosts()[2]
    }

    /// A virtual cluster's way to send and receive as `host`.
    pub(crate) fn traffic(&self, virtual_cluster: &str, host: &Host) -> Traffic {
        self.sandbox.traffic(virtual_cluster, host).expect("make a leaf")
    }

    pub(crate) fn id(&self, virtual_cluster: &str) -> u64 {
        self.sandbox.cgroups.id(virtual_cluster).expect("make a cgroup")
    }

    pub(crate) fn counters(&self, virtual_cluster: &str) -> Counters {
        let id = self.id(virtual_cluster);
        let all = self.bpf.tables().counters.read_all().expect("read counters");
        let found = all.into_iter().find(|(cgroup, _)| *cgroup == id);
        found.expect("the virtual cluster is counted").1
    }

    /// Packets and bytes of one cell.
    pub(crate) fn cell(
        &self,
        virtual_cluster: &str,
        direction: Direction,
        class: Class,
        outcome: Outcome,
    ) -> (u64, u64) {
        let counters = self.counters(virtual_cluster);
        let cell = counters.cells[direction as usize][class as usize][outcome as usize];
        (cell.packets, cell.bytes)
    }

    /// Lets the agent die and start again.
    pub(crate) fn restart(self) -> (Self, Opened) {
        let Self { bpf, sandbox } = self;
        drop(bpf);
        let (bpf, opened) = Bpf::open(&options(&sandbox)).expect("take over");
        (Self { bpf, sandbox }, opened)
    }
}

/// What the agent would open in that sandbox.
pub(crate) fn options(sandbox: &Sandbox) -> BpfOptions {
    BpfOptions {
        object: object(),
        pin_dir: sandbox.bpffs.path().join("bulkhead/v1"),
        cgroup_root: sandbox.cgroups.root().to_owned(),
        ancestor_level: sandbox.cgroups.virtual_cluster_level(),
        upper_level: 0,
        capacities: Capacities {
            members: 16,
            addresses: 4096,
            prefixes: 64,
            allowed: 16,
            counters: 16,
        },
        epoch_if_new: EPOCH,
    }
}

/// The object: `BULKHEAD_BPF_OBJECT`, else where `cargo xtask build-ebpf` leaves it.
pub(crate) fn object() -> PathBuf {
    std::env::var_os("BULKHEAD_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bulkhead.bpf.o"),
        PathBuf::from,
    )
}

pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => Address::from_v4(ip.octets()),
        IpAddr::V6(ip) => Address(ip.octets()),
    }
}

pub(crate) fn prefix(ip: &str, bits: u32) -> Prefix {
    let ip: IpAddr = ip.parse().expect("an address");
    let prefix_len = if ip.is_ipv4() { 96 + bits } else { bits };
    Prefix { prefix_len, address: address(ip) }
}

/// An address as `bh-traffic` takes it.
pub(crate) fn at(ip: impl Into<IpAddr>, port: u16) -> String {
    std::net::SocketAddr::new(ip.into(), port).to_string()
}

/// Starts what goes on until it is finished, and waits until it is set up.
pub(crate) fn ready(traffic: &Traffic, line: &str) -> Running {
    let mut running = traffic.start(line).expect("start");
    let first = running.wait_for_line().expect("set up");
    assert!(first["ready"].is_string(), "{line}: {first}");
    running
}

/// Runs to the end.
pub(crate) fn run(traffic: &Traffic, line: &str) -> Value {
    traffic.run(line).unwrap_or_else(|error| panic!("bh-traffic {line}: {error:#}"))
}

pub(crate) fn all_attached(bpf: &Bpf) -> bool {
    let attached = bpf.attached().expect("ask the kernel");
    assert_eq!(attached.len(), programs::ALL.len());
    attached.values().all(|attached| *attached)
}

pub(crate) fn none_attached(bpf: &Bpf) -> bool {
    bpf.attached().expect("ask the kernel").values().all(|attached| !attached)
}

pub(crate) fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}
