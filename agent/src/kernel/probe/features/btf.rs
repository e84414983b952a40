//! Numbers of the kernel's own types and functions, by name.

use std::fs;
use std::io;

/// A kind of type in linux/btf.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// `BTF_KIND_TYPEDEF`
    Typedef = 8,
    /// `BTF_KIND_FUNC`
    Function = 12,
}

const MAGIC: u32 = 0xeb9f;
/// Bytes of `struct btf_type`.
const TYPE: usize = 12;

/// The number of a function or type of the running kernel.
pub(super) fn id(name: &str, kind: Kind) -> io::Result<u32> {
    let bytes = fs::read("/sys/kernel/btf/vmlinux")?;
    let absent = || io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {name}"));
    find(&bytes, name, kind).ok_or_else(absent)
}

fn find(bytes: &[u8], name: &str, kind: Kind) -> Option<u32> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let size = |at: usize| usize::try_from(word(at)?).ok();
    if word(0)? & 0xffff != MAGIC {
        return None;
    }
    let header = size(4)?;
    let types = header + size(8)?;
    let end = types + size(12)?;
    let strings = header + size(16)?;
    let (mut at, mut id) = (types, 1);
    while at < end {
        let info = word(at + 4)?;
        let (this, count) = ((info >> 24) & 0x1f, usize::try_from(info & 0xffff).ok()?);
        if this == kind as u32 {
            let text = bytes.get(strings + size(at)?..)?;
            if text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
                return Some(id);
            }
        }
        at += TYPE + extra(this, count)?;
        id += 1;
    }
    None
}

/// Bytes that follow a type's description.
fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // int, var, decl_tag
        1 | 14 | 17 => 4,
        // array, and each member of a struct or union, variable of a section, 64-bit enumerator
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        // enumerators, and parameters of a function's type
        6 | 13 => 8 * count,
        // pointer, forward, typedef, volatile, const, restrict, function, float, type_tag
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_behind_types_of_every_length() {
        let strings = b"\0int\0pair\0run\0run_\0";
        let mut types = Vec::new();
        let mut push = |words: &[u32]| types.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        push(&[1, 1 << 24, 4, 32]);
        push(&[5, 4 << 24 | 2, 8, 0, 1, 0, 0, 1, 32]);
        push(&[0, 13 << 24, 1]);
        push(&[14, 12 << 24, 3]);
        push(&[10, 12 << 24, 3]);
        let lengths = [0, u32::try_from(types.len()).unwrap()];
        let header = [MAGIC | 1 << 16, 24, lengths[0], lengths[1], lengths[1], 19];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(types);
        bytes.extend(strings);
        assert_eq!(find(&bytes, "run", Kind::Function), Some(5));
        assert_eq!(find(&bytes, "run_", Kind::Function), Some(4));
        assert_eq!(find(&bytes, "int", Kind::Function), None);
        assert_eq!(find(&bytes[..40], "run", Kind::Function), None);
        assert_eq!(find(b"", "run", Kind::Typedef), None);
    }
}
