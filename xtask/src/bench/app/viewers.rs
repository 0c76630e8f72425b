//! Open pages: WebSockets that watch the containers, and how soon each of them is told of a new one. The generator writes into a container's name
//! when it was made.
//!
//! Pages are on machines of their own. Here they share the cores with what is measured, so each only takes its messages in and notes when they were
//! whole; what unpacking takes is measured once for each message, of which all pages have the same, and added to every page's time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::page::{Page, unpack};
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
    let messages = Messages::default();
    let _alive = Pulse::start(&format!("{count} pages for {} s", time.as_secs()));
    let (arrivals, from, measured) = thread::scope(|scope| -> Result<_> {
        let pages: Vec<_> = (0..count).map(|_| scope.spawn(|| page(server, &complete, &ended, &messages))).collect();
        let begun = Instant::now();
        while complete.load(Ordering::Relaxed) < count && begun.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        // What had waited for the last to come has passed.
        thread::sleep(Duration::from_secs(2));
        let from = unix_millis();
        let measured = measure();
        ended.store(true, Ordering::Relaxed);
        let mut arrivals = Vec::new();
        for page in pages {
            let Ok(seen) = page.join() else { bail!("a page panicked") };
            arrivals.extend(seen?);
        }
        Ok((arrivals, from, measured?))
    })?;
    let read = messages.read()?;
    let mut delays: Vec<f64> = arrivals
        .iter()
        .filter_map(|arrival| Some((arrival.at, read.get(&arrival.message)?)))
        .flat_map(|(at, message)| {
            message.made.iter().map(move |made| (*made, super::float(at.saturating_sub(*made)) + message.unpacked_in))
        })
        .filter_map(|(made, delay)| (made >= from).then_some(delay))
        .collect();
    delays.sort_by(f64::total_cmp);
    Ok(Seen { delays, measured })
}

/// When a page had a message whole, in milliseconds of Unix time, and which.
struct Arrival {
    at: u64,
    message: u64,
}

/// The different messages, by their hash.
#[derive(Default)]
struct Messages(Mutex<HashMap<u64, Vec<u8>>>);

/// What a message says.
struct Read {
    /// When the containers were made that it adds.
    made: Vec<u64>,
    /// How long it took to unpack it, in milliseconds.
    unpacked_in: f64,
}

impl Messages {
    fn keep(&self, message: Vec<u8>) -> u64 {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let hash = hasher.finish();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(hash).or_insert(message);
        hash
    }

    fn read(self) -> Result<HashMap<u64, Read>> {
        let messages = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let read = messages.into_iter().map(|(hash, message)| {
            let begun = Instant::now();
            let text = unpack(message)?;
            Ok((hash, Read { unpacked_in: begun.elapsed().as_secs_f64() * 1_000.0, made: made(&text).collect() }))
        });
        read.collect()
    }
}

fn page(server: SocketAddr, complete: &AtomicUsize, ended: &AtomicBool, messages: &Messages) -> Result<Vec<Arrival>> {
    rustix::process::setpriority_process(None, NICE).context("a page gives way to what is measured")?;
    let mut socket = Page::open(server, "/api/topology/containers/ws?t=1s")?;
    let first = socket.next(Duration::from_secs(60))?.context("no view comes")?;
    if !unpack(first)?.contains("\"reset\":true") {
        bail!("the first message is no whole view");
    }
    complete.fetch_add(1, Ordering::Relaxed);
    let mut arrivals = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = socket.next(Duration::from_millis(500))? else { continue };
        arrivals.push(Arrival { at: unix_millis(), message: messages.keep(message) });
    }
    Ok(arrivals)
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
