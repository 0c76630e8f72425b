//! The pure core of controls and pipes.
//!
//! [`Calls`] knows which call of a control waits for which probe, and settles every call exactly once: by its answer, by the loss of its probe,
//! or by its deadline. [`Pipes`] knows which pipe is open, which of its ends has somebody connected, and when it is closed and forgotten, by the
//! rules of Weave Scope. [`Allowance`] and [`Grant`] are the two halves of the flow control of one direction of a pipe.
//!
//! It holds no byte of a conversation and no argument of a call: those stay with whoever drives it. It must never know a clock, a socket, a
//! thread or a random source: time comes in as `now`, ids come in with the input.

mod calls;
mod pipes;
mod window;

pub use calls::{CallEffect, CallFailure, CallId, CallInput, CallLimits, Calls, LinkId, ProbeId};
pub use pipes::{Cause, End, PipeEffect, PipeId, PipeInput, PipeLimits, PipeRefusal, Pipes};
pub use window::{Allowance, Grant, Overrun};
