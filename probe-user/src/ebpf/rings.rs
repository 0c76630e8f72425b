//! One thread per ring: waits for records and passes them on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::own_address::OwnAddresses;
use super::running::Shared;
use super::{BATCH_MAX, decode};
use crate::observation::{Observation, Protocol};

/// After a wake-up more records are waited for this long: a burst wakes the thread two hundred times a second at most.
const GATHER: Duration = Duration::from_millis(5);

/// How long to wait before a full channel is tried again. The ring holds what comes meanwhile, and the kernel counts what it cannot hold.
const CHANNEL_FULL_PAUSE: Duration = Duration::from_millis(10);

/// Reads a ring until the capture stops, and then what is left in it.
pub(super) fn run(mut ring: RingBuf<MapData>, addresses: &OwnAddresses, sender: &mpsc::Sender<Vec<Observation>>, shared: &Arc<Shared>) {
    loop {
        let stopping = shared.wait_for(&ring);
        while pass_batch(&mut ring, addresses, sender, shared) {}
        if stopping || sender.is_closed() {
            return;
        }
        shared.sleep(GATHER);
    }
}

/// Passes one batch on; whether there may be more.
fn pass_batch(
    ring: &mut RingBuf<MapData>,
    addresses: &OwnAddresses,
    sender: &mpsc::Sender<Vec<Observation>>,
    shared: &Arc<Shared>,
) -> bool {
    let mut batch = Vec::new();
    // A record makes at most two observations.
    while batch.len() + 2 <= BATCH_MAX {
        let Some(record) = ring.next() else { break };
        decode::record(&record, &mut batch);
    }
    if batch.is_empty() {
        return false;
    }
    addresses.fill(&mut batch);
    let full = batch.len() + 2 > BATCH_MAX;
    shared.note(&batch);
    let opened = batch.iter().map(opened_by).sum();
    if !send(batch, sender, shared) {
        return false;
    }
    shared.opened_on_ring.fetch_add(opened, Ordering::Relaxed);
    full
}

fn opened_by(observation: &Observation) -> u64 {
    match observation {
        Observation::FlowCounted { delta, end, .. } if end.protocol == Protocol::Tcp => delta.opened,
        _ => 0,
    }
}

/// Waits for room in the channel until the capture has stopped; whether the batch was taken.
fn send(mut batch: Vec<Observation>, sender: &mpsc::Sender<Vec<Observation>>, shared: &Arc<Shared>) -> bool {
    loop {
        match sender.try_send(batch) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(returned)) => batch = returned,
        }
        if shared.is_overdue() {
            return false;
        }
        std::thread::sleep(CHANNEL_FULL_PAUSE);
    }
}
