use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use zksync::Side;

/// Distinct changed paths that wait to be told to the core; beyond it everything is read again.
const WAITING_MAX: usize = 500_000;

/// Changed paths on their way from the watches to the core: as many as there are distinct ones, in the order of their first change.
#[derive(Debug, Default)]
pub(crate) struct Events {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: Vec<(Side, String)>,
    known: BTreeSet<(Side, String)>,
    overflowed: bool,
}

impl Events {
    pub(crate) fn add(&self, side: Side, path: String) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.order.len() >= WAITING_MAX {
            waiting.overflowed = true;
        } else if waiting.known.insert((side, path.clone())) {
            waiting.order.push((side, path));
        }
        drop(waiting);
        self.some.notify_one();
    }

    pub(crate) fn take(&self) -> (Vec<(Side, String)>, bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { order, overflowed, .. } = std::mem::take(&mut *waiting);
        (order, overflowed)
    }

    pub(crate) async fn some(&self) {
        self.some.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_waits_once_and_an_overflow_is_told() {
        let events = Events::default();
        for path in ["/x", "/y", "/x"] {
            events.add(Side::A, path.to_owned());
        }
        events.add(Side::B, "/x".to_owned());
        let (order, overflowed) = events.take();
        assert_eq!(order, [(Side::A, "/x".to_owned()), (Side::A, "/y".to_owned()), (Side::B, "/x".to_owned())]);
        assert!(!overflowed);
        for n in 0..=WAITING_MAX {
            events.add(Side::A, n.to_string());
        }
        assert!(events.take().1);
        assert!(!events.take().1);
    }
}
