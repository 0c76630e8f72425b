//! Connections that wait until somebody leads, and requests that are under way while the lead is handed over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;
use crate::telemetry::events::{ConnectionHeld, ConnectionReleased, HoldEnd};

/// How long a connection waits for somebody to lead. A leader that dies is known to be gone after the session timeout, which is 10 s unless told
/// otherwise; one that hands over, at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that wait at once; each has a descriptor, and what its client has sent stays with the system.
pub(super) const HELD_MAX: usize = 2_048;

/// What the listeners of one process have in common. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    room: Arc<Semaphore>,
    patience: Duration,
    handing_over: CancellationToken,
    under_way: Arc<watch::Sender<usize>>,
    stopping: CancellationToken,
    telemetry: Telemetry,
}

/// A connection that waits. Counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    hold: Hold,
    end: HoldEnd,
    _room: OwnedSemaphorePermit,
}

/// A request that is under way, or a new connection from which one is expected, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<watch::Sender<usize>>);

impl Hold {
    pub(crate) fn new(patience: Duration, stopping: CancellationToken, telemetry: Telemetry) -> Self {
        let (room, under_way) = (Arc::new(Semaphore::new(HELD_MAX)), Arc::new(watch::Sender::new(0)));
        Hold { room, patience, handing_over: CancellationToken::new(), under_way, stopping, telemetry }
    }

    /// Cancelled when the lead is about to be handed over: new connections wait from then on, and those that are there take no further request.
    pub(crate) fn handing_over(&self) -> &CancellationToken {
        &self.handing_over
    }

    /// Cancelled when the process stops.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// A place to wait; none when as many as may wait do. `spare` places are left to others.
    pub(super) fn take(&self, spare: usize) -> Option<Held> {
        let has_room = self.room.available_permits() > spare;
        match self.room.clone().try_acquire_owned() {
            Ok(room) if has_room => {
                ConnectionHeld.emit(&self.telemetry);
                Some(Held { hold: self.clone(), end: HoldEnd::Gone, _room: room })
            }
            _ => {
                ConnectionReleased { end: HoldEnd::Full, was_held: false }.emit(&self.telemetry);
                None
            }
        }
    }

    /// Counts a request as under way.
    pub(crate) fn begin(&self) -> UnderWay {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(self.under_way.clone())
    }

    /// Waits until no request is under way.
    pub(super) async fn quiet(&self) {
        drop(self.under_way.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl Held {
    /// It waits no longer.
    pub(super) fn ends(mut self, end: HoldEnd) {
        self.end = end;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ConnectionReleased { end: self.end, was_held: true }.emit(&self.hold.telemetry);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
