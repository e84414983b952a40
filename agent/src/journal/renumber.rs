//! New numbers for batches whose numbers the controller takes for known.

use bulkhead_proto::v1::{self, UsageBatch};

use super::Sequence;
use super::error::JournalError;
use super::writer::{BATCH_BYTES, Journal};

/// Batches under numbers that the controller takes for known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renumbering {
    /// The last that needs no other number.
    after: Sequence,
    /// The last of them.
    last: Sequence,
}

impl Journal {
    /// The controller knows this journal further than it goes (it was restored from an older
    /// copy): numbers go on behind `sequence`, and what was not acknowledged is appended again
    /// under new ones. After an error the next append goes on with that.
    pub fn continue_after(&mut self, sequence: Sequence) -> Result<(), JournalError> {
        let last = self.last();
        if sequence > last {
            self.can_give(sequence.0.saturating_add(1))?;
            let after = self.reader().acknowledged();
            self.renumbering = Some(Renumbering { after, last });
            self.next = sequence.0 + 1;
            // The base of the new segment keeps the jump.
            self.must_rotate = true;
            self.shared.appended.send_replace(sequence);
        }
        self.renumber()
    }

    /// Goes on with what [`Journal::continue_after`] could not end.
    pub(super) fn renumber(&mut self) -> Result<(), JournalError> {
        let Some(Renumbering { mut after, last }) = self.renumbering.take() else {
            return Ok(());
        };
        let reader = self.reader();
        while after < last {
            let chunk = reader.read_after(after, BATCH_BYTES).inspect_err(|_| {
                self.renumbering = Some(Renumbering { after, last });
            })?;
            let old: Vec<UsageBatch> =
                chunk.batches.into_iter().filter(|batch| batch.sequence <= last.0).collect();
            let Some(end) = old.last().map(|batch| Sequence(batch.sequence)) else {
                break;
            };
            let records = old.into_iter().flat_map(|batch| batch.records).collect();
            self.append_of_boot(chunk.boot, records).inspect_err(|_| {
                self.renumbering = Some(Renumbering { after, last });
            })?;
            after = end;
        }
        self.rotate_if(self.must_rotate)?;
        self.acknowledge(last)
    }

    fn append_of_boot(
        &mut self,
        boot: String,
        records: Vec<v1::UsageRecord>,
    ) -> Result<(), JournalError> {
        let now = std::mem::replace(&mut self.boot, boot);
        let active = self.shared.state().segments.last().map(|last| last.header.boot.clone());
        self.must_rotate |= active.as_ref() != Some(&self.boot);
        let appended = self.append_messages(records, None);
        self.must_rotate |= self.boot != now;
        self.boot = now;
        appended
    }
}
