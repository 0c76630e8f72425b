use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Lets one log line through per interval, and counts those held back, so that a hostile or broken peer cannot fill the disk.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Quiet {
    /// Time between two lines.
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Some(number of lines held back since the last one) when a line may be written now.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        if state.last.is_some_and(|last| now.duration_since(last) < Self::INTERVAL) {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_interval_tells_how_many_were_held_back() {
        let quiet = Quiet::default();
        assert_eq!(quiet.admit(), Some(0));
        assert_eq!(quiet.admit(), None);
        assert_eq!(quiet.admit(), None);
        tokio::time::advance(Quiet::INTERVAL).await;
        assert_eq!(quiet.admit(), Some(2));
        tokio::time::advance(Quiet::INTERVAL).await;
        assert_eq!(quiet.admit(), Some(0));
    }
}
