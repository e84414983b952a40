//! What a container runtime says to a plugin, or what says that it is one.

use std::sync::{Arc, OnceLock};

use bulkhead_nri::messages as m;
use bulkhead_nri::mux::{self, Connection, MuxError};
use bulkhead_nri::ttrpc::{self, Incoming, Kind};
use bulkhead_nri::{End, EventMask, Options, Plugin, PluginName, Refusal, RuntimeInfo, State};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use crate::messages::decoded;

/// The largest message that is read here; small, so that larger ones are found.
const LIMIT: usize = 300;

const PLUGIN: &str = "nri.pkg.api.v1alpha1.Plugin";
const METHODS: [&str; 19] = [
    "Configure",
    "Synchronize",
    "StateChange",
    "RunPodSandbox",
    "UpdatePodSandbox",
    "PostUpdatePodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "PostCreateContainer",
    "StartContainer",
    "PostStartContainer",
    "UpdateContainer",
    "PostUpdateContainer",
    "StopContainer",
    "RemoveContainer",
    "ValidateContainerAdjustment",
    "Shutdown",
    "Dance",
];

/// The first byte chooses what the rest is.
pub fn any_bytes(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => frames(bytes),
        1 => calls(bytes),
        2 => message(bytes),
        3 => conversation(bytes),
        _ => conversation(&built(bytes)),
    }
}

type Pieces = Result<Vec<(Connection, Vec<u8>)>, MuxError>;

/// Frames are the same in whatever pieces their bytes come.
fn frames(bytes: &[u8]) {
    let read = |size: usize| -> Pieces {
        let mut reader = mux::Reader::new(LIMIT);
        let mut read: Vec<(Connection, Vec<u8>)> = Vec::new();
        for mut input in bytes.chunks(size) {
            while let Some((connection, piece)) = reader.next(&mut input)? {
                match read.last_mut() {
                    Some((same, bytes)) if *same == connection => bytes.extend(piece),
                    _ => read.push((connection, piece.to_vec())),
                }
            }
            assert!(input.is_empty(), "bytes that nobody read");
        }
        Ok(read)
    };
    let whole = read(bytes.len().max(1));
    assert_eq!(whole, read(1));
    assert_eq!(whole, read(7));
    if let Ok(read) = whole {
        assert!(read.iter().map(|(_, piece)| piece.len()).sum::<usize>() <= bytes.len());
    }
}

/// Messages are the same in whatever pieces their bytes come, and written as they were read.
fn calls(bytes: &[u8]) {
    let read = |size: usize| {
        let mut reader = ttrpc::Reader::new(LIMIT);
        let mut read = Vec::new();
        for mut input in bytes.chunks(size) {
            while let Some(incoming) = reader.next(&mut input) {
                read.push(incoming);
            }
            assert!(input.is_empty(), "bytes that nobody read");
        }
        read
    };
    let whole = read(bytes.len().max(1));
    assert_eq!(whole, read(1));
    assert_eq!(whole, read(7));
    for incoming in whole {
        match incoming {
            Incoming::Oversized(header) => assert!(header.length > 300),
            Incoming::Message(header, payload) => {
                assert!(payload.len() <= LIMIT);
                let again = ttrpc::message(header.stream, header.kind, &payload);
                let again = again.expect("what was read can be written");
                let mut reader = ttrpc::Reader::new(LIMIT);
                let expected = ttrpc::Header { flags: 0, ..header };
                let reread = reader.next(&mut &*again);
                assert_eq!(reread, Some(Incoming::Message(expected, payload)));
            }
        }
    }
}

/// The first byte chooses a message, the rest is its bytes.
fn message(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 13 {
        0 => drop(decoded::<ttrpc::Request>(bytes)),
        1 => drop(decoded::<ttrpc::Response>(bytes)),
        2 => {
            let Some(request) = decoded::<m::ConfigureRequest>(bytes) else { return };
            let known = RuntimeInfo::from(request).known_events();
            assert!(known == EventMask::BASE || known == EventMask::ALL);
        }
        3 => {
            let Some(response) = decoded::<m::ConfigureResponse>(bytes) else { return };
            let (events, unknown) = EventMask::from_wire(response.events);
            assert_eq!(events.to_wire().cast_unsigned() | unknown, response.events.cast_unsigned());
        }
        4 => drop(decoded::<m::SynchronizeRequest>(bytes)),
        5 => {
            let Some(pod) = decoded::<m::PodSandbox>(bytes) else { return };
            assert_ne!(pod.network_namespace(), Some(""));
            assert_ne!(pod.cgroup_parent(), Some(""));
        }
        6 => drop(decoded::<m::Container>(bytes)),
        7 => drop(decoded::<m::StateChangeEvent>(bytes)),
        8 => drop(decoded::<m::UpdatePodSandboxRequest>(bytes)),
        9 => drop(decoded::<m::UpdateContainerRequest>(bytes)),
        10 => drop(decoded::<m::CreateContainerResponse>(bytes)),
        11 => drop(decoded::<m::UpdateContainersResponse>(bytes)),
        _ => drop(decoded::<m::ValidateContainerAdjustmentRequest>(bytes)),
    }
}

/// Good calls with any payloads: a method, a length and the payload, again and again.
fn built(mut bytes: &[u8]) -> Vec<u8> {
    let (mut wire, mut stream) = (Vec::new(), 1);
    while let [method, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let request = ttrpc::Request {
            service: PLUGIN.to_owned(),
            method: METHODS[usize::from(*method) % METHODS.len()].to_owned(),
            payload: payload.to_vec(),
            timeout_nano: 0,
        };
        let message = ttrpc::message(stream, Kind::Request, &request.encode_to_vec());
        mux::write(Connection::Plugin, &message.expect("it is small"), &mut wire);
        (bytes, stream) = (rest, stream + 2);
    }
    wire
}

struct Careless;

impl Plugin for Careless {
    fn events(&self, _: &RuntimeInfo) -> EventMask {
        EventMask::ALL
    }

    async fn run_pod_sandbox(&self, pod: m::PodSandbox) -> Result<(), Refusal> {
        if pod.name.is_empty() { Err(Refusal::retry_later("who?")) } else { Ok(()) }
    }
}

/// Whatever a runtime says before it closes, the plugin's side ends, and says why.
fn conversation(bytes: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    let end = runtime.block_on(async {
        // Room for every answer: nobody reads them.
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (state, watched) = tokio::sync::watch::channel(State::Connecting);
        let mut options = Options::new(PluginName::new("careless", 0).expect("a good name"));
        options.max_message = LIMIT;
        let plugin = Arc::new(Careless);
        let serving = bulkhead_nri::serve(ours, &plugin, &options, &state, std::future::pending());
        let says = async {
            // The plugin's side may end before everything is said.
            let _ = theirs.write_all(bytes).await;
            let _ = theirs.shutdown().await;
        };
        let (end, ()) = tokio::join!(serving, says);
        assert!(matches!(*watched.borrow(), State::Disconnected { .. }));
        end
    });
    match *end {
        End::Stopped | End::Unreachable { .. } | End::Broken(_) => panic!("nobody did: {end}"),
        End::RegistrationTimedOut { .. } => panic!("nobody waited: {end}"),
        _ => assert!(!end.to_string().is_empty()),
    }
}
