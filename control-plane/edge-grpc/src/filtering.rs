//! Work that looks at every node of a view: beside the runtime's own threads, a few at a time, and not for ever.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use topology::SearchTooLong;

/// Whoever comes beyond these waits for a turn: a processor is left for the map.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Longest that one of them may take. It holds up nobody who asks for no query.
const SPAN: Duration = Duration::from_secs(2);

/// Why nothing came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilteringError {
    /// It was given up.
    #[error(transparent)]
    TooLong(#[from] SearchTooLong),
    /// The process is about to end.
    #[error("the control plane stops")]
    Stopped,
}

/// Does such a piece of work, which has to ask between any two parts of it whether it may go on.
///
/// # Errors
/// When it takes too long, or the process ends.
pub async fn in_turn<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, SearchTooLong> + Send + 'static,
) -> Result<T, FilteringError> {
    let turn = TURNS.acquire().await.map_err(|_| FilteringError::Stopped)?;
    let working = tokio::task::spawn_blocking(move || {
        // It goes on when nobody waits for it any more.
        let _turn = turn;
        let begun = OnceCell::new();
        work(&|| begun.get_or_init(Instant::now).elapsed() < SPAN)
    });
    match working.await {
        Ok(outcome) => Ok(outcome?),
        Err(panic) => match panic.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(FilteringError::Stopped),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_and_others_have_their_turn() {
        let endless = || {
            in_turn::<()>(|may_go_on| {
                while may_go_on() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(SearchTooLong)
            })
        };
        let (first, second, third) = tokio::join!(endless(), endless(), in_turn(|_| Ok(3)));
        assert_eq!((first, second), (Err(FilteringError::TooLong(SearchTooLong)), Err(FilteringError::TooLong(SearchTooLong))));
        assert_eq!(third, Ok(3));
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_does_not_give_the_turn_to_others() {
        for _ in 0..4 {
            let work = in_turn(|may_go_on| {
                std::thread::sleep(Duration::from_millis(200));
                if may_go_on() { Ok(()) } else { Err(SearchTooLong) }
            });
            let _ = tokio::time::timeout(Duration::from_millis(20), work).await;
        }
        assert!(TURNS.available_permits() <= 1);
        assert_eq!(in_turn(|_| Ok(1)).await, Ok(1));
    }
}
