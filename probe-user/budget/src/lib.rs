//! The overload breaker of the probe: what it may use of its machine, and how much of its optional work it leaves out when it uses more.
//!
//! Optional is what is done again and again, and is no less true when it is done more rarely: samples of processes and containers, looks at Unix
//! sockets, details of processes, readings of tables that only grow. Capture itself is not: connections are counted in the kernel whatever
//! happens here.
//!
//! Pure: readings come in with the time at which they were taken, changes go out. It knows no clock, no process and no loop that it slows down.

use std::collections::VecDeque;
use std::time::Duration;

mod breaker;

pub use breaker::Breaker;

/// What the probe may use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Percent of one CPU, averaged over [`WINDOW`]; `None` for as much as it takes.
    pub cpu_percent: Option<f64>,
    /// Bytes that are resident; `None` for as many as it takes.
    pub memory_bytes: Option<u64>,
}

/// What the probe has used until some instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Time since boot in which the machine was awake: a suspended machine does not make the probe look cheap.
    pub awake: Duration,
    /// CPU time of all threads since the start of the probe.
    pub cpu: Duration,
    /// Resident now.
    pub resident_bytes: u64,
}

/// CPU is averaged over this time.
pub const WINDOW: Duration = Duration::from_secs(30);

/// How much is left out: with every step the pauses between optional work are twice as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(u8);

impl Step {
    /// Nothing is left out.
    pub const FIRST: Step = Step(0);
    /// As much as can be.
    pub const LAST: Step = Step(4);

    /// How many times as long a pause is: 1, 2, 4, 8 or 16.
    #[must_use]
    pub fn factor(self) -> u32 {
        1 << self.0
    }

    /// Its number, for people.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Of this factor, if there is one.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Step> {
        (number <= Self::LAST.0).then_some(Step(number))
    }

    fn next(self) -> Option<Step> {
        Self::of_number(self.0 + 1)
    }

    fn previous(self) -> Option<Step> {
        self.0.checked_sub(1).map(Step)
    }
}

/// Why a step was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// More CPU was used than the budget has, in percent of one.
    Cpu {
        /// Used, on average over [`WINDOW`].
        used: f64,
        /// The budget.
        budget: f64,
    },
    /// More memory is resident than the budget has, for as long as [`WINDOW`].
    Memory {
        /// The least that was resident in that time, in bytes.
        used: u64,
        /// The budget.
        budget: u64,
    },
    /// So little was used for so long that twice as much would be within the budget.
    Calm,
    /// There is no budget any more, or a larger one: it begins anew.
    NewBudget,
}

/// A step that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Where it stood.
    pub from: Step,
    /// Where it stands.
    pub to: Step,
    /// Why.
    pub cause: Cause,
}

/// The readings of one window, the oldest first.
#[derive(Debug, Default)]
struct Window {
    readings: VecDeque<Reading>,
}

/// What a full window says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    cpu_percent: f64,
    least_resident_bytes: u64,
}

impl Window {
    /// Readings that are kept at most: more often than every second nobody has to look.
    const READINGS_MAX: usize = 64;

    fn restart(&mut self, from: Reading) {
        self.readings.clear();
        self.readings.push_back(from);
    }

    /// Takes a reading in; what the window says when it is full.
    fn take(&mut self, reading: Reading) -> Option<Use> {
        let last = self.readings.back().copied();
        let follows = last.is_some_and(|last| {
            let since = reading.awake.checked_sub(last.awake);
            // A reading that comes this late is of a probe that stood still: what it used cannot be laid on any time.
            reading.cpu >= last.cpu && since.is_some_and(|since| !since.is_zero() && since < WINDOW)
        });
        if !follows {
            // Two readings at one instant tell no more than one of them.
            if last.is_none_or(|last| last.awake != reading.awake) {
                self.restart(reading);
            }
            return None;
        }
        if self.readings.len() == Self::READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        // One that is as old as the window stays: it is where the window begins.
        while self.readings.get(1).is_some_and(|second| reading.awake.saturating_sub(second.awake) >= WINDOW) {
            self.readings.pop_front();
        }
        let oldest = self.readings.front()?;
        let span = reading.awake.saturating_sub(oldest.awake);
        (span >= WINDOW).then(|| Use {
            cpu_percent: reading.cpu.saturating_sub(oldest.cpu).as_secs_f64() / span.as_secs_f64() * 100.0,
            least_resident_bytes: self.readings.iter().map(|it| it.resident_bytes).min().unwrap_or(0),
        })
    }
}
