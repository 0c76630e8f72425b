//! The decision: what is needed by each target, what limits say to that, and why.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use base::Timestamp;

use crate::policy::{Policy, Rule, Signal};

/// Recommendations remembered of an app. The longest stabilization at the shortest interval needs fewer.
const REMEMBERED: usize = 1_024;

/// What is seen of one instance that runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// How long it has been ready.
    pub age: Duration,
    /// What is known of it; what is missing is not known.
    pub values: BTreeMap<Signal, f64>,
}

/// What is known of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Instances that it is to have.
    pub instances: u32,
    /// When that number was last changed, by whomever.
    pub last_scaled: Timestamp,
    /// Whether a deployment of it runs.
    pub deploying: bool,
    /// Whether its instances keep failing.
    pub failing: bool,
    /// Its instances that run and are ready.
    pub samples: Vec<Sample>,
}

/// Least and most, and whose word that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// The window of the schedule that is open.
    pub window: Option<String>,
}

/// What one target says.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Which.
    pub signal: Signal,
    /// What it should be.
    pub target: f64,
    /// Mean over the instances that were seen; none: none was.
    pub average: Option<f64>,
    /// How many were.
    pub seen: u32,
    /// How many were not: not running, too young, or without a sample.
    pub missing: u32,
    /// Instances needed.
    pub needed: Option<u32>,
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The number is right.
    Steady,
    /// The policy is off.
    Disabled,
    /// Somebody has set the number to 0.
    Suspended,
    /// A deployment of the app runs.
    Deploying,
    /// Its instances keep failing: more of them would, too.
    Failing,
    /// Nothing is known, or not enough to shrink.
    Missing,
    /// The number was changed too short a time ago.
    Cooldown,
    /// It has not been called for long enough.
    Stabilizing,
    /// Only said, not done.
    DryRun,
}

impl Why {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Why::Steady => "steady",
            Why::Disabled => "disabled",
            Why::Suspended => "suspended",
            Why::Deploying => "deploying",
            Why::Failing => "failing",
            Why::Missing => "missingData",
            Why::Cooldown => "cooldown",
            Why::Stabilizing => "stabilizing",
            Why::DryRun => "dryRun",
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// So many instances.
    Scale(u32),
    /// Nothing.
    Hold(Why),
}

/// A decision with everything that led to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// Instances that there are to be as yet.
    pub current: u32,
    /// Instances that there should be, by the targets and the bounds, whatever limits say.
    pub desired: u32,
    /// What is to be done.
    pub action: Action,
    /// Which bounds hold.
    pub bounds: Bounds,
    /// What each target says, in the policy's order.
    pub measured: Vec<Measured>,
    /// All of it, for people.
    pub reason: String,
}

/// What is remembered of an app between two decisions.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    began: Timestamp,
    /// What the targets called for, the oldest first.
    called_for: VecDeque<(Timestamp, u32)>,
    last_scaled: Timestamp,
}

impl Autoscaler {
    /// Nothing is remembered yet: nothing shrinks before the time that must be seen for that has passed.
    pub fn new(now: Timestamp) -> Autoscaler {
        Autoscaler { began: now, called_for: VecDeque::new(), last_scaled: Timestamp::EPOCH }
    }

    /// A decision was carried out.
    pub fn scaled(&mut self, now: Timestamp) {
        self.last_scaled = now;
    }

    /// What is to be done now. The caller carries it out, and tells by [`Autoscaler::scaled`].
    pub fn decide(&mut self, now: Timestamp, policy: &Policy, facts: &Facts) -> Decision {
        let bounds = bounds(policy, now);
        let current = facts.instances;
        let hold = |why: Why, reason: &str| Decision {
            at: now,
            current,
            desired: current,
            action: Action::Hold(why),
            bounds: bounds.clone(),
            measured: Vec::new(),
            reason: reason.to_owned(),
        };
        if !policy.enabled {
            return hold(Why::Disabled, "the policy is disabled");
        }
        if current == 0 {
            return hold(Why::Suspended, "the app is suspended: its instances were set to 0");
        }
        if facts.deploying {
            return hold(Why::Deploying, "a deployment of the app runs");
        }
        let measured: Vec<Measured> = policy.targets.iter().map(|it| measure(policy, facts, it.signal, it.value)).collect();
        let within = current.clamp(bounds.min, bounds.max);
        if within != current {
            // Somebody has moved the bounds, or the clock has: that is not for the load to argue with.
            let limit = if within > current { "min" } else { "max" };
            let window = bounds.window.as_ref().map(|name| format!(" of the window {name:?}")).unwrap_or_default();
            let reason = format!("{current} instances are beyond {limit} {within}{window}");
            let decision = Decision { desired: within, measured, ..hold(Why::Steady, &reason) };
            return finish(policy, decision, within, Ok(()));
        }
        let needed = measured.iter().filter_map(|it| it.needed).max();
        let blind = measured.iter().any(|it| it.needed.is_none());
        let mut reason = String::new();
        for it in &measured {
            describe(&mut reason, it);
        }
        let Some(needed) = needed else {
            let reason = if measured.is_empty() { "only the schedule decides".to_owned() } else { reason };
            let why = if measured.is_empty() { Why::Steady } else { Why::Missing };
            return Decision { measured, ..hold(why, &reason) };
        };
        let desired = needed.clamp(bounds.min, bounds.max);
        self.remember(now, needed, policy);
        let decision = Decision { desired, measured, ..hold(Why::Steady, &reason) };
        if desired == current {
            return decision;
        }
        let rule = if desired > current { policy.up } else { policy.down };
        if desired < current && (blind || decision.measured.iter().any(|it| it.missing > 0)) {
            return finish(policy, decision, current, Err((Why::Missing, "nothing shrinks while not everything is seen".to_owned())));
        }
        if desired > current && facts.failing {
            let why = "its instances keep failing, and more of them would fail, too".to_owned();
            return finish(policy, decision, current, Err((Why::Failing, why)));
        }
        // The least change that was called for within the time of stabilization.
        let agreed = self.agreed(now, rule.stabilization, current, desired).clamp(bounds.min, bounds.max);
        if agreed == current {
            let seconds = rule.stabilization.as_secs();
            return finish(
                policy,
                decision,
                current,
                Err((Why::Stabilizing, format!("it has not been called for during all of {seconds} s"))),
            );
        }
        let last = self.last_scaled.max(facts.last_scaled);
        let passed = now.since(last);
        if passed < rule.cooldown {
            let why = format!("the number was changed {} s ago, and is left alone for {} s", passed.as_secs(), rule.cooldown.as_secs());
            return finish(policy, decision, current, Err((Why::Cooldown, why)));
        }
        let to = limited(rule, current, agreed).clamp(bounds.min, bounds.max);
        finish(policy, decision, to, Ok(()))
    }

    fn remember(&mut self, now: Timestamp, needed: u32, policy: &Policy) {
        let longest = policy.up.stabilization.max(policy.down.stabilization);
        while self.called_for.front().is_some_and(|(at, _)| now.since(*at) > longest) || self.called_for.len() >= REMEMBERED {
            self.called_for.pop_front();
        }
        self.called_for.push_back((now, needed));
    }

    fn agreed(&self, now: Timestamp, window: Duration, current: u32, desired: u32) -> u32 {
        if now.since(self.began) < window {
            return current;
        }
        let within = self.called_for.iter().filter(|(at, _)| now.since(*at) <= window).map(|(_, needed)| *needed);
        if desired > current {
            within.min().unwrap_or(current).max(current).min(desired)
        } else {
            within.max().unwrap_or(current).min(current).max(desired)
        }
    }
}

fn bounds(policy: &Policy, now: Timestamp) -> Bounds {
    match policy.schedule.iter().find(|window| window.is_open(now)) {
        Some(window) => {
            let min = window.min.unwrap_or(policy.min).max(1);
            Bounds { min, max: window.max.unwrap_or(policy.max).max(min), window: Some(window.name.clone()) }
        }
        None => Bounds { min: policy.min.max(1), max: policy.max.max(policy.min).max(1), window: None },
    }
}

/// What is needed to bring the mean of a signal to its target.
fn measure(policy: &Policy, facts: &Facts, signal: Signal, target: f64) -> Measured {
    let (mut seen, mut sum) = (0_u32, 0.0);
    for sample in facts.samples.iter().filter(|it| it.age >= policy.warm_up) {
        if let Some(value) = sample.values.get(&signal).filter(|it| it.is_finite()) {
            seen += 1;
            sum += value.max(0.0);
        }
    }
    let current = facts.instances;
    let missing = current.saturating_sub(seen);
    if seen == 0 || target <= 0.0 || target.is_nan() {
        return Measured { signal, target, average: None, seen, missing, needed: None };
    }
    let average = sum / f64::from(seen);
    // What was not seen is taken to do nothing when that keeps from growing, and its share when that keeps from shrinking.
    let needed = if (average / target - 1.0).abs() <= policy.tolerance {
        current
    } else if average > target {
        ceiling(sum / target).max(current)
    } else {
        ceiling(sum / target + f64::from(missing)).min(current).max(1)
    };
    Measured { signal, target, average: Some(average), seen, missing, needed: Some(needed) }
}

/// The next whole number, but for what rounding adds.
fn ceiling(value: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    let whole = (value - 1e-9).ceil() as u32;
    whole
}

/// As far as one step may go.
fn limited(rule: Rule, current: u32, wanted: u32) -> u32 {
    let factor = rule.max_factor.map(|factor| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
        let (more, fewer) = ((f64::from(current) * factor).floor() as u32, (f64::from(current) / factor).ceil() as u32);
        // A single one can always come or go.
        (more.max(current.saturating_add(1)), fewer.min(current.saturating_sub(1)))
    });
    let mut to = wanted;
    if wanted > current {
        to = rule.max_step.map_or(to, |step| to.min(current.saturating_add(step)));
        to = factor.map_or(to, |(more, _)| to.min(more));
    } else {
        to = rule.max_step.map_or(to, |step| to.max(current.saturating_sub(step)));
        to = factor.map_or(to, |(_, fewer)| to.max(fewer));
    }
    to
}

fn describe(reason: &mut String, it: &Measured) {
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    let (word, target) = (it.signal.word(), it.target);
    let missing = if it.missing > 0 { format!(", {} not seen", it.missing) } else { String::new() };
    let _ = match (it.average, it.needed) {
        (Some(average), Some(needed)) => {
            write!(reason, "{word} is {} on {} instances{missing}, target {target}: {needed} needed", short(average), it.seen)
        }
        _ => write!(reason, "{word} is not known of any instance"),
    };
}

/// A number for people: three digits are enough.
fn short(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 1.0 {
        1
    } else {
        3
    };
    format!("{value:.digits$}")
}

fn finish(policy: &Policy, mut decision: Decision, to: u32, allowed: Result<(), (Why, String)>) -> Decision {
    let current = decision.current;
    let more = match allowed {
        Err((why, text)) => {
            decision.action = Action::Hold(why);
            format!("left at {current}: {text}")
        }
        Ok(()) if to == current => format!("left at {current}"),
        Ok(()) if policy.dry_run => {
            decision.action = Action::Hold(Why::DryRun);
            format!("would be scaled from {current} to {to}")
        }
        Ok(()) => {
            decision.action = Action::Scale(to);
            format!("scaled from {current} to {to}")
        }
    };
    let _ = write!(decision.reason, "; {more}");
    decision
}
