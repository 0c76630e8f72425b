//! The processes of a container, as far as its keeper knows them: by their cgroup, or else by their session.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::{Spec, start_time};

/// How long what is left of a container may take to die.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Sends a signal to all of a container's processes that are known.
pub(super) fn signal_members(spec: &Spec, child: Pid, signal: Signal) {
    let members = match &spec.members_file {
        Some(path) => members(path),
        None => session_members(child.as_raw()),
    };
    for pid in members {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Ends whatever the first process has left behind.
pub(super) fn end_members(spec: &Spec, child: Pid) {
    let begun = Instant::now();
    let _ = killpg(child, Signal::SIGKILL);
    loop {
        let members = match &spec.members_file {
            Some(path) => members(path),
            None => session_members(child.as_raw()),
        };
        if members.is_empty() || begun.elapsed() > EMPTY_WITHIN {
            break;
        }
        for pid in members {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        reap();
        std::thread::sleep(Duration::from_millis(5));
    }
    reap();
}

/// Ends what is left of the session of a process that was started at `start`: the only thing that tells a container's processes without cgroups.
pub(crate) fn end_session(leader: u32, start: Option<u64>) {
    let Ok(pid) = i32::try_from(leader) else { return };
    // Another process may have the number by now, which nobody gets while something of the session is left.
    if let (Some(start), Some(now)) = (start, start_time(leader))
        && start != now
    {
        return;
    }
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    for member in session_members(pid) {
        let _ = kill(Pid::from_raw(member), Signal::SIGKILL);
    }
}

/// Processes of a session that are not over, as far as their parents have not heard of that.
fn session_members(leader: i32) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    let is_member = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name: state, parent, process group, session.
        let mut words = stat.rsplit_once(')').map_or("", |(_, it)| it).split_whitespace();
        let is_dead = words.next().is_none_or(|it| matches!(it, "Z" | "X"));
        !is_dead && words.nth(2).and_then(|it| it.parse().ok()) == Some(leader)
    };
    pids.filter(is_member).collect()
}

/// Pids of a `cgroup.procs` file.
pub(crate) fn members(path: &Path) -> Vec<i32> {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter_map(|it| it.parse().ok()).filter(|it| *it > 0).collect()
}

/// Children of children that came to this process.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Children that came here because their parents ended.
pub(super) fn reap_others(first: Pid) {
    while let Ok(status) = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
        match status.pid() {
            Some(pid) if pid != first => {
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_session_is_ended_and_never_another_one_of_its_number() {
        let mut command = Command::new("setsid");
        command.args(["--wait", "sh", "-c", "sleep 1000 & echo $$; wait"]).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let leader: u32 = line.trim().parse().unwrap();
        let start = start_time(leader).unwrap();
        end_session(leader, Some(start + 1));
        assert_eq!(session_members(i32::try_from(leader).unwrap()).len(), 2, "somebody else's number");
        end_session(leader, Some(start));
        child.wait().unwrap();
        let begun = Instant::now();
        while !session_members(i32::try_from(leader).unwrap()).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
