//! What the master may ask of the world.

use mesos_proto::v1;
use v1::scheduler;

use crate::{LinkId, Record, ReplySlot, StreamId, ToAgent};

/// Everything the master may ask of the world. It does none of it.
///
/// Effects are performed in order. What depends on a [`Effect::Persist`] is not among the effects of that step: it comes with the step that is
/// told [`crate::Input::Stored`].
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send an event down a framework's stream. Heartbeats are the edge's own: one directly after SUBSCRIBED, then every 15 seconds.
    Event {
        /// Where.
        stream: StreamId,
        /// What.
        event: Box<scheduler::Event>,
    },
    /// End a framework's stream after what was sent before. No [`crate::Input::StreamClosed`] is due for it.
    CloseStream {
        /// Which.
        stream: StreamId,
    },
    /// Send to an agent. The edge numbers commands and keeps its queue bounded; when that is full it closes the link and tells
    /// [`crate::Input::LinkClosed`].
    Agent {
        /// Where.
        link: LinkId,
        /// What.
        message: ToAgent,
    },
    /// End the connection of an agent after what was sent before. No [`crate::Input::LinkClosed`] is due for it.
    CloseLink {
        /// Which.
        link: LinkId,
    },
    /// Make a change of the registry durable, all of it or nothing, then tell [`crate::Input::Stored`]. At most one is under way.
    Persist {
        /// Counts the writes.
        write: u64,
        /// What is put or deleted.
        records: Vec<Record>,
    },
    /// Answer a call.
    Reply {
        /// Where.
        slot: ReplySlot,
        /// What.
        reply: Reply,
    },
    /// Tell those who watch the operator API's event stream.
    Publish(Box<v1::master::Event>),
    /// The master must stop being one: another takes over.
    Abort {
        /// For people.
        reason: String,
    },
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200 without a body.
    Ok,
    /// 202 without a body.
    Accepted,
    /// An error with Mesos's own text.
    Refused {
        /// Which status.
        kind: Refusal,
        /// The body.
        message: String,
    },
}

/// The kinds of errors of a call, by their HTTP meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400
    BadRequest,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 429: the principal's rate limit. (Mesos limits its old drivers alone, by delaying them.)
    TooManyRequests,
    /// 501
    NotImplemented,
    /// 503
    Unavailable,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Refusal::BadRequest => 400,
            Refusal::Forbidden => 403,
            Refusal::NotFound => 404,
            Refusal::Conflict => 409,
            Refusal::TooManyRequests => 429,
            Refusal::NotImplemented => 501,
            Refusal::Unavailable => 503,
        }
    }
}

impl Reply {
    pub(crate) fn refused(kind: Refusal, message: impl Into<String>) -> Reply {
        Reply::Refused { kind, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Reply {
        Reply::refused(Refusal::BadRequest, message)
    }
}
