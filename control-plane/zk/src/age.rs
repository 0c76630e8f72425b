//! What servers of some age do not have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use zookeeper_client as library;

use crate::client::Client;
use crate::error::Error;

/// A server that has refused what it does not know hangs up within this time.
const HANGS_UP: Duration = Duration::from_secs(1);

/// What is known of the servers of a session. Those before 3.6 have neither reads of many znodes nor recursive watches; they answer a request that
/// they do not know, and hang up: whatever else was under way has no answer then. So they are asked once, before anything depends on it.
#[derive(Debug, Default)]
pub(crate) struct Age {
    asked: OnceCell<()>,
    old: AtomicBool,
}

impl Client {
    /// Whether the servers are older than 3.6. Asks the first time.
    pub(crate) async fn is_old(&self) -> Result<bool, Error> {
        self.age.asked.get_or_try_init(|| self.ask_age()).await?;
        Ok(self.age.old.load(Ordering::Relaxed))
    }

    async fn ask_age(&self) -> Result<(), Error> {
        let mut reader = self.inner.new_multi_reader();
        reader.add_get_data("/")?;
        match reader.commit().await {
            Ok(_) => Ok(()),
            Err(library::Error::Unimplemented) => self.turned_out_old().await,
            Err(error) => Err(error.into()),
        }
    }

    /// Remembers that a server refused what came with 3.6, and waits until the connection that it ends is there again. It may be one of an ensemble
    /// that is being upgraded: from then on this session asks none for it.
    pub(crate) async fn turned_out_old(&self) -> Result<(), Error> {
        self.age.old.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(HANGS_UP, self.disconnected()).await;
        self.connected().await
    }
}
