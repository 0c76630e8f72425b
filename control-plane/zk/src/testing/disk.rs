use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Server;

const STRACE: &str = "/usr/bin/strace";
/// A tracer that does not hold every thread by then will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk on which a server's writes take long to be safe: each `fsync` of the process waits before it begins. Done from outside with `strace`, as
/// kernels of test machines have neither a block device that delays nor control groups for disks. As fast as before when dropped.
#[derive(Debug)]
pub struct SlowDisk(Child);

impl SlowDisk {
    /// Slows the disk of a server that runs. None where processes may not be traced; installs the package where it may.
    ///
    /// # Panics
    /// When that cannot be done and CI is set.
    pub fn under(server: &Server, delay: Duration) -> Option<SlowDisk> {
        if !Path::new(STRACE).exists() {
            let mut install = Command::new("apt-get");
            install.args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "strace"]);
            let _ = install.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let slow = SlowDisk::trace(server.id()?, delay);
        assert!(slow.is_some() || std::env::var_os("CI").is_none(), "no process can be traced: this needs root and apt-get install strace");
        slow
    }

    fn trace(pid: u32, delay: Duration) -> Option<SlowDisk> {
        let mut strace = Command::new(STRACE);
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-p", &pid.to_string(), "-e"]);
        strace.arg(format!("inject=fsync,fdatasync:delay_enter={}ms", delay.as_millis()));
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut slow = SlowDisk(child);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if is_traced(pid) {
                return Some(slow);
            }
            if slow.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Asked to, it lets go of every thread where that thread may go on; killed, it might not.
        let _ = i32::try_from(self.0.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let _ = self.0.wait();
    }
}

/// Whether every thread of a process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_none_or(|tracer| tracer.trim() != "0")
    })
}
