//! The one narrow seam at the kernel: what the cycle needs of it, and nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bulkhead_core::{Degradation, NodeFacts, Observed, Pod, PodCgroup, Sample, Step};

use crate::clock::Now;

/// What the kernel, or a step on it, said no with.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {message}")]
pub struct KernelError {
    /// What it is about: a control file, a table, a program, the node.
    pub subject: String,
    /// What failed, on which object, and what would mend it.
    pub message: String,
    /// Whether only another start of the agent can mend it.
    pub needs_restart: bool,
}

impl KernelError {
    /// From an error, with everything that its sources say.
    pub fn new(subject: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message.push_str(": ");
            message.push_str(&error.to_string());
            source = error.source();
        }
        Self { subject: subject.into(), message, needs_restart: false }
    }
}

impl From<KernelError> for Degradation {
    fn from(error: KernelError) -> Self {
        Self { subject: error.subject, message: error.message }
    }
}

/// A kernel that virtual clusters live on.
pub trait Kernel {
    /// What the node is now; `devices` are the block devices that objects name.
    fn node(&mut self, devices: &BTreeSet<PathBuf>) -> Result<NodeFacts, KernelError>;

    /// What stands: read, never remembered.
    fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Does one step and reads it back. After an error the step is done, not done, or half done,
    /// and the next observation tells.
    fn apply(&mut self, step: &Step) -> Result<(), KernelError>;

    /// A pod's cgroup as it is now; `None`: it is not there, or virtual clusters have their own.
    fn pod(&mut self, pod: &Pod) -> Result<Option<PodCgroup>, KernelError> {
        let _ = pod;
        Ok(None)
    }

    /// What was counted.
    fn sample(&mut self, now: Now) -> Result<Sample, KernelError>;
}
