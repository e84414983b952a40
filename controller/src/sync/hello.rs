//! The first message of an agent, checked.

use std::net::IpAddr;

use bulkhead_proto::v1;
use tonic::{Code, Status};

use crate::ledger::StreamKey;
use crate::reason::refused;

/// Longest name of a node (RFC 1123), and of anything else that an agent gives a name.
const MAX_NAME: usize = 253;
/// Most addresses of one node.
const MAX_ADDRESSES: usize = 4_096;

/// An agent that said who it is.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Introduced {
    pub(super) stream: StreamKey,
    pub(super) facts: v1::NodeFacts,
    pub(super) started: u64,
    pub(super) takes_deltas: bool,
    /// The generation that it holds, and by which it is counted.
    pub(super) held: (u64, u64),
}

/// Checks a Hello.
pub(super) fn introduced(hello: v1::Hello) -> Result<Introduced, Status> {
    let facts = hello.facts.unwrap_or_default();
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !is(&hello.node, name) || !hello.node.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let mend = "is no name of a node; use letters, digits, '-', '.' and '_', at most 253";
        return Err(wrong("node", &hello.node, mend));
    }
    let id = |c: char| c.is_ascii_graphic();
    if !is(&hello.journal_id, id) {
        return Err(wrong("journal_id", &hello.journal_id, "is empty, too long or not printable"));
    }
    if !is(&facts.boot_id, id) {
        return Err(wrong("facts.boot_id", &facts.boot_id, "is empty, too long or not printable"));
    }
    if facts.addresses.len() > MAX_ADDRESSES {
        let count = facts.addresses.len().to_string();
        return Err(wrong("facts.addresses", &count, "are more than 4096 addresses"));
    }
    if let Some(text) = facts.addresses.iter().find(|text| text.parse::<IpAddr>().is_err()) {
        return Err(wrong("facts.addresses", text, "is no IP address"));
    }
    let stream =
        StreamKey { node: hello.node, journal: hello.journal_id, boot: facts.boot_id.clone() };
    Ok(Introduced {
        stream,
        facts,
        started: hello.started_unix_nanoseconds,
        takes_deltas: hello.takes_deltas,
        held: (hello.held_instance, hello.held_generation),
    })
}

fn is(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(allowed)
}

fn wrong(field: &str, value: &str, problem: &str) -> Status {
    let value: String = value.chars().take(MAX_NAME).collect();
    let message = format!("hello: {field}: \"{value}\" {problem}");
    refused(Code::InvalidArgument, "HELLO_INVALID", message, [("field", field)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> v1::Hello {
        v1::Hello {
            node: "node-1.example".to_owned(),
            facts: Some(v1::NodeFacts {
                boot_id: "boot".to_owned(),
                addresses: vec!["10.0.0.1".to_owned(), "fe80::1".to_owned()],
                ..Default::default()
            }),
            journal_id: "journal".to_owned(),
            started_unix_nanoseconds: 5,
            ..v1::Hello::default()
        }
    }

    #[test]
    fn who_is_who_is_told() {
        let introduced = introduced(hello()).unwrap();
        assert_eq!(introduced.stream.node, "node-1.example");
        assert_eq!(introduced.stream.boot, "boot");
        assert_eq!(introduced.started, 5);
    }

    #[test]
    fn garbage_is_refused_by_field() {
        type Break = fn(&mut v1::Hello);
        let cases: [(&str, Break); 7] = [
            ("node", |hello| hello.node.clear()),
            ("node", |hello| hello.node = "../etc".to_owned()),
            ("node", |hello| hello.node = "x".repeat(254)),
            ("journal_id", |hello| hello.journal_id = "a b".to_owned()),
            ("facts.boot_id", |hello| hello.facts = None),
            ("facts.addresses", |hello| {
                hello.facts.as_mut().unwrap().addresses = vec!["10.0.0".to_owned()];
            }),
            ("facts.addresses", |hello| {
                hello.facts.as_mut().unwrap().addresses = vec!["10.0.0.1".to_owned(); 4_097];
            }),
        ];
        for (field, break_it) in cases {
            let mut broken = hello();
            break_it(&mut broken);
            let status = introduced(broken).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(field), "{status:?}");
        }
    }
}
