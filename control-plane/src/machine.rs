//! What the process asks of the machine at its start.

use std::fs::File;
use std::io::{self, Read as _};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// A random number from the kernel.
///
/// # Errors
/// When the kernel gives none.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Name of the machine: `SCOPE_HOSTNAME` where it is set, as with Scope, else what the system says.
pub fn hostname() -> String {
    let system = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    std::env::var("SCOPE_HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(system).unwrap_or_else(|| "localhost".to_owned())
}

/// Open files that are enough for the largest cluster: each agent, probe and client is one.
const OPEN_FILES: u64 = 131_072;

/// Raises the limit of open files as far as the process may: to the hard limit, and beyond it where a privileged process finds it low. What it is
/// then.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < OPEN_FILES && setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).is_ok() {
        return Ok(OPEN_FILES);
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Ends when the process is told to stop: SIGTERM, or Ctrl-C.
///
/// # Errors
/// When signals cannot be watched.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
