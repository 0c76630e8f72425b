//! Removing what is ours.

use std::time::Duration;

use zk::Client;
use zksync::Side;

use crate::definition::Definition;
use crate::link::{Reserved, registry};

/// A side that is not reached by then is tried later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes our own znodes from both sides, as far as they are reached.
///
/// # Errors
/// With the sides that still have them, and why.
pub(crate) async fn clean_up(definition: &Definition) -> Result<(), String> {
    let one = async |side: Side| {
        let done = tokio::time::timeout(PATIENCE, clean_side(definition, side)).await;
        let done = done.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
        done.map_err(|error| format!("{}: {error}", side.as_str().to_uppercase()))
    };
    let (a, b) = futures::join!(one(Side::A), one(Side::B));
    let problems: Vec<String> = [a, b].into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

async fn clean_side(definition: &Definition, side: Side) -> Result<(), String> {
    let options = definition.ensemble(side).options().map_err(|error| error.to_string())?;
    let client = Client::connect(&options).await.map_err(|error| error.to_string())?;
    for root in [Reserved::of(&definition.id).root().to_owned(), registry::place(&definition.id)] {
        remove_all(&client, &root).await.map_err(|error| error.to_string())?;
    }
    // Those above are shared by all links: gone when this was the last.
    for above in [format!("{}/links", zksync::RESERVED), registry::root(), zksync::RESERVED.to_owned()] {
        match client.delete(&above, None).await {
            // Another identity may have made them.
            Ok(()) | Err(zk::Error::NotEmpty | zk::Error::NoNode | zk::Error::NoAuth) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Removes what a link has left on a side, but for who stands for election.
pub(crate) async fn remove_work(client: &Client, id: &str) -> Result<(), zk::Error> {
    let reserved = Reserved::of(id);
    for root in [reserved.base(), format!("{}/j", reserved.root()), reserved.heartbeat(), reserved.epoch(), registry::place(id)] {
        remove_all(client, &root).await?;
    }
    Ok(())
}

async fn remove_all(client: &Client, root: &str) -> Result<(), zk::Error> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        match client.children(&path).await {
            Ok(names) => found.extend(names.into_iter().map(|name| format!("{path}/{name}"))),
            Err(zk::Error::NoNode) => {}
            Err(error) => return Err(error),
        }
    }
    for path in found.iter().rev() {
        match client.delete(path, None).await {
            Ok(()) | Err(zk::Error::NoNode) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
