//! Terminals in the containers of pods.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, Peekable};
use futures::{FutureExt as _, StreamExt as _};
use probe_controls::{Answer, Opened, PipeEnd, PipeReceiver, PipeSender, Pipes};
use probe_kubernetes::controls::{Hands, Place, Sizes, Terminal};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{ClusterControls, RESIZE};

/// Runs root's shell if there is one in the container, else the usual one.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "TERM=xterm; export TERM; shell=$(getent passwd root 2>/dev/null | cut -d: -f7 2>/dev/null); \
     [ -n \"$shell\" ] && [ -x \"$shell\" ] || shell=/bin/sh; exec \"$shell\"",
];
/// A shell that cannot be started is refused within this time. One that can says something at once, and is not waited for longer.
const STARTED_WITHIN: Duration = Duration::from_secs(2);
/// Typed when nobody looks any more: it ends what runs in front, and then the shell. Runtimes leave both running else.
const FAREWELL: &[u8] = b"\x03\x04";
/// What they may take for it.
const FAREWELL_TAKES: Duration = Duration::from_secs(1);

/// What comes out, the first of it looked at.
type Output = Peekable<BoxStream<'static, Result<Bytes, String>>>;

/// What was opened in a container.
pub(super) struct Inside {
    is_terminal: bool,
    input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    output: Output,
    sizes: Option<Sizes>,
    /// Typed at the end.
    farewell: &'static [u8],
}

impl Inside {
    fn new(terminal: Terminal, farewell: &'static [u8]) -> Self {
        let Terminal { is_terminal, input, output, sizes } = terminal;
        Inside { is_terminal, input, output: output.peekable(), sizes, farewell }
    }
}

/// A shell.
pub(super) async fn exec(hands: &Hands, pod: &Place, container: &str) -> Result<Inside, String> {
    let terminal = hands.exec(pod, container, &SHELL).await.map_err(|error| error.to_string())?;
    let mut inside = Inside::new(terminal, FAREWELL);
    // The API says yes before the runtime has looked for a shell in the image.
    if let Ok(Some(Err(error))) = timeout(STARTED_WITHIN, Pin::new(&mut inside.output).peek()).await {
        return Err(error.clone());
    }
    Ok(inside)
}

/// The first process. It goes on when nobody looks any more.
pub(super) async fn attach(hands: &Hands, pod: &Place, container: &str) -> Result<Inside, String> {
    let terminal = hands.attach(pod, container).await.map_err(|error| error.to_string())?;
    Ok(Inside::new(terminal, b""))
}

impl ClusterControls {
    /// Between a pipe and a container.
    pub(super) fn open(self: Arc<Self>, mut inside: Inside, pipes: &Pipes) -> Answer {
        let pipe = pipes.open();
        let (number, raw_tty) = (pipe.number(), inside.is_terminal);
        let sizes = inside.sizes.take();
        let resize_control = if sizes.is_some() { RESIZE } else { "" };
        let entry = sizes.map(|sizes| Entry::new(self, number, sizes));
        let session = async move {
            let ended = converse(pipe, inside).await;
            drop(entry);
            ended
        };
        let opened = Opened { pipe: number, raw_tty, resize_control, session: session.boxed() };
        Answer { removed_node: String::new(), opened: Some(opened) }
    }
}

/// A terminal's place among those whose size can be changed.
struct Entry {
    controls: Arc<ClusterControls>,
    number: u64,
}

impl Entry {
    fn new(controls: Arc<ClusterControls>, number: u64, sizes: Sizes) -> Self {
        controls.terminals.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sizes);
        Entry { controls, number }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.controls.terminals.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Both ways, until what runs in the container has ended or the pipe is closed.
async fn converse(pipe: PipeEnd, inside: Inside) -> Result<(), String> {
    let Inside { mut input, mut output, farewell, .. } = inside;
    let (sender, receiver) = pipe.split();
    let ended = tokio::select! {
        biased;
        () = sender.closed().cancelled() => None,
        ended = written(&sender, &mut output) => ended,
        () = typed(receiver, &mut input) => None,
    };
    let Some(ended) = ended else {
        let said = async {
            if let Some(input) = input.as_mut().filter(|_| !farewell.is_empty())
                && input.write_all(farewell).await.is_ok()
            {
                while output.next().await.is_some() {}
            }
        };
        drop(timeout(FAREWELL_TAKES, said).await);
        return Ok(());
    };
    ended
}

/// `None` when nobody looks any more.
async fn written(sender: &PipeSender, output: &mut Output) -> Option<Result<(), String>> {
    while let Some(part) = output.next().await {
        match part {
            Ok(bytes) => {
                if !sender.send(bytes).await {
                    return None;
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(()))
}

async fn typed(mut receiver: PipeReceiver, input: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    while let Some(bytes) = receiver.receive().await {
        if let Some(writer) = input
            && writer.write_all(&bytes).await.is_err()
        {
            break;
        }
    }
    // What it last said may still be on its way.
    std::future::pending().await
}
