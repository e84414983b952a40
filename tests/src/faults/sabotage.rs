//! Breaking one thing on purpose, to show that the checks of a history can fail.

use std::fmt;

/// Something to break.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Sabotage {
    /// Take every program off while the agent is dead: probes get through.
    DetachWhileDead,
    /// Burn CPU time outside of every virtual cluster, and claim it for one.
    BurnUncounted,
    /// Book the ledger's rows twice while the controller is dead.
    DoubleLedgerRows,
    /// Throw the journal away while it alone knows of a virtual cluster that has gone.
    DropJournal,
}

impl Sabotage {
    /// Every sabotage.
    pub const ALL: [Self; 4] =
        [Self::DetachWhileDead, Self::BurnUncounted, Self::DoubleLedgerRows, Self::DropJournal];

    /// The history in which it shows.
    pub const fn history(self) -> &'static str {
        match self {
            Self::DropJournal => "controller-away",
            _ => "kills",
        }
    }

    /// A word of what must be red; other findings may be, too.
    pub const fn reddens(self) -> &'static str {
        match self {
            Self::DetachWhileDead => "connects went through",
            Self::BurnUncounted => "dev CPU",
            Self::DoubleLedgerRows => "prod Egress packets",
            Self::DropJournal => "guest",
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use clap::ValueEnum as _;
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
