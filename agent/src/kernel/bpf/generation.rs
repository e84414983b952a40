//! The generation of the tables, by which the programs know whether a verdict that they keep
//! with a socket is still one.
//!
//! Even: the tables stand. Odd: they change, and the programs look everything up. It is odd
//! before the first entry changes and even, and another one, after the last; so an agent that is
//! killed in between leaves programs that are slower, and never wrong.
#![expect(unsafe_code, reason = "the kernel's memory, mapped")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::{self, Point};

/// The one entry of the map GENERATION, shared with the programs.
#[derive(Clone, Debug)]
pub(super) struct Generation(Arc<Mapped>);

#[derive(Debug)]
struct Mapped(NonNull<AtomicU64>);

// SAFETY: all that is done with the pointer is atomic.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Generation {
    /// Maps the entry, and begins a new generation: what was kept before, or in a change that
    /// nobody ended, is looked up again.
    ///
    /// # Safety
    ///
    /// `map` is an array of one `u64` that was made with `BPF_F_MMAPABLE`.
    pub(super) unsafe fn map(map: &OwnedFd) -> io::Result<Self> {
        let (length, access) = (size_of::<u64>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping, which overlaps nothing.
        let start = unsafe {
            let nowhere = std::ptr::null_mut();
            libc::mmap(nowhere, length, access, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let generation = Self(Arc::new(Mapped(start)));
        drop(generation.change());
        Ok(generation)
    }

    /// To be held while the tables change. Only one agent has the tables, and one thread of it.
    #[must_use = "the change lasts for as long as this is held"]
    pub(super) fn change(&self) -> Changing<'_> {
        self.0.word().fetch_or(1, Ordering::SeqCst);
        faults::pass(Point::GenerationBegun);
        Changing(self.0.word())
    }
}

impl Mapped {
    const fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped for as long as `self` lives, aligned to a page; the programs only read.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<u64>()) };
    }
}

/// The tables change.
#[derive(Debug)]
pub(super) struct Changing<'a>(&'a AtomicU64);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // The next even one, also where a change inside this one has begun a new generation.
        let next = |generation: u64| Some((generation | 1).wrapping_add(1));
        faults::pass(Point::GenerationEnds);
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }
}
