//! `top`: what virtual clusters use now, again and again.

use std::io::{self, IsTerminal as _};

use bulkhead_proto::v1::query_usage_request::GroupBy;
use bulkhead_proto::{time, v1};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use super::Session;
use super::usage::{nanoseconds, timestamp};
use crate::args::{Output, TopArgs};
use crate::error::{CliError, Kind};
use crate::screen::Screen;
use crate::view::rates::{self, Frame};
use crate::view::usage::Row;
use crate::{interrupt, out, render};

/// How many windows back a frame looks: agents report after the window, and may be late.
const WINDOWS: u64 = 3;

/// One frame, or frames until somebody ends it.
pub(crate) async fn run(session: &Session, args: &TopArgs) -> Result<(), CliError> {
    if args.once {
        let frame = frame(session, args).await?;
        session.write(&frame, false)?;
        return must_exist(session, args, &frame).await;
    }
    tokio::select! {
        ended = frames(session, args) => ended,
        asked = interrupt::asked() => asked,
    }
}

async fn frames(session: &Session, args: &TopArgs) -> Result<(), CliError> {
    let mut interval = tokio::time::interval(args.interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.tick().await;
    let first = frame(session, args).await?;
    must_exist(session, args, &first).await?;
    let mut shown = Shown::begin(session)?;
    shown.frame(session, &first)?;
    loop {
        interval.tick().await;
        match frame(session, args).await {
            Ok(frame) => shown.frame(session, &frame)?,
            // A controller that restarts comes back, and so does its ledger.
            Err(error) if error.kind == Kind::Away => shown.away(&error)?,
            Err(error) => return Err(error),
        }
    }
}

/// The windows that are over, from the ledger.
async fn frame(session: &Session, args: &TopArgs) -> Result<Frame, CliError> {
    let at = Timestamp::now();
    let window = nanoseconds(args.window);
    let now = u64::try_from(at.as_nanosecond()).unwrap_or(0);
    let end = now - now % window;
    let question = v1::QueryUsageRequest {
        start: Some(time::timestamp(end.saturating_sub(window.saturating_mul(WINDOWS)))),
        end: Some(if end == 0 { timestamp(at) } else { time::timestamp(end) }),
        step: Some(time::duration(window)),
        group_by: vec![GroupBy::VirtualCluster.into(), GroupBy::Node.into()],
        virtual_clusters: args.names.clone(),
        nodes: args.nodes.clone(),
        page_size: 0,
        page_token: String::new(),
    };
    let rows = session.client.usage(&question).await?;
    let rows: Vec<Row> = rows.into_iter().map(Row::from).collect();
    Ok(rates::frame(at, window, &rows))
}

async fn must_exist(session: &Session, args: &TopArgs, frame: &Frame) -> Result<(), CliError> {
    let silent =
        |name: &&String| frame.virtual_clusters.iter().all(|rates| rates.virtual_cluster != **name);
    session.must_exist(args.names.iter().filter(silent)).await
}

/// Where frames go: a screen that each one replaces, or one after another.
#[derive(Debug)]
struct Shown {
    screen: Option<Screen>,
    frames: u64,
    /// The newest frame, to say below it that the controller is away.
    newest: String,
    away: bool,
}

impl Shown {
    fn begin(session: &Session) -> Result<Self, CliError> {
        let table = matches!(session.output, Output::Table | Output::Wide);
        let screen = (table && io::stdout().is_terminal()).then(Screen::enter).transpose()?;
        Ok(Self { screen, frames: 0, newest: String::new(), away: false })
    }

    fn frame(&mut self, session: &Session, frame: &Frame) -> Result<(), CliError> {
        let first = self.frames == 0;
        self.frames += 1;
        self.away = false;
        self.newest = render::piece(frame, session.output, &session.look(false), first)?;
        match &self.screen {
            Some(screen) => screen.show(&self.newest),
            None if first || !matches!(session.output, Output::Table | Output::Wide) => {
                out::write(&self.newest)
            }
            None => out::write(&format!("\n{}", self.newest)),
        }
    }

    fn away(&mut self, error: &CliError) -> Result<(), CliError> {
        let told = std::mem::replace(&mut self.away, true);
        match &self.screen {
            Some(screen) => screen.show(&format!("{error}\n\n{}", self.newest)),
            None if told => Ok(()),
            None => {
                out::report(error);
                Ok(())
            }
        }
    }
}
