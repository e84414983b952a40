//! The tenancy controller: streams to each node what it must know, keeps the ledger of what
//! virtual clusters used, and answers operators.
//!
//! Objects come in from files ([`sources`]), become a [`state`] that agents are sent ([`sync`]);
//! agents send usage into the [`ledger`] and how they stand into [`status`]; operators ask
//! [`services`]. [`serve`] is all of it.

pub mod args;
mod controller;
mod family;
pub mod faults;
mod identities;
mod kube;
mod ledger;
mod outside;
mod page;
mod parts;
mod query;
mod reason;
mod services;
mod sources;
mod state;
mod status;
mod sync;
pub mod trust;

pub use controller::{Config, Controller, ServeError, Source, TrustConfig, serve};
pub use kube::{ConnectError, KubernetesConfig};
pub use ledger::{Batch, Ledger, LedgerError, Merged, StreamKey};
pub use outside::{Blocking, Outside, World};
pub use parts::Parts;
pub use reason::DOMAIN;
pub use state::cluster::{ClusterChange, Owner, Pod, Service};
