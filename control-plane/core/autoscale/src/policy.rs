//! What somebody wants of an app's number of instances.

use std::time::Duration;

use crate::schedule::Window;

/// What is seen of an instance. Rates are means over the time between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// CPU time used, as a share of the CPUs asked for: 1 is all of them.
    Cpu,
    /// Memory used, as a share of the memory asked for: 1 is all of it.
    Memory,
    /// Connections accepted per second.
    ConnectionsPerSecond,
    /// Connections open at once.
    OpenConnections,
    /// Payload bytes per second in both directions, on accepted connections.
    BytesPerSecond,
    /// Segments sent again per second, on accepted connections.
    RetransmitsPerSecond,
    /// Mean round-trip time of accepted connections, in milliseconds; 0 when nobody talks.
    RoundTripMillis,
    /// Requests answered per second, of protocols that are understood.
    RequestsPerSecond,
    /// Requests per second that were answered with an error, of protocols that are understood.
    ErrorsPerSecond,
}

impl Signal {
    /// Every signal with its word.
    pub const ALL: [(Signal, &'static str); 9] = [
        (Signal::Cpu, "cpu"),
        (Signal::Memory, "memory"),
        (Signal::ConnectionsPerSecond, "connectionsPerSecond"),
        (Signal::OpenConnections, "openConnections"),
        (Signal::BytesPerSecond, "bytesPerSecond"),
        (Signal::RetransmitsPerSecond, "retransmitsPerSecond"),
        (Signal::RoundTripMillis, "roundTripMillis"),
        (Signal::RequestsPerSecond, "requestsPerSecond"),
        (Signal::ErrorsPerSecond, "errorsPerSecond"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Signal::ALL.iter().find(|(signal, _)| *signal == self).map_or("", |(_, word)| word)
    }

    /// Whether the kernel's connections tell of it.
    pub fn is_of_connections(self) -> bool {
        !matches!(self, Signal::Cpu | Signal::Memory)
    }
}

/// What a signal should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Which.
    pub signal: Signal,
    /// Mean over the instances; more than 0.
    pub value: f64,
}

/// What holds in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Least time since the number was last changed, by whomever.
    pub cooldown: Duration,
    /// How long it must have been called for: the least change that was called for within this time is made.
    pub stabilization: Duration,
    /// Instances at once.
    pub max_step: Option<u32>,
    /// The number may grow to, or shrink by, this many times at once; more than 1.
    pub max_factor: Option<f64>,
}

/// What somebody wants of an app's number of instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Never fewer; at least 1.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What is tracked. The target that calls for most instances decides.
    pub targets: Vec<Target>,
    /// How far a signal may be off its target, as a share of it, without anything being done.
    pub tolerance: f64,
    /// Time between two looks.
    pub interval: Duration,
    /// How long a new instance is not counted upon.
    pub warm_up: Duration,
    /// Growing.
    pub up: Rule,
    /// Shrinking.
    pub down: Rule,
    /// Other bounds at certain hours. The first window that is open holds.
    pub schedule: Vec<Window>,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// Whether it does anything.
    pub enabled: bool,
}

/// What a policy may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instances.
    pub instances: u32,
    /// Targets.
    pub targets: usize,
    /// Windows of the schedule.
    pub windows: usize,
    /// Time between two looks.
    pub interval: (Duration, Duration),
    /// Any other time.
    pub longest: Duration,
}

impl Limits {
    /// So that what is remembered of an app stays a few kilobytes.
    pub const DEFAULT: Limits = Limits {
        instances: 100_000,
        targets: 9,
        windows: 64,
        interval: (Duration::from_secs(5), Duration::from_secs(3_600)),
        longest: Duration::from_secs(3_600),
    };
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `/field`, with `(0)` for positions.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Policy {
    /// One that keeps between two numbers of instances, and tracks nothing yet.
    pub fn new(min: u32, max: u32) -> Policy {
        Policy {
            min,
            max,
            targets: Vec::new(),
            tolerance: 0.1,
            interval: Duration::from_secs(15),
            warm_up: Duration::from_secs(30),
            up: Rule { cooldown: Duration::from_secs(30), stabilization: Duration::ZERO, max_step: None, max_factor: Some(2.0) },
            down: Rule { cooldown: Duration::from_secs(120), stabilization: Duration::from_secs(300), max_step: None, max_factor: None },
            schedule: Vec::new(),
            dry_run: false,
            enabled: true,
        }
    }

    /// Everything that is wrong with it; nothing: it may be used.
    pub fn problems(&self, limits: Limits) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |path: String, message: String| problems.push(Problem { path, message });
        if self.min == 0 {
            wrong("/min".to_owned(), "must be at least 1: an app without instances shows no load to grow by".to_owned());
        }
        if self.max < self.min {
            wrong("/max".to_owned(), "must not be less than min".to_owned());
        }
        if self.max > limits.instances {
            wrong("/max".to_owned(), format!("must not be more than {}", limits.instances));
        }
        if self.targets.is_empty() && self.schedule.is_empty() {
            wrong("/targets".to_owned(), "must not be empty without a schedule".to_owned());
        }
        if self.targets.len() > limits.targets {
            wrong("/targets".to_owned(), format!("must not be more than {}", limits.targets));
        }
        for (at, target) in self.targets.iter().enumerate() {
            if !(target.value.is_finite() && target.value > 0.0) {
                wrong(format!("/targets({at})/value"), "must be more than 0".to_owned());
            }
            if self.targets[..at].iter().any(|before| before.signal == target.signal) {
                wrong(format!("/targets({at})/signal"), format!("{} has a target already", target.signal.word()));
            }
        }
        if !(0.0..=1.0).contains(&self.tolerance) {
            wrong("/tolerance".to_owned(), "must be between 0 and 1".to_owned());
        }
        if self.interval < limits.interval.0 || self.interval > limits.interval.1 {
            let (least, most) = (limits.interval.0.as_secs(), limits.interval.1.as_secs());
            wrong("/intervalSeconds".to_owned(), format!("must be between {least} and {most}"));
        }
        let longest = limits.longest.as_secs();
        if self.warm_up > limits.longest {
            wrong("/warmUpSeconds".to_owned(), format!("must not be more than {longest}"));
        }
        for (name, rule) in [("scaleUp", &self.up), ("scaleDown", &self.down)] {
            for (field, value) in [("cooldownSeconds", rule.cooldown), ("stabilizationSeconds", rule.stabilization)] {
                if value > limits.longest {
                    wrong(format!("/{name}/{field}"), format!("must not be more than {longest}"));
                }
            }
            if rule.max_step == Some(0) {
                wrong(format!("/{name}/maxStep"), "must be at least 1".to_owned());
            }
            if rule.max_factor.is_some_and(|it| !(it.is_finite() && it > 1.0)) {
                wrong(format!("/{name}/maxFactor"), "must be more than 1".to_owned());
            }
        }
        if self.schedule.len() > limits.windows {
            wrong("/schedule".to_owned(), format!("must not be more than {}", limits.windows));
        }
        for (at, window) in self.schedule.iter().enumerate() {
            let (min, max) = (window.min.unwrap_or(self.min), window.max.unwrap_or(self.max));
            if min == 0 || min > max || max > limits.instances {
                wrong(format!("/schedule({at})"), format!("min and max would be {min} and {max}"));
            }
            if !window.days.contains(&true) {
                wrong(format!("/schedule({at})/days"), "must not be empty".to_owned());
            }
        }
        problems
    }
}
