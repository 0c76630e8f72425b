//! Who has a connection and asks for nothing. When nearly all places are taken, those go who have never asked for anything, who came first before
//! all, and then those who are kept alive between two requests: whoever opens thousands of connections and leaves them takes no place from others.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Room is made while less than this share of all places is free.
const FREE_SHARE: usize = 8;
/// Whoever has connected just now is about to ask.
const GRACE: Duration = Duration::from_secs(1);

/// All who have a connection and ask for nothing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<Idle>>);

#[derive(Debug, Default)]
struct Idle {
    /// Whether they have asked before, since when they ask for nothing, and their numbers.
    since: BTreeMap<(bool, Instant, u64), CancellationToken>,
    last: u64,
}

impl Crowd {
    /// A place for somebody who has asked for nothing yet.
    pub(super) fn seat(&self, now: Instant) -> Arc<Seat> {
        let mut idle = self.lock();
        idle.last += 1;
        let seat = Seat {
            crowd: self.clone(),
            number: idle.last,
            has_asked: AtomicBool::new(false),
            idle_since: Mutex::new(None),
            gone: CancellationToken::new(),
        };
        drop(idle);
        seat.rests(now);
        Arc::new(seat)
    }

    /// Sends one away, if few places are free and one has asked for nothing for a while. Whether it did.
    pub(super) fn make_room(&self, free: usize, places: usize, now: Instant) -> bool {
        if free > places / FREE_SHARE {
            return false;
        }
        let mut idle = self.lock();
        match idle.since.first_entry() {
            Some(longest) if longest.key().1 + GRACE <= now => {
                longest.remove().cancel();
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Crowd,
    number: u64,
    has_asked: AtomicBool,
    /// With whether it had asked then.
    idle_since: Mutex<Option<(bool, Instant)>>,
    gone: CancellationToken,
}

impl Seat {
    /// Something is asked for, which may be carried out unless the place was taken away before.
    pub(super) fn works(&self) -> bool {
        self.has_asked.store(true, Ordering::Relaxed);
        self.rises();
        !self.gone.is_cancelled()
    }

    fn rises(&self) {
        let since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((had_asked, since)) = since {
            self.crowd.lock().since.remove(&(had_asked, since, self.number));
        }
    }

    /// Everything that was asked for is answered.
    fn rests(&self, now: Instant) {
        self.rises();
        let has_asked = self.has_asked.load(Ordering::Relaxed);
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Some((has_asked, now));
        self.crowd.lock().since.insert((has_asked, now, self.number), self.gone.clone());
    }

    /// Waits until the place is wanted for somebody else, of whoever has never asked for anything: there is nothing to finish.
    pub(super) async fn is_wanted_at_once(&self) {
        self.gone.cancelled().await;
        if self.has_asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Waits until the place is wanted for somebody else.
    pub(super) async fn is_wanted(&self) {
        self.gone.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rises();
    }
}

/// The body of an answer, with whose end the client asks for nothing any more.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) body: Body,
    pub(super) seat: Arc<Seat>,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.seat.rests(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_asked_for_nothing_the_longest_goes_first_and_whoever_is_answered_stays() {
        let (crowd, begun) = (Crowd::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let seats: Vec<Arc<Seat>> = (0..4).map(|number| crowd.seat(at(number))).collect();
        let gone = || seats.iter().map(|seat| seat.gone.is_cancelled()).collect::<Vec<_>>();
        assert!(seats[0].works());
        assert!(!crowd.make_room(2, 8, at(10)), "there is room");
        assert!(crowd.make_room(1, 8, at(10)));
        assert_eq!(gone(), [false, true, false, false]);
        assert!(!seats[1].works(), "it came too late");
        // The first rests again, behind those who have never asked.
        seats[0].rests(at(1));
        assert!(crowd.make_room(0, 8, at(10)));
        assert_eq!(gone(), [false, true, true, false]);
        assert!(crowd.make_room(0, 8, at(10)) && crowd.make_room(0, 8, at(10)));
        assert_eq!(gone(), [true; 4]);
        assert!(!crowd.make_room(0, 8, at(10)), "there is nobody left");
        let late = crowd.seat(at(10));
        assert!(!crowd.make_room(0, 8, at(10)) && crowd.make_room(0, 8, at(11)));
        drop((late, seats));
        assert!(crowd.lock().since.is_empty());
    }
}
