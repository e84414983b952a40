//! Who asks, and what they may know.
//!
//! A port over TLS asks everybody for a bearer token, and the API server whose it is: a
//! [`Reviewer`]. An agent becomes an [`Attested`] node, whatever its messages say; an operator a
//! [`Viewer`], by whom every answer is filtered. A unix socket and a port on loopback ask nobody:
//! who reaches them is trusted ([`Viewer::Everything`], [`Attested::Here`]).

pub mod api_server;
pub mod authority;
mod cache;
pub mod certificates;
mod guard;
mod judge;
pub(crate) mod port;
mod publish;
mod rate;
mod reviewer;
pub mod store;
mod token;
mod viewer;

pub(crate) use guard::{Guard, Whom};
pub use judge::ServiceAccount;
pub(crate) use judge::{Attested, Judge};
pub use reviewer::{Access, PodName, ReviewError, Reviewer, User};
pub(crate) use viewer::{Sight, Viewer};

/// The audience that tokens must be meant for, unless another is configured.
pub const AUDIENCE: &str = "bulkhead";
