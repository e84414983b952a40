//! What was measured, as rows and for people who watch.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

use bulkhead_tests::bench::Row;
use bulkhead_tests::bench::statistics::{
    Estimate, TOLERATED_SPREAD, differences, median, median_estimate, median_ratio, minimum, spread,
};

use super::{ADDRESSES, Measured, Variant};

/// A goal: ours, the peer's, and how much of the peer's cost ours may be.
struct Goal {
    ours: Variant,
    peer: Variant,
    /// The peer with a set of fixed size.
    sized: Variant,
    /// Programs that do nothing.
    empty: Variant,
    what: &'static str,
    hooks: &'static str,
    at_most: f64,
}

const GOALS: [Goal; 2] = [
    Goal {
        ours: Variant::Egress,
        peer: Variant::NftOutput,
        sized: Variant::SizedOutput,
        empty: Variant::EmptyEgress,
        what: "egress",
        hooks: "output",
        at_most: 0.5,
    },
    Goal {
        ours: Variant::Both,
        peer: Variant::NftBoth,
        sized: Variant::SizedBoth,
        empty: Variant::EmptyBoth,
        what: "both directions",
        hooks: "input + output",
        at_most: 0.6,
    },
];

/// One row for each goal.
pub(super) fn rows(measured: &Measured, peer: &str, machine: &str) -> Vec<Row> {
    GOALS.iter().map(|goal| row(measured, goal, peer, machine)).collect()
}

fn row(measured: &Measured, goal: &Goal, peer: &str, machine: &str) -> Row {
    let bare = measured.of(Variant::Bare);
    let cost = |variant| differences(measured.of(variant), bare);
    let ours = cost(goal.ours);
    // The cheaper one: nobody would take the other for speed.
    let (plain, sized) = (cost(goal.peer), cost(goal.sized));
    let (theirs, set) = if median(&sized) < median(&plain) {
        (sized, "a set declared with its size")
    } else {
        (plain, "a set declared with its type only")
    };
    let (our, their) = (median_estimate(&ours), median_estimate(&theirs));
    let quiet = spread(bare) <= TOLERATED_SPREAD;
    let ratio = quiet.then(|| median_ratio(&ours, &theirs));
    Row {
        name: format!("added cost per small packet, {}, {}", goal.what, measured.pattern.told()),
        unit: "ns".to_owned(),
        ours: our.value,
        peer: Some(their.value),
        peer_name: Some(format!("{peer}, {}, {set}", goal.hooks)),
        ratio: ratio.map(|ratio| ratio.value),
        goal: format!("≤ {} × nftables {}", goal.at_most, goal.hooks),
        met: ratio.and_then(|ratio| ratio.interval.at_most(goal.at_most)),
        spread: told_spread(measured, our, their, ratio),
        machine: machine.to_owned(),
        note: note(measured, goal, ratio),
        profile: profile(measured, goal),
    }
}

/// What of ours it costs that programs run at all, and what is left for what they do.
fn profile(measured: &Measured, goal: &Goal) -> String {
    let cost = |variant| differences(measured.of(variant), measured.of(Variant::Bare));
    let does = differences(&cost(goal.ours), &cost(goal.empty));
    let (empty, does) = (median_estimate(&cost(goal.empty)), median_estimate(&does));
    format!(
        "programs that do nothing, attached alike: {:.0} ns ({:.0}); judging and counting: {:.0} \
         ns ({:.0}), of which the rows of the verdict's table tell each program's time",
        empty.value, empty.interval, does.value, does.interval
    )
}

fn told_spread(
    measured: &Measured,
    ours: Estimate,
    theirs: Estimate,
    ratio: Option<Estimate>,
) -> String {
    let bare = measured.of(Variant::Bare);
    let ratio = ratio.map_or(String::new(), |ratio| format!(", ratio {:.2}", ratio.interval));
    format!(
        "95 % intervals: ours {:.0}, peer {:.0}{ratio}; {} rounds of {} packets; bare packet \
         {:.0} ns, its quartiles {:.1} % apart",
        ours.interval,
        theirs.interval,
        bare.len(),
        measured.packets,
        median(bare),
        spread(bare) * 100.0
    )
}

fn note(measured: &Measured, goal: &Goal, ratio: Option<Estimate>) -> String {
    let cost = |variant| median(&differences(measured.of(variant), measured.of(Variant::Bare)));
    let mut note = format!(
        "{ADDRESSES} addresses; UDP, 60 bytes with headers, over veth on one CPU; {}; programs \
         that do nothing cost {:.0} ns of it; nftables with a set declared with its type only \
         {:.0} ns, with its size {:.0} ns",
        measured.pattern.caches(),
        cost(goal.empty),
        cost(goal.peer),
        cost(goal.sized)
    );
    match ratio {
        None => note.push_str("; no ratio: the bare network was too noisy"),
        Some(Estimate { interval, .. })
            if interval.low <= goal.at_most && goal.at_most < interval.high =>
        {
            note.push_str("; the interval of the ratio holds the goal: too close to be sure");
        }
        Some(_) => {}
    }
    note
}

/// Shows a person what was measured.
pub(super) fn table(measured: &Measured) {
    let bare = measured.of(Variant::Bare);
    eprintln!("network: {}", measured.pattern.told());
    for variant in Variant::ALL {
        let times = measured.of(variant);
        let cost = median_estimate(&differences(times, bare));
        eprintln!(
            "  {:<12} {:>6.0} ns a packet (minimum {:.0}), {:>+5.0} ns ({:.0})",
            format!("{variant:?}"),
            median(times),
            minimum(times),
            cost.value,
            cost.interval
        );
    }
}
