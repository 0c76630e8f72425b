//! Gives the lead to the next in line: what is under way is finished, what comes waits, and goes to whoever leads then.

use std::time::Duration;

use ha::{Member, Standing};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::hold::Hold;

/// How long requests that are under way may take to be finished. What takes longer is cut off, as when the process stops.
const UNDER_WAY_MAX: Duration = Duration::from_secs(1);
/// How long until it is known who leads then. It takes as long as the ensemble takes for two answers.
const NEXT_MAX: Duration = Duration::from_secs(3);

/// How long connections are still taken, to be carried to the next leader: until every other control plane has heard of it.
const LINGER: Duration = Duration::from_secs(1);

/// The lead, for whoever asks about it or wants it to be given up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lead {
    standing: watch::Receiver<Standing>,
    withdrawal: CancellationToken,
    hold: Hold,
    given_up: CancellationToken,
}

/// Why the lead was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOverError {
    /// It is not ours.
    #[error("this control plane does not lead")]
    NotLeading,
    /// Nobody would take it.
    #[error("no other control plane stands for election: nobody could take over")]
    Alone,
    /// It is being handed over already.
    #[error("the lead is being handed over already")]
    UnderWay,
    /// It was given up, and nobody has taken it.
    #[error("the lead was given up, and nobody has taken it within {} s", NEXT_MAX.as_secs())]
    NobodyYet,
}

impl Lead {
    pub(super) fn new(standing: watch::Receiver<Standing>, withdrawal: CancellationToken, hold: Hold) -> Self {
        Lead { standing, withdrawal, hold, given_up: CancellationToken::new() }
    }

    /// How things stand.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether it is, or was, being handed over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.hold.handing_over().is_cancelled()
    }

    /// Gives up the lead, and waits until it is known who has it. The process has to end after that: it was made to lead once.
    ///
    /// # Errors
    /// When it is not given up, or nobody takes it.
    pub(crate) async fn hand_over(&self) -> Result<Member, HandOverError> {
        let now = self.standing();
        if self.is_handed_over() {
            return Err(HandOverError::UnderWay);
        }
        if !now.leads() {
            return Err(HandOverError::NotLeading);
        }
        if now.others == 0 {
            return Err(HandOverError::Alone);
        }
        tracing::info!("hands over the lead");
        self.hold.handing_over().cancel();
        if timeout(UNDER_WAY_MAX, self.hold.quiet()).await.is_err() {
            tracing::info!("requests that take longer are cut off");
        }
        self.withdrawal.cancel();
        let next = timeout(NEXT_MAX, self.next()).await.ok().flatten();
        let next = next.ok_or(HandOverError::NobodyYet)?;
        tracing::info!(leader = next.host_name, address = %next.master, "handed over the lead");
        Ok(next)
    }

    /// Waits, if the lead is being handed over, until nobody comes to us any more who wants the leader.
    pub(crate) async fn handed_over(&self) {
        if self.is_handed_over() {
            drop(timeout(UNDER_WAY_MAX + NEXT_MAX, self.next()).await);
            tokio::time::sleep(LINGER).await;
        }
    }

    async fn next(&self) -> Option<Member> {
        let mut standing = self.standing.clone();
        let known = standing.wait_for(|it| it.leader.is_some() && !it.leads()).await;
        known.ok().and_then(|it| it.leader.clone())
    }

    /// Has the process end, some time after the lead was handed over, to be started again as one that follows.
    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Waits for [`Lead::give_up`].
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}
