//! A container as others see it: how far it is, and what it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesos_proto::v1::Resource;
use tokio::sync::{mpsc, watch};

use super::Command;
use crate::table::{Allowance, Exit, Launch, Started};

/// A container that is being made or runs.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) state: watch::Receiver<State>,
    pub(super) launch: Arc<Launch>,
    pub(super) sandbox: PathBuf,
    /// The task table does not know it: it is forgotten with what it is nested in.
    pub(super) is_apart: bool,
}

/// How far a container is.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Set when it runs.
    pub started: Option<Started>,
    /// Set when it is over: how, or why it could not be made.
    pub ended: Option<Result<Exit, String>>,
    /// Bytes that its sandbox held when that was looked at last.
    pub disk_used: Option<u64>,
    /// What it may use, where that is not what it was launched with any more.
    pub resized: Option<Allowance>,
}

impl Handle {
    /// How far it is.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// How it is made.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// What it may use, now.
    pub fn resources(&self) -> Vec<Resource> {
        self.allowance().resources
    }

    /// The same, with what it may use at most.
    pub fn allowance(&self) -> Allowance {
        let launched = || Allowance { resources: self.launch.resources.clone(), limits: self.launch.limits.clone() };
        self.state.borrow().resized.clone().unwrap_or_else(launched)
    }

    /// Its sandbox on the host.
    pub fn sandbox(&self) -> &Path {
        &self.sandbox
    }

    /// Waits until it is over.
    pub async fn ended(&self) -> Result<Exit, String> {
        let mut state = self.state.clone();
        loop {
            if let Some(ended) = &state.borrow_and_update().ended {
                return ended.clone();
            }
            if state.changed().await.is_err() {
                return Err("the agent stops".to_owned());
            }
        }
    }

    /// Waits until it runs, or is over.
    pub async fn begun(&self) -> Result<Started, String> {
        let mut state = self.state.clone();
        loop {
            {
                let now = state.borrow_and_update();
                match (&now.started, &now.ended) {
                    (_, Some(Err(problem))) => return Err(problem.clone()),
                    (Some(started), _) => return Ok(started.clone()),
                    (None, Some(Ok(_))) => return Ok(Started::default()),
                    (None, None) => {}
                }
            }
            if state.changed().await.is_err() {
                return Err("the agent stops".to_owned());
            }
        }
    }
}
