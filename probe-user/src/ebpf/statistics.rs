//! What the programs cost: time by the kernel's own clock, and memory of their maps.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{Program, ProgramError};
use aya::sys::{Stats, enable_stats};

use super::running::Running;

/// Why the cost cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// Needs `CAP_SYS_ADMIN`.
    #[error("kernel does not measure programs for this process")]
    Refused(#[source] aya::sys::SyscallError),
    /// The kernel does not tell about a program.
    #[error("program {0} cannot be asked")]
    Program(String, #[source] Box<ProgramError>),
}

/// One program's cost since it was loaded, as far as measuring was on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// Its name.
    pub name: String,
    /// Time spent in it.
    pub run_time: Duration,
    /// How often it ran.
    pub run_count: u64,
}

/// Measures while it lives; measuring itself costs some tens of nanoseconds per run.
#[derive(Debug)]
pub struct Statistics {
    _enabled: OwnedFd,
}

impl Statistics {
    /// Turns measuring on.
    pub fn enable() -> Result<Self, StatisticsError> {
        Ok(Statistics { _enabled: enable_stats(Stats::RunTime).map_err(StatisticsError::Refused)? })
    }
}

impl Running {
    /// What each program has cost so far. Take the difference of two readings while [`Statistics`] lives.
    pub fn statistics(&self) -> Result<Vec<ProgramStatistics>, StatisticsError> {
        let mut statistics: Vec<_> = self.programs().map(|(name, program)| read(name, program)).collect::<Result<_, _>>()?;
        statistics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(statistics)
    }
}

/// Reads what the programs cost, for as long as it lives: it holds descriptors of them and of their maps.
#[derive(Debug, Default)]
pub struct Meter {
    maps: Vec<(String, OwnedFd)>,
    programs: Vec<(String, OwnedFd)>,
}

/// What a [`Meter`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Kernel memory of maps in bytes, by name. Two maps may have one name; both are in its number.
    pub map_bytes: BTreeMap<String, u64>,
    /// By program. Time and runs stand still unless the system measures them (`kernel.bpf_stats_enabled`).
    pub programs: Vec<ProgramStatistics>,
}

impl Meter {
    /// Of all maps and all programs that the kernel took.
    pub(super) fn of(objects: &[&Ebpf]) -> Self {
        let mut meter = Meter::default();
        for object in objects {
            let maps = object.maps().filter_map(|(name, map)| Some((name.to_lowercase(), descriptor(map)?.try_clone_to_owned().ok()?)));
            meter.maps.extend(maps);
            let programs = object
                .programs()
                .filter_map(|(name, program)| Some((name.to_owned(), program.fd().ok()?.as_fd().try_clone_to_owned().ok()?)));
            meter.programs.extend(programs);
        }
        meter
    }

    /// Reads.
    pub fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for (name, fd) in &self.maps {
            *reading.map_bytes.entry(name.clone()).or_default() += field(&facts(fd), "memlock");
        }
        for (name, fd) in &self.programs {
            let facts = facts(fd);
            let run_time = Duration::from_nanos(field(&facts, "run_time_ns"));
            reading.programs.push(ProgramStatistics { name: name.clone(), run_time, run_count: field(&facts, "run_cnt") });
        }
        reading
    }
}

fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    let (Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::RingBuf(data) | Map::SkStorage(data)) = map else {
        return None;
    };
    Some(data.fd().as_fd())
}

/// What the kernel says of a descriptor.
fn facts(fd: &OwnedFd) -> String {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default()
}

fn field(facts: &str, name: &str) -> u64 {
    facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()).unwrap_or(0)
}

fn read(name: &str, program: &Program) -> Result<ProgramStatistics, StatisticsError> {
    let info = program.info().map_err(|error| StatisticsError::Program(name.to_owned(), Box::new(error)))?;
    Ok(ProgramStatistics { name: name.to_owned(), run_time: info.run_time(), run_count: info.run_count() })
}
