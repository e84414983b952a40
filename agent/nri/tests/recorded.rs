//! Conversations with real runtimes, told again byte by byte.

#[path = "../examples/against_containerd/witness.rs"]
mod witness;

use std::io;
use std::sync::Arc;

use bulkhead_nri::messages::{
    ConfigureRequest, ContainerRequest, ContainerState, StateChangeEvent, SynchronizeRequest,
    UpdateContainerRequest,
};
use bulkhead_nri::mux::{self, Connection};
use bulkhead_nri::testing::{Recording, Speaker};
use bulkhead_nri::ttrpc::{self, Incoming, Kind, Request};
use bulkhead_nri::{End, Event, Options, Plugin, PluginName, State, serve};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use witness::{REFUSED, SLICE, Witness};

/// Without pods: what `against_containerd --idle` records.
const IDLE: &str = include_str!("recorded/containerd-1.7.24-idle.txt");
/// With pods: what `against_containerd` records.
const PODS: &str = include_str!("recorded/containerd-1.7.24-pods.txt");

/// Says what the runtime said, one byte at a time; the plugin must say what it said then.
async fn replay<P: Plugin>(
    recording: &Recording,
    name: PluginName,
    plugin: Arc<P>,
) -> io::Result<Arc<End>> {
    let (ours, mut theirs) = tokio::io::duplex(1);
    let (state, _watched) = watch::channel(State::Connecting);
    let serving = tokio::spawn(async move {
        serve(ours, &plugin, &Options::new(name), &state, std::future::pending()).await
    });
    for (number, piece) in recording.pieces.iter().enumerate() {
        match piece.speaker {
            Speaker::Runtime => theirs.write_all(&piece.bytes).await?,
            Speaker::Plugin => {
                let mut said = vec![0; piece.bytes.len()];
                theirs.read_exact(&mut said).await?;
                assert_eq!(said, piece.bytes, "piece {number}");
            }
        }
    }
    drop(theirs);
    Ok(serving.await?)
}

fn witness() -> (PluginName, Arc<Witness>) {
    (PluginName::new("witness", 10).expect("a good name"), Arc::default())
}

#[tokio::test]
async fn an_idle_containerd_is_answered_as_it_was() -> io::Result<()> {
    let recording: Recording = IDLE.parse().map_err(io::Error::other)?;
    let (name, plugin) = witness();
    let end = replay(&recording, name, Arc::clone(&plugin)).await?;
    assert!(matches!(*end, End::ClosedByRuntime { late: None }), "{end}");
    assert_eq!(plugin.existed(), [(Vec::new(), Vec::new())]);
    Ok(())
}

#[tokio::test]
async fn pods_and_containers_of_a_real_node_are_understood() -> io::Result<()> {
    let recording: Recording = PODS.parse().map_err(io::Error::other)?;
    let (name, plugin) = witness();
    let end = replay(&recording, name, Arc::clone(&plugin)).await?;
    assert!(matches!(*end, End::ClosedByRuntime { late: None }), "{end}");

    let told = plugin.told();
    let events: Vec<(&str, Event)> =
        told.iter().map(|told| (&*told.pod.name, told.event)).collect();
    let of = |pod, events: &[Event]| events.iter().map(move |event| (pod, *event)).collect();
    let want: [Vec<(&str, Event)>; 3] = [
        of(
            "web",
            &[
                Event::RunPodSandbox,
                Event::CreateContainer,
                Event::PostCreateContainer,
                Event::StartContainer,
                Event::PostStartContainer,
                Event::UpdateContainer,
                Event::PostUpdateContainer,
            ],
        ),
        of(
            "later",
            &[
                // Refused, and cleaned up.
                Event::RunPodSandbox,
                Event::StopPodSandbox,
                Event::RemovePodSandbox,
                // Tried again.
                Event::RunPodSandbox,
                Event::StopPodSandbox,
                Event::RemovePodSandbox,
            ],
        ),
        of(
            "web",
            &[
                Event::StopContainer,
                Event::RemoveContainer,
                Event::StopPodSandbox,
                Event::RemovePodSandbox,
            ],
        ),
    ];
    assert_eq!(events, want.concat());

    let pod = &told[0].pod;
    assert_eq!((&*pod.namespace, &*pod.uid), ("shop", "0c1d2e3f-0000-4000-8000-000000000001"));
    assert_eq!(pod.labels["io.kubernetes.pod.namespace"], "shop");
    assert_eq!(pod.annotations["kubernetes.io/config.source"], "api");
    let network = pod.network_namespace().expect("a network namespace");
    assert!(network.starts_with("/var/run/netns/cni-"), "{network}");
    let slice = "kubepods-burstable-pod0c1d2e3f_0000_4000_8000_000000000001.slice";
    assert!(pod.cgroup_parent().is_some_and(|parent| parent.ends_with(slice)), "{pod:?}");
    assert_eq!(told.iter().filter(|told| told.pod.namespace == REFUSED).count(), 6);

    let created = told[1].container.as_ref().expect("a container");
    assert_eq!((&*created.name, &*created.pod_sandbox_id), ("box", &*pod.id));
    assert_eq!(created.args, ["/busybox", "sleep", "3600"]);
    let linux = created.linux.as_ref().expect("it is on Linux");
    let resources = linux.resources.as_ref().expect("it has limits");
    let (cpu, memory) = (resources.cpu.as_ref(), resources.memory.as_ref());
    assert_eq!(
        cpu.map(|cpu| (cpu.shares, cpu.quota, cpu.period)),
        Some((Some(512), Some(50_000), Some(100_000)))
    );
    assert_eq!(memory.and_then(|memory| memory.limit), Some(64 << 20));
    assert!(created.cgroups_path().is_some_and(|path| path.starts_with(slice)), "{created:?}");
    // Where the plugin wanted it.
    let started = told[4].container.as_ref().expect("a container");
    let path = format!("{SLICE}:cri-containerd:{}", started.id);
    assert_eq!(started.cgroups_path(), Some(&*path));
    assert_eq!(
        (created.state(), started.state()),
        (ContainerState::Unknown, ContainerState::Running)
    );
    Ok(())
}

/// Every field that the runtime sent is one of ours: decoded and encoded again, each of its
/// requests says the same. (Not in the same bytes: maps have no order, and Go writes what is empty
/// in them.)
#[test]
fn no_field_that_a_real_runtime_sends_is_lost() {
    let mut requests = 0;
    for text in [IDLE, PODS] {
        let recording: Recording = text.parse().expect("a recording");
        for request in recorded_requests(&recording) {
            let bytes = &*request.payload;
            let again = match &*request.method {
                "Configure" => encoded::<ConfigureRequest>(bytes),
                "Synchronize" => encoded::<SynchronizeRequest>(bytes),
                "StateChange" => encoded::<StateChangeEvent>(bytes),
                "UpdateContainer" => encoded::<UpdateContainerRequest>(bytes),
                "CreateContainer" | "StopContainer" => encoded::<ContainerRequest>(bytes),
                other => panic!("containerd 1.7.24 calls {other}"),
            };
            let (said, kept) = (values(bytes), values(&again));
            assert_eq!(said.is_empty(), bytes.is_empty(), "{}", request.method);
            let lost: Vec<_> = said.iter().filter(|value| !kept.contains(value)).collect();
            assert!(said == kept, "{} loses {lost:?}", request.method);
            requests += 1;
        }
    }
    assert_eq!(requests, 2 + 19, "of both recordings");
}

fn recorded_requests(recording: &Recording) -> Vec<Request> {
    let wire = recording.said_by(Speaker::Runtime);
    let mut bytes = &*wire;
    let mut frames = mux::Reader::new(ttrpc::MAX_MESSAGE);
    let mut messages = ttrpc::Reader::new(ttrpc::MAX_MESSAGE);
    let mut requests = Vec::new();
    while let Some((connection, mut piece)) = frames.next(&mut bytes).expect("good frames") {
        if connection == Connection::Runtime {
            continue;
        }
        while let Some(Incoming::Message(header, payload)) = messages.next(&mut piece) {
            assert_eq!(header.kind, Kind::Request);
            requests.push(Request::decode(&*payload).expect("a request"));
        }
    }
    requests
}

fn encoded<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).expect("a message").encode_to_vec()
}

/// The values in a message of any type, sorted: each with the numbers of the fields that it is in.
/// A text that could be a message is taken for one, which is all the same for comparing.
fn values(bytes: &[u8]) -> Vec<(Vec<u32>, Vec<u8>)> {
    let mut values = Vec::new();
    collect(bytes, &mut Vec::new(), &mut values).expect("a message");
    values.sort_unstable();
    values
}

fn collect(
    mut bytes: &[u8],
    fields: &mut Vec<u32>,
    values: &mut Vec<(Vec<u32>, Vec<u8>)>,
) -> Option<()> {
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).ok()?;
        fields.push(field);
        let before = bytes;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let inner = bytes.get(..length)?;
            bytes = &bytes[length..];
            let (known, depth) = (values.len(), fields.len());
            if collect(inner, fields, values).is_none() {
                values.truncate(known);
                fields.truncate(depth);
                values.push((fields.clone(), inner.to_vec()));
            }
        } else {
            skip_field(wire_type, field, &mut bytes, DecodeContext::default()).ok()?;
            values.push((fields.clone(), before[..before.len() - bytes.len()].to_vec()));
        }
        fields.pop();
    }
    Some(())
}
