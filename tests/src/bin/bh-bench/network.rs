//! What a small packet costs more with Bulkhead at work, and with nftables doing the same, live
//! over veth.
//!
//! One sender in a member's cgroup sends small UDP datagrams over a veth pair to a receiver in
//! another network namespace. In every round the kernel is put into each [`Variant`] in turn, in
//! another order each time, and the sender says how long its packets took. Of each variant only
//! the difference to the bare network in the same round counts. That a variant has really done
//! its work is checked by its own counters, packet by packet.

pub(crate) mod end;
mod nft;
pub(crate) mod place;
mod told;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::bench::{Row, machine, statistics};

use end::Pattern;
use nft::Set;
use place::Place;

/// Addresses that the virtual cluster owns.
pub(crate) const ADDRESSES: u32 = 100_000;

/// Options of the subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The object of the kernel programs.
    #[arg(long, value_name = "FILE")]
    object: PathBuf,
    /// How often every variant is measured.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// How many packets are sent each time.
    #[arg(long, default_value_t = 200_000)]
    packets: u32,
}

/// What the kernel does with each packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Variant {
    /// Sends and receives it.
    Bare,
    /// A program that does nothing sees it at the sender.
    EmptyEgress,
    /// Programs that do nothing see it at the sender and at the receiver.
    EmptyBoth,
    /// Bulkhead judges and counts it at the sender.
    Egress,
    /// Bulkhead judges and counts it at the sender and at the receiver.
    Both,
    /// nftables does at the sender.
    NftOutput,
    /// nftables does at the sender and at the receiver.
    NftBoth,
    /// As `NftOutput`, with a set of fixed size.
    SizedOutput,
    /// As `NftBoth`, with a set of fixed size.
    SizedBoth,
}

impl Variant {
    const ALL: [Self; 9] = [
        Self::Bare,
        Self::EmptyEgress,
        Self::EmptyBoth,
        Self::Egress,
        Self::Both,
        Self::NftOutput,
        Self::NftBoth,
        Self::SizedOutput,
        Self::SizedBoth,
    ];

    /// Whether the receiver is a member, too.
    fn is_received_by_a_member(self) -> bool {
        matches!(self, Self::EmptyBoth | Self::Both | Self::NftBoth | Self::SizedBoth)
    }

    fn is_empty(self) -> bool {
        matches!(self, Self::EmptyEgress | Self::EmptyBoth)
    }

    /// How the set is declared of the nftables that is at work.
    fn nft(self) -> Option<Set> {
        match self {
            Self::NftOutput | Self::NftBoth => Some(Set::Plain),
            Self::SizedOutput | Self::SizedBoth => Some(Set::Sized),
            _ => None,
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Egress | Self::Both)
    }
}

/// Nanoseconds a packet, one value for each round.
struct Measured {
    pattern: Pattern,
    packets: u32,
    times: [Vec<f64>; Variant::ALL.len()],
}

impl Measured {
    fn of(&self, variant: Variant) -> &[f64] {
        &self.times[variant as usize]
    }
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<Vec<Row>> {
    ensure!(args.rounds >= 3, "an interval needs at least 3 rounds");
    let machine = machine::describe()?;
    let peer = nft::version()?;
    let mut place = Place::new(&args.object, &[Set::Plain, Set::Sized])?;
    let mut rows = Vec::new();
    for pattern in Pattern::ALL {
        let measured = measure(&mut place, pattern, args)
            .with_context(|| format!("measure {}", pattern.told()))?;
        told::table(&measured);
        rows.extend(told::rows(&measured, &peer, &machine));
    }
    Ok(rows)
}

fn measure(place: &mut Place, pattern: Pattern, args: &Args) -> Result<Measured> {
    let mut measured =
        Measured { pattern, packets: args.packets, times: [const { Vec::new() }; _] };
    for round in 0..args.rounds {
        for variant in statistics::shuffled(&Variant::ALL, round) {
            let took = place
                .send(variant, pattern, args.packets)
                .with_context(|| format!("round {round}, {variant:?}"))?;
            measured.times[variant as usize].push(took);
        }
    }
    place.check_nft()?;
    Ok(measured)
}
