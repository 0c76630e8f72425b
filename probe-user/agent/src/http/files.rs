//! Files of sandboxes: `/files/browse`, `/files/read`, `/files/download`, `/files/debug`, and what the v1 API needs of them.
//!
//! Nothing is shown that is not below a sandbox of this agent, but for its own log. A link that leads outside leads nowhere, and one that a task makes
//! while it is looked leads nowhere, either.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use mesos_proto::v1::{FileInfo, TimeInfo};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::{Answer, CutShort, Query, Server, classic, plain, rights, streamed};
use crate::sandbox::{TASKS, by_descriptor, named};
use crate::table::{Framework, Kind};
use crate::words::ContainerKey;

/// As much as one read answers: 16 pages.
const READ_MAX: u64 = 16 * 4096;

/// Entries of a directory that are listed.
const ENTRIES_MAX: usize = 10_000;

/// Why a file is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileError {
    #[error("Expecting 'path=value' in query.")]
    NoPath,
    #[error("File not found")]
    NotFound,
    #[error("Forbidden")]
    Forbidden,
    #[error("Cannot read a directory.")]
    IsDirectory,
    #[error("Path is not a directory.")]
    NotDirectory,
    #[error("Failed to read the file: {0}")]
    Failed(String),
    #[error("Negative {0} provided.")]
    Negative(&'static str),
    #[error("Failed to parse {0}")]
    NotANumber(&'static str),
}

impl FileError {
    pub(super) fn answer(&self) -> Answer {
        let status = match self {
            FileError::NotFound => return plain(StatusCode::NOT_FOUND, None),
            FileError::Forbidden => return plain(StatusCode::FORBIDDEN, None),
            FileError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        plain(status, Some(&format!("{self}\n")))
    }
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => FileError::NotFound,
            // A link has taken the place of a directory since it was looked.
            std::io::ErrorKind::NotADirectory => FileError::NotFound,
            _ => FileError::Failed(error.to_string()),
        }
    }
}

/// Where the agent's own log is shown.
const LOG: &str = "/slave/log";

/// What a client means: a path without links below a directory that no task changes.
#[derive(Debug)]
pub(super) struct Shown {
    root: PathBuf,
    below: PathBuf,
}

impl Shown {
    /// Whatever is there, to be looked at.
    fn found(&self) -> std::io::Result<std::fs::File> {
        named(&self.root, &self.below)
    }

    /// A plain file, open. A task may have put a pipe there, which nobody would ever write to.
    fn file(&self) -> Result<std::fs::File, FileError> {
        let found = self.found()?;
        let metadata = found.metadata()?;
        if metadata.is_dir() {
            return Err(FileError::IsDirectory);
        }
        if !metadata.is_file() {
            return Err(FileError::NotFound);
        }
        Ok(std::fs::File::open(by_descriptor(found.as_fd()))?)
    }

    fn name(&self) -> String {
        self.below.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// What a client means by a path.
pub(super) async fn resolve(server: &Server, path: &str) -> Result<Shown, FileError> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Err(FileError::NoPath);
    }
    if path == LOG {
        if !server.viewer.may("access_mesos_logs", None) {
            return Err(FileError::Forbidden);
        }
        let log = server.config.external_log_file.as_ref().ok_or(FileError::NotFound)?;
        let log = tokio::fs::canonicalize(log).await?;
        let (Some(root), Some(name)) = (log.parent(), log.file_name()) else { return Err(FileError::NotFound) };
        return Ok(Shown { root: root.to_owned(), below: PathBuf::from(name) });
    }
    let wanted = Path::new(path);
    if wanted.components().any(|it| matches!(it, Component::ParentDir)) {
        return Err(FileError::NotFound);
    }
    let slaves = server.containers.layout().slaves();
    let real = match virtual_path(server, path).await {
        Some(path) => path,
        None => wanted.to_owned(),
    };
    // Links are followed first: what counts is where the file is. It is opened by that path alone, without links.
    let canonical = tokio::fs::canonicalize(&real).await?;
    let root = tokio::fs::canonicalize(&slaves).await?;
    let volumes = tokio::fs::canonicalize(server.config.work_dir.join("volumes")).await.ok();
    let below = |root: &Path| canonical.strip_prefix(root).ok().filter(|it| *it != Path::new("")).map(Path::to_owned);
    let slaves = root.clone();
    let shown = std::iter::once(root).chain(volumes).find_map(|root| below(&root).map(|below| Shown { root, below }));
    let shown = shown.ok_or(FileError::NotFound)?;
    let of_executor = if shown.root == slaves { shown.below.as_path() } else { Path::new("") };
    if rights::sees_file(server, of_executor).await { Ok(shown) } else { Err(FileError::Forbidden) }
}

/// `/frameworks/<f>/executors/<e>/runs/…` and `/frameworks/<f>/executors/<e>/tasks/<t>/…`.
async fn virtual_path(server: &Server, path: &str) -> Option<PathBuf> {
    let mut parts = path.strip_prefix("/frameworks/")?.split('/');
    let framework = parts.next()?.to_owned();
    let executor = parts.next().filter(|it| *it == "executors").and(parts.next())?.to_owned();
    let kind = parts.next()?.to_owned();
    let (layout, rest) = (server.containers.layout().clone(), parts.collect::<Vec<_>>());
    let agent_id = server.driver.look(|view| view.table.agent_id().to_owned()).await.ok()?;
    match kind.as_str() {
        "runs" => Some(layout.executor(&agent_id, &framework, &executor).join("runs").join(rest.join("/"))),
        "tasks" => {
            let (task, below) = rest.split_first()?;
            let runs = layout.executor(&agent_id, &framework, &executor).join("runs");
            let (of, id, task) = (executor.clone(), (*task).to_owned(), (*task).to_owned());
            let known = server.driver.look(move |view| {
                let live = view.table.frameworks().get(&framework);
                let over =
                    view.table.completed_frameworks().iter().rev().filter(|it| it.info.id.as_ref().is_some_and(|it| it.value == framework));
                let container = live.into_iter().chain(over).find_map(|it| container_of(it, &of, &id))?;
                Some(layout.sandbox(view.table.agent_id(), &framework, &of, &container))
            });
            let sandbox = match known.await.ok()? {
                Some(it) => it,
                None => tokio::task::spawn_blocking(move || linked(&runs, &task)).await.ok()??,
            };
            Some(sandbox.join(below.join("/")))
        }
        _ => None,
    }
}

/// The container of a task of a default executor, as long as the executor is remembered; the newest where there were several.
fn container_of(framework: &Framework, executor: &str, task: &str) -> Option<ContainerKey> {
    let live = framework.executors.get(executor);
    let over = framework.completed.iter().rev().filter(|it| it.info.executor_id.value == executor);
    live.into_iter().chain(over).find_map(|it| {
        let ended = || it.completed.iter().rev().find(|it| it.info.task_id.value == task);
        it.tasks.get(task).or_else(ended)?.container.clone()
    })
}

/// The same by the links in sandboxes, which outlive what the agent remembers.
fn linked(runs: &Path, task: &str) -> Option<PathBuf> {
    let links = std::fs::read_dir(runs).ok()?.flatten().map(|it| it.path().join(TASKS).join(task));
    let found = links.filter_map(|it| Some((it.symlink_metadata().ok()?.modified().ok()?, it)));
    found.max().map(|(_, link)| link)
}

pub(super) async fn list(server: &Server, path: &str) -> Result<Vec<FileInfo>, FileError> {
    let directory = resolve(server, path).await?;
    let shown = path.trim_end_matches('/').to_owned();
    let listed = tokio::task::spawn_blocking(move || {
        let found = directory.found()?;
        if !found.metadata()?.is_dir() {
            return Err(FileError::NotDirectory);
        }
        let mut infos = Vec::new();
        for entry in std::fs::read_dir(by_descriptor(found.as_fd()))?.take(ENTRIES_MAX) {
            let entry = entry?;
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            infos.push(info(&format!("{shown}/{}", entry.file_name().to_string_lossy()), &metadata));
        }
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(infos)
    });
    listed.await.unwrap_or(Err(FileError::NotFound))
}

fn info(path: &str, metadata: &std::fs::Metadata) -> FileInfo {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(metadata.uid())).ok().flatten();
    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(metadata.gid())).ok().flatten();
    FileInfo {
        path: path.to_owned(),
        nlink: i32::try_from(metadata.nlink()).ok(),
        size: Some(metadata.len()),
        mtime: Some(TimeInfo { nanoseconds: metadata.mtime().saturating_mul(1_000_000_000) }),
        mode: Some(metadata.permissions().mode()),
        uid: Some(user.map_or_else(|| metadata.uid().to_string(), |it| it.name)),
        gid: Some(group.map_or_else(|| metadata.gid().to_string(), |it| it.name)),
    }
}

pub(super) async fn browse(server: &Server, query: &Query) -> Answer {
    let Some(path) = query.get("path").filter(|it| !it.is_empty()) else { return FileError::NoPath.answer() };
    match list(server, path).await {
        Ok(infos) => {
            let entries: Vec<serde_json::Value> = infos
                .iter()
                .map(|it| {
                    serde_json::json!({
                        "gid": it.gid, "mode": mode_words(it.mode.unwrap_or(0)), "mtime": it.mtime.map_or(0, |it| it.nanoseconds / 1_000_000_000),
                        "nlink": it.nlink, "path": it.path, "size": it.size, "uid": it.uid,
                    })
                })
                .collect();
            classic(query, &serde_json::Value::Array(entries))
        }
        Err(FileError::NotDirectory) => plain(StatusCode::NOT_FOUND, None),
        Err(error) => error.answer(),
    }
}

/// As `ls -l` has it.
fn mode_words(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFBLK => 'b',
        libc::S_IFCHR => 'c',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let bits = (0..9).map(|at| if mode & (0o400 >> at) == 0 { '-' } else { ['r', 'w', 'x'][at % 3] });
    std::iter::once(kind).chain(bits).collect()
}

/// A piece of a file, and its whole size.
pub(super) async fn piece(server: &Server, path: &str, offset: u64, length: u64) -> Result<(Vec<u8>, u64), FileError> {
    let shown = resolve(server, path).await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut file = shown.file()?;
        let size = file.metadata()?.len();
        let mut data = Vec::new();
        if offset < size {
            file.seek(SeekFrom::Start(offset))?;
            file.take(length.min(READ_MAX)).read_to_end(&mut data)?;
        }
        Ok((data, size))
    });
    read.await.unwrap_or(Err(FileError::NotFound))
}

fn number(query: &Query, name: &'static str) -> Result<Option<i64>, FileError> {
    query.get(name).filter(|it| !it.is_empty()).map(|it| it.parse().map_err(|_| FileError::NotANumber(name))).transpose()
}

pub(super) async fn read(server: &Server, query: &Query) -> Answer {
    match try_read(server, query).await {
        Ok((data, offset)) => classic(query, &serde_json::json!({ "data": data, "offset": offset })),
        Err(error) => error.answer(),
    }
}

async fn try_read(server: &Server, query: &Query) -> Result<(String, u64), FileError> {
    let path = query.get("path").filter(|it| !it.is_empty()).ok_or(FileError::NoPath)?;
    let offset = match number(query, "offset")? {
        None | Some(-1) => None,
        Some(it) => Some(u64::try_from(it).map_err(|_| FileError::Negative("offset"))?),
    };
    let length = match number(query, "length")? {
        None | Some(-1) => READ_MAX,
        Some(it) => u64::try_from(it).map_err(|_| FileError::Negative("length"))?,
    };
    match offset {
        // Where does it end?
        None => piece(server, path, 0, 0).await.map(|(_, size)| (String::new(), size)),
        Some(offset) => piece(server, path, offset, length).await.map(|(data, _)| (String::from_utf8_lossy(&data).into_owned(), offset)),
    }
}

pub(super) async fn download(server: &Server, query: &Query) -> Answer {
    let Some(path) = query.get("path").filter(|it| !it.is_empty()) else { return FileError::NoPath.answer() };
    let opened = match resolve(server, path).await {
        Ok(shown) => tokio::task::spawn_blocking(move || {
            let file = shown.file()?;
            let size = file.metadata()?.len();
            Ok((file, size, shown.name()))
        })
        .await
        .unwrap_or(Err(FileError::NotFound)),
        Err(error) => Err(error),
    };
    let (file, size, name) = match opened {
        Ok(it) => it,
        Err(error) => return error.answer(),
    };
    let (pieces, sent) = mpsc::channel(2);
    (server.spawn)(
        "download",
        Box::pin(async move {
            let mut file = tokio::fs::File::from_std(file).take(size);
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let piece = match file.read(&mut buffer).await {
                    Ok(0) => return,
                    Ok(read) => Ok(bytes::Bytes::copy_from_slice(&buffer[..read])),
                    Err(_) => Err(CutShort),
                };
                let is_last = piece.is_err();
                if pieces.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        }),
    );
    let mut answer = Response::new(streamed(sent));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    let quoted: String = name.chars().map(|it| if it.is_ascii_graphic() && it != '"' && it != '\\' { it } else { '_' }).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{quoted}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    answer
}

pub(super) async fn debug(server: &Server, query: &Query) -> Answer {
    let layout = server.containers.layout().clone();
    let listed = server.driver.look(move |view| {
        let agent = view.table.agent_id();
        let mut paths = BTreeMap::new();
        // The newest last: its virtual paths win.
        for framework in view.table.completed_frameworks().iter().chain(view.table.frameworks().values()) {
            let framework_id = framework.info.id.as_ref().map(|it| it.value.as_str()).unwrap_or_default();
            for executor in framework.completed.iter().chain(framework.executors.values()) {
                let executor_id = &executor.info.executor_id.value;
                let real = layout.sandbox(agent, framework_id, executor_id, &executor.container);
                let shown = format!("/frameworks/{framework_id}/executors/{executor_id}");
                paths.insert(real.display().to_string(), real.clone());
                paths.insert(format!("{shown}/runs/latest"), real);
                for task in executor.completed.iter().chain(executor.tasks.values()).filter(|_| executor.kind == Kind::Default) {
                    let Some(container) = &task.container else { continue };
                    let real = layout.sandbox(agent, framework_id, executor_id, container);
                    paths.insert(format!("{shown}/{TASKS}/{}", task.info.task_id.value), real);
                }
            }
        }
        paths
    });
    let Ok(mut paths) = listed.await else { return super::stopping() };
    paths.extend(server.config.external_log_file.clone().map(|it| (LOG.to_owned(), it)));
    // What is collected already is not there any more.
    let there = tokio::task::spawn_blocking(move || paths.into_iter().filter(|(_, real)| real.exists()).collect::<Vec<_>>());
    let there = there.await.unwrap_or_default();
    classic(query, &there.into_iter().map(|(shown, real)| (shown, real.display().to_string())).collect())
}

/// What is not UTF-8 after decoding is shown as far as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|it| char::from(*it).to_digit(16)).and_then(|it| u8::try_from(it).ok());
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In queries a plus is a blank.
pub(super) fn form_decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_takes_the_place_of_what_was_looked_at_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir_all(outside.join("below")).unwrap();
        std::fs::write(outside.join("below/file"), "secret").unwrap();
        let root = directory.path().join("slaves");
        std::fs::create_dir_all(root.join("sandbox/below")).unwrap();
        std::fs::write(root.join("sandbox/below/file"), "shown").unwrap();
        let shown = |below: &str| Shown { root: root.clone(), below: below.into() };
        let file = shown("sandbox/below/file");
        assert_eq!(std::io::read_to_string(file.file().unwrap()).unwrap(), "shown");
        assert_eq!((file.name().as_str(), shown("sandbox/below").file().unwrap_err()), ("file", FileError::IsDirectory));
        // Between the look and the opening, the directory above, and then the file itself.
        std::fs::rename(root.join("sandbox"), root.join("was")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("sandbox")).unwrap();
        assert_eq!(file.file().unwrap_err(), FileError::NotFound);
        shown("sandbox/below").found().unwrap_err();
        std::fs::remove_file(root.join("was/below/file")).unwrap();
        std::os::unix::fs::symlink(outside.join("below/file"), root.join("was/below/file")).unwrap();
        assert_eq!(shown("was/below/file").file().unwrap_err(), FileError::NotFound);
        nix::unistd::mkfifo(&root.join("was/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(shown("was/pipe").file().unwrap_err(), FileError::NotFound);
    }
}
