//! The plugin at a runtime that does what the test says, with an owner that answers as told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use bulkhead_core::{
    Binding, Bindings, Fact, Guarantee, Limit, NetworkMode, NetworkPolicy, NodePolicy, Pod,
    PodFact, PodUid, Rank, Selector, VirtualCluster, VirtualClusterNumber,
};
use bulkhead_nri::messages::{
    Empty, LinuxNamespace, LinuxPodSandbox, PodSandbox, StateChangeEvent,
};
use bulkhead_nri::testing::FakeRuntime;
use bulkhead_nri::{Event as NriEvent, EventMask, RuntimeInfo, serve};
use tokio::io::DuplexStream;

use super::*;
use crate::cycle::Admission;

const ROOT: &str = "kubepods.slice";
const SOON: Duration = Duration::from_secs(5);

/// A sandbox as containerd tells of it under a kubelet with the systemd driver.
fn sandbox(id: &str, uid: &str, namespace: &str) -> PodSandbox {
    let network = LinuxNamespace { kind: "network".to_owned(), path: "/no/such/netns".to_owned() };
    PodSandbox {
        id: id.to_owned(),
        name: format!("pod-{uid}"),
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        linux: Some(LinuxPodSandbox {
            cgroup_parent: format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_")),
            namespaces: vec![network],
            ..LinuxPodSandbox::default()
        }),
        ips: vec!["10.0.0.7".to_owned()],
        ..PodSandbox::default()
    }
}

fn told(mode: NetworkMode, unknown: Unknown) -> Arc<Snapshot> {
    let name: bulkhead_core::VirtualClusterName = "a".parse().unwrap();
    let cluster = VirtualCluster {
        name: name.clone(),
        number: VirtualClusterNumber::new(1).unwrap(),
        addresses: BTreeSet::new(),
        node_ports: BTreeSet::new(),
        guarantee: Guarantee::default(),
        limit: Limit::default(),
        network: NetworkPolicy { mode, ..NetworkPolicy::default() },
    };
    let binding = Binding { virtual_cluster: name.clone(), selector: Selector::default() };
    Arc::new(Snapshot {
        generation: 1,
        virtual_clusters: [(name, cluster)].into(),
        bindings: Bindings([("team".to_owned(), vec![binding])].into()),
        policy: NodePolicy { unknown, ..NodePolicy::default() },
        ..Snapshot::default()
    })
}

/// A runtime to which the plugin has connected, and what the owner hears.
struct Rig {
    runtime: FakeRuntime<DuplexStream>,
    heard: Receiver<Event>,
    state: channel::Receiver<State>,
}

impl Rig {
    async fn new(said: Option<Arc<Snapshot>>, exists: Vec<PodSandbox>) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (owner, heard) = mpsc::channel();
        let (to_told, told) = channel::channel(said);
        let plugin = PodPlugin::new("/no/such/root".into(), ROOT.to_owned(), owner, told);
        let (to_state, state) = channel::channel(State::Connecting);
        tokio::spawn(async move {
            let _told = to_told;
            let options = Options::new(PluginName::new("bulkhead", 90).unwrap());
            serve(ours, &Arc::new(plugin), &options, &to_state, std::future::pending()).await
        });
        let mut runtime = FakeRuntime::new(theirs);
        let events = runtime
            .handshake(("containerd", "1.7.24"), EventMask::BASE, exists, vec![])
            .await
            .unwrap();
        assert!(events.contains(NriEvent::RunPodSandbox), "{events}");
        Self { runtime, heard, state }
    }

    async fn tell(&mut self, event: NriEvent, pod: PodSandbox) -> io::Result<()> {
        let change =
            StateChangeEvent { event: event.number(), pod: Some(pod), ..Default::default() };
        self.runtime.call::<_, Empty>("StateChange", &change).await.map(drop)
    }

    /// Tells of a pod that begins, and answers for the owner.
    async fn run(
        &mut self,
        pod: PodSandbox,
        answer: Option<Admission>,
    ) -> (Pod, Result<(), String>) {
        let change = StateChangeEvent {
            event: NriEvent::RunPodSandbox.number(),
            pod: Some(pod),
            ..Default::default()
        };
        let stream = self.runtime.begin("StateChange", &change, Duration::ZERO).await.unwrap();
        let (asked, reply) = loop {
            match self.heard.try_recv() {
                Ok(Event::PodStarts(pod, reply)) => break (*pod, reply),
                Ok(other) => panic!("{other:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let kept = match answer {
            Some(answer) => reply.send(answer).map(|()| None).unwrap(),
            // It never comes.
            None => Some(reply),
        };
        let answered = self.runtime.answer(stream).await.unwrap();
        drop(kept);
        (asked, answered.map(drop).map_err(|status| status.to_string()))
    }

    fn hear(&self) -> PodFact {
        match self.heard.recv_timeout(SOON) {
            Ok(Event::Learn(Fact::Pods(fact))) => fact,
            other => panic!("{other:?}"),
        }
    }

    fn hears_nothing(&self) {
        let heard = self.heard.recv_timeout(Duration::from_millis(50));
        assert!(matches!(heard, Err(RecvTimeoutError::Timeout)), "{heard:?}");
    }
}

fn uid(text: &str) -> PodUid {
    text.parse().unwrap()
}

fn failed(must_not_run: bool) -> Admission {
    Admission::Failed { reason: "the table is full".to_owned(), must_not_run }
}

#[test]
fn what_the_kubelet_writes_is_believed_and_nothing_else() {
    let mut told = sandbox("s", "1-2", "team");
    let forged =
        [("kubernetes.io/config.source", "api"), ("priorityClassName", "system-node-critical")];
    told.annotations = forged.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    told.labels = [("kubernetes.io/config.source".to_owned(), "file".to_owned())].into();
    let pod = pod_of(&told, ROOT).unwrap();
    assert_eq!(pod.rank, Rank::Ordinary);
    assert_eq!(pod.addresses, ["10.0.0.7".parse().unwrap()].into());
    assert_eq!(
        pod.cgroup.unwrap().relative(),
        "kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
    );
    for source in ["file", "http"] {
        told.annotations.insert("kubernetes.io/config.source".to_owned(), source.to_owned());
        assert_eq!(pod_of(&told, ROOT).unwrap().rank, Rank::Static);
    }
    told.linux.as_mut().unwrap().namespaces.clear();
    let pod = pod_of(&told, ROOT).unwrap();
    assert!(pod.host_network && pod.addresses.is_empty(), "the host's addresses are the host's");
    told.linux.as_mut().unwrap().cgroup_parent = "/elsewhere".to_owned();
    assert_eq!(pod_of(&told, ROOT).unwrap().cgroup, None);
    told.uid = "../x".to_owned();
    assert!(pod_of(&told, ROOT).is_err());
}

#[tokio::test]
async fn what_runs_already_is_told_first_and_whole() {
    let exists = vec![sandbox("s1", "1", "team"), sandbox("s2", "2", "x")];
    let rig = Rig::new(None, exists).await;
    let PodFact::All(pods) = rig.hear() else { panic!() };
    let names: Vec<_> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
    assert_eq!(names, ["team", "x"]);
    assert!(matches!(*rig.state.borrow(), State::Connected { .. }));
}

#[tokio::test]
async fn a_pod_begins_only_when_the_owner_has_registered_it() {
    let mut rig = Rig::new(Some(told(NetworkMode::Enforce, Unknown::Allow)), vec![]).await;
    rig.hear();
    let registered = Admission::Registered("a".parse().unwrap());
    let (asked, answer) = rig.run(sandbox("s", "1", "team"), Some(registered)).await;
    assert_eq!((asked.uid, answer), (uid("1"), Ok(())));
    let (_, answer) = rig.run(sandbox("s2", "2", "team"), Some(failed(true))).await;
    assert!(answer.unwrap_err().contains("the table is full"));
    assert_eq!(rig.hear(), PodFact::Gone(uid("2")), "and it is forgotten");
    let (_, answer) = rig.run(sandbox("s3", "3", "team"), Some(failed(false))).await;
    assert_eq!(answer, Ok(()), "where nothing is denied, nothing is lost but counts");
}

#[tokio::test]
async fn an_owner_that_does_not_answer_holds_back_only_what_must_be_registered() {
    for (mode, is_refused) in [(NetworkMode::Enforce, true), (NetworkMode::Observe, false)] {
        let mut rig = Rig::new(Some(told(mode, Unknown::Allow)), vec![]).await;
        rig.hear();
        let began = std::time::Instant::now();
        let (_, answer) = rig.run(sandbox("s", "1", "team"), None).await;
        assert_eq!(answer.is_err(), is_refused, "{answer:?}");
        assert!(began.elapsed() < Duration::from_millis(1_800), "in time for the runtime");
    }
}

#[tokio::test]
async fn a_pod_of_nobody_is_refused_at_once_where_such_may_not_run() {
    let mut rig = Rig::new(Some(told(NetworkMode::Enforce, Unknown::Deny)), vec![]).await;
    rig.hear();
    let refused = rig.tell(NriEvent::RunPodSandbox, sandbox("s", "1", "x")).await.unwrap_err();
    assert!(refused.to_string().contains("x/pod-1"), "{refused}");
    rig.hears_nothing();
    let (_, answer) = rig.run(sandbox("s2", "2", "kube-system"), Some(Admission::LeftAlone)).await;
    assert_eq!(answer, Ok(()));
}

#[tokio::test]
async fn a_pod_is_gone_with_its_last_sandbox_and_counted_before() {
    let mut rig = Rig::new(None, vec![sandbox("s1", "1", "team")]).await;
    rig.hear();
    // The first sandbox has died, and the kubelet makes another.
    let (_, answer) = rig.run(sandbox("s2", "1", "team"), Some(Admission::LeftAlone)).await;
    assert_eq!(answer, Ok(()));
    rig.tell(NriEvent::StopPodSandbox, sandbox("s1", "1", "team")).await.unwrap();
    rig.tell(NriEvent::RemovePodSandbox, sandbox("s1", "1", "team")).await.unwrap();
    rig.hears_nothing();
    let change = StateChangeEvent {
        event: NriEvent::StopPodSandbox.number(),
        pod: Some(sandbox("s2", "1", "team")),
        ..Default::default()
    };
    let stream = rig.runtime.begin("StateChange", &change, Duration::ZERO).await.unwrap();
    let counted = loop {
        match rig.heard.try_recv() {
            Ok(Event::PodStopped(uid, reply)) => break (uid, reply),
            Ok(other) => panic!("{other:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert_eq!(counted.0, uid("1"));
    counted.1.send(()).unwrap();
    rig.runtime.answer(stream).await.unwrap().unwrap();
    assert_eq!(rig.hear(), PodFact::Addresses(uid("1"), BTreeSet::new()));
    rig.tell(NriEvent::RemovePodSandbox, sandbox("s2", "1", "team")).await.unwrap();
    assert_eq!(rig.hear(), PodFact::Gone(uid("1")));
}

/// The kubelet's directories, as files: what is watched is names.
#[test]
fn a_cgroup_that_comes_is_looked_at_unless_the_runtime_tells() {
    let root = tempfile::tempdir().unwrap();
    let made = |path: &str| std::fs::create_dir(root.path().join(path)).unwrap();
    made("burstable");
    let (owner, heard) = mpsc::channel();
    let (to_state, state) = channel::channel(State::Connecting);
    watch_cgroups(root.path(), owner, state).unwrap();
    let looks = || matches!(heard.recv_timeout(SOON), Ok(Event::Look(..)));
    made("burstable/pod1");
    assert!(looks());
    // A class whose directory comes later.
    made("besteffort");
    assert!(looks());
    std::thread::sleep(Duration::from_millis(200));
    made("besteffort/pod2");
    assert!(looks());
    std::fs::remove_dir(root.path().join("burstable/pod1")).unwrap();
    assert!(looks());
    let runtime = RuntimeInfo {
        name: "containerd".to_owned(),
        version: "1.7.24".to_owned(),
        nri_version: None,
        config: String::new(),
        request_timeout: SOON,
        registration_timeout: SOON,
    };
    let (events, since) = (EventMask::BASE, std::time::SystemTime::now());
    to_state.send_replace(State::Connected { runtime: Arc::new(runtime), events, since });
    made("burstable/pod3");
    assert!(heard.recv_timeout(Duration::from_millis(300)).is_err());
}

#[tokio::test]
async fn the_owner_hears_when_no_runtime_tells_any_more() {
    let (owner, heard) = mpsc::channel();
    let (to_state, state) = channel::channel(State::Connecting);
    let telling = tokio::spawn(watch::tell_when_away(state, owner));
    let options = Options {
        socket: "/no/such/socket".into(),
        ..Options::new(PluginName::new("bulkhead", 90).unwrap())
    };
    let (unheard, _) = mpsc::channel();
    let (_told, told) = channel::channel(None);
    let plugin = PodPlugin::new("/no/such/root".into(), ROOT.to_owned(), unheard, told);
    let stop = tokio::time::sleep(Duration::from_millis(300));
    bulkhead_nri::run_with_reconnect(&Arc::new(plugin), &options, &to_state, stop).await;
    assert!(matches!(heard.try_recv(), Ok(Event::Learn(Fact::Pods(PodFact::RuntimeAway)))));
    drop(to_state);
    telling.await.unwrap();
}

#[test]
fn conditions_say_what_is_not_seen_and_what_becomes_of_it() {
    let mut pods = PodsReport { is_complete: true, ..PodsReport::default() };
    let said = |pods: &PodsReport| {
        let conditions = conditions(&State::Connecting, pods).into_iter();
        conditions.map(|one| format!("{}: {}", one.subject, one.message)).collect::<Vec<_>>()
    };
    let first = said(&pods).remove(0);
    assert!(first.starts_with("nri: connecting; pods are registered when"), "{first}");
    assert!(first.contains("none waited yet; until then a pod that starts is left"), "{first}");
    pods.policy = Unknown::Deny;
    pods.late =
        Late { registered: 4, last_nanoseconds: 12_000_001, longest_nanoseconds: 340_000_000 };
    pods.unknown = vec![uid("1")];
    pods.unknown_count = 7;
    pods.ended_unseen = [("a".parse().unwrap(), 3)].into();
    let text = said(&pods).join("\n");
    let waited = "4 waited, the last for 13 ms, the longest for 340 ms";
    for part in
        ["starts is cut off", "pods: 7 pods", "cut off: 1", "usage: 3 pods", "\"a\"", waited]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    pods.is_complete = false;
    assert!(said(&pods)[1].contains("stay so"));
}

#[test]
fn this_hosts_own_namespace_is_no_pods() {
    let reader = addresses::AddressReader::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let own = vec!["/no/such/file".into(), Path::new("/proc/self/ns/net").to_owned()];
    assert_eq!(runtime.block_on(reader.read(own)), None);
    let places = addresses::places(Some("/run/netns/x"), 7, None);
    assert_eq!(places, [Path::new("/run/netns/x"), Path::new("/proc/7/ns/net")]);
}
