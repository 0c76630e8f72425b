//! Znodes that nobody copies: those that are ours, and those above the mapped roots.

use zk::{Acl, Client, CreateKind, Error, Options};
use zksync::{AclPolicy, LinkConfig, RESERVED, Side};

use super::{Reserved, acl_to, convert};
use crate::tree::is_hidden;

/// Makes `path`, which is one of our own znodes, and what is above it. Who may delete a znode stands in the list of the one above it: so where we have an identity, what is
/// above the epoch and the slots is ours alone, as they are. What links share may be used by other identities as well; they can remove nothing
/// that is still in use, for it has children.
///
/// # Errors
/// When it may not be made, or the ensemble does not answer.
pub(crate) async fn make_ours(client: &Client, reserved: &Reserved, path: &str, has_identity: bool) -> Result<(), Error> {
    let (shared, own) = if has_identity { (Acl::shared(), Acl::creator()) } else { (Acl::open(), Acl::open()) };
    let all_links = format!("{RESERVED}/links");
    client.create_all_with(&all_links, &shared).await?;
    client.create_all_with(path, &own).await?;
    if has_identity {
        for path in [RESERVED, &all_links] {
            close(client, path, &shared).await?;
        }
        for path in [reserved.root(), &reserved.slots(), &reserved.election(), &reserved.base()] {
            close(client, path, &own).await?;
        }
    }
    Ok(())
}

/// What was made open to everybody, by a version that did so or before there was an identity, is so no longer.
async fn close(client: &Client, path: &str, acl: &[Acl]) -> Result<(), Error> {
    match client.acl(path).await {
        Ok(found) if found == Acl::open() => {}
        Ok(_) | Err(Error::NoNode | Error::NoAuth) => return Ok(()),
        Err(error) => return Err(error),
    }
    match client.set_acl(path, acl, None).await {
        Ok(_) => {
            tracing::info!(path, "is ours alone from now on");
            Ok(())
        }
        Err(Error::NoNode | Error::NoAuth) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what is missing above the mapped roots of `side`, with the access control lists that the other side has above its roots.
///
/// # Errors
/// When it may not be made, or a list that it needs cannot be read.
pub(super) async fn make_above(client: &Client, config: &LinkConfig, side: Side, others: &Options) -> Result<(), Error> {
    let mut reached = None;
    for rule in config.mapping.rules() {
        let (root, others_root) = if side == Side::A { (&rule.a, &rule.b) } else { (&rule.b, &rule.a) };
        for (path, like) in above(root, others_root) {
            if client.stat(&path).await?.is_some() {
                continue;
            }
            let acl = if config.acl == AclPolicy::Ignore {
                Acl::open()
            } else {
                let other = match reached.take() {
                    Some(other) => other,
                    None => connect(&path, others).await?,
                };
                let list = list_like(&other, config, side, &path, &like).await?;
                reached = Some(other);
                list
            };
            match client.create(&path, b"", &acl, CreateKind::Persistent).await {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) if error.is_ambiguous() => return Err(error),
                Err(error) => return Err(Error::Refused(format!("making {path}, above what is mapped: {error}"))),
            }
        }
    }
    Ok(())
}

async fn connect(path: &str, others: &Options) -> Result<Client, Error> {
    let why = |error: Error| {
        Error::Refused(format!("{path} is missing and gets the access control list of the other side, which does not answer: {error}"))
    };
    Client::connect(others).await.map_err(why)
}

/// The list of `like` on the other side, or of the next one above it that is there, in this side's words.
async fn list_like(other: &Client, config: &LinkConfig, side: Side, path: &str, like: &str) -> Result<Vec<Acl>, Error> {
    let mut like = like;
    loop {
        match other.acl(like).await {
            Ok(acl) => {
                let acl = convert::acl_from(&acl);
                if is_hidden(&acl) {
                    let why = "is hidden from us: make it by hand, or let our identity have ADMIN there";
                    return Err(Error::Refused(format!(
                        "{path} is missing, and the access control list of {like} on the other side {why}"
                    )));
                }
                return Ok(acl_to(&config.translate(&acl, side.other())));
            }
            Err(Error::NoNode) if like != "/" => like = parent(like),
            Err(error) => {
                return Err(Error::Refused(format!("{path} is missing, and {like} on the other side, which it is to be like: {error}")));
            }
        }
    }
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

/// What is above `root`, from the top, each with what is as far above `others_root`.
fn above(root: &str, others_root: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut path, mut like) = (parent(root), parent(others_root));
    while path != "/" {
        found.push((path.to_owned(), like.to_owned()));
        (path, like) = (parent(path), parent(like));
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_root_is_like_what_is_as_far_above_the_other() {
        let found = |root: &str, other: &str| -> Vec<String> {
            above(root, other).into_iter().map(|(path, like)| format!("{path} like {like}")).collect()
        };
        assert_eq!(found("/", "/"), Vec::<String>::new());
        assert_eq!(found("/app", "/x/app"), Vec::<String>::new());
        assert_eq!(found("/x/y/app", "/x/y/app"), ["/x like /x", "/x/y like /x/y"]);
        assert_eq!(found("/new/x/app", "/old/app"), ["/new like /", "/new/x like /old"]);
        assert_eq!(found("/new/app", "/app"), ["/new like /"]);
    }
}
