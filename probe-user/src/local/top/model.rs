//! What is on the screen, and what keys do to it. Pure: no terminal, no clock.

use std::cmp::Ordering;

use crate::local::document::Document;
use crate::local::table;
use crate::local::text;
use crate::local::top::rates::{self, Rates};
use crate::observation::BootNanos;

/// Letters of a filter, at most.
pub(super) const FILTER_MAX: usize = 100;

/// Which table is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Processes.
    #[default]
    Processes,
    /// Flows.
    Flows,
    /// Containers.
    Containers,
    /// Connections over Unix sockets.
    UnixFlows,
}

impl View {
    /// In the order of their keys.
    pub const ALL: [View; 4] = [View::Processes, View::Flows, View::Containers, View::UnixFlows];

    /// For the head.
    pub fn title(self) -> &'static str {
        match self {
            View::Processes => "Processes",
            View::Flows => "Flows",
            View::Containers => "Containers",
            View::UnixFlows => "Unix",
        }
    }
}

/// What a column is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// The largest first.
    Number(f64),
    /// In the order of the alphabet, small and capital letters alike.
    Text(String),
}

impl Weight {
    /// Of a text.
    pub fn text(text: &str) -> Self {
        Weight::Text(text.to_lowercase())
    }

    fn compare(&self, other: &Weight) -> Ordering {
        match (self, other) {
            (Weight::Number(one), Weight::Number(other)) => other.total_cmp(one),
            (Weight::Text(one), Weight::Text(other)) => one.cmp(other),
            (Weight::Number(_), Weight::Text(_)) => Ordering::Less,
            (Weight::Text(_), Weight::Number(_)) => Ordering::Greater,
        }
    }
}

/// One line of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its texts.
    pub cells: Vec<String>,
    weights: Vec<Weight>,
    found_by: String,
}

impl Row {
    /// Of texts and what they are sorted by.
    pub fn of<const N: usize>(cells: [(String, Weight); N]) -> Self {
        let found_by = cells.iter().map(|(text, _)| text.to_lowercase()).collect::<Vec<_>>().join(" ");
        let (cells, weights) = cells.into_iter().unzip();
        Row { cells, weights, found_by }
    }

    /// A filter finds it by this as well.
    pub fn also_found_by(mut self, text: &str) -> Self {
        self.found_by.push(' ');
        self.found_by.push_str(&text.to_lowercase());
        self
    }
}

/// All tables at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Living ones.
    pub processes: Vec<Row>,
    /// All.
    pub flows: Vec<Row>,
    /// In any state.
    pub containers: Vec<Row>,
    /// All; none unless they are looked for.
    pub unix_flows: Vec<Row>,
}

impl Tables {
    fn of(&self, view: View) -> &[Row] {
        match view {
            View::Processes => &self.processes,
            View::Flows => &self.flows,
            View::Containers => &self.containers,
            View::UnixFlows => &self.unix_flows,
        }
    }
}

/// By which column, and whether the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// Its place.
    pub column: usize,
    /// The smallest first.
    pub reversed: bool,
}

/// What keys go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The table.
    #[default]
    Table,
    /// The filter is being written.
    Filter,
    /// The help is open.
    Help,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Stay,
    /// Somebody has seen enough.
    Quit,
}

/// The state of the screen.
#[derive(Debug)]
pub struct Model {
    /// Which table.
    pub view: View,
    pub(super) sorts: [Sort; 4],
    /// Only lines with this.
    pub filter: String,
    /// What keys go to.
    pub mode: Mode,
    /// Whether what is shown stays.
    pub paused: bool,
    /// First line that is shown.
    pub scroll: usize,
    /// First line: the node.
    pub head: String,
    /// Last line: how it is seen, and what was lost.
    pub status: String,
    rates: Rates,
    tables: Tables,
}

impl Default for Model {
    fn default() -> Self {
        let by = |column| Sort { column, reversed: false };
        Model {
            view: View::default(),
            // CPU, what is sent, CPU, what is open.
            sorts: [by(2), by(5), by(2), by(4)],
            filter: String::new(),
            mode: Mode::default(),
            paused: false,
            scroll: 0,
            head: "starting".to_owned(),
            status: String::new(),
            rates: Rates::default(),
            tables: Tables::default(),
        }
    }
}

impl Model {
    /// Takes in what was seen at `at`. While it is paused, rates go on and the screen stays.
    pub fn take(&mut self, document: &Document, at: BootNanos) {
        let tables = self.rates.advance(document, at);
        if self.paused {
            return;
        }
        self.tables = tables;
        self.head = head(document);
        self.status = status(document);
    }

    /// The lines of the table that is shown, filtered and sorted.
    pub fn rows(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let words = filter.split_whitespace().collect::<Vec<_>>();
        let mut rows =
            self.tables.of(self.view).iter().filter(|row| words.iter().all(|word| row.found_by.contains(word))).collect::<Vec<_>>();
        let Sort { column, reversed } = self.sort();
        rows.sort_by(|one, other| {
            let order = match (one.weights.get(column), other.weights.get(column)) {
                (Some(one), Some(other)) => one.compare(other),
                _ => Ordering::Equal,
            };
            let order = if reversed { order.reverse() } else { order };
            // Equals keep their places from second to second.
            order.then_with(|| one.found_by.cmp(&other.found_by))
        });
        rows
    }

    /// How many there are without a filter.
    pub fn len(&self, view: View) -> usize {
        self.tables.of(view).len()
    }

    /// How the table that is shown is sorted.
    pub fn sort(&self) -> Sort {
        self.sorts[self.place()]
    }

    pub(super) fn place(&self) -> usize {
        View::ALL.iter().position(|view| *view == self.view).unwrap_or(0)
    }

    pub(super) fn columns(&self) -> usize {
        rates::columns(self.view).len()
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn head(document: &Document) -> String {
    let host = &document.host;
    let cpu = host.cpu_percent.map(text::percent).unwrap_or_default();
    let load = host.load1.map(|load| format!("{load:.2}")).unwrap_or_default();
    let memory = (text::bytes(host.memory_used_bytes.unwrap_or(0) as f64), text::bytes(host.memory_bytes as f64));
    format!("{}  cpu {cpu} of {}  load {load}  memory {} of {}", host.host_name, host.cpu_count, memory.0, memory.1)
}

fn status(document: &Document) -> String {
    let (capture, losses) = (&document.capture, &document.losses);
    if capture.rung == 0 {
        return "the capture begins".to_owned();
    }
    let other = losses.ring_records.values().chain(losses.other.values()).sum::<u64>();
    let lost = other + losses.flows_uncounted + losses.sockets_unowned + losses.table_full;
    let complete = if table::counts_ends(capture.rung) { table::completeness(losses.completeness) } else { "unknown".to_owned() };
    format!("rung {}  {}  complete {complete}  lost {lost}", capture.rung, capture.description)
}

#[cfg(test)]
mod tests;
