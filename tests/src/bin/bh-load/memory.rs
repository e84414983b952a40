//! Memory.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};

use crate::{milliseconds, say, wait_for_end_of_input};

/// How much is taken at once.
const CHUNK: usize = 4 << 20;

#[derive(clap::Args)]
pub(crate) struct Amount {
    /// Bytes.
    #[arg(long)]
    bytes: usize,
}

impl Amount {
    /// Takes it, every byte written; `each` sees how much there is after every chunk.
    fn take(&self, mut each: impl FnMut(usize)) -> Vec<Vec<u8>> {
        let mut chunks = Vec::with_capacity(self.bytes / CHUNK + 1);
        let mut taken = 0;
        while taken < self.bytes {
            let size = CHUNK.min(self.bytes - taken);
            chunks.push(black_box(vec![0x55; size]));
            taken += size;
            each(taken);
        }
        chunks
    }
}

pub(crate) fn hog(amount: &Amount) -> Value {
    // Said on the way, because nothing more is said by who is killed.
    let chunks = amount.take(|taken| say(&json!({ "taken": taken })));
    black_box(chunks);
    json!({ "taken": amount.bytes, "survived": true })
}

pub(crate) fn hold(amount: &Amount) -> Value {
    let chunks = amount.take(|_| ());
    let began = Instant::now();
    say(&json!({ "ready": amount.bytes }));
    wait_for_end_of_input();
    black_box(chunks);
    json!({ "bytes": amount.bytes, "held_ms": milliseconds(began) })
}
