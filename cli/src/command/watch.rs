//! `get virtualclusters --watch`: what is there, then each change.

use bulkhead_proto::v1;
use tonic::Streaming;

use super::Session;
use crate::args::Output;
use crate::error::{CliError, Kind};
use crate::render::{self, WatchTable};
use crate::view::virtual_cluster::{Change, Event};
use crate::{interrupt, out};

const OPERATION: &str = "watch virtual clusters";

/// Until somebody ends it, or the controller goes away.
pub(crate) async fn virtual_clusters(session: &Session, names: &[String]) -> Result<(), CliError> {
    let following = async {
        let mut stream = session.client.watch_virtual_clusters().await?;
        follow(session, names, &mut stream).await
    };
    tokio::select! {
        ended = following => ended,
        asked = interrupt::asked() => asked,
    }
}

async fn follow(
    session: &Session,
    names: &[String],
    stream: &mut Streaming<v1::WatchVirtualClustersResponse>,
) -> Result<(), CliError> {
    let mut written = Written::default();
    loop {
        let message = stream.message().await;
        let message = message.map_err(|status| CliError::from_status(OPERATION, &status))?;
        let Some(message) = message else {
            return Err(CliError::new(Kind::Away, OPERATION, "the controller ended the watch")
                .mended_by("run the same command again"));
        };
        let change = Change::from_wire(message.change);
        let Some(virtual_cluster) = message.virtual_cluster else {
            if change == Change::InitialComplete {
                written.initial_complete(session)?;
            }
            continue;
        };
        if names.is_empty() || names.contains(&virtual_cluster.name) {
            let event = Event { change, virtual_cluster: virtual_cluster.into() };
            written.event(session, event)?;
        }
    }
}

/// What was written, and what waits to be.
#[derive(Debug, Default)]
struct Written {
    /// Of the initial list, for a table: its columns are as wide as its widest rows.
    waiting: Vec<Event>,
    table: Option<WatchTable>,
    pieces: bool,
}

impl Written {
    fn event(&mut self, session: &Session, event: Event) -> Result<(), CliError> {
        let look = session.look(false);
        match (session.output, &mut self.table) {
            (Output::Table | Output::Wide, Some(table)) => {
                out::write(&table.change(&event, look.wide))
            }
            (Output::Table | Output::Wide, None) => {
                self.waiting.push(event);
                Ok(())
            }
            (output, _) => {
                let first = !std::mem::replace(&mut self.pieces, true);
                out::write(&render::piece(&event, output, &look, first)?)
            }
        }
    }

    fn initial_complete(&mut self, session: &Session) -> Result<(), CliError> {
        if !matches!(session.output, Output::Table | Output::Wide) || self.table.is_some() {
            return Ok(());
        }
        let mut table = WatchTable::default();
        let text = table.initial(&self.waiting, session.output == Output::Wide);
        self.waiting.clear();
        self.table = Some(table);
        out::write(&text)
    }
}
