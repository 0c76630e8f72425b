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
            // Nothing was sent, or the server said so before it did anything.
            E::BadArguments(_) | E::NotReadOnly | E::NoWatcher | E::MarshallingError | E::ReconfigDisabled | E::UnexpectedErrorCode(_) => {
                Error::Refused(error.to_string())
            }
            // The connection broke, in whichever words the system has for that, or the session went to another server while this was under way.
            // So is what nobody has heard of: taken for a refusal, it would be forgotten although it may have been applied.
            _ => Error::Unknown(error.to_string()),
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::{Acl, Client, CreateKind, Options};

    fn frame(stream: &mut impl std::io::Read) -> Vec<u8> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame).unwrap();
        frame
    }

    fn send(stream: &mut impl std::io::Write, frame: &[u8]) {
        stream.write_all(&[&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()).unwrap();
    }

    /// A server that dies in the middle of a request: the system ends its connections with a reset, not with an end.
    #[tokio::test]
    async fn whether_a_request_was_applied_is_not_known_when_the_connection_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            frame(&mut stream);
            // Version, timeout, session, password, not read-only.
            let mut opened = [&0_u32.to_be_bytes()[..], &4_000_u32.to_be_bytes(), &7_u64.to_be_bytes(), &16_u32.to_be_bytes()].concat();
            opened.extend([0; 17]);
            send(&mut stream, &opened);
            // The library takes a connection for good when a ping was answered: number, transaction, no error.
            frame(&mut stream);
            send(&mut stream, &[&(-2_i32).to_be_bytes()[..], &[0; 12]].concat());
            // Whoever closes before everything is read, resets.
            stream.read_exact(&mut [0; 4]).unwrap();
        });
        let options = Options::new(address.to_string()).with_session_timeout(Duration::from_secs(4));
        let client = Client::connect(&options).await.unwrap();
        let error = client.create("/a", b"1", &Acl::open(), CreateKind::Persistent).await.unwrap_err();
        assert!(matches!(&error, Error::Unknown(why) if why.contains("reset")), "{error:?}");
        server.join().unwrap();
    }
}
