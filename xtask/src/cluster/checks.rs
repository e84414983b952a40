//! What is shown on a real Kubernetes.

pub(super) mod enforce;
pub(super) mod faults;
pub(super) mod first;
pub(super) mod identity;
pub(super) mod last;
pub(super) mod operator;
