//! All parts put together.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::Endpoint;
use bulkhead_proto::listen::{ListenError, Listener};
use tokio::sync::watch;
use tokio::task;
use tonic::transport::server::Router;

use crate::kube::{self, ConnectError, KubernetesConfig, Link};
use crate::ledger::LedgerError;
use crate::outside::World;
use crate::parts::Parts;
use crate::sources::Loader;
use crate::trust::Reviewer;
use crate::trust::ServiceAccount;
use crate::trust::certificates::CertificateError;
use crate::trust::port::Trust;
use crate::trust::store::StoreError;

/// How long open requests may take when the controller ends.
const GRACE: Duration = Duration::from_secs(5);

/// How soon a directory is looked for again that cannot be watched.
const AGAIN: Duration = Duration::from_secs(1);

/// What a controller needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the objects are.
    pub objects: Source,
    /// Directory of the ledger.
    pub data: PathBuf,
    /// Where agents connect.
    pub agents: Endpoint,
    /// Where operators connect.
    pub operators: Endpoint,
    /// How ports over TLS are served; ports that are none need nothing of it.
    pub trust: Option<TrustConfig>,
    /// Most pages of 4,096 bytes that the ledger may have; `None`: as many as there is room for.
    pub ledger_page_limit: Option<u32>,
}

/// Where the objects are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// In the files of this directory.
    Files(PathBuf),
    /// In Kubernetes, with the pods, Services and nodes that they are about.
    Kubernetes(KubernetesConfig),
}

impl From<PathBuf> for Source {
    fn from(directory: PathBuf) -> Self {
        Self::Files(directory)
    }
}

/// How ports over TLS are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustConfig {
    /// Directory of `tls.crt` and `tls.key`.
    pub directory: PathBuf,
    /// The names of the server, where they are made and renewed by a CA of our own; none: they
    /// are others' files.
    pub self_signed: Vec<String>,
    /// The audience that tokens must be meant for.
    pub audience: String,
    /// Whom agents run as.
    pub agents: ServiceAccount,
}

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger.
    #[error("open the ledger")]
    Ledger(#[from] LedgerError),
    /// The objects, and no earlier ones are remembered.
    #[error("load the objects of {path}:\n{problems}")]
    Objects {
        /// The directory.
        path: PathBuf,
        /// All that is wrong.
        problems: String,
    },
    /// The API server that holds the objects.
    #[error("watch the API server")]
    Kubernetes(#[from] ConnectError),
    /// A port.
    #[error("listen")]
    Listen(#[from] ListenError),
    /// Reflection.
    #[error("describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A port, later.
    #[error("serve {endpoint}")]
    Serve {
        /// Which.
        endpoint: Endpoint,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// A port over TLS, and nothing is said of certificates.
    #[error(
        "{endpoint}: there is no certificate to listen with; name its directory with --tls-dir"
    )]
    NoCertificate {
        /// Which.
        endpoint: Endpoint,
    },
    /// The built-in CA.
    #[error("make certificates")]
    Store(#[from] StoreError),
    /// The certificate.
    #[error("use the certificate")]
    Certificate(#[from] CertificateError),
    /// Whom to ask about tokens.
    #[error("find the API server, which says whose a token is")]
    ApiServer {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of our own tasks.
    #[error("a task of the controller ended early")]
    Task(#[from] task::JoinError),
}

/// Runs a controller until `shutdown` is done.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    Controller::start(config).await?.run(shutdown).await
}

/// A controller that listens, and answers once it runs.
#[derive(Debug)]
pub struct Controller {
    agents: Listener,
    operators: Listener,
    parts: Parts,
    trust: Option<Trust>,
    cluster: Option<Link>,
}

impl Controller {
    /// Opens the ledger, loads the objects, listens. Where a port speaks TLS, the API server is
    /// asked whose a token is.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        Self::start_with(config, None).await
    }

    /// The same; `reviewer` is asked instead of the API server.
    pub async fn start_with(
        config: Config,
        reviewer: Option<Arc<dyn Reviewer>>,
    ) -> Result<Self, ServeError> {
        let trust = Trust::open(&config, reviewer).await?;
        let cluster = match &config.objects {
            Source::Kubernetes(cluster) => Some(cluster.connect().await?),
            Source::Files(_) => None,
        };
        let at = (config.agents.clone(), config.operators.clone());
        let opened = task::spawn_blocking(move || Parts::open(&config, Arc::new(World)));
        let mut parts = opened.await??;
        if let Some(trust) = &trust {
            parts = parts.judged_by(trust.judges(&at.0, &at.1));
        }
        let tls = trust.as_ref().map(Trust::tls);
        let agents = Listener::bind_with(&at.0, tls.as_ref()).await?;
        let operators = Listener::bind_with(&at.1, tls.as_ref()).await?;
        Ok(Self { agents, operators, parts, trust, cluster })
    }

    /// Where agents connect; with the port that the system chose where 0 was asked for.
    pub fn agents(&self) -> &Endpoint {
        self.agents.endpoint()
    }

    /// Where operators connect; with the port that the system chose where 0 was asked for.
    pub fn operators(&self) -> &Endpoint {
        self.operators.endpoint()
    }

    /// Answers until `shutdown` is done. Then streams are ended, and other requests have five
    /// seconds; what was acknowledged is durable in any case.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let trust = self.trust.take();
        let parts = &self.parts;
        let (health, health_service) = tonic_health::server::health_reporter();
        let certified = trust.map(|trust| task::spawn(trust.look_after(health.clone())));
        let reporting = task::spawn(parts.report(health));
        let watching = match (parts.loader(), self.cluster.take()) {
            (Some(loader), _) => task::spawn(reload(loader, parts.ending())),
            (None, Some(link)) => {
                let running = kube::start(link, parts.of_cluster(), &parts.ending())?;
                task::spawn(running.ended())
            }
            (None, None) => task::spawn(async {}),
        };
        let for_agents = parts.for_agents().add_service(health_service.clone());
        let for_operators = parts.for_operators()?.add_service(health_service);
        tracing::info!(agents = %self.agents(), operators = %self.operators(), "listening");
        let serving = async {
            tokio::try_join!(
                port(for_agents, self.agents, parts.ending()),
                port(for_operators, self.operators, parts.ending()),
            )
        };
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served.map(drop),
            () = shutdown => {
                tracing::info!("ending");
                parts.end();
                // Who keeps a connection open longer is cut off.
                tokio::time::timeout(GRACE, &mut serving).await.map_or(Ok(()), |done| done.map(drop))
            }
        };
        parts.end();
        if let Some(certified) = certified {
            // It has no end of its own, and nothing to finish.
            certified.abort();
        }
        watching.await?;
        reporting.await?;
        served
    }
}

async fn port(
    router: Router,
    listener: Listener,
    mut ending: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let endpoint = listener.endpoint().clone();
    let ended = async move {
        // An error means that whoever would tell has gone, which is an end too.
        let _ = ending.wait_for(|ending| *ending).await;
    };
    router
        .serve_with_incoming_shutdown(listener, ended)
        .await
        .map_err(|source| ServeError::Serve { endpoint, source })
}

/// Loads the objects again after each change. The directory is watched afresh each time: it may
/// be another by now.
async fn reload(loader: Arc<Loader>, mut ending: watch::Receiver<bool>) {
    while !*ending.borrow() {
        let changes = loader.directory().watch();
        let again = Arc::clone(&loader);
        if task::spawn_blocking(move || again.reload()).await.is_err() {
            tracing::error!("loading the objects ended early; it is tried again");
        }
        let next = async {
            match changes {
                Ok(mut changes) => changes.next().await,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            () = next => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}
