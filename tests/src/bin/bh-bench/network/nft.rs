//! The peer: nftables with one rule that does what Bulkhead does. It finds the cgroup of the
//! packet's socket, looks the far end up in a set of all addresses, and counts.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_tests::bench::node::peer;
use bulkhead_tests::sandbox::Host;

/// Where nft looks for cgroups by their paths.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Which end of the wire it stands at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hook {
    /// What the sender's sockets send.
    Output,
    /// What the receiver's sockets are about to receive.
    Input,
}

/// How its set is declared, from which nft chooses how it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Set {
    /// With nothing but its type: a hash table that grows.
    Plain,
    /// With its size: a faster hash table that does not.
    Sized,
}

impl Set {
    fn table(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sized => "sized",
        }
    }

    fn size(self, addresses: u32) -> String {
        match self {
            Self::Plain => String::new(),
            Self::Sized => format!("size {addresses};"),
        }
    }
}

/// The table in one host's network namespace; asleep, it is in no packet's way.
#[derive(Debug)]
pub(super) struct Table {
    host: Host,
    set: Set,
    awake: bool,
    expected: u64,
}

/// Its version, for the report.
pub(super) fn version() -> Result<String> {
    let output = Command::new("nft").arg("--version").output();
    let output = output.context("start nft (Debian: nftables)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    // "nftables v1.0.6 (Lester Gooch #5)"
    let words: Vec<&str> = said.split_whitespace().take(2).collect();
    ensure!(words.len() == 2, "nft does not tell its version: {said:?}");
    Ok(words.join(" "))
}

impl Table {
    /// Loads it, asleep, for members of the cgroup at that level.
    pub(super) fn load(
        host: &Host,
        (hook, set): (Hook, Set),
        (cgroup, level): (&Path, u32),
        addresses: u32,
    ) -> Result<Self> {
        let path = cgroup.strip_prefix(CGROUPS);
        let path = path.with_context(|| format!("nft sees only cgroups below {CGROUPS}"))?;
        let (name, far) = match hook {
            Hook::Output => ("output", "daddr"),
            Hook::Input => ("input", "saddr"),
        };
        let mut elements = String::new();
        for index in 0..addresses {
            write!(elements, "{},", peer(index))?;
        }
        let table = format!(
            "table ip {} {{\n\
             flags dormant;\n\
             set peers {{\ntype ipv4_addr;\n{}\nelements = {{ {elements} }}\n}}\n\
             chain judge {{\n\
             type filter hook {name} priority 0; policy accept;\n\
             socket cgroupv2 level {level} \"{}\" ip {far} @peers counter accept\n\
             }}\n}}\n",
            set.table(),
            set.size(addresses),
            path.display()
        );
        let made = Self { host: host.clone(), set, awake: false, expected: 0 };
        made.nft(&["-f", "-"], &table).with_context(|| format!("load the {name} table"))?;
        Ok(made)
    }

    /// Wakes it, or puts it to sleep; it stays loaded.
    pub(super) fn set_awake(&mut self, awake: bool) -> Result<()> {
        if self.awake != awake {
            let state = if awake { "" } else { " { flags dormant; }" };
            let line = format!("add table ip {}{state}", self.set.table());
            self.nft(&[&line], "").context("switch nftables")?;
            self.awake = awake;
        }
        Ok(())
    }

    /// Whether packets pass through it.
    pub(super) fn is_awake(&self) -> bool {
        self.awake
    }

    /// That many packets more must be counted.
    pub(super) fn expect(&mut self, packets: u32) {
        self.expected += u64::from(packets);
    }

    /// That its rule has counted what it had to.
    pub(super) fn check(&self) -> Result<()> {
        let said = self.nft(&["-t", "list", "chain", "ip", self.set.table(), "judge"], "")?;
        let mut words = said.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        let count: u64 = words.next().context("nft lists no counter")?.parse()?;
        ensure!(
            count == self.expected,
            "nftables has counted {count} packets instead of {} in {said}",
            self.expected
        );
        Ok(())
    }

    fn nft(&self, arguments: &[&str], input: &str) -> Result<String> {
        // Not `ip netns exec`, which hides the cgroups.
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.host.namespace().display()))
            .arg("nft")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start nft by nsenter (Debian: nftables, util-linux)")?;
        let mut stdin = child.stdin.take().context("stdin is a pipe")?;
        stdin.write_all(input.as_bytes()).context("tell nft what to load")?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("nft {arguments:?} ended with {}: {}", output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
