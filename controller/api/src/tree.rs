//! A YAML document as a tree that knows where each part is written.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A node of the tree and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Tree {
    /// Line, from 1 on; 0: not known.
    pub(crate) line: u64,
    /// Column, from 1 on; 0: not known.
    pub(crate) column: u64,
    pub(crate) node: Node,
}

/// What a node is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Node {
    /// Null, a boolean, a number or text.
    Scalar(Value),
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping in the order in which it is written; keys with their place.
    Map(Vec<(Spanned<String>, Tree)>),
}

impl Tree {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Node::Map(entries) = &self.node else {
            return None;
        };
        entries.iter().find(|(name, _)| name.value == key).map(|(_, tree)| tree)
    }

    /// The text of a key of a mapping.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.node {
            Node::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Keys of a mapping, with line and column.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let entries = match &self.node {
            Node::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries
            .iter()
            .map(|(key, _)| (key.value.as_str(), key.referenced.line(), key.referenced.column()))
    }

    /// Line and column of a field ("spec.perNode.limit.io[0].device"), or of the deepest part
    /// of its path that is written.
    pub(crate) fn place(&self, path: &str) -> (u64, u64) {
        let mut here = self;
        let mut found = (self.line, self.column);
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next =
                if let (Node::List(items), Some(index)) = (&here.node, step.strip_suffix(']')) {
                    index.parse().ok().and_then(|index: usize| items.get(index))
                } else {
                    if let Some((_, line, column)) = here.keys().find(|(key, ..)| *key == step) {
                        found = (line, column);
                    }
                    here.get(step)
                };
            let Some(next) = next else { break };
            here = next;
            // Of a block mapping or list the key is the better place: its value begins below.
            if matches!(here.node, Node::Scalar(_)) && here.line != 0 {
                found = (here.line, here.column);
            }
        }
        found
    }

    /// Without places.
    pub(crate) fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::value).collect(),
            Node::Map(entries) => {
                entries.iter().map(|(key, tree)| (key.value.clone(), tree.value())).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Node>::deserialize(from)?;
        Ok(Self { line: referenced.line(), column: referenced.column(), node: value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
