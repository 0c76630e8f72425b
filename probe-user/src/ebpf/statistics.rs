//! What the programs cost, by the kernel's own clock.

use std::os::fd::OwnedFd;
use std::time::Duration;

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

fn read(name: &str, program: &Program) -> Result<ProgramStatistics, StatisticsError> {
    let info = program.info().map_err(|error| StatisticsError::Program(name.to_owned(), Box::new(error)))?;
    Ok(ProgramStatistics { name: name.to_owned(), run_time: info.run_time(), run_count: info.run_count() })
}
