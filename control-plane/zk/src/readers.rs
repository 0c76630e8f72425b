//! More connections for reading many access control lists.
//!
//! A server reads one request of a connection after another, and hands each from thread to thread: one connection brings about 22,000 of them a
//! second out of a server of which eight bring 75,000, for the same processor time. No request reads several lists.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::client::Client;
use crate::options::Options;
use crate::session::spawn;

/// Fewer lists than that are read over the session's own connection.
pub(crate) const WORTH_IT: usize = 64;
/// Connections besides the session's own.
const BESIDES: usize = 6;
/// The same of the whole process: servers allow 60 to an address unless told otherwise (`maxClientCnxns`), and sessions need some.
const OF_THE_PROCESS: usize = 18;
/// Who is not needed for so long goes.
const IDLE: Duration = Duration::from_secs(10);
/// Longer than that is not waited for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// After none could be opened.
const PAUSE: Duration = Duration::from_secs(30);

/// Sessions that read beside another one, as the same identities. Opened when needed, closed when not.
#[derive(Debug)]
pub(crate) struct Readers {
    options: Options,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Reader>,
    used: Option<Instant>,
    refused: Option<Instant>,
}

#[derive(Debug)]
struct Reader {
    client: Client,
    _room: OwnedSemaphorePermit,
}

impl Readers {
    pub(crate) fn new(options: &Options) -> Readers {
        Readers { options: options.clone(), state: Arc::default() }
    }

    /// Those that can be used now; none when the server wants no more connections.
    pub(crate) async fn open(&self) -> Vec<Client> {
        let mut state = self.state.lock().await;
        state.open.retain(|reader| reader.client.is_connected());
        if state.open.is_empty() && state.refused.is_none_or(|at| at.elapsed() > PAUSE) {
            let room: Vec<_> = (0..BESIDES).map_while(|_| room().try_acquire_owned().ok()).collect();
            let opened = join_all(room.into_iter().map(|room| self.one(room))).await;
            state.open = opened.into_iter().flatten().collect();
            state.refused = state.open.is_empty().then(Instant::now);
            if !state.open.is_empty() {
                spawn(close_when_idle(Arc::downgrade(&self.state)));
            }
        }
        state.used = Some(Instant::now());
        state.open.iter().map(|reader| reader.client.clone()).collect()
    }

    async fn one(&self, room: OwnedSemaphorePermit) -> Option<Reader> {
        let client = Box::pin(tokio::time::timeout(PATIENCE, Client::connect(&self.options))).await.ok()?.ok()?;
        Some(Reader { client, _room: room })
    }
}

async fn close_when_idle(state: Weak<Mutex<State>>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        // Without the session that they read for they are gone already.
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock().await;
        if state.used.is_none_or(|at| at.elapsed() > IDLE) {
            state.open.clear();
            return;
        }
        if state.open.is_empty() {
            return;
        }
    }
}

fn room() -> Arc<Semaphore> {
    static ROOM: OnceLock<Arc<Semaphore>> = OnceLock::new();
    ROOM.get_or_init(|| Arc::new(Semaphore::new(OF_THE_PROCESS))).clone()
}
