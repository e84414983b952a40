//! Who a pod belongs to, from its first moment on.

use anyhow::{Result, ensure};

use crate::cluster::install::{Installed, TEAMS};
use crate::cluster::pods;

/// Pods of team-b that wear everything that could make them somebody else's.
const FORGED: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: forged
  namespace: team-b
  labels:
    app: forged
    vcluster.loft.sh/managed-by: team-a
    vcluster.loft.sh/namespace: team-a
    k3k.io/clusterName: team-a
    capsule.clastix.io/tenant: team-a
    tenancy.x-k8s.io/cluster: team-a
    bulkhead.dev/virtual-cluster: team-a
  annotations:
    bulkhead.dev/virtual-cluster: team-a
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: forged
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sleep, \"100000\"]
";

/// Pods whose first instruction dials: a friend, and a stranger.
const AT_ONCE: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: team-a, labels: {app: at-once}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - name: dial
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, \"wget -q -T 5 -O - http://OTHER:8080/ >/dev/null 2>&1; echo other $?; \
wget -q -T 10 -O - http://OWN:8080/ >/dev/null; echo own $?; sleep 100000\"]
";

/// How many start at once.
const STARTS: usize = 10;

pub(crate) fn forged_labels_change_nothing(on: &Installed<'_>) -> Result<()> {
    on.cluster.apply(FORGED)?;
    on.cluster.wait_pods_ready("team-b", "app=forged", 1)?;
    let forged = pods::find(on.cluster, "team-b", "app=forged")?;
    for pod in on.web(TEAMS[0])? {
        forged[0].is_refused(on.cluster, &format!("{}:8080", pod.address))?;
    }
    for pod in on.web(TEAMS[1])? {
        forged[0].reaches(on.cluster, &format!("{}:8080", pod.address))?;
    }
    on.cluster.kubectl(&["delete", "pod", "forged", "-n", "team-b"]).map(drop)
}

/// Pods that dial in their first millisecond reach their own, and no packet of theirs reaches
/// another's.
pub(crate) fn a_new_pod_is_a_member_at_once(on: &Installed<'_>) -> Result<()> {
    let receiver = on.quiet(TEAMS[1])?.remove(0);
    let own = on.web(TEAMS[0])?.remove(0);
    let before = receiver.packets_received(on.cluster)?;
    let objects: Vec<String> = (0..STARTS)
        .map(|number| {
            AT_ONCE
                .replace("NAME", &format!("at-once-{number}"))
                .replace("OTHER", &receiver.address)
                .replace("OWN", &own.address)
        })
        .collect();
    on.cluster.apply(&objects.join("---\n"))?;
    on.cluster.wait_pods_ready("team-a", "app=at-once", STARTS)?;
    for number in 0..STARTS {
        let name = format!("at-once-{number}");
        on.cluster.wait("a pod to have dialled", super::faults::WAIT, || {
            Ok(on.cluster.kubectl(&["logs", "-n", "team-a", &name])?.contains("own "))
        })?;
        let said = on.cluster.kubectl(&["logs", "-n", "team-a", &name])?;
        ensure!(said.contains("own 0"), "{name} did not reach its own: {said}");
        ensure!(!said.contains("other 0"), "{name} reached another's: {said}");
    }
    let after = receiver.packets_received(on.cluster)?;
    ensure!(after == before, "{} packets arrived at another's pod", after - before);
    on.cluster.kubectl(&["delete", "pod", "-n", "team-a", "-l", "app=at-once"]).map(drop)
}
