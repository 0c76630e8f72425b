//! How others speak with the driver.

use mesos_proto::v1::AgentInfo;
use proto::agent::v1 as wire;
use tokio::sync::{mpsc, oneshot};

use crate::ledger::Ledger;
use crate::table::{Input, Refusal, Run, Table};

/// Questions and inputs that wait.
const INBOX_MAX: usize = 1024;

/// What the driver is asked besides inputs of the table.
pub enum Ask {
    /// An input whose sender wants to know whether it was taken.
    Input(Input, oneshot::Sender<Option<Refusal>>),
    /// Something of the master that is not the table's.
    Master(MasterAsk),
    /// A look at everything.
    Look(Box<dyn FnOnce(&View<'_>) + Send>),
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ask::Input(..) => "Input",
            Ask::Master(_) => "Master",
            Ask::Look(_) => "Look",
        })
    }
}

/// What only the master asks. All of it goes one way, and is done in the order in which it came.
#[derive(Debug)]
pub enum MasterAsk {
    /// A command that is the table's alone, or that the stream is no more.
    Input(Input),
    /// A launch that names the version of the resources it was placed on.
    Run(Box<Run>, Vec<u8>),
    /// Change the resources.
    Apply(wire::ApplyOperation),
    /// A framework has the status of an operation.
    Acknowledge(wire::AcknowledgeOperationStatus),
    /// What became of these operations?
    Reconcile(wire::ReconcileOperations),
    /// The agent is registered.
    Registered(wire::Registered),
}

/// What a look sees.
#[derive(Debug)]
pub struct View<'a> {
    /// All that runs.
    pub table: &'a Table,
    /// The resources.
    pub ledger: &'a Ledger,
    /// Who this agent is.
    pub agent: &'a AgentInfo,
    /// The master's name for people, once registered.
    pub master_hostname: Option<&'a str>,
}

/// A way to ask the driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    asks: mpsc::Sender<Ask>,
}

/// The driver does not answer: the agent stops.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent stops")]
pub struct Stopping;

impl Handle {
    /// Gives the table an input.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn input(&self, input: Input) -> Result<(), Stopping> {
        self.inputs.send(input).await.map_err(|_| Stopping)
    }

    /// Gives the table an input, and says whether it was taken, after it was stored.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn ask(&self, input: Input) -> Result<Option<Refusal>, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask::Input(input, answer)).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }

    /// Passes on what the master asks.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn master(&self, ask: MasterAsk) -> Result<(), Stopping> {
        self.asks.send(Ask::Master(ask)).await.map_err(|_| Stopping)
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&View<'_>) -> T + Send + 'static) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Look(Box::new(move |view| drop(answer.send(look(view)))));
        self.asks.send(ask).await.map_err(|_| Stopping)?;
        answered.await.map_err(|_| Stopping)
    }
}

/// Channels of a driver that is yet to be made.
#[derive(Debug)]
pub struct Inbox {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) asks: mpsc::Receiver<Ask>,
}

/// Makes both ends. The sender of inputs alone is for containers and checks.
pub fn channel() -> (Handle, mpsc::Sender<Input>, Inbox) {
    let (inputs, input_inbox) = mpsc::channel(INBOX_MAX);
    let (asks, ask_inbox) = mpsc::channel(INBOX_MAX);
    (Handle { inputs: inputs.clone(), asks }, inputs, Inbox { inputs: input_inbox, asks: ask_inbox })
}
