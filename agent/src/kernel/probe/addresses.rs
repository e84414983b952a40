//! The host's own addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::error::ProbeError;

/// Devices on which proxies keep the addresses of Services, so that the kernel takes packets to them
/// for its own: these are no host's. kube-proxy in mode ipvs, and kube-router.
const OF_SERVICES: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// Every address of every interface of this network namespace, which must be the host's: bridges
/// (gateways of pods) and tunnel devices included, and those of Services left out.
pub fn host_addresses() -> Result<BTreeSet<IpAddr>, ProbeError> {
    let interfaces = getifaddrs().map_err(|errno| ProbeError::Addresses { errno })?;
    let address = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let hosts = interfaces.filter(|it| !OF_SERVICES.contains(&it.interface_name.as_str()));
    Ok(hosts.filter_map(|interface| address(interface.address?)).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        let addresses = super::host_addresses().unwrap();
        assert!(addresses.iter().any(std::net::IpAddr::is_loopback), "{addresses:?}");
    }
}
