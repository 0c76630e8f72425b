use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Client;
use crate::options::Options;

/// Between two attempts to open a session.
const RETRY: Duration = Duration::from_millis(500);

/// A session that is made anew whenever it is over. Ends when dropped.
#[derive(Debug)]
pub struct Session {
    state: watch::Receiver<SessionState>,
    _ends: DropGuard,
}

/// How a session stands.
#[derive(Clone, Debug)]
pub enum SessionState {
    /// There is none; the last attempt ended so.
    Connecting(Option<String>),
    /// There is one. Whether it is connected right now, ask it; it is another one when the number is another.
    Open(Client, u64),
}

impl Session {
    /// Begins to connect, and goes on until dropped.
    pub fn open(options: Options) -> Session {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let (tell, state) = watch::channel(SessionState::Connecting(None));
        spawn(async move {
            tokio::select! { () = keep(&options, &tell) => {}, () = ended.cancelled() => {} }
        });
        Session { state, _ends: stop.drop_guard() }
    }

    /// How it stands, now and on every change.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    /// Waits for an open session.
    pub async fn client(&self) -> Client {
        let mut state = self.state.clone();
        loop {
            if let SessionState::Open(client, _) = &*state.borrow_and_update() {
                return client.clone();
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn keep(options: &Options, tell: &watch::Sender<SessionState>) {
    for number in 1.. {
        let client = loop {
            match Client::connect(options).await {
                Ok(client) => break client,
                Err(error) => {
                    tell.send_replace(SessionState::Connecting(Some(error.to_string())));
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tell.send_replace(SessionState::Open(client.clone(), number));
        let mut state = client.inner.state_watcher();
        let mut now = state.state();
        while !now.is_terminated() {
            now = state.changed().await;
        }
        tell.send_replace(SessionState::Connecting(Some(format!("the session before: {now}"))));
    }
}

/// Runs beside everything else; whoever starts it holds what ends it.
#[expect(clippy::disallowed_methods, reason = "the handles that are given out end their tasks when dropped")]
pub(crate) fn spawn(run: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(run));
}
