//! Who a pod belongs to, from its first moment on.

use anyhow::{Context, Result, ensure};

use crate::cluster::install::{Installed, TEAMS};
use crate::cluster::pods::{self, Pod, places};
use crate::test::faults::Extent;

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

/// A pod of team-a in the network of its node.
const ON_THE_HOST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: on-the-host, namespace: team-a, labels: {app: on-the-host}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - {name: idle, image: localhost/busybox:1, imagePullPolicy: Never, command: [sleep, \"100000\"]}
";

/// A pod that is put on one node by hand.
const MOVED: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: moved, namespace: NAMESPACE, labels: {app: moved}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, \"hostname >/tmp/index.html && exec httpd -f -p 8080 -h /tmp\"]
";

/// What no version of the API server before CEL refuses, and the controller does.
const INVALID: &str = r#"{"spec":{"members":{"namespaces":null,"addresses":["192.0.2.1"],"podSelector":{"matchLabels":{"a":"b"}}}}}"#;

/// How many start at once: in a full run, and else.
const STARTS: [usize; 2] = [100, 6];

pub(crate) fn forged_labels_change_nothing(on: &Installed<'_>) -> Result<()> {
    on.cluster.apply(FORGED)?;
    on.cluster.wait_pods_ready("team-b", "app=forged", 1)?;
    let forged = pods::find(on.cluster, "team-b", "app=forged")?;
    forged[0].is_refused(on.cluster, &places(&on.web(TEAMS[0])?))?;
    forged[0].reaches(on.cluster, &places(&on.web(TEAMS[1])?))?;
    on.cluster.kubectl(&["delete", "pod", "forged", "-n", "team-b"]).map(drop)
}

/// Pods that dial in their first millisecond reach their own, and no packet of theirs reaches
/// another's.
pub(crate) fn a_new_pod_is_a_member_at_once(on: &Installed<'_>) -> Result<()> {
    starts(on, if on.extent == Extent::Full { STARTS[0] } else { STARTS[1] })
}

/// So many of them at once.
pub(super) fn starts(on: &Installed<'_>, count: usize) -> Result<()> {
    let receiver = on.quiet(TEAMS[1])?.remove(0);
    let own = on.web(TEAMS[0])?.remove(0);
    let before = receiver.packets_received(on.cluster)?;
    let objects: Vec<String> = (0..count)
        .map(|number| {
            AT_ONCE
                .replace("NAME", &format!("at-once-{number}"))
                .replace("OTHER", &receiver.address)
                .replace("OWN", &own.address)
        })
        .collect();
    on.cluster.apply(&objects.join("---\n"))?;
    on.cluster.wait_pods_ready("team-a", "app=at-once", count)?;
    for number in 0..count {
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

/// From a pod in its node's network, by pod address and by Service address.
pub(crate) fn host_network_pods_are_refused(on: &Installed<'_>) -> Result<()> {
    on.cluster.apply(ON_THE_HOST)?;
    on.cluster.wait_pods_ready("team-a", "app=on-the-host", 1)?;
    let from = pods::find(on.cluster, "team-a", "app=on-the-host")?.remove(0);
    let mut others = places(&on.web(TEAMS[1])?);
    others.extend(super::enforce::service(on, TEAMS[1])?);
    from.is_refused(on.cluster, &others)?;
    from.reaches(on.cluster, &places(&on.web(TEAMS[0])?))?;
    on.wait_condition("team-a", "BoundaryWeak", "True")?;
    on.cluster.kubectl(&["delete", "pod", "on-the-host", "-n", "team-a"])?;
    on.wait_condition("team-a", "BoundaryWeak", "False")
}

/// An address of one virtual cluster that becomes another's is judged as the other's.
pub(crate) fn an_address_moves(on: &Installed<'_>) -> Result<()> {
    let node = on.cluster.nodes().first().context("no node")?;
    let create = |namespace: &str| -> Result<Pod> {
        on.cluster.apply(&MOVED.replace("NAMESPACE", namespace).replace("NODE", &node.name()))?;
        on.cluster.wait_pods_ready(namespace, "app=moved", 1)?;
        Ok(pods::find(on.cluster, namespace, "app=moved")?.remove(0))
    };
    let first = create(TEAMS[0])?;
    let place = places(std::slice::from_ref(&first));
    let [a, b] = TEAMS.map(|team| on.web(team));
    let (a, b) = (a?, b?);
    a.iter().try_for_each(|pod| pod.reaches(on.cluster, &place).map(drop))?;
    b.iter().try_for_each(|pod| pod.is_refused(on.cluster, &place))?;
    on.cluster.kubectl(&["delete", "pod", "moved", "-n", TEAMS[0]])?;
    let reserved = format!("/var/lib/cni/networks/lab/{}", first.address);
    on.cluster.wait("the address to be free", super::faults::WAIT, || {
        Ok(node.run(&["sh", "-c", &format!("[ -e {reserved} ] || echo free")])?.trim() == "free")
    })?;
    // The plugin gives addresses in turn: it shall think that the one before was the last.
    let before = first.address.rsplit_once('.').context("no IPv4 address")?;
    let last = before.1.parse::<u8>().context("no IPv4 address")? - 1;
    let script =
        format!("printf %s {}.{last} >/var/lib/cni/networks/lab/last_reserved_ip.0", before.0);
    node.run(&["sh", "-c", &script])?;
    let second = create(TEAMS[1])?;
    ensure!(second.address == first.address, "it has {} instead", second.address);
    b.iter().try_for_each(|pod| pod.reaches(on.cluster, &place).map(drop))?;
    a.iter().try_for_each(|pod| pod.is_refused(on.cluster, &place))?;
    on.cluster.kubectl(&["delete", "pod", "moved", "-n", TEAMS[1]]).map(drop)
}

/// What was valid last stands, and the object says what is wrong.
pub(crate) fn an_invalid_object(on: &Installed<'_>) -> Result<()> {
    let patch = |patch: &str| {
        on.cluster.kubectl(&["patch", "virtualcluster", "team-a", "--type=merge", "-p", patch])
    };
    patch(INVALID)?;
    on.wait_condition("team-a", "Ready", "False")?;
    super::enforce::other_traffic_is_refused(on)?;
    let valid =
        r#"{"spec":{"members":{"namespaces":["team-a"],"addresses":null,"podSelector":null}}}"#;
    patch(valid)?;
    on.wait_condition("team-a", "Ready", "True")
}
