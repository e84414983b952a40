//! Bytes as decisions: one after the other from the beginning, so that a change of one byte
//! changes one decision. When they are used up, every decision is the first of its choices.

/// What is left to decide with.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// All of an input.
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Whether everything is used up.
    pub const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// One of so many.
    pub fn below(&mut self, count: u8) -> u8 {
        self.byte() % count.max(1)
    }

    /// One of these.
    pub fn of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[usize::from(self.byte()) % N]
    }

    /// Yes or no.
    pub fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A number: small, of any width, or at an edge.
    pub fn number(&mut self) -> u64 {
        let wide = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        match self.below(8) {
            0 | 1 => u64::from(self.byte()),
            2 => wide(self.bytes(2)),
            3 => wide(self.bytes(4)),
            4 => wide(self.bytes(8)),
            5 => u64::MAX - u64::from(self.byte()),
            6 => 1 << self.below(64),
            _ => (1 << self.below(64)) - 1,
        }
    }

    /// Text of at most 255 bytes.
    pub fn text(&mut self) -> String {
        let length = usize::from(self.byte());
        String::from_utf8_lossy(self.bytes(length)).into_owned()
    }
}
