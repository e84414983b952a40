//! The end: everything goes, and leaves nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::install::{Installed, OURS, TEAMS};
use crate::cluster::pods::places;
use crate::paths;

/// How long taking off may take.
const WAIT: Duration = Duration::from_mins(4);

/// As docs/operate.md has it: first the agents, then what is pinned; then nobody is refused.
pub(crate) fn uninstall_leaves_nothing(on: &Installed<'_>) -> Result<()> {
    on.cluster.kubectl(&["delete", "daemonset", "bulkhead-agent", "-n", OURS, "--wait=true"])?;
    on.cluster.wait("agents to be gone", WAIT, || {
        let label = "app.kubernetes.io/name=bulkhead-agent";
        Ok(on.cluster.kubectl(&["get", "pods", "-n", OURS, "-l", label, "-o", "name"])?.is_empty())
    })?;
    // Pins outlive them: what was refused is refused.
    let from = on.web(TEAMS[0])?.remove(0);
    let others = places(&on.web(TEAMS[1])?);
    from.is_refused(on.cluster, &others)?;
    let uninstall = paths::root().join("deploy/uninstall");
    on.cluster.kubectl(&["apply", "-k", &uninstall.to_string_lossy()])?;
    let nodes = on.cluster.nodes().len();
    on.cluster.wait_pods_ready(OURS, "app.kubernetes.io/name=bulkhead-uninstall", nodes)?;
    for node in on.cluster.nodes() {
        let left = node.run(&["sh", "-c", "ls -A /sys/fs/bpf/bulkhead 2>/dev/null || true"])?;
        ensure!(left.trim().is_empty(), "{} still has {left:?}", node.name());
    }
    from.reaches(on.cluster, &others).map(drop)
}
