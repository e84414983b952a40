//! What virtual clusters use now: the newest well-covered window of each, as rates.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::Coverage;
use super::network::{CLASSES, Class, Counters, DIRECTIONS, Direction, Network};
use super::usage::Row;
use crate::units;

/// One frame of `top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Frame {
    /// When it was asked for.
    pub(crate) at: Timestamp,
    /// Length of the windows over which rates are means.
    pub(crate) window_nanoseconds: u64,
    /// The busiest processor users first.
    pub(crate) virtual_clusters: Vec<Rates>,
}

/// What one virtual cluster uses, on all nodes. A meter of which nothing was seen is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rates {
    /// Its name.
    pub(crate) virtual_cluster: String,
    /// Nodes that are part of the sums.
    pub(crate) nodes: u64,
    /// End of the oldest window among those that are part.
    pub(crate) as_of: Option<Timestamp>,
    /// Processors in use.
    pub(crate) cpu_nanocores: Option<u64>,
    /// How long tasks were held back by cpu.max, in each second.
    pub(crate) cpu_throttled_nanoseconds_per_second: Option<u64>,
    /// Memory in use.
    pub(crate) memory_bytes: Option<u64>,
    /// Tasks.
    pub(crate) pids: Option<u64>,
    /// Read from block devices.
    pub(crate) io_read_bytes_per_second: Option<u64>,
    /// Written to block devices.
    pub(crate) io_write_bytes_per_second: Option<u64>,
    /// Reads.
    pub(crate) io_read_operations_per_second: Option<u64>,
    /// Writes.
    pub(crate) io_write_operations_per_second: Option<u64>,
    /// Every direction and class that this version knows; none: nothing was seen.
    pub(crate) network: Option<Vec<ClassRate>>,
    /// Packets dropped in the window; a count, because a rate would round a few to none.
    pub(crate) denied_packets: Option<u64>,
    /// Calls of connect and sendmsg refused in the window.
    pub(crate) denied_calls: Option<u64>,
    /// How much of the windows was seen.
    pub(crate) coverage: Coverages,
}

/// How much each meter saw, added over nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Coverages {
    /// Of processor time.
    pub(crate) cpu: Coverage,
    /// Of memory.
    pub(crate) memory: Coverage,
    /// Of block devices.
    pub(crate) io: Coverage,
    /// Of tasks.
    pub(crate) pids: Coverage,
    /// Of the network.
    pub(crate) network: Coverage,
}

impl Coverages {
    /// Names and values, in the order of the struct.
    pub(crate) fn fields(self) -> [(&'static str, Coverage); 5] {
        [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("io", self.io),
            ("pids", self.pids),
            ("network", self.network),
        ]
    }

    /// Whether every meter saw every moment.
    pub(crate) fn is_complete(self) -> bool {
        self.fields().iter().all(|(_, coverage)| coverage.is_known() && coverage.is_complete())
    }

    /// The least of those of which anything was seen.
    pub(crate) fn least(self) -> Coverage {
        Coverage::least(&self.fields().map(|(_, coverage)| coverage))
    }

    fn add(&mut self, row: &Row) {
        let sum = |to: &mut Coverage, more: Option<Coverage>| {
            *to = to.plus(more.unwrap_or_default());
        };
        sum(&mut self.cpu, row.cpu.map(|meter| meter.coverage));
        sum(&mut self.memory, row.memory.map(|meter| meter.coverage));
        sum(&mut self.io, row.io.map(|meter| meter.coverage));
        sum(&mut self.pids, row.pids.map(|meter| meter.coverage));
        sum(&mut self.network, row.network.as_ref().map(|meter| meter.coverage));
    }
}

/// Traffic of one direction with one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ClassRate {
    /// Sent or received.
    pub(crate) direction: Direction,
    /// To or from whom.
    pub(crate) class: Class,
    /// IP packets let through, in bytes.
    pub(crate) bytes_per_second: u64,
}

impl Rates {
    /// Bytes per second of one direction and class.
    pub(crate) fn bytes_per_second(&self, direction: Direction, class: Class) -> Option<u64> {
        let classes = self.network.as_ref()?;
        let found = classes.iter().find(|rate| (rate.direction, rate.class) == (direction, class));
        Some(found.map_or(0, |rate| rate.bytes_per_second))
    }

    /// Takes one more node's window into the sums.
    fn add(&mut self, row: &Row) {
        if row.coverages().into_iter().any(Coverage::is_known) {
            self.nodes += 1;
            self.as_of = match (self.as_of, row.end) {
                (Some(oldest), Some(end)) => Some(oldest.min(end)),
                (oldest, end) => oldest.or(end),
            };
        }
        self.coverage.add(row);
        self.add_cpu_and_memory(row);
        self.add_io(row);
        if let Some(network) = row.network.as_ref().filter(|meter| meter.coverage.is_known()) {
            self.add_network(network);
        }
    }

    fn add_cpu_and_memory(&mut self, row: &Row) {
        if let Some(cpu) = row.cpu.filter(|meter| meter.coverage.is_known()) {
            let rate = |amount| per_second(amount, cpu.coverage);
            // Nanoseconds of processor time per second are nanocores.
            add(&mut self.cpu_nanocores, rate(cpu.usage_nanoseconds));
            add(&mut self.cpu_throttled_nanoseconds_per_second, rate(cpu.throttled_nanoseconds));
        }
        if let Some(memory) = row.memory.filter(|meter| meter.coverage.is_known()) {
            add(&mut self.memory_bytes, memory.current_bytes);
        }
        if let Some(pids) = row.pids.filter(|meter| meter.coverage.is_known()) {
            add(&mut self.pids, pids.current);
        }
    }

    fn add_io(&mut self, row: &Row) {
        let Some(io) = row.io.filter(|meter| meter.coverage.is_known()) else {
            return;
        };
        let rate = |amount| per_second(amount, io.coverage);
        add(&mut self.io_read_bytes_per_second, rate(io.read_bytes));
        add(&mut self.io_write_bytes_per_second, rate(io.write_bytes));
        add(&mut self.io_read_operations_per_second, rate(io.read_operations));
        add(&mut self.io_write_operations_per_second, rate(io.write_operations));
    }

    fn add_network(&mut self, network: &Network) {
        let classes = self.network.get_or_insert_with(no_traffic);
        for rate in classes {
            let counters =
                network.sum(|usage| (usage.direction, usage.class) == (rate.direction, rate.class));
            let more = per_second(counters.carried_bytes(), network.coverage);
            rate.bytes_per_second = rate.bytes_per_second.saturating_add(more);
        }
        let all: Counters = network.sum(|_| true);
        add(&mut self.denied_packets, all.denied_packets);
        add(&mut self.denied_calls, all.refused_calls());
    }
}

fn no_traffic() -> Vec<ClassRate> {
    let of = |direction| CLASSES.map(|class| ClassRate { direction, class, bytes_per_second: 0 });
    DIRECTIONS.into_iter().flat_map(of).collect()
}

fn add(sum: &mut Option<u64>, more: u64) {
    *sum = Some(sum.unwrap_or(0).saturating_add(more));
}

/// A rate over the time that was seen, not over the time that was asked for.
fn per_second(amount: u64, coverage: Coverage) -> u64 {
    units::per_second(amount, coverage.covered_nanoseconds).unwrap_or(0)
}

/// The rates of each virtual cluster from rows of several windows, by virtual cluster and node: of
/// each pair the window that was seen best, the newest of equals. The newest is often not yet
/// there, because agents report after the window.
pub(crate) fn frame(at: Timestamp, window_nanoseconds: u64, rows: &[Row]) -> Frame {
    let mut best: BTreeMap<(&str, &str), &Row> = BTreeMap::new();
    for row in rows {
        let pair =
            (row.virtual_cluster.as_deref().unwrap_or(""), row.node.as_deref().unwrap_or(""));
        let seen = best.entry(pair).or_insert(row);
        if rank(row) >= rank(seen) {
            *seen = row;
        }
    }
    let mut clusters: BTreeMap<&str, Rates> = BTreeMap::new();
    for ((name, _), row) in best {
        let rates = clusters.entry(name).or_default();
        name.clone_into(&mut rates.virtual_cluster);
        rates.add(row);
    }
    let mut virtual_clusters: Vec<Rates> = clusters.into_values().collect();
    virtual_clusters.sort_by_key(|rates| Reverse(rates.cpu_nanocores));
    Frame { at, window_nanoseconds, virtual_clusters }
}

/// By the best-seen meter: one that this node cannot measure at all must not spoil the choice.
fn rank(row: &Row) -> (u64, Option<Timestamp>) {
    let known = row.coverages().into_iter().filter(|coverage| coverage.is_known());
    (known.map(Coverage::fraction).min().unwrap_or(0), row.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::network::ClassUsage;
    use crate::view::usage::{Cpu, Memory};

    const SECOND: u64 = units::NANOSECONDS_PER_SECOND;

    fn row(cluster: &str, node: &str, start: i64, covered: u64, cpu_seconds: u64) -> Row {
        let coverage =
            Coverage { covered_nanoseconds: covered * SECOND, wanted_nanoseconds: 60 * SECOND };
        let second = |at| Timestamp::from_second(at).ok();
        Row {
            start: second(start),
            end: second(start + 60),
            virtual_cluster: Some(cluster.to_owned()),
            node: Some(node.to_owned()),
            cpu: Some(Cpu { usage_nanoseconds: cpu_seconds * SECOND, coverage, ..Cpu::default() }),
            ..Row::default()
        }
    }

    fn of(rows: &[Row]) -> Vec<Rates> {
        frame(Timestamp::UNIX_EPOCH, 60 * SECOND, rows).virtual_clusters
    }

    #[test]
    fn the_newest_complete_window_counts() {
        let rates =
            of(&[row("a", "n", 0, 60, 30), row("a", "n", 60, 60, 60), row("a", "n", 120, 10, 1)]);
        assert_eq!(rates[0].cpu_nanocores, Some(SECOND));
        assert_eq!(rates[0].as_of, Timestamp::from_second(120).ok());
        assert!(rates[0].coverage.cpu.is_complete());
    }

    #[test]
    fn a_window_seen_in_part_gives_a_rate_over_what_was_seen() {
        let rates = of(&[row("a", "n", 0, 30, 30)]);
        assert_eq!(rates[0].cpu_nanocores, Some(SECOND));
        assert!(!rates[0].coverage.cpu.is_complete());
    }

    #[test]
    fn nodes_add_up_and_the_oldest_window_is_named() {
        let rates = of(&[
            row("a", "n1", 0, 60, 60),
            row("a", "n2", 60, 60, 120),
            row("b", "n1", 0, 60, 240),
        ]);
        assert_eq!(rates[0].virtual_cluster, "b");
        assert_eq!((rates[1].nodes, rates[1].cpu_nanocores), (2, Some(3 * SECOND)));
        assert_eq!(rates[1].as_of, Timestamp::from_second(60).ok());
    }

    #[test]
    fn what_was_not_seen_is_none_and_not_zero() {
        let mut blind = row("a", "n", 0, 60, 60);
        blind.memory = Some(Memory::default());
        let unseen = row("b", "n", 0, 0, 0);
        let rates = of(&[blind, unseen]);
        assert_eq!((rates[0].memory_bytes, rates[0].network.is_none()), (None, true));
        assert_eq!((rates[1].cpu_nanocores, rates[1].nodes), (None, 0));
    }

    #[test]
    fn traffic_by_class_and_what_was_denied() {
        let usage = |direction, class, passed_bytes, denied_packets| ClassUsage {
            direction,
            class,
            counters: Counters {
                passed_bytes,
                denied_packets,
                denied_connects: 1,
                ..Counters::default()
            },
        };
        let mut seen = row("a", "n", 0, 60, 0);
        seen.network = Some(Network {
            classes: vec![
                usage(Direction::Egress, Class::Own, 6000, 0),
                usage(Direction::Ingress, Class::Other, 0, 7),
                usage(Direction::Egress, Class::Unknown(9), 600, 1),
            ],
            coverage: seen.least_coverage(),
        });
        let rates = of(&[seen]);
        assert_eq!(rates[0].bytes_per_second(Direction::Egress, Class::Own), Some(100));
        assert_eq!(rates[0].bytes_per_second(Direction::Ingress, Class::Other), Some(0));
        assert_eq!((rates[0].denied_packets, rates[0].denied_calls), (Some(8), Some(3)));
    }
}
