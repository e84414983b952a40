//! Messages become values and come back the same; what has no meaning is refused by name.

#![expect(clippy::unwrap_used, reason = "a test ends with a panic")]

use bulkhead_core::{Amount, BasisPoints, Bytes, NanoCores, NetworkMode, VirtualCluster};
use bulkhead_proto::{ConversionError, conversions, v1};

fn full() -> v1::AgentVirtualCluster {
    let points = |points| v1::memory_amount::Amount::NodeBasisPoints(points);
    v1::AgentVirtualCluster {
        name: "team-a".to_owned(),
        number: 7,
        spec: Some(v1::VirtualClusterSpec {
            addresses: vec!["10.1.0.0/16".to_owned(), "fd00::7".to_owned()],
            guarantee: Some(v1::Guarantee {
                cpu: Some(v1::CpuAmount {
                    amount: Some(v1::cpu_amount::Amount::Nanocores(500_000_000)),
                }),
                memory: Some(v1::MemoryAmount { amount: Some(points(2_500)) }),
                io_weight: 200,
            }),
            limit: Some(v1::Limit {
                cpu: Some(v1::CpuAmount {
                    amount: Some(v1::cpu_amount::Amount::NodeBasisPoints(5_000)),
                }),
                memory: Some(v1::MemoryAmount {
                    amount: Some(v1::memory_amount::Amount::Bytes(1 << 30)),
                }),
                pids: Some(v1::PidsAmount { amount: Some(v1::pids_amount::Amount::Pids(64)) }),
                io: vec![v1::IoLimit {
                    device: "/dev/vda".to_owned(),
                    read_bytes_per_second: 1_000_000,
                    ..Default::default()
                }],
            }),
            network_mode: v1::NetworkMode::Enforce.into(),
            network_allow: vec!["team-b".to_owned()],
            network_denies_unknown: true,
            class: String::new(),
        }),
        node_ports: vec![v1::NodePort { protocol: 6, port: 30_080 }],
    }
}

#[test]
fn a_full_specification_comes_back_the_same() {
    let message = full();
    let cluster = VirtualCluster::try_from(&message).unwrap();
    assert_eq!(cluster.guarantee.cpu, Some(Amount::Absolute(NanoCores(500_000_000))));
    let quarter = BasisPoints::new(2_500).unwrap();
    assert_eq!(cluster.guarantee.memory, Some(Amount::OfNode(quarter)));
    assert_eq!(cluster.limit.memory, Some(Amount::Absolute(Bytes(1 << 30))));
    assert_eq!(cluster.limit.io[0].read_bytes_per_second, Some(1_000_000));
    assert_eq!(cluster.limit.io[0].write_bytes_per_second, None);
    assert_eq!(v1::AgentVirtualCluster::from(&cluster), message);
    assert_eq!(conversions::spec(&cluster, "gold").class, "gold");
}

#[test]
fn every_mode_comes_back() {
    for mode in [NetworkMode::Off, NetworkMode::Observe, NetworkMode::Enforce] {
        let mut cluster = VirtualCluster::try_from(&full()).unwrap();
        cluster.network.mode = mode;
        let message = v1::AgentVirtualCluster::from(&cluster);
        assert_eq!(VirtualCluster::try_from(&message).unwrap().network.mode, mode);
    }
}

#[test]
fn nothing_said_is_the_default() {
    let message =
        v1::AgentVirtualCluster { name: "team-a".to_owned(), number: 1, ..Default::default() };
    let cluster = VirtualCluster::try_from(&message).unwrap();
    assert_eq!(cluster.network.mode, NetworkMode::Observe);
    assert_eq!(cluster.limit, bulkhead_core::Limit::default());
    assert_eq!(cluster.guarantee, bulkhead_core::Guarantee::default());
}

fn refused(break_it: impl FnOnce(&mut v1::AgentVirtualCluster)) -> ConversionError {
    let mut message = full();
    break_it(&mut message);
    VirtualCluster::try_from(&message).unwrap_err()
}

fn spec(message: &mut v1::AgentVirtualCluster) -> &mut v1::VirtualClusterSpec {
    message.spec.as_mut().unwrap()
}

#[test]
fn what_has_no_meaning_is_refused_by_object_and_field() {
    let cases: Vec<(&str, ConversionError)> = vec![
        ("name", refused(|m| m.name = "../etc".to_owned())),
        ("number", refused(|m| m.number = 0)),
        ("spec.addresses[1]", refused(|m| spec(m).addresses[1] = "10.1".to_owned())),
        ("spec.network_allow[0]", refused(|m| spec(m).network_allow[0] = "A".to_owned())),
        ("spec.network_mode", refused(|m| spec(m).network_mode = 99)),
        (
            "spec.guarantee.io_weight",
            refused(|m| spec(m).guarantee.as_mut().unwrap().io_weight = 10_001),
        ),
        (
            "spec.limit.cpu",
            refused(|m| spec(m).limit.as_mut().unwrap().cpu = Some(v1::CpuAmount { amount: None })),
        ),
        (
            "spec.guarantee.memory",
            refused(|m| {
                spec(m).guarantee.as_mut().unwrap().memory = Some(v1::MemoryAmount {
                    amount: Some(v1::memory_amount::Amount::NodeBasisPoints(10_001)),
                });
            }),
        ),
        (
            "spec.limit.io[0].device",
            refused(|m| {
                spec(m).limit.as_mut().unwrap().io[0].device = "/dev/../etc/passwd".to_owned();
            }),
        ),
    ];
    for (field, error) in cases {
        assert_eq!(error.field, field);
        let shown = error.to_string();
        assert!(shown.contains(&error.object) && shown.contains(field), "{shown}");
    }
}
