//! Plugins that are slower than the runtime waits. Time is the test's.

use std::io;
use std::time::Duration;

use bulkhead_nri::messages::Empty;
use bulkhead_nri::ttrpc::Code;
use bulkhead_nri::{End, EventMask, Options, WhenLate};
use tokio::time::Instant;

use crate::plugin::{Conversation, Diary, OLD, of, options, pod};

const SLOW: Duration = Duration::from_secs(5);

fn when_late(when_late: WhenLate) -> Options {
    Options { when_late, ..options() }
}

#[tokio::test(start_paused = true)]
async fn a_late_plugin_is_answered_for_and_stays_connected() -> io::Result<()> {
    let plugin = Diary::slow(EventMask::BASE, SLOW, Duration::ZERO);
    let mut here = Conversation::connected(&plugin, options()).await?;
    let began = Instant::now();
    here.runtime.call::<_, Empty>("RunPodSandbox", &of(pod("p"))).await?;
    // Nine tenths of the 2 s that a runtime waits by default.
    assert_eq!(began.elapsed().as_millis() / 10, 180);
    assert_eq!(plugin.told(), Vec::<String>::new(), "it is not done");
    tokio::time::sleep(SLOW).await;
    assert_eq!(plugin.told(), ["run p"], "what has begun is run to its end");
    // The late answer was not sent as well: the next one is for the next request.
    here.runtime.call::<_, Empty>("RemovePodSandbox", &of(pod("p"))).await?;
    assert_eq!(plugin.told(), ["run p", "remove p"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_plugin_can_refuse_what_can_be_refused() -> io::Result<()> {
    let plugin = Diary::slow(EventMask::BASE, SLOW, Duration::ZERO);
    let mut here = Conversation::connected(&plugin, when_late(WhenLate::Refuse)).await?;
    // The runtime tells how long it waits.
    let began = Instant::now();
    let timeout = Duration::from_millis(500);
    let stream = here.runtime.begin("RunPodSandbox", &of(pod("p")), timeout).await?;
    let status = here.runtime.answer(stream).await?.expect_err("it is refused");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(began.elapsed().as_millis() / 10, 45);
    // A pod that is not stopped would stay for ever.
    here.runtime.call::<_, Empty>("StopPodSandbox", &of(pod("p"))).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_late_plugin_can_leave_it_to_the_runtime() -> io::Result<()> {
    let plugin = Diary::slow(EventMask::BASE, SLOW, Duration::ZERO);
    let mut here = Conversation::connected(&plugin, when_late(WhenLate::Wait)).await?;
    let stream = here.runtime.begin("RunPodSandbox", &of(pod("p")), Duration::ZERO).await?;
    let answer = tokio::time::timeout(Duration::from_secs(3), here.runtime.answer(stream)).await;
    assert!(answer.is_err(), "{answer:?}");
    match &*here.hang_up().await {
        End::ClosedByRuntime { late: Some("RunPodSandbox") } => {}
        other => panic!("{other}"),
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_exists_is_never_answered_for() -> io::Result<()> {
    let plugin = Diary::slow(EventMask::BASE, Duration::ZERO, SLOW);
    let mut here = Conversation::begin(&plugin, options());
    let began = Instant::now();
    // A runtime with patience.
    here.runtime.handshake(OLD, EventMask::BASE, vec![pod("p")], Vec::new()).await?;
    assert!(began.elapsed() >= SLOW);
    assert_eq!(plugin.told(), ["exists p"]);
    // And one without.
    let mut here = Conversation::begin(&plugin, options());
    let handshake = here.runtime.handshake(OLD, EventMask::BASE, Vec::new(), Vec::new());
    assert!(tokio::time::timeout(Duration::from_secs(2), handshake).await.is_err());
    match &*here.hang_up().await {
        End::ClosedByRuntime { late: Some("Synchronize") } => {}
        other => panic!("{other}"),
    }
    Ok(())
}
