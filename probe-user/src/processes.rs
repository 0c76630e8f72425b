//! The process table: every process of the node, and those that ended within the last minute. Pure.
//!
//! A pid is used again; a pid and a start time are not. So the key is both, and whoever asks by pid alone says at which instant. Ended
//! processes stay for a while because observations of connections come later than those of exits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::cgroups::Placement;
use crate::observation::{BootNanos, ProcessStarted};

/// Length of a clock tick in `/proc/<pid>/stat`: USER_HZ is 100 on every architecture that the kernel still supports.
pub const TICK_NANOS: u64 = 10_000_000;

/// How long an ended process still answers for late observations.
pub const ENDED_KEPT: BootNanos = BootNanos(60_000_000_000);

/// Largest number of living processes: `kernel.pid_max` of a large default installation.
pub const LIVING_MAX: usize = 32_768;

/// Largest number of ended processes; at more exits a minute the oldest leave early.
pub const ENDED_MAX: usize = 8_192;

/// What `/proc` said of a process is asked again after this long: a daemon drops its rights, a server changes its title, and without kernel programs
/// a process changes its cgroup, and nobody tells.
pub const READ_AGAIN_AFTER: BootNanos = BootNanos(60_000_000_000);

/// Processes that are read again for their age at most after one walk; the others have their turn after the next.
pub const READ_AGAIN_MAX: usize = 256;

/// A guessed start time (a rung that cannot tell it) is this close to the real one.
const GUESS_NANOS: u64 = 1_000_000_000;

/// Cuts an instant to the clock ticks of `/proc/<pid>/stat`, so that the kernel's own nanoseconds and `/proc` meet.
pub fn cut_to_tick(at: BootNanos) -> BootNanos {
    BootNanos(at.0 - at.0 % TICK_NANOS)
}

/// One incarnation of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// Start, cut to the tick.
    pub start_time: BootNanos,
}

impl ProcessKey {
    /// Makes a key of an exact or already cut start time.
    pub fn new(pid: u32, start_time: BootNanos) -> Self {
        ProcessKey { pid, start_time: cut_to_tick(start_time) }
    }
}

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Pid of its parent.
    pub parent_pid: u32,
    /// First word of the command line, `[comm]` for a kernel thread, the bare comm of a process that was gone before it could be read.
    pub name: Arc<str>,
    /// Command line, arguments joined by blanks.
    pub command_line: Arc<str>,
    /// Kernel's 16-byte name.
    pub comm: Arc<str>,
    /// Effective user.
    pub user_id: u32,
    /// Threads.
    pub thread_count: u32,
    /// Where it is placed.
    pub placement: Placement,
    /// When and how it ended.
    pub exited: Option<Exited>,
    /// The kernel ended it because memory ran out.
    pub oom_killed: bool,
    /// Whether `/proc` was read since the last exec, or all of it was inherited.
    described: bool,
    /// Whether what is known was inherited: a server that forks gives its workers another user or title without a further exec.
    inherited: bool,
    /// Whether the start time is a guess.
    guessed: bool,
    /// When it was last asked again what `/proc` says; 0 before the first walk that found it described.
    asked_at: BootNanos,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// When.
    pub at: BootNanos,
    /// Wait status as in wait(2).
    pub status: i32,
}

/// What `/proc/<pid>` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Thread group id.
    pub pid: u32,
    /// Field 22 of `stat`, in nanoseconds.
    pub start_time: BootNanos,
    /// Parent.
    pub parent_pid: u32,
    /// Kernel's name.
    pub comm: String,
    /// First word of the command line, or `[comm]`.
    pub name: String,
    /// The whole of it.
    pub command_line: String,
    /// The process hangs, so that its command line could not be read: both are its kernel's name.
    pub without_command_line: bool,
    /// Effective user.
    pub user_id: u32,
    /// Threads.
    pub thread_count: u32,
    /// The most telling path of `/proc/<pid>/cgroup`.
    pub cgroup_path: String,
}

/// What a walk of `/proc` sees of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// Parent.
    pub parent_pid: u32,
    /// Kernel's name.
    pub comm: Box<str>,
    /// A thread of the kernel: it has neither user nor command line, and another name at any time.
    pub is_kernel_thread: bool,
}

/// Pids of which `/proc` should be read after a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// What is known is nothing, or not true any more.
    pub first: Vec<u32>,
    /// What is known is old.
    pub again: Vec<u32>,
}

/// Who a pid was at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It lived then.
    Alive(ProcessKey),
    /// The last incarnation before that instant had ended; a newer one may not have been seen yet.
    Ended(ProcessKey, BootNanos),
    /// No incarnation is known.
    Unknown,
}

/// All processes.
#[derive(Debug, Default)]
pub struct ProcessTable {
    by_key: BTreeMap<ProcessKey, Process>,
    ended: BTreeSet<(BootNanos, ProcessKey)>,
    changed: BTreeSet<ProcessKey>,
    gone: BTreeSet<ProcessKey>,
    refused: u64,
    /// Up to here processes were read again: whose turn is next.
    again_after: ProcessKey,
}

impl ProcessTable {
    /// A process began. Returns whether `/proc` should be read for it: what a fork inherits is known from the parent.
    pub fn started(&mut self, started: &ProcessStarted, placement: Option<Placement>) -> bool {
        let key = ProcessKey::new(started.pid, started.start_time.unwrap_or(started.at));
        if let Some(known) = self.by_key.get(&key) {
            return !known.described && known.exited.is_none();
        }
        let parent = match self.holder(started.parent_pid, started.at) {
            Holder::Alive(parent) | Holder::Ended(parent, _) => self.by_key.get(&parent),
            Holder::Unknown => None,
        };
        let mut process = match parent {
            Some(parent) => {
                let asked_at = BootNanos(0);
                Process { inherited: true, exited: None, oom_killed: false, thread_count: 1, asked_at, ..parent.clone() }
            }
            None => Process {
                name: started.comm.as_str().into(),
                command_line: started.comm.as_str().into(),
                thread_count: 1,
                ..Process::default()
            },
        };
        process.parent_pid = started.parent_pid;
        process.comm = started.comm.as_str().into();
        process.user_id = started.user_id;
        process.guessed = started.start_time.is_none();
        if let Some(placement) = placement {
            process.placement = placement;
        }
        let described = process.described;
        self.insert(key, process) && !described
    }

    /// A process replaced its program: what was known of the old one is void.
    pub fn executed(
        &mut self,
        at: BootNanos,
        pid: u32,
        start_time: Option<BootNanos>,
        comm: &str,
        user_id: u32,
        placement: Option<Placement>,
    ) {
        let key = match (start_time, self.holder(pid, at)) {
            (Some(start_time), _) => ProcessKey::new(pid, start_time),
            (None, Holder::Alive(key)) => key,
            (None, _) => ProcessKey::new(pid, at),
        };
        if !self.by_key.contains_key(&key) {
            let process = Process { thread_count: 1, guessed: start_time.is_none(), ..Process::default() };
            if !self.insert(key, process) {
                return;
            }
        }
        let Some(process) = self.by_key.get_mut(&key) else { return };
        process.comm = comm.into();
        process.name = comm.into();
        process.command_line = comm.into();
        process.user_id = user_id;
        process.thread_count = 1;
        process.described = false;
        process.inherited = false;
        process.asked_at = BootNanos(0);
        if let Some(placement) = placement {
            process.placement = placement;
        }
        self.changed.insert(key);
    }

    /// A process ended. One that was never seen alive leaves no record: nothing is known but its number.
    /// Returns who it was.
    pub fn exited(&mut self, at: BootNanos, pid: u32, start_time: Option<BootNanos>, status: i32) -> Option<ProcessKey> {
        let key = match (start_time, self.holder(pid, at)) {
            (Some(start_time), _) => ProcessKey::new(pid, start_time),
            (None, Holder::Alive(key)) => key,
            (None, _) => return None,
        };
        self.end(key, Exited { at, status });
        Some(key)
    }

    /// The kernel ends a process because memory ran out; its exit follows.
    pub fn oom_killed(&mut self, at: BootNanos, pid: u32, start_time: Option<BootNanos>) {
        let key = match (start_time, self.holder(pid, at)) {
            (Some(start_time), _) => ProcessKey::new(pid, start_time),
            (None, Holder::Alive(key) | Holder::Ended(key, _)) => key,
            (None, Holder::Unknown) => return,
        };
        if let Some(process) = self.by_key.get_mut(&key)
            && !process.oom_killed
        {
            process.oom_killed = true;
            self.changed.insert(key);
        }
    }

    /// `/proc` was read.
    pub fn described(&mut self, details: &Details, placement: Placement) {
        let key = ProcessKey::new(details.pid, details.start_time);
        if !self.by_key.contains_key(&key) {
            self.replace_guess(key);
        }
        if !self.by_key.contains_key(&key) {
            let newest = self.by_key.range(..=ProcessKey { pid: details.pid, start_time: BootNanos(u64::MAX) }).next_back();
            if newest.is_some_and(|(newest, _)| newest.pid == key.pid && newest.start_time > key.start_time) {
                return;
            }
            if !self.insert(key, Process::default()) {
                return;
            }
        }
        let Some(process) = self.by_key.get_mut(&key) else { return };
        let mut before = process.clone();
        process.parent_pid = details.parent_pid;
        process.comm = reuse(&before.comm, &details.comm);
        if !(details.without_command_line && before.described) {
            process.name = reuse(&before.name, &details.name);
            process.command_line = reuse(&before.command_line, &details.command_line);
        }
        process.user_id = details.user_id;
        process.thread_count = details.thread_count;
        // The kernel programs name the cgroup by its id; /proc alone does not.
        let same_path = before.placement.path == placement.path;
        process.placement = if placement.cgroup_id == 0 && same_path { before.placement.clone() } else { placement };
        process.described = true;
        process.guessed = false;
        // That it was read is nothing to tell, nor how many threads a known process has: samples do.
        process.inherited = before.inherited;
        if before.described && !before.inherited {
            before.thread_count = process.thread_count;
        }
        let differs = *process != before;
        process.inherited = false;
        if differs {
            self.changed.insert(key);
        }
    }

    /// A process was moved into another cgroup.
    pub fn moved(&mut self, at: BootNanos, pid: u32, placement: Placement) {
        let Holder::Alive(key) = self.holder(pid, at) else { return };
        let Some(process) = self.by_key.get_mut(&key) else { return };
        if process.placement != placement {
            process.placement = placement;
            self.changed.insert(key);
        }
    }

    /// Compares the table with a walk of `/proc` that began at `walked_at`. What is missing there has ended, its exit was lost; an orphan has
    /// another parent. Returns the pids that should be read: those that the table does not have, those that were not described since they forked
    /// or executed, or have another name since, and some of those that were read long before `now`.
    /// Without `walked_at` the walk was not complete: what is missing in it may live.
    pub fn reconcile(&mut self, now: BootNanos, walked_at: Option<BootNanos>, seen: &BTreeMap<ProcessKey, Sighting>) -> Unread {
        if let Some(walked_at) = walked_at {
            let missing: Vec<ProcessKey> = self
                .living()
                .filter(|(key, _)| key.start_time.0 + 2 * TICK_NANOS < walked_at.0 && !seen.contains_key(key))
                .map(|(key, _)| *key)
                .collect();
            for key in missing {
                self.end(key, Exited { at: walked_at, status: 0 });
            }
        }
        let mut unread = Unread::default();
        let mut again = Vec::new();
        for (key, sighting) in seen {
            let Some(process) = self.by_key.get_mut(key) else {
                unread.first.push(key.pid);
                continue;
            };
            if process.exited.is_some() {
                continue;
            }
            if process.parent_pid != sighting.parent_pid {
                process.parent_pid = sighting.parent_pid;
                self.changed.insert(*key);
            }
            if !process.described || process.inherited || (*process.comm != *sighting.comm && !sighting.is_kernel_thread) {
                unread.first.push(key.pid);
            } else if process.asked_at.0 == 0 {
                process.asked_at = now;
            } else if now.0.saturating_sub(process.asked_at.0) >= READ_AGAIN_AFTER.0 && !sighting.is_kernel_thread {
                again.push(*key);
            }
        }
        // Begin after the last whose turn it was, so that all have theirs.
        let begin = again.partition_point(|key| *key <= self.again_after);
        let begin = if begin < again.len() { begin } else { 0 };
        again.rotate_left(begin);
        again.truncate(READ_AGAIN_MAX);
        self.again_after = again.last().copied().unwrap_or(self.again_after);
        for key in again {
            if let Some(process) = self.by_key.get_mut(&key) {
                process.asked_at = now;
            }
            unread.again.push(key.pid);
        }
        unread
    }

    /// Tells those processes again that `wanted` wants.
    pub fn touch(&mut self, wanted: impl Fn(&Process) -> bool) {
        self.changed.extend(self.by_key.iter().filter(|(_, process)| wanted(process)).map(|(key, _)| *key));
    }

    /// Who `pid` was at `at`.
    pub fn holder(&self, pid: u32, at: BootNanos) -> Holder {
        if pid == 0 {
            return Holder::Unknown;
        }
        let first = ProcessKey { pid, start_time: BootNanos(0) };
        let last = ProcessKey { pid, start_time: at };
        match self.by_key.range(first..=last).next_back() {
            Some((key, Process { exited: Some(exited), .. })) if exited.at < at => Holder::Ended(*key, exited.at),
            Some((key, _)) => Holder::Alive(*key),
            None => Holder::Unknown,
        }
    }

    /// Drops processes that ended long ago.
    pub fn retire(&mut self, now: BootNanos) {
        while let Some(&(at, key)) = self.ended.first()
            && at.0.saturating_add(ENDED_KEPT.0) <= now.0
        {
            self.remove(key);
        }
    }

    /// One process.
    pub fn get(&self, key: &ProcessKey) -> Option<&Process> {
        self.by_key.get(key)
    }

    /// Processes in the order of their keys, after `key`.
    pub fn after(&self, key: Option<ProcessKey>) -> impl Iterator<Item = (&ProcessKey, &Process)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_key.range((key.map_or(Unbounded, Excluded), Unbounded))
    }

    /// Processes that have not ended.
    pub fn living(&self) -> impl Iterator<Item = (&ProcessKey, &Process)> {
        self.by_key.iter().filter(|(_, process)| process.exited.is_none())
    }

    /// How many live.
    pub fn living_len(&self) -> usize {
        self.by_key.len() - self.ended.len()
    }

    /// How many processes each container has.
    pub fn count_by_container(&self) -> HashMap<&str, u32> {
        let mut counts = HashMap::new();
        for container in self.living().filter_map(|(_, process)| process.placement.container_id.as_deref()) {
            *counts.entry(container).or_default() += 1;
        }
        counts
    }

    /// How many were refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether something changed since the last [`ProcessTable::take_changes`].
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// How many removals wait to be told.
    pub fn gone_len(&self) -> usize {
        self.gone.len()
    }

    /// What changed and what left since the last call.
    pub fn take_changes(&mut self) -> (BTreeSet<ProcessKey>, BTreeSet<ProcessKey>) {
        (std::mem::take(&mut self.changed), std::mem::take(&mut self.gone))
    }

    /// Adds a process and ends the incarnation that had its pid before.
    fn insert(&mut self, key: ProcessKey, mut process: Process) -> bool {
        let before = self.by_key.range(..key).next_back().filter(|(it, process)| it.pid == key.pid && process.exited.is_none());
        if let Some((&before, _)) = before {
            self.end(before, Exited { at: key.start_time, status: 0 });
        }
        if self.living_len() >= LIVING_MAX {
            self.refused += 1;
            return false;
        }
        // A record of an older incarnation that comes late: it must have ended when the newer one began.
        let after = self.by_key.range(key..).next().filter(|(it, _)| it.pid == key.pid).map(|(it, _)| it.start_time);
        process.exited = after.map(|at| Exited { at, status: 0 });
        if let Some(exited) = process.exited {
            self.ended.insert((exited.at, key));
        }
        self.by_key.insert(key, process);
        self.gone.remove(&key);
        self.changed.insert(key);
        true
    }

    fn end(&mut self, key: ProcessKey, exited: Exited) {
        let Some(process) = self.by_key.get_mut(&key) else { return };
        if process.exited.is_some() {
            return;
        }
        process.exited = Some(exited);
        self.ended.insert((exited.at, key));
        self.changed.insert(key);
        if self.ended.len() > ENDED_MAX
            && let Some(&(_, oldest)) = self.ended.first()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, key: ProcessKey) {
        let Some(process) = self.by_key.remove(&key) else { return };
        if let Some(exited) = process.exited {
            self.ended.remove(&(exited.at, key));
        }
        self.changed.remove(&key);
        self.gone.insert(key);
    }

    /// The real start time of a process whose start was guessed: the record moves to its real key.
    fn replace_guess(&mut self, key: ProcessKey) {
        let guess = self
            .by_key
            .range(ProcessKey { pid: key.pid, start_time: BootNanos(0) }..=ProcessKey { pid: key.pid, start_time: BootNanos(u64::MAX) })
            .next_back();
        let Some((&guess, process)) = guess else { return };
        if !process.guessed || process.exited.is_some() || guess.start_time.0.abs_diff(key.start_time.0) > GUESS_NANOS {
            return;
        }
        let process = process.clone();
        self.remove(guess);
        self.insert(key, process);
    }
}

/// Keeps the string that is there when the new one is equal: most re-reads bring nothing new.
fn reuse(old: &Arc<str>, new: &str) -> Arc<str> {
    if **old == *new { old.clone() } else { new.into() }
}

#[cfg(test)]
mod tests;
