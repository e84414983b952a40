//! Facts and what is made of them.

use bulkhead_proto::v1;
use jiff::Zoned;

use super::*;
use crate::args::Output;
use crate::render::{Look, document};

fn node(name: &str, kernel: &str, runtime: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        kernel: kernel.to_owned(),
        runtime: runtime.to_owned(),
        kubelet: "v1.30.2".to_owned(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        annotations: BTreeSet::new(),
    }
}

fn facts(nodes: Vec<NodeFacts>) -> Facts {
    let server = Server {
        version: "v1.30.2".to_owned(),
        has_definitions: true,
        has_slices: true,
        has_policies: true,
    };
    let workloads = BTreeSet::from(["kube-flannel-ds".to_owned()]);
    Facts { server, nodes, workloads, agents: Err("it is not installed".to_owned()) }
}

fn agent(name: &str, connection: v1::node::Connection, reason: Option<&str>) -> Node {
    let reasons = reason
        .map(|message| v1::Reason { subject: "addresses".to_owned(), message: message.to_owned() });
    Node::from(v1::Node {
        name: name.to_owned(),
        connection: connection.into(),
        facts: Some(v1::NodeFacts {
            agent_version: "0.1.0".to_owned(),
            kernel_release: "5.10.0".to_owned(),
            controls: vec![v1::ControlSupport {
                control: "io.weight".to_owned(),
                supported: false,
                reason: "no iocost".to_owned(),
            }],
            ..Default::default()
        }),
        status: Some(v1::NodeStatus {
            reasons: reasons.into_iter().collect(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

#[test]
fn kernels_by_their_number() {
    let level = |release| kernel::line(release).level;
    for release in ["6.1.0-50-cloud-amd64", "6.12.107+deb13", "6.6.30", "7.2.12", "10.0.1"] {
        assert_eq!(level(release), Level::Good, "{release}");
    }
    for release in ["5.15.0-1", "5.7.0", "", "unknown"] {
        assert_eq!(level(release), Level::NotEnforced, "{release}");
    }
    for release in ["5.6.19", "4.18.0-553.el8", "3.10.0"] {
        assert_eq!(level(release), Level::CannotInstall, "{release}");
    }
    assert!(kernel::line("6.12.1").means.contains("tried"));
    assert!(kernel::line("6.8.0").means.contains("expected"));
}

#[test]
fn runtimes_by_whether_they_have_nri() {
    let level = |found| runtime::line(found).level;
    for found in ["containerd://2.0.0", "containerd://2.1.9-k3s1"] {
        assert_eq!(level(found), Level::Good, "{found}");
    }
    assert_eq!(level("cri-o://1.31.0"), Level::Note);
    for found in
        ["containerd://1.7.24", "containerd://1.6.9", "cri-o://1.26.1", "docker://20.10.5", ""]
    {
        let line = runtime::line(found);
        assert_eq!(line.level, Level::NotEnforced, "{found}");
        assert!(line.mend.is_some(), "{found}");
    }
}

#[test]
fn the_change_of_containerd_is_exact() {
    let mend = runtime::line("containerd://1.7.24").mend.expect("a mend");
    assert!(mend.contains("/etc/containerd/config.toml"), "{mend}");
    let section = "[plugins.\"io.containerd.nri.v1.nri\"]\n    disable = false";
    assert!(mend.contains(section), "{mend}");
}

#[test]
fn plugins_by_what_they_leave() {
    let by_name = |name: &str| cni::line(&[], &BTreeSet::from([name.to_owned()]));
    assert_eq!(by_name("kindnet-x7k2p").found, "kindnet");
    assert_eq!(by_name("calico-node").found, "calico");
    assert_eq!(by_name("cilium").level, Level::Note);
    assert_eq!(by_name("kindnetish").found, "none seen");
    let mut marked = node("n", "6.12.1", "containerd://2.0.0");
    marked.annotations.insert("flannel.alpha.coreos.com/backend-type".to_owned());
    assert_eq!(cni::line(&[marked], &BTreeSet::new()).found, "flannel");
}

#[test]
fn an_old_api_server_is_worth_knowing_and_no_failure() {
    let mut facts = facts(vec![node("a", "6.12.1", "containerd://2.0.0")]);
    facts.server =
        Server { version: "v1.20.2".to_owned(), has_definitions: true, ..Server::default() };
    assert_eq!(report(&facts).level, Level::Note);
    facts.server.has_definitions = false;
    assert_eq!(report(&facts).level, Level::CannotInstall);
}

#[test]
fn the_report_is_as_good_as_its_worst_node() {
    let good = || node("b", "6.12.1", "containerd://2.1.9");
    let level = |more: Option<NodeFacts>| {
        report(&facts([Some(good()), more].into_iter().flatten().collect())).level
    };
    assert_eq!(level(None), Level::Note);
    assert_eq!(level(Some(node("a", "6.12.1", "containerd://1.7.24"))), Level::NotEnforced);
    assert_eq!(level(Some(node("a", "4.19.0", "containerd://2.0.0"))), Level::CannotInstall);
    let windows = NodeFacts { os: "windows".to_owned(), ..node("w", "10.0", "") };
    assert_eq!(level(Some(windows)), Level::NotEnforced);
    let mainframe = NodeFacts { architecture: "s390x".to_owned(), ..good() };
    assert_eq!(level(Some(mainframe)), Level::CannotInstall);
    assert_eq!(report(&facts(Vec::new())).level, Level::CannotInstall);
}

#[test]
fn an_agent_that_runs_knows_better_than_its_kernels_number() {
    use v1::node::Connection::{Away, Connected};
    let mut facts = facts(vec![node("a", "5.10.0", "containerd://1.7.24")]);
    assert_eq!(report(&facts).nodes[0].level, Level::NotEnforced);
    assert!(!report(&facts).nodes[0].from_agent);
    facts.agents = Ok(vec![agent("a", Connected, None)]);
    let told = report(&facts);
    assert_eq!((told.nodes[0].level, told.nodes[0].from_agent), (Level::Note, true));
    for other in [agent("a", Away, None), agent("a", Connected, Some("the table is full"))] {
        facts.agents = Ok(vec![other]);
        assert_eq!(report(&facts).nodes[0].level, Level::NotEnforced);
    }
    facts.agents = Ok(vec![agent("another", Connected, None)]);
    assert!(!report(&facts).nodes[0].from_agent);
}

#[test]
fn versions_are_two_numbers() {
    assert_eq!(version("v1.30.2"), Some((1, 30)));
    assert_eq!(version("6.12.107+deb13-cloud"), Some((6, 12)));
    assert_eq!(version("1.7~rc1"), Some((1, 7)));
    assert_eq!(version("6"), None);
    assert_eq!(version("x.y"), None);
}

#[test]
fn a_report_for_people_and_for_scripts() {
    let mut facts = facts(vec![
        node("worker-2", "5.4.0-190-generic", "docker://20.10.5"),
        node("worker-1", "6.12.107+deb13-cloud-amd64", "containerd://1.7.24"),
        node("worker-3", "6.12.107+deb13-cloud-amd64", "containerd://1.7.24"),
    ]);
    facts.server.has_slices = false;
    let report = report(&facts);
    let look = Look { now: Zoned::default(), wide: false, details: false };
    let shown = |output| document(&report, output, &look).expect("text");
    insta::assert_snapshot!("preflight-table", shown(Output::Table));
    insta::assert_snapshot!("preflight-csv", shown(Output::Csv));
    insta::assert_snapshot!("preflight-yaml", shown(Output::Yaml));
}
