//! Whose a token is, remembered for a while, and asked again and again while a stream lasts.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Request, Status};

use super::cache::Cache;
use super::rate::{Rate, Rates};
use super::reviewer::{Access, PodName, ReviewError, Reviewer, User};
use super::token::Token;
use crate::reason::{chain, refused};

/// How long it is remembered whose a token is; never beyond the token's own end.
const REMEMBERED: Duration = Duration::from_mins(1);
/// How long a decision is remembered.
const DECIDED: Duration = Duration::from_secs(10);
/// How often it is asked again whose the token of a long stream is.
const AGAIN: Duration = Duration::from_mins(10);
/// When it is tried again where nobody could be asked.
const RETRY: Duration = Duration::from_mins(1);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that are asked at one time; others wait.
const AT_ONCE: usize = 32;
/// Tokens, and decisions, that are remembered at most.
const MOST: usize = 16_384;
/// Tokens from one address that are none, or are being asked about.
const UNKNOWN: Rate = Rate { burst: 60, one_each: Duration::from_millis(500) };
/// Requests of one bearer.
const REQUESTS: Rate = Rate { burst: 400, one_each: Duration::from_millis(10) };

/// The extra of a token that names its node; servers before 1.30 have only the pod's.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A service account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// From `NAMESPACE/NAME`.
impl FromStr for ServiceAccount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |text: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !text.is_empty() && text.len() <= 253 && text.chars().all(plain)
        };
        match text.split_once('/') {
            Some((namespace, name)) if part(namespace) && part(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("\"{text}\" is no service account; write NAMESPACE/NAME")),
        }
    }
}

impl ServiceAccount {
    fn user_name(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// Decides whose a token is and what they may know.
#[derive(Debug)]
pub(crate) struct Judge {
    reviewer: Arc<dyn Reviewer>,
    agents: ServiceAccount,
    /// Of valid tokens only: whoever sends others pushes nobody out.
    bearers: Cache<Token, Arc<User>>,
    nodes: Cache<Token, Arc<str>>,
    decisions: Cache<(Arc<User>, Access), bool>,
    asking: Semaphore,
    unknown: Rates<Option<IpAddr>>,
    requests: Rates<Arc<User>>,
}

impl Judge {
    pub(crate) fn new(reviewer: Arc<dyn Reviewer>, agents: ServiceAccount) -> Self {
        Self {
            reviewer,
            agents,
            bearers: Cache::new(MOST),
            nodes: Cache::new(MOST),
            decisions: Cache::new(MOST),
            asking: Semaphore::new(AT_ONCE),
            unknown: Rates::new(UNKNOWN),
            requests: Rates::new(REQUESTS),
        }
    }

    /// Whose a token is. `from`: whence it came.
    pub(super) async fn bearer(
        &self,
        token: &Token,
        from: Option<IpAddr>,
    ) -> Result<Arc<User>, Status> {
        let known = self.bearers.get(token);
        let user = match known {
            Some(user) => user,
            None if !self.unknown.take(from) => return Err(too_often("tokens")),
            None => {
                let user = self.review(token).await?;
                // Only tokens that are none count: many may come from one address.
                self.unknown.give_back(&from);
                user
            }
        };
        if self.requests.take(Arc::clone(&user)) { Ok(user) } else { Err(too_often("requests")) }
    }

    /// Asks whose a token is, whatever is remembered.
    async fn review(&self, token: &Token) -> Result<Arc<User>, Status> {
        let asked = self.ask(self.reviewer.authenticate(token.text())).await;
        let Some(user) = asked.map_err(|error| nobody_to_ask(&error))? else {
            self.bearers.forget(token);
            self.nodes.forget(token);
            return Err(not_valid());
        };
        let user = Arc::new(user);
        self.bearers.keep(token.clone(), Arc::clone(&user), remembered_until(token));
        Ok(user)
    }

    /// Whether a bearer may know something.
    pub(super) async fn may(&self, user: &Arc<User>, access: Access) -> Result<bool, Status> {
        let question = (Arc::clone(user), access);
        if let Some(decided) = self.decisions.get(&question) {
            return Ok(decided);
        }
        let asked = self.ask(self.reviewer.may(user, &question.1)).await;
        let allowed = asked.map_err(|error| nobody_to_ask(&error))?;
        self.decisions.keep(question, allowed, Instant::now() + DECIDED);
        Ok(allowed)
    }

    /// The node whose agent a bearer is.
    pub(super) async fn node(&self, token: &Token, user: &User) -> Result<Arc<str>, Status> {
        if user.name != self.agents.user_name() {
            let (expected, name) = (self.agents.user_name(), user.name.as_str());
            let message = format!("\"{name}\" is no agent: agents are \"{expected}\"");
            return Err(refused(Code::PermissionDenied, "NOT_AN_AGENT", message, [("user", name)]));
        }
        if let Some(node) = self.nodes.get(token) {
            return Ok(node);
        }
        let node: Arc<str> = self.node_of(user).await?.into();
        self.nodes.keep(token.clone(), Arc::clone(&node), remembered_until(token));
        Ok(node)
    }

    async fn node_of(&self, user: &User) -> Result<String, Status> {
        if let Some(node) = user.only(NODE_NAME) {
            return Ok(node.to_owned());
        }
        let unproven = |problem: &str| {
            let message = format!("the agent's token does not tell its node: {problem}");
            refused(Code::PermissionDenied, "NODE_UNPROVEN", message, [])
        };
        let (Some(name), Some(uid)) = (user.only(POD_NAME), user.only(POD_UID)) else {
            return Err(unproven("it is bound to no pod; use a projected service account token"));
        };
        let pod = PodName {
            namespace: self.agents.namespace.clone(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            service_account: self.agents.name.clone(),
        };
        let asked = self.ask(self.reviewer.node_of_pod(&pod)).await;
        let found = asked.map_err(|error| nobody_to_ask(&error))?;
        found.ok_or_else(|| unproven("the pod that it is bound to is gone, or has no node"))
    }

    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ReviewError>>,
    ) -> Result<T, ReviewError> {
        let late = |operation| ReviewError { operation, problem: "no answer in time".to_owned() };
        let answered = timeout(PATIENCE, async {
            // Never closed.
            let _permit = self.asking.acquire().await;
            question.await
        });
        answered.await.unwrap_or_else(|_| Err(late("ask who that is")))
    }

    /// Whether a token is still whose it was; asks.
    pub(super) async fn still(&self, token: &Token, user: &User) -> Result<(), Status> {
        let now = self.review(token).await?;
        if now.name == user.name && now.uid == user.uid { Ok(()) } else { Err(not_valid()) }
    }
}

/// Until when an answer about a token may be remembered.
fn remembered_until(token: &Token) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = token.ends().map(|ends| Duration::from_secs(ends).saturating_sub(now));
    Instant::now() + left.map_or(REMEMBERED, |left| left.min(REMEMBERED))
}

/// An agent, as the port knows it. Comes with each request of [`super::Guard`].
#[derive(Clone, Debug)]
pub(crate) enum Attested {
    /// Over a unix socket or loopback: taken at its word.
    Here,
    /// By its token.
    Node(Arc<Proven>),
}

/// An agent whose node is proven.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(super) judge: Arc<Judge>,
    pub(super) token: Token,
    pub(super) user: Arc<User>,
    pub(super) node: Arc<str>,
}

impl Attested {
    /// Who sends a request. One that did not come through the guard comes from nobody.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(no_token)
    }

    /// Refuses a node that is another than the session's.
    pub(crate) fn must_be(&self, node: &str) -> Result<(), Status> {
        match self {
            Self::Here => Ok(()),
            Self::Node(proven) if *proven.node == *node => Ok(()),
            Self::Node(proven) => {
                let message = format!(
                    "hello: node: \"{node}\" is not the node of this agent's token, \"{}\"; its \
                     --node must be the pod's spec.nodeName",
                    proven.node
                );
                let about = [("node", node), ("proven", &proven.node)];
                Err(refused(Code::PermissionDenied, "NODE_IDENTITY", message, about))
            }
        }
    }

    /// Asks again and again whether the token is still valid, as long as the answer lives.
    pub(crate) fn watch(&self) -> Lost {
        let Self::Node(proven) = self else { return Lost(None) };
        let proven = Arc::clone(proven);
        Lost(Some(tokio::spawn(async move {
            let mut next = Instant::now() + AGAIN;
            loop {
                sleep_until(next).await;
                match proven.judge.still(&proven.token, &proven.user).await {
                    Ok(()) => next = Instant::now() + AGAIN,
                    Err(status) if is_no_answer(&status) => {
                        tracing::warn!(node = &*proven.node, "{}", status.message());
                        next = Instant::now() + RETRY;
                    }
                    Err(status) => return status,
                }
            }
        })))
    }
}

/// Tells when an agent's token is valid no more.
#[derive(Debug)]
pub(crate) struct Lost(Option<JoinHandle<Status>>);

impl Lost {
    /// Waits for that; for ever where there is no token. Nothing is lost if it is waited for anew.
    pub(crate) async fn lost(&mut self) -> Status {
        match &mut self.0 {
            Some(task) => task.await.unwrap_or_else(|_| Status::internal("the review ended early")),
            None => loop {
                sleep(AGAIN).await;
            },
        }
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// There is no token, or none that could be one.
pub(super) fn no_token() -> Status {
    let message = "there is no bearer token; send `authorization: Bearer TOKEN`";
    refused(Code::Unauthenticated, "TOKEN_MISSING", message, [])
}

fn not_valid() -> Status {
    let message = "the token is not valid here: it has ended, was taken back, or is meant for \
                   another audience";
    refused(Code::Unauthenticated, "TOKEN_INVALID", message, [])
}

const NO_ANSWER: &str = "REVIEW_UNAVAILABLE";

fn nobody_to_ask(error: &ReviewError) -> Status {
    let message = format!("nobody can say now whose the token is: {}", chain(error));
    refused(Code::Unavailable, NO_ANSWER, message, [])
}

/// Whether nobody could be asked, which says nothing about the bearer.
pub(super) fn is_no_answer(status: &Status) -> bool {
    status.code() == Code::Unavailable
}

fn too_often(what: &str) -> Status {
    let message = format!("too many {what} in too short a time; wait a moment");
    refused(Code::ResourceExhausted, "TOO_OFTEN", message, [])
}

#[cfg(test)]
mod tests;
