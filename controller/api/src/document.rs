//! Objects in files: YAML or JSON, any number of documents in one.

use kube::ResourceExt;
use serde::de::DeserializeOwned;

use crate::object::{BulkheadConfig, VirtualCluster, VirtualClusterClass};
use crate::problem::{Place, Problem, Problems};
use crate::tree::Tree;
use crate::{GROUP, VERSION};

/// An object of any kind.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// A virtual cluster.
    VirtualCluster(Box<VirtualCluster>),
    /// Defaults of virtual clusters.
    VirtualClusterClass(VirtualClusterClass),
    /// What holds for the whole installation.
    BulkheadConfig(BulkheadConfig),
}

/// An object, and where each of its fields is written.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// Where it came from: the name of a file, or of what else holds it.
    pub source: String,
    tree: Option<Tree>,
}

/// Fields of metadata that an object may have. What only Kubernetes sets is taken too, so that
/// the output of `kubectl get -o yaml` can be read back.
const METADATA: [&str; 11] = [
    "name",
    "labels",
    "annotations",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "managedFields",
    "ownerReferences",
];

const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

impl Document {
    /// An object that no file holds; `source` says what does.
    pub fn new(object: Object, source: impl Into<String>) -> Self {
        Self { object, source: source.into(), tree: None }
    }

    /// Every object of a text. Empty documents are skipped. All that is wrong is told, not only
    /// the first.
    pub fn parse_all(source: &str, text: &str) -> Result<Vec<Self>, Problems> {
        // YAML 1.2: "Off" is text and only "true" and "false" are booleans.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let trees = serde_saphyr::from_multiple_with_options::<Tree>(text, options)
            .map_err(|error| no_yaml(source, &error))?;
        let mut documents = Vec::new();
        let mut problems = Vec::new();
        for tree in trees {
            match Self::read(source, tree) {
                Ok(document) => documents.push(document),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(documents) } else { Err(Problems(problems)) }
    }

    fn read(source: &str, tree: Tree) -> Result<Self, Problem> {
        let shape = Shape { source, tree: &tree };
        let expected = format!("{GROUP}/{VERSION}");
        if tree.text("apiVersion") != Some(&expected) {
            return Err(shape.wrong("apiVersion", format!("is not {expected}")));
        }
        let object = match tree.text("kind") {
            Some("VirtualCluster") => Object::VirtualCluster(Box::new(shape.typed()?)),
            Some("VirtualClusterClass") => Object::VirtualClusterClass(shape.typed()?),
            Some("BulkheadConfig") => Object::BulkheadConfig(shape.typed()?),
            _ => {
                let kinds = "is not VirtualCluster, VirtualClusterClass or BulkheadConfig";
                return Err(shape.wrong("kind", kinds));
            }
        };
        Ok(Self { object, source: source.to_owned(), tree: Some(tree) })
    }

    /// Kind and name as messages have them.
    pub fn title(&self) -> String {
        match &self.object {
            Object::VirtualCluster(it) => title("VirtualCluster", &it.name_any()),
            Object::VirtualClusterClass(it) => title("VirtualClusterClass", &it.name_any()),
            Object::BulkheadConfig(it) => title("BulkheadConfig", &it.name_any()),
        }
    }

    /// Where a field is written, or else the deepest part of its path.
    pub fn place(&self, field: &str) -> Option<Place> {
        let (line, column) = self.tree.as_ref()?.place(field);
        Some(Place { file: self.source.clone(), line, column })
    }

    /// Something that is wrong with a field (empty: with the whole object).
    pub fn problem(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        let field = field.into();
        Problem { place: self.place(&field), object: self.title(), field, message: message.into() }
    }
}

fn title(kind: &str, name: &str) -> String {
    format!("{kind} \"{name}\"")
}

fn no_yaml(source: &str, error: &serde_saphyr::Error) -> Problem {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    Problem {
        place: Some(Place { file: source.to_owned(), line, column }),
        object: String::new(),
        field: String::new(),
        message: format!("is no YAML: {error}"),
    }
}

/// A document whose kind is not yet believed.
struct Shape<'a> {
    source: &'a str,
    tree: &'a Tree,
}

impl Shape<'_> {
    fn wrong(&self, field: &str, message: impl Into<String>) -> Problem {
        let (line, column) = self.tree.place(field);
        let name = self.tree.get("metadata").and_then(|metadata| metadata.text("name"));
        let object = match (self.tree.text("kind"), name) {
            (Some(kind), Some(name)) => title(kind, name),
            (Some(kind), None) => kind.to_owned(),
            (None, _) => String::new(),
        };
        Problem {
            place: Some(Place { file: self.source.to_owned(), line, column }),
            object,
            field: field.to_owned(),
            message: message.into(),
        }
    }

    /// The object. The derived types skip unknown fields beside and inside of metadata, where a
    /// slip of the pen would be lost; so those are looked at here.
    fn typed<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        self.known("", self.tree, &TOP)?;
        let Some(metadata) = self.tree.get("metadata") else {
            return Err(self.wrong("metadata", "is missing; write metadata: {name: NAME}"));
        };
        self.known("metadata.", metadata, &METADATA)?;
        if metadata.text("name").is_none_or(str::is_empty) {
            return Err(self.wrong("metadata.name", "is missing or no text"));
        }
        if self.tree.get("spec").is_none() {
            return Err(self.wrong("spec", "is missing; write spec: {} for an empty one"));
        }
        serde_path_to_error::deserialize(self.tree.value()).map_err(|error| {
            let path = error.path().to_string();
            let path = if path == "." { "" } else { path.as_str() };
            self.wrong(path, error.inner().to_string())
        })
    }

    fn known(&self, prefix: &str, tree: &Tree, names: &[&str]) -> Result<(), Problem> {
        match tree.keys().find(|(key, ..)| !names.contains(key)) {
            None => Ok(()),
            Some((key, ..)) => {
                let message = format!("unknown field; there is {}", names.join(", "));
                Err(self.wrong(&format!("{prefix}{key}"), message))
            }
        }
    }
}
