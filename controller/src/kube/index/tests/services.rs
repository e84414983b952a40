//! Services: whose their frontends are.

use super::*;

#[test]
fn a_service_is_its_backends_whichever_comes_first() {
    let (mut index, mut told) = listed();
    let of_service = Event::Service(Change::Applied(service("both", "db", "10.96.0.7")));
    applied(&mut index, &mut told, [of_service]);
    assert_eq!(*told.owner_of("both/db"), Owner::Nobody, "it may select pods of either");
    let endpoints = slice("both", "db", &[("10.1.0.1", Some("1"))]);
    applied(&mut index, &mut told, [Event::Slice(Change::Applied(endpoints))]);
    assert_eq!(*told.owner_of("both/db"), Owner::Nobody, "its pod is not known yet");
    let of_a = Pod { labels: Arc::new(labels(&[("tier", "a")])), ..pod("both", "1", "10.1.0.1") };
    applied(&mut index, &mut told, [put(of_a)]);
    assert_eq!(*told.owner_of("both/db"), of("a"));
    applied(&mut index, &mut told, [put(pod("both", "1", "10.1.0.1"))]);
    assert_eq!(*told.owner_of("both/db"), of("b"), "the pod is b's without its label");
    applied(&mut index, &mut told, [gone("both", "1")]);
    assert_eq!(*told.owner_of("both/db"), Owner::Nobody);
}

#[test]
fn a_service_without_backends_is_whose_all_that_it_selects_is() {
    let (mut index, mut told) = listed();
    let chosen = Service {
        selector: Some(labels(&[("tier", "a")])),
        ..service("both", "chosen", "10.96.0.2")
    };
    let other = Service {
        selector: Some(labels(&[("tier", "x")])),
        ..service("both", "other", "10.96.0.3")
    };
    let services = [
        service("a", "all", "10.96.0.1"),
        chosen,
        other,
        service("both", "any", "10.96.0.4"),
        service("plain", "any", "10.96.0.5"),
    ];
    let events = services.map(|it| Event::Service(Change::Applied(it)));
    applied(&mut index, &mut told, events);
    assert_eq!(*told.owner_of("a/all"), of("a"));
    assert_eq!(*told.owner_of("both/chosen"), of("a"));
    assert_eq!(*told.owner_of("both/other"), of("b"));
    assert_eq!(*told.owner_of("both/any"), Owner::Nobody);
    assert_eq!(*told.owner_of("plain/any"), Owner::Plain);
}

/// An endpoint that names one's own pod and carries another's address is that other's.
#[test]
fn endpoints_that_lie_about_their_pod_win_nothing() {
    let (mut index, mut told) = listed();
    let lie = slice("b", "trap", &[("10.1.0.1", Some("own"))]);
    let events = [
        put(pod("a", "1", "10.1.0.1")),
        put(pod("b", "own", "10.1.0.2")),
        Event::Service(Change::Applied(service("b", "trap", "10.96.0.9"))),
        Event::Slice(Change::Applied(lie)),
    ];
    applied(&mut index, &mut told, events);
    assert_eq!(*told.owner_of("b/trap"), of("a"));
    let both = slice("b", "trap", &[("10.1.0.1", Some("own")), ("10.1.0.2", Some("own"))]);
    applied(&mut index, &mut told, [Event::Slice(Change::Applied(both))]);
    assert_eq!(*told.owner_of("b/trap"), Owner::Nobody, "several have it, so nobody has");
    assert_eq!(index.mixed().count(), 1);
}

#[test]
fn an_external_address_takes_nothing_from_the_cluster() {
    let (mut index, mut told) = listed();
    let greedy = Service {
        external: ["10.1.0.1", "10.96.0.1", "203.0.113.5"].map(ip).to_vec(),
        ..service("b", "greedy", "10.96.0.9")
    };
    let events = [
        Event::Service(Change::Applied(greedy)),
        put(pod("a", "1", "10.1.0.1")),
        Event::Service(Change::Applied(service("a", "dns", "10.96.0.1"))),
    ];
    applied(&mut index, &mut told, events);
    let greedy = told.0.services["b/greedy"].clone().unwrap();
    assert_eq!(greedy.addresses, BTreeSet::from(["10.96.0.9", "203.0.113.5"].map(ip)));
    assert_eq!(greedy.owner, of("b"));
}

/// As the cluster address of the same Service.
#[test]
fn node_ports_are_whose_the_backends_are() {
    let (mut index, mut told) = listed();
    let port = |port| NodePort::new(Protocol::Tcp, port).unwrap();
    let with = |namespace, name, address, number| Service {
        node_ports: BTreeSet::from([port(number)]),
        ..service(namespace, name, address)
    };
    let events = [
        put(pod("a", "1", "10.1.0.1")),
        put(pod("b", "2", "10.1.0.2")),
        Event::Service(Change::Applied(with("b", "trap", "10.96.0.9", 30_001))),
        Event::Slice(Change::Applied(slice("b", "trap", &[("10.1.0.1", Some("2"))]))),
        Event::Service(Change::Applied(with("plain", "web", "10.96.0.8", 30_002))),
    ];
    applied(&mut index, &mut told, events);
    let shown = |told: &Told, name: &str| {
        let service = told.0.services[name].clone().unwrap();
        (service.owner, service.node_ports)
    };
    assert_eq!(shown(&told, "b/trap"), (of("a"), BTreeSet::from([port(30_001)])));
    assert_eq!(shown(&told, "plain/web"), (Owner::Plain, BTreeSet::from([port(30_002)])));
    // Somebody writes another's pod among the endpoints of his own.
    let both = slice("b", "trap", &[("10.1.0.1", None), ("10.1.0.2", None)]);
    applied(&mut index, &mut told, [Event::Slice(Change::Applied(both))]);
    assert_eq!(shown(&told, "b/trap"), (Owner::Nobody, BTreeSet::from([port(30_001)])));
    let moved = Event::Service(Change::Applied(with("b", "trap", "10.96.0.9", 30_007)));
    applied(&mut index, &mut told, [moved]);
    assert_eq!(shown(&told, "b/trap").1, BTreeSet::from([port(30_007)]));
}

/// What is behind a node's port or another Service's address is somebody else's to say.
#[test]
fn endpoints_that_lead_to_a_node_or_to_another_service_are_nobodys() {
    let (mut index, mut told) = listed();
    let node = Node {
        name: "n2".into(),
        addresses: BTreeSet::from([ip("192.168.0.2")]),
        ranges: BTreeSet::from(["10.1.0.0/16".parse().unwrap()]),
        ..Node::default()
    };
    let load_balanced =
        Service { external: vec![ip("203.0.113.7")], ..service("b", "web", "10.96.0.2") };
    let events = [
        Event::Node(Change::Applied(node)),
        put(pod("a", "1", "10.1.0.1")),
        Event::Service(Change::Applied(service("a", "trap", "10.96.0.9"))),
        Event::Service(Change::Applied(service("plain", "kubelet", "10.96.0.8"))),
        Event::Slice(Change::Applied(slice("plain", "kubelet", &[("192.168.0.2", None)]))),
        Event::Service(Change::Applied(load_balanced)),
    ];
    applied(&mut index, &mut told, events);
    for (backends, owner) in [
        (&[("192.168.0.2", None)][..], Owner::Nobody),
        (&[("10.1.0.1", Some("1"))], of("a")),
        (&[("10.1.0.1", Some("1")), ("192.168.0.2", None)], Owner::Nobody),
        (&[("10.1.0.1", Some("1")), ("192.168.0.2", Some("not-there"))], Owner::Nobody),
        (&[("10.96.0.2", None)], Owner::Nobody),
        (&[("203.0.113.7", None)], Owner::Nobody),
        (&[("198.51.100.1", None)], Owner::Plain),
    ] {
        let endpoints = slice("a", "trap", backends);
        applied(&mut index, &mut told, [Event::Slice(Change::Applied(endpoints))]);
        assert_eq!(*told.owner_of("a/trap"), owner, "{backends:?}");
    }
    assert_eq!(*told.owner_of("plain/kubelet"), Owner::Plain, "an operator's own");
    // Whoever comes later.
    let endpoints = slice("a", "trap", &[("10.96.0.77", None), ("10.1.0.1", Some("1"))]);
    applied(&mut index, &mut told, [Event::Slice(Change::Applied(endpoints))]);
    assert_eq!(*told.owner_of("a/trap"), of("a"));
    let later = Event::Service(Change::Applied(service("b", "later", "10.96.0.77")));
    applied(&mut index, &mut told, [later]);
    assert_eq!(*told.owner_of("a/trap"), Owner::Nobody);
    applied(&mut index, &mut told, [Event::Service(Change::Gone(Key::new("b", "later")))]);
    assert_eq!(*told.owner_of("a/trap"), of("a"));
}

/// Else one pod of one's own among them would open them all.
#[test]
fn a_service_before_own_and_plain_pods_is_not_its_own_for_who_is_closed_to_plain_ones() {
    let (mut index, mut told) = listed();
    let both = slice("a", "web", &[("10.1.0.1", Some("1")), ("10.1.0.3", None)]);
    let events = [
        put(pod("a", "1", "10.1.0.1")),
        put(pod("plain", "3", "10.1.0.3")),
        Event::Service(Change::Applied(service("a", "web", "10.96.0.9"))),
        Event::Slice(Change::Applied(both)),
    ];
    applied(&mut index, &mut told, events);
    assert_eq!(*told.owner_of("a/web"), of("a"));
    index.set_rules(Rules { closed: BTreeSet::from(["a".parse().unwrap()]), ..rules() });
    told.take(&mut index);
    assert_eq!(*told.owner_of("a/web"), Owner::Nobody);
    index.set_rules(rules());
    told.take(&mut index);
    assert_eq!(*told.owner_of("a/web"), of("a"));
}
