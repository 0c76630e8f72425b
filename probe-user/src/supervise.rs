//! Every loop of the process: its name, what happens when it ends, and how the process waits for it. The one place that spawns.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::Telemetry;

/// How long to wait before a loop is started again: doubling from `first` to `longest`, and from `first` again after a run of `longest`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first end.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Backoff {
    /// For loops whose restart costs little: 200 ms to 30 s.
    pub const EDGE: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) };
}

/// Owner of all loops. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    loops: TaskTracker,
    stopping: CancellationToken,
    failure: Arc<watch::Sender<Option<&'static str>>>,
    telemetry: Telemetry,
}

impl Supervisor {
    /// A supervisor without loops.
    pub fn new(telemetry: Telemetry) -> Self {
        Supervisor { loops: TaskTracker::new(), stopping: CancellationToken::new(), failure: Arc::new(watch::Sender::new(None)), telemetry }
    }

    /// Cancelled when the process begins to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Runs a loop that the process cannot be without: if it ends before the process stops, [`Supervisor::failed`] says so. The token that is
    /// returned is cancelled when the loop has ended.
    pub fn essential(&self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) -> CancellationToken {
        let this = self.clone();
        let ended = CancellationToken::new();
        let end = ended.clone();
        self.start(async move {
            this.guard(name, run).await;
            if !this.stopping.is_cancelled() {
                this.failure.send_replace(Some(name));
            }
            end.cancel();
        });
        ended
    }

    /// Runs a loop that is made anew whenever it ends, until the process stops. The token that is returned is cancelled then.
    pub fn restarting<F, R>(&self, name: &'static str, backoff: Backoff, mut make: F) -> CancellationToken
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        self.start(async move {
            let _end = end;
            let mut pause = backoff.first;
            loop {
                let begun = tokio::time::Instant::now();
                this.guard(name, make()).await;
                if this.stopping.is_cancelled() {
                    return;
                }
                if begun.elapsed() >= backoff.longest {
                    pause = backoff.first;
                }
                this.telemetry.metrics().loop_restarts.with_label_values(&[name]).inc();
                tracing::warn!(name, ?pause, "loop ended and is started again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = this.stopping.cancelled() => return,
                }
                pause = pause.saturating_mul(2).min(backoff.longest);
            }
        });
        ended
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

    async fn guard(&self, name: &'static str, run: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
            self.telemetry.metrics().loop_panics.with_label_values(&[name]).inc();
            tracing::error!(name, message = panic_message(&*panic), "loop panicked");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start(&self, run: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(self.loops.track_future(run)));
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_started_again_after_a_growing_pause() {
        let telemetry = Telemetry::new();
        let supervisor = Supervisor::new(telemetry.clone());
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        let ended = supervisor.restarting("test", Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) }, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { panic!("again") }
        });
        tokio::time::sleep(Duration::from_millis(7_500)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 4, "at 0, 1, 3 and 7 seconds");
        assert_eq!(telemetry.metrics().loop_panics.with_label_values(&["test"]).get(), 4);
        supervisor.stop();
        ended.cancelled().await;
        supervisor.ended().await;
    }

    #[tokio::test]
    async fn an_essential_loop_that_ends_is_named() {
        let supervisor = Supervisor::new(Telemetry::new());
        supervisor.essential("driver", async {});
        assert_eq!(supervisor.failed().await, "driver");
    }

    #[tokio::test]
    async fn an_essential_loop_may_end_once_the_process_stops() {
        let supervisor = Supervisor::new(Telemetry::new());
        let stopping = supervisor.stopping().clone();
        supervisor.essential("driver", async move { stopping.cancelled().await });
        supervisor.stop();
        supervisor.ended().await;
        assert!(supervisor.failed().now_or_never().is_none());
    }
}
