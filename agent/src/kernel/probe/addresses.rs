//! The host's own addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::error::ProbeError;

/// Every address of every interface of this network namespace, which must be the host's: bridges
/// (gateways of pods) and tunnel devices included.
pub fn host_addresses() -> Result<BTreeSet<IpAddr>, ProbeError> {
    let interfaces = getifaddrs().map_err(|errno| ProbeError::Addresses { errno })?;
    let address = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(interfaces.filter_map(|interface| address(interface.address?)).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        let addresses = super::host_addresses().unwrap();
        assert!(addresses.iter().any(std::net::IpAddr::is_loopback), "{addresses:?}");
    }
}
