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

    /// Under which the table of addresses has a node port: a port that every node's addresses
    /// have, whatever the address. `protocol` is the IP protocol's number.
    ///
    /// It is `100::6e6f:6465:<protocol>:<port>`, inside the prefix that routers discard (RFC
    /// 6666). What a packet has as its address is never looked up there: see
    /// [`Address::is_of_node_port`].
    #[inline(always)]
    pub const fn of_node_port(protocol: u8, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        let mut octets = NODE_PORTS;
        (octets[13], octets[14], octets[15]) = (protocol, high, low);
        Self(octets)
    }

    /// Whether it has the form of a node port. An address of that form which somebody really uses
    /// stands among the prefixes, with all of its bits, and never in the table of addresses.
    #[inline(always)]
    pub const fn is_of_node_port(&self) -> bool {
        high(&self.0) == high(&NODE_PORTS) && low(&self.0) >> 32 == low(&NODE_PORTS) >> 32
    }

    /// The protocol and the port of a node port's form.
    pub const fn node_port(&self) -> Option<(u8, u16)> {
        let octets = &self.0;
        if !self.is_of_node_port() || octets[12] != 0 {
            return None;
        }
        Some((octets[13], u16::from_be_bytes([octets[14], octets[15]])))
    }
}

/// Where node ports stand in the table of addresses; their last four bytes are free.
const NODE_PORTS: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, b'n', b'o', b'd', b'e', 0, 0, 0, 0];

#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "eight bytes of an address")]
const fn high(octets: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *octets;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
#[expect(clippy::many_single_char_names, reason = "eight bytes of an address")]
const fn low(octets: &[u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *octets;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
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
    /// [`FarEnd::NODE`] | [`FarEnd::SHARED`] | [`FarEnd::CLUSTER`] | [`FarEnd::PLAIN`] |
    /// [`FarEnd::STALE`].
    pub flags: u32,
}

impl FarEnd {
    /// An address of a host: interfaces, gateways, tunnel devices, loopback.
    pub const NODE: u32 = 1;
    /// On the operator's shared list.
    pub const SHARED: u32 = 1 << 1;
    /// Inside the cluster's ranges.
    pub const CLUSTER: u32 = 1 << 2;
    /// Shared for no other reason than that it is of no virtual cluster: a virtual cluster may be
    /// closed to it. Only beside [`FarEnd::SHARED`], which programs that do not know this go by.
    pub const PLAIN: u32 = 1 << 3;
    /// Inside the cluster's ranges while the controller is away and the operator lets pass what
    /// it never told of: it may be a peer that came since. Only beside [`FarEnd::CLUSTER`].
    pub const STALE: u32 = 1 << 4;
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
    /// Number of the virtual cluster at the far end; 0: all that is [`FarEnd::PLAIN`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_port_has_an_address_that_no_other_has_and_that_is_no_ipv4() {
        let web = Address::of_node_port(6, 30_080);
        let text = [1, 0, 0, 0, 0, 0, 0, 0, 0x6e, 0x6f, 0x64, 0x65, 0, 6, 0x75, 0x80];
        assert_eq!(web.0, text);
        assert_eq!(web.node_port(), Some((6, 30_080)));
        for other in [(17, 30_080), (6, 30_081), (6, 0), (132, 30_080)] {
            let address = Address::of_node_port(other.0, other.1);
            assert!(address != web && address.is_of_node_port());
            assert_eq!(address.node_port(), Some(other));
        }
    }

    #[test]
    fn what_is_beside_the_form_is_an_ordinary_address() {
        let web = Address::of_node_port(6, 30_080);
        for byte in 0..12 {
            let mut beside = web;
            beside.0[byte] ^= 1;
            assert!(!beside.is_of_node_port(), "byte {byte}");
            assert_eq!(beside.node_port(), None);
        }
        // Of the form, and no port: nothing stands there.
        let mut beside = web;
        beside.0[12] = 1;
        assert!(beside.is_of_node_port());
        assert_eq!(beside.node_port(), None);
        assert!(!Address::from_v4([10, 0, 0, 1]).is_of_node_port());
        assert!(!Address::default().is_of_node_port());
    }
}
