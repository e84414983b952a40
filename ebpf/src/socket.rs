//! What the programs keep with a socket, so that an established connection costs no table look-up
//! however many addresses are known: whose it is, and one peer with whom its packets pass. Where
//! the peer is a host, that is one port of it: behind another may be somebody's Service.
//!
//! Only what passes is kept: a packet that is to be dropped is judged by the tables each time.
//! What is kept is never changed in place, since two CPUs may work for one socket: it is replaced
//! whole. A socket with many peers keeps one of them, and looks up the others.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    programs::{SkBuffContext, SockAddrContext},
};
use bulkhead_abi::{Address, Member};

use crate::{
    maps::{GENERATION, SOCKETS},
    port::Port,
};

/// Whose a socket is.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    /// The virtual cluster's cgroup.
    pub(crate) cgroup: u64,
    /// What MEMBERS says of it.
    pub(crate) member: Member,
    /// What SLOTS says of it, or `NO_SLOT`.
    pub(crate) slot: u32,
}

/// Whose a socket is, and a verdict to pass.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    /// The tables that it was found in.
    generation: u64,
    /// The virtual cluster's cgroup.
    pub(crate) cgroup: u64,
    /// The peer.
    pub(crate) far: Address,
    /// What MEMBERS says of the cgroup.
    member: Member,
    /// Where packets between the socket and the peer are counted, within their direction.
    pub(crate) cell: u32,
    /// What SLOTS says of the cgroup.
    pub(crate) slot: u32,
    /// Of which port of the peer that holds, for what is sent; where it matters what is received
    /// always passes, as from a host.
    pub(crate) port: Port,
    /// The kernel takes no value with bytes that nobody wrote.
    padding: u32,
}

impl Remembered {
    #[inline(always)]
    pub(crate) const fn new(
        generation: u64,
        owner: Owner,
        far: Address,
        (cell, port): (u32, Port),
    ) -> Self {
        let Owner { cgroup, member, slot } = owner;
        Self { generation, cgroup, far, member, cell, slot, port, padding: 0 }
    }

    #[inline(always)]
    pub(crate) const fn owner(&self) -> Owner {
        Owner { cgroup: self.cgroup, member: self.member, slot: self.slot }
    }
}

/// What is kept with a socket.
#[derive(Clone, Copy)]
pub(crate) enum Kept {
    Nothing,
    /// Of tables that have changed since.
    Stale(&'static Remembered),
    Fresh(&'static Remembered),
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

/// A socket of the kernel's, or null.
#[derive(Clone, Copy)]
pub(crate) struct Socket(*mut bpf_sock);

impl Socket {
    /// The sender's at egress, the receiver's at ingress.
    #[inline(always)]
    pub(crate) fn of_packet(ctx: &SkBuffContext) -> Self {
        // SAFETY: a field of the program's own context.
        Self(unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk })
    }

    /// The one that is called on.
    #[inline(always)]
    pub(crate) fn of_call(ctx: &SockAddrContext) -> Self {
        // SAFETY: a field of the program's own context.
        Self(unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk })
    }

    #[inline(always)]
    pub(crate) fn recall(self, generation: u64) -> Kept {
        match self.storage(None) {
            None => Kept::Nothing,
            Some(kept) if kept.generation == generation => Kept::Fresh(kept),
            Some(kept) => Kept::Stale(kept),
        }
    }

    /// Keeps something, unless another CPU was quicker.
    #[inline(always)]
    pub(crate) fn remember(self, new: &Remembered) {
        let _ = self.storage(Some(new));
    }

    #[inline(always)]
    pub(crate) fn forget(self) {
        if !self.0.is_null() {
            // SAFETY: as in `storage`. What another CPU has taken away already is gone, which is
            // what is wanted.
            let _ = unsafe { bpf_sk_storage_delete(map(), self.0.cast()) };
        }
    }

    /// The socket's storage; with a value, makes it where there is none.
    #[inline(always)]
    fn storage(self, new: Option<&Remembered>) -> Option<&'static Remembered> {
        if self.0.is_null() {
            return None;
        }
        let (value, flags) = match new {
            Some(new) => (core::ptr::from_ref(new), u64::from(BPF_SK_STORAGE_GET_F_CREATE)),
            None => (core::ptr::null(), 0),
        };
        // SAFETY: the socket is one of the program's context, and the kernel takes none that is
        // not full; `value` is null or as large as the map's value; what comes back is null or
        // lives until this program ends, since the kernel frees it only after a grace period.
        unsafe {
            bpf_sk_storage_get(map(), self.0.cast(), value.cast_mut().cast(), flags)
                .cast::<Remembered>()
                .as_ref()
        }
    }
}

/// aya's own wrapper wants the context of a call.
#[inline(always)]
fn map() -> *mut c_void {
    (&raw const SOCKETS).cast_mut().cast()
}
