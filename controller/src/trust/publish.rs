//! Telling everybody in the cluster whom to trust: the built-in CA's bundle, in a `ConfigMap`.

use std::path::PathBuf;
use std::time::Duration;

use ::kube::Client;
use ::kube::api::{Api, Patch, PatchParams};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::store::BUNDLE;

/// The `ConfigMap`, in the controller's own namespace.
const NAME: &str = "bulkhead-ca";
/// Who writes it.
const WRITER: &str = "bulkhead-controller-trust";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often what stands is written again all the same: somebody may have changed it.
const AGAIN: u32 = 30;

/// What should be there.
fn wanted(bundle: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": NAME,
            "labels": { "app.kubernetes.io/part-of": "bulkhead" },
        },
        "data": { BUNDLE: bundle },
    })
}

/// Writes the bundle of a directory, and again after each change, as long as it is polled.
pub(super) async fn publish(client: Client, directory: PathBuf) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let apply = PatchParams::apply(WRITER).force();
    let (mut written, mut since) = (String::new(), 0);
    loop {
        match tokio::fs::read_to_string(directory.join(BUNDLE)).await {
            Ok(bundle) if bundle != written || since >= AGAIN => {
                match maps.patch(NAME, &apply, &Patch::Apply(wanted(&bundle))).await {
                    Ok(_) => (written, since) = (bundle, 0),
                    Err(error) => {
                        let problem = crate::reason::chain(&error);
                        tracing::error!("publish the CA in ConfigMap {NAME}: {problem}");
                    }
                }
            }
            Ok(_) => since += 1,
            Err(error) => tracing::error!("read the CA's bundle to publish it: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_find_the_bundle_where_they_look() {
        let wanted = wanted("PEM");
        assert_eq!(wanted["data"]["ca.crt"], "PEM");
        assert_eq!(wanted["metadata"]["name"], "bulkhead-ca");
        let read: ConfigMap = serde_json::from_value(wanted).unwrap();
        assert_eq!(read.data.unwrap().len(), 1, "no key is ever in it");
    }
}
