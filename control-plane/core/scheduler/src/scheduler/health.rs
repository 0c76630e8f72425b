//! Asking instances how they are: the checks that are not the agents' business, and readiness during deployments.

use std::time::Duration;

use base::Timestamp;

use super::status::record;
use super::timers::Timer;
use super::words::{BusEvent, Outcome, ProbeKind, ProbeRequest, Subject};
use super::{Effect, Scheduler};
use crate::instance::{Condition, Goal, Instance, Readiness};
use crate::mesos::TaskState;
use crate::model::NetworkMode;
use crate::model::app::App;
use crate::model::health::{HealthCheck, PortRef, Probe};
use crate::model::spec::Spec;

/// Bytes of an answer's body that are kept.
const BODY_MAX: usize = 4_096;
/// The first probe comes no later than this.
const FIRST_PROBE: Duration = Duration::from_secs(5);

impl Scheduler {
    pub(super) fn schedule_probes(&mut self, now: Timestamp, instance: &Instance) {
        let Spec::App(app) = &instance.spec else { return };
        for (at, check) in app.health_checks.iter().enumerate().filter(|(_, check)| check.by_scheduler()) {
            let first = Duration::from_secs(check.interval_seconds).min(FIRST_PROBE);
            self.timers.add(now + first, Timer::Probe(subject(instance, false, at)));
        }
    }

    pub(super) fn schedule_readiness(&mut self, now: Timestamp, instance: &Instance) {
        if instance.condition != Condition::Running {
            return;
        }
        for at in 0..instance.spec.readiness_checks().len() {
            if !instance.ready.get(at).is_some_and(|it| it.ready) {
                self.timers.add(now, Timer::Probe(subject(instance, true, at)));
            }
        }
    }

    /// Sends the probes that are due, as far as there is room.
    pub(super) fn send_probes(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while self.probes_in_flight.len() < self.config.max_concurrent_health_checks {
            let Some(subject) = self.probes_due.pop_first() else { return };
            if self.probes_in_flight.contains(&subject) {
                continue;
            }
            let Some(request) = self.request(&subject) else { continue };
            match request {
                Ok(request) => {
                    self.probes_in_flight.insert(subject);
                    out.push(Effect::Probe(request));
                }
                // Where to ask is not known (yet).
                Err(interval) => self.timers.add(now + interval, Timer::Probe(subject)),
            }
        }
    }

    /// The probe for `subject`; `None` when it is not to be asked any more.
    fn request(&self, subject: &Subject) -> Option<Result<ProbeRequest, Duration>> {
        let instance = self.instance(&subject.instance)?;
        if instance.incarnation != subject.incarnation || !instance.condition.has_task() {
            return None;
        }
        let Spec::App(app) = &instance.spec else { return None };
        let (port, kind, timeout, interval) = if subject.readiness {
            let check = app.readiness_checks.get(subject.check)?;
            if !self.locks.contains_key(instance.spec_id()) || instance.ready.get(subject.check).is_some_and(|it| it.ready) {
                return None;
            }
            let kind = ProbeKind::Http { tls: check.tls, path: check.path.clone() };
            (PortRef::Name(check.port_name.clone()), kind, check.timeout_seconds, check.interval_seconds)
        } else {
            let check = app.health_checks.get(subject.check)?;
            let kind = match &check.probe {
                Probe::Http { tls, path, .. } => ProbeKind::Http { tls: *tls, path: path.clone().unwrap_or_else(|| "/".to_owned()) },
                Probe::Tcp { .. } => ProbeKind::Tcp,
                Probe::Command(_) => return None,
            };
            (check.port()?.clone(), kind, check.timeout_seconds, check.interval_seconds)
        };
        let interval = Duration::from_secs(interval.max(1));
        // Neither asked nor killed while its agent is out of reach.
        if instance.condition != Condition::Running {
            return Some(Err(interval));
        }
        let Some((host, port)) = address(instance, app, &port) else { return Some(Err(interval)) };
        Some(Ok(ProbeRequest { subject: subject.clone(), host, port, kind, timeout: Duration::from_secs(timeout.max(1)) }))
    }

    pub(super) fn on_probed(&mut self, now: Timestamp, subject: &Subject, outcome: &Outcome, out: &mut Vec<Effect>) {
        self.probes_in_flight.remove(subject);
        let Some(instance) = self.instance(&subject.instance).cloned() else { return };
        if instance.incarnation != subject.incarnation || !instance.condition.has_task() {
            return;
        }
        let Spec::App(app) = &instance.spec else { return };
        if subject.readiness {
            let Some(check) = app.readiness_checks.get(subject.check) else { return };
            let ready = matches!(outcome, Outcome::Answered { status, .. } if check.ready_codes.contains(status));
            let mut instance = (*instance).clone();
            instance.ready.resize_with(app.readiness_checks.len(), Readiness::default);
            instance.ready[subject.check] = Readiness { ready, last_response: check.preserve_last_response.then(|| response(outcome)) };
            if !ready {
                self.timers.add(now + Duration::from_secs(check.interval_seconds.max(1)), Timer::Probe(subject.clone()));
            }
            self.put(now, instance, out);
            return;
        }
        let Some(check) = app.health_checks.get(subject.check) else { return };
        self.timers.add(now + Duration::from_secs(check.interval_seconds.max(1)), Timer::Probe(subject.clone()));
        if instance.condition == Condition::Running {
            self.apply_health(now, &instance, app, (subject.check, check), outcome, out);
        }
    }

    fn apply_health(
        &mut self,
        now: Timestamp,
        known: &Instance,
        app: &App,
        (at, check): (usize, &HealthCheck),
        outcome: &Outcome,
        out: &mut Vec<Effect>,
    ) {
        let result = match (outcome, &check.probe) {
            (Outcome::Connected, _) => Ok(()),
            (Outcome::Answered { status: 100..=199, .. }, Probe::Http { ignore_1xx: true, .. }) => return,
            (Outcome::Answered { status: 200..=399, .. }, _) => Ok(()),
            (Outcome::Answered { status, reason, .. }, _) => Err(format!("{status} {reason}").trim_end().to_owned()),
            (Outcome::Failed(cause), _) => Err(cause.clone()),
        };
        let before = known.health.get(at).cloned().unwrap_or_default();
        let never_healthy = before.first_success.is_none();
        let young = known.active_since.is_none_or(|since| now.since(since) < Duration::from_secs(check.grace_period_seconds));
        if result.is_err() && never_healthy && young {
            return;
        }
        let mut instance = known.clone();
        instance.health.resize_with(app.health_checks.len(), Default::default);
        record(&mut instance.health[at], now, result.as_ref().copied().map_err(String::as_str));
        let alive = instance.health[at].alive();
        let instance = self.put(now, instance, out);
        if result.is_err() {
            out.push(Effect::Publish(BusEvent::FailedHealthCheck {
                app: app.id.clone(),
                instance: instance.id.clone(),
                check: check.clone(),
            }));
        }
        if alive != before.alive() {
            out.push(Effect::Publish(BusEvent::HealthStatusChanged {
                app: app.id.clone(),
                instance: instance.id.clone(),
                version: instance.spec.version(),
                alive: alive == Some(true),
            }));
        }
        let Err(cause) = result else { return };
        let too_often = check.max_consecutive_failures > 0 && before.consecutive_failures >= check.max_consecutive_failures;
        if too_often && instance.goal == Goal::Running && !self.is_being_killed(&instance.id) {
            let task_id = instance.tasks.first().map_or_else(String::new, |task| task.id.as_str().to_owned());
            let message = format!("Task was killed since health check failed. Reason: {cause}");
            self.record_failure(now, &instance, &task_id, TaskState::Killed, &message, out);
            self.kill(now, &instance.id, out);
            out.push(Effect::Publish(BusEvent::UnhealthyInstanceKill { task_id, reason: cause, instance }));
        }
    }
}

fn subject(instance: &Instance, readiness: bool, check: usize) -> Subject {
    Subject { instance: instance.id.clone(), incarnation: instance.incarnation, readiness, check }
}

fn response(outcome: &Outcome) -> (u16, String, String) {
    match outcome {
        Outcome::Answered { status, content_type, body, .. } => (*status, content_type.clone(), body.chars().take(BODY_MAX).collect()),
        Outcome::Failed(cause) => (504, "text/plain".to_owned(), cause.clone()),
        Outcome::Connected => (200, "text/plain".to_owned(), String::new()),
    }
}

/// Where the app's port is reached: at the agent where it has a port there, else at the container's own address.
fn address(instance: &Instance, app: &App, port: &PortRef) -> Option<(String, u16)> {
    let task = instance.tasks.first()?;
    let host = instance.host()?;
    let own = || task.addresses.iter().find(|(_, v6)| !v6).or(task.addresses.first()).map(|(address, _)| address.clone());
    let in_container = app.networks.iter().any(|network| network.mode == NetworkMode::Container);
    let mappings = || app.container.iter().flat_map(|container| &container.port_mappings);
    let index = match port {
        PortRef::Number(number) => return Some((if in_container { own()? } else { host.to_owned() }, *number)),
        PortRef::Index(index) => *index as usize,
        PortRef::Name(name) if app.is_host_network() => app.port_definitions.iter().position(|it| it.name.as_ref() == Some(name))?,
        PortRef::Name(name) => mappings().position(|it| it.name.as_ref() == Some(name))?,
    };
    if let Some(port) = task.host_ports.get(index).copied().flatten() {
        return Some((host.to_owned(), port));
    }
    let port = mappings().nth(index)?.container_port;
    (port > 0).then_some(())?;
    Some((own()?, port))
}
