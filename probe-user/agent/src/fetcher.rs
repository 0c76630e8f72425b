//! Brings the files that a command names into its sandbox: from the web or this host, through a cache, unpacked or executable as asked.
//!
//! Everything is made in a directory of the agent's own first, with its owner, and then moved into the sandbox: links that an archive has brought, or
//! that a task of the same sandbox makes meanwhile, lead nothing out of it.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesos_proto::v1::command_info;
use tokio_util::sync::CancellationToken;

use crate::keeper::User;
use crate::sandbox::{self, Sandbox, below};
use archive::Archive;
use cache::Cache;

mod archive;
mod cache;
mod rights;
mod source;

/// Longest name of a file (`NAME_MAX` of limits.h).
const NAME_MAX: usize = 255;

/// Why nothing more is fetched for a container that is not wanted any more.
const CANCELLED: &str = "the container was destroyed";

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the cache is.
    pub cache_dir: PathBuf,
    /// How much it may hold, in bytes.
    pub cache_size: u64,
    /// Where files are made before they are moved into a sandbox: on the same disk, best.
    pub draft_dir: PathBuf,
    /// Where programs that run as the user of a task leave what they fetch; who owns the tasks must be able to go there.
    pub handover_dir: PathBuf,
    /// A download without a byte for this long has failed.
    pub stall_timeout: Duration,
    /// Where the client of HDFS is installed; `None`: it is looked for in PATH.
    pub hadoop_home: Option<PathBuf>,
    /// Directory of paths that are not absolute; `None`: there may be none.
    pub frameworks_home: Option<PathBuf>,
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not one of those that are fetched.
    #[error("Failed to fetch '{0}': only http, https, ftp, ftps, hdfs, hftp, s3, s3a, s3n, file and paths are fetched")]
    Scheme(String),
    /// A path of the framework's own, and nobody has said where those are.
    #[error("Failed to fetch '{0}': a relative path needs the agent's frameworks_home")]
    Relative(String),
    /// Its name would lead out of the sandbox.
    #[error("Failed to fetch '{0}': it has no name for a file of the sandbox")]
    Name(String),
    /// Nobody wants it any more.
    #[error("Failed to fetch '{0}': the container was destroyed")]
    Cancelled(String),
    /// The other side refused, or is silent.
    #[error("Failed to fetch '{uri}': {problem}")]
    Download {
        /// What.
        uri: String,
        /// Why not.
        problem: String,
    },
    /// It could not be written or unpacked here.
    #[error("Failed to fetch '{uri}': {source}")]
    Io {
        /// What.
        uri: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Fetches, and keeps what may be kept.
#[derive(Debug)]
pub struct Fetcher {
    settings: Settings,
    cache: Cache,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Fetcher {
    /// A fetcher whose cache begins empty: what an earlier agent kept is removed.
    pub fn new(settings: Settings) -> Self {
        for it in [&settings.draft_dir, &settings.handover_dir] {
            drop(std::fs::remove_dir_all(it));
        }
        let cache = Cache::new(&settings.cache_dir, settings.cache_size);
        Fetcher { settings, cache, succeeded: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Sets of files that were brought, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Bytes that the cache may hold, and holds.
    pub fn cache_bytes(&self) -> (u64, u64) {
        self.cache.bytes()
    }

    /// Brings all files of a command into the sandbox, whose path is `shown` to people. They are read with the rights of `owner`, and are that one's
    /// then; `None`: of the agent. Blocks; ends soon after `cancel`.
    ///
    /// # Errors
    /// The first that could not be brought.
    pub fn fetch(
        &self,
        uris: &[command_info::Uri],
        sandbox: &Sandbox,
        shown: &Path,
        owner: Option<&User>,
        cancel: &CancellationToken,
    ) -> Result<(), FetchError> {
        if uris.is_empty() {
            return Ok(());
        }
        let fetched = uris.iter().try_for_each(|it| {
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled(it.value.clone()));
            }
            note(sandbox, &format!("Fetching URI '{}'", it.value));
            let fetched = self.fetch_one(it, sandbox, owner, cancel);
            match &fetched {
                Ok(Some(name)) => note(sandbox, &format!("Fetched '{}' to '{}'", it.value, shown.join(name).display())),
                Ok(None) => note(sandbox, &format!("Fetched '{}' to '{}'", it.value, shown.display())),
                Err(error) => note(sandbox, &error.to_string()),
            }
            fetched.map(drop)
        });
        let counter = if fetched.is_ok() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        fetched
    }

    /// The name that the file has in the sandbox; none where it was unpacked.
    fn fetch_one(
        &self,
        uri: &command_info::Uri,
        sandbox: &Sandbox,
        owner: Option<&User>,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, FetchError> {
        let failed = |source| FetchError::Io { uri: uri.value.clone(), source };
        let name = file_name(uri).filter(|it| below(Path::new(""), it).is_some());
        let name = name.ok_or_else(|| FetchError::Name(uri.value.clone()))?;
        let archive = (uri.extract() && uri.executable != Some(true)).then(|| Archive::of(&name)).flatten();
        let draft = self.draft().map_err(failed)?;
        let (plain, unpacked) = (draft.0.join("plain"), draft.0.join("unpacked"));
        for it in [&plain, &unpacked] {
            std::fs::create_dir(it).map_err(failed)?;
        }
        let target = plain.join(&name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        // Who is root may read everything already.
        let reader = owner.filter(|it| it.uid != 0);
        let download = |path: &Path| source::download(&self.settings, &uri.value, path, reader, cancel);
        // An archive of the cache is unpacked from there: the sandbox does not get it.
        let cached = match uri.cache {
            Some(true) => {
                let of = reader.filter(|_| source::has_rights(&uri.value)).map(|it| it.uid);
                Some(self.cache.get(&uri.value, of, download)?)
            }
            _ => None,
        };
        let file = match (cached, archive) {
            (Some(cached), Some(_)) => cached,
            (Some(cached), None) => {
                let mut copy = File::create_new(&target).map_err(failed)?;
                let permissions = cached.metadata().map_err(failed)?.permissions();
                io::copy(&mut Until { inner: &cached, cancel }, &mut copy).map_err(failed)?;
                copy.set_permissions(permissions).map_err(failed)?;
                copy
            }
            (None, _) => {
                download(&target)?;
                File::open(&target).map_err(failed)?
            }
        };
        if let Some(archive) = archive {
            archive.unpack(file, &unpacked, &name, cancel).map_err(failed)?;
        }
        if uri.executable == Some(true) {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        if let Some(owner) = owner {
            give(&draft.0, owner).map_err(failed)?;
        }
        for it in [&plain, &unpacked] {
            sandbox.take_in(it).map_err(failed)?;
        }
        Ok(archive.is_none().then_some(name))
    }

    /// A directory into which nobody else looks.
    fn draft(&self) -> io::Result<Draft> {
        // A download of an agent that has ended may still be there, and removes what it has made.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        sandbox::make_private(&self.settings.draft_dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = Draft(self.settings.draft_dir.join(number.to_string()));
        std::fs::create_dir(&draft.0)?;
        Ok(draft)
    }
}

/// Is removed with what is left in it.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What is read until nobody wants it any more.
struct Until<'a, R> {
    inner: R,
    cancel: &'a CancellationToken,
}

impl<R: Read> Read for Until<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(CANCELLED));
        }
        self.inner.read(buffer)
    }
}

/// Tells whoever reads the sandbox what is fetched, and why that failed, as Mesos's fetcher does. A full disk keeps no file from being fetched.
fn note(sandbox: &Sandbox, line: &str) {
    drop(sandbox.log("stderr").and_then(|mut it| writeln!(it, "{line}")));
}

/// The name that a file gets in the sandbox.
fn file_name(uri: &command_info::Uri) -> Option<String> {
    if let Some(name) = &uri.output_file {
        return Some(name.clone()).filter(|it| !it.is_empty());
    }
    let path = match uri.value.split_once("://") {
        Some(("file", path)) => path,
        // As in Mesos, a query is a part of the name: commands name the file so.
        Some((_, rest)) => rest.split_once('/')?.1,
        None => &uri.value,
    };
    let mut name = path.rsplit('/').next()?;
    // A signed address may have a query that is longer than any name.
    if name.len() > NAME_MAX {
        name = path.split('?').next()?.rsplit('/').next()?;
    }
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

/// Makes all that is below a directory of the agent's own somebody's.
fn give(directory: &Path, owner: &User) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        std::os::unix::fs::lchown(entry.path(), Some(owner.uid), Some(owner.gid))?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
