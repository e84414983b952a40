//! The verdict of a socket's peer, kept with the socket, so that an established connection costs
//! no table look-up however many addresses are known.
//!
//! Only what passes is kept: a packet that is to be dropped is judged by the tables each time.
//! What is kept is never changed in place, since two CPUs may work for one socket: it is replaced
//! whole. A socket with many peers keeps one of them, and looks up the others.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    programs::SkBuffContext,
};
use bulkhead_abi::Address;

use crate::maps::{GENERATION, SOCKETS};

/// A verdict to pass.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    /// The tables that it was found in.
    generation: u64,
    /// The virtual cluster's cgroup.
    pub(crate) cgroup: u64,
    /// The peer.
    far: Address,
    /// Where it is counted, within its direction.
    pub(crate) cell: u32,
    padding: u32,
}

/// What the tables are now; `None` while they change.
///
/// Must be read before anything is looked up: what is found then is at least as new.
#[inline(always)]
pub(crate) fn generation() -> Option<u64> {
    let generation = GENERATION.get_ptr(0)?;
    // SAFETY: the pointer is to a map value; the agent stores whole words.
    let generation = unsafe { generation.read_volatile() };
    (generation & 1 == 0).then_some(generation)
}

/// What is known of the packet's socket, if it is of this generation and this peer.
#[inline(always)]
pub(crate) fn recall(
    ctx: &SkBuffContext,
    generation: u64,
    far: &Address,
) -> Option<&'static Remembered> {
    let kept = storage(ctx, None)?;
    (kept.generation == generation && kept.far == *far).then_some(kept)
}

/// Keeps that packets between the socket and this peer pass, unless it keeps another peer's.
#[inline(always)]
pub(crate) fn remember(
    ctx: &SkBuffContext,
    generation: u64,
    cgroup: u64,
    far: &Address,
    cell: u32,
) {
    if let Some(kept) = storage(ctx, None) {
        if kept.generation == generation {
            return;
        }
        forget(ctx);
    }
    let kept = Remembered { generation, cgroup, far: *far, cell, padding: 0 };
    let _ = storage(ctx, Some(&kept));
}

/// The socket's storage; with a value, makes it where there is none.
#[inline(always)]
fn storage(ctx: &SkBuffContext, new: Option<&Remembered>) -> Option<&'static Remembered> {
    // SAFETY: `sk` of the program's own context; the kernel takes no socket that is not full.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    let (value, flags) = match new {
        Some(new) => (core::ptr::from_ref(new), u64::from(BPF_SK_STORAGE_GET_F_CREATE)),
        None => (core::ptr::null(), 0),
    };
    // SAFETY: `value` is null or as large as the map's value; what comes back is null or lives
    // until this program ends, since the kernel frees it only after a grace period.
    unsafe {
        bpf_sk_storage_get(map(), sk.cast(), value.cast_mut().cast(), flags)
            .cast::<Remembered>()
            .as_ref()
    }
}

#[inline(always)]
fn forget(ctx: &SkBuffContext) {
    // SAFETY: as in `storage`.
    unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if !sk.is_null() {
            // What another CPU has taken away already is gone, which is what is wanted.
            let _ = bpf_sk_storage_delete(map(), sk.cast());
        }
    }
}

/// aya's own wrapper wants the context of a call.
#[inline(always)]
fn map() -> *mut c_void {
    (&raw const SOCKETS).cast_mut().cast()
}
