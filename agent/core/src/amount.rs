//! Amounts of resources, absolute or as a part of the node.

use std::fmt;

/// CPU: 1 core is 1,000,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NanoCores(pub u64);

/// Memory or data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(pub u64);

/// Tasks (processes and threads), as pids.max counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Pids(pub u64);

/// Hundredths of a percent, 1 to 10,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BasisPoints(u32);

impl BasisPoints {
    /// All of it: 100 %.
    pub const WHOLE: u32 = 10_000;

    /// `None` for 0 and for more than 100 %.
    pub const fn new(points: u32) -> Option<Self> {
        if points == 0 || points > Self::WHOLE { None } else { Some(Self(points)) }
    }

    /// Hundredths of a percent.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// That part of `whole`, rounded down.
    pub const fn of(self, whole: u64) -> u64 {
        let part = whole as u128 * self.0 as u128 / Self::WHOLE as u128;
        // At most `whole`, which is a u64.
        #[expect(clippy::cast_possible_truncation, reason = "a part is not more than the whole")]
        {
            part as u64
        }
    }
}

/// An amount of `T`, absolute or as a part of what the node has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Amount<T> {
    /// This much.
    Absolute(T),
    /// This part of the node.
    OfNode(BasisPoints),
}

macro_rules! resolve {
    ($unit:ident) => {
        impl Amount<$unit> {
            /// The absolute amount on a node that has `whole`.
            pub const fn on(self, whole: $unit) -> $unit {
                match self {
                    Self::Absolute(amount) => amount,
                    Self::OfNode(part) => $unit(part.of(whole.0)),
                }
            }
        }
    };
}
resolve!(NanoCores);
resolve!(Bytes);
resolve!(Pids);

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            rest => write!(f, "{}.{rest:02}%", self.0 / 100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_down_and_never_overflow() {
        let half = BasisPoints::new(5_000).unwrap();
        assert_eq!(half.of(u64::MAX), u64::MAX / 2);
        assert_eq!(BasisPoints::new(1).unwrap().of(9_999), 0);
        assert_eq!(BasisPoints::new(10_000).unwrap().of(7), 7);
        assert_eq!(BasisPoints::new(0), None);
        assert_eq!(BasisPoints::new(10_001), None);
    }

    #[test]
    fn absolute_amounts_do_not_depend_on_the_node() {
        assert_eq!(Amount::Absolute(Bytes(5)).on(Bytes(1)), Bytes(5));
        let quarter = Amount::<Pids>::OfNode(BasisPoints::new(2_500).unwrap());
        assert_eq!(quarter.on(Pids(100)), Pids(25));
    }

    #[test]
    fn percent_is_shown_as_people_write_it() {
        assert_eq!(BasisPoints::new(2_500).unwrap().to_string(), "25%");
        assert_eq!(BasisPoints::new(1_205).unwrap().to_string(), "12.05%");
    }
}
