//! Hosts: network namespaces on one bridge, which is in a namespace of its own, so that nothing
//! touches the machine's network.
//!
//! A namespace has no name anywhere: it lives as long as this process has its file open and a
//! process is in it, so it cannot be left behind.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A host of the demo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Host {
    /// First host of virtual cluster prod.
    ProdA,
    /// Second host of virtual cluster prod.
    ProdB,
    /// The host of virtual cluster dev.
    Dev,
    /// The host of virtual cluster batch.
    Batch,
}

impl Host {
    /// Every host.
    pub(crate) const ALL: [Self; 4] = [Self::ProdA, Self::ProdB, Self::Dev, Self::Batch];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ProdA => "prod-a",
            Self::ProdB => "prod-b",
            Self::Dev => "dev",
            Self::Batch => "batch",
        }
    }

    /// The virtual cluster that it belongs to.
    pub(crate) const fn virtual_cluster(self) -> &'static str {
        match self {
            Self::ProdA | Self::ProdB => "prod",
            Self::Dev => "dev",
            Self::Batch => "batch",
        }
    }

    const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Its IPv4 address.
    pub(crate) const fn v4(self) -> IpAddr {
        IpAddr::V4(v4(self.number()))
    }

    /// Its IPv6 address.
    pub(crate) const fn v6(self) -> IpAddr {
        IpAddr::V6(v6(self.number()))
    }

    /// Its IPv4 address as an IPv6 socket writes it.
    pub(crate) const fn mapped(self) -> IpAddr {
        IpAddr::V6(v4(self.number()).to_ipv6_mapped())
    }
}

/// Addresses that prod-b has from the beginning, and that Bulkhead is told of late.
pub(crate) const LATE: [IpAddr; 2] = [IpAddr::V4(v4(99)), IpAddr::V6(v6(0x99))];

const fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, last)
}

const fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfdb1, 0x6b, 0, 0, 0, 0, 0, u16::from_be_bytes([0, last]))
}

/// All hosts, and the bridge between them.
#[derive(Debug)]
pub(crate) struct Network {
    hosts: [Namespace; 4],
    bridge: Namespace,
}

impl Network {
    /// Makes the hosts and plugs them in.
    pub(crate) fn new() -> Result<Self> {
        let bridge = Namespace::new()?;
        bridge
            .ip("link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n")?;
        let [a, b, c, d] = Host::ALL.map(|host| plug_in(host, &bridge));
        Ok(Self { hosts: [a?, b?, c?, d?], bridge })
    }

    /// The numbers by which the kernel knows the namespaces.
    pub(crate) fn inodes(&self) -> Result<Vec<u64>> {
        let all = self.hosts.iter().chain([&self.bridge]);
        all.map(|namespace| Ok(namespace.0.metadata()?.ino())).collect()
    }

    /// The namespace of a host.
    pub(crate) fn host(&self, host: Host) -> &Namespace {
        &self.hosts[host as usize]
    }
}

fn plug_in(host: Host, bridge: &Namespace) -> Result<Namespace> {
    let namespace = Namespace::new()?;
    let (number, path) = (host.number(), namespace.path());
    bridge.ip(&format!(
        "link add p{number} type veth peer name eth0 netns {}\nlink set p{number} master br0 up\n",
        path.display()
    ))?;
    let mut lines = format!(
        "link set lo up\n\
         link set eth0 addrgenmode none\n\
         addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n",
        host.v4(),
        host.v6()
    );
    if host == Host::ProdB {
        // A lifetime of 0: it answers, and is never chosen as the source of something new.
        let [v4, v6] = LATE;
        let late = format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad preferred_lft 0\n"
        );
        lines.push_str(&late);
    }
    lines.push_str("link set eth0 up\n");
    namespace.ip(&lines)?;
    Ok(namespace)
}

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace(File);

/// What an interface and the stack above it have received.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Received {
    /// Packets that came in on eth0.
    pub(crate) packets: u64,
    /// Echo requests, of IPv4 and IPv6, that the stack took in.
    pub(crate) echoes: u64,
}

/// What went out on eth0, as the interface counts it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Sent {
    /// Bytes, from the Ethernet header on.
    pub(crate) bytes: u64,
    /// Packets.
    pub(crate) packets: u64,
}

impl Namespace {
    fn new() -> Result<Self> {
        in_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            let file = File::open("/proc/thread-self/ns/net");
            Ok(Self(file.context("open a new network namespace")?))
        })
    }

    /// A path by which other processes can join it while this one lives.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// What eth0 and the stack have received.
    pub(crate) fn received(&self) -> Result<Received> {
        let files = self.read(["dev", "snmp", "snmp6"])?;
        let [_, packets] = interface(&files[0], 0)?;
        let v4 = paired(&files[1], "Icmp", "InEchos");
        let v6 =
            words_after(&files[2], "Icmp6InEchos").and_then(|mut words| words.next()?.parse().ok());
        let echoes: u64 = v4.context("no Icmp InEchos")? + v6.unwrap_or(0_u64);
        Ok(Received { packets, echoes })
    }

    /// What eth0 has sent.
    pub(crate) fn sent(&self) -> Result<Sent> {
        let [bytes, packets] = interface(&self.read(["dev"])?[0], 8)?;
        Ok(Sent { bytes, packets })
    }

    fn read<const N: usize>(&self, names: [&str; N]) -> Result<[String; N]> {
        in_own_thread(|| {
            self.join()?;
            let mut files = [const { String::new() }; N];
            for (file, name) in files.iter_mut().zip(names) {
                let path = format!("/proc/thread-self/net/{name}");
                *file = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            }
            Ok(files)
        })
    }

    fn join(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).context("join a network namespace")
    }

    /// Runs the lines through one `ip`.
    fn ip(&self, lines: &str) -> Result<()> {
        in_own_thread(|| {
            self.join()?;
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("start ip (Debian: iproute2)")?;
            // It reads to the end only if all is well; its status says more than a broken pipe.
            let _ = ip.stdin.take().context("its input is a pipe")?.write_all(lines.as_bytes());
            let output = ip.wait_with_output()?;
            ensure!(
                output.status.success(),
                "ip ended with {} on\n{lines}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        })
    }
}

/// A thread can be in another network namespace than its process: nothing has to be undone.
fn in_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(_) => bail!("a thread in a network namespace panicked"),
    })
}

/// Bytes and packets of eth0 in `/proc/net/dev`, from column `first` on.
fn interface(dev: &str, first: usize) -> Result<[u64; 2]> {
    let columns = words_after(dev, "eth0:").context("no eth0 in /proc/net/dev")?;
    let numbers: Vec<u64> = columns.filter_map(|word| word.parse().ok()).collect();
    let pair = numbers.get(first..first + 2).context("too few columns in /proc/net/dev")?;
    Ok([pair[0], pair[1]])
}

/// The words after the line's first, of the line that begins with `first`.
fn words_after<'t>(text: &'t str, first: &str) -> Option<impl Iterator<Item = &'t str>> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(first)).then_some(words)
    })
}

/// A value of `/proc/net/snmp`, where a line of names precedes a line of numbers.
fn paired(snmp: &str, protocol: &str, name: &str) -> Option<u64> {
    let prefix = format!("{protocol}: ");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split(' ').position(|found| found == name)?;
    values.split(' ').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10\n  \
                   eth0: 100 7 0 0 0 0 0 0 200 9 0 0\n";
        assert_eq!(interface(dev, 0).expect("there"), [100, 7]);
        assert_eq!(interface(dev, 8).expect("there"), [200, 9]);
        let snmp = "Icmp: InMsgs InEchos\nIcmp: 9 4\nIcmpMsg: InType8\nIcmpMsg: 1\n";
        assert_eq!(paired(snmp, "Icmp", "InEchos"), Some(4));
        assert_eq!(paired(snmp, "Icmp", "Missing"), None);
    }

    #[test]
    fn addresses_are_those_of_the_objects() {
        assert_eq!(Host::ProdA.v4().to_string(), "198.18.0.1");
        assert_eq!(Host::Batch.v6().to_string(), "fdb1:6b::4");
        assert_eq!(Host::Dev.mapped().to_string(), "::ffff:198.18.0.3");
        assert_eq!(LATE[1].to_string(), "fdb1:6b::99");
    }
}
