//! The objects that users write, and their conversion into validated core values.
//!
//! Three kinds of the group [`GROUP`], all cluster-scoped: [`VirtualCluster`],
//! [`VirtualClusterClass`] and [`BulkheadConfig`]. They are the same whether Kubernetes holds
//! them or files do ([`document`]). [`Catalogue::build`] takes all of them together and gives
//! either everything, validated, or every [`Problem`] with its object, field and place.
//! [`Standing::of`] does the same for objects of Kubernetes, where one that is wrong stops no
//! other. [`membership`] decides which pods belong to whom, [`conditions`] what status says, and
//! [`discover`] proposes objects for what other projects run: pure functions, all of them.

pub mod catalogue;
pub mod conditions;
mod conflicts;
pub mod convert;
pub mod crd;
pub mod discover;
pub mod document;
pub mod membership;
pub mod object;
pub mod problem;
pub mod quantity;
mod rules;
mod tree;
mod validate;

pub use catalogue::{Catalogue, Definition, Objects, Standing};
pub use document::{Document, Object};
pub use object::{BulkheadConfig, VirtualCluster, VirtualClusterClass};
pub use problem::{Place, Problem, Problems};

/// The API group of every kind. The derive macro wants a literal in each `#[kube(group)]`; a
/// test holds them to this.
pub const GROUP: &str = "bulkhead.dev";

/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
