//! Layouts and the one pure decision that the kernel programs and the agent share.
//!
//! Every map key and value is `repr(C)` with explicit padding, holds plain integers only
//! (no `bool`, enum or `Option`), and has its size asserted at compile time. A change of any
//! layout, map or meaning raises [`ABI_VERSION`]; pins live in a directory of that version.
//!
//! An agent takes over from one of another version, older or newer. So a map of the same name
//! and shape means the same in every version: who changes what one means changes its name or
//! its shape. [`Counters`] only ever grow at their end, so that each version can read what the
//! other has counted.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the kernel programs need these bodies in place: no calls, no stack frames"
)]

mod layout;
mod usage;
mod verdict;

pub use layout::{
    Address, AllowKey, CONNECT_KINDS, Cell, Config, ConnectCell, Counters, FarEnd, Member,
    Placement, Prefix,
};
pub use usage::{CONTROLS, CPU_WORDS, CgroupUsage, PRESSURES, UsageLayout};
pub use verdict::{
    CLASSES, Class, DIRECTIONS, Direction, MODE_ENFORCE, MODE_OBSERVE, MODE_OFF, OUTCOMES, Outcome,
    Verdict, classify, counted_as, decide, mode_for,
};

/// The version of everything in this crate, checked when the agent loads an object and when it
/// takes over pins.
pub const ABI_VERSION: u32 = if cfg!(feature = "next") { 5 } else { 4 };

/// The object's section that holds [`ABI_VERSION`], 4 bytes in native order.
pub const ABI_SECTION: &str = "bulkhead.abi";

/// The licence in the object, as the kernel wants it named.
pub const LICENCE: &str = "Dual MIT/GPL";

/// How many entries the maps have unless the agent is told otherwise.
pub mod capacity {
    /// Virtual clusters' cgroups on one node.
    pub const MEMBERS: u32 = 16_384;
    /// Exact addresses.
    pub const ADDRESSES: u32 = 131_072;
    /// Prefixes.
    pub const PREFIXES: u32 = 16_384;
    /// Pairs that may talk.
    pub const ALLOWED: u32 = 16_384;
    /// Cgroups that are counted. The kernel takes the memory of all of them at once: 768 KiB for
    /// each CPU that the machine can have.
    pub const COUNTERS: u32 = 1_024;
}

/// Names of maps as the object, the pins and the agent know them.
pub mod maps {
    /// `Array<Config>`, one entry.
    pub const CONFIG: &str = "CONFIG";
    /// `Array<Placement>`, one entry.
    pub const PLACEMENT: &str = "PLACEMENT";
    /// `HashMap<u64 cgroup id, Member>`: which cgroup is which virtual cluster.
    pub const MEMBERS: &str = "MEMBERS";
    /// `HashMap<Address, FarEnd>`: exact addresses, and node ports under addresses of their own
    /// ([`crate::Address::of_node_port`]).
    pub const ADDRESSES: &str = "ADDRESSES";
    /// `LpmTrie<Prefix, FarEnd>`: prefixes, asked only where no exact address matched.
    pub const PREFIXES: &str = "PREFIXES";
    /// `HashMap<AllowKey, u32>`: pairs of virtual clusters that may talk.
    pub const ALLOWED: &str = "ALLOWED";
    /// `HashMap<u64 cgroup id, u32>`: which entry of CELLS a cgroup is counted in.
    pub const SLOTS: &str = "SLOTS";
    /// `PerCpuArray<Counters>`, by slot. An array, because a packet pays half as much for its
    /// look-up as for that of a per-CPU hash table.
    pub const CELLS: &str = "CELLS";
    /// `PerCpuHashMap<u64 cgroup id, Counters>`: what agents up to version 2 count in. Only read,
    /// and never of that name again: it is how they know counters that they can take over.
    pub const COUNTERS_UP_TO_2: &str = "COUNTERS";
    /// `Array<u64>`, one entry, mapped into memory: which state of the tables verdicts are of.
    ///
    /// Odd while the tables change. The programs keep the verdict of a socket's peer with the
    /// socket, together with the even generation that they read before they looked anything up,
    /// and use it for as long as the generation is that one.
    pub const GENERATION: &str = "GENERATION";
    /// `SkStorage`: what the programs keep with a socket. It belongs to one load of the programs:
    /// it is never pinned, and its layout is theirs alone.
    pub const SOCKETS: &str = "SOCKETS";
    /// Every map that belongs to one load of the programs.
    pub const OF_ONE_LOAD: [&str; 2] = [SOCKETS, USAGE];
    /// `Array<CgroupUsage>`, mapped into memory: what the cgroup iterator tells. Never pinned;
    /// it belongs to the one load of that program.
    pub const USAGE: &str = "USAGE";
    /// Every map that outlives the agent.
    pub const ALL: [&str; 9] =
        [CONFIG, PLACEMENT, GENERATION, MEMBERS, ADDRESSES, PREFIXES, ALLOWED, SLOTS, CELLS];
}

/// Names of programs as the object, the pinned links and the agent know them.
pub mod programs {
    /// `cgroup_skb/egress`.
    pub const EGRESS: &str = "bulkhead_egress";
    /// `cgroup_skb/ingress`.
    pub const INGRESS: &str = "bulkhead_ingress";
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "bulkhead_connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "bulkhead_connect6";
    /// `cgroup/sendmsg4`.
    pub const SENDMSG4: &str = "bulkhead_sendmsg4";
    /// `cgroup/sendmsg6`.
    pub const SENDMSG6: &str = "bulkhead_sendmsg6";
    /// `iter/cgroup`: runs only when the agent asks it to, and is attached to nothing.
    pub const USAGE: &str = "bulkhead_usage";
    /// The global of that program that says where this kernel keeps what it tells.
    pub const USAGE_LAYOUT: &str = "USAGE_LAYOUT";
    /// Every program that is attached.
    pub const ALL: [&str; 6] = [EGRESS, INGRESS, CONNECT4, CONNECT6, SENDMSG4, SENDMSG6];
}
