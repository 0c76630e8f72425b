//! The document as tables for people: the busiest first. Pure but for the size of the terminal.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use crate::local::document::{Container, Document, Flow, Process, UnixFlow};
use crate::local::text::{self, Column};

/// Lines of one table on a terminal.
const LINES: usize = 20;

/// What it is written on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Letters in a line; `None` for as many as it takes.
    pub width: Option<usize>,
    /// Lines of each table; `None` for all.
    pub lines: Option<usize>,
    /// Whether headings are bold.
    pub bold: bool,
}

impl Page {
    /// A terminal has a width, and people who want the busiest; a pipe gets everything and no colour.
    pub fn of_terminal() -> Self {
        if !std::io::stdout().is_terminal() {
            return Page::default();
        }
        let width = crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns)).filter(|&width| width > 0);
        Page { width: Some(width.unwrap_or(80)), lines: Some(LINES), bold: std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()) }
    }
}

/// All of it.
pub fn render(document: &Document, page: Page) -> String {
    let mut text = String::new();
    head(&mut text, document, page);
    let mut containers = document.containers.iter().collect::<Vec<_>>();
    containers.sort_by_key(|it| (it.state != "running", Reverse(busy(it.cpu_percent, it.memory_bytes)), &it.name));
    table(&mut text, "CONTAINERS", page, &CONTAINERS, containers.into_iter().map(container_row).collect());
    let mut processes = document.processes.iter().filter(|it| it.exited_at.is_none()).collect::<Vec<_>>();
    processes.sort_by_key(|it| (Reverse(busy(it.cpu_percent, it.memory_bytes)), it.pid));
    table(&mut text, "PROCESSES", page, &PROCESSES, processes.into_iter().map(process_row).collect());
    let mut flows = document.flows.iter().collect::<Vec<_>>();
    flows.sort_by_key(|it| (Reverse(it.bytes_sent + it.bytes_received), Reverse(it.opened), it.id));
    table(&mut text, "FLOWS", page, &FLOWS, flows.into_iter().map(flow_row).collect());
    let mut unix_flows = document.unix_flows.iter().collect::<Vec<_>>();
    unix_flows.sort_by_key(|it| (Reverse(it.open), &it.path, it.id));
    table(&mut text, "UNIX FLOWS", page, &UNIX_FLOWS, unix_flows.into_iter().map(unix_flow_row).collect());
    let mut listeners = document.listeners.iter().collect::<Vec<_>>();
    listeners.sort_by_key(|it| (it.port, it.protocol, &it.address));
    let listener_row = |it: &crate::local::document::Listener| {
        vec![
            it.protocol.to_owned(),
            text::socket(&it.address, it.port),
            number(it.pid),
            text::program(&it.process),
            text::short_id(&it.container_id),
        ]
    };
    table(&mut text, "LISTENERS", page, &LISTENERS, listeners.into_iter().map(listener_row).collect());
    let names = document.names.iter().map(|it| vec![it.address.clone(), it.names.join(", ")]).collect();
    table(&mut text, "NAMES", page, &NAMES, names);
    text
}

const CONTAINERS: [Column; 8] = [
    Column::words("ID", 12),
    Column::words("NAME", 32),
    Column::words("STATE", 10),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::number("RESTARTS"),
    Column::words("RUNTIME", 10),
    Column::rest("IMAGE"),
];

const PROCESSES: [Column; 7] = [
    Column::number("PID"),
    Column::words("USER", 12),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::number("FILES"),
    Column::words("CONTAINER", 12),
    Column::rest("COMMAND"),
];

const FLOWS: [Column; 9] = [
    Column::number("PID"),
    Column::words("PROCESS", 16),
    Column::words("END", 6),
    Column::rest("PEER"),
    Column::number("OPEN"),
    Column::number("CONNS"),
    Column::number("SENT"),
    Column::number("RECEIVED"),
    Column::number("RTT"),
];

const UNIX_FLOWS: [Column; 6] = [
    Column::number("CLIENT PID"),
    Column::words("CLIENT", 16),
    Column::number("SERVER PID"),
    Column::words("SERVER", 16),
    Column::number("OPEN"),
    Column::rest("PATH"),
];

const LISTENERS: [Column; 5] = [
    Column::words("PROTO", 5),
    Column::words("ADDRESS", 46),
    Column::number("PID"),
    Column::words("PROCESS", 24),
    Column::rest("CONTAINER"),
];

const NAMES: [Column; 2] = [Column::words("ADDRESS", 40), Column::rest("NAMES")];

fn head(text: &mut String, document: &Document, page: Page) {
    let (host, capture, losses) = (&document.host, &document.capture, &document.losses);
    let mut say = |line: String| {
        let line = page.width.map_or_else(|| text::clean(&line), |width| text::fitted(&line, width));
        // A string takes everything.
        let _ = writeln!(text, "{line}");
    };
    let cpu = host.cpu_percent.map_or_else(String::new, |it| format!(", {} busy", text::percent(it)));
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let memory = (host.memory_used_bytes.unwrap_or(0) as f64, host.memory_bytes as f64);
    say(format!(
        "{}: {}, Linux {}, {} CPUs{cpu}, {} of {} in use",
        host.host_name,
        host.os_release,
        host.kernel_version,
        host.cpu_count,
        text::bytes(memory.0),
        text::bytes(memory.1),
    ));
    let counted = if counts_ends(capture.rung) {
        format!("{} of connection ends counted", completeness(losses.completeness))
    } else {
        "how many connections were missed is not known".to_owned()
    };
    say(format!("seen by {} (rung {}), {counted}", capture.description, capture.rung));
    for blind in &capture.blind_spots {
        say(format!("not seen: {blind}"));
    }
    let rings = losses.ring_records.iter().map(|(ring, lost)| (format!("{ring} ring"), *lost));
    let fields =
        [("flows uncounted", losses.flows_uncounted), ("sockets unowned", losses.sockets_unowned), ("table full", losses.table_full)];
    let fields = fields.into_iter().map(|(name, lost)| (name.to_owned(), lost));
    let lost = rings.chain(fields).chain(losses.other.clone()).filter(|(_, lost)| *lost > 0);
    let lost = lost.map(|(name, lost)| format!("{name} {lost}")).collect::<Vec<_>>();
    if !lost.is_empty() {
        say(format!("lost: {}", lost.join(", ")));
    }
}

/// Whether the kernel counts connection ends on this rung: only its programs do, and without them nobody knows what was missed.
pub(crate) fn counts_ends(rung: u32) -> bool {
    (1..=4).contains(&rung)
}

/// A ratio that is not whole is never shown as whole.
pub(crate) fn completeness(ratio: f64) -> String {
    if ratio >= 1.0 { "100%".to_owned() } else { format!("{:.2}%", (ratio * 10_000.0).floor() / 100.0) }
}

fn table(text: &mut String, title: &str, page: Page, columns: &[Column], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let all = rows.len();
    let shown = page.lines.unwrap_or(all).min(all);
    let rows = &rows[..shown];
    let widths = text::widths(columns, rows, page.width);
    let titles = columns.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>();
    let heading = text::line(columns, &widths, &titles);
    let (bold, plain) = if page.bold { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
    // A string takes everything.
    let _ = writeln!(text, "\n{bold}{title} ({all}){plain}\n{bold}{heading}{plain}");
    for row in rows {
        let _ = writeln!(text, "{}", text::line(columns, &widths, row));
    }
    if shown < all {
        let _ = writeln!(text, "… and {} more", all - shown);
    }
}

/// In thousandths of a percent, then bytes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage is at most 100")]
fn busy(cpu_percent: Option<f64>, memory_bytes: Option<u64>) -> (u64, u64) {
    ((cpu_percent.unwrap_or(0.0) * 1000.0) as u64, memory_bytes.unwrap_or(0))
}

fn container_row(it: &Container) -> Vec<String> {
    vec![
        text::short_id(&it.id),
        it.name.clone(),
        it.state.clone(),
        it.cpu_percent.map(text::percent).unwrap_or_default(),
        it.memory_bytes.map(size).unwrap_or_default(),
        it.restarts.to_string(),
        it.runtime.clone(),
        it.image.clone(),
    ]
}

fn process_row(it: &Process) -> Vec<String> {
    let user = if it.user_name.is_empty() { it.user_id.to_string() } else { it.user_name.clone() };
    vec![
        it.pid.to_string(),
        user,
        it.cpu_percent.map(text::percent).unwrap_or_default(),
        it.memory_bytes.map(size).unwrap_or_default(),
        number(it.open_files),
        text::short_id(&it.container_id),
        if it.command_line.is_empty() { it.name.clone() } else { it.command_line.clone() },
    ]
}

fn flow_row(it: &Flow) -> Vec<String> {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let rtt = it.rtt_micros.map(|micros| text::micros(micros as f64));
    vec![
        number(it.pid),
        text::program(&it.process),
        it.direction.to_owned(),
        peer(it),
        it.opened.saturating_sub(it.closed).to_string(),
        it.opened.to_string(),
        size(it.bytes_sent),
        size(it.bytes_received),
        rtt.unwrap_or_default(),
    ]
}

fn unix_flow_row(it: &UnixFlow) -> Vec<String> {
    vec![
        it.client_pid.to_string(),
        text::program(&it.client_process),
        it.server_pid.to_string(),
        text::program(&it.server_process),
        it.open.to_string(),
        it.path.clone(),
    ]
}

/// With whom, and at which port: the other end's address for people.
pub(crate) fn peer(it: &Flow) -> String {
    match it.direction {
        "server" => format!("{} → :{}", it.client_address, it.server_port),
        _ => match &it.server_name {
            Some(name) => format!("{name}:{} ({})", it.server_port, it.server_address),
            None => text::socket(&it.server_address, it.server_port),
        },
    }
}

fn number(number: Option<u32>) -> String {
    number.map(|it| it.to_string()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn size(bytes: u64) -> String {
    text::bytes(bytes as f64)
}

#[cfg(test)]
mod tests;
