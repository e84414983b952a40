//! Quantities, exactly: integers all the way, no rounding, no floating point.
//!
//! The grammar is that of Kubernetes (`500m`, `2`, `1Gi`, `100M`, `1e3`, `0.5Gi`) and, where an
//! amount may be a part of the node, a percentage with at most two decimals (`12.5%`). Unlike
//! Kubernetes, what is not a whole number of units is refused, not rounded.

use bulkhead_core::BasisPoints;

use crate::object::Quantity;

/// Why a quantity is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuantityError {
    /// It is not in the grammar.
    #[error("\"{text}\" is no quantity; write it like {examples}")]
    Form {
        /// What was written.
        text: String,
        /// What could be.
        examples: &'static str,
    },
    /// It is below zero.
    #[error("\"{text}\" is negative; write 0 or more")]
    Negative {
        /// What was written.
        text: String,
    },
    /// It does not fit in 64 bits of its unit.
    #[error("\"{text}\" is too much: more than {} {unit}", u64::MAX)]
    Overflow {
        /// What was written.
        text: String,
        /// The unit.
        unit: &'static str,
    },
    /// It is no whole number of its unit.
    #[error("\"{text}\" is no whole number of {unit}{hint}")]
    Fraction {
        /// What was written.
        text: String,
        /// The unit.
        unit: &'static str,
        /// A likely mistake.
        hint: &'static str,
    },
    /// It is a percentage, and not between 0 and 100 with at most two decimals.
    #[error("\"{text}\" is no part of a node; write 0% to 100% with at most two decimals")]
    Percent {
        /// What was written.
        text: String,
    },
    /// It is a percentage where only an absolute amount has a meaning.
    #[error("\"{text}\" is a percentage, and this is no part of a node; write it like {examples}")]
    NotPercent {
        /// What was written.
        text: String,
        /// What could be.
        examples: &'static str,
    },
}

/// What a quantity is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unit {
    name: &'static str,
    examples: &'static str,
    /// The unit is 10 to this of what the quantity's number 1 stands for: 9 for nanocores.
    decimals: i32,
}

/// CPU, in nanocores; `1` is a core.
pub const NANOCORES: Unit =
    Unit { name: "nanocores", examples: "\"500m\", \"2\" or \"12.5%\"", decimals: 9 };
/// Memory or data, in bytes.
pub const BYTES: Unit =
    Unit { name: "bytes", examples: "\"100M\", \"1Gi\" or \"12.5%\"", decimals: 0 };
/// Tasks.
pub const TASKS: Unit = Unit { name: "tasks", examples: "512, \"1k\" or \"12.5%\"", decimals: 0 };
/// Bytes in a second.
pub const BYTES_PER_SECOND: Unit =
    Unit { name: "bytes per second", examples: "\"100M\" or \"1Gi\"", decimals: 0 };
/// Operations in a second.
pub const OPERATIONS_PER_SECOND: Unit =
    Unit { name: "operations per second", examples: "500 or \"1k\"", decimals: 0 };

/// A quantity as a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// This many units.
    Absolute(u64),
    /// This part of the node.
    OfNode(BasisPoints),
}

/// The measure of a quantity; `None` where it is zero.
pub fn measure(quantity: &Quantity, unit: Unit) -> Result<Option<Measure>, QuantityError> {
    let text = quantity.to_string();
    if let Some(number) = text.strip_suffix('%') {
        return percent(number, &text);
    }
    let units = absolute(&text, unit)?;
    Ok((units != 0).then_some(Measure::Absolute(units)))
}

/// As [`measure`], where a percentage has no meaning.
pub fn measure_absolute(quantity: &Quantity, unit: Unit) -> Result<Option<u64>, QuantityError> {
    let text = quantity.to_string();
    if text.ends_with('%') {
        return Err(QuantityError::NotPercent { text, examples: unit.examples });
    }
    let units = absolute(&text, unit)?;
    Ok((units != 0).then_some(units))
}

fn percent(number: &str, text: &str) -> Result<Option<Measure>, QuantityError> {
    let refused = || QuantityError::Percent { text: text.to_owned() };
    let decimal = Decimal::parse(number).ok_or_else(refused)?;
    if decimal.negative {
        return Err(QuantityError::Negative { text: text.to_owned() });
    }
    let points = decimal.scaled(2, 0).ok().flatten().ok_or_else(refused)?;
    if points == 0 {
        return Ok(None);
    }
    let points = u32::try_from(points).ok().and_then(BasisPoints::new).ok_or_else(refused)?;
    Ok(Some(Measure::OfNode(points)))
}

/// What a suffix multiplies with.
#[derive(Clone, Copy)]
enum Scale {
    /// 10 to this.
    Ten(i32),
    /// 2 to this.
    Two(u32),
}

fn absolute(text: &str, unit: Unit) -> Result<u64, QuantityError> {
    let form = || QuantityError::Form { text: text.to_owned(), examples: unit.examples };
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let decimal = Decimal::parse(number).ok_or_else(form)?;
    let scale = scale(suffix).ok_or_else(form)?;
    if decimal.negative {
        return Err(QuantityError::Negative { text: text.to_owned() });
    }
    let overflow = || QuantityError::Overflow { text: text.to_owned(), unit: unit.name };
    let units = match scale {
        Scale::Ten(power) => decimal.scaled(power.saturating_add(unit.decimals), 0),
        Scale::Two(power) => decimal.scaled(unit.decimals, power),
    };
    match units {
        Ok(Some(units)) => u64::try_from(units).map_err(|_| overflow()),
        Ok(None) => {
            let hint = match suffix {
                "m" => "; the suffix m stands for thousandths, M for millions",
                _ => "",
            };
            Err(QuantityError::Fraction { text: text.to_owned(), unit: unit.name, hint })
        }
        Err(TooMuch) => Err(overflow()),
    }
}

fn scale(suffix: &str) -> Option<Scale> {
    Some(match suffix {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            Scale::Ten(if plain {
                exponent.parse().ok()?
            } else {
                return None;
            })
        }
    })
}

/// More than 128 bits hold.
struct TooMuch;

/// `digits` × 10 to the minus `decimals`.
#[derive(Clone, Copy)]
struct Decimal {
    negative: bool,
    digits: u128,
    decimals: i32,
}

impl Decimal {
    /// From an optional sign and digits with at most one point among or around them. At most 30
    /// digits: more than any quantity has, and few enough for 128 bits.
    fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        // "0." and ".0" are zero, "." and "" are nothing.
        let any = unsigned.bytes().any(|b| b.is_ascii_digit());
        if !any || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            negative: text.starts_with('-'),
            digits: if digits.is_empty() { 0 } else { digits.parse().ok()? },
            decimals: i32::try_from(fraction.len()).ok()?,
        })
    }

    /// The number times 10 to `tens` and 2 to `twos`; `None` where that is not whole.
    fn scaled(self, tens: i32, twos: u32) -> Result<Option<u128>, TooMuch> {
        if self.digits == 0 {
            return Ok(Some(0));
        }
        let tens = tens.saturating_sub(self.decimals);
        let count = tens.unsigned_abs();
        if tens >= 0 {
            let scaled = 10_u128.checked_pow(count).and_then(|ten| self.digits.checked_mul(ten));
            return scaled.and_then(|scaled| doubled(scaled, twos)).map(Some).ok_or(TooMuch);
        }
        // Divided by fives and twos on their own: multiplied first, what is whole in the end
        // might not fit. 5 to the 56 is more than 128 bits hold, so it divides nothing evenly.
        let five = 5_u128.checked_pow(count).filter(|five| self.digits.is_multiple_of(*five));
        let Some(rest) = five.map(|five| self.digits / five) else {
            return Ok(None);
        };
        match twos.checked_sub(count) {
            Some(twos) => doubled(rest, twos).map(Some).ok_or(TooMuch),
            None if rest.trailing_zeros() < count - twos => Ok(None),
            None => Ok(Some(rest >> (count - twos))),
        }
    }
}

/// `number` times 2 to `times`, where 128 bits hold it.
fn doubled(number: u128, times: u32) -> Option<u128> {
    (number.leading_zeros() >= times).then(|| number << times)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, unit: Unit) -> Result<Option<Measure>, QuantityError> {
        measure(&Quantity::Text(text.to_owned()), unit)
    }

    #[track_caller]
    fn absolute_is(text: &str, unit: Unit, units: u64) {
        assert_eq!(of(text, unit), Ok(Some(Measure::Absolute(units))), "{text}");
    }

    #[test]
    fn quantities_are_exact() {
        absolute_is("500m", NANOCORES, 500_000_000);
        absolute_is("2", NANOCORES, 2_000_000_000);
        absolute_is("0.1", NANOCORES, 100_000_000);
        absolute_is("1n", NANOCORES, 1);
        absolute_is("250u", NANOCORES, 250_000);
        absolute_is("1e3", BYTES, 1_000);
        absolute_is("1E3", BYTES, 1_000);
        absolute_is("5e-1", NANOCORES, 500_000_000);
        absolute_is("1E", BYTES, 1_000_000_000_000_000_000);
        absolute_is("15Ei", BYTES, 15 << 60);
        absolute_is("0.5Gi", BYTES, 1 << 29);
        // Whole, although digits times 2 to the 60 are more than 128 bits.
        absolute_is("0.00000000558793544769287109375Ei", BYTES, 3 << 31);
        absolute_is(".5k", TASKS, 500);
        absolute_is("5.", TASKS, 5);
        absolute_is("+1k", TASKS, 1_000);
        absolute_is("100M", BYTES, 100_000_000);
        absolute_is("18446744073709551615", BYTES, u64::MAX);
        absolute_is("1000m", BYTES, 1);
        let integer = measure(&Quantity::Integer(3), NANOCORES);
        assert_eq!(integer, Ok(Some(Measure::Absolute(3_000_000_000))));
    }

    #[test]
    fn percentages_are_basis_points() {
        for (text, points) in [("50%", 5_000), ("12.5%", 1_250), ("0.01%", 1), ("100%", 10_000)] {
            let points = BasisPoints::new(points).unwrap();
            assert_eq!(of(text, BYTES), Ok(Some(Measure::OfNode(points))));
        }
        for text in ["100.01%", "12.345%", "%", "x%", "1e1%", "5 %"] {
            let refused = Err(QuantityError::Percent { text: text.to_owned() });
            assert_eq!(of(text, BYTES), refused, "{text}");
        }
        assert_eq!(of("0%", BYTES), Ok(None));
        assert!(matches!(of("-1%", BYTES), Err(QuantityError::Negative { .. })));
        let percent = measure_absolute(&Quantity::Text("5%".to_owned()), BYTES_PER_SECOND);
        assert!(matches!(percent, Err(QuantityError::NotPercent { .. })));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            " ",
            "NaN",
            "inf",
            "1..2",
            "1.2.3",
            ".",
            "-",
            "m",
            "1 k",
            "1K",
            "1gi",
            "1e",
            "1e+",
            "1e1k",
            "0x10",
            "1_000",
            "--1",
            "1-",
            "1e99999999999",
            "١",
        ] {
            assert!(matches!(of(text, BYTES), Err(QuantityError::Form { .. })), "{text}");
        }
        for text in ["-1", "-0.5", "-1Gi"] {
            assert!(matches!(of(text, BYTES), Err(QuantityError::Negative { .. })), "{text}");
        }
        for text in ["16Ei", "19E", "1e40", "1e2147483647", "18446744073709551616"] {
            assert!(matches!(of(text, BYTES), Err(QuantityError::Overflow { .. })), "{text}");
        }
        for text in ["1m", "0.5", "1e-3", "0.3Ki", "0.12345678901234567890123Ei", "1e-2147483647"] {
            assert!(matches!(of(text, BYTES), Err(QuantityError::Fraction { .. })), "{text}");
        }
        assert!(matches!(of("0.0000000001", NANOCORES), Err(QuantityError::Fraction { .. })));
    }

    #[test]
    fn zero_is_nothing() {
        for text in ["0", "0.0", "0Gi", "0e9", "0n"] {
            assert_eq!(of(text, BYTES), Ok(None), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,12}") {
            let _ = of(&text, NANOCORES);
        }

        #[test]
        fn whole_numbers_with_suffixes(number in 0_u64..1_000_000, power in 0_u32..4) {
            let suffix = ["", "Ki", "Mi", "Gi"][usize::try_from(power).unwrap()];
            let bytes = number << (10 * power);
            let expected = (bytes != 0).then_some(Measure::Absolute(bytes));
            prop_assert_eq!(of(&format!("{number}{suffix}"), BYTES), Ok(expected));
        }

        #[test]
        fn millicores(number in 1_u64..1_000_000_000) {
            let expected = Measure::Absolute(number * 1_000_000);
            prop_assert_eq!(of(&format!("{number}m"), NANOCORES), Ok(Some(expected)));
            let cores = format!("{}.{:03}", number / 1_000, number % 1_000);
            prop_assert_eq!(of(&cores, NANOCORES), Ok(Some(expected)));
        }
    }
}
