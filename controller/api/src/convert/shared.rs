//! What holds for all virtual clusters.

use std::collections::BTreeSet;

use bulkhead_core::{AddressBlock, NodePolicy, OnStale, Unknown};

use super::{MAX_SHARED_SERVICES, Result, too_many, wrong};
use crate::object::{self, BulkheadConfigSpec};
use crate::validate;

/// Shared services: the addresses and CIDRs, and the Services that are named.
pub fn shared(
    field: &str,
    texts: &[String],
) -> Result<(BTreeSet<AddressBlock>, BTreeSet<ServiceName>)> {
    too_many(field, texts.len(), MAX_SHARED_SERVICES)?;
    let (mut blocks, mut services) = (BTreeSet::new(), BTreeSet::new());
    for (index, text) in texts.iter().enumerate() {
        let parsed: std::result::Result<AddressBlock, _> = text.parse();
        match (parsed, service(text)) {
            (Ok(block), _) => drop(blocks.insert(block)),
            (Err(_), Some(service)) => drop(services.insert(service)),
            (Err(error), None) => {
                let message = format!("{error}; a Service is written namespace/name");
                return wrong(format!("{field}[{index}]"), message);
            }
        }
    }
    Ok((blocks, services))
}

/// A Service of the host cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// `namespace/name`. No address looks like it: names have no dots and no colons.
fn service(text: &str) -> Option<ServiceName> {
    let (namespace, name) = text.split_once('/')?;
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    let service = validate::is_dns_label(namespace) && validate::is_dns_label(name) && letter;
    service.then(|| ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// How a node treats what it does not know.
pub const fn policy(spec: &BulkheadConfigSpec) -> NodePolicy {
    NodePolicy {
        unknown: unknown(spec.unknown),
        on_stale: match spec.on_stale {
            object::OnStale::AllowCounted => OnStale::AllowCounted,
            object::OnStale::Deny => OnStale::Deny,
        },
    }
}

/// As core has it.
pub const fn unknown(unknown: object::Unknown) -> Unknown {
    match unknown {
        object::Unknown::Allow => Unknown::Allow,
        object::Unknown::Deny => Unknown::Deny,
    }
}
