//! Ranges of the cluster that its Nodes do not tell: those of Services, from `ServiceCIDR` objects
//! (Kubernetes 1.33) and from what kubeadm wrote down. Where there is neither, operators write
//! them in `BulkheadConfig`.

use std::collections::BTreeSet;
use std::time::Duration;

use bulkhead_core::AddressBlock;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::watch::Heard;

/// How often they are looked for.
const AGAIN: Duration = Duration::from_mins(5);
/// How often while that fails.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What kubeadm keeps.
const KUBEADM: (&str, &str, &str) = ("kube-system", "kubeadm-config", "ClusterConfiguration");

#[derive(Debug, Default, Deserialize)]
struct ClusterConfiguration {
    #[serde(default)]
    networking: Networking,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Networking {
    pod_subnet: Option<String>,
    service_subnet: Option<String>,
}

/// Tells of them, and of changes, for as long as somebody listens.
pub(crate) async fn look(
    client: Client,
    to: mpsc::Sender<Heard>,
    mut ending: watch::Receiver<bool>,
) {
    let mut told = None;
    loop {
        let wait = match find(&client).await {
            Ok(found) => {
                if told.as_ref() != Some(&found) {
                    tracing::info!(?found, "ranges of the cluster besides those of its Nodes");
                    if to.send(Heard::Ranges(found.clone())).await.is_err() {
                        return;
                    }
                    told = Some(found);
                }
                AGAIN
            }
            Err(error) => {
                let error = crate::reason::chain(&error);
                tracing::debug!(error, "look for ranges of the cluster");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}

async fn find(client: &Client) -> kube::Result<BTreeSet<AddressBlock>> {
    let mut found = BTreeSet::new();
    let (namespace, name, key) = KUBEADM;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = if_there(maps.get_opt(name).await)?.flatten();
    if let Some(text) = map.and_then(|map| map.data?.remove(key)) {
        found.extend(of_kubeadm(&text));
    }
    let ranges: Api<ServiceCIDR> = Api::all(client.clone());
    let list = if_there(ranges.list(&ListParams::default()).await)?;
    let specs = list.into_iter().flatten().filter_map(|range| range.spec);
    let texts = specs.flat_map(|spec| spec.cidrs.unwrap_or_default());
    found.extend(texts.filter_map(|text| block(&text)));
    Ok(found)
}

/// What is not there, or may not be seen, is no failure.
fn if_there<T>(got: kube::Result<T>) -> kube::Result<Option<T>> {
    match got {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn of_kubeadm(text: &str) -> BTreeSet<AddressBlock> {
    let read: ClusterConfiguration = match serde_saphyr::from_str(text) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "what kubeadm wrote down is not understood");
            return BTreeSet::new();
        }
    };
    let Networking { pod_subnet, service_subnet } = read.networking;
    let texts = [pod_subnet, service_subnet].into_iter().flatten();
    let lists: Vec<String> = texts.collect();
    lists.iter().flat_map(|list| list.split(',')).filter_map(block).collect()
}

fn block(text: &str) -> Option<AddressBlock> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeadm_tells_of_pods_and_services_of_both_families() {
        let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n\
                    apiServer:\n  extraArgs: {a: b}\n\
                    networking:\n  dnsDomain: cluster.local\n  \
                    podSubnet: 10.244.0.0/16,fd00:1::/56\n  serviceSubnet: 10.96.0.0/12\n";
        let expected = ["10.244.0.0/16", "fd00:1::/56", "10.96.0.0/12"];
        let expected: BTreeSet<AddressBlock> =
            expected.iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(of_kubeadm(text), expected);
        assert_eq!(of_kubeadm("kind: ClusterConfiguration\n"), BTreeSet::new());
        assert_eq!(of_kubeadm("]["), BTreeSet::new());
    }
}
