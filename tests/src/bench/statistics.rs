//! Medians, spreads and confidence intervals of measurements that were made in paired rounds.
//!
//! Nothing here supposes a distribution: what a shared machine adds to a measurement is one-sided
//! and comes in bursts. Intervals are those of the percentile bootstrap over whole rounds, so
//! that what belongs to one round stays together; the generator is seeded, so that the same
//! measurements always give the same interval.
#![expect(clippy::float_arithmetic, reason = "statistics of measurements")]

use std::fmt;

/// A ratio is not told where the baseline's own spread is larger.
pub const TOLERATED_SPREAD: f64 = 0.10;

/// How often a bootstrap draws.
const DRAWS: usize = 4_000;

/// The share of draws inside an interval.
const CONFIDENCE: f64 = 0.95;

/// Where a value lies with 95 % confidence.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = formatter.precision().unwrap_or(0);
        write!(formatter, "{:.digits$} to {:.digits$}", self.low, self.high)
    }
}

/// A value and where it lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The value that the measurements give.
    pub value: f64,
    /// Where it lies with 95 % confidence.
    pub interval: Interval,
}

impl Interval {
    /// The middle half of the values.
    ///
    /// # Panics
    ///
    /// Without values there is none.
    pub fn middle_half(values: &[f64]) -> Self {
        Self { low: quantile(values, 0.25), high: quantile(values, 0.75) }
    }

    /// Whether what lies here is at most that much. `None`: the limit lies inside.
    pub fn at_most(self, limit: f64) -> Option<bool> {
        let sure = self.high <= limit || self.low > limit;
        sure.then_some(self.high <= limit)
    }

    /// Whether what lies here is at least that much. `None`: the limit lies inside.
    pub fn at_least(self, limit: f64) -> Option<bool> {
        let sure = self.low >= limit || self.high < limit;
        sure.then_some(self.low >= limit)
    }
}

/// The value at a share of the sorted values, between 0 and 1, interpolated.
///
/// # Panics
///
/// Without values there is none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    assert!(!values.is_empty(), "no measurement has no quantile");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, share)
}

/// The median.
///
/// # Panics
///
/// Without values there is none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value.
pub fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The half of the values in the middle spans this share of the median.
///
/// # Panics
///
/// Without values there is none.
pub fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / median(values)
}

/// Differences, round by round.
pub fn differences(ours: &[f64], base: &[f64]) -> Vec<f64> {
    ours.iter().zip(base).map(|(ours, base)| ours - base).collect()
}

/// The median of what was measured round by round.
///
/// # Panics
///
/// Without values there is none.
pub fn median_estimate(values: &[f64]) -> Estimate {
    estimate(values.len(), |rounds| median(&picked(values, rounds)))
}

/// The ratio of two medians of what was measured in the same rounds.
///
/// # Panics
///
/// Both have values of the same rounds.
pub fn median_ratio(ours: &[f64], peer: &[f64]) -> Estimate {
    assert_eq!(ours.len(), peer.len(), "both were measured in every round");
    estimate(ours.len(), |rounds| median(&picked(ours, rounds)) / median(&picked(peer, rounds)))
}

/// What `of` makes of all rounds, and where it lies when rounds are drawn again and again.
fn estimate(rounds: usize, of: impl Fn(&[usize]) -> f64) -> Estimate {
    let all: Vec<usize> = (0..rounds).collect();
    let mut random = Random::new(0x5eed_0fbe_9c41_2026);
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let again: Vec<usize> = all.iter().map(|_| random.below(rounds)).collect();
            of(&again)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let outside = (1.0 - CONFIDENCE) / 2.0;
    let interval =
        Interval { low: of_sorted(&drawn, outside), high: of_sorted(&drawn, 1.0 - outside) };
    Estimate { value: of(&all), interval }
}

fn picked(values: &[f64], rounds: &[usize]) -> Vec<f64> {
    rounds.iter().map(|round| values[*round]).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an index between 0 and the number of values, which is far below 2^52"
)]
fn of_sorted(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The order of things inside a round: another one each time, so that none always comes first or
/// always after the same neighbour.
pub fn shuffled<T: Copy>(things: &[T], round: u32) -> Vec<T> {
    let mut order = things.to_vec();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15 ^ u64::from(round));
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

/// Numbers that look random and are the same in every run (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed | 1);
        // Seeds that are alike begin alike.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next number, of 32 bits.
    #[expect(clippy::should_implement_trait, reason = "it has no end, so it is no iterator")]
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        u32::try_from(high).unwrap_or(u32::MAX)
    }

    /// The next number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let scaled = (u64::from(self.next()) * end as u64) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(seen: f64, wanted: f64) {
        assert!((seen - wanted).abs() < 1e-9, "{seen} is not {wanted}");
    }

    #[test]
    fn a_goal_inside_the_interval_is_neither_met_nor_missed() {
        let interval = Interval { low: 0.4, high: 0.6 };
        assert_eq!(
            [0.6, 0.5, 0.3].map(|most| interval.at_most(most)),
            [Some(true), None, Some(false)]
        );
        assert_eq!(
            [0.4, 0.5, 0.7].map(|least| interval.at_least(least)),
            [Some(true), None, Some(false)]
        );
        let half = Interval::middle_half(&[0.0, 10.0]);
        near(half.low, 2.5);
        near(half.high, 7.5);
    }

    #[test]
    fn quantiles_are_interpolated() {
        near(median(&[3.0, 1.0, 2.0]), 2.0);
        near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        near(quantile(&[0.0, 10.0], 0.25), 2.5);
        near(spread(&[90.0, 95.0, 100.0, 105.0, 110.0]), 0.10);
    }

    #[test]
    fn what_all_rounds_share_cancels_out() {
        // A machine that gets slower from round to round, and a cost of 100 to 104 on top.
        let base: Vec<f64> = (0..20).map(|round| 1000.0 + 50.0 * f64::from(round)).collect();
        let ours: Vec<f64> =
            base.iter().zip(0..).map(|(base, round)| base + 100.0 + f64::from(round % 5)).collect();
        let cost = median_estimate(&differences(&ours, &base));
        near(cost.value, 102.0);
        assert!(cost.interval.low >= 100.0 && cost.interval.high <= 104.0, "{cost:?}");
        assert!(cost.interval.low < cost.interval.high, "{cost:?}");
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_interval_holds_it() {
        let peer: Vec<f64> = (0..15).map(|round| 400.0 + f64::from(round % 7)).collect();
        let ours: Vec<f64> = peer.iter().map(|peer| peer / 2.0).collect();
        let ratio = median_ratio(&ours, &peer);
        near(ratio.value, 0.5);
        assert!(ratio.interval.low <= 0.5 && 0.5 <= ratio.interval.high, "{ratio:?}");
        assert_eq!(ratio, median_ratio(&ours, &peer), "the same rounds, the same interval");
    }

    #[test]
    fn every_round_has_everything_in_another_order() {
        let things = [1, 2, 3, 4, 5];
        let orders: std::collections::BTreeSet<Vec<i32>> =
            (0..50).map(|round| shuffled(&things, round)).collect();
        assert!(orders.len() > 20, "{} orders of 50", orders.len());
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, things);
        }
    }

    #[test]
    fn random_numbers_reach_every_place_below_their_end() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[random.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }
}
