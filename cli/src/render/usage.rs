//! Usage as tables and records.

use jiff::Timestamp;

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::{Look, View};
use crate::units;
use crate::view::Coverage;
use crate::view::network::{CLASSES, Class, Counters, DIRECTIONS, Direction, Network};
use crate::view::usage::{Cpu, Io, Memory, Pids, Pressure, Row, Usage};

impl View for Usage {
    fn table(&self, look: &Look) -> String {
        let shape = Shape::of(self, look.wide);
        let rows = self.rows.iter().map(|row| shape.cells(row, look)).collect();
        let mut text = Grid::new(shape.columns(), rows).text();
        let incomplete = self.rows.iter().any(|row| !row.is_complete());
        text.push_str(&self.notes(incomplete, look));
        text
    }

    fn sheet(&self) -> Sheet {
        Sheet::new(&self.rows, &Row::default(), fields)
    }
}

impl Usage {
    fn notes(&self, incomplete: bool, look: &Look) -> String {
        let end = look.local(self.end);
        let start = self.start.map_or_else(|| "the oldest record".to_owned(), |at| look.local(at));
        let mut notes = format!("\nFrom {start} up to, not including, {end} ({}).\n", look.zone());
        if self.rows.is_empty() {
            notes.push_str("Nothing was recorded in this range.\n");
        }
        if incomplete {
            notes.push_str(
                "* Less than the whole time was seen: at least so much was used. COVERAGE is that of \
                 the part seen least, of those seen at all; - was not.\n",
            );
        }
        notes
    }
}

/// Which columns a table has.
#[derive(Debug, Clone, Copy)]
struct Shape {
    wide: bool,
    stepped: bool,
    by: By,
}

/// Whom rows are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    VirtualCluster,
    Node,
    Both,
}

impl Shape {
    fn of(usage: &Usage, wide: bool) -> Self {
        let named = |name: fn(&Row) -> bool| usage.rows.iter().any(name);
        let by = match (named(|row| row.virtual_cluster.is_some()), named(|row| row.node.is_some()))
        {
            (_, false) => By::VirtualCluster,
            (false, true) => By::Node,
            (true, true) => By::Both,
        };
        let stepped = wide || usage.step_nanoseconds.is_some();
        Self { wide, stepped, by }
    }

    fn columns(self) -> Vec<Column> {
        use Column::{Number, Text};
        let mut columns = Vec::new();
        let mut some = |shown: bool, more: &[Column]| {
            if shown {
                columns.extend_from_slice(more);
            }
        };
        some(self.stepped, &[Text("START")]);
        some(self.wide, &[Text("END")]);
        some(self.by != By::Node, &[Text("VIRTUALCLUSTER")]);
        some(self.by != By::VirtualCluster, &[Text("NODE")]);
        some(true, &[Number("CORES"), Number("CPU-SECONDS")]);
        some(self.wide, &[Number("USER"), Number("SYSTEM")]);
        some(true, &[Number("THROTTLED"), Number("MEMORY-MEAN"), Number("MEMORY-PEAK")]);
        some(self.wide, &[Number("OOM-KILLS")]);
        some(true, &[Number("READ"), Number("WRITTEN")]);
        some(self.wide, &[Number("READS"), Number("WRITES")]);
        some(true, &[Number("PIDS-PEAK")]);
        some(self.wide, &[Number("FORKS-REFUSED"), Number("CPU-WAIT"), Number("MEMORY-WAIT")]);
        some(self.wide, &[Number("IO-WAIT")]);
        some(true, &[Number("NET-IN"), Number("NET-OUT")]);
        some(self.wide, &[Number("IN-OWN"), Number("IN-OTHER"), Number("IN-OUTSIDE")]);
        some(self.wide, &[Number("OUT-OWN"), Number("OUT-OTHER"), Number("OUT-OUTSIDE")]);
        some(true, &[Number("DENIED"), Number("REFUSED")]);
        some(self.wide, &[Number("WOULD-DENY")]);
        some(true, &[Number("COVERAGE")]);
        columns
    }

    fn cells(self, row: &Row, look: &Look) -> Vec<String> {
        let at = |at: Option<Timestamp>| at.map_or_else(unknown, |at| look.local(at));
        let all = || "(all)".to_owned();
        let mut cells = Vec::new();
        if self.stepped {
            cells.push(at(row.start));
        }
        if self.wide {
            cells.push(at(row.end));
        }
        if self.by != By::Node {
            cells.push(row.virtual_cluster.clone().unwrap_or_else(all));
        }
        if self.by != By::VirtualCluster {
            cells.push(row.node.clone().unwrap_or_else(all));
        }
        cells.extend(self.cpu(row));
        cells.extend(self.memory(row));
        cells.extend(self.io_and_pids(row));
        cells.extend(self.network(row));
        cells.push(coverage_cell(row.least_coverage(), row.is_complete()));
        cells
    }

    fn cpu(self, row: &Row) -> Vec<String> {
        let cpu = seen(row.cpu, |meter| meter.coverage);
        let seconds = |field: fn(Cpu) -> u64| shown(cpu, |cpu| units::seconds(field(cpu)));
        let length = row.length_nanoseconds().unwrap_or(0);
        let mean = cpu.and_then(|cpu| units::per_second(cpu.usage_nanoseconds, length));
        let mut cells = vec![shown(mean, units::cores), seconds(|cpu| cpu.usage_nanoseconds)];
        if self.wide {
            cells.push(seconds(|cpu| cpu.user_nanoseconds));
            cells.push(seconds(|cpu| cpu.system_nanoseconds));
        }
        cells.push(seconds(|cpu| cpu.throttled_nanoseconds));
        cells
    }

    fn memory(self, row: &Row) -> Vec<String> {
        let memory = seen(row.memory, |meter| meter.coverage);
        let length = row.length_nanoseconds().unwrap_or(0);
        let mean = memory.and_then(|memory| units::per_second(memory.byte_seconds, length));
        let mut cells = vec![
            shown(mean, units::bytes),
            shown(memory, |memory: Memory| units::bytes(memory.peak_bytes)),
        ];
        if self.wide {
            cells.push(shown(memory, |memory: Memory| memory.oom_kills.to_string()));
        }
        cells
    }

    fn io_and_pids(self, row: &Row) -> Vec<String> {
        let io = seen(row.io, |meter| meter.coverage);
        let pids = seen(row.pids, |meter| meter.coverage);
        let pressure = seen(row.pressure, |meter| meter.coverage);
        let mut cells = vec![
            shown(io, |io: Io| units::bytes(io.read_bytes)),
            shown(io, |io: Io| units::bytes(io.write_bytes)),
        ];
        if self.wide {
            cells.push(shown(io, |io: Io| io.read_operations.to_string()));
            cells.push(shown(io, |io: Io| io.write_operations.to_string()));
        }
        cells.push(shown(pids, |pids: Pids| pids.peak.to_string()));
        if self.wide {
            let wait = |field: fn(Pressure) -> u64| shown(pressure, |at| units::seconds(field(at)));
            cells.push(shown(pids, |pids: Pids| pids.refused.to_string()));
            cells.push(wait(|pressure| pressure.cpu_some_nanoseconds));
            cells.push(wait(|pressure| pressure.memory_some_nanoseconds));
            cells.push(wait(|pressure| pressure.io_some_nanoseconds));
        }
        cells
    }

    fn network(self, row: &Row) -> Vec<String> {
        let network = row.network.as_ref().filter(|meter| meter.coverage.is_known());
        let carried = |of: &dyn Fn(&Network) -> Counters| {
            shown(network, |network| units::bytes(of(network).carried_bytes()))
        };
        let count = |of: fn(Counters) -> u64| {
            shown(network, |network| of(network.sum(|_| true)).to_string())
        };
        let mut cells: Vec<String> = DIRECTIONS
            .iter()
            .map(|direction| carried(&|network| network.direction(*direction)))
            .collect();
        if self.wide {
            for direction in DIRECTIONS {
                for class in [Class::Own, Class::Other, Class::Outside] {
                    cells.push(carried(&|network| {
                        network.sum(|usage| (usage.direction, usage.class) == (direction, class))
                    }));
                }
            }
        }
        cells.push(count(|all| all.denied_packets));
        cells.push(count(Counters::refused_calls));
        if self.wide {
            cells.push(count(|all| all.would_deny_packets));
        }
        cells
    }
}

/// A meter of which anything was seen.
fn seen<T: Copy>(meter: Option<T>, coverage: impl Fn(T) -> Coverage) -> Option<T> {
    meter.filter(|meter| coverage(*meter).is_known())
}

fn shown<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(unknown, text)
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Percent of the time asked for; with a star where anything is missing.
pub(super) fn coverage_cell(least: Coverage, complete: bool) -> String {
    let percent = units::percent(least.covered_nanoseconds, least.wanted_nanoseconds);
    if complete { percent } else { format!("{percent}*") }
}

fn fields(row: &Row) -> Fields {
    let mut fields = Fields::default();
    fields.maybe("start", row.start);
    fields.maybe("end", row.end);
    fields.maybe("virtual_cluster", row.virtual_cluster.as_ref());
    fields.maybe("node", row.node.as_ref());
    let cpu = row.cpu.unwrap_or_default();
    fields.meter("cpu", row.cpu.is_some(), &cpu.fields(), cpu.coverage);
    let memory = row.memory.unwrap_or_default();
    fields.meter("memory", row.memory.is_some(), &memory.fields(), memory.coverage);
    let io = row.io.unwrap_or_default();
    fields.meter("io", row.io.is_some(), &io.fields(), io.coverage);
    let pids = row.pids.unwrap_or_default();
    fields.meter("pids", row.pids.is_some(), &pids.fields(), pids.coverage);
    let pressure = row.pressure.unwrap_or_default();
    fields.meter("pressure", row.pressure.is_some(), &pressure.fields(), pressure.coverage);
    network_fields(&mut fields, row.network.as_ref());
    fields
}

/// `network_DIRECTION_CLASS_COUNTER` for each; what this version has no name for adds up under
/// `unknown`, so that sums stay right.
fn network_fields(fields: &mut Fields, network: Option<&Network>) {
    let mut put = |place: &str, counters: Option<Counters>| {
        for (field, value) in counters.unwrap_or_default().fields() {
            let name = format!("network_{place}_{field}");
            fields.maybe(name, counters.is_some().then_some(value));
        }
    };
    for direction in [Direction::Egress, Direction::Ingress] {
        for class in CLASSES {
            let place = format!("{direction}_{class}").to_lowercase();
            let counters = network.map(|network| {
                network.sum(|usage| (usage.direction, usage.class) == (direction, class))
            });
            put(&place, counters);
        }
    }
    let strange = |network: &Network| {
        network.sum(|usage| {
            matches!(usage.class, Class::Unknown(_))
                || matches!(usage.direction, Direction::Unknown(_))
        })
    };
    put("unknown", network.map(strange));
    fields.coverage("network", network.map(|network| network.coverage));
}
