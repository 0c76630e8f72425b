//! Looks at what the programs cannot know or had no room to tell: who holds listeners, and what is there after records were lost.

use std::collections::HashSet;

use tokio::sync::oneshot;

use super::{Ladder, LadderError};
use crate::clock::Now;
use crate::connections::ListenerWatch;
use crate::driver::{Doubts, Input};
use crate::ebpf::Looker;
use crate::observation::{FlowEnd, ListenersThere, Observation, OpenEnds};
use crate::sockets::SocketRecord;

impl Ladder {
    pub(super) async fn doubts(&self) -> Result<Doubts, LadderError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::DoubtsWanted(reply)).await?;
        answer.await.map_err(|_| LadderError::Stopping)
    }

    /// Tells which connections are open: ends of some may have been lost.
    pub(super) async fn look_at_open(&self, looker: &Looker, except: HashSet<FlowEnd>) -> Result<(), LadderError> {
        let looker = looker.clone();
        let at = Now::read().boot;
        match self.blocking(move |_| looker.open_ends()).await? {
            Some(Ok(open)) => self.tell(Input::OpenEnds(Box::new(OpenEnds { at, open, except }))).await,
            Some(Err(error)) => {
                tracing::debug!(%error, "kernel does not tell which connections are counted");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells who holds the listeners of which that is not known, or which were perhaps given to somebody: nobody tells when a socket changes hands.
    pub(super) async fn look_at_holders(&self, looker: &Looker) -> Result<(), LadderError> {
        let looker = looker.clone();
        let looked = self.blocking(move |ladder| {
            let sockets = looker.sockets()?;
            Some(sockets.map(|sockets| {
                let owner = |socket: &SocketRecord| sockets.holders.owner(&ladder.procfs, ladder.unified.as_deref(), socket);
                let mut observations = ListenerWatch::default().look(sockets.at, &sockets.tables, owner, |socket| socket != 0);
                // Of one without a holder nothing new is known.
                observations.retain(|it| matches!(it, Observation::ListenerOpened(opened) if opened.pid != 0));
                observations
            }))
        });
        match looked.await? {
            Some(Ok(observations)) => self.observations.send(observations).await.map_err(|_| LadderError::Stopping),
            Some(Err(error)) => {
                tracing::debug!(%error, "holders of listeners cannot be looked at");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Tells which listeners there are, and of whom: records of some were lost, when they began or when they ended.
    pub(super) async fn look_at_all_listeners(&self, looker: &Looker) -> Result<(), LadderError> {
        let looker = looker.clone();
        let at = Now::read().boot;
        let looked = self.blocking(move |_| {
            // Those that the programs know, and those that processes have open: either may have some that the other has not.
            let (listening, sockets) = (looker.listeners()?, looker.sockets()?);
            Some(listening.and_then(|listening| Ok((listening, sockets?))))
        });
        let (told, sockets) = match looked.await? {
            Some(Ok(looked)) => looked,
            Some(Err(error)) => {
                tracing::debug!(%error, "listeners cannot be looked at");
                return Ok(());
            }
            None => return Ok(()),
        };
        let known = told.iter().filter_map(|it| if let Observation::ListenerOpened(opened) = it { Some(opened.socket) } else { None });
        let open = sockets.tables.iter().flat_map(|table| &table.sockets).filter(|it| it.is_listener()).map(|it| it.cookie);
        let there: HashSet<u64> = known.chain(open).collect();
        self.observations.send(told).await.map_err(|_| LadderError::Stopping)?;
        self.tell(Input::ListenersThere(Box::new(ListenersThere { at, there }))).await
    }
}
