//! What can only be found out by trying.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zk::{Acl, Client, CreateKind, Error, MultiError, Op};
use zksync::{LinkConfig, PerSide, RESERVED, Side, ZnodeKind};

use crate::definition::Definition;
use crate::link::{Reserved, now, registry};

/// What a server may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Quotas that are looked for.
const QUOTAS_MAX: usize = 1_000;
/// Bytes that every server takes.
const FIRST: u64 = 64 * 1024;
/// Bytes that a transaction of the link has besides the data and the path of a znode.
const BESIDE: usize = 512;
/// No znode has had so many changes.
const NEVER: i32 = i32::MAX;

/// What the servers of a side say that they are. Not all do, nor to everybody.
pub(super) async fn versions(definition: &Definition, side: Side) -> Vec<String> {
    let ensemble = definition.ensemble(side);
    if ensemble.tls.is_some() {
        return Vec::new();
    }
    let servers = zk::Options::new(&ensemble.connect).servers();
    let asked = servers.iter().map(|server| async move { tokio::time::timeout(PATIENCE, version(server)).await.ok().flatten() });
    let told: BTreeSet<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    told.into_iter().collect()
}

async fn version(server: &str) -> Option<String> {
    let mut stream = TcpStream::connect(server).await.ok()?;
    stream.write_all(b"srvr").await.ok()?;
    let mut told = Vec::new();
    stream.take(4_096).read_to_end(&mut told).await.ok()?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let version = told.lines().find_map(|line| line.strip_prefix("Zookeeper version: "))?;
    Some(version.split(['-', ',']).next().unwrap_or(version).to_owned())
}

/// Paths with quotas.
pub(super) async fn quotas(client: &Client) -> Vec<String> {
    const ROOT: &str = "/zookeeper/quota";
    let mut found = Vec::new();
    let mut todo = vec![ROOT.to_owned()];
    let mut looked = 0;
    while let Some(path) = todo.pop() {
        looked += 1;
        // Who may not look there learns nothing of them.
        let Ok(names) = client.children(&path).await else { continue };
        if names.iter().any(|name| name == "zookeeper_limits") {
            let of = &path[ROOT.len()..];
            found.push(if of.is_empty() { "/".to_owned() } else { of.to_owned() });
        }
        if looked >= QUOTAS_MAX {
            break;
        }
        todo.extend(names.iter().filter(|name| !name.starts_with("zookeeper_")).map(|name| format!("{path}/{name}")));
    }
    found
}

/// Whether we may create and change below the mapped roots of `side`. Nothing is written: each transaction ends with a check that fails.
pub(super) async fn rights(config: &LinkConfig, side: Side, client: &Client) -> Vec<String> {
    let name = side.as_str().to_uppercase();
    let mut refused = Vec::new();
    for root in config.mapping.roots(side) {
        let above = nearest(client, root).await;
        if let Some(error) = create_refused(client, above).await {
            refused.push(format!("nothing can be created below {above} on {name}: {error}"));
        }
        if above == root && root != "/" && set_is_denied(client, root).await {
            refused.push(format!("{root} on {name} cannot be changed: our identity must be allowed to"));
        }
    }
    refused
}

/// Whether we may make and change what is ours on `side`, without which a link cannot be opened there. Nothing is written.
pub(super) async fn own_rights(id: &str, side: Side, client: &Client) -> Vec<String> {
    let reserved = Reserved::of(id);
    let (slots, epoch) = (reserved.slots(), reserved.epoch());
    let above = nearest(client, &slots).await;
    let mut refused = Vec::new();
    let mut add = |what: &str, path: &str, error: &Error| {
        let side = side.as_str().to_uppercase();
        refused.push(format!(
            "our own znodes, below {RESERVED} on {side}, cannot be {what} ({path}: {error}): our identity must be allowed to"
        ));
    };
    if let Some(error) = create_refused(client, above).await {
        add("made", above, &error);
    }
    if set_is_denied(client, &epoch).await {
        add("changed", &epoch, &Error::NoAuth);
    }
    refused
}

/// Where an ensemble tells of its servers, since 3.5.
const SERVERS: &str = "/zookeeper/config";

/// Links of other control planes that are in the way; and whether there are two ensembles at all.
pub(super) async fn registered(definition: &Definition, config: &LinkConfig, clients: &PerSide<Client>) -> Result<Vec<String>, Error> {
    let names = PerSide { a: registry::nonce(&clients.a).await?, b: registry::nonce(&clients.b).await? };
    if names.a.is_some() && names.a == names.b {
        // The data of one ensemble have one history, and it has one list of servers; a copy has gone its own way since.
        let stat = async |path: &str| Ok::<bool, Error>(clients.a.stat(path).await? == clients.b.stat(path).await?);
        let servers =
            async |client: &Client| client.get(SERVERS).await.ok().map(|(data, _)| data).filter(|data| data.starts_with(b"server."));
        let (a, b) = (servers(&clients.a).await, servers(&clients.b).await);
        let are_others = a.is_some() && b.is_some() && a != b;
        if !are_others && stat(RESERVED).await? && stat(&registry::root()).await? && stat("/").await? {
            return Ok(vec![registry::SAME_OR_COPY.to_owned()]);
        }
    }
    let mut found = Vec::new();
    for side in Side::BOTH {
        let claim = registry::Claim::of(definition, config, side, names[side.other()].clone());
        found.extend(registry::in_the_way(&clients[side], &claim).await?);
    }
    Ok(found)
}

/// `path`, or the next above it that is there.
async fn nearest<'a>(client: &Client, path: &'a str) -> &'a str {
    let mut above = path;
    while above != "/" && !matches!(client.stat(above).await, Ok(Some(_))) {
        above = above.rfind('/').map_or("/", |at| if at == 0 { "/" } else { &above[..at] });
    }
    above
}

/// Why nothing can be created below `above`.
async fn create_refused(client: &Client, above: &str) -> Option<Error> {
    let child = format!("{}/zksync-trial-{}", above.trim_end_matches('/'), now().unix_nanos());
    let create = Op::Create { path: child, data: Vec::new(), acl: Acl::open(), kind: CreateKind::Persistent };
    let fails = Op::Check { path: above.to_owned(), version: NEVER };
    match client.multi(&[create, fails]).await {
        Err(MultiError::Operation { index: 0, error }) => Some(error),
        _ => None,
    }
}

/// Whether the data of `path`, if it is there, may not be changed by us.
async fn set_is_denied(client: &Client, path: &str) -> bool {
    let (data, version) = match client.get(path).await {
        Ok((data, stat)) => (data, stat.version),
        // What may not be read is not written with what it has.
        Err(error) => return error == Error::NoAuth,
    };
    let set = Op::Set { path: path.to_owned(), data, version: Some(version) };
    let fails = Op::Check { path: path.to_owned(), version: NEVER };
    matches!(client.multi(&[set, fails]).await, Err(MultiError::Operation { index: 0, error: Error::NoAuth }))
}

/// What B takes, tried below our own subtree: znodes as large as the largest that is to come, and the kinds that it is to have.
/// What has `largest` bytes has a path of `path_bytes`.
pub(super) async fn writes(definition: &Definition, largest: u64, path_bytes: usize) -> Vec<String> {
    let mut refused = Vec::new();
    let path = format!("{}/trial", Reserved::of(&definition.id).root());
    // The link writes a znode together with a note of what it did, in which the path stands once more.
    let beside = BESIDE + 2 * path_bytes;
    match sizes(definition, &path, largest, beside).await {
        Ok(None) => {}
        Ok(Some(bytes)) => refused.push(format!(
            "B ends the connection when {bytes} bytes are written, and the largest znode of A has {largest}: its jute.maxbuffer is too small"
        )),
        Err(error) => refused.push(format!("writing below {} on B: {error}", RESERVED)),
    }
    if definition.types.iter().any(|rule| matches!(rule.kind, ZnodeKind::TtlMs(_)))
        && let Err(error) = lives(definition, &path).await
    {
        refused.push(format!("B takes no znodes with a time to live ({error}): its servers need extendedTypesEnabled"));
    }
    if let Ok(client) = connect(definition).await {
        let _ = client.delete(&path, None).await;
    }
    refused
}

async fn connect(definition: &Definition) -> Result<Client, Error> {
    let options = definition.b.options().map_err(|error| Error::Refused(error.to_string()))?;
    Client::connect(&options).await
}

/// The first size that B does not take.
async fn sizes(definition: &Definition, path: &str, largest: u64, beside: usize) -> Result<Option<u64>, Error> {
    let client = connect(definition).await?;
    client.create_all(path).await?;
    let mut bytes = FIRST.min(largest);
    loop {
        let data = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        // A connection that breaks just then by chance breaks only once.
        let mut tries = 0;
        loop {
            tries += 1;
            let set = |data: Vec<u8>| Op::Set { path: path.to_owned(), data, version: None };
            match connect(definition).await?.multi(&[set(data.clone()), set(vec![0; beside])]).await {
                Ok(_) => break,
                Err(MultiError::Request(error)) if error.is_ambiguous() && tries >= 2 => return Ok(Some(bytes)),
                Err(MultiError::Request(error)) if error.is_ambiguous() => {}
                Err(MultiError::Request(error) | MultiError::Operation { error, .. }) => return Err(error),
            }
        }
        if bytes >= largest {
            return Ok(None);
        }
        bytes = (bytes * 2).min(largest);
    }
}

async fn lives(definition: &Definition, path: &str) -> Result<(), Error> {
    let client = connect(definition).await?;
    let path = format!("{path}-{}", now().unix_nanos());
    client.create(&path, b"", &Acl::open(), CreateKind::Ttl(Duration::from_secs(60))).await?;
    client.delete(&path, None).await
}
