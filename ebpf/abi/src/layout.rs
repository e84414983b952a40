//! Map keys and values.

use crate::verdict::{CLASSES, DIRECTIONS, OUTCOMES};

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (`::ffff:a.b.c.d`, RFC 4291
/// §2.5.5.2), so that IPv4 and mapped IPv4 are judged as one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The IPv4-mapped form of an IPv4 address given in network byte order.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }
}

/// Key of the prefix table: `struct bpf_lpm_trie_key` with 16 bytes of data.
///
/// `prefix_len` counts bits of [`Address`]: an IPv4 prefix `/n` has `96 + n`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Prefix {
    /// Significant bits, 0 to 128, native byte order.
    pub prefix_len: u32,
    /// The address; bits after `prefix_len` are zero.
    pub address: Address,
}

/// What is known about an address or a prefix.
///
/// The agent accumulates: an address or prefix carries the flags of every prefix that covers
/// it, and the virtual cluster of the nearest one that names any, so one look-up answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FarEnd {
    /// Number of the virtual cluster that owns it; 0: none.
    pub virtual_cluster: u32,
    /// [`FarEnd::NODE`] | [`FarEnd::SHARED`] | [`FarEnd::CLUSTER`].
    pub flags: u32,
}

impl FarEnd {
    /// An address of a host: interfaces, gateways, tunnel devices, loopback.
    pub const NODE: u32 = 1;
    /// On the operator's shared list.
    pub const SHARED: u32 = 1 << 1;
    /// Inside the cluster's ranges.
    pub const CLUSTER: u32 = 1 << 2;
}

/// Which virtual cluster a cgroup belongs to, and how it is judged.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Member {
    /// Number of the virtual cluster; 0: nobody's, and neither judged nor counted.
    pub virtual_cluster: u32,
    /// [`crate::MODE_OFF`], [`crate::MODE_OBSERVE`] or [`crate::MODE_ENFORCE`]; anything else
    /// is taken as enforce.
    pub mode: u32,
}

/// A pair of virtual clusters that may talk, `from` being the one whose cgroup is judged.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AllowKey {
    /// Number of the virtual cluster whose cgroup is judged.
    pub from: u32,
    /// Number of the virtual cluster at the far end.
    pub to: u32,
}

/// The one entry of the CONFIG map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of the agent that wrote it. The programs pass everything while
    /// this is 0, which holds only before the first agent has filled the tables.
    pub abi_version: u32,
    /// Depth of a virtual cluster's cgroup below the cgroup v2 mount (the mount itself is 0).
    pub ancestor_level: u32,
    /// When the counters began at zero: nanoseconds since the Unix epoch.
    pub epoch: u64,
}

/// The one entry of the PLACEMENT map: what there is besides cgroups at
/// [`Config::ancestor_level`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// Another depth at which a cgroup can be a virtual cluster's, asked where the one at
    /// [`Config::ancestor_level`] is nobody's; 0: there is none.
    pub upper_level: u32,
    /// What becomes of the packets and calls of nobody: [`Placement::DROP`] or
    /// [`Placement::PASS`]; anything else is taken as drop.
    pub unknown: u32,
}

impl Placement {
    /// Only this host itself can be reached.
    pub const DROP: u32 = 0;
    /// They are neither judged nor counted.
    pub const PASS: u32 = 1;
}

/// Bytes and packets of one direction, class and outcome.
///
/// Bytes are of the IP packet as the stack hands it over; a GSO packet counts as its segments.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Refusals at connect and sendmsg, of one class.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectCell {
    /// Calls refused with EPERM.
    pub denied: u64,
    /// Calls that Enforce would have refused.
    pub would_deny: u64,
}

/// Kinds of calls in [`Counters::connects`]: 0 is connect, 1 is sendmsg.
pub const CONNECT_KINDS: usize = 2;

/// All network counters of one cgroup on one CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// By direction, class and outcome (see [`crate::Direction`], [`crate::Class`],
    /// [`crate::Outcome`]).
    pub cells: [[[Cell; OUTCOMES]; CLASSES]; DIRECTIONS],
    /// By kind of call and class.
    pub connects: [[ConnectCell; CLASSES]; CONNECT_KINDS],
    /// What a later version might count.
    #[cfg(feature = "next")]
    pub later: [u64; 4],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            cells: [[[Cell::default(); OUTCOMES]; CLASSES]; DIRECTIONS],
            connects: [[ConnectCell::default(); CLASSES]; CONNECT_KINDS],
            #[cfg(feature = "next")]
            later: [0; 4],
        }
    }
}

const _: () = {
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<Prefix>() == 20);
    assert!(core::mem::offset_of!(Prefix, address) == 4);
    assert!(size_of::<FarEnd>() == 8);
    assert!(size_of::<Member>() == 8);
    assert!(size_of::<AllowKey>() == 8);
    assert!(size_of::<Config>() == 16);
    assert!(core::mem::offset_of!(Config, epoch) == 8);
    assert!(size_of::<Placement>() == 8);
    assert!(size_of::<Cell>() == 16);
    assert!(size_of::<ConnectCell>() == 16);
    let later = if cfg!(feature = "next") { 32 } else { 0 };
    assert!(
        size_of::<Counters>()
            == 16 * (DIRECTIONS * CLASSES * OUTCOMES + CONNECT_KINDS * CLASSES) + later
    );
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait: plain old data for map access")]
    use super::{Address, AllowKey, Config, Counters, FarEnd, Member, Placement, Prefix};

    // SAFETY: `repr(C)`, `Copy`, integers only, no padding (sizes asserted above), so every
    // byte pattern is a valid value; so for all below.
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Prefix {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FarEnd {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Member {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AllowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Placement {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counters {}
}
