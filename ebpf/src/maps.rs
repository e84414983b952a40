//! Every map. Names and meanings are those of [`bulkhead_abi::maps`]; the agent may load them
//! with another number of entries.
//!
//! Hash tables are not preallocated: memory follows what is in use. The programs never add an
//! entry, so nothing that a workload sends can fill a table that another one needs.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuHashMap},
    macros::btf_map,
};
use bulkhead_abi::{Address, AllowKey, Config, Counters, FarEnd, Member, capacity};

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

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
pub(crate) static COUNTERS: PerCpuHashMap<
    u64,
    Counters,
    { capacity::COUNTERS as usize },
    NO_PREALLOC,
> = PerCpuHashMap::new();
