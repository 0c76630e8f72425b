//! Every loop of the process: its name, what happens when it ends, and how the process waits for it.
//!
//! Three policies, each a method of [`Supervisor`]: [`Supervisor::essential`] for a driver, whose core is suspect after a panic, so that the
//! process ends and starts again from the store; [`Supervisor::restarting`] for an edge's loop, which is made anew after a growing pause;
//! [`Supervisor::one_off`] for a connection, which is expected to end. A panic never passes unseen: it is counted and logged by name.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::Telemetry;
use crate::telemetry::events::{LoopPanicked, LoopRestarted};

/// Owner of all loops. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    loops: TaskTracker,
    stopping: CancellationToken,
    failure: Arc<watch::Sender<Option<&'static str>>>,
    telemetry: Telemetry,
}

/// How long to wait before a loop is started again: doubling from `first` to `longest`, and from `first` again after a run of `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first end.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Backoff {
    /// For loops whose restart costs nothing: 100 ms to 10 s.
    pub const EDGE: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };

    fn after(self, pause: Duration) -> Duration {
        pause.saturating_mul(2).min(self.longest)
    }
}

impl Supervisor {
    /// A supervisor without loops.
    pub fn new(telemetry: Telemetry) -> Self {
        Supervisor { loops: TaskTracker::new(), stopping: CancellationToken::new(), failure: Arc::new(watch::Sender::new(None)), telemetry }
    }

    /// Cancelled when the process begins to stop. Edges stop accepting and end their streams.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Runs a loop that the process cannot be without: if it ends before the process stops, [`Supervisor::failed`] says so.
    pub fn essential(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.start(async move {
            this.guard(name, run).await;
            if !this.stopping.is_cancelled() {
                this.failure.send_replace(Some(name));
            }
        });
    }

    /// Runs a loop that is made anew whenever it ends, until the process stops.
    pub fn restarting<F, R>(&self, name: &'static str, backoff: Backoff, mut make: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        self.start(async move {
            let mut pause = backoff.first;
            loop {
                let begun = Instant::now();
                this.guard(name, make()).await;
                if this.stopping.is_cancelled() {
                    return;
                }
                if begun.elapsed() >= backoff.longest {
                    pause = backoff.first;
                }
                LoopRestarted { name, pause }.emit(&this.telemetry);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = this.stopping.cancelled() => return,
                }
                pause = backoff.after(pause);
            }
        });
    }

    /// Runs something that ends by itself.
    pub fn one_off(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        self.start(async move { this.guard(name, run).await });
    }

    /// Waits until an essential loop has ended, and names it.
    pub async fn failed(&self) -> &'static str {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(name) = *failure.borrow_and_update() {
                return name;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells every loop to stop.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.loops.close();
    }

    /// Waits until every loop has ended. Call [`Supervisor::stop`] first.
    pub async fn ended(&self) {
        self.loops.wait().await;
    }

    /// How many loops there are, connections included.
    pub fn running(&self) -> usize {
        self.loops.len()
    }

    async fn guard(&self, name: &'static str, run: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
            LoopPanicked { name, message: panic_message(&*panic) }.emit(&self.telemetry);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, run: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.loops.track_future(run)));
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn supervisor() -> (Supervisor, Telemetry) {
        let telemetry = Telemetry::new();
        (Supervisor::new(telemetry.clone()), telemetry)
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_started_again_after_a_growing_pause() {
        let (supervisor, telemetry) = supervisor();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        supervisor.restarting("test", Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) }, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("again") }
        });
        tokio::time::sleep(Duration::from_millis(7_500)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 4, "at 0, 1, 3 and 7 seconds");
        let page = telemetry.render();
        assert!(page.contains("orchestrator_loop_panics_total{loop=\"test\"} 4"), "{page}");
        assert!(page.contains("orchestrator_loop_restarts_total{loop=\"test\"} 4"), "{page}");
        supervisor.stop();
        supervisor.ended().await;
    }

    #[tokio::test]
    async fn an_essential_loop_that_ends_is_named() {
        let (supervisor, _) = supervisor();
        supervisor.essential("driver", async {});
        assert_eq!(supervisor.failed().await, "driver");
    }

    #[tokio::test]
    async fn an_essential_loop_may_end_once_the_process_stops() {
        let (supervisor, _) = supervisor();
        let stopping = supervisor.stopping().clone();
        supervisor.essential("driver", async move { stopping.cancelled().await });
        supervisor.stop();
        supervisor.ended().await;
        assert!(supervisor.failed().now_or_never().is_none());
    }
}
