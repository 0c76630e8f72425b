//! Names over a restart of the probe: a connection that was opened with a name keeps it, though nobody looks the name up again.
//!
//! The names of this node are written into the state directory when they have changed, and when the probe stops; the next probe begins with
//! them. Where the directory cannot be written, names begin anew with each start.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::message::NAME_MAX;
use super::names::{ADDRESSES_MAX, NAMES_MAX, Named, TIME_TO_LIVE};
use crate::clock::Now;
use crate::driver::Input;
use crate::observation::BootNanos;

/// The file in the state directory.
pub const FILE: &str = "names.json";

/// The names may be so much on disk: twice what a full table takes.
const BYTES_MAX: u64 = 8 << 20;

/// How often names that have changed are written.
const INTERVAL: Duration = Duration::from_secs(30);

/// The driver has this long to answer when the probe stops.
const PATIENCE: Duration = Duration::from_millis(500);

/// Addresses with their names, the latest name first, in the order in which they were used.
pub type Names = Vec<(IpAddr, Vec<Named>)>;

/// All names at one moment.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Grows with every change of the table; 0 of one that never had a name.
    pub version: u64,
    /// The names.
    pub names: Names,
    /// When.
    pub now: Now,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    addresses: Vec<Address>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Address {
    address: IpAddr,
    names: Vec<Name>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Name {
    name: String,
    resolved_unix_nanos: u64,
    expires_unix_nanos: u64,
}

/// The names as they are written: with times of the calendar, for the clock of boots begins anew.
pub fn encode(names: &Names, now: Now) -> Vec<u8> {
    let name = |it: &Named| Name {
        name: it.name.to_string(),
        resolved_unix_nanos: now.unix_at(it.resolved_at),
        expires_unix_nanos: now.unix_at(it.expires_at),
    };
    let address = |(address, names): &(IpAddr, Vec<Named>)| Address { address: *address, names: names.iter().map(name).collect() };
    // Such a text cannot fail to be written.
    serde_json::to_vec(&File { addresses: names.iter().map(address).collect() }).unwrap_or_default()
}

/// The names in a text that [`encode`] made: no more than the table has, and none that it would not have taken.
///
/// # Errors
/// When it is no such text.
pub fn decode(text: &[u8], now: Now) -> Result<Names, serde_json::Error> {
    let file: File = serde_json::from_slice(text)?;
    let named = |it: Name| {
        let is_name = it.name.len() <= NAME_MAX && !it.name.is_empty() && it.name.bytes().all(|byte| byte.is_ascii_graphic());
        // A clock that was set back makes nothing younger than it can be.
        let resolved = it.resolved_unix_nanos.min(now.unix_nanos);
        let longest = resolved.saturating_add(TIME_TO_LIVE.end() * 1_000_000_000);
        // No connection of before this boot is open.
        let is_of_this_boot = now.unix_nanos.saturating_sub(resolved) <= now.boot.0 || it.expires_unix_nanos > now.unix_nanos;
        (is_name && is_of_this_boot).then(|| Named {
            name: it.name.into(),
            resolved_at: boot_of(resolved, now),
            expires_at: boot_of(it.expires_unix_nanos.min(longest), now),
        })
    };
    let addresses = file.addresses.into_iter().take(ADDRESSES_MAX);
    let names = addresses.map(|it| (it.address.to_canonical(), it.names.into_iter().filter_map(named).take(NAMES_MAX).collect::<Vec<_>>()));
    Ok(names.filter(|(_, names)| !names.is_empty()).collect())
}

fn boot_of(unix_nanos: u64, now: Now) -> BootNanos {
    BootNanos(now.boot.0.saturating_add(unix_nanos).saturating_sub(now.unix_nanos))
}

/// Gives the driver the names that an earlier probe had, and writes down those that there are, until `stopping` is cancelled.
pub async fn run(directory: PathBuf, inputs: mpsc::Sender<Input>, stopping: CancellationToken) {
    let path: Arc<Path> = directory.join(FILE).into();
    match beside(path.clone(), |path| read(&path)).await {
        Ok(text) => match decode(&text, Now::read()) {
            Ok(names) if names.is_empty() => {}
            Ok(names) => drop(inputs.send(Input::NamesKept(names)).await),
            Err(error) => tracing::warn!(%error, path = %path.display(), "the names that an earlier probe knew cannot be read"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, path = %path.display(), "the names that an earlier probe knew cannot be read"),
    }
    let (mut written, mut problem) = (0, None);
    loop {
        let is_last = tokio::select! {
            () = tokio::time::sleep(INTERVAL) => false,
            () = stopping.cancelled() => true,
        };
        let (reply, answer) = oneshot::channel();
        let asked = async {
            inputs.send(Input::NamesWanted { newer_than: written, reply }).await.ok()?;
            answer.await.ok()
        };
        if let Ok(Some(Some(copy))) = tokio::time::timeout(PATIENCE, asked).await {
            let kept = beside(path.clone(), move |path| write(&path, &encode(&copy.names, copy.now)).map(|()| copy.version)).await;
            let now = match kept {
                Ok(version) => {
                    written = version;
                    None
                }
                Err(error) => Some(error.kind()),
            };
            if let Some(kind) = now.filter(|_| now != problem) {
                tracing::info!(%kind, path = %path.display(), "names are not kept: open connections have none after a restart");
            }
            problem = now;
        }
        if is_last {
            return;
        }
    }
}

async fn beside<T: Send + 'static>(path: Arc<Path>, work: impl FnOnce(Arc<Path>) -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(move || work(path)).await.map_err(io::Error::other)?
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Whoever stops it in the middle leaves what was there before.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let fresh = path.with_extension("new");
    // Where this node connects to is for nobody else.
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text)?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests;
