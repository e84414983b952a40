//! Objects as users write them.

use bulkhead_api::{Catalogue, Document, Object, Place, Problems};
use bulkhead_core::{Snapshot, VirtualClusterNumber};

use crate::values;

const FILE: &str = "team.yaml";
/// A document that nothing makes right.
const WRONG: &str = "\n---\napiVersion: bulkhead.dev/v1alpha1\nkind: Nothing\n";

/// A text is taken whole or refused whole, each problem with a place that is in the text. What
/// is taken, written again, means the same; and nodes can be told what it means.
pub fn any_text(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let documents = match Document::parse_all(FILE, text) {
        Ok(documents) => documents,
        Err(problems) => return told(&problems, text),
    };
    assert!(Document::parse_all(FILE, &format!("{text}{WRONG}")).is_err(), "half of it was taken");
    let catalogue = match Catalogue::build(&documents) {
        Ok(catalogue) => catalogue,
        Err(problems) => return told(&problems, text),
    };
    if !text.chars().any(is_unprintable) {
        let again: Vec<Document> = documents.iter().map(rewritten).collect();
        let again = Catalogue::build(&again).expect("it was right before");
        assert_eq!(again.virtual_clusters, catalogue.virtual_clusters);
        assert_eq!((again.shared, again.cluster_ranges), parts(&catalogue));
    }
    let mut snapshot = Snapshot { generation: 1, ..Snapshot::default() };
    (snapshot.shared, snapshot.cluster_ranges) = parts(&catalogue);
    for (number, definition) in (1..).zip(catalogue.virtual_clusters.values()) {
        let number = VirtualClusterNumber::new(number).expect("it is not 0");
        let cluster = definition.numbered(number);
        values::survives_the_wire(&cluster);
        snapshot.virtual_clusters.insert(cluster.name.clone(), cluster);
    }
    values::can_be_told(&snapshot);
}

type Blocks = std::collections::BTreeSet<bulkhead_core::AddressBlock>;

fn parts(catalogue: &Catalogue) -> (Blocks, Blocks) {
    (catalogue.shared.clone(), catalogue.cluster_ranges.clone())
}

/// Something is said, of this file, of a line that it has.
fn told(problems: &Problems, text: &str) {
    assert!(!problems.0.is_empty(), "refused for nothing");
    let lines = u64::try_from(text.split(['\n', '\r']).count()).expect("few");
    for problem in &problems.0 {
        let Some(Place { file, line, .. }) = &problem.place else {
            panic!("{problem} has no place")
        };
        assert_eq!(file, FILE);
        assert!(*line <= lines + 1, "line {line} of {lines}");
        assert!(!problem.message.is_empty());
    }
}

/// The same object as JSON, which is YAML.
fn rewritten(document: &Document) -> Document {
    let text = match &document.object {
        Object::VirtualCluster(it) => serde_json::to_string(it),
        Object::VirtualClusterClass(it) => serde_json::to_string(it),
        Object::BulkheadConfig(it) => serde_json::to_string(it),
    };
    let text = text.expect("an object can be written");
    let mut again = Document::parse_all(FILE, &text).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(again.len(), 1);
    let again = again.remove(0);
    assert_eq!(again.object, document.object, "{text}");
    again
}

/// YAML wants these escaped, and JSON does not escape them.
fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\\')
}
