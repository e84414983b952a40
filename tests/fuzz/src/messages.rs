//! Messages of another program, which may be of another version or broken.

use bulkhead_core::{Bindings, Delta, UsageRecord, VirtualCluster};
use bulkhead_proto::{time, v1};
use prost::Message;

use crate::values;

/// The first byte chooses a message, the rest is its bytes.
pub fn any_bytes(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 13 {
        0 => {
            let Some(message) = decoded::<v1::AgentVirtualCluster>(bytes) else { return };
            virtual_cluster(&message);
        }
        1 => {
            let Some(message) = decoded::<v1::UsageRecord>(bytes) else { return };
            usage_record(&message);
        }
        2 => drop(decoded::<v1::SyncRequest>(bytes)),
        3 => drop(decoded::<v1::SyncResponse>(bytes)),
        4 => drop(decoded::<v1::QueryUsageResponse>(bytes)),
        5 => drop(decoded::<v1::ListVirtualClustersResponse>(bytes)),
        6 => drop(decoded::<v1::ListNodesResponse>(bytes)),
        7 => drop(decoded::<v1::GetStatusResponse>(bytes)),
        8 => {
            let Some(message) = decoded::<v1::QueryUsageRequest>(bytes) else { return };
            for timestamp in message.start.iter().chain(&message.end) {
                moment(timestamp);
            }
        }
        10 => {
            let Some(message) = decoded::<v1::LocalPods>(bytes) else { return };
            local_pods(&message);
        }
        11 => {
            let Some(message) = decoded::<v1::SnapshotDelta>(bytes) else { return };
            delta(&message);
        }
        12 => {
            let Some(message) = decoded::<v1::SnapshotChunk>(bytes) else { return };
            bindings(&message);
        }
        _ => {
            let Some(batch) = decoded::<v1::UsageBatch>(bytes) else { return };
            batch.records.iter().for_each(usage_record);
        }
    }
}

/// What was decoded is encoded to what decodes to the same.
pub(crate) fn decoded<M: Message + Default + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len());
    assert_eq!(M::decode(&*encoded).as_ref(), Ok(&message));
    Some(message)
}

/// What has a meaning has the same one after another journey.
fn virtual_cluster(message: &v1::AgentVirtualCluster) {
    match VirtualCluster::try_from(message) {
        Ok(cluster) => values::survives_the_wire(&cluster),
        Err(error) => {
            assert_eq!(error.object, message.name);
            assert!(!error.field.is_empty() && !error.problem.is_empty(), "{error}");
        }
    }
}

/// What is taken is told the same again.
fn local_pods(message: &v1::LocalPods) {
    match bulkhead_proto::bindings::local_pods(&message.pods) {
        Ok(pods) => {
            let again: Vec<_> = pods
                .iter()
                .map(|(uid, pod)| bulkhead_proto::bindings::local_pod(uid, pod))
                .collect();
            assert_eq!(bulkhead_proto::bindings::local_pods(&again), Ok(pods));
        }
        Err(error) => assert!(!error.field.is_empty() && !error.problem.is_empty(), "{error}"),
    }
}

fn delta(message: &v1::SnapshotDelta) {
    match Delta::try_from(message) {
        Ok(delta) => {
            let again = v1::SnapshotDelta::from(&delta);
            assert_eq!(Delta::try_from(&again).as_ref(), Ok(&delta));
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

fn bindings(message: &v1::SnapshotChunk) {
    let mut table = Bindings::default();
    if bulkhead_proto::bindings::add_bindings(&mut table, &message.bindings).is_err() {
        return;
    }
    let again = table.0.iter();
    let again: Vec<_> = again
        .flat_map(|(name, bound)| bulkhead_proto::bindings::namespace_bindings(name, bound))
        .collect();
    let mut back = Bindings::default();
    assert_eq!(bulkhead_proto::bindings::add_bindings(&mut back, &again), Ok(()));
    assert_eq!(back, table);
    for binding in table.0.values().flatten() {
        let _ = binding.selector.selects(&bulkhead_core::Labels::new());
    }
}

/// The ledger is told the same by a record and by that record said again.
fn usage_record(message: &v1::UsageRecord) {
    let Ok(record) = UsageRecord::try_from(message) else { return };
    assert_eq!(UsageRecord::try_from(&v1::UsageRecord::from(&record)).as_ref(), Ok(&record));
    for (meter, value) in &record.values {
        let same = |said: &&v1::MeterValue| said.meter == meter.code();
        let highest = message.values.iter().filter(same).map(|said| said.value).max();
        assert_eq!(highest, Some(*value), "a value that nobody said");
    }
    assert_eq!(record.window.start.0 % record.window.length_nanoseconds, 0);
}

fn moment(timestamp: &prost_types::Timestamp) {
    if let Some(moment) = time::unix_nanoseconds(timestamp) {
        assert_eq!(time::timestamp(moment), *timestamp);
    }
}
