//! Hosts: network namespaces on one bridge, which is in a namespace of its own, so that nothing
//! touches the machine's network.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::command::ip;

/// Hosts that reach each other.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    namespaces: Namespaces,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Network {
    pub(super) fn new(name: &str, hosts: u8) -> Result<Self> {
        let mut namespaces = Namespaces::default();
        let switch = namespaces.add(format!("{name}-sw"))?;
        ip(&format!("-n {switch} link add br0 type bridge forward_delay 0"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        let hosts = (1..=hosts)
            .map(|number| {
                let namespace = namespaces.add(format!("{name}-{number}"))?;
                let host = Host {
                    v4: Ipv4Addr::new(10, 77, 0, number),
                    v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()),
                    namespace,
                };
                host.plug_into(&switch, number)?;
                Ok(host)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { hosts, namespaces })
    }

    /// The hosts, in the order of their addresses.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Names of the namespaces.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces.0
    }
}

impl Host {
    fn plug_into(&self, switch: &str, number: u8) -> Result<()> {
        let Self { namespace, v4, v6 } = self;
        let lines = [
            format!("-n {switch} link add p{number} type veth peer name eth0 netns {namespace}"),
            format!("-n {switch} link set p{number} master br0 up"),
            format!("-n {namespace} addr add {v4}/24 dev eth0"),
            // Without duplicate address detection the address works at once.
            format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"),
            format!("-n {namespace} link set lo up"),
            format!("-n {namespace} link set eth0 up"),
        ];
        lines.iter().try_for_each(|line| ip(line))
    }

    /// The file that stands for its network namespace.
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// Runs `ip` on it, with the words of a line.
    pub fn ip(&self, line: &str) -> Result<()> {
        ip(&format!("-n {} {line}", self.namespace))
    }

    /// A counter of its interface, as `/sys/class/net/eth0/statistics` names them.
    pub fn interface_counter(&self, counter: &str) -> Result<u64> {
        let output = Command::new("ip")
            .args(["-n", &self.namespace, "-s", "-j", "link", "show", "dev", "eth0"])
            .stdin(Stdio::null())
            .output()
            .context("start ip")?;
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("ip prints JSON")?;
        let (direction, what) = counter.split_once('_').context("like rx_bytes")?;
        links[0]["stats64"][direction][what].as_u64().with_context(|| format!("no {counter}"))
    }
}

/// Network namespaces, removed with what is in them.
#[derive(Debug, Default)]
struct Namespaces(Vec<String>);

impl Namespaces {
    fn add(&mut self, name: String) -> Result<String> {
        ip(&format!("netns add {name}"))?;
        self.0.push(name.clone());
        Ok(name)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = ip(&format!("netns del {name}")) {
                eprintln!("left behind: {error:#}");
                let _ = fs::remove_file(Path::new("/run/netns").join(name));
            }
        }
    }
}
