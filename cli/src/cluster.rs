//! The API server's side of the first hour and of the way back: what is asked of it, and nothing
//! that decides.

pub(crate) mod described;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bulkhead_api::{BulkheadConfig, VirtualCluster};
use kube::api::{Api, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::core::{ApiResource, ObjectList};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::Global;
use crate::error::{CliError, Kind};
use crate::kubernetes;

/// How many objects one answer has at most.
const PAGE: u32 = 500;
/// The name of the one `BulkheadConfig`.
pub(crate) const CONFIG: &str = "default";
/// Who changes objects, as their managed fields name it.
const MANAGER: &str = "bulkheadctl";

/// The API server of a cluster.
pub(crate) struct Cluster {
    client: Client,
    timeout: Duration,
}

impl Cluster {
    /// As the kubeconfig says.
    pub(crate) async fn open(global: &Global) -> Result<Self, CliError> {
        let client = global.server.cluster().client().await?;
        Ok(Self { client, timeout: global.timeout })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The answer to one question; nothing, where what was asked for is not there.
    pub(crate) async fn answer<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, CliError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(Error::Api(status))) => {
                let refused = CliError::new(Kind::Server, operation, &status.message);
                Err(match status.code {
                    401 | 403 => refused.mended_by("your kubeconfig's user needs that right"),
                    _ => refused,
                })
            }
            Ok(Err(error)) => Err(kubernetes::failed(operation, &error)),
            Err(_) => {
                let problem = "the API server did not answer in time";
                let mend = "give it longer with --timeout";
                Err(CliError::new(Kind::Away, operation, problem).mended_by(mend))
            }
        }
    }

    /// All objects of a kind, page by page; none where the kind is not there.
    pub(crate) async fn list<K>(&self, kind: &str, api: &Api<K>) -> Result<Vec<K>, CliError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.pages(kind, async |params| api.list(&params).await).await
    }

    /// Their metadata.
    pub(crate) async fn list_metadata<K>(
        &self,
        kind: &str,
        api: &Api<K>,
    ) -> Result<Vec<PartialObjectMeta<K>>, CliError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.pages(kind, async |params| api.list_metadata(&params).await).await
    }

    async fn pages<T: Clone>(
        &self,
        kind: &str,
        page: impl AsyncFn(ListParams) -> Result<ObjectList<T>, Error>,
    ) -> Result<Vec<T>, CliError> {
        let operation = format!("list {kind}");
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        while let Some(list) = self.answer(&operation, page(params.clone())).await? {
            all.extend(list.items);
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => break,
            }
        }
        Ok(all)
    }

    /// `VirtualClusters` as they are written, also where this version does not understand them.
    pub(crate) fn virtual_clusters(&self) -> Api<DynamicObject> {
        Api::all_with(self.client(), &ApiResource::erase::<VirtualCluster>(&()))
    }

    /// The same for `BulkheadConfigs`.
    pub(crate) fn configs(&self) -> Api<DynamicObject> {
        Api::all_with(self.client(), &ApiResource::erase::<BulkheadConfig>(&()))
    }

    /// One virtual cluster.
    pub(crate) async fn virtual_cluster(&self, name: &str) -> Result<DynamicObject, CliError> {
        let operation = format!("get VirtualCluster \"{name}\"");
        let api = self.virtual_clusters();
        let object = self.answer(&operation, api.get(name)).await?;
        object.ok_or_else(|| {
            CliError::new(Kind::NotFound, operation, "it is not there")
                .mended_by("see `kubectl get bvc` for those that are there")
        })
    }

    /// Merges a change into an object, and says how it stands then.
    pub(crate) async fn change(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        change: &Value,
        dry_run: bool,
    ) -> Result<DynamicObject, CliError> {
        let params =
            PatchParams { dry_run, field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        let operation = format!("patch \"{name}\"");
        let patch = Patch::Merge(change);
        let changed = self.answer(&operation, api.patch(name, &params, &patch)).await?;
        changed.ok_or_else(|| CliError::new(Kind::NotFound, operation, "it is not there any more"))
    }
}
