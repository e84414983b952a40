//! What operators ask.

pub(crate) mod nodes;
pub(crate) mod usage;
pub(crate) mod virtual_clusters;

use crate::page::{self, ListPosition};
use crate::reason;

/// Entries on a page of a list where the question does not say, and at most.
const PAGE: u32 = 500;

/// What every list is: names in order, a page at a time. `list`: which one.
struct ListPage {
    list: u64,
    after: String,
    size: usize,
}

impl ListPage {
    fn parse(list: &str, size: u32, token: &str) -> Result<Self, tonic::Status> {
        let list = page::checksum(0, list.as_bytes());
        let after = match token {
            "" => String::new(),
            token => {
                let position: ListPosition =
                    page::decode(list, token).map_err(|_| reason::no_token())?;
                position.after
            }
        };
        let size = if size == 0 { PAGE } else { size.min(PAGE) };
        Ok(Self { list, after, size: usize::try_from(size).unwrap_or(usize::MAX) })
    }

    /// Cuts a page out of one entry more than it holds, and says how the next is asked for.
    fn cut<T>(&self, mut entries: Vec<T>, name: impl Fn(&T) -> &str) -> (Vec<T>, String) {
        if entries.len() <= self.size {
            return (entries, String::new());
        }
        entries.truncate(self.size);
        let after = entries.last().map(|last| name(last).to_owned()).unwrap_or_default();
        let token = page::encode(self.list, &ListPosition { after });
        (entries, token)
    }
}
