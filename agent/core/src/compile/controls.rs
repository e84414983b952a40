//! A virtual cluster's guarantee and limit as cgroup v2 controls.

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::{Bytes, NanoCores};
use crate::control::{Control, ControlValue, CpuMax, Device, IoMax, Max};
use crate::desired::{Degradation, DesiredCgroup};
use crate::observed::NodeFacts;
use crate::tenant::{IoLimit, VirtualCluster};

/// cgroup.max.descendants of every virtual cluster: one pod can make 42,000 cgroups otherwise
/// (KEP-5474), and every one of them costs every tenant of the node.
pub const MAX_DESCENDANTS: u64 = 4_096;
/// cgroup.max.depth of every virtual cluster.
pub const MAX_DEPTH: u64 = 16;

/// Why no control is enforced in [`crate::Placement::Overlay`].
pub const UNWRITTEN: &str = "Overlay: pods stay in the kubelet's own cgroups, to which nothing is \
                             written; set requests and limits in the pods, or a ResourceQuota";

const NANOSECONDS_PER_MICROSECOND: u64 = 1_000;
const LONGEST_PERIOD_MICROSECONDS: u64 = 1_000_000;
/// The most that cpu.max takes besides "max" (`MAX_BW`, kernel/sched/sched.h).
const MOST_QUOTA_MICROSECONDS: u64 = (1 << 44) - 1;
/// The most that pids.max takes besides "max" (`PID_MAX_LIMIT`, linux/threads.h).
const MOST_PIDS: u64 = 4_194_304;

/// What was asked for, by control.
#[derive(Default)]
struct Asked {
    controls: BTreeMap<Control, ControlValue>,
    degraded: Vec<Degradation>,
}

impl Asked {
    fn set(&mut self, control: Control, value: ControlValue) {
        self.controls.insert(control, value);
    }

    fn degrade(&mut self, subject: &str, message: String) {
        self.degraded.push(Degradation { subject: subject.to_owned(), message });
    }
}

/// The cgroup of a virtual cluster on this node, and what of its wishes cannot be met.
pub(super) fn compile(
    virtual_cluster: &VirtualCluster,
    node: &NodeFacts,
) -> (DesiredCgroup, Vec<Degradation>) {
    let mut asked = ask(virtual_cluster, node);
    asked.set(Control::CgroupMaxDepth, ControlValue::Max(Max::At(MAX_DEPTH)));
    asked.set(Control::CgroupMaxDescendants, ControlValue::Max(Max::At(MAX_DESCENDANTS)));
    enforceable(asked, node)
}

/// What cannot be met of a virtual cluster's wishes where nothing is written: each of them.
pub(super) fn unwritten(virtual_cluster: &VirtualCluster, node: &NodeFacts) -> Vec<Degradation> {
    let asked = ask(virtual_cluster, node);
    let controls = asked.controls.keys().map(|control| control.file().to_owned());
    let others = asked.degraded.into_iter().map(|degradation| degradation.subject);
    let subjects: BTreeSet<String> = controls.chain(others).collect();
    let overlay = |subject| Degradation { subject, message: UNWRITTEN.to_owned() };
    subjects.into_iter().map(overlay).collect()
}

fn ask(virtual_cluster: &VirtualCluster, node: &NodeFacts) -> Asked {
    let mut asked = Asked::default();
    cpu(virtual_cluster, node, &mut asked);
    memory(virtual_cluster, node, &mut asked);
    pids(virtual_cluster, node, &mut asked);
    io(virtual_cluster, node, &mut asked);
    asked
}

/// Every control that this node has, as asked or at its default; the others are degraded where
/// they were asked for.
fn enforceable(mut asked: Asked, node: &NodeFacts) -> (DesiredCgroup, Vec<Degradation>) {
    let mut cgroup = DesiredCgroup::default();
    for control in Control::ALL {
        let wish = asked.controls.remove(&control);
        match node.support.missing.get(&control) {
            Some(reason) if wish.is_some() => asked.degrade(control.file(), reason.clone()),
            Some(_) => {}
            None => {
                let value = wish.unwrap_or_else(|| control.default_value());
                cgroup.controls.insert(control, value);
            }
        }
    }
    cgroup.controllers =
        cgroup.controls.keys().filter_map(|control| control.controller()).collect::<BTreeSet<_>>();
    (cgroup, asked.degraded)
}

fn cpu(virtual_cluster: &VirtualCluster, node: &NodeFacts, asked: &mut Asked) {
    let limit = virtual_cluster.limit.cpu.map(|amount| amount.on(node.cpu));
    if let Some(amount) = virtual_cluster.guarantee.cpu {
        let wanted = amount.on(node.cpu);
        let guarantee = limit.map_or(wanted, |limit| wanted.min(limit));
        if guarantee < wanted {
            let message = format!(
                "the guarantee of {} nanocores is over the limit of {} on this node and is cut to \
                 it; raise the limit or lower the guarantee",
                wanted.0, guarantee.0
            );
            asked.degrade(Control::CpuWeight.file(), message);
        }
        asked.set(Control::CpuWeight, ControlValue::Weight(cpu_weight(guarantee, node.cpu)));
    }
    if let Some(limit) = limit {
        asked.set(Control::CpuMax, ControlValue::CpuMax(cpu_max(limit)));
    }
}

/// The guaranteed part of the node in units of 1/10,000: weights are then to each other as the
/// guarantees are, and a virtual cluster with none (weight 100) counts as 1 % of the node.
fn cpu_weight(guarantee: NanoCores, node: NanoCores) -> u16 {
    let parts = u128::from(guarantee.0) * 10_000 / u128::from(node.0.max(1));
    u16::try_from(parts.clamp(1, 10_000)).unwrap_or(10_000)
}

/// The limit in the default period, or, where that would be under the kernel's least quota, in
/// the longest period.
fn cpu_max(limit: NanoCores) -> CpuMax {
    let quota = |period: u64| {
        // Nanocores are nanoseconds per second, so this is the quota in nanoseconds × 1,000.
        let quota = u128::from(limit.0) * u128::from(period) / 1_000_000_000;
        u64::try_from(quota).unwrap_or(u64::MAX / NANOSECONDS_PER_MICROSECOND)
    };
    let (period, microseconds) = match quota(CpuMax::PERIOD_MICROSECONDS) {
        few if few < CpuMax::LEAST_QUOTA_MICROSECONDS => {
            (LONGEST_PERIOD_MICROSECONDS, quota(LONGEST_PERIOD_MICROSECONDS))
        }
        enough => (CpuMax::PERIOD_MICROSECONDS, enough),
    };
    CpuMax {
        quota: at_most(microseconds.max(CpuMax::LEAST_QUOTA_MICROSECONDS), MOST_QUOTA_MICROSECONDS),
        period_microseconds: period,
    }
}

/// A limit above all that the kernel takes is above all that a node can have: it is none.
const fn at_most(value: u64, most: u64) -> Max {
    if value > most { Max::Unlimited } else { Max::At(value) }
}

fn memory(virtual_cluster: &VirtualCluster, node: &NodeFacts, asked: &mut Asked) {
    let pages = |bytes: Bytes| bytes.0 - bytes.0 % node.page_bytes.max(1);
    let limit = virtual_cluster.limit.memory.map(|amount| pages(amount.on(node.memory)));
    if let Some(amount) = virtual_cluster.guarantee.memory {
        let wanted = pages(amount.on(node.memory));
        let guarantee = limit.map_or(wanted, |limit| wanted.min(limit));
        if guarantee < wanted {
            let message = format!(
                "the guarantee of {wanted} bytes is over the limit of {guarantee} on this node and \
                 is cut to it; raise the limit or lower the guarantee"
            );
            asked.degrade(Control::MemoryLow.file(), message);
        }
        asked.set(Control::MemoryLow, ControlValue::Max(Max::At(guarantee)));
    }
    if let Some(limit) = limit {
        asked.set(Control::MemoryMax, ControlValue::Max(Max::At(limit)));
    }
}

fn pids(virtual_cluster: &VirtualCluster, node: &NodeFacts, asked: &mut Asked) {
    if let Some(amount) = virtual_cluster.limit.pids {
        let max = at_most(amount.on(node.pids).0, MOST_PIDS);
        asked.set(Control::PidsMax, ControlValue::Max(max));
    }
}

fn io(virtual_cluster: &VirtualCluster, node: &NodeFacts, asked: &mut Asked) {
    if let Some(weight) = virtual_cluster.guarantee.io_weight {
        asked.set(Control::IoWeight, ControlValue::Weight(weight));
    }
    let mut devices = BTreeMap::new();
    for limit in &virtual_cluster.limit.io {
        match node.devices.get(&limit.device) {
            Some(device) => io_max(*device, limit, &mut devices),
            None => asked.degrade(
                Control::IoMax.file(),
                format!("{} is no block device on this node", limit.device.display()),
            ),
        }
    }
    if !devices.is_empty() {
        asked.set(Control::IoMax, ControlValue::IoMax(devices));
    }
}

fn io_max(device: Device, limit: &IoLimit, devices: &mut BTreeMap<Device, IoMax>) {
    let max = |value: Option<u64>| value.map_or(Max::Unlimited, Max::At);
    devices.insert(
        device,
        IoMax {
            rbps: max(limit.read_bytes_per_second),
            wbps: max(limit.write_bytes_per_second),
            riops: max(limit.read_operations_per_second),
            wiops: max(limit.write_operations_per_second),
        },
    );
}
