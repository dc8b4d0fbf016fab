//! What the agent tells Prometheus: one page made anew for each scrape, from a picture of the moment.

use std::collections::BTreeMap;

use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};

/// A picture of this node.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub node: String,
    pub version: &'static str,
    pub ready: bool,
    pub forked: bool,
    pub revision: u64,
    /// Codes of what keeps this node from doing its part.
    pub problems: Vec<String>,
    /// Nodes of the realm, by state.
    pub nodes: BTreeMap<String, u64>,
    /// Components of the realm, by state.
    pub components: BTreeMap<String, u64>,
    /// Connections to peers, by kind.
    pub links: BTreeMap<&'static str, u64>,
    /// What was recorded since the start, by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// What peers did that they must not, since the start, by name.
    pub offences: BTreeMap<&'static str, u64>,
    pub process: Process,
    pub disk: Disk,
    pub network: Traffic,
    pub cells: Vec<Cell>,
}

/// This process, cells included.
#[derive(Debug, Default, Clone, Copy)]
pub struct Process {
    /// Share of one core, of late; None where the system does not tell.
    pub cpu_ratio: Option<f64>,
    pub resident_bytes: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Disk {
    pub artifact_bytes: u64,
    /// Room that is left where the data directory lies.
    pub free_bytes: Option<u64>,
}

/// Counted since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic {
    pub frames_in: u64,
    pub frames_out: u64,
    pub frames_dropped: u64,
    pub gossip_in: u64,
    pub gossip_rejected: u64,
    pub gossip_dropped: u64,
    pub malformed: u64,
    pub refused: u64,
    pub calls_refused: u64,
    pub ranges_refused: u64,
}

/// One cell of this node; its counters go on over restarts.
#[derive(Debug, Default, Clone)]
pub struct Cell {
    pub component: String,
    pub replica: String,
    pub state: String,
    pub busy_seconds: f64,
    pub restarts: u64,
    pub fuel: u64,
    pub preemptions: u64,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub memory_max_bytes: u64,
    pub output_bytes: u64,
    pub log_lines_dropped: u64,
    pub limit_hits: Vec<(String, u64)>,
}

/// The page in Prometheus' text format.
pub fn page(snapshot: &Snapshot) -> Result<String, prometheus::Error> {
    let page = Page::default();
    page.node(snapshot)?;
    page.process(snapshot)?;
    page.network(snapshot)?;
    page.cells(snapshot)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

#[derive(Default)]
struct Page(Registry);

type Written = Result<(), prometheus::Error>;

/// Name, help, and what it is of a cell.
type Named = (&'static str, &'static str, fn(&Cell) -> f64);

impl Page {
    fn node(&self, of: &Snapshot) -> Written {
        let node = of.node.as_str();
        self.gauge(
            "realm_build_info",
            "Version of the agent; always 1.",
            &["node", "version"],
            [(vec![node, of.version], 1.0)],
        )?;
        let own = |value: f64| [(vec![node], value)];
        let truth = |is: bool| own(f64::from(u8::from(is)));
        self.gauge(
            "realm_node_ready",
            "Whether this node gets work: approved, with the log of its realm, and a disk that takes writes.",
            &["node"],
            truth(of.ready),
        )?;
        self.gauge(
            "realm_forked",
            "Whether two intents have one revision here.",
            &["node"],
            truth(of.forked),
        )?;
        self.gauge(
            "realm_revision",
            "Revision of the desired state on this node.",
            &["node"],
            own(of.revision as f64),
        )?;
        self.gauge(
            "realm_node_problem",
            "What keeps this node from doing its part, by code; 1 while it lasts.",
            &["node", "code"],
            of.problems.iter().map(|code| (vec![node, code], 1.0)),
        )?;
        self.gauge(
            "realm_nodes",
            "Nodes of the realm as this node sees them, by state.",
            &["node", "state"],
            by(node, &of.nodes),
        )?;
        self.gauge(
            "realm_components",
            "Components of the realm as this node sees them, by state.",
            &["node", "state"],
            by(node, &of.components),
        )?;
        self.counter(
            "realm_events_total",
            "What happened on this node, by kind.",
            &["node", "kind"],
            by(node, &of.events),
        )
    }

    fn process(&self, of: &Snapshot) -> Written {
        let node = of.node.as_str();
        let own = |value: Option<f64>| value.map(|value| (vec![node], value));
        self.gauge(
            "realm_node_cpu_ratio",
            "Cores that the agent and its cells use, of late.",
            &["node"],
            own(of.process.cpu_ratio),
        )?;
        self.gauge(
            "realm_node_memory_bytes",
            "Resident memory of the agent and its cells.",
            &["node"],
            own(of.process.resident_bytes.map(|bytes| bytes as f64)),
        )?;
        self.gauge(
            "realm_node_artifact_bytes",
            "Disk that programs take.",
            &["node"],
            own(Some(of.disk.artifact_bytes as f64)),
        )?;
        self.gauge(
            "realm_node_disk_free_bytes",
            "Room that is left where the data directory lies.",
            &["node"],
            own(of.disk.free_bytes.map(|bytes| bytes as f64)),
        )
    }

    fn network(&self, of: &Snapshot) -> Written {
        let node = of.node.as_str();
        self.gauge(
            "realm_links",
            "Connections to peers, by kind.",
            &["node", "link"],
            by(node, &of.links),
        )?;
        let traffic = of.network;
        let counters = [
            (
                "frames_received",
                "Frames of the log protocol that came.",
                traffic.frames_in,
            ),
            (
                "frames_sent",
                "Frames of the log protocol that went out.",
                traffic.frames_out,
            ),
            (
                "frames_dropped",
                "Frames that no peer took in time.",
                traffic.frames_dropped,
            ),
            (
                "gossip_received",
                "Gossip messages that came.",
                traffic.gossip_in,
            ),
            (
                "gossip_rejected",
                "Gossip messages held against their sender.",
                traffic.gossip_rejected,
            ),
            (
                "gossip_dropped",
                "Gossip messages that this node had no time for.",
                traffic.gossip_dropped,
            ),
            (
                "malformed",
                "Messages that could not be read.",
                traffic.malformed,
            ),
            (
                "connections_refused",
                "Connections that a limit or a ban refused.",
                traffic.refused,
            ),
            (
                "calls_refused",
                "Streams of calls beyond what their peer may have at once.",
                traffic.calls_refused,
            ),
            (
                "ranges_refused",
                "Requests for parts of programs that were refused, or put off.",
                traffic.ranges_refused,
            ),
        ];
        self.counter(
            "realm_offences_total",
            "What peers did that they must not, by its name.",
            &["node", "offence"],
            by(node, &of.offences),
        )?;
        counters.into_iter().try_for_each(|(name, help, value)| {
            let name = format!("realm_network_{name}_total");
            self.counter(&name, help, &["node"], [(vec![node], value as f64)])
        })
    }

    fn cells(&self, of: &Snapshot) -> Written {
        let counters: [Named; 9] = [
            (
                "realm_cell_busy_seconds_total",
                "Time in which the cell's code was executed.",
                |cell| cell.busy_seconds,
            ),
            (
                "realm_cell_restarts_total",
                "Starts after the first.",
                |cell| cell.restarts as f64,
            ),
            (
                "realm_cell_fuel_total",
                "Fuel used; counted where there is a fuel limit.",
                |cell| cell.fuel as f64,
            ),
            (
                "realm_cell_preemptions_total",
                "Slices of epoch_ms used to their end.",
                |cell| cell.preemptions as f64,
            ),
            (
                "realm_cell_output_bytes_total",
                "Bytes written to standard output and error.",
                |cell| cell.output_bytes as f64,
            ),
            (
                "realm_cell_log_lines_dropped_total",
                "Lines that its log had no room for any more.",
                |cell| cell.log_lines_dropped as f64,
            ),
            (
                "wasm_restarts_total",
                "The same as realm_cell_restarts_total.",
                |cell| cell.restarts as f64,
            ),
            (
                "fuel_used_total",
                "The same as realm_cell_fuel_total.",
                |cell| cell.fuel as f64,
            ),
            (
                "epoch_preemptions_total",
                "The same as realm_cell_preemptions_total.",
                |cell| cell.preemptions as f64,
            ),
        ];
        for (name, help, value) in counters {
            self.counter(name, help, CELL, each(of, value))?;
        }
        let gauges: [Named; 6] = [
            (
                "realm_cell_memory_bytes",
                "Memories and tables of the cell.",
                |cell| cell.memory_bytes as f64,
            ),
            (
                "realm_cell_memory_peak_bytes",
                "The most it had since its start.",
                |cell| cell.memory_peak_bytes as f64,
            ),
            (
                "realm_cell_memory_max_bytes",
                "What it may have at most.",
                |cell| cell.memory_max_bytes as f64,
            ),
            // It only rises, and is a gauge all the same: a counter without `_total` in its name is none to
            // Prometheus' linter, nor to OpenMetrics, and programs ask for this name. `rate` takes either.
            (
                "wasm_exec_time_ms",
                "realm_cell_busy_seconds_total in milliseconds.",
                |cell| cell.busy_seconds * 1000.0,
            ),
            (
                "mem_current_bytes",
                "The same as realm_cell_memory_bytes.",
                |cell| cell.memory_bytes as f64,
            ),
            (
                "mem_peak_bytes",
                "The same as realm_cell_memory_peak_bytes.",
                |cell| cell.memory_peak_bytes as f64,
            ),
        ];
        for (name, help, value) in gauges {
            self.gauge(name, help, CELL, each(of, value))?;
        }
        self.gauge(
            "realm_cell_state",
            "1 for the state that the cell is in.",
            &["node", "component", "replica", "state"],
            of.cells
                .iter()
                .map(|cell| labelled(of, cell, (&cell.state, 1.0))),
        )?;
        let hits = of.cells.iter().flat_map(|cell| {
            let hits = cell.limit_hits.iter();
            hits.map(move |(limit, count)| labelled(of, cell, (limit, *count as f64)))
        });
        self.counter(
            "realm_cell_limit_hits_total",
            "How often the cell met a limit.",
            &["node", "component", "replica", "limit"],
            hits,
        )
    }

    fn gauge<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (Vec<&'a str>, f64)>,
    ) -> Written {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            family.get_metric_with_label_values(&labels)?.set(value);
        }
        self.0.register(Box::new(family))
    }

    fn counter<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: impl IntoIterator<Item = (Vec<&'a str>, f64)>,
    ) -> Written {
        let family = CounterVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in values {
            family.get_metric_with_label_values(&labels)?.inc_by(value);
        }
        self.0.register(Box::new(family))
    }
}

const CELL: &[&str] = &["node", "component", "replica"];

type Row<'a> = (Vec<&'a str>, f64);

/// One row for each cell.
fn each(of: &Snapshot, value: fn(&Cell) -> f64) -> impl Iterator<Item = Row<'_>> {
    let row = move |cell| (labels(of, cell), value(cell));
    of.cells.iter().map(row)
}

/// A row of a cell with one more label.
fn labelled<'a>(of: &'a Snapshot, cell: &'a Cell, (label, value): (&'a str, f64)) -> Row<'a> {
    let mut labels = labels(of, cell);
    labels.push(label);
    (labels, value)
}

fn labels<'a>(of: &'a Snapshot, cell: &'a Cell) -> Vec<&'a str> {
    vec![&of.node, &cell.component, &cell.replica]
}

/// One row for each kind.
fn by<'a, K: AsRef<str>>(
    node: &'a str,
    counts: &'a BTreeMap<K, u64>,
) -> impl Iterator<Item = Row<'a>> {
    let row = move |(kind, count): (&'a K, &u64)| (vec![node, kind.as_ref()], *count as f64);
    counts.iter().map(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_every_metric_with_its_labels() {
        let snapshot = Snapshot {
            node: "one".into(),
            version: "realm/0",
            nodes: BTreeMap::from([("ready".to_owned(), 2)]),
            cells: vec![Cell {
                component: "web".into(),
                replica: "0".into(),
                state: "running".into(),
                busy_seconds: 1.5,
                limit_hits: vec![("output".into(), 3)],
                ..Cell::default()
            }],
            ..Snapshot::default()
        };
        let page = page(&snapshot).unwrap_or_default();
        for line in [
            "realm_build_info{node=\"one\",version=\"realm/0\"} 1",
            "realm_nodes{node=\"one\",state=\"ready\"} 2",
            "realm_cell_busy_seconds_total{component=\"web\",node=\"one\",replica=\"0\"} 1.5",
            "wasm_exec_time_ms{component=\"web\",node=\"one\",replica=\"0\"} 1500",
            "realm_cell_state{component=\"web\",node=\"one\",replica=\"0\",state=\"running\"} 1",
            "realm_cell_limit_hits_total{component=\"web\",limit=\"output\",node=\"one\",replica=\"0\"} 3",
            "# TYPE mem_peak_bytes gauge",
            "# TYPE wasm_restarts_total counter",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        // What is not known is left out, never 0.
        assert!(!page.contains("realm_node_cpu_ratio{"), "{page}");
    }
}
