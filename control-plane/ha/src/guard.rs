//! Who may read and change what is ours in the ensemble. Without an identity, everybody may; with one, nobody else may, but that clients see who
//! leads, as with Mesos.

use std::time::Duration;

use zk::{Acl, Client, Error};

/// Before a question is asked again whose answer did not come.
const AGAIN: Duration = Duration::from_millis(50);
/// Bit of an access control list: to read.
const READ: u8 = 1;

/// Of what clients read to find the leader: candidates, and what is above them. Mesos's masters do the same.
pub(crate) fn seen_by_all(has_identity: bool) -> Vec<Acl> {
    if has_identity { Acl::readable() } else { Acl::open() }
}

/// Of what is for control planes alone.
pub(crate) fn ours_alone(has_identity: bool) -> Vec<Acl> {
    if has_identity { Acl::creator() } else { Acl::open() }
}

/// What was found open, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Znodes that were looked at.
    pub(crate) looked_at: usize,
    /// Those that everybody could change, or read without need, and nobody else can now.
    pub(crate) closed: usize,
    /// Those that are of another identity than ours: they are as they were.
    pub(crate) refused: usize,
}

/// Closes what a control plane without an identity, or one of a version before, has left open: what everybody may read in `shown`, and `epoch`
/// and everything at and below `root`. One request at a time, so that whoever works with the ensemble meanwhile does not notice, and memory for
/// the names beside the path that it is at.
///
/// # Errors
/// When the session is over.
pub(crate) async fn close(client: &Client, shown: &[String], epoch: &str, root: &str) -> Result<Closed, Error> {
    let mut done = Closed::default();
    for path in shown {
        done.look_at(client, path, READ).await?;
    }
    // It decides who may write: first of all.
    done.look_at(client, epoch, 0).await?;
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        done.look_at(client, &path, 0).await?;
        match answered(client, || client.children(&path)).await {
            Ok(names) => waiting.extend(names.into_iter().map(|name| format!("{path}/{name}"))),
            Err(Error::Ended(why)) => return Err(Error::Ended(why)),
            // It is gone, or was counted already as somebody else's.
            Err(_) => {}
        }
    }
    Ok(done)
}

impl Closed {
    /// Takes from everybody what is more than `allowed`. Who else is named in the list stays in it.
    async fn look_at(&mut self, client: &Client, path: &str, allowed: u8) -> Result<(), Error> {
        let outcome = async {
            let acl = answered(client, || client.acl(path)).await?;
            let Some(closed) = closed(&acl, allowed) else { return Ok(false) };
            answered(client, || client.set_acl(path, &closed, None)).await.map(|_| true)
        };
        match outcome.await {
            Ok(closed) => {
                self.looked_at += 1;
                self.closed += usize::from(closed);
                Ok(())
            }
            Err(Error::NoNode) => Ok(()),
            Err(Error::Ended(why)) => Err(Error::Ended(why)),
            Err(error) => {
                tracing::debug!(path, %error, "stays as open as it is");
                self.refused += 1;
                Ok(())
            }
        }
    }
}

/// The list without what everybody may beyond `allowed`; `None` when there is nothing of that.
fn closed(acl: &[Acl], allowed: u8) -> Option<Vec<Acl>> {
    let is_everybody = |entry: &Acl| entry.scheme == "world";
    if !acl.iter().any(|entry| is_everybody(entry) && entry.permissions & !allowed != 0) {
        return None;
    }
    let mut closed = if allowed == 0 { Acl::creator() } else { Acl::readable() };
    closed.extend(acl.iter().filter(|entry| !is_everybody(entry)).cloned());
    Some(closed)
}

/// Asks again while the connection comes and goes. For what may be done twice.
async fn answered<T, F: Future<Output = Result<T, Error>>>(client: &Client, mut ask: impl FnMut() -> F) -> Result<T, Error> {
    loop {
        match ask().await {
            Err(Error::Unknown(_) | Error::Throttled) => {
                client.connected().await?;
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(permissions: u8, scheme: &str, id: &str) -> Acl {
        Acl { permissions, scheme: scheme.to_owned(), id: id.to_owned() }
    }

    #[test]
    fn what_everybody_may_is_taken_away_and_who_else_is_named_stays() {
        let backup = entry(READ, "digest", "backup:x");
        assert_eq!(closed(&Acl::open(), 0), Some(Acl::creator()));
        assert_eq!(closed(&Acl::open(), READ), Some(Acl::readable()));
        assert_eq!(closed(&[entry(READ, "world", "anyone"), backup.clone()], 0), Some([Acl::creator(), vec![backup.clone()]].concat()));
        let ours = entry(31, "digest", "ours:x");
        assert_eq!(closed(&[ours.clone(), backup], 0), None);
        assert_eq!(closed(&[ours.clone(), entry(READ, "world", "anyone")], READ), None, "as candidates and Mesos have it");
        assert!(closed(&[ours, entry(READ + 4, "world", "anyone")], READ).is_some(), "who may create could stand for election");
    }
}
