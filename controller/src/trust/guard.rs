//! What stands before every service but health: nobody passes without saying who they are.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bulkhead_proto::listen::Peer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::metadata::MetadataMap;
use tower::{Layer, Service};

use super::judge::{Attested, Judge, Proven, no_token};
use super::token::Token;
use super::viewer::{Bearer, Viewer};

/// Who may come to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whom {
    /// Agents: services find an [`Attested`] in their requests.
    Agents,
    /// Operators: services find a [`Viewer`] in their requests.
    Operators,
}

/// Puts a [`Guarded`] before a service.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    whom: Whom,
    /// `None`: everybody is trusted, since only this machine's own can reach the port.
    judge: Option<Arc<Judge>>,
}

impl Guard {
    pub(crate) fn new(whom: Whom, judge: Option<Arc<Judge>>) -> Self {
        Self { whom, judge }
    }

    /// Adds to a request who sends it, or says why it is refused.
    async fn introduce(
        &self,
        metadata: MetadataMap,
        extensions: &mut http::Extensions,
    ) -> Result<(), Status> {
        let Some(judge) = &self.judge else {
            match self.whom {
                Whom::Agents => extensions.insert(Attested::Here).map(drop),
                Whom::Operators => extensions.insert(Viewer::Everything).map(drop),
            };
            return Ok(());
        };
        let peer = extensions.get::<Peer>().cloned();
        let token = Token::of(&metadata).ok_or_else(no_token)?;
        let user = judge.bearer(&token, address(peer.as_ref())).await?;
        match self.whom {
            Whom::Agents => {
                let node = judge.node(&token, &user).await?;
                let proven = Proven { judge: Arc::clone(judge), token, user, node };
                extensions.insert(Attested::Node(Arc::new(proven)));
            }
            Whom::Operators => {
                let bearer = Bearer { judge: Arc::clone(judge), token, user };
                extensions.insert(Viewer::Bearer(Arc::new(bearer)));
            }
        }
        if let Some(Peer::Tls(peer)) = peer {
            peer.proof.give();
        }
        Ok(())
    }
}

fn address(peer: Option<&Peer>) -> Option<IpAddr> {
    match peer? {
        Peer::Tls(peer) => Some(peer.address.ip()),
        Peer::Tcp(peer) => peer.remote_addr().map(|address| address.ip()),
        Peer::Unix(_) => None,
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service that only those reach who said who they are.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that is ready is used up; another takes its place.
        let another = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, another);
        let guard = self.guard.clone();
        Box::pin(async move {
            // The token goes no further.
            let mut metadata = MetadataMap::from_headers(request.headers().clone());
            request.headers_mut().remove(http::header::AUTHORIZATION);
            let mut extensions = std::mem::take(request.extensions_mut());
            let introduced = guard.introduce(std::mem::take(&mut metadata), &mut extensions).await;
            *request.extensions_mut() = extensions;
            match introduced {
                Ok(()) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
