//! Nodes as tables and records.

use std::fmt::Write as _;

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::virtual_clusters::reasons;
use super::{Look, View};
use crate::units;
use crate::view::node::{Control, Node, Nodes};

impl View for Nodes {
    fn table(&self, look: &Look) -> String {
        let rows = self.nodes.iter().map(|node| row(node, look)).collect();
        let mut text = Grid::new(columns(look.wide), rows).text();
        if look.details {
            for node in &self.nodes {
                text.push('\n');
                text.push_str(&details(node, look));
            }
        }
        text
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(&self.nodes, &Node::empty(), fields)
    }
}

fn columns(wide: bool) -> Vec<Column> {
    use Column::{Number, Text};
    let mut columns = vec![
        Text("NAME"),
        Text("CONNECTION"),
        Number("LAST-SEEN"),
        Number("GENERATION"),
        Number("VIRTUALCLUSTERS"),
        Number("CORES"),
        Number("MEMORY"),
    ];
    if wide {
        columns.extend([
            Number("PIDS"),
            Number("BACKLOG"),
            Text("KERNEL"),
            Text("AGENT"),
            Number("ABI"),
            Number("ADDRESSES"),
            Text("CANNOT-ENFORCE"),
        ]);
    }
    columns.push(Text("REASON"));
    columns
}

fn row(node: &Node, look: &Look) -> Vec<String> {
    let (applied, all) = node.applied_virtual_clusters();
    let facts = node.facts.as_ref();
    let fact = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let mut cells = vec![
        node.name.clone(),
        node.connection.to_string(),
        look.age(node.last_seen),
        format!("{}/{}", node.applied_generation, node.wanted_generation),
        format!("{applied}/{all}"),
        fact(facts.map(|facts| units::cores(facts.capacity_nanocores))),
        fact(facts.map(|facts| units::bytes(facts.capacity_memory_bytes))),
    ];
    if look.wide {
        let missing: Vec<&str> =
            node.missing_controls().iter().map(|control| control.name.as_str()).collect();
        cells.extend([
            fact(facts.map(|facts| facts.capacity_pids.to_string())),
            node.journal_backlog_records.to_string(),
            fact(facts.map(|facts| facts.kernel_release.clone())),
            fact(facts.map(|facts| facts.agent_version.clone())),
            fact(facts.map(|facts| facts.abi_version.to_string())),
            fact(facts.map(|facts| facts.addresses.len().to_string())),
            fact(Some(missing.join(",")).filter(|missing| !missing.is_empty())),
        ]);
    }
    cells.push(reasons(&node.all_reasons(), look.wide));
    cells
}

/// Everything about one node, in lines.
fn details(node: &Node, look: &Look) -> String {
    let mut text = format!("{}\n", units::plain(&node.name));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11}{}", units::plain(value));
    };
    if let Some(facts) = &node.facts {
        line("boot:", &facts.boot_id);
        line("kernel:", &facts.kernel_release);
        line("agent:", &format!("{}, ABI {}", facts.agent_version, facts.abi_version));
        line("addresses:", &facts.addresses.join(", "));
    }
    line("journal:", &format!("{} records not yet acknowledged", node.journal_backlog_records));
    for reason in &node.reasons {
        line("reason:", &reason.to_string());
    }
    for Control { name, reason, .. } in node.missing_controls() {
        let reason = reason.as_deref().unwrap_or("no reason given");
        line("cannot:", &format!("{name}: {reason}"));
    }
    for status in &node.virtual_clusters {
        let name = units::plain(&status.virtual_cluster);
        let age = look.age(status.observed_at);
        let _ = writeln!(text, "  virtual cluster {name}: {}, seen {age} ago", status.state);
        for reason in &status.reasons {
            let _ = writeln!(text, "    {}", units::plain(&reason.to_string()));
        }
    }
    text
}

fn fields(node: &Node) -> Fields {
    let (applied, all) = node.applied_virtual_clusters();
    let facts = node.facts.as_ref();
    let missing = node.missing_controls().into_iter().map(|control| {
        let Control { name, reason, .. } = control;
        reason.as_ref().map_or_else(|| name.clone(), |reason| format!("{name}: {reason}"))
    });
    let mut fields = Fields::default();
    fields.put("name", &node.name);
    fields.put("connection", node.connection);
    fields.maybe("last_seen", node.last_seen);
    fields.put("wanted_generation", node.wanted_generation);
    fields.put("applied_generation", node.applied_generation);
    fields.put("journal_backlog_records", node.journal_backlog_records);
    fields.put("virtual_clusters", all);
    fields.put("virtual_clusters_applied", applied);
    fields.maybe("boot_id", facts.map(|facts| &facts.boot_id));
    fields.maybe("kernel_release", facts.map(|facts| &facts.kernel_release));
    fields.maybe("agent_version", facts.map(|facts| &facts.agent_version));
    fields.maybe("abi_version", facts.map(|facts| facts.abi_version));
    fields.maybe("capacity_nanocores", facts.map(|facts| facts.capacity_nanocores));
    fields.maybe("capacity_memory_bytes", facts.map(|facts| facts.capacity_memory_bytes));
    fields.maybe("capacity_pids", facts.map(|facts| facts.capacity_pids));
    fields.maybe("addresses", facts.map(|facts| facts.addresses.join(" ")));
    fields.put("unsupported_controls", missing.collect::<Vec<_>>().join("; "));
    fields.put("reasons", node.all_reasons().join("; "));
    fields
}
