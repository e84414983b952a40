//! The objects that users write, and their conversion into validated core values.
//!
//! Three kinds of the group [`GROUP`], all cluster-scoped: [`VirtualCluster`],
//! [`VirtualClusterClass`] and [`BulkheadConfig`]. They are the same whether Kubernetes holds
//! them or files do ([`document`]). [`Catalogue::build`] takes all of them together and gives
//! either everything, validated, or every [`Problem`] with its object, field and place.

pub mod catalogue;
mod conflicts;
pub mod convert;
pub mod crd;
pub mod document;
pub mod object;
pub mod problem;
pub mod quantity;
mod tree;

pub use catalogue::{Catalogue, Definition};
pub use document::{Document, Object};
pub use object::{BulkheadConfig, VirtualCluster, VirtualClusterClass};
pub use problem::{Place, Problem, Problems};

/// The API group of every kind. The derive macro wants a literal in each `#[kube(group)]`; a
/// test holds them to this.
pub const GROUP: &str = "bulkhead.dev";

/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
