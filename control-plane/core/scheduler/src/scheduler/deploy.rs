//! Deployments: their steps one after the other, each brought nearer to its end whenever something of it changes.
//!
//! A step is never remembered as a list of things still to do: what to do next follows from what is there. So a deployment goes on after a
//! restart by beginning again, and a lost answer, a failed task or a lost agent needs no case of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::Timestamp;
use imbl::OrdSet;

use super::words::{BusEvent, Record};
use super::{Effect, Scheduler};
use crate::id::PathId;
use crate::instance::{Condition, Instance};
use crate::model::spec::Spec;
use crate::plan::{Action, ActionKind, Plan};

/// A deployment under way.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// What it does.
    pub plan: Arc<Plan>,
    /// Which step it is at, from 0.
    pub step: usize,
    /// What that step has not finished yet.
    pub pending: OrdSet<PathId>,
    /// In which step the last action of each app or pod is, and which of that step's it is.
    positions: Arc<BTreeMap<PathId, (usize, usize)>>,
}

/// Where an app or pod stands in the deployment that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No deployment holds it.
    Free,
    /// Its turn comes later.
    Ahead,
    /// Its instances are being replaced.
    Replacing,
    /// Another action of it is under way.
    Acting,
    /// Its turn is over.
    Over,
}

impl Deployment {
    fn new(plan: Arc<Plan>) -> Deployment {
        let mut positions = BTreeMap::new();
        for (step, actions) in plan.steps.iter().enumerate() {
            for (at, action) in actions.iter().enumerate() {
                positions.insert(action.spec.clone(), (step, at));
            }
        }
        Deployment { plan, step: 0, pending: OrdSet::new(), positions: Arc::new(positions) }
    }

    /// The actions of the present step.
    pub fn actions(&self) -> &[Action] {
        self.plan.steps.get(self.step).map_or(&[], Vec::as_slice)
    }
}

impl Scheduler {
    pub(super) fn phase(&self, spec: &PathId) -> Phase {
        let Some(deployment) = self.locks.get(spec).and_then(|id| self.deployments.get(id)) else { return Phase::Free };
        let Some((step, at)) = deployment.positions.get(spec) else { return Phase::Over };
        if *step > deployment.step {
            return Phase::Ahead;
        }
        if *step < deployment.step || !deployment.pending.contains(spec) {
            return Phase::Over;
        }
        match deployment.plan.steps[*step][*at].kind {
            ActionKind::Restart => Phase::Replacing,
            _ => Phase::Acting,
        }
    }

    /// Goes on with what a run before had begun: every deployment from its first step.
    pub(super) fn resume_deployments(&mut self, plans: Vec<Plan>) {
        for plan in plans {
            let plan = Arc::new(plan);
            for spec in plan.changes.keys() {
                self.locks.insert(spec.clone(), plan.id.clone());
                self.dirty.insert(spec.clone());
            }
            let mut deployment = Deployment::new(plan.clone());
            deployment.step = plan.steps.iter().position(|step| !only_starts(step)).unwrap_or(0);
            deployment.pending = deployment.actions().iter().map(|action| action.spec.clone()).collect();
            self.deployments.insert(plan.id.clone(), deployment);
        }
    }

    pub(super) fn start_deployment(&mut self, now: Timestamp, plan: Arc<Plan>, out: &mut Vec<Effect>) {
        self.totals.deployments += 1;
        if plan.is_empty() {
            out.push(Effect::Publish(BusEvent::DeploymentSuccess { plan }));
            return;
        }
        for spec in plan.changes.keys() {
            self.locks.insert(spec.clone(), plan.id.clone());
        }
        out.push(Effect::Persist(Record::Deployment(plan.clone())));
        self.deployments.insert(plan.id.clone(), Deployment::new(plan.clone()));
        self.begin_step(now, &plan.id, out);
        if only_starts(&plan.steps[0]) {
            self.next_step(now, &plan.id, out);
        }
    }

    fn begin_step(&mut self, now: Timestamp, id: &str, out: &mut Vec<Effect>) {
        let Some(deployment) = self.deployments.get_mut(id) else { return };
        deployment.pending = deployment.actions().iter().map(|action| action.spec.clone()).collect();
        let (plan, step) = (deployment.plan.clone(), deployment.step);
        out.push(Effect::Publish(BusEvent::DeploymentInfo { plan: plan.clone(), step }));
        for action in plan.steps.get(step).into_iter().flatten() {
            self.dirty.insert(action.spec.clone());
            match action.kind {
                ActionKind::Start | ActionKind::Restart => {
                    self.reset_delay(&action.spec);
                    if let Some(Spec::App(app)) = self.root.spec(&action.spec) {
                        for check in &app.health_checks {
                            let (app, version) = (app.id.clone(), app.version);
                            out.push(Effect::Publish(BusEvent::AddHealthCheck { app, version, check: check.clone() }));
                        }
                    }
                }
                ActionKind::Scale => {
                    for instance in self.instances_of(&action.spec) {
                        self.schedule_readiness(now, &instance);
                    }
                }
                ActionKind::Stop => {}
            }
        }
    }

    /// Looks at every app and pod of which something changed, until nothing follows from anything any more.
    pub(super) fn settle_deployments(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some(spec) = self.dirty.pop_first() {
            match self.phase(&spec) {
                Phase::Free | Phase::Over => {
                    if let Some(definition) = self.root.spec(&spec).cloned() {
                        self.balance(now, &definition, &[], out);
                    }
                }
                Phase::Ahead => {}
                Phase::Replacing | Phase::Acting => self.advance(now, &spec, out),
            }
        }
    }

    fn advance(&mut self, now: Timestamp, spec: &PathId, out: &mut Vec<Effect>) {
        let Some(id) = self.locks.get(spec).cloned() else { return };
        let Some(deployment) = self.deployments.get(&id) else { return };
        let Some((step, at)) = deployment.positions.get(spec).copied() else { return };
        let plan = deployment.plan.clone();
        let action = &plan.steps[step][at];
        let done = match (action.kind, self.root.spec(spec).cloned()) {
            (ActionKind::Start, _) => true,
            (ActionKind::Stop, None) => {
                let from = plan.changes.get(spec).and_then(|change| change.from.as_ref());
                self.advance_stop(now, spec, from, out)
            }
            (ActionKind::Scale, Some(definition)) => self.advance_scale(now, &definition, action, out),
            (ActionKind::Restart, Some(definition)) => self.advance_restart(now, &definition, out),
            // Somebody else has made it, or taken it away, by force.
            _ => true,
        };
        if done {
            let Some(deployment) = self.deployments.get_mut(&id) else { return };
            deployment.pending.remove(spec);
            if deployment.pending.is_empty() {
                self.next_step(now, &id, out);
            }
        }
    }

    fn next_step(&mut self, now: Timestamp, id: &str, out: &mut Vec<Effect>) {
        loop {
            let Some(deployment) = self.deployments.get_mut(id) else { return };
            let (plan, step) = (deployment.plan.clone(), deployment.step);
            out.push(Effect::Publish(BusEvent::DeploymentStepSuccess { plan: plan.clone(), step }));
            deployment.step += 1;
            if deployment.step >= plan.steps.len() {
                self.end_deployment(id, out);
                out.push(Effect::Publish(BusEvent::DeploymentSuccess { plan }));
                return;
            }
            self.begin_step(now, id, out);
            // A step of mere starts is over at once; its apps' turn is in a later one, so that looking at them would not tell.
            let Some(deployment) = self.deployments.get_mut(id) else { return };
            if !only_starts(deployment.actions()) {
                return;
            }
        }
    }

    /// Lets go of everything that a deployment holds.
    fn end_deployment(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(deployment) = self.deployments.remove(id) else { return };
        for (spec, change) in &deployment.plan.changes {
            if self.locks.get(spec).is_some_and(|holder| holder == id) {
                self.locks.remove(spec);
            }
            self.dirty.insert(spec.clone());
            // Its versions were kept for a rollback of this deployment.
            if change.to.is_none() {
                self.forget_versions(spec, out);
            }
        }
        out.push(Effect::Persist(Record::DeploymentRemoved(id.to_owned())));
    }

    /// Drops the versions of an app or pod that is no more, but for those that an old root names.
    pub(super) fn forget_versions(&mut self, spec: &PathId, out: &mut Vec<Effect>) {
        if self.root.spec(spec).is_some() || self.locks.contains_key(spec) {
            return;
        }
        let Some(versions) = self.history.get(spec) else { return };
        let named: BTreeSet<Timestamp> = self.roots.values().filter_map(|root| root.spec(spec)).map(Spec::version).collect();
        let dropped: Vec<Timestamp> = versions.keys().filter(|version| !named.contains(version)).copied().collect();
        for version in dropped {
            if let Some(versions) = self.history.get_mut(spec) {
                versions.remove(&version);
            }
            out.push(Effect::Persist(Record::VersionDropped(spec.clone(), version)));
        }
        if named.is_empty() {
            self.history.remove(spec);
        }
    }

    /// Ends a deployment where it is.
    pub(super) fn cancel_deployment(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(deployment) = self.deployments.get(id).cloned() else { return };
        self.totals.deployments_dismissed += 1;
        self.end_deployment(id, out);
        out.push(Effect::Publish(BusEvent::DeploymentStepFailure { plan: deployment.plan.clone(), step: deployment.step }));
        let reason = "The upgrade has been cancelled".to_owned();
        out.push(Effect::Publish(BusEvent::DeploymentFailed { plan: deployment.plan, reason }));
    }

    /// `from` is what it was: its health checks end with it.
    fn advance_stop(&mut self, now: Timestamp, spec: &PathId, from: Option<&Spec>, out: &mut Vec<Effect>) -> bool {
        for instance in self.instances_of(spec) {
            // A stopped or unreachable instance with a reservation goes, too: there is no app any more that could want it back.
            if instance.goal != crate::instance::Goal::Decommissioned || !instance.condition.has_task() {
                self.decommission(now, &instance.id, out);
            }
        }
        if self.specs.get(spec).is_some_and(|state| !state.instances.is_empty()) {
            return false;
        }
        self.specs.remove(spec);
        self.delays.remove(spec);
        if self.failures.remove(spec).is_some() {
            out.push(Effect::Persist(Record::FailureRemoved(spec.clone())));
        }
        for _ in from.and_then(Spec::app).map(|app| &app.health_checks).into_iter().flatten() {
            out.push(Effect::Publish(BusEvent::RemoveHealthCheck { app: spec.clone() }));
        }
        out.push(Effect::Publish(BusEvent::AppTerminated { app: spec.clone() }));
        true
    }

    fn advance_scale(&mut self, now: Timestamp, spec: &Spec, action: &Action, out: &mut Vec<Effect>) -> bool {
        self.balance(now, spec, &action.sentenced, out);
        let tally = self.total(spec.id());
        tally.wanted == spec.instances() && tally.ready == tally.wanted && tally.dying == 0
    }

    /// Replaces old instances by new ones: never fewer healthy ones than the strategy's minimum by our own doing, never more at all than its
    /// maximum.
    fn advance_restart(&mut self, now: Timestamp, spec: &Spec, out: &mut Vec<Effect>) -> bool {
        let (wanted, id, current) = (spec.instances(), spec.id(), spec.config_version());
        let (minimum, maximum) = bounds(spec);
        let outdated = |it: &Instance| it.config_version() < current;
        let state = self.state(id);
        let (old, new) = (state.before(current), state.since(current));
        let serving = old.healthy + new.ready;
        // What is above the minimum may go; and of the old ones, what the new ones that serve have made superfluous, whatever its health.
        let above = serving.saturating_sub(minimum);
        let superfluous = old.wanted.saturating_sub(wanted.saturating_sub(new.ready));
        let mut kills = above.max(superfluous).min(old.wanted);
        let occupied = old.wanted + new.wanted + old.dying + new.dying;
        let stuck = kills == 0 && occupied >= maximum && new.wanted < wanted && new.wanted == new.ready && old.dying + new.dying == 0;
        if stuck && old.wanted > old.healthy {
            // Nothing is on its way, and there is no room: one that does not serve makes it.
            kills = 1;
        }
        // Those that do not serve go first, wherever they run: of the others, what is above the minimum.
        let mut victims = self.victims(spec, kills as usize, &[], |it| outdated(it) && !it.facts().healthy);
        let others = (kills as usize).saturating_sub(victims.len()).min(above as usize);
        victims.extend(self.victims(spec, others, &[], |it| outdated(it) && it.facts().healthy));
        for victim in victims {
            self.end(now, &victim, out);
        }
        if new.wanted > wanted {
            let surplus = (new.wanted - wanted) as usize;
            let mut victims = self.victims(spec, surplus, &[], |it| !outdated(it) && !it.facts().healthy);
            victims.extend(self.victims(spec, surplus - victims.len(), &[], |it| !outdated(it) && it.facts().healthy));
            for victim in victims {
                self.end(now, &victim, out);
            }
        }
        let state = self.state(id);
        let (old, new) = (state.before(current), state.since(current));
        let occupied = old.wanted + new.wanted + old.dying + new.dying;
        let room = maximum.saturating_sub(occupied).min(wanted.saturating_sub(new.wanted));
        if room > 0 {
            self.start(now, spec, room, out);
        }
        let state = self.state(id);
        let (old, new) = (state.before(current), state.since(current));
        if new.ready < wanted || new.wanted != wanted || old.wanted > 0 || old.dying + new.dying > 0 {
            return false;
        }
        for instance in self.instances_of(id).iter().filter(|it| outdated(it) && it.condition == Condition::UnreachableInactive) {
            self.decommission(now, &instance.id, out);
        }
        true
    }
}

/// Such a step is over as soon as it begins.
fn only_starts(actions: &[Action]) -> bool {
    actions.iter().all(|action| action.kind == ActionKind::Start)
}

/// The least number of instances that serve, and the greatest that exist, while those of `spec` are replaced.
pub(crate) fn bounds(spec: &Spec) -> (u32, u32) {
    let (wanted, strategy) = (f64::from(spec.instances()), spec.upgrade_strategy());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32, at most twice of it, saturates")]
    let (minimum, maximum) = (
        (wanted * strategy.minimum_health_capacity - 1e-9).ceil().max(0.0) as u32,
        (wanted * (1.0 + strategy.maximum_over_capacity) + 1e-9).floor() as u32,
    );
    // Neither to be ended nor to be started: Marathon lets one be missing where instances are bound to their volumes, else one too many.
    if minimum < maximum {
        (minimum, maximum)
    } else if spec.is_resident() {
        (maximum.saturating_sub(1), maximum)
    } else {
        (minimum, maximum + 1)
    }
}
