//! Open pages: WebSockets that watch the containers, and how soon each of them is told of a new one. The generator writes into a container's name
//! when it was made.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::page::Page;
use crate::progress::Pulse;

/// How much pages give way to what is measured.
const NICE: i32 = 10;

/// What they saw.
pub(super) struct Seen {
    /// From the making of a container to its arrival, in milliseconds, sorted: one for each viewer and container.
    pub(super) delays: Vec<f64>,
    /// What was measured meanwhile.
    pub(super) measured: f64,
}

/// Opens so many pages, waits until each has the whole view, and collects for some time, while `measure` runs.
pub(super) fn watch(server: SocketAddr, count: usize, time: Duration, measure: impl FnOnce() -> Result<f64>) -> Result<Seen> {
    let (complete, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let _alive = Pulse::start(&format!("{count} pages for {} s", time.as_secs()));
    thread::scope(|scope| {
        let pages: Vec<_> = (0..count).map(|_| scope.spawn(|| page(server, &complete, &ended))).collect();
        let begun = std::time::Instant::now();
        while complete.load(Ordering::Relaxed) < count && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        // What had waited for the last to come has passed.
        thread::sleep(Duration::from_secs(2));
        let from = unix_millis();
        let measured = measure();
        ended.store(true, Ordering::Relaxed);
        let mut delays = Vec::new();
        for page in pages {
            let Ok(seen) = page.join() else { bail!("a page panicked") };
            delays.extend(seen?.into_iter().filter(|(made, _)| *made >= from).map(|(_, delay)| delay));
        }
        delays.sort_by(f64::total_cmp);
        Ok(Seen { delays, measured: measured? })
    })
}

/// When each new container was made, and how much later this page knew.
fn page(server: SocketAddr, complete: &AtomicUsize, ended: &AtomicBool) -> Result<Vec<(u64, f64)>> {
    // A page is on another machine. Here its thread shares the cores with what is measured, and fifty of them wake at once.
    rustix::process::setpriority_process(None, NICE).context("a page gives way to what is measured")?;
    let mut socket = Page::open(server, "/api/topology/containers/ws?t=1s")?;
    let first = socket.next(Duration::from_secs(60))?.context("no view comes")?;
    if !first.contains("\"reset\":true") {
        bail!("the first message is no whole view");
    }
    complete.fetch_add(1, Ordering::Relaxed);
    let mut seen = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = socket.next(Duration::from_millis(500))? else { continue };
        let now = unix_millis();
        seen.extend(made(message).map(|made| (made, super::float(now.saturating_sub(made)))));
    }
    Ok(seen)
}

/// When the containers of a message's `add` were made.
fn made(message: &str) -> impl Iterator<Item = u64> {
    let added = message.strip_prefix("{\"add\":[").and_then(|rest| rest.split("],\"update\":").next()).unwrap_or_default();
    let labels = added.split("\"label\":\"").skip(1).filter_map(|text| text.split('"').next());
    labels.filter_map(|label| label.rsplit_once("-made-")?.1.parse().ok())
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_added_counts() {
        let message = r#"{"add":[{"id":"a","label":"web-1-2-made-1500","parents":[{"label":"host"}]},{"id":"b","label":"db-made-1501"}],"update":[{"label":"x-made-7"}],"remove":null}"#;
        assert_eq!(made(message).collect::<Vec<_>>(), [1_500, 1_501]);
        assert_eq!(made(r#"{"add":null,"update":[{"label":"x-made-7"}],"remove":null}"#).count(), 0);
    }
}
