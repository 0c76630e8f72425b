//! Changes of what is defined: applied to the root, checked, planned, and handed over to a deployment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;

use super::words::{Answer, BusEvent, Change, Edit, Expect, Record, Refusal, Ticket, Undo, Violation};
use super::{Effect, Scheduler};
use crate::id::PathId;
use crate::model::app::VersionInfo;
use crate::model::spec::Spec;
use crate::plan::Plan;
use crate::root::{Group, Root};
use crate::validate;

/// A change that is applied to a copy of the root.
struct Draft {
    root: Root,
    version: Timestamp,
    touched: BTreeSet<PathId>,
    groups: BTreeSet<PathId>,
    /// No service port below this one is free.
    lowest_free: u16,
}

impl Scheduler {
    pub(super) fn on_change(&mut self, now: Timestamp, ticket: Ticket, change: Change, out: &mut Vec<Effect>) {
        let group = group_of(&change);
        let answer = match self.try_change(now, change, out) {
            Ok(plan) => Answer::Planned(plan),
            Err(refusal) => {
                if matches!(refusal, Refusal::Invalid(_) | Refusal::PortsExhausted(..)) {
                    let reason = format!("{refusal:?}");
                    out.push(Effect::Publish(BusEvent::GroupChangeFailed { group, version: now, reason }));
                }
                Answer::Refused(refusal)
            }
        };
        out.push(Effect::Reply(ticket, answer));
    }

    pub(super) fn on_cancel(&mut self, now: Timestamp, ticket: Ticket, id: &str, force: bool, out: &mut Vec<Effect>) {
        let Some(deployment) = self.deployments.get(id).cloned() else {
            out.push(Effect::Reply(ticket, Answer::Refused(Refusal::NoDeployment(id.to_owned()))));
            return;
        };
        if force {
            self.cancel_deployment(id, out);
            out.push(Effect::Reply(ticket, Answer::Cancelled));
            return;
        }
        let mut edits = Vec::new();
        for (spec, change) in &deployment.plan.changes {
            edits.push(match &change.from {
                Some(from) => Edit::Put { spec: from.clone(), expect: Expect::Anything },
                None => Edit::Remove(spec.clone()),
            });
        }
        for (group, change) in &deployment.plan.groups {
            match (&change.from, &change.to) {
                (Some(from), _) => edits.push(Edit::PutGroup {
                    id: group.clone(),
                    dependencies: Some(from.dependencies.clone()),
                    enforce_role: None,
                    must_be_new: false,
                }),
                // Only if nothing else has come into it since.
                (None, _) => {
                    let ours = |it: &PathId| deployment.plan.changes.contains_key(it) || deployment.plan.groups.contains_key(it);
                    let others =
                        self.root.specs_below(group).any(|(it, _)| !ours(it)) || self.root.groups_below(group).any(|(it, _)| !ours(it));
                    if !others {
                        edits.push(Edit::RemoveGroup(group.clone()));
                    }
                }
            }
        }
        self.on_change(now, ticket, Change { edits, force: true, ..Change::default() }, out);
        // Nothing to restore: it is to end all the same.
        self.cancel_deployment(id, out);
    }

    fn try_change(&mut self, now: Timestamp, change: Change, out: &mut Vec<Effect>) -> Result<Arc<Plan>, Refusal> {
        if self.deployments.len() >= self.config.max_running_deployments && !change.force && !change.dry_run {
            return Err(Refusal::TooManyDeployments(self.config.max_running_deployments));
        }
        let now_ms = Timestamp::from_unix_millis(now.unix_millis());
        let version = now_ms.max(self.root.version() + Duration::from_millis(1));
        let mut draft = Draft {
            root: self.root.clone(),
            version,
            touched: BTreeSet::new(),
            groups: BTreeSet::new(),
            lowest_free: self.config.local_ports.0,
        };
        for edit in change.edits {
            self.apply(&mut draft, edit, change.force)?;
        }
        if self.config.max_apps.is_some_and(|most| draft.root.spec_count() > most && draft.root.spec_count() > self.root.spec_count()) {
            return Err(Refusal::TooManyApps(self.config.max_apps.unwrap_or(0)));
        }
        let wanted = draft.root.instance_count();
        if wanted > self.config.max_instances && wanted > self.root.instance_count() {
            return Err(Refusal::TooManyInstances(self.config.max_instances));
        }
        for id in draft.touched.iter().chain(&draft.groups) {
            draft.root.touch(&id.parent(), version);
        }
        draft.root.set_version(version);
        // Groups that came to be, or ceased to be, on the way.
        let differences = self.root.differences(&draft.root);
        draft.groups.extend(differences.groups.into_iter().filter(|id| self.root.group(id).is_none() || draft.root.group(id).is_none()));
        let touched: Vec<PathId> = draft.touched.into_iter().collect();
        let groups: Vec<PathId> = draft.groups.into_iter().collect();
        let id = self.ids.uuid();
        let plan = Plan::between(&self.root, &draft.root, &touched, &groups, &change.sentenced, (id, version))
            .map_err(|_| Refusal::Invalid(vec![Violation::new("/", "Dependency graph has cyclic dependencies.")]))?;
        let plan = Arc::new(plan);
        if change.dry_run {
            return Ok(plan);
        }
        let in_the_way: BTreeSet<String> = plan.changes.keys().filter_map(|spec| self.locks.get(spec).cloned()).collect();
        if !in_the_way.is_empty() && !change.force {
            return Err(Refusal::Locked(in_the_way.into_iter().collect()));
        }
        for id in in_the_way {
            self.cancel_deployment(&id, out);
        }
        self.commit(draft.root, &plan, out);
        let group = plan.changes.keys().next().filter(|_| plan.changes.len() == 1).map_or_else(PathId::root, PathId::parent);
        out.push(Effect::Publish(BusEvent::GroupChangeSuccess { group, version }));
        self.start_deployment(now, plan.clone(), out);
        Ok(plan)
    }

    fn commit(&mut self, root: Root, plan: &Plan, out: &mut Vec<Effect>) {
        // All that differ, not the plan's alone: what is in a group changes the group's version.
        let differences = self.root.differences(&root);
        for id in &differences.groups {
            out.push(Effect::Persist(match root.group(id) {
                Some(group) => Record::Group(id.clone(), group),
                None => Record::GroupRemoved(id.clone()),
            }));
        }
        let undo = self.root.undo(&differences, root.version());
        self.root = root;
        for (id, change) in &plan.changes {
            match &change.to {
                Some(spec) => {
                    out.push(Effect::Persist(Record::Spec(spec.clone())));
                    let versions = self.history.entry(id.clone()).or_default();
                    versions.insert(spec.version(), spec.clone());
                    while versions.len() > self.config.max_versions.max(1) {
                        let Some((oldest, _)) = versions.get_min().cloned() else { break };
                        versions.remove(&oldest);
                        out.push(Effect::Persist(Record::VersionDropped(id.clone(), oldest)));
                    }
                    if let Some(entry) = self.queue.get(id)
                        && entry.role != spec.role()
                    {
                        self.queue.remove(id);
                    }
                    self.refresh_waiting(spec, out);
                }
                None => {
                    self.queue.remove(id);
                    if self.policies.remove(id).is_some() {
                        out.push(Effect::Persist(Record::PolicyRemoved(id.clone())));
                    }
                    out.push(Effect::Persist(Record::SpecRemoved(id.clone())));
                }
            }
        }
        out.push(Effect::Persist(Record::RootVersion(self.root.version())));
        self.roots.insert(self.root.version(), self.root.clone());
        out.push(Effect::Persist(Record::Undo(Arc::new(undo))));
        while self.roots.len() > self.config.max_versions.max(1) {
            let Some((oldest, root)) = self.roots.get_min().cloned() else { break };
            self.roots.remove(&oldest);
            // What led from the oldest to the next leads nowhere any more.
            if let Some((version, next)) = self.roots.get_min().cloned() {
                out.push(Effect::Persist(Record::UndoDropped(version)));
                for id in root.differences(&next).specs {
                    self.forget_versions(&id, out);
                }
            }
        }
    }

    /// Makes the roots before the present one again.
    pub(super) fn recall_roots(&mut self, mut undos: Vec<Undo>) {
        undos.sort_by_key(|undo| std::cmp::Reverse(undo.version));
        let mut root = self.root.clone();
        for undo in undos {
            // One that does not fit was written for a root that was never kept: what is older cannot be told.
            if undo.version != root.version() || undo.before >= root.version() {
                break;
            }
            root = root.taken_back(&undo, |id, version| self.history.get(id).and_then(|versions| versions.get(&version)).cloned());
            self.roots.insert(root.version(), root.clone());
        }
    }

    pub(super) fn on_policy(&mut self, ticket: Ticket, app: PathId, policy: Option<Arc<str>>, out: &mut Vec<Effect>) {
        if self.root.spec(&app).is_none_or(Spec::is_pod) {
            out.push(Effect::Reply(ticket, Answer::Refused(Refusal::NoSpec(app))));
            return;
        }
        match policy {
            Some(policy) => {
                self.policies.insert(app.clone(), policy.clone());
                out.push(Effect::Persist(Record::Policy(app, policy)));
            }
            None => {
                if self.policies.remove(&app).is_some() {
                    out.push(Effect::Persist(Record::PolicyRemoved(app)));
                }
            }
        }
        out.push(Effect::Reply(ticket, Answer::Done));
    }

    /// What waits without ever having been launched waits with the definition of now when only numbers differ.
    fn refresh_waiting(&mut self, spec: &Spec, out: &mut Vec<Effect>) {
        let Some(state) = self.specs.get(spec.id()) else { return };
        let waiting: Vec<_> = state.scheduled.iter().filter_map(|id| state.instances.get(id)).cloned().collect();
        for instance in waiting {
            if instance.config_version() == spec.config_version() && instance.spec.version() != spec.version() {
                let now = instance.since;
                self.put(now, crate::instance::Instance { spec: spec.clone(), ..(*instance).clone() }, out);
            }
        }
    }

    fn apply(&self, draft: &mut Draft, edit: Edit, force: bool) -> Result<(), Refusal> {
        match edit {
            Edit::Put { spec, expect } => self.put_spec(draft, spec, expect, force),
            Edit::Remove(id) => {
                if draft.root.remove_spec(&id).is_none() && self.root.spec(&id).is_none() {
                    return Err(Refusal::NoSpec(id));
                }
                draft.touched.insert(id);
                Ok(())
            }
            Edit::Restart(id) => {
                let Some(spec) = draft.root.spec(&id).cloned() else { return Err(Refusal::NoSpec(id)) };
                let info = VersionInfo { last_config_change_at: draft.version, ..spec.version_info() };
                draft.root.put_spec(spec.with_version(draft.version, info));
                draft.touched.insert(id);
                Ok(())
            }
            Edit::PutGroup { id, dependencies, enforce_role, must_be_new } => {
                self.put_group(draft, id, dependencies, enforce_role, must_be_new)
            }
            Edit::RemoveGroup(id) => {
                if draft.root.group(&id).is_none() {
                    return Err(Refusal::NoGroup(id));
                }
                draft.touched.extend(draft.root.specs_below(&id).map(|(id, _)| id.clone()));
                draft.groups.extend(draft.root.groups_below(&id).map(|(id, _)| id.clone()));
                draft.root.remove_group(&id);
                if !id.is_root() {
                    draft.groups.insert(id);
                }
                Ok(())
            }
        }
    }

    fn put_group(
        &self,
        draft: &mut Draft,
        id: PathId,
        dependencies: Option<Vec<PathId>>,
        enforce_role: Option<bool>,
        must_be_new: bool,
    ) -> Result<(), Refusal> {
        let before = draft.root.group(&id);
        if must_be_new && before.is_some() {
            return Err(Refusal::GroupExists(id));
        }
        if draft.root.spec(&id).is_some() || id.ancestors().any(|above| draft.root.spec(&above).is_some()) {
            return Err(Refusal::PathTaken(id));
        }
        let top_level = id.parent().is_root() && !id.is_root();
        if enforce_role.is_some() && !top_level {
            let message = format!("enforceRole can only be set for top-level groups, and {id} is not top-level");
            return Err(invalid("/enforceRole", message));
        }
        let known = before.clone().unwrap_or_default();
        let default = (top_level && before.is_none() && self.config.new_group_enforce_role).then_some(true);
        let group = Group {
            dependencies: dependencies.unwrap_or(known.dependencies),
            enforce_role: enforce_role.or(known.enforce_role).or(default),
            version: if before.is_some() { known.version } else { draft.version },
        };
        if before.as_ref() != Some(&group) {
            draft.root.put_group(id.clone(), group);
            draft.groups.insert(id);
        }
        Ok(())
    }

    fn put_spec(&self, draft: &mut Draft, spec: Spec, expect: Expect, force: bool) -> Result<(), Refusal> {
        let id = spec.id().clone();
        let current = draft.root.spec(&id).cloned();
        match (expect, &current) {
            (Expect::Absent, Some(there)) => return Err(self.taken(draft, spec, there)),
            (Expect::Version(_), None) => return Err(Refusal::Stale),
            (Expect::Version(version), Some(current)) if current.version() != version => return Err(Refusal::Stale),
            _ => {}
        }
        match (&current, &spec) {
            (Some(Spec::App(_)), Spec::Pod(_)) => return Err(invalid("/id", "Can't change app to pod")),
            (Some(Spec::Pod(_)), Spec::App(_)) => return Err(invalid("/id", "Can't change pod to app")),
            _ => {}
        }
        let kind = if spec.is_pod() { "Pods" } else { "Applications" };
        if current.is_none() && !draft.root.is_empty(&id) || id.ancestors().any(|above| draft.root.spec(&above).is_some()) {
            return Err(invalid("/id", format!("Groups and {kind} may not have the same identifier.")));
        }
        let spec = self.with_role(draft, spec, current.as_ref())?;
        let spec = self.with_service_ports(draft, spec, current.as_ref())?;
        let info = current.as_ref().map(Spec::version_info).unwrap_or_default();
        let info = match &current {
            Some(current) if current.same_config(&spec) => {
                if current.instances() == spec.instances() && *current == spec.with_version(current.version(), info) {
                    return Ok(());
                }
                VersionInfo { last_scaling_at: draft.version, ..info }
            }
            _ => VersionInfo { last_scaling_at: draft.version, last_config_change_at: draft.version },
        };
        let spec = spec.with_version(draft.version, info);
        let mut violations = validate::spec(&spec, &self.config);
        if let Some(current) = &current {
            violations.extend(validate::resident_change(current, &spec, force));
        }
        violations.extend(validate::volume_names(&draft.root, &spec));
        if !violations.is_empty() {
            return Err(Refusal::Invalid(violations));
        }
        draft.root.put_spec(spec);
        draft.touched.insert(id);
        Ok(())
    }

    /// Why `spec` cannot be made where something is already: what is wrong with it by itself comes first, as it would on a free path.
    fn taken(&self, draft: &Draft, spec: Spec, there: &Spec) -> Refusal {
        let spec = match self.with_role(draft, spec, None) {
            Ok(spec) => spec,
            Err(refusal) => return refusal,
        };
        let violations = validate::spec(&spec, &self.config);
        if !violations.is_empty() {
            return Refusal::Invalid(violations);
        }
        let id = there.id().clone();
        if there.is_pod() { Refusal::PodExists(id) } else { Refusal::AppExists(id) }
    }

    fn with_role(&self, draft: &Draft, spec: Spec, current: Option<&Spec>) -> Result<Spec, Refusal> {
        let id = spec.id();
        let top = id.top().unwrap_or_default().to_owned();
        let in_group = !id.parent().is_root();
        let enforced = in_group
            && draft
                .root
                .group(&PathId::absolute(&top))
                .map_or(self.config.new_group_enforce_role, |group| group.enforce_role == Some(true));
        if spec.role().is_empty() {
            return Ok(spec.with_role(if enforced { &top } else { &self.config.default_role }));
        }
        let mut allowed = if enforced { vec![top.clone()] } else { vec![self.config.default_role.clone(), top.clone()] };
        allowed.extend(current.map(|current| current.role().to_owned()));
        if allowed.iter().any(|role| role == spec.role()) {
            return Ok(spec);
        }
        Err(invalid("/role", format!("got {}, expected one of: [{}]", spec.role(), allowed.join(", "))))
    }

    /// Gives numbers to the service ports that have none: those that the app had, in order; then the lowest free ones.
    fn with_service_ports(&self, draft: &mut Draft, spec: Spec, current: Option<&Spec>) -> Result<Spec, Refusal> {
        let Spec::App(app) = &spec else { return Ok(spec) };
        let ports = app.service_ports();
        if !ports.contains(&0) {
            return Ok(spec);
        }
        let (from, until) = self.config.local_ports;
        let mut used: BTreeSet<u16> = ports.iter().copied().filter(|port| *port > 0).collect();
        let had: Vec<u16> = current.and_then(Spec::app).map(|app| app.service_ports()).unwrap_or_default();
        let mut had = had.into_iter().filter(|port| *port >= from && *port < until);
        let mut numbered = (**app).clone();
        for place in numbered.service_ports_mut().into_iter().filter(|place| **place == 0) {
            if let Some(port) = had.by_ref().find(|port| !used.contains(port)) {
                used.insert(port);
                *place = port;
                continue;
            }
            while draft.lowest_free < until && (self.root.uses_port(draft.lowest_free) || draft.root.uses_port(draft.lowest_free)) {
                draft.lowest_free += 1;
            }
            let taken = |port: u16| used.contains(&port) || self.root.uses_port(port) || draft.root.uses_port(port);
            let Some(port) = (draft.lowest_free..until).find(|port| !taken(*port)) else {
                return Err(Refusal::PortsExhausted(from, until));
            };
            used.insert(port);
            *place = port;
        }
        Ok(Spec::App(Arc::new(numbered)))
    }
}

fn invalid(path: &str, message: impl Into<String>) -> Refusal {
    Refusal::Invalid(vec![Violation::new(path, message)])
}

fn group_of(change: &Change) -> PathId {
    match change.edits.as_slice() {
        [Edit::Put { spec, .. }] => spec.id().parent(),
        [Edit::Remove(id) | Edit::Restart(id)] => id.parent(),
        [Edit::PutGroup { id, .. } | Edit::RemoveGroup(id)] => id.clone(),
        _ => PathId::root(),
    }
}
