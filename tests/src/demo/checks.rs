//! The checks, in the order in which they run.

mod death;
pub(crate) mod end;
mod flow;
mod ledger;
mod limits;
mod live;
mod refuse;
mod usage;

use std::fs;

use anyhow::{Context, Result, ensure};

use super::world::{Only, World};
use crate::sandbox::cgroup2_mount;

/// A promise, looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    /// Its name.
    pub(super) name: &'static str,
    /// What must be seen.
    pub(super) expected: &'static str,
    /// Where it can be looked at.
    needs: Needs,
    /// How to look.
    pub(super) run: Run,
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    /// While everything runs.
    Amid(fn(&mut World) -> Result<Findings>),
    /// By ending everything.
    AtTheEnd(fn(World) -> Result<Findings>),
}

/// Where a check can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    /// eBPF on cgroup v2.
    Bpf,
    /// The controllers cpu, memory, io and pids in cgroup v2.
    Controllers,
    /// Nothing: it belongs to every demo.
    Nothing,
}

/// Controllers that limits need.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "io", "pids"];

const fn amid(
    name: &'static str,
    needs: Needs,
    run: fn(&mut World) -> Result<Findings>,
    expected: &'static str,
) -> Check {
    Check { name, expected, needs, run: Run::Amid(run) }
}

/// Every check.
pub(super) const ALL: &[Check] = &[
    amid(
        "starts-inside",
        Needs::Nothing,
        flow::starts_inside,
        "a process finds itself in a leaf of its virtual cluster at its first look, with no socket",
    ),
    amid(
        "same-cluster-flows",
        Needs::Bpf,
        flow::same_cluster,
        "TCP, UDP and ICMP between two hosts of prod, IPv4 and IPv6: everything sent arrives",
    ),
    amid(
        "connect-refused",
        Needs::Bpf,
        refuse::connect,
        "connect() between dev and prod gives EPERM within 100 ms (IPv4, IPv6, IPv4-mapped; TCP, \
         UDP), and the listener sees nobody",
    ),
    amid(
        "sendto-refused",
        Needs::Bpf,
        refuse::sendto,
        "sendto() from dev to prod gives EPERM (IPv4, IPv6, IPv4-mapped), and the receiver sees \
         nothing of it",
    ),
    amid(
        "icmp-refused",
        Needs::Bpf,
        refuse::icmp,
        "ICMP and raw packets from dev to prod give EPERM, and prod's stack sees no echo request",
    ),
    amid(
        "receiver-refuses",
        Needs::Bpf,
        refuse::receiver,
        "what batch (mode Observe) sends reaches prod's interface, and no socket of prod",
    ),
    amid(
        "refusals-counted",
        Needs::Bpf,
        refuse::counted,
        "the operator reads exactly as many refusals as were attempted",
    ),
    amid(
        "unknown-then-learnt",
        Needs::Bpf,
        flow::unknown,
        "an address that nobody has told of is dropped without an error; once told, the same \
         connection attempt succeeds, and datagrams arrive",
    ),
    amid(
        "live-connection-ended",
        Needs::Bpf,
        live::ended,
        "a connection between dev and batch that is allowed in mode Observe is ended at both ends \
         when dev's mode becomes Enforce",
    ),
    amid(
        "cpu-share-held",
        Needs::Controllers,
        limits::cpu,
        "two busy threads in batch (limit 0.5 CPUs) get 0.40 to 0.60 CPUs, by getrusage",
    ),
    amid(
        "memory-hog-dies-alone",
        Needs::Controllers,
        limits::memory,
        "a process that takes 384 MiB in dev (limit 96 MiB) is killed, nobody else is, and the \
         operator reads 1 OOM kill more, in dev only",
    ),
    amid(
        "fork-bomb-stops",
        Needs::Controllers,
        limits::pids,
        "a fork bomb in batch (limit 48 tasks) is refused with EAGAIN, neighbours fork on, and \
         the operator reads exactly the refusals",
    ),
    amid(
        "meddling-mended",
        Needs::Controllers,
        limits::meddling,
        "cpu.max and pids.max of batch, set to max by somebody else, are set back, and both \
         changes are counted",
    ),
    amid(
        "usage-network",
        Needs::Bpf,
        usage::network,
        "the operator reads exactly the bytes and packets of what prod-a sent and prod-b \
         received by UDP, and TCP as the interface counted it, within 1 %",
    ),
    amid(
        "usage-cpu",
        Needs::Bpf,
        usage::cpu,
        "the operator reads the CPU time that a process in dev burnt by its own getrusage, \
         within -2 % and +8 % + 500 ms",
    ),
    amid(
        "usage-memory",
        Needs::Controllers,
        usage::memory,
        "the operator reads the byte-seconds of a known amount of memory held for a known time, \
         within 25 %",
    ),
    amid(
        "agent-death-opens-nothing",
        Needs::Bpf,
        death::opens_nothing,
        "with the agent killed (SIGKILL), dev is refused by prod as before, and prod reaches prod",
    ),
    amid(
        "agent-death-loses-nothing",
        Needs::Bpf,
        death::loses_nothing,
        "bytes sent while the agent is dead are in the ledger after its restart, exactly once",
    ),
    amid(
        "controller-death-loses-nothing",
        Needs::Bpf,
        death::controller,
        "bytes sent while the controller is dead are in the ledger after its restart, exactly \
         once, and nothing else has changed there",
    ),
    Check {
        name: "nothing-left",
        expected: "both programs end well; after `bulkhead-agent detach --cgroups` there is no \
                   cgroup, link, program, map, pin, namespace, process, mount or file of ours",
        needs: Needs::Nothing,
        run: Run::AtTheEnd(end::nothing_left),
    },
];

/// The checks of this half that this machine can show, and what is left out and why.
pub(super) fn shown_here(only: Option<Only>) -> Result<(Vec<Check>, Vec<String>)> {
    let missing = missing_controllers()?;
    let mut left_out = Vec::new();
    let chosen = ALL.iter().copied().filter(|check| match check.needs {
        Needs::Nothing => true,
        Needs::Bpf => only != Some(Only::Limits),
        Needs::Controllers if only == Some(Only::Network) => false,
        Needs::Controllers => {
            if !missing.is_empty() {
                let missing = missing.join(", ");
                left_out.push(format!("{}: no controller {missing} in cgroup v2", check.name));
            }
            missing.is_empty()
        }
    });
    let chosen: Vec<Check> = chosen.collect();
    ensure!(
        only != Some(Only::Limits) || missing.is_empty(),
        "limits cannot be shown here: cgroup v2 lacks {}",
        missing.join(", ")
    );
    Ok((chosen, left_out))
}

/// Controllers that cgroup v2 does not have here: they belong to v1, or to nobody.
fn missing_controllers() -> Result<Vec<&'static str>> {
    let path = cgroup2_mount()?.join("cgroup.controllers");
    let there = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let there: Vec<&str> = there.split_whitespace().collect();
    Ok(CONTROLLERS.into_iter().filter(|name| !there.contains(name)).collect())
}

/// What a check saw.
#[derive(Debug)]
pub(crate) struct Findings {
    parts: Vec<String>,
    ok: bool,
}

impl Default for Findings {
    fn default() -> Self {
        Self { parts: Vec::new(), ok: true }
    }
}

impl Findings {
    /// Notes what was seen, and whether it is as it must be.
    pub(crate) fn see(&mut self, ok: bool, seen: impl Into<String>) {
        let seen = seen.into();
        self.parts.push(if ok { seen } else { format!("NOT OK: {seen}") });
        self.ok &= ok;
    }

    /// Adds what was seen elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.parts.extend(other.parts);
        self.ok &= other.ok;
    }

    /// What was seen in one line, and whether all of it is as it must be. Nothing seen is not.
    pub(crate) fn told(self) -> (String, bool) {
        let ok = self.ok && !self.parts.is_empty();
        (self.parts.join("; "), ok)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sabotage::Sabotage;
    use super::*;

    #[test]
    fn for_every_check_there_is_a_sabotage_and_the_other_way_round() {
        let checks: BTreeSet<&str> = ALL.iter().map(|check| check.name).collect();
        let reddened: BTreeSet<&str> = Sabotage::ALL.iter().map(|it| it.reddens()).collect();
        assert_eq!(checks, reddened);
        assert_eq!(checks.len(), ALL.len());
    }

    #[test]
    fn one_bad_finding_is_a_bad_check() {
        let mut findings = Findings::default();
        findings.see(true, "a");
        findings.see(false, "b");
        assert_eq!(findings.told(), ("a; NOT OK: b".to_owned(), false));
        assert!(!Findings::default().told().1);
    }
}
