//! Names and their numbers: one number for a name, for ever, and never for another name.

use bulkhead_core::{VirtualClusterName, VirtualClusterNumber};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::ledger::Refusal;

/// Why a name has no number, or not that one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// An agent knows the name by another number.
    #[error(
        "virtual cluster \"{name}\" has number {ours} here and {theirs} at the agent; the \
         controller's data directory is not the one that numbered it: restore it, or remove the \
         agent's journal"
    )]
    OtherNumber {
        /// The name.
        name: VirtualClusterName,
        /// Its number here.
        ours: VirtualClusterNumber,
        /// Its number at the agent.
        theirs: VirtualClusterNumber,
    },
    /// An agent knows another name by the number.
    #[error(
        "number {number} is virtual cluster \"{ours}\" here and \"{theirs}\" at the agent; the \
         controller's data directory is not the one that numbered it: restore it, or remove the \
         agent's journal"
    )]
    OtherName {
        /// The number.
        number: VirtualClusterNumber,
        /// Its name here.
        ours: String,
        /// Its name at the agent.
        theirs: VirtualClusterName,
    },
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

/// The number that an agent knows a name by, checked against ours. What neither side has
/// otherwise is taken over: the agent may have outlived our data directory.
pub(crate) fn adopt(
    transaction: &Transaction<'_>,
    name: &VirtualClusterName,
    theirs: VirtualClusterNumber,
) -> Result<VirtualClusterNumber, Refusal> {
    match known(transaction, name)? {
        Some(ours) if ours == theirs => return Ok(ours),
        Some(ours) => {
            return Err(IdentityError::OtherNumber { name: name.clone(), ours, theirs }.into());
        }
        None => {}
    }
    let holder: Option<String> = transaction
        .prepare_cached("SELECT name FROM identity WHERE number = ?1")?
        .query_row([theirs.get()], |row| row.get(0))
        .optional()?;
    if let Some(ours) = holder {
        return Err(IdentityError::OtherName { number: theirs, ours, theirs: name.clone() }.into());
    }
    transaction
        .prepare_cached("INSERT INTO identity (number, name) VALUES (?1, ?2)")?
        .execute(params![theirs.get(), name.as_str()])?;
    Ok(theirs)
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
