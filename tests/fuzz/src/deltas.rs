//! A stream of snapshots and changes from a controller that may be broken.

use std::sync::Arc;

use bulkhead_agent::report::{Assembler, Disorder, Progress};
use bulkhead_core::{Delta, Snapshot};
use bulkhead_proto::v1::sync_response::Message as Said;
use bulkhead_proto::v1::{SnapshotDelta, SyncResponse};
use prost::Message;

use crate::snapshots::is_kept;
use crate::values;

/// The input is responses, each with its length before it. What is held changes to exactly what
/// was said, or not at all.
pub fn any_stream(data: &[u8]) {
    let mut rest = data;
    let mut assembler = Assembler::default();
    while !rest.is_empty() {
        let Ok(response) = SyncResponse::decode_length_delimited(&mut rest) else { return };
        let before = assembler.held().cloned();
        let (progress, delta) = match response.message {
            Some(Said::Snapshot(chunk)) => (assembler.push(chunk), None),
            Some(Said::Delta(delta)) => (assembler.change(&delta), Some(delta)),
            _ => continue,
        };
        let held = assembler.held().cloned();
        match progress {
            Ok(Progress::Incomplete) => {
                assert!(delta.is_none());
                assert_eq!(held, before);
            }
            Ok(Progress::Complete(taken)) => {
                assert_eq!(held.as_ref(), Some(&taken));
                if let Some(delta) = delta {
                    leads_to(&delta, before.as_ref().expect("it was a change"), &taken);
                }
                values::can_be_told(&taken);
                is_kept(&taken);
                // The next stream goes on from there.
                assembler = Assembler::resuming(taken);
            }
            Ok(Progress::Refused(..)) => assert_eq!(held, before),
            Err(disorder) => {
                assert!(!disorder.to_string().is_empty());
                assert!(delta.is_some() || !matches!(disorder, Disorder::Misfit { .. }));
                assert_eq!(held, before);
                // The session ends here.
                return;
            }
        }
    }
}

fn leads_to(message: &SnapshotDelta, before: &Arc<Snapshot>, taken: &Arc<Snapshot>) {
    let said = Delta::try_from(message).expect("it was taken");
    assert_eq!((said.base, said.generation), (before.generation, taken.generation));
    assert!(taken.generation > before.generation);
    assert_eq!(before.changed_by(&said).as_ref(), Ok(&**taken));
    // What is said in the fewest words leads there, too, over the wire.
    let least = Delta::between(before, taken);
    let bytes = SnapshotDelta::from(&least).encode_to_vec();
    let message = SnapshotDelta::decode(&*bytes).expect("it was encoded");
    let back = Delta::try_from(&message).expect("it was a delta");
    assert_eq!(before.changed_by(&back).as_ref(), Ok(&**taken));
}
