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

    /// From how it is stored.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.code() == code)
    }

    /// An empty set.
    pub(crate) const fn none() -> Families {
        Families([false; 6])
    }
}

/// A set of families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Families([bool; 6]);

impl Families {
    /// Puts in the family of a meter.
    pub(crate) fn add(&mut self, meter: Meter) {
        let family = Family::of(meter);
        for (member, has) in Family::ALL.iter().zip(&mut self.0) {
            *has |= Some(*member) == family;
        }
    }

    /// Its members.
    pub(crate) fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().zip(self.0).filter_map(|(family, has)| has.then_some(family))
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
            assert_eq!(Family::from_code(family.code()), Some(family));
        }
        assert_eq!(Family::from_code(0), None);
    }
}
