//! Names and their numbers: one number for a name, for ever, and never for another name. Who is
//! who is a matter of names; numbers matter in the kernel's tables only.

use bulkhead_core::{VirtualClusterName, VirtualClusterNumber};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::ledger::Refusal;

/// Highest number that is taken over from an agent: one near the end would leave none for names
/// that come later.
const HIGHEST_ADOPTED: u32 = u32::MAX / 2;

/// Why a name has no number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// All numbers are given.
    #[error("virtual cluster \"{name}\" gets no number: all 4,294,967,295 were given")]
    Exhausted {
        /// The name.
        name: VirtualClusterName,
    },
}

/// The number of a name; a new name gets the next number that was never given.
pub(crate) fn number(
    transaction: &Transaction<'_>,
    name: &VirtualClusterName,
) -> Result<VirtualClusterNumber, Refusal> {
    if let Some(number) = known(transaction, name)? {
        return Ok(number);
    }
    let exhausted = || IdentityError::Exhausted { name: name.clone() };
    let given: i64 = transaction
        .prepare_cached("INSERT INTO identity (name) VALUES (?1) RETURNING number")?
        .query_row([name.as_str()], |row| row.get(0))?;
    let number = u32::try_from(given).ok().and_then(VirtualClusterNumber::new);
    Ok(number.ok_or_else(exhausted)?)
}

/// Our number of a name that an agent knows by the number `theirs`. A name that we do not know
/// keeps theirs where that is free: the agent may have outlived our data directory.
pub(crate) fn adopt(
    transaction: &Transaction<'_>,
    name: &VirtualClusterName,
    theirs: VirtualClusterNumber,
) -> Result<VirtualClusterNumber, Refusal> {
    if let Some(ours) = known(transaction, name)? {
        return Ok(ours);
    }
    if theirs.get() > HIGHEST_ADOPTED {
        return number(transaction, name);
    }
    let adopted = transaction
        .prepare_cached(
            "INSERT INTO identity (number, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![theirs.get(), name.as_str()])?;
    if adopted == 0 { number(transaction, name) } else { Ok(theirs) }
}

fn known(
    transaction: &Transaction<'_>,
    name: &VirtualClusterName,
) -> rusqlite::Result<Option<VirtualClusterNumber>> {
    let number: Option<u32> = transaction
        .prepare_cached("SELECT number FROM identity WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    Ok(number.and_then(VirtualClusterNumber::new))
}
