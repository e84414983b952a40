//! How the controller is reached, and what it is told of who asks.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bulkhead_proto::bearer;
use bulkhead_proto::connect::{Authorities, connect_with};
use bulkhead_proto::{Endpoint, connect};
use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::error::{CliError, Kind};
use crate::help::CalledAs;

/// Where a controller on this machine listens.
const LOCAL: &str = "unix:/run/bulkhead-controller/operators.sock";

/// How the controller is reached.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The controller's port for operators [default: the socket of a controller on this machine,
    /// unix:/run/bulkhead-controller/operators.sock; as kubectl's plugin: that of the cluster]
    #[expect(clippy::doc_markdown, reason = "shown as it is, as help")]
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_SERVER",
        value_name = "unix:PATH|https://HOST:PORT|http://127.0.0.1:PORT"
    )]
    server: Option<Endpoint>,
    /// Certificates (PEM) of the CAs that may say who an https server is
    #[arg(long, global = true, env = "BULKHEAD_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The token that tells an https server who asks; nothing else is ever sent it
    #[arg(long, global = true, env = "BULKHEAD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How it is reached through a cluster.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    cluster: crate::kubernetes::ClusterArgs,
}

/// A channel on which every request says who asks.
pub(crate) type Asking = InterceptedService<Channel, Bearing>;

/// A controller that was reached.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) channel: Channel,
    pub(crate) bearing: Bearing,
    pub(crate) server: Endpoint,
}

/// Adds the token to each request; it may be another by then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bearing(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Bearing {
    pub(crate) fn set(&self, token: MetadataValue<Ascii>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

impl Interceptor for Bearing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            request.metadata_mut().insert(bearer::KEY, token);
        }
        Ok(request)
    }
}

impl ServerArgs {
    /// The cluster whose API server is asked.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn cluster(&self) -> &crate::kubernetes::ClusterArgs {
        &self.cluster
    }

    /// Connects.
    pub(crate) async fn reach(&self, called_as: CalledAs) -> Result<Reached, CliError> {
        #[cfg(feature = "kubernetes")]
        if self.server.is_none()
            && (self.cluster.is_asked_for() || called_as == CalledAs::KubectlPlugin)
        {
            let authorities = self.ca_file.clone().map(Authorities::File);
            return self.cluster.reach(authorities).await;
        }
        #[cfg(not(feature = "kubernetes"))]
        let _ = called_as;
        let local =
            || Endpoint::parse(LOCAL).map_err(|error| CliError::new(Kind::Usage, "", error));
        let server = self.server.clone().map_or_else(local, Ok)?;
        let authorities = self.ca_file.clone().map(Authorities::File);
        let channel = connect_with(&server, authorities.as_ref()).await;
        let channel =
            channel.map_err(|error: connect::ConnectError| CliError::connect(&server, &error))?;
        let bearing = Bearing::default();
        if let Some(path) = self.token_file.as_deref().filter(|_| server.is_tls()) {
            let token = bearer::read(path).await;
            bearing.set(token.map_err(|error| {
                CliError::new(Kind::Usage, format!("connect to {server}"), error)
            })?);
        }
        Ok(Reached { channel, bearing, server })
    }
}
