//! The probe's end of controls and pipes.
//!
//! A [`Desk`] serves one stream: it takes calls, has an [`Executor`] carry them out, answers, and carries the bytes of what was opened, as far as
//! the control plane has made room for them. With the stream everything that was opened on it ends. [`Docker`] is the executor of a node, for its
//! containers and, where that is wanted, a shell on the node itself.
//!
//! It must never know how the probe sees, nor how its stream is opened: messages come in, messages go out.

mod arguments;
mod desk;
mod docker;
mod framing;
mod host;
mod pipe;

pub use arguments::{LogArguments, Size, pipe_number};
pub use desk::{Answer, Call, Desk, Executor, Numbers, Opened, Pipes};
pub use docker::{Docker, DockerConfig};
pub use host::HostShell;
pub use pipe::{PipeEnd, PipeReceiver, PipeSender};
