//! What an agent is told next: nothing where its view is as before, else what changed, or
//! everything.

use std::sync::Arc;

use bulkhead_proto::v1;
use prost::Message;

use super::hello::Introduced;
use crate::state::World;
use crate::state::resume::{Holding, Resumable};
use crate::state::view::View;

/// What one connected agent was told, and how it is told more.
#[derive(Debug)]
pub(super) struct Telling<'a> {
    holding: Holding<'a>,
    node: String,
    takes_deltas: bool,
}

/// What there is to be told.
#[derive(Debug)]
pub(super) enum News {
    /// What the agent holds is what it would be told.
    None,
    /// What changed since the last that it was told.
    Delta(Box<v1::SnapshotDelta>),
    /// Everything.
    Whole,
}

impl<'a> Telling<'a> {
    pub(super) fn new(resumable: &'a Resumable, agent: &Introduced) -> Self {
        let (instance, generation) = agent.held;
        let held = (instance == resumable.instance && generation != 0).then_some(generation);
        let node = agent.stream.node.clone();
        let holding = resumable.connect(&node, held);
        Self { holding, node, takes_deltas: agent.takes_deltas }
    }

    /// The generation that the agent holds, as far as is known; 0: it must be told everything.
    pub(super) fn generation(&self) -> u64 {
        self.holding.newest().map_or(0, |(generation, _)| generation)
    }

    /// The agent's view of the newest generation, and what there is to be told. A delta of more
    /// than `most` bytes is not worth it.
    pub(super) fn news(&self, world: &Arc<World>, most: usize) -> (View, News) {
        // Where objects are not known yet, to say nothing is not to say that there are none.
        let Some((base, before)) = self.holding.newest() else {
            let news = if world.generation == 0 { News::None } else { News::Whole };
            return (View::new(world, &self.node), news);
        };
        let view = before.later(world, &self.node);
        let delta = before.delta_to(&view, base);
        if delta.is_empty() {
            self.holding.is_still(view.clone());
            return (view, News::None);
        }
        if !self.takes_deltas {
            return (view, News::Whole);
        }
        let delta = Box::new(v1::SnapshotDelta::from(&delta));
        let news = if delta.encoded_len() > most { News::Whole } else { News::Delta(delta) };
        (view, news)
    }

    /// A view was sent, whole or as what changed.
    pub(super) fn was_sent(&self, view: View) {
        self.holding.was_sent(view.world.generation, view);
    }

    /// The agent stands at this generation.
    pub(super) fn acknowledged(&self, generation: u64) {
        self.holding.acknowledged(generation);
    }
}
