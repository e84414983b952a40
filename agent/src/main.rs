//! The DaemonSet program: turns facts about virtual clusters into cgroups and eBPF, and measures them.

fn main() {}
