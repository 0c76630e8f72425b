use std::time::Duration;

use zookeeper_client as library;

use crate::client::{Acl, Client, CreateKind};
use crate::error::Error;

/// One who wants to lead: an ephemeral, sequential znode below a common parent. The lowest number leads.
#[derive(Debug)]
pub struct Candidate {
    client: Client,
    parent: String,
    path: String,
}

/// The right to lead, as long as the session lives and is connected. It is a hint, not a lock: whatever must not be done twice is to be
/// fenced by a version besides.
#[derive(Debug)]
pub struct Leadership {
    client: Client,
    /// The znode that stands for it.
    pub path: String,
}

impl Candidate {
    /// Stands for election below `parent`, which is made when it is missing. `name` is what others see as the leader.
    ///
    /// # Errors
    /// `NoAuth`, or no answer.
    pub async fn stand(client: &Client, parent: &str, name: &str) -> Result<Candidate, Error> {
        client.create_all(parent).await?;
        let path = client.create(&format!("{parent}/candidate-"), name.as_bytes(), &Acl::open(), CreateKind::EphemeralSequential).await?;
        Ok(Candidate { client: client.clone(), parent: parent.to_owned(), path })
    }

    /// Waits until this candidate leads. Each waits for the one before it alone, so that a departure wakes one and not all.
    ///
    /// # Errors
    /// When the session is over: the candidature is, too.
    pub async fn elected(self) -> Result<Leadership, Error> {
        loop {
            let mine = self.path.rsplit('/').next().unwrap_or_default();
            let mut names = match self.client.children(&self.parent).await {
                Ok(names) => names,
                Err(Error::Unknown(_)) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            names.retain(|name| name.starts_with("candidate-"));
            names.sort();
            let Ok(place) = names.binary_search_by(|name| name.as_str().cmp(mine)) else {
                return Err(Error::Ended("the candidature is gone".to_owned()));
            };
            if place == 0 {
                return Ok(Leadership { client: self.client.clone(), path: self.path });
            }
            let before = format!("{}/{}", self.parent, names[place - 1]);
            if let Ok((Some(_), watcher)) = self.client.inner.check_and_watch_stat(&before).await {
                let event = watcher.changed().await;
                if event.event_type == library::EventType::Session && event.session_state.is_terminated() {
                    return Err(Error::Ended(event.session_state.to_string()));
                }
            }
        }
    }

    /// Who leads below `parent`, if anybody does.
    ///
    /// # Errors
    /// No answer.
    pub async fn leader(client: &Client, parent: &str) -> Result<Option<String>, Error> {
        let mut names = match client.children(parent).await {
            Ok(names) => names,
            Err(Error::NoNode) => return Ok(None),
            Err(error) => return Err(error),
        };
        names.retain(|name| name.starts_with("candidate-"));
        names.sort();
        for name in names {
            match client.get(&format!("{parent}/{name}")).await {
                Ok((data, _)) => return Ok(Some(String::from_utf8_lossy(&data).into_owned())),
                Err(Error::NoNode) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Leadership {
    /// Waits until the session is no longer connected: from then on somebody else may lead. Not "expired": the client hears of that only
    /// after the server has given the lead away.
    pub async fn lost(&self) {
        let mut state = self.client.inner.state_watcher();
        let mut now = state.state();
        while now == library::SessionState::SyncConnected {
            now = state.changed().await;
        }
    }

    /// Gives the lead away at once.
    ///
    /// # Errors
    /// No answer; then it goes with the session.
    pub async fn resign(self) -> Result<(), Error> {
        self.client.delete(&self.path, None).await
    }
}
