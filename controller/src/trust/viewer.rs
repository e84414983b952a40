//! An operator, and what they may see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::judge::{Judge, is_no_answer, no_token};
use super::reviewer::{Access, User};
use super::token::Token;
use crate::reason::refused;

/// Names that are asked about at one time for one request.
const AT_ONCE: usize = 16;
/// How often a stream asks whether its token is still valid.
const AGAIN: Duration = Duration::from_mins(10);
/// Longest name that is asked about.
const LONGEST: usize = 253;

/// Who asks. Comes with each request of [`super::Guard`].
#[derive(Clone, Debug)]
pub(crate) enum Viewer {
    /// Over a unix socket or loopback: sees everything.
    Everything,
    /// By a token.
    Bearer(Arc<Bearer>),
}

/// An operator with a token.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(super) judge: Arc<Judge>,
    pub(super) token: Token,
    pub(super) user: Arc<User>,
}

/// Which virtual clusters somebody may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sight {
    /// All, those that will be, too.
    All,
    /// These, which may be none.
    These(BTreeSet<String>),
}

impl Sight {
    /// Whether it covers a virtual cluster.
    pub(crate) fn shows(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

impl Viewer {
    /// Who sends a request. One that did not come through the guard comes from nobody.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(no_token)
    }

    /// Which of these virtual clusters may be seen.
    pub(crate) async fn sight(
        &self,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Sight, Status> {
        let Self::Bearer(bearer) = self else { return Ok(Sight::All) };
        if bearer.may(Access::EveryVirtualCluster).await? {
            return Ok(Sight::All);
        }
        let asked = stream::iter(names).map(|name| async move {
            let sees = bearer.may(Access::VirtualCluster(name.clone())).await?;
            Ok::<_, Status>(sees.then_some(name))
        });
        let seen: Vec<Option<String>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Sight::These(seen.into_iter().flatten().collect()))
    }

    /// Refuses a virtual cluster that may not be seen, in the same words whether or not it exists.
    pub(crate) async fn must_see(&self, name: &str) -> Result<(), Status> {
        let Self::Bearer(bearer) = self else { return Ok(()) };
        if bearer.may(Access::EveryVirtualCluster).await? {
            return Ok(());
        }
        let access = Access::VirtualCluster(name.to_owned());
        bearer.must(access, "VIRTUAL_CLUSTER_HIDDEN", ("virtual_cluster", name)).await
    }

    /// Refuses a node that may not be seen, in the same words whether or not it exists.
    pub(crate) async fn must_see_node(&self, name: &str) -> Result<(), Status> {
        let Self::Bearer(bearer) = self else { return Ok(()) };
        if bearer.may(Access::EveryNode).await? {
            return Ok(());
        }
        bearer.must(Access::Node(name.to_owned()), "NODE_HIDDEN", ("node", name)).await
    }

    /// Refuses who may not list nodes.
    pub(crate) async fn must_see_nodes(&self) -> Result<(), Status> {
        match self {
            Self::Everything => Ok(()),
            Self::Bearer(bearer) => {
                bearer.must(Access::EveryNode, "NODES_HIDDEN", ("node", "")).await
            }
        }
    }

    /// Whether a stream may go on: its token is asked about again where `since` is long ago.
    pub(crate) async fn still(&self, since: &mut Instant) -> Result<(), Status> {
        let Self::Bearer(bearer) = self else { return Ok(()) };
        if since.elapsed() < AGAIN {
            return Ok(());
        }
        match bearer.judge.still(&bearer.token, &bearer.user).await {
            Ok(()) => *since = Instant::now(),
            Err(status) if is_no_answer(&status) => tracing::warn!("{}", status.message()),
            Err(status) => return Err(status),
        }
        Ok(())
    }
}

impl Bearer {
    async fn may(&self, access: Access) -> Result<bool, Status> {
        // An empty name would be asked about as all of them.
        if access.name().is_some_and(|name| name.is_empty() || name.len() > LONGEST) {
            return Ok(false);
        }
        self.judge.may(&self.user, access).await
    }

    async fn must(&self, access: Access, reason: &str, about: (&str, &str)) -> Result<(), Status> {
        let rule = access.to_string();
        let user = &self.user.name;
        let what = match access.name() {
            None => "nodes".to_owned(),
            Some(name) => {
                let name: String = name.chars().take(LONGEST).collect();
                format!("\"{name}\", if it is there at all")
            }
        };
        if self.may(access).await? {
            return Ok(());
        }
        let message =
            format!("\"{user}\" may not see {what}; the rule that would allow it: {rule}");
        let about = [(about.0, about.1.get(..LONGEST).unwrap_or(about.1)), ("user", user)];
        Err(refused(Code::PermissionDenied, reason, message, about))
    }
}
