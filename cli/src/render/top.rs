//! Frames of `top` as tables and records.

use std::time::Duration;

use super::csv::{Fields, Sheet};
use super::grid::{Column, Grid, UNKNOWN};
use super::usage::coverage_cell;
use super::{Look, View};
use crate::units;
use crate::view::network::{CLASSES, Class, DIRECTIONS};
use crate::view::rates::{Frame, Rates};

/// Classes that have a column in a narrow table.
const NARROW: [Class; 3] = [Class::Own, Class::Other, Class::Outside];

impl View for Frame {
    fn table(&self, look: &Look) -> String {
        let rows = self.virtual_clusters.iter().map(|rates| row(rates, look)).collect();
        let window = Duration::from_nanos(self.window_nanoseconds);
        let at = look.local(self.at);
        let mut text = format!("{at}  means over the newest windows of {window:?}\n\n");
        text.push_str(&Grid::new(columns(look.wide), rows).text());
        if !self.virtual_clusters.iter().all(|rates| rates.coverage.is_complete()) {
            text.push_str("\n* Less than the whole window was seen; - was not seen at all.\n");
        }
        text
    }

    fn sheet(&self) -> Sheet {
        let fields = |rates: &Rates| {
            let mut fields = Fields::default();
            fields.put("at", self.at);
            fields.put("window_nanoseconds", self.window_nanoseconds);
            fields.append(rate_fields(rates));
            fields
        };
        Sheet::new(&self.virtual_clusters, &Rates::default(), fields)
    }
}

fn columns(wide: bool) -> Vec<Column> {
    use Column::{Number, Text};
    let mut columns = vec![
        Text("VIRTUALCLUSTER"),
        // Before the numbers: a narrow terminal must not cut it off.
        Number("COVERAGE"),
        Number("AGE"),
        Number("CORES"),
        Number("THROTTLED"),
        Number("MEMORY"),
        Number("PIDS"),
        Number("READS/s"),
        Number("WRITES/s"),
    ];
    if wide {
        columns.extend([Number("READ"), Number("WRITTEN")]);
    }
    columns.extend([Number("IN-OWN"), Number("IN-OTHER"), Number("IN-OUTSIDE")]);
    if wide {
        columns.extend([Number("IN-NODE"), Number("IN-SHARED"), Number("IN-CLUSTER")]);
    }
    columns.extend([Number("OUT-OWN"), Number("OUT-OTHER"), Number("OUT-OUTSIDE")]);
    if wide {
        columns.extend([Number("OUT-NODE"), Number("OUT-SHARED"), Number("OUT-CLUSTER")]);
    }
    columns.extend([Number("DENIED"), Number("REFUSED")]);
    if wide {
        columns.push(Number("NODES"));
    }
    columns
}

fn row(rates: &Rates, look: &Look) -> Vec<String> {
    let shown = |value: Option<u64>, text: fn(u64) -> String| {
        value.map_or_else(|| UNKNOWN.to_owned(), text)
    };
    let count = |value| shown(value, |count| count.to_string());
    let mut cells = vec![
        rates.virtual_cluster.clone(),
        coverage_cell(rates.coverage.least(), rates.coverage.is_complete()),
        look.age(rates.as_of),
        shown(rates.cpu_nanocores, units::cores),
        throttled(rates),
        shown(rates.memory_bytes, units::bytes),
        count(rates.pids),
        count(rates.io_read_operations_per_second),
        count(rates.io_write_operations_per_second),
    ];
    if look.wide {
        cells.push(shown(rates.io_read_bytes_per_second, units::bytes_per_second));
        cells.push(shown(rates.io_write_bytes_per_second, units::bytes_per_second));
    }
    for direction in DIRECTIONS {
        let rest = CLASSES.into_iter().filter(|class| look.wide && !NARROW.contains(class));
        for class in NARROW.into_iter().chain(rest) {
            cells.push(shown(rates.bytes_per_second(direction, class), units::bytes_per_second));
        }
    }
    cells.push(count(rates.denied_packets));
    cells.push(count(rates.denied_calls));
    if look.wide {
        cells.push(rates.nodes.to_string());
    }
    cells
}

/// Of the time in which its tasks wanted a processor: how much of it cpu.max held them back.
fn throttled(rates: &Rates) -> String {
    match (rates.cpu_throttled_nanoseconds_per_second, rates.cpu_nanocores) {
        (Some(0), _) => units::percent(0, 1),
        (Some(throttled), Some(used)) => units::percent(throttled, throttled.saturating_add(used)),
        _ => UNKNOWN.to_owned(),
    }
}

fn rate_fields(rates: &Rates) -> Fields {
    let mut fields = Fields::default();
    fields.put("virtual_cluster", &rates.virtual_cluster);
    fields.put("nodes", rates.nodes);
    fields.maybe("as_of", rates.as_of);
    let throttled = rates.cpu_throttled_nanoseconds_per_second;
    fields.maybe("cpu_nanocores", rates.cpu_nanocores);
    fields.maybe("cpu_throttled_nanoseconds_per_second", throttled);
    fields.maybe("memory_bytes", rates.memory_bytes);
    fields.maybe("pids", rates.pids);
    fields.maybe("io_read_bytes_per_second", rates.io_read_bytes_per_second);
    fields.maybe("io_write_bytes_per_second", rates.io_write_bytes_per_second);
    fields.maybe("io_read_operations_per_second", rates.io_read_operations_per_second);
    fields.maybe("io_write_operations_per_second", rates.io_write_operations_per_second);
    for direction in DIRECTIONS {
        for class in CLASSES {
            let place = format!("{direction}_{class}").to_lowercase();
            let name = format!("network_{place}_bytes_per_second");
            fields.maybe(name, rates.bytes_per_second(direction, class));
        }
    }
    fields.maybe("denied_packets", rates.denied_packets);
    fields.maybe("denied_calls", rates.denied_calls);
    for (meter, coverage) in rates.coverage.fields() {
        fields.coverage(meter, Some(coverage));
    }
    fields
}
