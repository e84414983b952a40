//! Breaking one thing on purpose: for every check there is a sabotage that turns it red, and
//! no other.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};

macro_rules! sabotages {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, reddens $check:literal;)+) => {
        /// Something to break.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Sabotage {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Sabotage {
            /// Every sabotage, in the order of the checks.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The one check that it must turn red.
            pub const fn reddens(self) -> &'static str {
                match self { $(Self::$variant => $check,)+ }
            }

            /// What it does.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

sabotages! {
    /// Start a process without `bulkhead-agent exec`.
    StartOutside = "start-outside", reddens "starts-inside";
    /// Take one member's addresses out of its virtual cluster.
    ForgetMember = "forget-member", reddens "same-cluster-flows";
    /// Take off the connect4 and connect6 programs.
    DetachConnect = "detach-connect", reddens "connect-refused";
    /// Take off the programs that a datagram meets: sendmsg4, sendmsg6 and egress.
    DetachSendPath = "detach-send-path", reddens "sendto-refused";
    /// Take off the egress program.
    DetachEgress = "detach-egress", reddens "icmp-refused";
    /// Take off the ingress program.
    DetachIngress = "detach-ingress", reddens "receiver-refuses";
    /// Take off the sendmsg4 and sendmsg6 programs; egress still refuses.
    DetachSendmsg = "detach-sendmsg", reddens "refusals-counted";
    /// Tell nobody of a new member.
    TellNobody = "tell-nobody", reddens "unknown-then-learnt";
    /// Stop the agent (SIGSTOP) while the policy tightens.
    FreezePolicy = "freeze-policy", reddens "live-connection-ended";
    /// Write cpu.max=max while the agent is stopped.
    LiftCpuMax = "lift-cpu-max", reddens "cpu-share-held";
    /// Write memory.max=max while the agent is stopped.
    LiftMemoryMax = "lift-memory-max", reddens "memory-hog-dies-alone";
    /// Write pids.max=max while the agent is stopped.
    LiftPidsMax = "lift-pids-max", reddens "fork-bomb-stops";
    /// Stop the agent while somebody else changes its files.
    FreezeMending = "freeze-mending", reddens "meddling-mended";
    /// Take off every program while the agent is dead.
    OpenOnAgentDeath = "open-on-agent-death", reddens "agent-death-opens-nothing";
    /// Take off the egress program while the agent is dead and bytes flow.
    UncountedWhileDead = "uncounted-while-dead", reddens "agent-death-loses-nothing";
    /// Swap the rows of two virtual clusters in the ledger before they are read.
    SwapLedgerRows = "swap-ledger-rows", reddens "usage-network";
    /// Stop the agent, and with it the sampler, before CPU time is burnt.
    StopSampler = "stop-sampler", reddens "usage-cpu";
    /// Hold half the memory that is claimed.
    HoldHalf = "hold-half", reddens "usage-memory";
    /// Book the ledger's rows twice while the controller is dead.
    DoubleLedgerRows = "double-ledger-rows", reddens "controller-death-loses-nothing";
    /// Leave a cgroup behind.
    LeaveCgroup = "leave-a-cgroup", reddens "nothing-left";
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sabotage {
    type Err = anyhow::Error;

    /// By its own name, or by that of the check that it turns red.
    fn from_str(text: &str) -> Result<Self> {
        let is = |sabotage: &&Self| sabotage.name() == text || sabotage.reddens() == text;
        match Self::ALL.iter().find(is) {
            Some(sabotage) => Ok(*sabotage),
            None => bail!("no sabotage \"{text}\"; `--sabotage list` shows them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_are_read_back() {
        let names: BTreeSet<&str> = Sabotage::ALL.iter().map(|sabotage| sabotage.name()).collect();
        assert_eq!(names.len(), Sabotage::ALL.len());
        for sabotage in Sabotage::ALL {
            assert_eq!(sabotage.name().parse::<Sabotage>().expect("is known"), *sabotage);
        }
        assert!("nonsense".parse::<Sabotage>().is_err());
    }
}
