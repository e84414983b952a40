//! Virtual clusters as tables and records.

use std::fmt::Write as _;

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::{Look, View};
use crate::units;
use crate::view::spec::{Cpu, Guarantee, Io, Limit, Memory, Network, Pids, Spec};
use crate::view::virtual_cluster::{Event, NodeStatus, VirtualCluster, VirtualClusters};

/// Longest reason in a narrow table, in characters.
const REASON: usize = 60;

impl View for VirtualClusters {
    fn table(&self, look: &Look) -> String {
        let rows = self.items.iter().map(|cluster| row(cluster, look.wide)).collect();
        let mut text = Grid::new(columns(look.wide), rows).text();
        if look.details {
            for cluster in &self.items {
                text.push('\n');
                text.push_str(&details(cluster, look));
            }
        }
        let notes = self.notes();
        if !notes.is_empty() {
            text.push('\n');
        }
        for note in notes {
            let _ = writeln!(text, "{}", units::plain(&note));
        }
        text
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(&self.items, &VirtualCluster::empty(), fields)
    }
}

impl View for Event {
    fn table(&self, look: &Look) -> String {
        event_grid(&[self], look.wide).text()
    }

    fn sheet(&self) -> Sheet {
        let records = std::slice::from_ref(self);
        Sheet::new(records, self, |event| {
            let mut with_change = Fields::default();
            with_change.put("change", event.change);
            with_change.append(fields(&event.virtual_cluster));
            with_change
        })
    }
}

/// A table that goes on: what was there first, then each change in the same columns. A column
/// that had to grow stays as wide.
#[derive(Debug, Default)]
pub(crate) struct WatchTable {
    widths: Vec<u16>,
}

impl WatchTable {
    /// What was there when the watch began, with the header.
    pub(crate) fn initial(&mut self, events: &[Event], wide: bool) -> String {
        let grid = event_grid(&events.iter().collect::<Vec<_>>(), wide);
        self.widths = grid.widths();
        // Every word that is to be expected fits from the start.
        for (width, word) in self.widths.iter_mut().zip(["Upserted", "", "NotReported"]) {
            *width = (*width).max(u16::try_from(word.len()).unwrap_or(0));
        }
        grid.with_widths(&self.widths)
    }

    /// One change.
    pub(crate) fn change(&mut self, event: &Event, wide: bool) -> String {
        let grid = event_grid(&[event], wide);
        for (width, wanted) in self.widths.iter_mut().zip(grid.widths()) {
            *width = (*width).max(wanted);
        }
        grid.more(&self.widths)
    }
}

fn event_grid(events: &[&Event], wide: bool) -> Grid {
    let mut titles = vec![Column::Text("CHANGE")];
    titles.extend(columns(wide));
    let with_change = |event: &&Event| {
        let mut cells = vec![event.change.to_string()];
        cells.extend(row(&event.virtual_cluster, wide));
        cells
    };
    Grid::new(titles, events.iter().map(with_change).collect())
}

fn columns(wide: bool) -> Vec<Column> {
    use Column::{Number, Text};
    let mut columns = vec![
        Text("NAME"),
        Text("STATE"),
        Number("NODES"),
        Text("NETWORK"),
        Number("CPU-LIMIT"),
        Number("MEMORY-LIMIT"),
        Number("PIDS-LIMIT"),
    ];
    if wide {
        columns.extend([
            Number("CPU-GUARANTEE"),
            Number("MEMORY-GUARANTEE"),
            Number("NUMBER"),
            Number("MEMBERS"),
            Text("ALLOW"),
            Text("CLASS"),
            Number("MENDED"),
            Text("SOURCE"),
        ]);
    }
    columns.push(Text("REASON"));
    columns
}

fn row(cluster: &VirtualCluster, wide: bool) -> Vec<String> {
    let Spec { addresses, guarantee, limit, network, class } = &cluster.spec;
    let (applied, nodes) = cluster.applied_nodes();
    let mut cells = vec![
        cluster.name.clone(),
        cluster.state.to_string(),
        format!("{applied}/{nodes}"),
        network.mode.to_string(),
        or_unknown(limit.cpu.map(cpu)),
        or_unknown(limit.memory.map(memory)),
        or_unknown(limit.pids.map(pids)),
    ];
    if wide {
        cells.extend([
            or_unknown(guarantee.cpu.map(cpu)),
            or_unknown(guarantee.memory.map(memory)),
            cluster.number.to_string(),
            addresses.len().to_string(),
            list(&network.allow, ","),
            or_unknown(class.clone()),
            cluster.mended().to_string(),
            or_unknown(Some(cluster.source.clone()).filter(|source| !source.is_empty())),
        ]);
    }
    cells.push(reasons(&cluster.reasons(), wide));
    cells
}

/// All reasons in one cell: whole, or the first, cut, and how many more there are.
pub(super) fn reasons(reasons: &[String], wide: bool) -> String {
    match (reasons, wide) {
        ([], _) => UNKNOWN.to_owned(),
        (all, true) => all.join("; "),
        ([only], false) => units::truncate(only, REASON),
        ([first, more @ ..], false) => {
            format!("{} (+{} more)", units::truncate(first, REASON), more.len())
        }
    }
}

/// Everything about one virtual cluster, in lines.
fn details(cluster: &VirtualCluster, look: &Look) -> String {
    let Spec { addresses, guarantee, limit, network, class } = &cluster.spec;
    let mut text = format!("{}\n", units::plain(&cluster.name));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<11}{}", units::plain(&value));
    };
    line("number:", cluster.number.to_string());
    line("source:", cluster.source.clone());
    line("class:", or_unknown(class.clone()));
    line("members:", list(addresses, ", "));
    line("guarantee:", guarantee_text(*guarantee));
    line("limit:", limit_text(limit));
    line("network:", network_text(network));
    if cluster.nodes.is_empty() {
        line("nodes:", "no node has reported".to_owned());
    }
    for node in &cluster.nodes {
        text.push_str(&node_lines(node, look));
    }
    text
}

fn node_lines(status: &NodeStatus, look: &Look) -> String {
    let age = look.age(status.observed_at);
    let mut text = format!("  node {}: {}", units::plain(&status.node), status.state);
    let _ = writeln!(text, ", seen {age} ago, {} changes of others mended", status.mended);
    for reason in &status.reasons {
        let _ = writeln!(text, "    {}", units::plain(&reason.to_string()));
    }
    text
}

fn network_text(network: &Network) -> String {
    let mut text = network.mode.to_string();
    if !network.allow.is_empty() {
        let _ = write!(text, ", allows {}", network.allow.join(", "));
    }
    if network.denies_unknown {
        text.push_str(", closed to pods of no virtual cluster");
    }
    text
}

fn guarantee_text(guarantee: Guarantee) -> String {
    let parts = [
        guarantee.cpu.map(|amount| format!("cpu {}", cpu(amount))),
        guarantee.memory.map(|amount| format!("memory {}", memory(amount))),
        guarantee.io_weight.map(|weight| format!("io.weight {weight}")),
    ];
    list(&parts.into_iter().flatten().collect::<Vec<_>>(), ", ")
}

fn limit_text(limit: &Limit) -> String {
    let amounts = [
        limit.cpu.map(|amount| format!("cpu {}", cpu(amount))),
        limit.memory.map(|amount| format!("memory {}", memory(amount))),
        limit.pids.map(|amount| format!("pids {}", pids(amount))),
    ];
    let parts: Vec<String> =
        amounts.into_iter().flatten().chain(limit.io.iter().map(io_text)).collect();
    list(&parts, ", ")
}

fn io_text(limit: &Io) -> String {
    let rate = |name: &str, rate: Option<u64>, text: fn(u64) -> String| {
        rate.map(|rate| format!(" {name} {}", text(rate)))
    };
    let operations = |rate| format!("{rate} operations/s");
    let parts = [
        rate("read", limit.read_bytes_per_second, units::bytes_per_second),
        rate("write", limit.write_bytes_per_second, units::bytes_per_second),
        rate("read", limit.read_operations_per_second, operations),
        rate("write", limit.write_operations_per_second, operations),
    ];
    let parts: String = parts.into_iter().flatten().collect();
    format!("io {}{parts}", limit.device)
}

fn cpu(amount: Cpu) -> String {
    match amount {
        Cpu::Nanocores(nanocores) => units::cores(nanocores),
        Cpu::NodeBasisPoints(points) => units::basis_points(points),
    }
}

fn memory(amount: Memory) -> String {
    match amount {
        Memory::Bytes(bytes) => units::bytes(bytes),
        Memory::NodeBasisPoints(points) => units::basis_points(points),
    }
}

fn pids(amount: Pids) -> String {
    match amount {
        Pids::Pids(pids) => pids.to_string(),
        Pids::NodeBasisPoints(points) => units::basis_points(points),
    }
}

fn or_unknown(text: Option<String>) -> String {
    text.unwrap_or_else(|| UNKNOWN.to_owned())
}

fn list(parts: &[String], separator: &str) -> String {
    if parts.is_empty() { UNKNOWN.to_owned() } else { parts.join(separator) }
}

fn fields(cluster: &VirtualCluster) -> Fields {
    let Spec { addresses, guarantee, limit, network, class } = &cluster.spec;
    let (applied, nodes) = cluster.applied_nodes();
    let mut fields = Fields::default();
    fields.put("name", &cluster.name);
    fields.put("number", cluster.number);
    fields.put("state", cluster.state);
    fields.put("source", &cluster.source);
    fields.maybe("class", class.as_ref());
    fields.put("addresses", addresses.join(" "));
    amounts(&mut fields, "guarantee", guarantee.cpu, guarantee.memory);
    fields.maybe("guarantee_io_weight", guarantee.io_weight);
    amounts(&mut fields, "limit", limit.cpu, limit.memory);
    let (pids, points) = match limit.pids {
        Some(Pids::Pids(pids)) => (Some(pids), None),
        Some(Pids::NodeBasisPoints(points)) => (None, Some(points)),
        None => (None, None),
    };
    fields.maybe("limit_pids", pids);
    fields.maybe("limit_pids_node_basis_points", points);
    fields.put("limit_io", limit.io.iter().map(io_words).collect::<Vec<_>>().join("; "));
    fields.put("network_mode", network.mode);
    fields.put("network_allow", network.allow.join(" "));
    fields.put("nodes", nodes);
    fields.put("nodes_applied", applied);
    fields.put("mended", cluster.mended());
    fields.put("reasons", cluster.reasons().join("; "));
    fields
}

/// As io.max writes it, in raw integers.
fn io_words(limit: &Io) -> String {
    let word = |key: &str, rate: Option<u64>| rate.map(|rate| format!(" {key}={rate}"));
    let words = [
        word("rbps", limit.read_bytes_per_second),
        word("wbps", limit.write_bytes_per_second),
        word("riops", limit.read_operations_per_second),
        word("wiops", limit.write_operations_per_second),
    ];
    let words: String = words.into_iter().flatten().collect();
    format!("{}{words}", limit.device)
}

fn amounts(fields: &mut Fields, of: &str, cpu: Option<Cpu>, memory: Option<Memory>) {
    let (nanocores, points) = match cpu {
        Some(Cpu::Nanocores(nanocores)) => (Some(nanocores), None),
        Some(Cpu::NodeBasisPoints(points)) => (None, Some(points)),
        None => (None, None),
    };
    fields.maybe(format!("{of}_cpu_nanocores"), nanocores);
    fields.maybe(format!("{of}_cpu_node_basis_points"), points);
    let (bytes, points) = match memory {
        Some(Memory::Bytes(bytes)) => (Some(bytes), None),
        Some(Memory::NodeBasisPoints(points)) => (None, Some(points)),
        None => (None, None),
    };
    fields.maybe(format!("{of}_memory_bytes"), bytes);
    fields.maybe(format!("{of}_memory_node_basis_points"), points);
}
