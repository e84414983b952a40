//! What ports over TLS need, put together: certificates that are looked after, and a judge.

use std::sync::Arc;
use std::time::SystemTime;

use ::kube::Client;
use bulkhead_proto::Endpoint;
use bulkhead_proto::listen::{Limits, Tls};
use bulkhead_proto::rustls::ServerConfig;
use tokio::task;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::api_server::ApiServer;
use super::authority::Lives;
use super::certificates::Certificates;
use super::judge::Judge;
use super::publish::publish;
use super::reviewer::Reviewer;
use super::store::Store;
use crate::controller::{Config, ServeError, Source, TrustConfig};
use crate::parts::Judges;

/// The service name by which health tells whether the certificate is sound: it has not ended, ends
/// not soon, and the newest files are in use.
const CERTIFICATE: &str = "bulkhead.v1.Certificate";

/// What ports over TLS need.
pub(crate) struct Trust {
    certificates: Arc<Certificates>,
    server: Arc<ServerConfig>,
    store: Option<Store>,
    judge: Arc<Judge>,
    /// The API server, where it is asked.
    client: Option<Client>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads, or makes, the certificates; `None`: no port speaks TLS. `reviewer`: who is asked
    /// instead of the API server.
    pub(crate) async fn open(
        config: &Config,
        reviewer: Option<Arc<dyn Reviewer>>,
    ) -> Result<Option<Self>, ServeError> {
        let Some(endpoint) = [&config.agents, &config.operators].into_iter().find(|it| it.is_tls())
        else {
            return Ok(None);
        };
        let trust = config.trust.clone();
        let trust =
            trust.ok_or_else(|| ServeError::NoCertificate { endpoint: endpoint.clone() })?;
        let TrustConfig { directory, self_signed, audience, agents } = trust;
        let store = (!self_signed.is_empty()).then(|| Store {
            directory: directory.clone(),
            names: self_signed,
            lives: Lives::default(),
        });
        let making = store.clone();
        let opened = task::spawn_blocking(move || -> Result<Certificates, ServeError> {
            if let Some(store) = making {
                store.renew(SystemTime::now())?;
            }
            Ok(Certificates::open(&directory)?)
        });
        let certificates = Arc::new(opened.await??);
        let server = certificates.server_config()?;
        let (reviewer, client): (Arc<dyn Reviewer>, _) = if let Some(reviewer) = reviewer {
            (reviewer, None)
        } else {
            let client = api_server(&config.objects).await?;
            (Arc::new(ApiServer::new(client.clone(), audience)), Some(client))
        };
        let judge = Arc::new(Judge::new(reviewer, agents));
        Ok(Some(Self { certificates, server, store, judge, client }))
    }

    /// How ports speak TLS.
    pub(crate) fn tls(&self) -> Tls {
        Tls { config: Arc::clone(&self.server), limits: Limits::default() }
    }

    /// Who asks for tokens: each port that speaks TLS.
    pub(crate) fn judges(&self, agents: &Endpoint, operators: &Endpoint) -> Judges {
        let judge = |endpoint: &Endpoint| endpoint.is_tls().then(|| Arc::clone(&self.judge));
        Judges { agents: judge(agents), operators: judge(operators) }
    }

    /// Renews, reads again and tells, as long as it is polled.
    pub(crate) async fn look_after(self, health: HealthReporter) {
        let mut standing = self.certificates.standing();
        let store = self.store;
        let published = self.client.zip(store.clone());
        let publishing = async {
            if let Some((client, store)) = published {
                publish(client, store.directory).await;
            }
        };
        let renew = move || {
            if let Some(store) = &store {
                store.renew_or_tell();
            }
        };
        let telling = async {
            loop {
                let sound = standing.borrow_and_update().problem.is_none();
                let status = if sound { ServingStatus::Serving } else { ServingStatus::NotServing };
                health.set_service_status(CERTIFICATE, status).await;
                if standing.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(self.certificates.watch(renew), telling, publishing);
    }
}

async fn api_server(objects: &Source) -> Result<Client, ServeError> {
    Ok(match objects {
        Source::Kubernetes(cluster) => cluster.connect().await?.client,
        Source::Files(_) => {
            let client = Client::try_default().await;
            client.map_err(|source| ServeError::ApiServer { source: source.into() })?
        }
    })
}
