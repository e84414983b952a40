//! The brain of the node agent: pure decisions, no I/O.
//!
//! Facts go into an [`Index`]; [`compile`] makes of it what this node should look like
//! ([`Desired`]); [`plan`] compares that with what the kernel says ([`Observed`]) and gives the
//! [`Step`]s in between. After sampling, [`account`](usage::account) turns what the kernel
//! counted into the records that the ledger keeps, and [`judge`] says what an operator must
//! know. Nothing here knows of files, sockets, clocks or threads.

pub mod address;
pub mod amount;
pub mod binding;
pub mod compile;
pub mod control;
pub mod delta;
pub mod desired;
pub mod facts;
pub mod inventory;
pub mod judge;
pub mod meter;
pub mod model;
pub mod name;
pub mod node_port;
pub mod observed;
pub mod plan;
pub mod pod;
pub mod sample;
pub mod step;
pub mod tenant;
pub mod usage;

pub use address::AddressBlock;
pub use amount::{Amount, BasisPoints, Bytes, NanoCores};
pub use binding::{Binding, Bindings, Labels, NodePolicy, OnStale, Requirement, Selector, Unknown};
pub use compile::{CompileError, compile};
pub use control::{Control, ControlValue, Controller};
pub use delta::{Delta, DeltaError, SetChange};
pub use desired::{Degradation, Desired, DesiredCgroup, DesiredNetwork, Overlay};
pub use facts::{Fact, FactError, Index, Snapshot};
pub use inventory::{Claim, Inventory, NamedPod, Pod, PodFact, PodPath, PodUid, Rank};
pub use judge::{Attempt, Failure, State, judge};
pub use meter::Meter;
pub use name::{CgroupId, VirtualClusterName, VirtualClusterNumber};
pub use node_port::{NodePort, Protocol};
pub use observed::{
    Capacities, NodeFacts, Observed, ObservedCgroup, ObservedNetwork, Placement, Support,
};
pub use plan::{Plan, PlanError, plan};
pub use pod::{LocalPod, LocalPods};
pub use sample::{CgroupCounters, PodSample, Sample, UnixNanos, VirtualClusterSample};
pub use step::{PodCgroup, Step};
pub use tenant::{Guarantee, IoLimit, Limit, NetworkMode, NetworkPolicy, VirtualCluster};
pub use usage::{
    Accounting, Baseline, Baselines, Books, Epoch, Integral, Integrals, PodAccounting, PodOwner,
    UsageRecord, Window, account, account_pods,
};
