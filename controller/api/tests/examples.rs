//! The examples that users start from.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bulkhead_api::{Document, Object, Objects, Standing};
use kube::ResourceExt;

fn examples() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let entries =
        fs::read_dir(&dir).unwrap_or_else(|error| panic!("list {}: {error}", dir.display()));
    let mut files: Vec<(String, String)> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            (name, fs::read_to_string(&path).expect("it can be read"))
        })
        .collect();
    files.sort();
    files
}

fn add(objects: &mut Objects, document: &Document) {
    let earlier = match &document.object {
        Object::VirtualCluster(it) => {
            objects.virtual_clusters.insert(it.name_any(), (**it).clone()).is_some()
        }
        Object::VirtualClusterClass(it) => {
            objects.classes.insert(it.name_any(), it.clone()).is_some()
        }
        Object::BulkheadConfig(it) => objects.configs.insert(it.name_any(), it.clone()).is_some(),
    };
    assert!(!earlier, "{} is there twice", document.title());
}

/// All of them together are valid, as Kubernetes would hold them.
#[test]
fn every_example_is_valid() {
    let mut objects = Objects::default();
    for (name, text) in examples() {
        let documents = Document::parse_all(&name, &text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(!documents.is_empty(), "{name} has no object");
        for document in &documents {
            add(&mut objects, document);
        }
    }
    let standing = Standing::of(&objects, &Objects::default());
    assert_eq!(standing.problems, [].into());
    assert_eq!(standing.catalogue.virtual_clusters.len(), objects.virtual_clusters.len());
    let warnings: Vec<String> =
        standing.catalogue.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, [""; 0]);
}

/// Every example and every field of the API is on the page, and every preset has an example.
#[test]
fn the_page_of_the_api_has_every_field_and_every_example() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = fs::read_to_string(page).expect("docs/api.md");
    for crd in bulkhead_api::crd::definitions() {
        let schema = crd.spec.versions[0].schema.as_ref().expect("a schema");
        let schema = serde_json::to_value(schema.open_api_v3_schema.as_ref()).expect("JSON");
        let mut names = BTreeSet::new();
        fields(&schema["properties"]["spec"], &mut names);
        fields(&schema["properties"]["status"], &mut names);
        for name in names {
            assert!(
                is_named(&page, &name),
                "{name} of {} is not in docs/api.md",
                crd.spec.names.kind
            );
        }
    }
    let examples = examples();
    for (name, _) in &examples {
        assert!(page.contains(name), "{name} is not in docs/api.md");
    }
    for kind in ["VCluster", "K3k", "ClusterApiNested", "Capsule", "HNC"] {
        let shown = format!("kind: {kind}\n");
        assert!(examples.iter().any(|(_, text)| text.contains(&shown)), "no example of {kind}");
    }
}

/// Whether a name is a step of a path in code: `members.preset` names both.
fn is_named(page: &str, name: &str) -> bool {
    let steps = ['`', '.'];
    steps.iter().any(|begin| steps.iter().any(|end| page.contains(&format!("{begin}{name}{end}"))))
}

fn fields(schema: &serde_json::Value, into: &mut BTreeSet<String>) {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    for (name, below) in properties.into_iter().flatten() {
        into.insert(name.clone());
        fields(below, into);
    }
    if let Some(items) = schema.get("items") {
        fields(items, into);
    }
}
