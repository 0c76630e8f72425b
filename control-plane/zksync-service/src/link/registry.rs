//! Which links use an ensemble: those of other control planes are not in our store, and two that share a subtree would carry each other's writes
//! in circles.
//!
//! `/__zksync/registry` has a random number as its data, which names the ensemble; `/__zksync/registry/<link>` tells what a link pairs there, and the
//! number of the ensemble on its other side. A link of the same name between the same ensembles is the same link, whoever runs it: its epochs see to
//! it that only one does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zk::{Acl, Client, CreateKind, Error, Options, Read};
use zksync::{LinkConfig, RESERVED, Side, is_below};

use super::{Reserved, now};
use crate::definition::Definition;

/// Links whose entries are read.
const LINKS_READ: usize = 1_000;
/// Entries that are read in one request.
const READ_AT_ONCE: usize = 64;
/// How long the other side is waited for to tell what it is called.
const PATIENCE: Duration = Duration::from_secs(2);
/// A link that has not compared clocks for so long is not run any more: it does so every second, by its ensemble's clock, which may differ from ours.
const ABANDONED_MS: u64 = 600_000;

/// Where the registry is.
pub(crate) fn root() -> String {
    format!("{RESERVED}/registry")
}

/// Where a link's entry is.
pub(crate) fn place(id: &str) -> String {
    format!("{RESERVED}/registry/{id}")
}

/// What a link claims of an ensemble.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The link.
    pub(crate) id: String,
    /// Which of its sides the ensemble is.
    pub(crate) side: Side,
    /// What is mapped there.
    pub(crate) roots: Vec<String>,
    /// The path that all paths are below; empty for none.
    pub(crate) chroot: String,
    /// What names the ensemble on the other side, if that is known yet.
    pub(crate) peer: Option<String>,
    /// Whether the server knows who we are.
    pub(crate) has_identity: bool,
    /// Who runs the link; none where nothing is entered.
    pub(crate) leader: Option<u64>,
}

/// A claim as it stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    side: Side,
    roots: Vec<String>,
    #[serde(default)]
    chroot: String,
    #[serde(default)]
    peer_nonce: Option<String>,
}

impl Claim {
    /// That of a link as it is written down. Whether the server knows who we are does not count where nothing is entered.
    pub(crate) fn of(definition: &Definition, config: &LinkConfig, side: Side, peer: Option<String>) -> Claim {
        Claim {
            id: definition.id.clone(),
            side,
            roots: config.mapping.roots(side).map(str::to_owned).collect(),
            chroot: Options::new(&definition.ensemble(side).connect).chroot().to_owned(),
            peer,
            has_identity: false,
            leader: None,
        }
    }

    fn entry(&self) -> Entry {
        Entry { side: self.side, roots: self.roots.clone(), chroot: self.chroot.clone(), peer_nonce: self.peer.clone() }
    }

    /// Whether an entry of our name is that of another link.
    fn is_anothers(&self, entry: &Entry) -> bool {
        let is_other_peer = matches!((&self.peer, &entry.peer_nonce), (Some(ours), Some(theirs)) if ours != theirs);
        entry.side != self.side || is_other_peer
    }

    /// What of ours an entry of another name has, too.
    fn shared<'a>(&'a self, entry: &Entry) -> Option<&'a str> {
        let overlaps = |root: &&String| entry.roots.iter().any(|other| is_below(root, other) || is_below(other, root));
        self.roots.iter().find(overlaps).map(String::as_str)
    }
}

/// What names the ensemble, if anything does yet.
///
/// # Errors
/// When it does not answer, or may not be read.
pub(crate) async fn nonce(client: &Client) -> Result<Option<String>, Error> {
    match client.get(&root()).await {
        Ok((data, _)) => Ok(String::from_utf8(data).ok().filter(|nonce| !nonce.is_empty())),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What names the ensemble; it gets a name made of `seed` if it has none.
///
/// # Errors
/// When it does not answer, or we may not.
pub(super) async fn name(client: &Client, seed: u64, has_identity: bool) -> Result<Option<String>, Error> {
    let shared = if has_identity { Acl::shared() } else { Acl::open() };
    client.create_all_with(RESERVED, &shared).await?;
    if let Some(nonce) = nonce(client).await? {
        return Ok(Some(nonce));
    }
    let fresh = format!("{seed:016x}{:016x}", now().unix_nanos());
    match client.create(&root(), fresh.as_bytes(), &shared, CreateKind::Persistent).await {
        Ok(_) | Err(Error::NodeExists) => nonce(client).await,
        Err(error) => Err(error),
    }
}

/// Two sides with one name are one ensemble, or one of them began with a copy of the other's data: what is made on one cannot be made on the other, or
/// can. A copy gets a name of its own, if it is B; gives that back. `is_ours` says that what B has of this link was written there by us.
///
/// # Errors
/// `Refused` with the reason when they are one, or what the copy has of this link would be taken for its work; or when B is to get its name first.
pub(super) async fn apart(client: &Client, claim: &Claim, others: &Options, seed: u64, is_ours: bool) -> Result<String, Error> {
    let refused = |why: &str| Err(Error::Refused(why.to_owned()));
    if claim.side == Side::A {
        return refused("A and B have the same name: they are one, or one began with a copy of the other's data; B finds that out");
    }
    let other = Client::connect(others).await?;
    let fresh = format!("{seed:016x}{:016x}", now().unix_nanos());
    let mark = format!("{RESERVED}/apart-{fresh}");
    // They go with their sessions, should they not be deleted. A write on both: what is read may come from a server that does not know yet.
    client.create(&mark, b"", &Acl::open(), CreateKind::Ephemeral).await?;
    let made = other.create(&mark, b"", &Acl::open(), CreateKind::Ephemeral).await;
    for client in [client, &other] {
        match client.delete(&mark, None).await {
            Ok(()) | Err(Error::NoNode) => {}
            Err(error) => return Err(error),
        }
    }
    match made {
        Ok(_) => {}
        Err(Error::NodeExists) => return refused(SAME),
        Err(error) => return Err(error),
    }
    // Of its epochs and slots nobody could tell which were written here; where nobody has led yet there are none.
    if !is_ours && client.stat(&Reserved::of(&claim.id).epoch()).await?.is_some() {
        return Err(Error::Refused(format!("B began with a copy of A's data, and of what this link did there: delete {RESERVED} on B")));
    }
    let (name, stat) = client.get(&root()).await?;
    if claim.peer.as_deref().map(str::as_bytes) == Some(&name) {
        client.set(&root(), fresh.as_bytes(), Some(stat.version)).await?;
        tracing::info!(link = claim.id, "B began with a copy of A's data: it has a name of its own now");
    }
    nonce(client).await?.ok_or_else(|| Error::Refused(format!("B has no name, in {}", root())))
}

/// What names an ensemble that is not connected otherwise; none when it does not tell in time.
pub(super) async fn nonce_of(others: &Options) -> Option<String> {
    let asked = async { nonce(&Client::connect(others).await?).await };
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok().flatten()
}

/// Enters the claim. The first one that claims a subtree has it. What the other side is called is asked there, if it must be known.
///
/// # Errors
/// `Refused` with the reason when another link has a part of it, or it cannot be told whether one has.
pub(super) async fn enter(client: &Client, claim: &mut Claim, others: &Options) -> Result<(), Error> {
    let path = place(&claim.id);
    if claim.peer.is_none()
        && let Some(there) = entry_of(client, &claim.id).await?.filter(|there| there.peer_nonce.is_some())
    {
        let asked = async { nonce(&Client::connect(others).await?).await };
        let asked = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(Error::Unknown("no answer yet".to_owned())));
        match asked {
            Ok(Some(peer)) => claim.peer = Some(peer),
            // One that is not reached can be the one that stands there, and one without a name cannot.
            Err(_) if there.side == claim.side && there.roots == claim.roots => {}
            Ok(None) | Err(_) => {
                let why = "there is a link of this name, and it is not known yet whether it leads to the same ensemble";
                return Err(Error::Refused(why.to_owned()));
            }
        }
    }
    let entry = claim.entry();
    let data = serde_json::to_vec(&entry).map_err(|error| Error::Refused(error.to_string()))?;
    // Others must see what they would share.
    let acl = if claim.has_identity { Acl::readable() } else { Acl::open() };
    let made = match client.create(&path, &data, &acl, CreateKind::Persistent).await {
        Ok(_) => None,
        Err(Error::NodeExists) => Some(client.get(&path).await?.0),
        Err(error) => return Err(error),
    };
    if let Some(there) = made {
        let there: Option<Entry> = serde_json::from_slice(&there).ok();
        if let Some(there) = there.as_ref().filter(|there| claim.is_anothers(there))
            && !(there.side == claim.side && is_run_by_us(client, claim).await?)
        {
            if is_run(client, &claim.id).await? {
                return Err(Error::Refused(same_name(&claim.id, claim.side)));
            }
            tracing::warn!(link = claim.id, side = claim.side.as_str(), "takes the place of a link of this name that nobody runs any more");
        }
        // What the other side is called may be known already, though not to us.
        let knows_less = there.as_ref().is_some_and(|there| entry.peer_nonce.is_none() && there.peer_nonce.is_some());
        if there.as_ref() != Some(&entry) && !knows_less {
            client.set(&path, &data, None).await?;
        }
    }
    match overlap(client, claim).await? {
        Some(why) => Err(Error::Refused(why)),
        None => Ok(()),
    }
}

/// What keeps `claim` from being entered, without entering it.
///
/// # Errors
/// When the ensemble does not answer.
pub(crate) async fn in_the_way(client: &Client, claim: &Claim) -> Result<Option<String>, Error> {
    if is_held(client, claim).await? {
        return Ok(Some(same_name(&claim.id, claim.side)));
    }
    overlap(client, claim).await
}

/// Whether another link of this name is run on the ensemble.
///
/// # Errors
/// When the ensemble does not answer.
pub(crate) async fn is_held(client: &Client, claim: &Claim) -> Result<bool, Error> {
    let there = entry_of(client, &claim.id).await?;
    Ok(there.is_some_and(|there| claim.is_anothers(&there)) && is_run(client, &claim.id).await?)
}

/// What stands in the registry about a link.
async fn entry_of(client: &Client, id: &str) -> Result<Option<Entry>, Error> {
    match client.get(&place(id)).await {
        Ok((data, _)) => Ok(serde_json::from_slice(&data).ok()),
        Err(Error::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which link has claimed a part of what is claimed, earlier than this one did.
async fn overlap(client: &Client, claim: &Claim) -> Result<Option<String>, Error> {
    let names = match client.children(&root()).await {
        Ok(names) => names,
        Err(Error::NoNode) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mine = client.stat(&place(&claim.id)).await?.map(|stat| stat.czxid);
    let others: Vec<String> = names.into_iter().filter(|name| *name != claim.id).take(LINKS_READ).collect();
    for some in others.chunks(READ_AT_ONCE) {
        let reads: Vec<Read> = some.iter().map(|name| Read { path: place(name), children: false, acl: false }).collect();
        for (name, node) in some.iter().zip(client.read(&reads).await?) {
            let Ok(node) = node else { continue };
            let Ok(entry) = serde_json::from_slice::<Entry>(&node.data) else { continue };
            if mine.is_some_and(|mine| node.stat.czxid > mine) {
                continue;
            }
            if let Some(root) = claim.shared(&entry)
                && is_run(client, name).await?
            {
                let side = claim.side.as_str().to_uppercase();
                return Ok(Some(format!(
                    "the link {name:?}, of another control plane, already pairs {root} of {side}, or a part of it; if it is gone for good, delete {}",
                    place(name)
                )));
            }
        }
    }
    Ok(None)
}

/// That another link has this name.
pub(crate) fn same_name(id: &str, side: Side) -> String {
    format!(
        "a link {id:?} of another control plane already uses {}, with another ensemble on its other side; give this one another id, or, if that one is \
         gone for good, delete {}",
        side.as_str().to_uppercase(),
        place(id)
    )
}

/// Why a link between an ensemble and itself is none.
pub(crate) const SAME: &str = "A and B are the same ensemble, by different names: there is nothing to keep in step";

/// The same, as it looks to who may not write.
pub(crate) const SAME_OR_COPY: &str = "A and B are the same ensemble, by different names: there is nothing to keep in step; or B is a copy that nobody \
                                       has written to since, and a link that is made between them finds that out";

/// Whether somebody runs the link `id`.
async fn is_run(client: &Client, id: &str) -> Result<bool, Error> {
    let beat = client.stat(&Reserved::of(id).heartbeat()).await?;
    let beat_ms = beat.map(|stat| u64::try_from(stat.mtime).unwrap_or(0));
    Ok(beat_ms.is_some_and(|at| now().unix_millis().saturating_sub(at) < ABANDONED_MS))
}

/// Whether it is us who run the link: an ensemble whose registry was lost is called otherwise since then, and the link is no other for it.
async fn is_run_by_us(client: &Client, claim: &Claim) -> Result<bool, Error> {
    let Some(leader) = claim.leader else { return Ok(false) };
    match client.get(&Reserved::of(&claim.id).epoch()).await {
        Ok((data, _)) => Ok(data == Reserved::epoch_of(leader).as_bytes()),
        // Ours can be read by us.
        Err(Error::NoNode | Error::NoAuth) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Enters the claim once more when it is known what the other side is called; ends with the reason when it cannot stand then.
pub(super) async fn complete(
    client: Client,
    mut claim: Claim,
    (own, others): (Option<String>, Options),
    mut peer: watch::Receiver<Option<String>>,
) -> String {
    loop {
        let known = peer.borrow_and_update().clone();
        if known.is_some() && known != claim.peer {
            if known == own {
                return SAME.to_owned();
            }
            claim.peer = known;
            match enter(&client, &mut claim, &others).await {
                Ok(()) => {}
                // The connection is gone, and whoever opens it again enters the claim again.
                Err(error) if error.is_ambiguous() => {}
                Err(error) => return error.to_string(),
            }
        }
        if peer.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str, side: Side, roots: &[&str], peer: Option<&str>) -> Claim {
        Claim {
            id: id.to_owned(),
            side,
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            chroot: String::new(),
            peer: peer.map(str::to_owned),
            has_identity: false,
            leader: None,
        }
    }

    #[test]
    fn the_same_link_is_told_from_another_of_its_name_by_its_other_side() {
        let ours = claim("m", Side::A, &["/app"], Some("n1"));
        for (other, is_anothers) in [
            (claim("m", Side::A, &["/app"], Some("n1")), false),
            (claim("m", Side::A, &["/changed"], None), false),
            (claim("m", Side::A, &["/app"], Some("n2")), true),
            (claim("m", Side::B, &["/app"], Some("n1")), true),
        ] {
            assert_eq!(ours.is_anothers(&other.entry()), is_anothers, "{other:?}");
            assert_eq!(other.is_anothers(&ours.entry()), is_anothers, "{other:?}");
        }
    }

    #[test]
    fn what_two_links_share_is_found_whichever_is_above() {
        let ours = claim("m", Side::A, &["/app", "/brokers/ids"], None);
        let shared = |roots: &[&str]| ours.shared(&claim("o", Side::B, roots, None).entry());
        assert_eq!(shared(&["/"]), Some("/app"));
        assert_eq!(shared(&["/other", "/brokers"]), Some("/brokers/ids"));
        assert_eq!(shared(&["/app/x"]), Some("/app"));
        assert_eq!(shared(&["/app2", "/brokers/topics"]), None);
    }
}
