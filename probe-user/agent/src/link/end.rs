//! How a stream to a master ends, and whether that is because of the master's word or of the way to it.

use proto::agent::v1 as wire;

/// Why a stream ended.
pub(super) enum End {
    /// Nobody leads there, or not yet.
    Away,
    /// Somebody else leads, at this address.
    Elsewhere(String),
    /// The agent is not wanted as it is; it may be later.
    Refused,
    /// The agent is not wanted: end everything.
    Shutdown(String),
    Stopping,
}

/// What follows from a refusal.
pub(super) fn refused(it: wire::Refused) -> End {
    use wire::refused::Reason;

    if it.reason() == Reason::Shutdown {
        return End::Shutdown(it.message);
    }
    tracing::warn!(reason = it.reason().as_str_name(), message = it.message, "the master refused this agent");
    match it.reason() {
        Reason::NotLeading if !it.leader.is_empty() => End::Elsewhere(it.leader),
        Reason::NotLeading | Reason::NotReady => End::Away,
        // Replaced, too: this agent has no other stream, so that another one has its id.
        _ => End::Refused,
    }
}

/// Why a stream did not come about, or broke.
pub(super) struct Problem {
    pub(super) text: String,
    /// Somebody is there, and says no.
    pub(super) is_refusal: bool,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem { text, is_refusal: false }
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;

        // All others come from the way there as well.
        let is_refusal = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::Unimplemented
        );
        Problem { text: status.to_string(), is_refusal }
    }
}
