//! Brings the files that a command names into its sandbox: from the web or this host, through a cache, unpacked or executable as asked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesos_proto::v1::command_info;

use crate::keeper::User;
use crate::sandbox::below;

/// Longest name of a file (`NAME_MAX` of limits.h).
const NAME_MAX: usize = 255;

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not one of those that are fetched.
    #[error("Failed to fetch '{0}': only http, https, file and paths are fetched")]
    Scheme(String),
    /// Its name would lead out of the sandbox.
    #[error("Failed to fetch '{0}': it has no name for a file of the sandbox")]
    Name(String),
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
    directory: PathBuf,
    size_max: u64,
    stall_timeout: Duration,
    /// Directory of paths that are not absolute.
    frameworks_home: PathBuf,
    cache: Mutex<Cache>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Cache {
    entries: BTreeMap<String, Entry>,
    clock: u64,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    size: u64,
    used: u64,
    /// Held by who downloads it.
    ready: Arc<Mutex<bool>>,
}

impl Fetcher {
    /// A fetcher whose cache begins empty: what an earlier agent kept is removed.
    pub fn new(directory: &Path, size_max: u64, stall_timeout: Duration) -> Self {
        drop(std::fs::remove_dir_all(directory));
        Fetcher {
            directory: directory.to_owned(),
            size_max,
            stall_timeout,
            frameworks_home: PathBuf::from("/"),
            cache: Mutex::default(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Sets of files that were brought, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Bytes that the cache may hold, and holds.
    pub fn cache_bytes(&self) -> (u64, u64) {
        (self.size_max, self.lock().entries.values().map(|it| it.size).sum())
    }

    /// Brings all files of a command. Blocks.
    ///
    /// # Errors
    /// The first that could not be brought.
    pub fn fetch(&self, uris: &[command_info::Uri], sandbox: &Path, owner: Option<&User>) -> Result<(), FetchError> {
        if uris.is_empty() {
            return Ok(());
        }
        let fetched = uris.iter().try_for_each(|it| {
            note(sandbox, &format!("Fetching URI '{}'", it.value));
            let fetched = self.fetch_one(it, sandbox, owner);
            match &fetched {
                Ok(target) => note(sandbox, &format!("Fetched '{}' to '{}'", it.value, target.display())),
                Err(error) => note(sandbox, &error.to_string()),
            }
            fetched.map(drop)
        });
        let counter = if fetched.is_ok() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        fetched
    }

    /// Where it is now: the file, or the directory that it was unpacked into.
    fn fetch_one(&self, uri: &command_info::Uri, sandbox: &Path, owner: Option<&User>) -> Result<PathBuf, FetchError> {
        let failed = |source| FetchError::Io { uri: uri.value.clone(), source };
        let name = file_name(uri).ok_or_else(|| FetchError::Name(uri.value.clone()))?;
        let target = below(sandbox, &name).ok_or_else(|| FetchError::Name(uri.value.clone()))?;
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let archive = (uri.extract() && uri.executable != Some(true)).then(|| Archive::of(&name)).flatten();
        let cached = if uri.cache == Some(true) { self.cached(&uri.value)? } else { None };
        // An archive of the cache is unpacked from there: the sandbox does not get it.
        let source = match cached {
            Some(path) if archive.is_some() => path,
            Some(path) => {
                std::fs::copy(path, &target).map_err(failed)?;
                target.clone()
            }
            None => {
                self.download(&uri.value, &target)?;
                target.clone()
            }
        };
        let before = names(sandbox);
        if let Some(archive) = archive {
            archive.unpack(&source, sandbox, &name).map_err(failed)?;
        }
        if uri.executable == Some(true) {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        if let Some(owner) = owner {
            for new in names(sandbox).into_iter().filter(|it| !before.contains(it) || *it == target) {
                give(&new, owner).map_err(failed)?;
            }
        }
        Ok(if archive.is_some() { sandbox.to_owned() } else { target })
    }

    /// The file of the cache, downloaded by the first who asks. `None` where it does not fit.
    fn cached(&self, uri: &str) -> Result<Option<PathBuf>, FetchError> {
        let (path, ready) = {
            let mut cache = self.lock();
            cache.clock += 1;
            let now = cache.clock;
            if !cache.entries.contains_key(uri) {
                cache.next += 1;
                let path = self.directory.join(format!("c{}", cache.next));
                cache.entries.insert(uri.to_owned(), Entry { path, size: 0, used: now, ready: Arc::default() });
            }
            let Some(entry) = cache.entries.get_mut(uri) else { return Ok(None) };
            entry.used = now;
            (entry.path.clone(), entry.ready.clone())
        };
        let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
        if *ready && path.exists() {
            return Ok(Some(path));
        }
        let downloaded = std::fs::create_dir_all(&self.directory)
            .map_err(|source| FetchError::Io { uri: uri.to_owned(), source })
            .and_then(|()| self.download(uri, &path));
        if let Err(error) = downloaded {
            self.lock().entries.remove(uri);
            return Err(error);
        }
        let size = path.metadata().map_or(0, |it| it.len());
        *ready = true;
        let mut cache = self.lock();
        if let Some(entry) = cache.entries.get_mut(uri) {
            entry.size = size;
        }
        cache.shrink(self.size_max, uri);
        if size > self.size_max {
            cache.entries.remove(uri);
        }
        Ok(Some(path))
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn download(&self, uri: &str, target: &Path) -> Result<(), FetchError> {
        let failed = |source| FetchError::Io { uri: uri.to_owned(), source };
        let path = match uri.split_once("://") {
            Some(("http" | "https", _)) => return self.download_http(uri, target),
            Some(("file", path)) => PathBuf::from(path),
            Some(_) => return Err(FetchError::Scheme(uri.to_owned())),
            None if uri.starts_with('/') => PathBuf::from(uri),
            None => self.frameworks_home.join(uri),
        };
        std::fs::copy(&path, target).map_err(failed)?;
        Ok(())
    }

    fn download_http(&self, uri: &str, target: &Path) -> Result<(), FetchError> {
        let problem = |problem: String| FetchError::Download { uri: uri.to_owned(), problem };
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(self.stall_timeout))
            .timeout_recv_response(Some(self.stall_timeout))
            .timeout_per_read(Some(self.stall_timeout))
            .build()
            .new_agent();
        let answer = agent.get(uri).call().map_err(|error| problem(error.to_string()))?;
        let mut body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        let mut file = File::create(target).map_err(|source| FetchError::Io { uri: uri.to_owned(), source })?;
        let copied = io::copy(&mut body, &mut file).and_then(|_| file.flush());
        copied.map_err(|error| problem(error.to_string()))
    }
}

impl Cache {
    /// Removes what was not used for longest until the rest fits.
    fn shrink(&mut self, size_max: u64, keep: &str) {
        while self.entries.values().map(|it| it.size).sum::<u64>() > size_max {
            let oldest = self.entries.iter().filter(|(uri, it)| *uri != keep && it.size > 0).min_by_key(|(_, it)| it.used);
            let Some(oldest) = oldest.map(|(uri, _)| uri.clone()) else { return };
            if let Some(entry) = self.entries.remove(&oldest) {
                // Who copies it right now has it open.
                drop(std::fs::remove_file(entry.path));
            }
        }
    }
}

/// Tells whoever reads the sandbox what is fetched, and why that failed, as Mesos's fetcher does. A full disk keeps no file from being fetched.
fn note(sandbox: &Path, line: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;

    let log = File::options().append(true).custom_flags(libc::O_NOFOLLOW).open(sandbox.join("stderr"));
    drop(log.and_then(|mut it| writeln!(it, "{line}")));
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

fn names(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.path()).collect()
}

fn give(path: &Path, owner: &User) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))?;
    if path.is_dir() && !path.is_symlink() {
        for child in names(path) {
            give(&child, owner)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Archive {
    Tar(Packing),
    Zip,
    /// One file.
    Packed(Packing),
}

impl Archive {
    fn of(name: &str) -> Option<Archive> {
        const ENDS: [(&str, Archive); 9] = [
            (".tgz", Archive::Tar(Packing::Gzip)),
            (".tar.gz", Archive::Tar(Packing::Gzip)),
            (".tbz2", Archive::Tar(Packing::Bzip2)),
            (".tar.bz2", Archive::Tar(Packing::Bzip2)),
            (".txz", Archive::Tar(Packing::Xz)),
            (".tar.xz", Archive::Tar(Packing::Xz)),
            (".tar", Archive::Tar(Packing::Plain)),
            (".zip", Archive::Zip),
            (".gz", Archive::Packed(Packing::Gzip)),
        ];
        ENDS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, it)| *it)
    }

    fn unpack(self, source: &Path, sandbox: &Path, name: &str) -> io::Result<()> {
        match self {
            Archive::Zip => zip::ZipArchive::new(File::open(source)?).and_then(|mut it| it.extract(sandbox)).map_err(io::Error::other),
            Archive::Tar(packing) => {
                let mut archive = tar::Archive::new(packing.open(source)?);
                archive.set_preserve_permissions(true);
                archive.set_preserve_ownerships(false);
                archive.unpack(sandbox)
            }
            Archive::Packed(packing) => {
                let target = sandbox.join(name.trim_end_matches(".gz"));
                io::copy(&mut packing.open(source)?, &mut File::create(target)?).map(|_| ())
            }
        }
    }
}

impl Packing {
    fn open(self, source: &Path) -> io::Result<Box<dyn Read>> {
        match self {
            Packing::Plain => Ok(Box::new(File::open(source)?)),
            Packing::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(File::open(source)?))),
            Packing::Bzip2 => by_program("bzip2", source),
            Packing::Xz => by_program("xz", source),
        }
    }
}

/// What few use is unpacked by the host's own programs, as Mesos does with all.
fn by_program(program: &str, source: &Path) -> io::Result<Box<dyn Read>> {
    let child = Command::new(program)
        .arg("-dc")
        .arg(source)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    Ok(Box::new(Unpacking(child)))
}

struct Unpacking(std::process::Child);

impl Read for Unpacking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.stdout.as_mut().map_or(Ok(0), |it| it.read(buffer))?;
        if read == 0 && !buffer.is_empty() && !self.0.wait()?.success() {
            return Err(io::Error::other("the archive is damaged"));
        }
        Ok(read)
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests;
