//! Every map. Names and meanings are those of [`bulkhead_abi::maps`]; the agent may load them
//! with another number of entries.
//!
//! Hash tables are not preallocated: memory follows what is in use. The programs never add an
//! entry, so nothing that a workload sends can fill a table that another one needs. What they
//! keep with a socket is charged to that socket, and goes with it.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, SkStorage},
    macros::btf_map,
};
use bulkhead_abi::{
    Address, AllowKey, CgroupUsage, Config, Counters, FarEnd, Member, Placement, capacity,
};

use crate::socket::Remembered;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

#[btf_map]
pub(crate) static PLACEMENT: Array<Placement, 1> = Array::new();

#[btf_map]
pub(crate) static GENERATION: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Belongs to one load of the programs: never pinned, and known to nobody else.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<Remembered> = SkStorage::new();

#[btf_map]
pub(crate) static MEMBERS: HashMap<u64, Member, { capacity::MEMBERS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static ADDRESSES: HashMap<
    Address,
    FarEnd,
    { capacity::ADDRESSES as usize },
    NO_PREALLOC,
> = HashMap::new();

#[btf_map]
pub(crate) static PREFIXES: LpmTrie<Address, FarEnd, { capacity::PREFIXES as usize }, NO_PREALLOC> =
    LpmTrie::new();

#[btf_map]
pub(crate) static ALLOWED: HashMap<AllowKey, u32, { capacity::ALLOWED as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static SLOTS: HashMap<u64, u32, { capacity::COUNTERS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static CELLS: PerCpuArray<Counters, { capacity::COUNTERS as usize }> =
    PerCpuArray::new();

/// What the cgroup iterator tells. One entry, unless the agent asks for more: only its loader of
/// that program does.
#[btf_map]
pub(crate) static USAGE: Array<CgroupUsage, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
