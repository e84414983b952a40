//! What the runtime asks, and what it is answered.

use std::io;
use std::time::Duration;

use bulkhead_nri::messages::{
    ConfigureRequest, ConfigureResponse, Container, ContainerRequest, ContainerUpdate,
    CreateContainerResponse, Empty, StateChangeEvent, SynchronizeRequest, SynchronizeResponse,
};
use bulkhead_nri::mux::Connection;
use bulkhead_nri::ttrpc::{Code, Kind, Request};
use bulkhead_nri::{CallError, Event, EventMask, State};
use prost::Message;

use crate::plugin::{Conversation, Diary, NEW, OLD, of, options, pod};

#[tokio::test]
async fn registers_is_told_what_exists_and_what_happens() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::begin(&plugin, options());
    let registration = here.runtime.registration().await?;
    assert_eq!((&*registration.plugin_name, &*registration.plugin_idx), ("diary", "07"));
    let configure = ConfigureRequest {
        runtime_name: OLD.0.to_owned(),
        runtime_version: OLD.1.to_owned(),
        ..Default::default()
    };
    let answer: ConfigureResponse = here.runtime.call("Configure", &configure).await?;
    assert_eq!(EventMask::from_wire(answer.events), (EventMask::BASE, 0));
    assert!(matches!(*here.state.borrow(), State::Connecting), "nothing was told yet");

    let container = Container { id: "c1".to_owned(), ..Default::default() };
    let exists =
        SynchronizeRequest { pods: vec![pod("old")], containers: vec![container], more: false };
    let answer: SynchronizeResponse = here.runtime.call("Synchronize", &exists).await?;
    assert_eq!((answer.update[0].container_id.as_str(), answer.more), ("c1", false));
    match &*here.state.borrow() {
        State::Connected { runtime, events, .. } => {
            assert_eq!((&*runtime.name, &*runtime.version), OLD);
            assert_eq!(*events, EventMask::BASE);
            assert_eq!(runtime.request_timeout, Duration::from_secs(2));
        }
        other => panic!("{other}"),
    }

    let event = |event: Event, container| StateChangeEvent {
        event: event.number(),
        pod: Some(pod("new")),
        container,
    };
    for change in [
        event(Event::RunPodSandbox, None),
        event(Event::PostStartContainer, Some(Container::default())),
        event(Event::StopPodSandbox, None),
        event(Event::RemovePodSandbox, None),
    ] {
        here.runtime.call::<_, Empty>("StateChange", &change).await?;
    }
    let told = ["exists old", "run new", "started new", "stop new", "remove new"];
    assert_eq!(plugin.told(), told);
    Ok(())
}

#[tokio::test]
async fn newer_runtimes_call_methods_by_their_names() -> io::Result<()> {
    let plugin = Diary::new(EventMask::ALL);
    let mut here = Conversation::begin(&plugin, options());
    let events = here.runtime.handshake(NEW, EventMask::ALL, Vec::new(), Vec::new()).await?;
    assert_eq!(events, EventMask::ALL);
    here.runtime.call::<_, Empty>("RunPodSandbox", &of(pod("p"))).await?;
    here.runtime.call::<_, Empty>("PostUpdatePodSandbox", &of(pod("p"))).await?;
    let container = Container { id: "c".to_owned(), ..Default::default() };
    let create = ContainerRequest { pod: Some(pod("p")), container: Some(container) };
    let answer: CreateContainerResponse = here.runtime.call("CreateContainer", &create).await?;
    let path = answer.adjust.and_then(|adjust| adjust.linux).map(|linux| linux.cgroups_path);
    assert_eq!(path.as_deref(), Some("a.slice:b:c"));
    assert_eq!(plugin.told(), ["run p", "resized p", "create p"]);
    Ok(())
}

#[tokio::test]
async fn a_refused_pod_is_an_error_that_can_be_tried_again() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let mut refused = pod("stranger");
    refused.namespace = "unknown".to_owned();
    let stream = here.runtime.begin("RunPodSandbox", &of(refused), Duration::ZERO).await?;
    let status = here.runtime.answer(stream).await?.expect_err("it is refused");
    assert_eq!((status.code(), &*status.message), (Code::UNAVAILABLE, "whose is this namespace?"));
    // The connection goes on.
    here.runtime.call::<_, Empty>("RunPodSandbox", &of(pod("friend"))).await?;
    assert_eq!(plugin.told(), ["run stranger", "run friend"]);
    Ok(())
}

#[tokio::test]
async fn what_was_not_subscribed_is_not_told() -> io::Result<()> {
    // Newer than this runtime: of what is wanted nothing is left, and nothing would mean all.
    let plugin = Diary::new(Event::PostUpdatePodSandbox.into());
    let mut here = Conversation::begin(&plugin, options());
    let events = here.runtime.handshake(OLD, EventMask::BASE, Vec::new(), Vec::new()).await?;
    assert_eq!(events, Event::RemovePodSandbox.into());
    here.runtime.call::<_, Empty>("RemovePodSandbox", &of(pod("p"))).await?;
    assert_eq!(plugin.told(), Vec::<String>::new());
    match &*here.state.borrow() {
        State::Connected { events, .. } => assert!(events.is_empty(), "{events}"),
        other => panic!("{other}"),
    }
    Ok(())
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_and_harms_nothing() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let runtime = &mut here.runtime;
    let code = |answer: Result<Vec<u8>, bulkhead_nri::ttrpc::Status>| {
        answer.err().map(|status| status.code())
    };

    let stream = runtime.begin("Dance", &Empty {}, Duration::ZERO).await?;
    assert_eq!(code(runtime.answer(stream).await?), Some(Code::UNIMPLEMENTED));
    let stream = runtime.begin("RunPodSandbox", &Empty {}, Duration::ZERO).await?;
    assert_eq!(code(runtime.answer(stream).await?), Some(Code::INVALID_ARGUMENT), "no pod");
    let change = StateChangeEvent { event: Event::CreateContainer.number(), ..Default::default() };
    let stream = runtime.begin("StateChange", &change, Duration::ZERO).await?;
    assert_eq!(code(runtime.answer(stream).await?), Some(Code::INVALID_ARGUMENT));
    // An event of a newer runtime, which nobody subscribed to.
    let change = StateChangeEvent { event: 99, ..Default::default() };
    runtime.call::<_, Empty>("StateChange", &change).await?;

    let request = |service: &str, payload: Vec<u8>| Request {
        service: service.to_owned(),
        method: "RunPodSandbox".to_owned(),
        payload,
        timeout_nano: 0,
    };
    let stranger = request("somebody.Else", Vec::new()).encode_to_vec();
    let garbage = request("nri.pkg.api.v1alpha1.Plugin", vec![0xff; 5]).encode_to_vec();
    for (stream, kind, payload, want) in [
        (101, Kind::Request, stranger, Code::UNIMPLEMENTED),
        (103, Kind::Request, garbage.clone(), Code::INVALID_ARGUMENT),
        (105, Kind::Request, vec![0xff; 5], Code::INVALID_ARGUMENT),
        (104, Kind::Request, garbage.clone(), Code::INVALID_ARGUMENT),
        (101, Kind::Request, garbage, Code::INVALID_ARGUMENT),
        (107, Kind::Data, Vec::new(), Code::INVALID_ARGUMENT),
    ] {
        runtime.write(Connection::Plugin, stream, kind, &payload).await?;
        assert_eq!(code(runtime.answer(stream).await?), Some(want), "stream {stream}");
    }
    // Neither of these has an answer.
    runtime.write(Connection::Plugin, 109, Kind::Other(9), b"?").await?;
    runtime.write(Connection::Runtime, 77, Kind::Response, b"").await?;

    let stream = 1001;
    let good = request("nri.pkg.api.v1alpha1.Plugin", of(pod("p")).encode_to_vec());
    runtime.write(Connection::Plugin, stream, Kind::Request, &good.encode_to_vec()).await?;
    assert_eq!(runtime.answer(stream).await?, Ok(Vec::new()));
    assert_eq!(plugin.told(), ["run p"]);
    Ok(())
}

#[tokio::test]
async fn what_exists_can_come_in_pieces() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    let early = here.runtime.begin("Synchronize", &Empty {}, Duration::ZERO).await?;
    let status = here.runtime.answer(early).await?.expect_err("nobody is configured");
    assert_eq!(status.code(), Code::FAILED_PRECONDITION);
    here.runtime.call::<_, ConfigureResponse>("Configure", &Empty {}).await?;
    for (name, more) in [("a", true), ("b", true), ("c", false)] {
        let piece = SynchronizeRequest { pods: vec![pod(name)], containers: Vec::new(), more };
        let answer: SynchronizeResponse = here.runtime.call("Synchronize", &piece).await?;
        // A runtime that is answered otherwise takes the plugin for one that cannot do this.
        assert_eq!(answer, SynchronizeResponse { update: Vec::new(), more });
        let connected = matches!(*here.state.borrow(), State::Connected { .. });
        assert_eq!(connected, !more, "after {name}");
    }
    assert_eq!(plugin.told(), ["exists a", "exists b", "exists c"]);
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_alone() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut options = options();
    options.max_message = 10_000;
    let mut here = Conversation::connected(&plugin, options).await?;
    let mut large = pod("large");
    large.annotations.insert("a".to_owned(), "b".repeat(10_000));
    let stream = here.runtime.begin("RunPodSandbox", &of(large), Duration::ZERO).await?;
    let status = here.runtime.answer(stream).await?.expect_err("it is too large");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
    here.runtime.call::<_, Empty>("RunPodSandbox", &of(pod("small"))).await?;
    assert_eq!(plugin.told(), ["run small"]);
    Ok(())
}

#[tokio::test]
async fn a_plugin_with_a_defect_answers_an_error_and_goes_on() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let stream = here.runtime.begin("RunPodSandbox", &of(pod("cursed")), Duration::ZERO).await?;
    let status = here.runtime.answer(stream).await?.expect_err("the plugin panicked");
    assert_eq!(status.code(), Code::INTERNAL);
    here.runtime.call::<_, Empty>("RunPodSandbox", &of(pod("next"))).await?;
    assert_eq!(plugin.told(), ["run next"]);
    Ok(())
}

#[tokio::test]
async fn the_plugin_asks_for_changes() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let handle = plugin.runtime.lock().unwrap().clone().expect("it came with Configure");
    let change = |id: &str| ContainerUpdate { container_id: id.to_owned(), ..Default::default() };
    let asks = handle.update_containers(vec![change("a"), change("b")], Vec::new());
    let (failed, asked) = tokio::join!(asks, here.runtime.update_containers(vec![change("b")]));
    assert_eq!(failed, Ok(vec![change("b")]));
    assert_eq!(asked?.update, [change("a"), change("b")]);

    let large = change(&"x".repeat(5 << 20));
    let refused = handle.update_containers(vec![large], Vec::new()).await;
    assert!(matches!(refused, Err(CallError::TooLarge { limit: 4_194_304, .. })), "{refused:?}");

    let asks = tokio::spawn(async move {
        let first = handle.update_containers(Vec::new(), Vec::new()).await;
        (first, handle.update_containers(Vec::new(), Vec::new()).await)
    });
    let _: (u32, Empty) = here.runtime.requested("UpdateContainers").await?;
    here.hang_up().await;
    let (during, after) = asks.await?;
    assert_eq!((during, after), (Err(CallError::Disconnected), Err(CallError::Disconnected)));
    Ok(())
}
