//! Usage arrives, whatever happens on the way.

use super::controller::Random;
use super::*;

/// Acknowledges what the controller acknowledged, as the journal's owner does.
fn own(node: &Node, mut reporting: Reporting) -> JoinHandle<()> {
    let journal = Arc::clone(&node.journal);
    tokio::spawn(async move {
        while let Some(event) = reporting.events.recv().await {
            if let ReportEvent::Acknowledged(sequence) = event {
                journal.lock().unwrap().acknowledge(sequence).unwrap();
            }
        }
        reporting.task.await.unwrap();
    })
}

async fn survive(seed: u64) {
    let node = Node::new();
    let random = Arc::new(Mutex::new(Random(seed)));
    let controller = Controller::new(Behaviour::Chaos(random));
    let serving = controller.serve(&node.socket()).await;
    let owner = own(&node, node.report(QUICK));
    let mut expected = BTreeMap::new();
    for value in 1..=200_u64 {
        // Several samples fall into a window; the newest is the highest.
        let records = [record(1, value / 7, value), record(value % 5 + 2, value / 7, value * 3)];
        expected.extend(records.iter().flat_map(|record| truth(BOOT, record)));
        node.journal().append(&records).unwrap();
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    let last = node.journal().last();
    controller.behave(Behaviour::Good);
    node.facts.send_modify(|facts| facts.agent_version = "new stream".to_owned());
    until(|| node.journal().reader().acknowledged() == last).await;
    node.stop.send_replace(true);
    owner.await.unwrap();
    drop(serving);

    let ledger = controller.ledger();
    assert_eq!(ledger.values, expected);
    for stream in &ledger.streams {
        assert!(stream.is_sorted_by(|one, next| one < next), "{stream:?}");
    }
    let mut all: Vec<u64> = ledger.streams.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (1..=last.0).collect::<Vec<_>>());
    assert!(ledger.streams.len() > 5, "streams broke {} times", ledger.streams.len());
    assert!(ledger.hellos.iter().all(|hello| hello.node == "node-1"
        && hello.started_unix_nanoseconds == 77
        && hello.journal_id == node.journal().reader().journal_id().to_string()));
}

#[tokio::test]
async fn every_batch_arrives_and_the_ledger_is_the_truth() {
    for seed in [1, 42, 0x9e37_79b9] {
        survive(seed).await;
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_bounded() {
    let node = Node::new();
    for value in 1..=100 {
        node.journal().append(&[record(1, value, value)]).unwrap();
    }
    let controller = Controller::new(Behaviour::Silent);
    let _serving = controller.serve(&node.socket()).await;
    let pace = Pace { patience: Duration::from_millis(300), ..QUICK };
    let mut reporting = node.report(pace);
    // It waits, then it says why it ends, then it tries again with the same.
    let reason = reporting.away().await;
    assert!(reason.contains("no answer to batch 1 "), "{reason}");
    until(|| controller.ledger().streams.len() >= 2).await;
    assert_eq!(controller.ledger().streams[0], (1..=8).collect::<Vec<_>>());

    controller.ledger().high_water.clear();
    controller.behave(Behaviour::Good);
    reporting.acknowledged(Sequence(100)).await;
}

#[tokio::test]
async fn what_the_controller_has_is_not_sent_again() {
    let node = Node::new();
    for value in 1..=20 {
        node.journal().append(&[record(1, value, value)]).unwrap();
    }
    let controller = Controller::new(Behaviour::Knows(15));
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.acknowledged(Sequence(20)).await;
    assert_eq!(controller.ledger().streams[0], [16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn a_controller_that_knows_more_than_the_journal_is_told_apart() {
    let node = Node::new();
    for value in 1..=3 {
        node.journal().append(&[record(1, value, value)]).unwrap();
    }
    let controller = Controller::new(Behaviour::Knows(50));
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    let ahead = |event| match event {
        ReportEvent::ControllerAhead { acknowledged, last } => Some((acknowledged, last)),
        ReportEvent::Acknowledged(sequence) => panic!("{sequence} is acknowledged"),
        _ => None,
    };
    let (acknowledged, last) = reporting.next(ahead).await;
    assert_eq!((acknowledged, last), (Sequence(50), Sequence(3)));
    until(|| {
        let ledger = controller.ledger();
        let reasons = ledger.statuses.iter().flat_map(|status| &status.reasons);
        reasons.filter(|reason| reason.subject == "journal").count() > 0
    })
    .await;
    node.journal().continue_after(acknowledged).unwrap();
    let last = node.journal().append(&[record(1, 4, 4)]).unwrap();
    reporting.acknowledged(last).await;
    let expected: BTreeMap<Key, u64> =
        (1..=4).flat_map(|value| truth(BOOT, &record(1, value, value))).collect();
    assert_eq!(controller.ledger().values, expected);
}

#[tokio::test]
async fn each_boot_is_booked_under_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut journal, _) = Journal::open(&path, LIMITS, "boot-0").unwrap();
    for value in 1..=30 {
        journal.append(&[record(1, value, 1_000 + value)]).unwrap();
    }
    drop(journal);
    let (mut journal, _) = Journal::open(&path, LIMITS, BOOT).unwrap();
    for value in 31..=40 {
        journal.append(&[record(1, value, value)]).unwrap();
    }
    let node = Node { journal: Arc::new(Mutex::new(journal)), ..Node::new() };
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let mut reporting = node.report(QUICK);
    reporting.acknowledged(Sequence(40)).await;

    let old = (1..=30).flat_map(|value| truth("boot-0", &record(1, value, 1_000 + value)));
    let new = (31..=40).flat_map(|value| truth(BOOT, &record(1, value, value)));
    let ledger = controller.ledger();
    assert_eq!(ledger.values, old.chain(new).collect());
    let boots = ledger.hellos.iter().map(|hello| hello.facts.as_ref().unwrap().boot_id.as_str());
    assert_eq!(boots.collect::<Vec<_>>(), ["boot-0", BOOT]);
}

#[tokio::test]
async fn a_stream_goes_back_to_the_boot_of_now_when_the_old_one_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut journal, _) = Journal::open(&path, LIMITS, "boot-0").unwrap();
    journal.append(&[record(1, 1, 1)]).unwrap();
    drop(journal);
    let (journal, _) = Journal::open(&path, LIMITS, BOOT).unwrap();
    let node = Node { journal: Arc::new(Mutex::new(journal)), ..Node::new() };
    let controller = Controller::new(Behaviour::Good);
    let _serving = controller.serve(&node.socket()).await;
    let _reporting = node.report(QUICK);
    let boot = |hello: &v1::Hello| hello.facts.clone().unwrap().boot_id;
    until(|| controller.ledger().hellos.last().map(boot).as_deref() == Some(BOOT)).await;
    assert_eq!(controller.ledger().hellos.len(), 2);
}
