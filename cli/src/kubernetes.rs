//! A controller in a cluster: the API server mints a token that is good for nothing but Bulkhead,
//! and forwards a port. What the kubeconfig holds goes to the API server and nowhere else.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::connect::{Authorities, connect_tls_over};
use bulkhead_proto::{Endpoint, TlsAddress, bearer};
use clap::Args;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::io::DuplexStream;
use tonic::metadata::{Ascii, MetadataValue};

use crate::connection::{Bearing, Reached};
use crate::error::{CliError, Kind};

/// How long a minted token is good for, seconds: the shortest that the API server makes is 600.
const LIFE: i64 = 3_600;
/// How long before that another is minted.
const BEFORE: Duration = Duration::from_mins(10);
/// Where the controller's CA is published.
const BUNDLE: (&str, &str) = ("bulkhead-ca", "ca.crt");
/// Pods of the controller.
const PODS: &str = "app.kubernetes.io/name=bulkhead-controller";
/// The Service that the controller's certificate names.
const SERVICE: &str = "bulkhead-controller";

/// How the controller of a cluster is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// Ask the controller of the kubeconfig's cluster, over a forwarded port and with a token
    /// minted for it [default as kubectl's plugin]
    #[arg(long, global = true, env = "BULKHEAD_KUBERNETES", conflicts_with = "server")]
    kubernetes: bool,
    /// The kubeconfig [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Its context [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Where Bulkhead is installed
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "bulkhead-system"
    )]
    bulkhead_namespace: String,
    /// As whom to ask: the service account for which a token is minted. You need the verb `create`
    /// on its `serviceaccounts/token`
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_SERVICE_ACCOUNT",
        value_name = "NAMESPACE/NAME",
        default_value = "bulkhead-system/bulkhead-operator",
        value_parser = account
    )]
    service_account: Account,
    /// The audience that the controller expects
    #[arg(
        long,
        global = true,
        env = "BULKHEAD_TOKEN_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "bulkhead"
    )]
    audience: String,
    /// The controller's port for operators, on its pods
    #[arg(long, global = true, value_name = "PORT", default_value_t = 8444)]
    pod_port: u16,
}

/// A service account.
#[derive(Debug, Clone)]
struct Account {
    namespace: String,
    name: String,
}

fn account(text: &str) -> Result<Account, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Account { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(format!("\"{text}\" is no service account; write NAMESPACE/NAME")),
    }
}

impl ClusterArgs {
    pub(crate) fn is_asked_for(&self) -> bool {
        self.kubernetes
    }

    /// Where Bulkhead is installed.
    pub(crate) fn bulkhead_namespace(&self) -> &str {
        &self.bulkhead_namespace
    }

    /// Mints a token, forwards a port and connects.
    pub(crate) async fn reach(&self, ca: Option<Authorities>) -> Result<Reached, CliError> {
        let namespace = &self.bulkhead_namespace;
        let address = format!("{SERVICE}.{namespace}.svc");
        let address = TlsAddress::new(&address, self.pod_port).ok_or_else(|| {
            let problem = format!("\"{namespace}\" is no namespace");
            CliError::new(Kind::Usage, "connect to the controller", problem)
        })?;
        let client = self.client().await?;
        let authorities = match ca {
            Some(authorities) => authorities,
            None => self.authorities(&client).await?,
        };
        let bearing = Bearing::default();
        bearing.set(self.token(&client).await?);
        self.mint_again(client.clone(), bearing.clone());
        let pod = self.pod(&client).await?;
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let port = self.pod_port;
        let open = move || {
            let (pods, pod) = (pods.clone(), pod.clone());
            async move { forward(&pods, &pod, port).await }
        };
        let server = Endpoint::Tls(address.clone());
        let channel = connect_tls_over(&address, Some(&authorities), open).await;
        let channel = channel.map_err(|error| CliError::connect(&server, &error))?;
        Ok(Reached { channel, bearing, server })
    }

    /// A client of the API server.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let config = match &self.kubeconfig {
            None => Config::from_kubeconfig(&options).await,
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
                Err(error) => Err(error),
            },
        };
        let config = config.map_err(|error| failed("read the kubeconfig", &error))?;
        Client::try_from(config).map_err(|error| failed("prepare to ask the API server", &error))
    }

    async fn authorities(&self, client: &Client) -> Result<Authorities, CliError> {
        let (name, key) = BUNDLE;
        let operation = format!("get ConfigMap {}/{name}", self.bulkhead_namespace);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &self.bulkhead_namespace);
        let map = maps.get(name).await.map_err(|error| failed(&operation, &error))?;
        let bundle = map.data.unwrap_or_default().remove(key).ok_or_else(|| {
            CliError::new(Kind::Server, &operation, format!("it has no \"{key}\""))
                .mended_by("name the CA's file with --ca-file")
        })?;
        Ok(Authorities::Pem(bundle.into_bytes().into()))
    }

    async fn token(&self, client: &Client) -> Result<MetadataValue<Ascii>, CliError> {
        let Account { namespace, name } = &self.service_account;
        let operation = format!("mint a token for service account {namespace}/{name}");
        let spec = TokenRequestSpec {
            audiences: Some(vec![self.audience.clone()]),
            expiration_seconds: Some(LIFE),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let minted = accounts.create_token_request(name, &PostParams::default(), &request).await;
        let minted = minted.map_err(|error| {
            failed(&operation, &error).mended_by(
                "you need the verb create on serviceaccounts/token there; another account: \
                 --service-account",
            )
        })?;
        let token = minted.status.and_then(|status| status.token).unwrap_or_default();
        bearer::bearer(&token, "the API server's answer")
            .map_err(|error| CliError::new(Kind::Server, &operation, error))
    }

    /// Mints another token before the one that is used ends, for as long as the program runs.
    fn mint_again(&self, client: Client, bearing: Bearing) {
        let again = self.clone();
        tokio::spawn(async move {
            let life = Duration::from_secs(LIFE.unsigned_abs()).saturating_sub(BEFORE);
            loop {
                tokio::time::sleep(life).await;
                // Where it fails the old one goes on to its end, and then the server says so.
                if let Ok(token) = again.token(&client).await {
                    bearing.set(token);
                }
            }
        });
    }

    /// A pod of the controller that is ready.
    async fn pod(&self, client: &Client) -> Result<Arc<str>, CliError> {
        let namespace = &self.bulkhead_namespace;
        let operation = format!("find the controller's pod in namespace {namespace}");
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let found = pods.list(&ListParams::default().labels(PODS)).await;
        let found = found.map_err(|error| failed(&operation, &error))?;
        let ready = found.items.into_iter().filter(is_ready).find_map(|pod| pod.metadata.name);
        ready.map(Arc::from).ok_or_else(|| {
            CliError::new(Kind::Away, &operation, format!("no pod with {PODS} is ready"))
                .mended_by("is Bulkhead installed there? (--bulkhead-namespace names another)")
        })
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|it| it.type_ == "Ready" && it.status == "True");
    ready.next().is_some() && pod.metadata.deletion_timestamp.is_none()
}

/// A stream to a port of a pod, through the API server.
async fn forward(pods: &Api<Pod>, pod: &str, port: u16) -> io::Result<DuplexStream> {
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(io::Error::other)?;
    let stream = forwarder.take_stream(port);
    stream.ok_or_else(|| io::Error::other("the API server forwards no stream"))
}

/// A failure of the API server, with its causes.
pub(crate) fn failed(operation: &str, error: &dyn std::error::Error) -> CliError {
    let mut problem = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let told = inner.to_string();
        if !problem.contains(&told) {
            problem = format!("{problem}: {told}");
        }
        source = inner.source();
    }
    CliError::new(Kind::Away, operation, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};

    #[test]
    fn a_service_account_has_a_namespace() {
        let account = account("team-a/viewer").expect("an account");
        assert_eq!((account.namespace.as_str(), account.name.as_str()), ("team-a", "viewer"));
        for text in ["viewer", "/viewer", "team-a/"] {
            assert!(super::account(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_ready_pod_is_asked() {
        let pod = |status: &str| {
            let condition = PodCondition {
                type_: "Ready".to_owned(),
                status: status.to_owned(),
                ..Default::default()
            };
            let status = PodStatus { conditions: Some(vec![condition]), ..Default::default() };
            Pod { status: Some(status), ..Default::default() }
        };
        assert!(is_ready(&pod("True")));
        assert!(!is_ready(&pod("False")) && !is_ready(&Pod::default()));
    }
}
