//! From totals to rates: what two looks, one after the other, say of a second. Pure.

use std::collections::HashMap;

use crate::local::document::{Container, Document, Flow, Process, UnixFlow};
use crate::local::table;
use crate::local::text::{self, Column};
use crate::local::top::model::{Row, Tables, View, Weight};
use crate::observation::BootNanos;

/// Columns of the processes.
pub(super) const PROCESSES: [Column; 10] = [
    Column::number("PID"),
    Column::words("USER", 10),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::number("CONN/S"),
    Column::number("OPEN"),
    Column::number("OUT/S"),
    Column::number("IN/S"),
    Column::number("RTT"),
    Column::rest("COMMAND"),
];

/// Columns of the flows.
pub(super) const FLOWS: [Column; 10] = [
    Column::number("PID"),
    Column::words("PROCESS", 16),
    Column::words("END", 6),
    Column::number("CONN/S"),
    Column::number("OPEN"),
    Column::number("OUT/S"),
    Column::number("IN/S"),
    Column::number("RTT"),
    Column::number("RETR/S"),
    Column::rest("PEER"),
];

/// Columns of the containers.
pub(super) const CONTAINERS: [Column; 10] = [
    Column::words("NAME", 28),
    Column::words("STATE", 10),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::number("CONN/S"),
    Column::number("OPEN"),
    Column::number("OUT/S"),
    Column::number("IN/S"),
    Column::number("RTT"),
    Column::rest("IMAGE"),
];

/// Columns of the connections over Unix sockets.
pub(super) const UNIX_FLOWS: [Column; 6] = [
    Column::number("CLIENT PID"),
    Column::words("CLIENT", 16),
    Column::number("SERVER PID"),
    Column::words("SERVER", 16),
    Column::number("OPEN"),
    Column::rest("PATH"),
];

/// The columns of a view.
pub(super) fn columns(view: View) -> &'static [Column] {
    match view {
        View::Processes => &PROCESSES,
        View::Flows => &FLOWS,
        View::Containers => &CONTAINERS,
        View::UnixFlows => &UNIX_FLOWS,
    }
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: HashMap<u64, Totals>,
    at: Option<BootNanos>,
}

/// What of a flow grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    opened: u64,
    sent: u64,
    received: u64,
    retransmits: u64,
    rtt_sum: u64,
    rtt_count: u64,
}

/// Per second; of several flows, the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rate {
    opened: f64,
    sent: f64,
    received: f64,
    retransmits: f64,
    open: u64,
    rtt_sum: f64,
    rtt_count: f64,
}

impl Totals {
    fn of(flow: &Flow) -> Self {
        let (rtt_sum, rtt_count) = flow.rtt;
        Totals {
            opened: flow.opened,
            sent: flow.bytes_sent,
            received: flow.bytes_received,
            retransmits: flow.retransmits,
            rtt_sum,
            rtt_count,
        }
    }

    /// What came since, per second. Totals that shrank are another flow's.
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    fn since(self, before: Totals, seconds: f64) -> Rate {
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        // Times of now, if there are new ones; else what is known.
        let fresh = self.rtt_count > before.rtt_count && self.rtt_sum >= before.rtt_sum;
        let (sum, count) =
            if fresh { (self.rtt_sum - before.rtt_sum, self.rtt_count - before.rtt_count) } else { (self.rtt_sum, self.rtt_count) };
        Rate {
            opened: per_second(self.opened, before.opened),
            sent: per_second(self.sent, before.sent),
            received: per_second(self.received, before.received),
            retransmits: per_second(self.retransmits, before.retransmits),
            open: 0,
            rtt_sum: sum as f64,
            rtt_count: count as f64,
        }
    }
}

impl Rate {
    fn add(&mut self, other: Rate) {
        self.opened += other.opened;
        self.sent += other.sent;
        self.received += other.received;
        self.retransmits += other.retransmits;
        self.open += other.open;
        self.rtt_sum += other.rtt_sum;
        self.rtt_count += other.rtt_count;
    }

    fn rtt(self) -> Option<f64> {
        (self.rtt_count > 0.0).then(|| self.rtt_sum / self.rtt_count)
    }
}

impl Rates {
    /// Takes a look in, and says what has happened since the last one.
    pub(super) fn advance(&mut self, document: &Document, at: BootNanos) -> Tables {
        let seconds = self.at.replace(at).map(|before| std::time::Duration::from_nanos(at.0.saturating_sub(before.0)).as_secs_f64());
        // Two looks at one instant, or a first one, say nothing of a second.
        let seconds = seconds.filter(|&seconds| seconds > 0.05);
        let totals: HashMap<u64, Totals> = document.flows.iter().map(|flow| (flow.id, Totals::of(flow))).collect();
        let mut of_process: HashMap<(u32, u64), Rate> = HashMap::new();
        let mut of_container: HashMap<&str, Rate> = HashMap::new();
        let mut flows = Vec::with_capacity(document.flows.len());
        for flow in &document.flows {
            let now = Totals::of(flow);
            let mut rate = match seconds {
                // A flow that is new has done all of it since.
                Some(seconds) => now.since(self.last.get(&flow.id).copied().unwrap_or_default(), seconds),
                None => Totals { rtt_sum: now.rtt_sum, rtt_count: now.rtt_count, ..Totals::default() }.since(Totals::default(), 1.0),
            };
            rate.open = flow.opened.saturating_sub(flow.closed);
            of_process.entry(flow.key).or_default().add(rate);
            if !flow.container_id.is_empty() {
                of_container.entry(&flow.container_id).or_default().add(rate);
            }
            flows.push(flow_row(flow, rate));
        }
        let living = document.processes.iter().filter(|it| it.exited_at.is_none());
        let processes = living.map(|it| process_row(it, of_process.get(&it.key).copied().unwrap_or_default())).collect();
        let rate_of = |it: &Container| of_container.get(it.id.as_str()).copied().unwrap_or_default();
        let containers = document.containers.iter().map(|it| container_row(it, rate_of(it))).collect();
        let unix_flows = document.unix_flows.iter().map(unix_flow_row).collect();
        self.last = totals;
        Tables { processes, flows, containers, unix_flows }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn process_row(it: &Process, rate: Rate) -> Row {
    let user = if it.user_name.is_empty() { it.user_id.to_string() } else { it.user_name.clone() };
    let command = if it.command_line.is_empty() { it.name.clone() } else { it.command_line.clone() };
    Row::of([
        (it.pid.to_string(), Weight::Number(it.pid.into())),
        (user.clone(), Weight::text(&user)),
        share(it.cpu_percent),
        amount(it.memory_bytes.map(|bytes| bytes as f64), text::bytes),
        amount(Some(rate.opened), text::count),
        amount(Some(rate.open as f64), text::count),
        amount(Some(rate.sent), text::bytes),
        amount(Some(rate.received), text::bytes),
        amount(rate.rtt(), text::micros),
        (command.clone(), Weight::text(&command)),
    ])
    .also_found_by(&it.container_id)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn flow_row(it: &Flow, rate: Rate) -> Row {
    let peer = table::peer(it);
    Row::of([
        (it.pid.map(|pid| pid.to_string()).unwrap_or_default(), Weight::Number(it.pid.unwrap_or(0).into())),
        (text::program(&it.process), Weight::text(&text::program(&it.process))),
        (it.direction.to_owned(), Weight::text(it.direction)),
        amount(Some(rate.opened), text::count),
        amount(Some(rate.open as f64), text::count),
        amount(Some(rate.sent), text::bytes),
        amount(Some(rate.received), text::bytes),
        amount(rate.rtt(), text::micros),
        amount(Some(rate.retransmits), text::count),
        (peer.clone(), Weight::text(&peer)),
    ])
    .also_found_by(&it.container_id)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn container_row(it: &Container, rate: Rate) -> Row {
    Row::of([
        (it.name.clone(), Weight::text(&it.name)),
        (it.state.clone(), Weight::text(&it.state)),
        share(it.cpu_percent),
        amount(it.memory_bytes.map(|bytes| bytes as f64), text::bytes),
        amount(Some(rate.opened), text::count),
        amount(Some(rate.open as f64), text::count),
        amount(Some(rate.sent), text::bytes),
        amount(Some(rate.received), text::bytes),
        amount(rate.rtt(), text::micros),
        (it.image.clone(), Weight::text(&it.image)),
    ])
    .also_found_by(&it.id)
}

fn unix_flow_row(it: &UnixFlow) -> Row {
    let (client, server) = (text::program(&it.client_process), text::program(&it.server_process));
    Row::of([
        (it.client_pid.to_string(), Weight::Number(it.client_pid.into())),
        (client.clone(), Weight::text(&client)),
        (it.server_pid.to_string(), Weight::Number(it.server_pid.into())),
        (server.clone(), Weight::text(&server)),
        amount(Some(it.open.into()), text::count),
        (it.path.clone(), Weight::text(&it.path)),
    ])
    .also_found_by(&it.client_container_id)
    .also_found_by(&it.server_container_id)
}

fn share(percent: Option<f64>) -> (String, Weight) {
    amount(percent, text::percent)
}

/// Nothing is shown as a dash: a table full of zeros hides the rest.
fn amount(number: Option<f64>, shown: fn(f64) -> String) -> (String, Weight) {
    match number {
        Some(number) if number > 0.0 => (shown(number), Weight::Number(number)),
        Some(_) => ("-".to_owned(), Weight::Number(0.0)),
        None => (String::new(), Weight::Number(-1.0)),
    }
}
