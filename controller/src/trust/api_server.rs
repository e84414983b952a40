//! Asking the API server: `TokenReview`, `SubjectAccessReview`, and the pod of a token.

use ::kube::api::{Api, PostParams};
use ::kube::{Client, Error};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;

use super::reviewer::{Access, PodName, ReviewError, Reviewer, User};

/// The API server. Needs `create` on `tokenreviews` and `subjectaccessreviews`
/// (`system:auth-delegator`), and `get` on pods of the agents' namespace.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    audience: String,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Asks through `client`; tokens must be meant for `audience`.
    pub fn new(client: Client, audience: String) -> Self {
        Self { client, audience }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(Error) -> ReviewError {
    move |error| ReviewError { operation, problem: crate::reason::chain(&error) }
}

#[tonic::async_trait]
impl Reviewer for ApiServer {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError> {
        let spec = TokenReviewSpec {
            token: token.to_owned(),
            audiences: Some(vec![self.audience.clone()]),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await;
        let status = review.map_err(failed("review a token"))?.status.unwrap_or_default();
        // A server that does not say for whom the token is meant has not looked.
        let meant = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        if status.authenticated != Some(true) || !meant {
            return Ok(None);
        }
        let user = status.user.unwrap_or_default();
        let (Some(name), uid) = (user.username.filter(|name| !name.is_empty()), user.uid) else {
            return Ok(None);
        };
        Ok(Some(User {
            name,
            uid: uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }

    async fn may(&self, user: &User, access: &Access) -> Result<bool, ReviewError> {
        let attributes = ResourceAttributes {
            group: Some(bulkhead_api::GROUP.to_owned()),
            resource: Some(access.resource().to_owned()),
            subresource: access.subresource().map(str::to_owned),
            verb: Some(access.verb().to_owned()),
            name: access.name().map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await;
        let status = review.map_err(failed("review an access"))?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }

    async fn node_of_pod(&self, pod: &PodName) -> Result<Option<String>, ReviewError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let found = pods.get_opt(&pod.name).await.map_err(failed("look up an agent's pod"))?;
        Ok(found.and_then(|found| {
            let spec = found.spec?;
            let same = found.metadata.uid.as_deref() == Some(&*pod.uid)
                && spec.service_account_name.as_deref() == Some(&*pod.service_account);
            spec.node_name.filter(|node| same && !node.is_empty())
        }))
    }
}
