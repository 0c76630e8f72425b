//! Where files come from: the web, this host, and what other programs of the host fetch.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::rights::{self, Handover};
use super::{FetchError, Settings, Until};
use crate::keeper::User;

/// How often it is looked whether a program that fetches is done.
const LOOK: Duration = Duration::from_millis(20);

/// Longest complaint of a program that is passed on, in bytes.
const COMPLAINT_MAX: u64 = 1024;

/// Whether what is there depends on who asks.
pub(super) fn has_rights(uri: &str) -> bool {
    !matches!(uri.split_once("://"), Some(("http" | "https", _)))
}

/// Brings a file to `target`, which is the agent's own and not there yet. It is read with the rights of `user`.
pub(super) fn download(
    settings: &Settings,
    uri: &str,
    target: &Path,
    user: Option<&User>,
    cancel: &CancellationToken,
) -> Result<(), FetchError> {
    let path = match uri.split_once("://") {
        Some(("http" | "https", _)) => return download_http(settings.stall_timeout, uri, target, cancel),
        Some(("hdfs" | "hftp" | "s3" | "s3n" | "s3a", _)) => {
            return by_program(|target| hadoop(settings, uri, target), (settings, uri), target, user, cancel);
        }
        Some(("ftp" | "ftps", _)) => return by_program(|target| curl(settings, uri, target), (settings, uri), target, user, cancel),
        Some(("file", path)) => PathBuf::from(path),
        Some(_) => return Err(FetchError::Scheme(uri.to_owned())),
        None if uri.starts_with('/') => PathBuf::from(uri),
        None => match &settings.frameworks_home {
            Some(home) => home.join(uri),
            None => return Err(FetchError::Relative(uri.to_owned())),
        },
    };
    let copied = rights::open(&path, user).and_then(|file| copy(file, target, cancel));
    copied.map_err(|source| FetchError::Io { uri: uri.to_owned(), source })
}

/// With its permissions, but for the bits by which a program is run as somebody else.
fn copy(from: File, to: &Path, cancel: &CancellationToken) -> io::Result<()> {
    let mode = from.metadata()?.permissions().mode() & 0o777;
    let mut to = File::create_new(to)?;
    io::copy(&mut Until { inner: from, cancel }, &mut to)?;
    to.set_permissions(std::fs::Permissions::from_mode(mode))
}

fn download_http(stall_timeout: Duration, uri: &str, target: &Path, cancel: &CancellationToken) -> Result<(), FetchError> {
    let problem = |problem: String| FetchError::Download { uri: uri.to_owned(), problem };
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(stall_timeout))
        .timeout_recv_response(Some(stall_timeout))
        .timeout_per_read(Some(stall_timeout))
        .build()
        .new_agent();
    let answer = agent.get(uri).call().map_err(|error| problem(error.to_string()))?;
    let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
    let mut file = File::create_new(target).map_err(|source| FetchError::Io { uri: uri.to_owned(), source })?;
    let copied = io::copy(&mut Until { inner: body, cancel }, &mut file).and_then(|_| file.flush());
    copied.map_err(|error| problem(error.to_string()))
}

/// As Mesos's fetcher has it: that of `hadoop_home`, or the one in PATH.
fn hadoop(settings: &Settings, uri: &str, target: &Path) -> Command {
    let program = settings.hadoop_home.as_ref().map_or_else(|| PathBuf::from("hadoop"), |home| home.join("bin/hadoop"));
    let mut command = Command::new(program);
    command.args(["fs", "-copyToLocal", uri]).arg(target);
    command
}

fn curl(settings: &Settings, uri: &str, target: &Path) -> Command {
    let seconds = settings.stall_timeout.as_secs().max(1).to_string();
    let mut command = Command::new("curl");
    // Without `.curlrc` of whoever's home it is.
    command.args(["-q", "-fsS", "--connect-timeout", &seconds, "--speed-time", &seconds, "--speed-limit", "1", "-o"]);
    command.arg(target).arg("--").arg(uri);
    command
}

/// Has a program leave the file where it is told to: at `target`, which nobody but the agent can reach, or in a directory of the user as whom it runs.
fn by_program(
    command: impl Fn(&Path) -> Command,
    (settings, uri): (&Settings, &str),
    target: &Path,
    user: Option<&User>,
    cancel: &CancellationToken,
) -> Result<(), FetchError> {
    let Some(user) = user else { return run(&mut command(target), uri, cancel) };
    let failed = |source| FetchError::Io { uri: uri.to_owned(), source };
    let handover = Handover::make(settings, user).map_err(failed)?;
    let mut command = command(&handover.file());
    rights::run_as(&mut command, user);
    run(&mut command, uri, cancel)?;
    handover.take(user).and_then(|file| copy(file, target, cancel)).map_err(failed)
}

fn run(command: &mut Command, uri: &str, cancel: &CancellationToken) -> Result<(), FetchError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let problem = |problem: &str| FetchError::Download { uri: uri.to_owned(), problem: format!("{program}: {}", problem.trim()) };
    let complaints = tempfile_in_memory().map_err(|error| problem(&error.to_string()))?;
    let stderr = complaints.try_clone().map_err(|error| problem(&error.to_string()))?;
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
    let mut child = spawned.map_err(|error| problem(&error.to_string()))?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if !cancel.is_cancelled() => std::thread::sleep(LOOK),
            other => {
                drop(child.kill());
                drop(child.wait());
                let why = other.err().map_or_else(|| super::CANCELLED.to_owned(), |error| error.to_string());
                return Err(problem(&why));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    drop(io::Seek::rewind(&mut &complaints).and_then(|()| (&complaints).take(COMPLAINT_MAX).read_to_end(&mut said)));
    Err(problem(&format!("{status}: {}", String::from_utf8_lossy(&said))))
}

/// A file without a name: a pipe that nobody reads meanwhile would stop who writes much.
fn tempfile_in_memory() -> io::Result<File> {
    let made = nix::sys::memfd::memfd_create(c"complaints", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    Ok(File::from(made?))
}
