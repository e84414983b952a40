//! As much of the BPF Type Format (Documentation/bpf/btf.rst) as it takes to find where a member
//! is. The kernel describes itself with about 150,000 types; this reads them in place, where a
//! general reader makes a value of each.
#![expect(unsafe_code, reason = "memmem(3)")]

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

const MAGIC: u16 = 0xeb9f;
/// Bytes of every type before what is particular to its kind.
const HEAD: usize = 12;

const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const ENUM64: u32 = 19;

/// The kernel's own types.
#[derive(Debug)]
pub(super) struct Btf {
    data: Vec<u8>,
    /// Where each type begins; number 0 is `void`, which is not in the file.
    types: Vec<u32>,
    strings: Range<usize>,
}

/// A member of a structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    /// Bytes from the structure's beginning.
    pub(super) offset: u32,
    /// Whether it points to what it is.
    pub(super) is_pointer: bool,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    count: usize,
    /// Offsets of members carry sizes of bit fields, too.
    has_bit_fields: bool,
    /// A size, or another type's number.
    size_or_number: u32,
}

impl Btf {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "it is no BTF");
        Self::parse(fs::read(path)?).ok_or_else(broken)
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        if u16::from_ne_bytes(data.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let at = |offset| word(&data, offset).and_then(|word| usize::try_from(word).ok());
        let body = at(4)?;
        let (types_at, types_length) = (body + at(8)?, at(12)?);
        let strings = body + at(16)?..body + at(16)? + at(20)?;
        data.get(strings.clone())?;
        let mut types = vec![0];
        let mut next = types_at;
        while next < types_at + types_length {
            types.push(u32::try_from(next).ok()?);
            let one = type_at(&data, next)?;
            next += HEAD + tail(one.kind, one.count)?;
        }
        Some(Self { data, types, strings })
    }

    /// Where `path` ("bstat.cputime.stime") is in a structure, through structures within it.
    pub(super) fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let name = self.name(structure)?;
        let mut named = self.all().filter(|one| one.kind == STRUCT && one.name == name);
        named.find_map(|one| self.walk(one, path))
    }

    /// The value of an enumerator, whatever enumeration it is of.
    pub(super) fn enumerator(&self, name: &str) -> Option<u32> {
        let name = self.name(name)?;
        self.all().find_map(|one| {
            let length = match one.kind {
                ENUM => 8,
                ENUM64 => 12,
                _ => return None,
            };
            let mut places = (0..one.count).map(|index| one.at + HEAD + index * length);
            let place = places.find(|place| word(&self.data, *place) == Some(name))?;
            word(&self.data, place + 4)
        })
    }

    /// The number of a function, by which a program is attached to it.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let name = self.name(name)?;
        let found = self.all().position(|one| one.kind == FUNC && one.name == name)?;
        u32::try_from(found + 1).ok()
    }

    fn all(&self) -> impl Iterator<Item = Type> + '_ {
        let places = self.types.iter().skip(1);
        places.filter_map(|at| type_at(&self.data, usize::try_from(*at).ok()?))
    }

    fn by_number(&self, number: u32) -> Option<Type> {
        let at = self.types.get(usize::try_from(number).ok()?)?;
        type_at(&self.data, usize::try_from(*at).ok().filter(|at| *at > 0)?)
    }

    /// A type without names and qualifiers before it.
    fn resolve(&self, mut number: u32) -> Option<Type> {
        loop {
            let one = self.by_number(number)?;
            // volatile, const, restrict, type tags
            if !matches!(one.kind, TYPEDEF..=11 | 18) {
                return Some(one);
            }
            number = one.size_or_number;
        }
    }

    fn walk(&self, structure: Type, path: &str) -> Option<Member> {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        let first_name = self.name(first)?;
        (0..structure.count).find_map(|index| {
            let at = structure.at + HEAD + index * 12;
            let bits = word(&self.data, at + 8)?;
            let bits = if structure.has_bit_fields { bits & 0x00ff_ffff } else { bits };
            let kind = self.resolve(word(&self.data, at + 4)?)?;
            let below = match (word(&self.data, at)?, rest) {
                // Members of a nameless structure are this one's.
                (0, _) if matches!(kind.kind, STRUCT | UNION) => self.walk(kind, path)?,
                (name, Some(rest)) if name == first_name => self.walk(kind, rest)?,
                (name, None) if name == first_name => {
                    Member { offset: 0, is_pointer: kind.kind == PTR }
                }
                _ => return None,
            };
            Some(Member { offset: below.offset + bits / 8, ..below })
        })
    }

    /// Where a name is among the strings, which holds each once.
    fn name(&self, name: &str) -> Option<u32> {
        let strings = &self.data[self.strings.clone()];
        let wanted = [&[0], name.as_bytes(), &[0]].concat();
        u32::try_from(position(strings, &wanted)? + 1).ok()
    }
}

/// Where `part` begins in `all`: libc has a quick way, and there are megabytes.
fn position(all: &[u8], part: &[u8]) -> Option<usize> {
    let (start, length) = (all.as_ptr(), all.len());
    // SAFETY: both are slices of these lengths, and memmem only reads.
    let found = unsafe { libc::memmem(start.cast(), length, part.as_ptr().cast(), part.len()) };
    (!found.is_null()).then(|| found.addr() - start.addr())
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn type_at(data: &[u8], at: usize) -> Option<Type> {
    let info = word(data, at + 4)?;
    Some(Type {
        at,
        name: word(data, at)?,
        kind: info >> 24 & 0x1f,
        count: usize::try_from(info & 0xffff).ok()?,
        has_bit_fields: info >> 31 == 1,
        size_or_number: word(data, at + 8)?,
    })
}

/// Bytes behind the head.
const fn tail(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        STRUCT | UNION | 15 | ENUM64 => 12 * count,
        ENUM | 13 => 8 * count,
        PTR | 7..=12 | 16 | 18 => 0,
        // A kind that is newer than this reader has a length that nobody knows here.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a file of types and strings.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            let at = self.strings.len();
            self.strings.extend(name.bytes().chain([0]));
            u32::try_from(at).unwrap()
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }

        fn file(self) -> Vec<u8> {
            let (types, strings) = (self.types.len(), self.strings.len());
            let words = [24, 0, types, types, strings].map(|word| u32::try_from(word).unwrap());
            let head = MAGIC.to_ne_bytes().into_iter().chain([1, 0]);
            let head = head.chain(words.into_iter().flat_map(u32::to_ne_bytes));
            head.chain(self.types).chain(self.strings).collect()
        }
    }

    #[test]
    fn members_are_found_through_nested_and_nameless_structures() {
        let mut file = Builder::default();
        let [inner, outer, x, y, p, e] =
            ["inner", "outer", "x", "y", "p", "E_ONE"].map(|name| file.name(name));
        // 1: int; 2: struct inner { int x; int y; }; 3: pointer to 2; 4: typedef of 2
        file.words(&[x, 1 << 24, 4, 32]);
        file.words(&[inner, 4 << 24 | 2, 8, x, 1, 0, y, 1, 32]);
        file.words(&[0, 2 << 24, 2]);
        file.words(&[inner, 8 << 24, 2]);
        // 5: struct outer { inner p; (nameless) struct inner; struct inner *e; }
        file.words(&[outer, 4 << 24 | 3, 24, p, 4, 64, 0, 2, 0, e, 3, 128]);
        // 6: enum { E_ONE = 7 }; 7: function y
        file.words(&[0, 6 << 24 | 1, 4, e, 7]);
        file.words(&[y, 12 << 24, 1]);
        let btf = Btf::parse(file.file()).unwrap();
        let at = |path| btf.member("outer", path);
        let plain = |offset| Some(Member { offset, is_pointer: false });
        assert_eq!(at("p.y"), plain(12));
        assert_eq!(at("y"), plain(4), "of the nameless one");
        assert_eq!(at("E_ONE"), Some(Member { offset: 16, is_pointer: true }));
        assert_eq!(at("p.z"), None);
        assert_eq!(btf.member("nothing", "x"), None);
        assert_eq!(btf.enumerator("E_ONE"), Some(7));
        assert_eq!(btf.function("y"), Some(7));
        assert_eq!(btf.function("x"), None);
    }

    #[test]
    fn what_is_no_btf_is_refused_and_never_read_beyond_its_end() {
        assert!(Btf::parse(Vec::new()).is_none());
        assert!(Btf::parse(vec![0; 64]).is_none());
        let mut file = Builder::default();
        let name = file.name("s");
        file.words(&[name, 4 << 24 | 9, 8, name, 1, 0]);
        let whole = file.file();
        for length in 0..whole.len() {
            if let Some(btf) = Btf::parse(whole[..length].to_vec()) {
                assert_eq!(btf.member("s", "t"), None);
            }
        }
        let mut file = Builder::default();
        file.words(&[0, 31 << 24, 0]);
        assert!(Btf::parse(file.file()).is_none(), "a kind that nobody knows");
    }
}
