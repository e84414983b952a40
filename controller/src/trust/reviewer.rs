//! Who is asked whose a token is, and what its bearer may do.

use std::collections::BTreeMap;
use std::fmt;

/// A bearer, as the API server knows them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct User {
    /// Its name (`system:serviceaccount:NAMESPACE:NAME` for a service account).
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// What else is known of it.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The only value of an extra, which is not empty.
    pub fn only(&self, key: &str) -> Option<&str> {
        match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}

/// What a bearer wants to know. All of it is of the group `bulkhead.dev`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// The state and usage of every virtual cluster: `get virtualclusters/usage`.
    EveryVirtualCluster,
    /// Of one: `get virtualclusters/usage NAME`.
    VirtualCluster(String),
    /// Every node: `list nodes`.
    EveryNode,
    /// One: `get nodes NAME`.
    Node(String),
}

impl Access {
    /// The verb of the review.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::EveryNode => "list",
            Self::EveryVirtualCluster | Self::VirtualCluster(_) | Self::Node(_) => "get",
        }
    }

    /// Its resource.
    pub const fn resource(&self) -> &'static str {
        match self {
            Self::EveryVirtualCluster | Self::VirtualCluster(_) => "virtualclusters",
            Self::EveryNode | Self::Node(_) => "nodes",
        }
    }

    /// Its subresource.
    pub const fn subresource(&self) -> Option<&'static str> {
        match self {
            Self::EveryVirtualCluster | Self::VirtualCluster(_) => Some("usage"),
            Self::EveryNode | Self::Node(_) => None,
        }
    }

    /// The object; `None`: all.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::VirtualCluster(name) | Self::Node(name) => Some(name),
            Self::EveryVirtualCluster | Self::EveryNode => None,
        }
    }
}

/// As it is written in a rule.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb(), self.resource())?;
        if let Some(subresource) = self.subresource() {
            write!(f, "/{subresource}")?;
        }
        write!(f, " of bulkhead.dev")
    }
}

/// A pod that a token is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another pod of that name is another.
    pub uid: String,
    /// The service account that it must run as.
    pub service_account: String,
}

/// Nobody could be asked. This says nothing about the bearer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{operation}: {problem}")]
pub struct ReviewError {
    /// What was asked.
    pub operation: &'static str,
    /// Why there was no answer.
    pub problem: String,
}

/// Who is asked.
#[tonic::async_trait]
pub trait Reviewer: fmt::Debug + Send + Sync {
    /// Whose a token is, if it is valid and meant for us; `None`: it is not.
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError>;

    /// Whether a bearer may know something.
    async fn may(&self, user: &User, access: &Access) -> Result<bool, ReviewError>;

    /// The node on which a pod runs; `None`: there is no such pod, or it has no node.
    async fn node_of_pod(&self, pod: &PodName) -> Result<Option<String>, ReviewError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_read_like_rules() {
        let one = Access::VirtualCluster("team-a".to_owned());
        assert_eq!(one.to_string(), "get virtualclusters/usage of bulkhead.dev");
        assert_eq!((one.name(), Access::EveryVirtualCluster.name()), (Some("team-a"), None));
        assert_eq!(Access::EveryNode.to_string(), "list nodes of bulkhead.dev");
    }

    #[test]
    fn an_extra_counts_only_alone() {
        let extra = |values: &[&str]| User {
            extra: [("key".to_owned(), values.iter().map(|it| (*it).to_owned()).collect())].into(),
            ..User::default()
        };
        assert_eq!(extra(&["a"]).only("key"), Some("a"));
        for values in [&[][..], &[""], &["a", "b"]] {
            assert_eq!(extra(values).only("key"), None);
        }
        assert_eq!(extra(&["a"]).only("other"), None);
    }
}
