//! The reports of the last seconds, as one.
//!
//! Reports that come within three seconds of each other are merged at once, so that a window holds a handful of reports however many
//! probes there are. A node stays for the window after it was last mentioned.

use std::collections::VecDeque;
use std::time::Duration;

use base::Timestamp;

use crate::decode::Weighed;
use crate::model::{Kind, Report};

/// Reports within this time become one, as in Scope.
const QUANTUM: Duration = Duration::from_secs(3);

/// What a window holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Nodes of all reports together, each as often as a merged report mentions it.
    pub nodes: usize,
    /// Bytes of memory that the reports take together, about: what is said twice counts twice.
    pub memory: usize,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the window.
    Yes,
    /// The window is full.
    Full,
}

/// The reports of a window.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    limits: WindowLimits,
    /// Oldest first.
    parts: VecDeque<Part>,
    /// Grows with every change.
    generation: u64,
}

/// Reports that came at about the same time.
#[derive(Clone, Debug)]
struct Part {
    since: Timestamp,
    last: Timestamp,
    report: Report,
    /// Bytes of memory that it takes at most.
    weight: usize,
}

impl Window {
    /// An empty window of a length.
    pub fn new(length: Duration, limits: WindowLimits) -> Self {
        Window { length, limits, parts: VecDeque::new(), generation: 0 }
    }

    /// Takes a report in. A window that is full takes no more until something has left it.
    pub fn add(&mut self, now: Timestamp, Weighed { report, weight }: Weighed) -> Added {
        self.expire(now);
        let nodes: usize = self.parts.iter().map(|part| part.report.node_count()).sum();
        let memory = self.weight().saturating_add(weight);
        if nodes.saturating_add(report.node_count()) > self.limits.nodes || memory > self.limits.memory {
            return Added::Full;
        }
        self.generation += 1;
        match self.parts.back_mut().filter(|part| now.since(part.since) < QUANTUM && now >= part.since) {
            Some(part) => {
                part.report.merge(report);
                part.weight = part.weight.saturating_add(weight);
                part.last = now;
            }
            None => self.parts.push_back(Part { since: now, last: now, report, weight }),
        }
        Added::Yes
    }

    /// Lets go of what has left the window; whether anything has.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.parts.len();
        // A part is as old as the last report in it: nothing leaves before its time, and at most a quantum after it.
        self.parts.retain(|part| now.since(part.last) < self.length || now < part.last);
        let expired = self.parts.len() != before;
        self.generation += u64::from(expired);
        expired
    }

    /// When the next report leaves.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.parts.iter().map(|part| part.last + self.length).min()
    }

    /// Whether it holds anything.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of memory that its reports take at most.
    pub fn weight(&self) -> usize {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.weight))
    }

    /// Grows with every change of what it holds.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What it holds now, to be merged elsewhere. Nodes are shared, not copied.
    pub fn clone_parts(&self) -> Parts {
        Parts { reports: self.parts.iter().map(|part| part.report.clone()).collect(), generation: self.generation }
    }

    /// All reports as one.
    pub fn merged(&self) -> Report {
        self.clone_parts().merged()
    }

    /// For each part: since when, and its summary as Scope words it.
    pub fn summaries(&self) -> Vec<(Timestamp, String)> {
        self.parts.iter().map(|part| (part.since, summary(&part.report))).collect()
    }
}

/// What a window held at one moment.
#[derive(Debug)]
pub struct Parts {
    reports: Vec<Report>,
    generation: u64,
}

impl Parts {
    /// All reports as one, with what old ones lack. Nodes of which too little is known are still in it.
    pub fn merged(self) -> Report {
        let mut merged = Report::default();
        for report in self.reports {
            merged.merge(report);
        }
        merged.upgrade();
        merged.id = Some(format!("{:x}", self.generation).into());
        merged
    }
}

/// The host if there is one alone, and how many nodes of which kind.
fn summary(report: &Report) -> String {
    let hosts = &report.table(Kind::Host).nodes;
    let host = hosts.keys().next().filter(|_| hosts.len() == 1).map(|id| format!("{id}: ")).unwrap_or_default();
    let counts = report.tables().filter(|(_, table)| !table.nodes.is_empty());
    let counts: Vec<String> = counts.map(|(kind, table)| format!("{}:{}", kind.name(), table.nodes.len())).collect();
    host + &counts.join(", ")
}

#[cfg(test)]
mod tests;
