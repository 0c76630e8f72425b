use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use zookeeper_client as library;

use crate::age::Age;
use crate::error::{Error, MultiError};
use crate::options::Options;
use crate::readers::{Readers, WORTH_IT};
use crate::tunnel::Tunnel;

/// One session. Cheap to clone; ends for good when the session does.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: library::Client,
    /// Carries its connections, when they are encrypted.
    tunnel: Option<Arc<Tunnel>>,
    readers: Arc<Readers>,
    pub(crate) age: Arc<Age>,
}

/// What the ensemble keeps about a znode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Transaction that created it.
    pub czxid: i64,
    /// Transaction that last changed its data.
    pub mzxid: i64,
    /// Transaction that last changed its list of children.
    pub pzxid: i64,
    /// When it was created, by the leader's clock: milliseconds since 1970.
    pub ctime: i64,
    /// When its data was last changed, by the leader's clock: milliseconds since 1970.
    pub mtime: i64,
    /// Changes of its data since it was created.
    pub version: i32,
    /// Changes of its list of children, as clients see them: twice the creations less the children there are.
    pub cversion: i32,
    /// Changes of its access control list.
    pub aversion: i32,
    /// Session that owns it; 0 when it is not ephemeral.
    pub ephemeral_owner: i64,
    /// Bytes of its data.
    pub data_length: i32,
    /// Children.
    pub num_children: i32,
}

impl From<library::Stat> for Stat {
    fn from(stat: library::Stat) -> Self {
        Stat {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: stat.ctime,
            mtime: stat.mtime,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            ephemeral_owner: stat.ephemeral_owner,
            data_length: stat.data_length,
            num_children: stat.num_children,
        }
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// Bits: 1 read, 2 write, 4 create, 8 delete, 16 admin.
    pub permissions: u8,
    /// `world`, `digest`, `auth`, `ip`, `sasl`, `x509`.
    pub scheme: String,
    /// Who, in the scheme's words.
    pub id: String,
}

impl Acl {
    /// Everybody may do everything.
    pub fn open() -> Vec<Acl> {
        vec![Acl { permissions: 31, scheme: "world".to_owned(), id: "anyone".to_owned() }]
    }

    /// The identities of the session that creates it may do everything.
    pub fn creator() -> Vec<Acl> {
        vec![Acl { permissions: 31, scheme: "auth".to_owned(), id: String::new() }]
    }

    /// The identities of the session that creates it may do everything, and everybody else may read it.
    pub fn readable() -> Vec<Acl> {
        let mut readable = Acl::creator();
        readable.push(Acl { permissions: 1, scheme: "world".to_owned(), id: "anyone".to_owned() });
        readable
    }

    /// The identities of the session that creates it may do everything, and everybody else may read it, and create and delete below it: for what
    /// several of different identities share.
    pub fn shared() -> Vec<Acl> {
        let mut shared = Acl::creator();
        shared.push(Acl { permissions: 1 + 4 + 8, scheme: "world".to_owned(), id: "anyone".to_owned() });
        shared
    }

    fn into_library(self: &Acl) -> library::Acl {
        use library::Permission as P;
        let bits = [(1, P::READ), (2, P::WRITE), (4, P::CREATE), (8, P::DELETE), (16, P::ADMIN)];
        let permission = bits.into_iter().filter(|(bit, _)| self.permissions & bit != 0).fold(P::NONE, |all, (_, one)| all | one);
        library::Acl::new(permission, library::AuthId::new(&self.scheme, &self.id))
    }

    fn from_library(acl: &library::Acl) -> Acl {
        use library::Permission as P;
        let bits = [(1, P::READ), (2, P::WRITE), (4, P::CREATE), (8, P::DELETE), (16, P::ADMIN)];
        let permissions = bits.into_iter().filter(|(_, one)| acl.permission().has(*one)).map(|(bit, _)| bit).sum();
        Acl { permissions, scheme: acl.scheme().to_owned(), id: acl.id().to_owned() }
    }
}

/// How a znode lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateKind {
    /// Until it is deleted.
    Persistent,
    /// Until it is deleted; the server appends a number.
    PersistentSequential,
    /// As long as the session.
    Ephemeral,
    /// As long as the session; the server appends a number.
    EphemeralSequential,
    /// Until some time after its last child is gone.
    Container,
    /// Until it has had no change and no children for this long.
    Ttl(Duration),
}

impl CreateKind {
    fn options<'a>(self, acls: library::Acls<'a>) -> library::CreateOptions<'a> {
        use library::CreateMode as M;
        match self {
            CreateKind::Persistent => M::Persistent.with_acls(acls),
            CreateKind::PersistentSequential => M::PersistentSequential.with_acls(acls),
            CreateKind::Ephemeral => M::Ephemeral.with_acls(acls),
            CreateKind::EphemeralSequential => M::EphemeralSequential.with_acls(acls),
            CreateKind::Container => M::Container.with_acls(acls),
            CreateKind::Ttl(ttl) => M::Persistent.with_acls(acls).with_ttl(ttl),
        }
    }
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fails the transaction unless the znode has this version.
    Check {
        /// The znode.
        path: String,
        /// Its version.
        version: i32,
    },
    /// Creates a znode.
    Create {
        /// The znode.
        path: String,
        /// Its data.
        data: Vec<u8>,
        /// Its access control list.
        acl: Vec<Acl>,
        /// How it lives.
        kind: CreateKind,
    },
    /// Changes data.
    Set {
        /// The znode.
        path: String,
        /// The new data.
        data: Vec<u8>,
        /// The version that it must have; any when absent.
        version: Option<i32>,
    },
    /// Deletes a znode.
    Delete {
        /// The znode.
        path: String,
        /// The version that it must have; any when absent.
        version: Option<i32>,
    },
}

/// What an operation of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpDone {
    /// The version was as expected.
    Checked,
    /// Created; the server's path (a number may have been appended), and what it keeps. Some servers do not say the latter.
    Created(String, Option<Stat>),
    /// Changed.
    Set(Stat),
    /// Deleted.
    Deleted,
}

/// A znode to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The znode.
    pub path: String,
    /// Its children, too.
    pub children: bool,
    /// Its access control list, too.
    pub acl: bool,
}

/// A znode as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRead {
    /// Its data.
    pub data: Vec<u8>,
    /// What the ensemble keeps about it.
    pub stat: Stat,
    /// Names of its children, if they were asked for.
    pub children: Option<Vec<String>>,
    /// Its access control list, if it was asked for.
    pub acl: Option<Vec<Acl>>,
}

impl Client {
    /// Opens a session.
    ///
    /// # Errors
    /// When no server answers within about the session timeout, or the options make no sense.
    pub async fn connect(options: &Options) -> Result<Client, Error> {
        let mut connector = library::Client::connector().with_session_timeout(options.session_timeout);
        for auth in &options.auth {
            connector = connector.with_auth(&auth.scheme, auth.secret.as_bytes());
        }
        if let Some(sasl) = &options.sasl {
            connector = connector.with_sasl(library::SaslOptions::digest_md5(sasl.user.clone(), sasl.password.clone()));
        }
        let tunnel = match &options.tls {
            Some(tls) => Some(Arc::new(Tunnel::open(options, tls).await?)),
            None => None,
        };
        let to = tunnel.as_ref().map_or(&options.connect, |tunnel| &tunnel.connect);
        match connector.connect(to).await {
            Ok(inner) => Ok(Client { inner, tunnel, readers: Arc::new(Readers::new(options)), age: Arc::default() }),
            Err(error) => Err(tunnel.map_or_else(|| error.clone().into(), |tunnel| tunnel.explain(error.clone().into()))),
        }
    }

    /// The session's number, as it stands in [`Stat::ephemeral_owner`].
    pub fn session_id(&self) -> i64 {
        self.inner.session_id().0
    }

    /// What the server granted.
    pub fn session_timeout(&self) -> Duration {
        self.inner.session_timeout()
    }

    /// Whether the session is connected right now.
    pub fn is_connected(&self) -> bool {
        self.inner.state() == library::SessionState::SyncConnected
    }

    /// Ends when the connection breaks, or has broken since this was called.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.inner.state_watcher();
        let now = state.state();
        async move {
            if now == library::SessionState::SyncConnected {
                state.changed().await;
            }
        }
    }

    /// Whether its connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.inner.state().is_terminated()
    }

    /// Data and stat.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`, or no answer.
    pub async fn get(&self, path: &str) -> Result<(Vec<u8>, Stat), Error> {
        let (data, stat) = self.inner.get_data(path).await?;
        Ok((data, stat.into()))
    }

    /// Stat, if the znode is there.
    ///
    /// # Errors
    /// No answer.
    pub async fn stat(&self, path: &str) -> Result<Option<Stat>, Error> {
        Ok(self.inner.check_stat(path).await?.map(Stat::from))
    }

    /// Names of the children.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`, or no answer.
    pub async fn children(&self, path: &str) -> Result<Vec<String>, Error> {
        Ok(self.inner.list_children(path).await?)
    }

    /// The access control list.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth`, or no answer.
    pub async fn acl(&self, path: &str) -> Result<Vec<Acl>, Error> {
        let (acl, _) = self.inner.get_acl(path).await?;
        Ok(acl.iter().map(Acl::from_library).collect())
    }

    /// Creates a znode; gives back its path, which has a number appended when it is sequential.
    ///
    /// # Errors
    /// `NodeExists`, `NoNode` (of the parent), `NoAuth`, `InvalidAcl`, or no answer.
    pub async fn create(&self, path: &str, data: &[u8], acl: &[Acl], kind: CreateKind) -> Result<String, Error> {
        let acl: Vec<_> = acl.iter().map(Acl::into_library).collect();
        let sequential = matches!(kind, CreateKind::PersistentSequential | CreateKind::EphemeralSequential);
        let (_, sequence) = self.inner.create(path, data, &kind.options(library::Acls::new(&acl))).await?;
        Ok(if sequential { format!("{path}{sequence}") } else { path.to_owned() })
    }

    /// Creates a znode and those above it that are missing, all open to everybody and empty. One that is there is left as it is.
    ///
    /// # Errors
    /// `NoAuth`, or no answer.
    pub async fn create_all(&self, path: &str) -> Result<(), Error> {
        self.create_all_with(path, &Acl::open()).await
    }

    /// The same, with this access control list for those that are missing. Who may delete a znode stands in the list of the one above it.
    ///
    /// # Errors
    /// `NoAuth`, `InvalidAcl`, or no answer.
    pub async fn create_all_with(&self, path: &str, acl: &[Acl]) -> Result<(), Error> {
        let mut end = 0;
        while end < path.len() {
            end = path[end + 1..].find('/').map_or(path.len(), |at| end + 1 + at);
            match self.create(&path[..end], b"", acl, CreateKind::Persistent).await {
                Ok(_) | Err(Error::NodeExists) => {}
                // Who may not create there is not told whether it is there already.
                Err(Error::NoAuth) if matches!(self.stat(&path[..end]).await, Ok(Some(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Changes data, if the version is as expected (any when absent).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `NoAuth`, or no answer.
    pub async fn set(&self, path: &str, data: &[u8], version: Option<i32>) -> Result<Stat, Error> {
        Ok(self.inner.set_data(path, data, version).await?.into())
    }

    /// Deletes a znode, if the version is as expected (any when absent).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `NotEmpty`, `NoAuth`, or no answer.
    pub async fn delete(&self, path: &str, version: Option<i32>) -> Result<(), Error> {
        Ok(self.inner.delete(path, version).await?)
    }

    /// Changes the access control list, if its version is as expected (any when absent).
    ///
    /// # Errors
    /// `NoNode`, `BadVersion`, `InvalidAcl`, `NoAuth`, or no answer.
    pub async fn set_acl(&self, path: &str, acl: &[Acl], aversion: Option<i32>) -> Result<Stat, Error> {
        let acl: Vec<_> = acl.iter().map(Acl::into_library).collect();
        Ok(self.inner.set_acl(path, &acl, aversion).await?.into())
    }

    /// Waits until the server that this session talks to has seen everything that the leader had committed.
    ///
    /// # Errors
    /// No answer.
    pub async fn sync(&self, path: &str) -> Result<(), Error> {
        Ok(self.inner.sync(path).await?)
    }

    /// Applies all operations, or none.
    ///
    /// # Errors
    /// Which operation was refused and why, or no answer.
    pub async fn multi(&self, ops: &[Op]) -> Result<Vec<OpDone>, MultiError> {
        let mut writer = self.inner.new_multi_writer();
        for op in ops {
            match op {
                Op::Check { path, version } => writer.add_check_version(path, *version),
                Op::Create { path, data, acl, kind } => {
                    let acl: Vec<_> = acl.iter().map(Acl::into_library).collect();
                    writer.add_create(path, data, &kind.options(library::Acls::new(&acl)))
                }
                Op::Set { path, data, version } => writer.add_set_data(path, data, *version),
                Op::Delete { path, version } => writer.add_delete(path, *version),
            }
            .map_err(|error| MultiError::Request(error.into()))?;
        }
        let done = writer.commit().await?;
        Ok(done
            .into_iter()
            .map(|one| match one {
                library::MultiWriteResult::Create { path, stat } => OpDone::Created(path, (!stat.is_invalid()).then(|| stat.into())),
                library::MultiWriteResult::SetData { stat } => OpDone::Set(stat.into()),
                library::MultiWriteResult::Delete => OpDone::Deleted,
                _ => OpDone::Checked,
            })
            .collect())
    }

    /// Reads many znodes in one request where the server can (3.6 and newer), else in as many requests as it takes, none waiting for
    /// another. One that is not there or may not be read does not fail the rest.
    ///
    /// # Errors
    /// No answer.
    pub async fn read(&self, reads: &[Read]) -> Result<Vec<Result<NodeRead, Error>>, Error> {
        if reads.iter().filter(|read| read.acl).count() >= WORTH_IT {
            return self.read_with_many_acls(reads).await;
        }
        // Before anything else is under way.
        self.is_old().await?;
        // Polled in this order, so that the data's request goes first: an access control list newer than the stat beside it is found out by
        // the next look at the stat, an older one never.
        let acls = join_all(reads.iter().map(|read| async move { if read.acl { Some(self.acl(&read.path).await) } else { None } }));
        let (nodes, acls) = futures::join!(self.read_data(reads), acls);
        let mut nodes = nodes?;
        for (node, acl) in nodes.iter_mut().zip(acls) {
            if let Some(acl) = acl {
                give_acl(node, acl)?;
            }
        }
        Ok(nodes)
    }

    async fn read_with_many_acls(&self, reads: &[Read]) -> Result<Vec<Result<NodeRead, Error>>, Error> {
        let mut nodes = self.read_data(reads).await?;
        let wanted = |(read, node): (&Read, &Result<NodeRead, Error>)| {
            let stat = node.as_ref().ok().filter(|_| read.acl)?.stat;
            Some((read.path.clone(), stat))
        };
        let wanted: Vec<(String, Stat)> = reads.iter().zip(&nodes).filter_map(wanted).collect();
        let acls = self.acls(&wanted).await?;
        let places = reads.iter().zip(&mut nodes).filter(|(read, node)| read.acl && node.is_ok());
        for ((_, node), acl) in places.zip(acls) {
            give_acl(node, acl)?;
        }
        Ok(nodes)
    }

    /// Access control lists of many znodes, each as new as the stat that is given with it or newer. Over several connections, which may lead to
    /// servers that lag behind this session's: what they say is then asked again here.
    ///
    /// # Errors
    /// No answer.
    pub async fn acls(&self, wanted: &[(String, Stat)]) -> Result<Vec<Result<Vec<Acl>, Error>>, Error> {
        let readers = if wanted.len() >= WORTH_IT { self.readers.open().await } else { Vec::new() };
        let connections: Vec<&Client> = std::iter::once(self).chain(&readers).collect();
        let asked = wanted.iter().enumerate().map(|(n, (path, stat))| {
            let by = connections[n % connections.len()];
            async move {
                match by.inner.get_acl(path).await {
                    Ok((acl, now)) if now.czxid >= stat.czxid && (now.czxid > stat.czxid || now.aversion >= stat.aversion) => {
                        Ok(acl.iter().map(Acl::from_library).collect())
                    }
                    _ => self.acl(path).await,
                }
            }
        });
        let acls: Vec<Result<Vec<Acl>, Error>> = join_all(asked).await;
        match acls.iter().find_map(|acl| acl.as_ref().err().filter(|error| error.is_ambiguous())) {
            Some(error) => Err(error.clone()),
            None => Ok(acls),
        }
    }

    async fn read_data(&self, reads: &[Read]) -> Result<Vec<Result<NodeRead, Error>>, Error> {
        if self.is_old().await? {
            return self.read_one_by_one(reads).await;
        }
        let mut reader = self.inner.new_multi_reader();
        for read in reads {
            reader.add_get_data(&read.path)?;
            if read.children {
                reader.add_get_children(&read.path)?;
            }
        }
        let answers = match reader.commit().await {
            Ok(answers) => answers,
            Err(library::Error::Unimplemented) => {
                self.turned_out_old().await?;
                return self.read_one_by_one(reads).await;
            }
            Err(error) => return Err(error.into()),
        };
        let mut answers = answers.into_iter();
        let mut next = || answers.next().ok_or_else(|| Error::Unknown("an answer is missing".to_owned()));
        let mut nodes = Vec::with_capacity(reads.len());
        for read in reads {
            let mut node = match next()? {
                library::MultiReadResult::Data { data, stat } => Ok(NodeRead { data, stat: stat.into(), children: None, acl: None }),
                library::MultiReadResult::Error { err } => Err(Error::from(err)),
                _ => Err(Error::Unknown("an answer of another kind".to_owned())),
            };
            if read.children {
                match (next()?, &mut node) {
                    (library::MultiReadResult::Children { children }, Ok(node)) => node.children = Some(children),
                    (library::MultiReadResult::Error { err }, Ok(_)) => node = Err(err.into()),
                    _ => {}
                }
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// For servers without reads of many znodes: all requests are under way at once.
    pub(crate) async fn read_one_by_one(&self, reads: &[Read]) -> Result<Vec<Result<NodeRead, Error>>, Error> {
        let each = reads.iter().map(|read| async move {
            let data = self.inner.get_data(&read.path);
            let children = async { if read.children { self.inner.list_children(&read.path).await.map(Some) } else { Ok(None) } };
            let ((data, stat), children) = futures::try_join!(data, children)?;
            Ok(NodeRead { data, stat: stat.into(), children, acl: None })
        });
        let nodes: Vec<Result<NodeRead, Error>> = join_all(each).await;
        match nodes.iter().find_map(|node| node.as_ref().err().filter(|error| error.is_ambiguous())) {
            Some(error) => Err(error.clone()),
            None => Ok(nodes),
        }
    }
}

/// The error when nothing is known, which is one of the whole answer.
fn give_acl(node: &mut Result<NodeRead, Error>, acl: Result<Vec<Acl>, Error>) -> Result<(), Error> {
    match (node.as_mut(), acl) {
        (Ok(node), Ok(acl)) => node.acl = Some(acl),
        (Ok(_), Err(error)) if error.is_ambiguous() => return Err(error),
        (Ok(_), Err(error)) => *node = Err(error),
        (Err(_), _) => {}
    }
    Ok(())
}
