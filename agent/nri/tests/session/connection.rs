//! How a connection ends.

use std::io;
use std::time::Duration;

use bulkhead_nri::messages::{ConfigureRequest, ConfigureResponse, Empty};
use bulkhead_nri::mux::MuxError;
use bulkhead_nri::ttrpc::{Code, Status};
use bulkhead_nri::{End, Event, EventMask, Stage, State, connect};

use crate::plugin::{Conversation, Diary, NEW, of, options, pod};

#[tokio::test]
async fn a_runtime_that_closes_is_told_from_one_that_refuses_the_events() -> io::Result<()> {
    let plugin = Diary::new(Event::RunPodSandbox.into());
    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    assert!(matches!(&*here.hang_up().await, End::ClosedByRuntime { late: None }));

    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    here.runtime.call::<_, ConfigureResponse>("Configure", &Empty {}).await?;
    match &*here.hang_up().await {
        End::SubscriptionRefused { events } => assert_eq!(*events, Event::RunPodSandbox.into()),
        other => panic!("{other}"),
    }

    let here = Conversation::connected(&plugin, options()).await?;
    let state = here.state.clone();
    assert!(matches!(&*here.hang_up().await, End::ClosedByRuntime { late: None }));
    match &*state.borrow() {
        State::Disconnected { retry_in: None, reason, .. } => {
            assert!(matches!(**reason, End::ClosedByRuntime { .. }));
        }
        other => panic!("{other}"),
    }
    Ok(())
}

#[tokio::test]
async fn refusals_of_either_side_have_their_reason() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::begin(&plugin, options());
    let (stream, _) = here.runtime.requested::<Empty>("RegisterPlugin").await?;
    let status = Status::new(Code::INVALID_ARGUMENT, "no more plugins");
    here.runtime.reply(stream, Err(status.clone())).await?;
    match &*here.serving.await? {
        End::RegistrationRefused(refused) => assert_eq!(*refused, status),
        other => panic!("{other}"),
    }

    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    let unloved = ConfigureRequest { runtime_name: "unloved".to_owned(), ..Default::default() };
    let stream = here.runtime.begin("Configure", &unloved, Duration::ZERO).await?;
    let status = here.runtime.answer(stream).await?.expect_err("the plugin refuses");
    assert_eq!(status.code(), Code::FAILED_PRECONDITION);
    here.runtime.closed().await?;
    assert!(matches!(&*here.serving.await?, End::ConfigurationRefused(_)));
    Ok(())
}

#[tokio::test]
async fn shutdown_is_answered_and_ends_the_connection() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::connected(&plugin, options()).await?;
    here.runtime.call::<_, Empty>("Shutdown", &Empty {}).await?;
    here.runtime.closed().await?;
    assert!(matches!(&*here.serving.await?, End::Shutdown));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stopped_plugin_answers_what_it_began_and_closes() -> io::Result<()> {
    let plugin = Diary::slow(EventMask::BASE, Duration::from_secs(1), Duration::ZERO);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let stream = here.runtime.begin("RunPodSandbox", &of(pod("p")), Duration::ZERO).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    here.stop.send(()).expect("it is serving");
    assert_eq!(here.runtime.answer(stream).await?, Ok(Vec::new()));
    here.runtime.closed().await?;
    assert!(matches!(&*here.serving.await?, End::Stopped));
    assert_eq!(plugin.told(), ["run p"]);

    // A method that does not come to its end is cut off: nothing runs after the connection.
    let plugin = Diary::slow(EventMask::BASE, Duration::from_hours(1), Duration::ZERO);
    let mut here = Conversation::connected(&plugin, options()).await?;
    here.runtime.begin("RunPodSandbox", &of(pod("p")), Duration::ZERO).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    here.stop.send(()).expect("it is serving");
    here.runtime.closed().await?;
    assert!(matches!(&*here.serving.await?, End::Stopped));
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_eq!(plugin.told(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_does_not_go_on_is_given_up() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    here.runtime.closed().await?;
    let five = Duration::from_secs(5);
    match &*here.serving.await? {
        End::RegistrationTimedOut { stage: Stage::Registering, after } => assert_eq!(*after, five),
        other => panic!("{other}"),
    }

    let mut here = Conversation::begin(&plugin, options());
    here.runtime.registration().await?;
    here.runtime.call::<_, ConfigureResponse>("Configure", &Empty {}).await?;
    here.runtime.closed().await?;
    let end = here.serving.await?;
    let stage = |end: &End| match end {
        End::RegistrationTimedOut { stage, .. } => Some(*stage),
        _ => None,
    };
    assert_eq!(stage(&end), Some(Stage::Synchronizing), "{end}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_the_protocol_ends_the_connection() -> io::Result<()> {
    let plugin = Diary::new(EventMask::BASE);
    for (bytes, want) in [
        (*b"\0\0\0\x03\0\0\0\0", MuxError::UnknownConnection(3)),
        (*b"HTTP/1.1", MuxError::UnknownConnection(0x4854_5450)),
        (*b"\0\0\0\x01\xff\0\0\0", MuxError::TooLong { length: 0xff00_0000, limit: 4_194_314 }),
    ] {
        let mut here = Conversation::begin(&plugin, options());
        here.runtime.handshake(NEW, EventMask::ALL, Vec::new(), Vec::new()).await?;
        here.runtime.raw(&bytes).await?;
        here.runtime.closed().await?;
        match &*here.serving.await? {
            End::NotTheProtocol(error) => assert_eq!(*error, want),
            other => panic!("{other}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_named() {
    let plugin = Diary::new(EventMask::BASE);
    let mut options = options();
    options.socket = "/nonexistent/nri.sock".into();
    let (state, _watched) = tokio::sync::watch::channel(State::Connecting);
    let end = connect(&plugin, &options, &state, std::future::pending()).await;
    let said = end.to_string();
    assert!(matches!(&*end, End::Unreachable { .. }) && said.contains("/nonexistent/nri.sock"));
    assert!(matches!(&*state.borrow(), State::Disconnected { .. }), "{said}");
}
