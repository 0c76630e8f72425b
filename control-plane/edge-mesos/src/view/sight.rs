//! Who looks, and what of the state that leaves.

use std::collections::HashMap;
use std::sync::Arc;

use imbl::OrdMap;
use master::{Framework, Operation, Task};
use mesos::Resource;
use mesos_proto::v1;
use mesos_proto::v1::master::Event;
use mesos_proto::v1::master::event::Type;

use super::Scene;
use crate::acl::{Acls, Sight};
use crate::driver::View;

/// Somebody who reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewer {
    /// Whom they authenticated as.
    pub(crate) principal: Option<Arc<str>>,
    /// What is forbidden; none: nothing is.
    pub(crate) acls: Option<Arc<Acls>>,
}

impl Viewer {
    /// Whether they may see it.
    pub(crate) fn sees(&self, sight: Sight<'_>) -> bool {
        self.acls.as_ref().is_none_or(|acls| acls.sees(self.principal.as_deref(), sight))
    }

    /// What decides the bytes that they are given, beside the question; none: they are given what everybody is.
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.acls.as_ref().map(|_| self.principal.clone().unwrap_or_default())
    }

    /// The scene without what they may not see.
    pub(crate) fn cut(&self, scene: Scene) -> Scene {
        if self.acls.is_none() {
            return scene;
        }
        let mut snapshot = scene.view.snapshot.clone();
        let visible = |it: &Arc<Framework>| self.sees(Sight::Framework(&it.info.user));
        snapshot.frameworks =
            snapshot.frameworks.iter().filter(|(_, it)| visible(it)).map(|(id, it)| (id.clone(), self.cut_framework(it))).collect();
        snapshot.completed_frameworks =
            snapshot.completed_frameworks.iter().filter(|it| visible(it)).map(|it| self.cut_framework(it)).collect();
        retain(&mut snapshot.registry.weights, |role, _| self.sees(Sight::Role(role)));
        retain(&mut snapshot.registry.quotas, |role, _| self.sees(Sight::Quota(role)));
        if !self.sees(Sight::MaintenanceSchedule) {
            snapshot.registry.schedule.windows.clear();
        }
        if !self.sees(Sight::MaintenanceStatus) {
            snapshot.registry.down = OrdMap::new();
            snapshot.inverse_statuses = OrdMap::new();
        }
        // An operation outlives its framework: one of somebody who is gone is nobody's secret.
        let before = &scene.view.snapshot.frameworks;
        let hidden = |id: &mesos::FrameworkId| before.contains_key(id) && !snapshot.frameworks.contains_key(id);
        let sees = |it: &Operation| !it.framework_id.as_ref().is_some_and(hidden) && self.sees_operation(it);
        let seen = snapshot.operations.iter().filter(|(_, it)| sees(it)).map(|(uuid, it)| (uuid.clone(), it.clone())).collect();
        snapshot.operations = seen;
        let view = View { snapshot, version: scene.view.version };
        Scene { view: Arc::new(view), about: scene.about, viewer: self.clone() }
    }

    /// Whether they may see a resource: every role that it is reserved for, and the one that it is allocated to.
    pub(crate) fn sees_resource(&self, resource: &Resource) -> bool {
        let reserved = resource.reservations().iter().map(|it| &it.role);
        self.acls.is_none() || reserved.chain(resource.allocated_role()).all(|role| self.sees(Sight::Role(role.as_str())))
    }

    /// Whether they may see an operation: what it is about, and what it makes of that.
    fn sees_operation(&self, operation: &Operation) -> bool {
        // What cannot be told is not shown.
        mesos::conversions(&operation.info).is_ok_and(|all| {
            let mut resources = all.iter().flat_map(|it| it.consumed.iter().chain(it.converted.iter()));
            resources.all(|it| self.sees_resource(it))
        })
    }

    /// What of some resources they may see.
    pub(crate) fn cut_resources(&self, resources: &mut Vec<v1::Resource>) {
        if self.acls.is_some() {
            resources.retain(|it| self.sees_resource(&Resource::from_proto(it)));
        }
    }

    /// What of an agent they may see.
    pub(crate) fn cut_agent(&self, agent: &mut v1::master::response::get_agents::Agent) {
        for resources in [&mut agent.total_resources, &mut agent.allocated_resources, &mut agent.offered_resources] {
            self.cut_resources(resources);
        }
        self.cut_resources(&mut agent.agent_info.resources);
    }

    fn cut_framework(&self, framework: &Arc<Framework>) -> Arc<Framework> {
        let user = framework.info.user.as_str();
        let task = |it: &Arc<Task>| self.sees(Sight::Task(it.fixed.user.as_deref().unwrap_or(user)));
        let mut cut = (**framework).clone();
        retain(&mut cut.tasks, |_, it| task(it));
        retain(&mut cut.unreachable_tasks, |_, it| task(it));
        cut.completed_tasks.retain(task);
        retain(&mut cut.executors, |_, it| {
            let own = it.command.as_ref().and_then(|it| it.user.as_deref());
            self.sees(Sight::Executor(own.unwrap_or(user)))
        });
        Arc::new(cut)
    }
}

fn retain<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, keep: impl Fn(&K, &V) -> bool) {
    *map = map.iter().filter(|(key, value)| keep(key, value)).map(|(key, value)| (key.clone(), value.clone())).collect();
}

/// What of an operator's event stream somebody may see. Remembers frameworks' users, because events name frameworks alone.
#[derive(Debug)]
pub(crate) struct EventFilter {
    viewer: Viewer,
    users: HashMap<String, String>,
}

impl EventFilter {
    /// A filter for a stream that begins with this state.
    pub(crate) fn new(viewer: Viewer, view: &View) -> Self {
        let users = match viewer.acls {
            None => HashMap::new(),
            Some(_) => view.snapshot.frameworks.values().map(|it| (it.id.to_string(), it.info.user.clone())).collect(),
        };
        EventFilter { viewer, users }
    }

    /// Whether the event is theirs to see.
    pub(crate) fn passes(&mut self, event: &Event) -> bool {
        if self.viewer.acls.is_none() {
            return true;
        }
        let users = &mut self.users;
        let mut framework = |info: &mesos_proto::v1::FrameworkInfo, removed: bool| {
            let id = info.id.as_ref().map(|it| it.value.clone()).unwrap_or_default();
            if removed {
                users.remove(&id);
            } else {
                users.insert(id, info.user.clone());
            }
            self.viewer.sees(Sight::Framework(&info.user))
        };
        match event.r#type() {
            Type::FrameworkAdded => event.framework_added.as_ref().is_some_and(|it| framework(&it.framework.framework_info, false)),
            Type::FrameworkUpdated => event.framework_updated.as_ref().is_some_and(|it| framework(&it.framework.framework_info, false)),
            Type::FrameworkRemoved => event.framework_removed.as_ref().is_some_and(|it| framework(&it.framework_info, true)),
            Type::TaskAdded => event.task_added.as_ref().is_some_and(|it| {
                let of_framework = self.users.get(&it.task.framework_id.value).map(String::as_str);
                let user = it.task.user.as_deref().or(of_framework);
                user.is_some_and(|user| self.viewer.sees(Sight::Task(user)))
            }),
            Type::TaskUpdated => event.task_updated.as_ref().is_some_and(|it| {
                let user = self.users.get(&it.framework_id.value);
                user.is_some_and(|user| self.viewer.sees(Sight::Task(user)))
            }),
            _ => true,
        }
    }

    /// What of an event that passes is theirs to see; none where that is all of it.
    pub(crate) fn cut(&self, event: &Event) -> Option<Event> {
        if self.viewer.acls.is_none() || event.r#type() != Type::AgentAdded {
            return None;
        }
        let mut event = event.clone();
        self.viewer.cut_agent(&mut event.agent_added.as_mut()?.agent);
        Some(event)
    }
}
