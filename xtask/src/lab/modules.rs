//! The kernel modules of a node that has all of itself in memory: those that it uses, and those
//! that these need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::command::Cmd;
use crate::progress::Step;

/// Disks and ports of the node, networks of the tests, and what the probe of features tries.
pub(super) const WANTED: &[&str] = &[
    "act_bpf",
    "bfq",
    "bridge",
    "cls_bpf",
    "dummy",
    "inet_diag",
    "nft_socket",
    "sch_fq",
    "sch_htb",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "tcp_diag",
    "tun",
    "udp_diag",
    "veth",
    "virtio_blk",
    "virtio_console",
    "virtio_pci",
];

/// Copies them out of the unpacked packages below `root`, with the tables that modprobe reads.
/// Each is a built-in of the kernel, or must be there.
pub(super) fn select(root: &Path, to: &Path, kernel: &str, step: &Step) -> Result<()> {
    let depmod = |base: &Path| {
        let busybox = root.join("bin/busybox");
        let depmod = Cmd::new(busybox, "learn which kernel module needs which");
        depmod.args(["depmod", "-b"]).arg(base).arg(kernel).quietly(step)
    };
    depmod(root)?;
    let from = root.join("lib/modules").join(kernel);
    let read = |name: &str| {
        let path = from.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let needed = closure(&read("modules.dep")?);
    let built_in = read("modules.builtin")?;
    for name in WANTED {
        let there = |path: &str| stem(path) == *name;
        ensure!(
            needed.iter().any(|path| there(path)) || built_in.lines().any(there),
            "kernel {kernel} has no module {name}: take it out of the list, or mend what needs it"
        );
    }
    let dir = to.join("lib/modules").join(kernel);
    for path in needed.iter().map(String::as_str).chain(["modules.builtin"]) {
        let target = dir.join(path);
        let parent = target.parent().unwrap_or(&dir);
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        fs::copy(from.join(path), &target)
            .with_context(|| format!("copy {path} to {}", target.display()))?;
    }
    depmod(to)
}

/// Paths of the wanted modules and of what they need, from lines `PATH: PATH…` that name all of
/// it.
fn closure(dependencies: &str) -> BTreeSet<String> {
    let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(path, _)| WANTED.contains(&stem(path)))
        .flat_map(|(path, needs)| std::iter::once(path).chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

/// "veth" of "kernel/drivers/net/veth.ko"
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wanted_module_needs_comes_with_it() {
        let dependencies = "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n\
                            kernel/net/802/stp.ko: kernel/net/llc/llc.ko\n\
                            kernel/net/other.ko: kernel/net/llc/llc.ko\n\
                            kernel/drivers/net/veth.ko:\n";
        let expected = [
            "kernel/drivers/net/veth.ko",
            "kernel/net/802/stp.ko",
            "kernel/net/bridge/bridge.ko",
            "kernel/net/llc/llc.ko",
        ];
        assert_eq!(closure(dependencies).into_iter().collect::<Vec<_>>(), expected);
    }
}
