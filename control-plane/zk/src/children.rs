use zookeeper_client as library;

use crate::client::Client;
use crate::error::Error;

/// Tells once that the children of a znode may be others than they were.
#[derive(Debug)]
pub struct ChildrenWatch(library::OneshotWatcher);

impl ChildrenWatch {
    /// Waits for that.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn changed(self) -> Result<(), Error> {
        let event = self.0.changed().await;
        if event.event_type == library::EventType::Session && event.session_state.is_terminated() {
            return Err(Error::Ended(event.session_state.to_string()));
        }
        Ok(())
    }
}

impl Client {
    /// Names of the children, and word of the next change. After a reconnect, ask again: what was missed is not told.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`, or no answer.
    pub async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, ChildrenWatch), Error> {
        let (names, watcher) = self.inner.list_and_watch_children(path).await?;
        Ok((names, ChildrenWatch(watcher)))
    }

    /// Waits until the session is not connected.
    pub async fn disconnected(&self) {
        let mut state = self.inner.state_watcher();
        let mut now = state.state();
        while now == library::SessionState::SyncConnected {
            now = state.changed().await;
        }
    }

    /// Waits until the session is connected.
    ///
    /// # Errors
    /// When it is over.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut state = self.inner.state_watcher();
        let mut now = state.state();
        while now != library::SessionState::SyncConnected {
            if now.is_terminated() {
                return Err(Error::Ended(now.to_string()));
            }
            now = state.changed().await;
        }
        Ok(())
    }
}
