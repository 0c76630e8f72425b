//! What can only be found out by trying.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zk::{Acl, Client, CreateKind, Error, MultiError, Op};
use zksync::{LinkConfig, Side, ZnodeKind};

use crate::definition::Definition;
use crate::link::{Reserved, now};

/// What a server may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Quotas that are looked for.
const QUOTAS_MAX: usize = 1_000;
/// Bytes that every server takes.
const FIRST: u64 = 64 * 1024;
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

/// Whether we may create and change below the mapped roots of B. Nothing is written: each transaction ends with a check that fails.
pub(super) async fn rights(config: &LinkConfig, b: &Client) -> Vec<String> {
    let mut refused = Vec::new();
    for root in config.mapping.roots(Side::B) {
        let mut above = root;
        while above != "/" && !matches!(b.stat(above).await, Ok(Some(_))) {
            above = above.rfind('/').map_or("/", |at| if at == 0 { "/" } else { &above[..at] });
        }
        let child = format!("{}/zksync-trial-{}", above.trim_end_matches('/'), now().unix_nanos());
        let create = Op::Create { path: child, data: Vec::new(), acl: Acl::open(), kind: CreateKind::Persistent };
        let fails = Op::Check { path: above.to_owned(), version: NEVER };
        if let Err(MultiError::Operation { index: 0, error }) = b.multi(&[create, fails.clone()]).await {
            refused.push(format!("nothing can be created below {above} on B: {error}"));
        }
        if above == root
            && root != "/"
            && let Ok((data, stat)) = b.get(root).await
        {
            let set = Op::Set { path: root.to_owned(), data, version: Some(stat.version) };
            if let Err(MultiError::Operation { index: 0, error: Error::NoAuth }) = b.multi(&[set, fails]).await {
                refused.push(format!("{root} on B cannot be changed: our identity must be allowed to"));
            }
        }
    }
    refused
}

/// What B takes, tried below our own subtree: znodes as large as the largest that is to come, and the kinds that it is to have.
pub(super) async fn writes(definition: &Definition, largest: u64) -> Vec<String> {
    let mut refused = Vec::new();
    let path = format!("{}/trial", Reserved::of(&definition.id).root());
    match sizes(definition, &path, largest).await {
        Ok(None) => {}
        Ok(Some(bytes)) => refused.push(format!(
            "B ends the connection when {bytes} bytes are written, and the largest znode of A has {largest}: its jute.maxbuffer is too small"
        )),
        Err(error) => refused.push(format!("writing below {} on B: {error}", zksync::RESERVED)),
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
async fn sizes(definition: &Definition, path: &str, largest: u64) -> Result<Option<u64>, Error> {
    let client = connect(definition).await?;
    client.create_all(path).await?;
    let mut bytes = FIRST.min(largest);
    loop {
        let data = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        // A connection that breaks just then by chance breaks only once.
        let mut tries = 0;
        loop {
            tries += 1;
            match connect(definition).await?.set(path, &data, None).await {
                Ok(_) => break,
                Err(error) if error.is_ambiguous() && tries >= 2 => return Ok(Some(bytes)),
                Err(error) if error.is_ambiguous() => {}
                Err(error) => return Err(error),
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
