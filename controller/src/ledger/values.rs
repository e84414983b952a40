//! What a series stood at in one window, packed into one value of SQLite.
//!
//! A counter is kept as its highest so far: what was seen of it in this window or in any before,
//! so that one row says what all of them stood at, at an instant. A gauge is kept as it was in
//! this window, and is not there where it was not seen.

use bulkhead_core::Meter;
use bulkhead_core::meter::Kind;

/// Bits of a number in one byte of its packed form; the byte's highest bit says that more follow.
const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

/// Values of meters, by meter, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Values(Vec<(Meter, u64)>);

impl Values {
    /// All of them, by meter.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Meter, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Those of one kind, by meter.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = (Meter, u64)> + '_ {
        self.iter().filter(move |(meter, _)| meter.kind() == kind)
    }

    /// What the next window begins with: the counters, which go on.
    pub(super) fn carried(mut self) -> Self {
        self.0.retain(|(meter, _)| meter.kind() == Kind::Counter);
        self
    }

    /// Takes in values, which come by meter: the higher one of each stays. Whether any changed.
    pub(super) fn raise(&mut self, with: impl IntoIterator<Item = (Meter, u64)>) -> bool {
        let mut changed = false;
        let mut at = 0;
        for (meter, value) in with {
            while self.0.get(at).is_some_and(|(known, _)| *known < meter) {
                at += 1;
            }
            match self.0.get_mut(at) {
                Some((known, highest)) if *known == meter => {
                    changed |= *highest < value;
                    *highest = value.max(*highest);
                }
                _ => {
                    self.0.insert(at, (meter, value));
                    changed = true;
                }
            }
        }
        changed
    }

    /// Packs them: for each, how far its meter's code is above the one before, and the value.
    pub(super) fn pack(&self, into: &mut Vec<u8>) {
        into.clear();
        let mut before = 0;
        for (meter, value) in self.iter() {
            put(into, u64::from(meter.code() - before));
            put(into, value);
            before = meter.code();
        }
    }

    /// Takes apart what [`Values::pack`] made; `None`: it did not.
    pub(super) fn unpack(mut packed: &[u8]) -> Option<Self> {
        let mut values = Vec::with_capacity(packed.len() / 4);
        let mut code = 0_u32;
        while !packed.is_empty() {
            let above = u32::try_from(take(&mut packed)?).ok()?;
            if above == 0 {
                return None;
            }
            code = code.checked_add(above)?;
            values.push((Meter::from_code(code), take(&mut packed)?));
        }
        Some(Self(values))
    }
}

/// Low bits first.
fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= u64::from(MORE) {
        into.push(number.to_le_bytes()[0] | MORE);
        number >>= BITS;
    }
    into.push(number.to_le_bytes()[0]);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        let bits = u64::from(byte & !MORE);
        let shifted = bits << shift;
        if shifted >> shift != bits {
            return None;
        }
        number |= shifted;
        if byte & MORE == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = BTreeMap<Meter, u64>> {
        let value = prop_oneof![any::<u64>(), 0_u64..300, Just(u64::MAX)];
        proptest::collection::btree_map(1_u32.., value, 0..40)
            .prop_map(|map| map.into_iter().map(|(code, v)| (Meter::from_code(code), v)).collect())
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(map in values()) {
            let mut values = Values::default();
            values.raise(map.clone());
            let mut packed = vec![9];
            values.pack(&mut packed);
            let back = Values::unpack(&packed).expect("it was packed");
            prop_assert_eq!(back.iter().collect::<BTreeMap<_, _>>(), map);
        }

        #[test]
        fn any_bytes_are_values_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(values) = Values::unpack(&bytes) {
                let codes: Vec<u32> = values.iter().map(|(meter, _)| meter.code()).collect();
                prop_assert!(codes.is_sorted_by(|a, b| a < b) && !codes.contains(&0));
            }
        }

        #[test]
        fn the_higher_value_stays(a in values(), b in values()) {
            let (mut one, mut other) = (Values::default(), Values::default());
            one.raise(a.clone());
            one.raise(b.clone());
            other.raise(b.clone());
            other.raise(a.clone());
            prop_assert_eq!(&one, &other);
            prop_assert!(!one.raise(a.clone()));
            for (meter, value) in one.iter() {
                prop_assert_eq!(Some(value), a.get(&meter).max(b.get(&meter)).copied());
            }
        }
    }
}
