//! What the agent's reporting takes from outside, simulated.

use std::fmt;

use bulkhead_agent::journal::{Chunk, JournalError};
use bulkhead_agent::report::{Connecting, Outside, Reading};
use bulkhead_proto::Endpoint;
use bulkhead_proto::connect::connect_over;
use tokio::task::JoinHandle;

use crate::controller::AGENTS;
use crate::network::Network;
use crate::node::Common;
use crate::random::Random;
use crate::watcher::Watcher;

/// Connects over the simulated network.
pub(crate) struct Dialer {
    network: Network,
    link: usize,
    random: Random,
    watcher: Watcher,
}

impl Dialer {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            network: common.network.clone(),
            link: common.number,
            random: common.random.branch(),
            watcher: common.watcher.clone(),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Outside for Dialer {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let (network, link) = (self.network.clone(), self.link);
        let (endpoint, watcher) = (endpoint.clone(), self.watcher.clone());
        Box::pin(async move {
            let open = move || network.clone().connect(link, AGENTS);
            let channel = connect_over(&endpoint, open).await?;
            watcher.connected();
            Ok(channel)
        })
    }

    fn random(&self) -> u64 {
        self.random.next()
    }

    fn read(&self, reading: Reading) -> JoinHandle<Result<Chunk, JournalError>> {
        tokio::spawn(async move { reading() })
    }
}
