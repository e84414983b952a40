//! The async edge: the stream to the controller, the agent's socket, signals. It decides
//! nothing; it carries facts and acknowledgements to the thread that owns the kernel.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{Context, Result};
use bulkhead_core::{Fact, LocalPods};
use bulkhead_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, PodsStatus};
use crate::args::{Places, RunArgs};
use crate::contact::Contact;
use crate::health;
use crate::journal::Reader;
use crate::owner::Event;
use crate::report::{self, ReportEvent, ReportOptions};

/// Events of the stream that may wait for being carried on.
const WAITING_EVENTS: usize = 64;

/// What the edge works with.
#[derive(Debug)]
pub struct Edge {
    /// This node's name.
    pub node: String,
    /// What the node is.
    pub facts: watch::Receiver<v1::NodeFacts>,
    /// What the node stands at.
    pub status: watch::Receiver<v1::NodeStatus>,
    /// The pods that run on the node.
    pub pods: watch::Receiver<Arc<LocalPods>>,
    /// How the node does by them, in Kubernetes.
    pub pods_status: Option<PodsStatus>,
    /// What was measured.
    pub journal: Reader,
    /// To the thread that owns the kernel.
    pub owner: Sender<Event>,
    /// When this process began, nanoseconds since the Unix epoch.
    pub started_unix_nanoseconds: u64,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(edge: Edge, places: &Places, args: &RunArgs) -> Result<()> {
    // One thread is enough for one stream and one socket.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(edge, places, args))
}

async fn serve(edge: Edge, places: &Places, args: &RunArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let (end, stop) = watch::channel(false);
    let (connect, connected) = watch::channel(false);
    let (events, inbox) = mpsc::channel(WAITING_EVENTS);
    let mut owner_status = edge.status.clone();
    let edge_status = edge.status.clone();
    let admin = Admin {
        node: edge.node.clone(),
        facts: edge.facts.clone(),
        status: edge.status.clone(),
        connected,
        pods: edge.pods_status,
        owner: edge.owner.clone(),
    };
    let stopped = || {
        let mut stop = stop.clone();
        async move {
            // An error means that the sender is gone, which is an end, too.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    };
    let report = ReportOptions {
        endpoint: args.controller.clone(),
        node: edge.node,
        started_unix_nanoseconds: edge.started_unix_nanoseconds,
        facts: edge.facts,
        status: edge.status,
        pods: edge.pods,
        journal: edge.journal,
        stop: stop.clone(),
        pace: report::Pace::default(),
        outside: Arc::new(report::Remote {
            authorities: args.controller_ca.clone(),
            token: args.controller_token.clone(),
        }),
    };
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: everything stays in place"),
            _ = interrupt.recv() => tracing::info!("SIGINT: everything stays in place"),
        }
        end.send_replace(true);
        Ok(())
    };
    let admin = async {
        let served = admin::serve(admin, &places.run_dir, stopped()).await;
        served.context("serve the agent's socket")
    };
    let health = async {
        let Some(address) = args.health_listen else { return Ok(()) };
        let served = health::serve(address, edge_status, stopped()).await;
        served.context("answer probes")
    };
    let report = async {
        report::run(report, events).await;
        Ok(())
    };
    let carry = async {
        carry(inbox, &edge.owner, &connect).await;
        Ok(())
    };
    let owner_lives = async {
        // The owner holds the sender; it goes with it.
        while owner_status.changed().await.is_ok() {}
        anyhow::ensure!(*stop.borrow(), "the thread that owns the kernel has ended by itself");
        Ok(())
    };
    tokio::select! {
        done = async { tokio::try_join!(signalled, admin, health, report, carry) } => done.map(drop),
        ended = owner_lives => ended,
    }
}

/// Carries what the stream says to the owner, until the stream ends; and when what it said last may
/// be out of date.
async fn carry(
    mut inbox: mpsc::Receiver<ReportEvent>,
    owner: &Sender<Event>,
    connect: &watch::Sender<bool>,
) {
    let mut contact = Contact::new();
    loop {
        let (event, stale) = tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => {
                    let stale = contact.hear(&event);
                    (for_the_owner(event, connect), stale)
                }
                None => return,
            },
            stale = contact.lasted() => (None, Some(stale)),
        };
        let stale = stale.map(|is_stale| Event::Learn(Fact::Stale(is_stale)));
        for event in event.into_iter().chain(stale) {
            if owner.send(event).is_err() {
                return;
            }
        }
    }
}

/// What the owner must hear of what the stream says. Whether there is a stream is told to
/// `connect`.
pub fn for_the_owner(event: ReportEvent, connect: &watch::Sender<bool>) -> Option<Event> {
    match event {
        ReportEvent::Connected { controller_version, .. } => {
            tracing::info!(controller_version, "connected to the controller");
            connect.send_replace(true);
            None
        }
        ReportEvent::Away { .. } => {
            connect.send_replace(false);
            None
        }
        ReportEvent::Snapshot(snapshot) => {
            tracing::info!(generation = snapshot.generation, "the controller says");
            Some(Event::Learn(Fact::Snapshot(snapshot)))
        }
        ReportEvent::SnapshotRefused { generation, reason } => {
            tracing::error!(generation, reason, "a snapshot is refused");
            None
        }
        ReportEvent::Acknowledged(sequence) => Some(Event::Acknowledged(sequence)),
        ReportEvent::ControllerAhead { acknowledged, last } => {
            tracing::warn!(%acknowledged, %last, "the journal is older than the controller knows it");
            Some(Event::ContinueAfter(acknowledged))
        }
        ReportEvent::Unreadable(what) => {
            tracing::error!(what, "the journal is damaged");
            None
        }
    }
}
