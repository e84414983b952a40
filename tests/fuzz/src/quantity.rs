//! Quantities as users write them, against arithmetic on paper: long numbers of decimal digits.

use bulkhead_api::object::Quantity;
use bulkhead_api::quantity::{
    BYTES, BYTES_PER_SECOND, Measure, NANOCORES, QuantityError, TASKS, Unit, measure,
    measure_absolute,
};

/// Units, and the power of ten that 1 stands for.
const UNITS: [(Unit, i32); 4] = [(NANOCORES, 9), (BYTES, 0), (TASKS, 0), (BYTES_PER_SECOND, 0)];

/// Beyond this power of ten the answer is not worked out on paper: no text that is tried has so
/// many digits, so it is a fraction or too much.
const PAPER: i32 = 10_000;

/// What is taken is exactly what was written, and what is refused is refused for what it is.
pub fn any_text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let quantity = Quantity::Text(text.to_owned());
    for (unit, decimals) in UNITS {
        let measured = measure(&quantity, unit);
        match &measured {
            Ok(Some(Measure::Absolute(units))) => {
                assert_eq!(exact(text, decimals), Some(Exact::Whole(units.to_string())));
            }
            Ok(Some(Measure::OfNode(points))) => {
                let number = text.strip_suffix('%').expect("a part of the node is a percentage");
                assert_eq!(exact(number, 2), Some(Exact::Whole(points.get().to_string())));
            }
            Ok(None) => {
                let number = text.strip_suffix('%').unwrap_or(text);
                assert_eq!(exact(number, decimals), Some(Exact::Whole("0".to_owned())));
            }
            Err(QuantityError::Overflow { .. }) => match exact(text, decimals) {
                None => {}
                Some(Exact::Whole(digits)) => assert!(is_more_than_64_bits(&digits), "{digits}"),
                Some(Exact::Fraction) => panic!("\"{text}\" is a fraction, not too much"),
            },
            Err(QuantityError::Fraction { .. }) => {
                assert!(matches!(exact(text, decimals), None | Some(Exact::Fraction)));
            }
            Err(QuantityError::Negative { .. }) => assert!(text.starts_with('-')),
            Err(_) => {}
        }
        let absolute = measure_absolute(&quantity, unit);
        if !text.ends_with('%') {
            let as_measure = absolute.map(|units| units.map(Measure::Absolute));
            assert_eq!(as_measure, measured);
        } else {
            assert!(matches!(absolute, Err(QuantityError::NotPercent { .. })));
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Exact {
    /// Digits without leading zeros.
    Whole(String),
    Fraction,
}

fn is_more_than_64_bits(digits: &str) -> bool {
    let most = u64::MAX.to_string();
    (digits.len(), digits) > (most.len(), most.as_str())
}

/// A number that is known to be well formed, times ten to `decimals`; `None`: too long for paper.
fn exact(text: &str, decimals: i32) -> Option<Exact> {
    let end = text.find(|c: char| !"0123456789.+-".contains(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (doublings, power) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let mut digits: Vec<u8> =
        digits.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    if digits.iter().all(|digit| *digit == 0) {
        return Some(Exact::Whole("0".to_owned()));
    }
    for _ in 0..doublings {
        double(&mut digits);
    }
    let power = power.checked_add(decimals)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if power.abs() > PAPER {
        return None;
    }
    for _ in 0..power {
        digits.push(0);
    }
    for _ in power..0 {
        if digits.pop().unwrap_or(0) != 0 {
            return Some(Exact::Fraction);
        }
    }
    let digits: String = digits.iter().map(|digit| char::from(digit + b'0')).collect();
    Some(Exact::Whole(digits.trim_start_matches('0').to_owned()))
}

fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let doubled = *digit * 2 + carry;
        (*digit, carry) = (doubled % 10, doubled / 10);
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}

/// Doublings and the power of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    const TENS: [(&str, i32); 10] = [
        ("n", -9),
        ("u", -6),
        ("m", -3),
        ("", 0),
        ("k", 3),
        ("M", 6),
        ("G", 9),
        ("T", 12),
        ("P", 15),
        ("E", 18),
    ];
    const TWOS: [(&str, u32); 6] =
        [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
    if let Some((_, power)) = TENS.iter().find(|(name, _)| *name == suffix) {
        return Some((0, *power));
    }
    if let Some((_, doublings)) = TWOS.iter().find(|(name, _)| *name == suffix) {
        return Some((*doublings, 0));
    }
    Some((0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?))
}
