//! Controls of one container, one after the other: a daemon can lose a container that is paused while a command is being started in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, for each container that something is done to.
#[derive(Debug, Default)]
pub(super) struct Turns {
    by_container: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits until everything that was asked of this container before is done. The turn ends when the guard is dropped.
    pub(super) async fn take(&self, container: &str) -> OwnedMutexGuard<()> {
        self.turn_of(container).lock_owned().await
    }

    fn turn_of(&self, container: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut by_container = self.by_container.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = by_container.get(container).and_then(Weak::upgrade) {
            return turn;
        }
        // Only those are kept that somebody has or waits for: there are few.
        by_container.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        by_container.insert(container.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn controls_of_one_container_wait_for_each_other_in_their_order() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut second = Box::pin(turns.take("a"));
        let mut third = Box::pin(turns.take("a"));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert!(turns.take("b").now_or_never().is_some(), "another container does not wait");
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        drop(second.now_or_never().unwrap());
        drop(third.now_or_never().unwrap());
        drop(turns.take("c").await);
        assert_eq!(turns.by_container.lock().unwrap().len(), 1, "nobody waits for the others any more");
    }

    #[tokio::test]
    async fn who_gives_up_does_not_keep_the_others_waiting() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut given_up = Box::pin(turns.take("a"));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut next = Box::pin(turns.take("a"));
        assert!(next.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(first);
        assert!(next.now_or_never().is_some());
    }
}
