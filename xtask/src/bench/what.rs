//! What can be measured: where, for how long, and how it is told.

use std::time::Duration;

/// A subcommand of `bh-bench`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum What {
    /// A small packet, live over veth, beside nftables.
    Network,
    /// A verdict at 100,000 addresses against 1,000.
    Verdict,
    /// A pass over the usage of 500 cgroups, beside the cgroupfs crate.
    Usage,
    /// The agent itself: memory and CPU time, in the virtual machine.
    Footprint,
    /// From a change in the controller's file until a node enforces it.
    Change,
    /// Records that the controller merges.
    Ledger,
}

/// Where something is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// On this machine, as root.
    Host,
    /// In the lab's virtual machine.
    Vm,
}

impl What {
    /// In the order of the table.
    pub(super) const ALL: [Self; 6] =
        [Self::Network, Self::Verdict, Self::Usage, Self::Footprint, Self::Change, Self::Ledger];

    /// As `bh-bench` has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Verdict => "verdict",
            Self::Usage => "usage",
            Self::Footprint => "footprint",
            Self::Change => "change",
            Self::Ledger => "ledger",
        }
    }

    pub(super) const fn place(self) -> Place {
        match self {
            // Where controllers are bound to cgroup v1, most fields are not there to be read.
            Self::Footprint | Self::Usage => Place::Vm,
            _ => Place::Host,
        }
    }

    /// When it is ended, whatever it does.
    pub(super) const fn limit(self) -> Duration {
        Duration::from_mins(match self {
            Self::Network | Self::Footprint | Self::Ledger | Self::Usage => 30,
            Self::Verdict | Self::Change => 20,
        })
    }

    /// Its arguments; `payload`: where the programs and the object are, `scratch`: a directory on
    /// a disk.
    pub(super) fn arguments(self, quick: bool, payload: &str, scratch: &str) -> Vec<String> {
        let (fixed, fewer): (Vec<String>, &[&str]) = match self {
            Self::Network | Self::Verdict => {
                (object(payload), &["--rounds", "5", "--packets", "60000"])
            }
            Self::Usage => (object(payload), &["--rounds", "5"]),
            Self::Footprint => (programs(payload), &["--seconds", "60"]),
            Self::Change => {
                let mut fixed = programs(payload);
                fixed.extend(["--dir", scratch].map(str::to_owned));
                (fixed, &["--changes", "30"])
            }
            Self::Ledger => {
                (["--dir", scratch].map(str::to_owned).to_vec(), &["--rounds", "3", "--days", "7"])
            }
        };
        let fewer = if quick { fewer } else { &[] };
        let name = std::iter::once(self.name().to_owned());
        name.chain(fixed).chain(fewer.iter().map(|word| (*word).to_owned())).collect()
    }

    /// The headline of its part of the page.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Network => "A small packet",
            Self::Verdict => "A verdict, by the number of addresses",
            Self::Usage => "A pass over the usage of cgroups",
            Self::Footprint => "The agent itself",
            Self::Change => "From a change to its enforcement",
            Self::Ledger => "Records that the controller merges",
        }
    }

    /// How it is measured, for the page.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Network => {
                "One process sends UDP datagrams of 60 bytes over a veth pair to another network \
                 namespace; what the receiver's side does runs in the same softirq, so the \
                 sender's clock sees both. The sender is a real-time process that stays on one \
                 CPU. In every round each variant is measured once, in an order that changes: \
                 the bare network, programs that do nothing, Bulkhead's own object attached as \
                 the agent attaches it, nftables (`socket cgroupv2`, a set of the same 100,000 \
                 addresses, a counter, as one rule in the sender's and one in the receiver's \
                 network namespace, with the set declared once by its type only \
                 and once with its size: the peer is the cheaper one). A round's value is the median of bursts of 20,000 packets; \
                 the cost of a variant is the median over rounds of its difference to the bare \
                 network in the same round. After each send Bulkhead's counters must have grown \
                 by exactly the packets sent, and nftables' counters must agree in the end. \
                 *Egress*: the receiver is in no virtual cluster. *Both directions*: sender and \
                 receiver are members, and addresses at both ends vary. Unconnected sockets pass \
                 Bulkhead's hook at `sendmsg` as well, which is part of the cost shown."
            }
            Self::Verdict => {
                "The kernel times every run of the programs (`BPF_STATS_RUN_TIME`) while the same \
                 sockets as above send and receive, with 1,000 and with 100,000 known addresses \
                 in each round. What the timing takes is measured on a program of two \
                 instructions in the same round and taken off. `BPF_PROG_TEST_RUN` is not used: \
                 it makes a socket for each call, so that a verdict that is kept with the socket \
                 would be found either never or always."
            }
            Self::Usage => {
                "In the lab's virtual machine, where every controller is there: 500 cgroups, every \
                 second one busy. In every round each way reads every cgroup, \
                 in an order that changes; counted is the CPU time of the reading thread, the \
                 kernel's part included. Before, between and after the rounds all processes are \
                 frozen and every field is compared with the file's value."
            }
            Self::Footprint => {
                "In the lab's virtual machine: a real agent with a real controller, 100 virtual \
                 clusters, 500 cgroups, half of them busy, sampled once a second for 10 minutes. \
                 Memory is the agent's own anonymous memory; the maps in the kernel are shown \
                 apart. CPU time includes what the eBPF programs take."
            }
            Self::Change => {
                "A real controller and a real agent on this machine. A process in one virtual \
                 cluster sends to another all the time, which is allowed and forbidden in turn. \
                 The time runs from before the new file is renamed into place to the first \
                 datagram that is judged by it."
            }
            Self::Ledger => {
                "Records as agents send them, merged by the ledger's own code, batch by batch; \
                 the peer is the obvious table with one row for each value, in the same SQLite \
                 with the same settings."
            }
        }
    }
}

fn object(payload: &str) -> Vec<String> {
    vec!["--object".to_owned(), format!("{payload}/bulkhead.bpf.o")]
}

fn programs(payload: &str) -> Vec<String> {
    vec!["--programs".to_owned(), payload.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_only_takes_less_of_the_same() {
        for what in What::ALL {
            let (whole, quick) =
                (what.arguments(false, "/p", "/s"), what.arguments(true, "/p", "/s"));
            assert_eq!(whole[0], what.name());
            assert!(quick.len() > whole.len() && quick.starts_with(&whole), "{quick:?}");
        }
    }
}
