use zookeeper_client as library;

/// What can go wrong, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such znode.
    #[error("no such znode")]
    NoNode,
    /// The znode is there already.
    #[error("the znode exists already")]
    NodeExists,
    /// Somebody wrote in between: read again and decide again.
    #[error("the znode has another version")]
    BadVersion,
    /// It has children.
    #[error("the znode has children")]
    NotEmpty,
    /// The access control list refuses this session.
    #[error("not allowed by the access control list")]
    NoAuth,
    /// The server does not take this access control list.
    #[error("the access control list is not valid here")]
    InvalidAcl,
    /// An ephemeral znode cannot have children.
    #[error("the parent is ephemeral")]
    NoChildrenForEphemerals,
    /// The server does not know this operation, e.g. because it is older.
    #[error("the server does not have this operation")]
    Unimplemented,
    /// A quota is used up.
    #[error("a quota is used up")]
    QuotaExceeded,
    /// The server has too much to do: try later.
    #[error("the server throttles")]
    Throttled,
    /// The server answered with another error; nothing was applied.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection broke or nothing came back: the request may have been applied, or not.
    #[error("no answer ({0}): it may have been applied or not")]
    Unknown(String),
    /// This session is over: nothing that uses it will succeed any more.
    #[error("the session is over: {0}")]
    Ended(String),
}

impl Error {
    /// Whether nothing is known about the effect of the request.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Error::Unknown(_) | Error::Ended(_))
    }
}

impl From<library::Error> for Error {
    fn from(error: library::Error) -> Self {
        use library::Error as E;
        match error {
            E::NoNode => Error::NoNode,
            E::NodeExists => Error::NodeExists,
            E::BadVersion => Error::BadVersion,
            E::NotEmpty => Error::NotEmpty,
            E::NoAuth => Error::NoAuth,
            E::InvalidAcl => Error::InvalidAcl,
            E::NoChildrenForEphemerals => Error::NoChildrenForEphemerals,
            E::Unimplemented => Error::Unimplemented,
            E::QuotaExceeded => Error::QuotaExceeded,
            E::Throttled => Error::Throttled,
            E::SessionExpired | E::AuthFailed | E::ClientClosed | E::NoHosts => Error::Ended(error.to_string()),
            // The session went to another server while this was under way: what became of it is not known.
            E::ConnectionLoss | E::Timeout | E::SessionMoved | E::UnmarshalError { .. } | E::UnexpectedError(_) => {
                Error::Unknown(error.to_string())
            }
            other => Error::Refused(other.to_string()),
        }
    }
}

/// Why a transaction was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultiError {
    /// One operation was refused, so none was applied.
    #[error("operation {index}: {error}")]
    Operation {
        /// Which, counted from 0.
        index: usize,
        /// Why.
        error: Error,
    },
    /// The whole request failed.
    #[error(transparent)]
    Request(#[from] Error),
}

impl From<library::MultiWriteError> for MultiError {
    fn from(error: library::MultiWriteError) -> Self {
        match error {
            library::MultiWriteError::RequestFailed { source } => MultiError::Request(source.into()),
            library::MultiWriteError::OperationFailed { index, source } => MultiError::Operation { index, error: source.into() },
        }
    }
}
