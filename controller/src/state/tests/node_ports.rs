//! Whose node ports are, who is told, and what it costs.

use bulkhead_proto::v1;
use prost::Message;

use super::*;

impl Place {
    /// Node ports as a node is told them: of a virtual cluster, or those of nobody.
    fn ports(&self, node: &str, of: Option<&str>) -> Vec<u16> {
        let told = self.told(node);
        let ports = match of {
            Some(cluster) => &told.virtual_clusters[&name(cluster)].node_ports,
            None => &told.unclear_node_ports,
        };
        ports.iter().map(|it| it.port).collect()
    }
}

#[test]
fn every_node_is_told_every_virtual_clusters_node_ports_and_no_others() {
    let place = Place::with(&[("a", &[], &[]), ("b", &[], &[])]);
    place.pods(&[("1", pod("n1", "a", &["10.0.0.1"]))]);
    place.services(&[
        ("n/a", served("a", &[30_001, 30_002])),
        ("n/b", served("b", &[30_003])),
        ("n/shared", served("shared", &[30_004])),
        ("n/unclear", served("", &[30_005])),
        ("n/none", served("b", &[])),
    ]);
    for node in ["n1", "elsewhere"] {
        assert_eq!(place.ports(node, Some("a")), [30_001, 30_002]);
        assert_eq!(place.ports(node, Some("b")), [30_003]);
        assert_eq!(place.ports(node, None), [30_005]);
    }
    // It turns out whose it is; another is given up.
    place.services(&[("n/unclear", served("b", &[30_005])), ("n/a", served("a", &[30_002]))]);
    assert_eq!(place.ports("n1", Some("a")), [30_002]);
    assert_eq!(place.ports("n1", Some("b")), [30_003, 30_005]);
    assert_eq!(place.ports("n1", None), Vec::<u16>::new());
    place.services(&[("n/b", None), ("n/unclear", served("shared", &[30_005]))]);
    assert_eq!(place.ports("n1", Some("b")), Vec::<u16>::new());
    let services = [("n/other".to_owned(), served("b", &[30_009]))].into();
    let whole = ClusterChange { whole: true, services, ..ClusterChange::default() };
    place.state.change_cluster(whole).unwrap();
    assert_eq!(place.ports("n1", Some("a")), Vec::<u16>::new());
    assert_eq!(place.ports("n1", Some("b")), [30_009]);
}

#[test]
fn a_node_port_of_two_services_is_told_of_the_first_until_that_goes() {
    let place = Place::with(&[("a", &[], &[]), ("b", &[], &[])]);
    place.services(&[("n/first", served("a", &[30_001]))]);
    place.services(&[("n/second", served("b", &[30_001]))]);
    assert_eq!(place.ports("n", Some("a")), [30_001]);
    assert_eq!(place.ports("n", Some("b")), Vec::<u16>::new());
    // Said again, it is the first still.
    place.services(&[("n/first", served("a", &[30_001, 30_002]))]);
    assert_eq!(place.ports("n", Some("a")), [30_001, 30_002]);
    place.services(&[("n/first", None)]);
    assert_eq!(place.ports("n", Some("a")), Vec::<u16>::new());
    assert_eq!(place.ports("n", Some("b")), [30_001]);
}

#[test]
fn a_node_port_that_comes_is_told_alone_and_what_was_known_is_no_news() {
    let place = Place::with(&[("a", &[], &[]), ("b", &[], &[])]);
    place.services(&[("n/a", served("a", &[30_001]))]);
    let (first, generation) = (place.view("n"), place.generation());
    place.services(&[("n/b", served("b", &[30_002]))]);
    let later = first.later(&place.state.current(), "n");
    let delta = first.delta_to(&later, generation);
    assert_eq!(delta.node_ports.keys().collect::<Vec<_>>(), [&name("b")]);
    assert!(delta.addresses.is_empty() && delta.upserted.is_empty());
    let bytes = v1::SnapshotDelta::from(&delta).encoded_len();
    assert!(bytes < 40, "{bytes} bytes");
    let generation = place.generation();
    place.services(&[("n/b", served("b", &[30_002]))]);
    assert_eq!(place.generation(), generation);
}

/// The whole of Kubernetes' own range, 30000 to 32767.
#[test]
fn all_node_ports_of_a_cluster_are_few_bytes() {
    let names: Vec<String> = (0..100).map(|n| format!("team-{n}")).collect();
    let clusters: Vec<(&str, &[&str], &[&str])> =
        names.iter().map(|name| (name.as_str(), &[][..], &[][..])).collect();
    let place = Place::with(&clusters);
    let bytes = || bulkhead_proto::snapshots::whole(&place.told("n")).encoded_len();
    let before = bytes();
    let services: Vec<(String, Option<Service>)> = (30_000..32_768_u16)
        .map(|port| (port.to_string(), served(&names[usize::from(port) % 100], &[port])))
        .collect();
    let services: Vec<(&str, Option<Service>)> =
        services.iter().map(|(name, it)| (name.as_str(), it.clone())).collect();
    place.services(&services);
    let (ports, bytes) = (services.len(), bytes() - before);
    println!("{ports} node ports are {bytes} bytes");
    assert_eq!(ports, 2_768);
    assert!(bytes < 10 * ports, "{bytes} bytes");
}
