//! What the controller of these tests knows: two virtual clusters on two nodes, with constant use.

use bulkhead_proto::{time, v1};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// 2025-03-01T10:00:00Z, when the nodes last said something.
pub(crate) const OBSERVED: u64 = 1_740_823_200 * SECOND;

/// Virtual clusters, by name.
pub(crate) fn virtual_clusters() -> Vec<v1::VirtualCluster> {
    vec![team_a(), team_b(), measured()]
}

/// What is wrong with the objects as they are written.
pub(crate) fn problems() -> Vec<String> {
    vec!["file:team-c.yaml:7: spec.perNode.limit.cpu: \"two\" is no amount".to_owned()]
}

/// What is probably not meant.
pub(crate) fn warnings() -> Vec<String> {
    vec!["file:team-a.yaml:12: spec.network.allow: team-b does not allow team-a".to_owned()]
}

fn team_a() -> v1::VirtualCluster {
    v1::VirtualCluster {
        name: "team-a".to_owned(),
        number: 1,
        spec: Some(v1::VirtualClusterSpec {
            addresses: vec!["10.0.1.0/24".to_owned(), "fd00:1::/64".to_owned()],
            guarantee: Some(v1::Guarantee {
                cpu: Some(nanocores(500_000_000)),
                memory: Some(v1::MemoryAmount {
                    amount: Some(v1::memory_amount::Amount::NodeBasisPoints(1_250)),
                }),
                io_weight: 200,
            }),
            limit: Some(v1::Limit {
                cpu: Some(nanocores(1_500_000_000)),
                memory: Some(v1::MemoryAmount {
                    amount: Some(v1::memory_amount::Amount::Bytes(256 << 20)),
                }),
                pids: Some(v1::PidsAmount { amount: Some(v1::pids_amount::Amount::Pids(512)) }),
                io: vec![v1::IoLimit {
                    device: "/dev/vda".to_owned(),
                    read_bytes_per_second: 10 << 20,
                    write_operations_per_second: 400,
                    ..Default::default()
                }],
            }),
            network_mode: v1::NetworkMode::Enforce.into(),
            network_allow: vec!["team-b".to_owned()],
            network_denies_unknown: false,
            class: "gold".to_owned(),
        }),
        nodes: node_statuses("team-a"),
        source: "file:team-a.yaml".to_owned(),
    }
}

fn nanocores(nanocores: u64) -> v1::CpuAmount {
    v1::CpuAmount { amount: Some(v1::cpu_amount::Amount::Nanocores(nanocores)) }
}

fn team_b() -> v1::VirtualCluster {
    v1::VirtualCluster {
        name: "team-b".to_owned(),
        number: 2,
        spec: Some(v1::VirtualClusterSpec {
            addresses: vec!["10.0.2.7".to_owned()],
            network_mode: v1::NetworkMode::Observe.into(),
            ..Default::default()
        }),
        nodes: node_statuses("team-b"),
        source: "file:team-b.yaml".to_owned(),
    }
}

fn measured() -> v1::VirtualCluster {
    v1::VirtualCluster {
        name: "unseen".to_owned(),
        number: 9,
        spec: Some(v1::VirtualClusterSpec {
            network_mode: v1::NetworkMode::Off.into(),
            ..Default::default()
        }),
        source: "file:unseen.yaml".to_owned(),
        ..Default::default()
    }
}

/// How the nodes do by one virtual cluster.
fn node_statuses(name: &str) -> Vec<v1::VirtualClusterNodeStatus> {
    let statuses = nodes().into_iter().filter_map(|node| node.status);
    let all = statuses.flat_map(|status| status.virtual_clusters);
    all.filter(|status| status.name == name).collect()
}

/// Nodes, by name.
pub(crate) fn nodes() -> Vec<v1::Node> {
    use v1::virtual_cluster_node_status::State;
    let bound = "memory: controller is bound to cgroup v1";
    let worker_1 = v1::Node {
        name: "worker-1".to_owned(),
        connection: v1::node::Connection::Connected.into(),
        last_seen: Some(time::timestamp(OBSERVED)),
        facts: Some(facts("worker-1", None)),
        status: Some(v1::NodeStatus {
            applied_generation: 7,
            virtual_clusters: vec![
                status("worker-1", "team-a", State::Applied, &[]),
                status("worker-1", "team-b", State::Applied, &[]),
            ],
            ..Default::default()
        }),
        wanted_generation: 7,
    };
    let worker_2 = v1::Node {
        name: "worker-2".to_owned(),
        connection: v1::node::Connection::Away.into(),
        last_seen: Some(time::timestamp(OBSERVED)),
        facts: Some(facts("worker-2", Some(bound))),
        status: Some(v1::NodeStatus {
            applied_generation: 6,
            virtual_clusters: vec![
                status(
                    "worker-2",
                    "team-a",
                    State::Degraded,
                    &[
                        ("memory.max", bound),
                        ("io.max", "/dev/vda: no such device; name one of this node"),
                    ],
                ),
                status(
                    "worker-2",
                    "team-b",
                    State::Refused,
                    &[("ADDRESSES", "table is full; raise its size and start the agent again")],
                ),
            ],
            reasons: vec![v1::Reason {
                subject: "ADDRESSES".to_owned(),
                message: "generation 7 is refused whole: table is full".to_owned(),
            }],
            journal_backlog_records: 42,
            late_pods: None,
        }),
        wanted_generation: 7,
    };
    vec![worker_1, worker_2]
}

fn facts(node: &str, no_memory: Option<&str>) -> v1::NodeFacts {
    let control = |control: &str, reason: Option<&str>| v1::ControlSupport {
        control: control.to_owned(),
        supported: reason.is_none(),
        reason: reason.unwrap_or_default().to_owned(),
    };
    v1::NodeFacts {
        boot_id: format!("boot-of-{node}"),
        kernel_release: "6.12.0".to_owned(),
        agent_version: "0.1.0".to_owned(),
        abi_version: 1,
        capacity_nanocores: 2 * SECOND,
        capacity_memory_bytes: 4 << 30,
        capacity_pids: 4_194_304,
        addresses: vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
        controls: vec![control("cpu.max", None), control("memory.max", no_memory)],
    }
}

fn status(
    node: &str,
    name: &str,
    state: v1::virtual_cluster_node_status::State,
    reasons: &[(&str, &str)],
) -> v1::VirtualClusterNodeStatus {
    let reason = |(subject, message): &(&str, &str)| v1::Reason {
        subject: (*subject).to_owned(),
        message: (*message).to_owned(),
    };
    v1::VirtualClusterNodeStatus {
        node: node.to_owned(),
        name: name.to_owned(),
        state: state.into(),
        reasons: reasons.iter().map(reason).collect(),
        mended: 3,
        observed_at: Some(time::timestamp(OBSERVED)),
    }
}

/// What one virtual cluster used on one node in a row. team-a is seen whole; of team-b half the
/// time, and its network not at all.
pub(crate) fn usage_row(start: u64, end: u64, name: &str, node: &str) -> v1::UsageRow {
    let wanted_nanoseconds = end - start;
    let whole = name == "team-a";
    let covered_nanoseconds = if whole { wanted_nanoseconds } else { wanted_nanoseconds / 2 };
    let coverage = Some(v1::Coverage { covered_nanoseconds, wanted_nanoseconds });
    let unseen = Some(v1::Coverage { covered_nanoseconds: 0, wanted_nanoseconds });
    let seconds = covered_nanoseconds / SECOND;
    v1::UsageRow {
        start: Some(time::timestamp(start)),
        end: Some(time::timestamp(end)),
        virtual_cluster: name.to_owned(),
        node: node.to_owned(),
        cpu: Some(v1::CpuUsage {
            usage_nanoseconds: seconds * 1_250_000_000,
            user_nanoseconds: seconds * SECOND,
            system_nanoseconds: seconds * 250_000_000,
            throttled_nanoseconds: seconds * 250_000_000,
            throttled_periods: seconds * 2,
            coverage,
        }),
        memory: Some(v1::MemoryUsage {
            byte_seconds: seconds * (96 << 20),
            peak_bytes: 128 << 20,
            oom_kills: 1,
            current_bytes: 64 << 20,
            coverage,
        }),
        io: Some(v1::IoUsage {
            read_bytes: seconds * 4096,
            write_bytes: seconds * 8192,
            read_operations: seconds,
            write_operations: seconds * 2,
            coverage,
        }),
        pids: Some(v1::PidsUsage { peak: 40, refused: 5, current: 12, coverage }),
        pressure: Some(pressure(seconds, coverage)),
        network: Some(v1::NetworkUsage {
            classes: if whole { traffic(seconds) } else { Vec::new() },
            coverage: if whole { coverage } else { unseen },
        }),
    }
}

fn pressure(seconds: u64, coverage: Option<v1::Coverage>) -> v1::PressureUsage {
    v1::PressureUsage {
        cpu_some_nanoseconds: seconds * 10_000_000,
        memory_some_nanoseconds: seconds * 20_000_000,
        memory_full_nanoseconds: seconds * 5_000_000,
        io_some_nanoseconds: seconds * 30_000_000,
        io_full_nanoseconds: seconds * 1_000_000,
        coverage,
    }
}

fn traffic(seconds: u64) -> Vec<v1::NetworkClassUsage> {
    use v1::{NetworkClass as Class, NetworkDirection as Direction};
    let usage = |direction: Direction, class: Class, bytes: u64| v1::NetworkClassUsage {
        direction: direction.into(),
        class: class.into(),
        passed_bytes: seconds * bytes,
        passed_packets: seconds,
        ..Default::default()
    };
    let denied = v1::NetworkClassUsage {
        denied_bytes: 640,
        denied_packets: 10,
        denied_connects: 3,
        denied_sendmsgs: 1,
        ..usage(Direction::Egress, Class::Other, 0)
    };
    // Of a controller that knows one class more than this version.
    let newer = v1::NetworkClassUsage { class: 77, ..usage(Direction::Ingress, Class::Own, 10) };
    vec![
        usage(Direction::Egress, Class::Own, 1024),
        usage(Direction::Egress, Class::Outside, 2048),
        usage(Direction::Ingress, Class::Own, 512),
        denied,
        newer,
    ]
}
