//! Addresses and address blocks in the one form that the kernel tables use: IPv6, with IPv4 as
//! IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use bulkhead_abi::{Address, Prefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bits before the IPv4 part of an IPv4-mapped address.
const MAPPED_BITS: u8 = 96;

/// An address or CIDR. Host bits are cleared and IPv4-mapped IPv6 is IPv4, so equal blocks
/// compare equal however they were written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddressBlock(IpNet);

/// Why a text is not an address or CIDR.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{text}\" is no IP address and no CIDR; write it like 10.1.0.7, 10.1.0.0/16 or fd00::/64"
)]
pub struct AddressError {
    /// The text.
    pub text: String,
}

impl AddressBlock {
    /// The block with host bits cleared.
    pub fn new(net: IpNet) -> Self {
        match net.trunc() {
            IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_ipv4_mapped() {
                Some(v4) => {
                    Self(IpNet::V4(Ipv4Net::new_assert(v4, v6.prefix_len() - MAPPED_BITS).trunc()))
                }
                None => Self(IpNet::V6(v6)),
            },
            net => Self(net),
        }
    }

    /// The block that holds only `address`.
    pub fn host(address: IpAddr) -> Self {
        Self::new(IpNet::from(address))
    }

    /// The block of so many bits that holds `address`; `None` where it has not so many.
    pub fn around(address: IpAddr, bits: u8) -> Option<Self> {
        IpNet::new(address, bits).ok().map(Self::new)
    }

    /// As a CIDR.
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// Its one address, where it holds only one.
    pub fn single(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }

    /// Whether every address of `other` is in `self`.
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether any address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The key of the prefix table.
    pub fn prefix(self) -> Prefix {
        let offset = if matches!(self.0, IpNet::V4(_)) { MAPPED_BITS } else { 0 };
        Prefix {
            prefix_len: u32::from(self.0.prefix_len()) + u32::from(offset),
            address: to_abi(self.0.addr()),
        }
    }

    /// The block of a key of the prefix table; `None` where it has more than 128 bits.
    pub fn from_prefix(prefix: Prefix) -> Option<Self> {
        let bits = u8::try_from(prefix.prefix_len).ok()?;
        let net = Ipv6Net::new(Ipv6Addr::from(prefix.address.0), bits).ok()?;
        Some(Self::new(IpNet::V6(net)))
    }
}

/// An address in the form of the kernel tables.
pub fn to_abi(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_v4(v4.octets()),
        IpAddr::V6(v6) => Address(v6.octets()),
    }
}

/// An address of the kernel tables; IPv4-mapped becomes IPv4.
pub fn from_abi(address: Address) -> IpAddr {
    Ipv6Addr::from(address.0).to_canonical()
}

impl FromStr for AddressBlock {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| AddressError { text: text.to_owned() })?,
        };
        Ok(Self::new(net))
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => address.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> AddressBlock {
        text.parse().unwrap()
    }

    #[test]
    fn equal_blocks_compare_equal_however_written() {
        assert_eq!(block("10.1.2.3/16"), block("10.1.0.0/16"));
        assert_eq!(block("::ffff:10.1.0.0/112"), block("10.1.0.0/16"));
        assert_eq!(block("::ffff:10.1.0.7"), block("10.1.0.7/32"));
        assert_eq!(block("10.1.0.7").to_string(), "10.1.0.7");
        assert_eq!(block("fd00::/64").to_string(), "fd00::/64");
    }

    #[test]
    fn prefixes_count_bits_of_the_mapped_form() {
        let prefix = block("10.1.0.0/16").prefix();
        assert_eq!(prefix.prefix_len, 112);
        assert_eq!(prefix.address, Address::from_v4([10, 1, 0, 0]));
        assert_eq!(block("fd00::/64").prefix().prefix_len, 64);
        for text in ["10.1.0.0/16", "0.0.0.0/0", "::/0", "fd00::1", "10.0.0.1"] {
            assert_eq!(AddressBlock::from_prefix(block(text).prefix()), Some(block(text)));
        }
    }

    #[test]
    fn covering_is_within_a_family() {
        assert!(block("10.0.0.0/8").covers(block("10.1.0.7")));
        assert!(!block("10.1.0.7").covers(block("10.0.0.0/8")));
        assert!(block("10.1.0.7").overlaps(block("10.0.0.0/8")));
        assert!(!block("0.0.0.0/0").overlaps(block("fd00::1")));
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "10.1", "10.0.0.0/33", "fd00::/129", "x"] {
            assert_eq!(text.parse::<AddressBlock>(), Err(AddressError { text: text.to_owned() }));
        }
    }
}
