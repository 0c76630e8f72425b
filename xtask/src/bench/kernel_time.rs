//! How long the kernel spends in the probe's programs, by its own statistics.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::machine;
use crate::progress::stream;

/// The switch of the kernel's statistics.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Statistics that are on for as long as this value exists. They cost time themselves, so processor time is measured without them.
pub(super) struct Statistics {
    before: String,
}

impl Statistics {
    pub(super) fn enable() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?.trim().to_owned();
        switch("1")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // The next start of the machine turns them off, if nothing else does.
        let _ = switch(&self.before);
    }
}

fn switch(value: &str) -> Result<()> {
    if machine::is_root() {
        return fs::write(SWITCH, value).with_context(|| format!("cannot write {SWITCH}"));
    }
    stream("switching statistics", machine::as_root("sh").args(["-c", &format!("echo {value} > {SWITCH}")]))
}

/// Time and runs of every program that a process holds, by program id.
pub(super) type ProgramTimes = BTreeMap<u32, (u64, u64)>;

/// Reads them from the process's descriptors.
pub(super) fn read(pid: u32) -> Result<ProgramTimes> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = fs::read_dir(Path::new(&directory)).with_context(|| format!("cannot list {directory}"))?;
    // A descriptor may be closed while it is looked at.
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.filter_map(|text| program(&text)).collect())
}

fn program(text: &str) -> Option<(u32, (u64, u64))> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let id = field("prog_id")?.parse().ok()?;
    Some((id, (field("run_time_ns")?.parse().ok()?, field("run_cnt")?.parse().ok()?)))
}

/// Nanoseconds and runs between two readings.
pub(super) fn between(before: &ProgramTimes, after: &ProgramTimes) -> (u64, u64) {
    let grown = after.iter().map(|(id, (nanos, runs))| {
        let (nanos_before, runs_before) = before.get(id).copied().unwrap_or_default();
        (nanos.saturating_sub(nanos_before), runs.saturating_sub(runs_before))
    });
    grown.fold((0, 0), |(nanos, runs), (more_nanos, more_runs)| (nanos + more_nanos, runs + more_runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_have_run_times() {
        let text = "pos:\t0\nprog_type:\t13\nprog_jited:\t1\nprog_tag:\tabc\nmemlock:\t4096\nprog_id:\t7\nrun_time_ns:\t300\nrun_cnt:\t3\n";
        assert_eq!(program(text), Some((7, (300, 3))));
        assert_eq!(program("pos:\t0\nlink_type:\tcgroup\nlink_id:\t3\nprog_id:\t7\n"), None);
    }

    #[test]
    fn a_program_that_came_later_counts_from_zero() {
        let before = BTreeMap::from([(1, (100, 1))]);
        let after = BTreeMap::from([(1, (150, 2)), (2, (30, 3))]);
        assert_eq!(between(&before, &after), (80, 4));
    }
}
