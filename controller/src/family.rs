//! Families of meters: what is measured together, and so covered together.

use bulkhead_core::Meter;
use bulkhead_core::meter::Parts;

/// A family of meters. Its code is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Family {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Block devices.
    Io,
    /// Tasks.
    Pids,
    /// Pressure stall time.
    Pressure,
    /// Network traffic.
    Network,
}

impl Family {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Cpu, Self::Memory, Self::Io, Self::Pids, Self::Pressure, Self::Network];

    /// The family of a meter; `None` for one that we do not know.
    pub(crate) fn of(meter: Meter) -> Option<Self> {
        match meter.parts() {
            Parts::Fixed => match meter.code() {
                0..20 => Some(Self::Cpu),
                20..40 => Some(Self::Memory),
                40..60 => Some(Self::Io),
                60..80 => Some(Self::Pids),
                80..100 => Some(Self::Pressure),
                _ => None,
            },
            Parts::Network { .. } | Parts::Calls { .. } => Some(Self::Network),
            Parts::Unknown => None,
        }
    }

    /// As it is stored.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Cpu => 1,
            Self::Memory => 2,
            Self::Io => 3,
            Self::Pids => 4,
            Self::Pressure => 5,
            Self::Network => 6,
        }
    }

    /// An empty set.
    pub(crate) const fn none() -> Families {
        Families(0)
    }
}

/// A set of families: for each of them the bit that its code says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Families(u8);

impl Families {
    /// Puts in the family of a meter.
    pub(crate) fn add(&mut self, meter: Meter) {
        if let Some(family) = Family::of(meter) {
            self.0 |= 1 << family.code();
        }
    }

    /// As it is stored.
    pub(crate) const fn code(self) -> u8 {
        self.0
    }

    /// From how it is stored. What only a later version knows is no member.
    pub(crate) const fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// Whether it has no members.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members.
    pub(crate) fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.0 & (1 << family.code()) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meter_that_we_know_has_a_family_that_its_name_tells() {
        for meter in Meter::FIXED.iter().copied().chain(Meter::all_network()) {
            let name = meter.to_string();
            let expected = match name.split('_').next() {
                Some("cpu") => Family::Cpu,
                Some("memory" | "oom") => Family::Memory,
                Some("io") => Family::Io,
                Some("pids") => Family::Pids,
                Some("pressure") => Family::Pressure,
                _ => Family::Network,
            };
            assert_eq!(Family::of(meter), Some(expected), "{name}");
        }
        assert_eq!(Family::of(Meter::from_code(7)), None);
        assert_eq!(Family::of(Meter::from_code(90_000)), None);
    }

    #[test]
    fn codes_come_back() {
        for family in Family::ALL {
            let set = Families::from_code(1 << family.code());
            assert_eq!(set.iter().collect::<Vec<_>>(), [family]);
        }
        assert_eq!(Families::from_code(0).iter().count(), 0);
        assert!(Families::from_code(0).is_empty());
    }
}
