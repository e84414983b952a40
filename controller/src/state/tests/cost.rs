//! What a large cluster costs: 10,000 nodes with 200,000 pods of 1,000 virtual clusters. Printed
//! for docs/scale.md, with bounds that it must keep.

use std::time::Instant;

use bulkhead_proto::v1;
use prost::Message;

use super::*;

const NODES: usize = 10_000;
const PODS: usize = 200_000;
const CLUSTERS: usize = 1_000;

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or("RssAnon: 0 kB");
    let kibibytes = line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Each virtual cluster has 200 pods on 100 nodes; two of each node's pods are of one.
fn placed(number: usize) -> Pod {
    let cluster = number % CLUSTERS;
    let node = (cluster * 10 + (number / CLUSTERS) % 100 * 97) % NODES;
    let address = IpAddr::from((0x0a00_0000 + u32::try_from(number).unwrap()).to_be_bytes());
    Pod {
        node: format!("node-{node}.example"),
        owner: Owner::VirtualCluster(name(&format!("team-{cluster}"))),
        addresses: [address].into(),
        namespace: format!("team-{cluster}").into(),
        name: format!("shop-6d4cf56db6-{number:05}").into(),
        ..Pod::default()
    }
}

fn uid(number: usize) -> String {
    format!("11111111-2222-3333-4444-{number:012}")
}

#[test]
#[ignore = "a measurement: run it alone, in release, with --ignored --nocapture"]
fn ten_thousand_nodes_with_two_hundred_thousand_pods() {
    let place = place();
    let names: Vec<String> = (0..CLUSTERS).map(|n| format!("team-{n}")).collect();
    let clusters: Vec<(&str, &[&str], &[&str])> =
        names.iter().map(|name| (name.as_str(), &[][..], &[][..])).collect();
    let objects = catalogue(&clusters);
    let before = resident();
    place.state.set_objects(&objects, "test").unwrap();
    for node in 0..NODES {
        let address = IpAddr::from((0xac10_0000 + u32::try_from(node).unwrap()).to_be_bytes());
        let node = format!("node-{node}.example");
        place.state.making().holders.set_node(&node, Says::Agent, [address].into());
    }
    let pods = (0..PODS).map(|number| (uid(number), Some(placed(number)))).collect();
    let began = Instant::now();
    let change = ClusterChange { whole: true, pods, ..ClusterChange::default() };
    place.state.change_cluster(change).unwrap();
    println!("first list of {PODS} pods: {:?}", began.elapsed());
    let held = resident() - before;
    println!("controller: {} MiB, {} bytes for each pod", held >> 20, held / PODS as u64);

    let began = Instant::now();
    let nodes: Vec<String> = (0..NODES).map(|node| format!("node-{node}.example")).collect();
    let views: Vec<View> = nodes.iter().map(|node| place.view(node)).collect();
    println!("{NODES} views: {:?}", began.elapsed());
    let of_views = resident() - before - held;
    println!("views: {} bytes for each node", of_views / NODES as u64);
    let whole = bulkhead_proto::snapshots::whole(&views[0].snapshot(1)).encoded_len();
    let told: usize = views[0].clusters().map(|cluster| cluster.addresses.len()).sum();
    println!("one node is told {told} pod addresses in a snapshot of {whole} bytes");
    let sizes: Vec<usize> = views[0]
        .pods()
        .map(|(uid, pod)| bulkhead_proto::pods::named_pod(uid, pod).encoded_len())
        .collect();
    let of_names: usize = sizes.iter().sum();
    println!("{} pods are named to it, {of_names} bytes of these", sizes.len());

    let rounds = 50_usize;
    let (mut to_change, mut to_tell, mut news, mut bytes) = (0, 0, 0, 0);
    let (mut namings, mut bytes_of_names) = (0, 0);
    let mut views = views;
    for round in 0..rounds {
        let began = Instant::now();
        let pods = [(uid(PODS + round), Some(placed(PODS + round)))].into();
        place.state.change_cluster(ClusterChange { pods, ..ClusterChange::default() }).unwrap();
        to_change += began.elapsed().as_micros();
        let world = place.state.current();
        let began = Instant::now();
        for (node, view) in nodes.iter().zip(&mut views) {
            let later = view.later(&world, node);
            let delta = view.delta_to(&later, view.world.generation);
            if !delta.is_empty() {
                news += 1;
                let message = v1::SnapshotDelta::from(&delta);
                bytes += message.encoded_len();
                namings += message.pods.len();
                bytes_of_names += message.pods.iter().map(Message::encoded_len).sum::<usize>();
            }
            *view = later;
        }
        to_tell += began.elapsed().as_micros();
    }
    let rounds = rounds as u128;
    println!("one pod more: {} µs for a generation", to_change / rounds);
    println!("{} µs for all {NODES} views of it", to_tell / rounds);
    println!("{} nodes are told, {} bytes each", news / 50, bytes / news.max(1));
    println!("{namings} of {rounds} are named, {} bytes each", bytes_of_names / namings.max(1));
    assert_eq!(namings as u128, rounds, "each to one node");
    assert!(held < 400 << 20, "{held} bytes");
    assert!(news / 50 <= 110, "a pod is told to {news} nodes in 50 rounds");
    assert!(told <= 12_000, "{told} addresses");
}

/// From the cluster's change to the bytes that one node is sent.
#[test]
#[ignore = "a measurement: run it alone, in release, with --ignored --nocapture"]
fn one_address_among_ten_thousand() {
    let place = place();
    let names: Vec<String> = (0..100).map(|n| format!("team-{n}")).collect();
    let clusters: Vec<(&str, &[&str], &[&str])> =
        names.iter().map(|name| (name.as_str(), &[][..], &[][..])).collect();
    place.state.set_objects(&catalogue(&clusters), "test").unwrap();
    let on_one_node = |number: usize| {
        let address = IpAddr::from((0x0a00_0000 + u32::try_from(number).unwrap()).to_be_bytes());
        pod("n", &names[number % 100], &[&address.to_string()])
    };
    let pods = (0..10_000).map(|number| (uid(number), on_one_node(number))).collect();
    place.state.change_cluster(ClusterChange { pods, ..ClusterChange::default() }).unwrap();
    let mut view = place.view("n");
    let mut times = Vec::new();
    for number in 10_000..10_500 {
        let began = Instant::now();
        let pods = [(uid(number), on_one_node(number))].into();
        place.state.change_cluster(ClusterChange { pods, ..ClusterChange::default() }).unwrap();
        let later = view.later(&place.state.current(), "n");
        let delta = view.delta_to(&later, view.world.generation);
        let bytes = v1::SnapshotDelta::from(&delta).encode_to_vec();
        times.push(began.elapsed());
        assert!(bytes.len() < 200);
        view = later;
    }
    times.sort_unstable();
    println!("controller: median {:?}, p99 {:?}", times[250], times[495]);
    assert!(times[250].as_micros() < 2_500);
}
