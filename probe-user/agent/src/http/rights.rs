//! What a client may see and do by the agent's access control lists, in the words of Mesos's local authorizer.

use std::path::{Component, Path};
use std::sync::Arc;

use http::StatusCode;
use mesos_acl::Acls;
use mesos_proto::v1::agent::{Call, call};
use mesos_proto::v1::{CommandInfo, ContainerId, ExecutorInfo, FrameworkInfo, Operation, TaskInfo};

use super::{Answer, Server, plain};
use crate::login::Asker;
use crate::table::{Framework, Launch};
use crate::words::ContainerKey;

/// Reads Mesos's access control lists.
///
/// # Errors
/// When they are not JSON of the known form.
pub fn acls(text: &str) -> Result<Arc<Acls>, String> {
    Acls::parse(text).map(Arc::new)
}

/// Who asks, and by which lists it is decided what that one may. Without lists, everything.
#[derive(Clone, Debug, Default)]
pub struct Viewer {
    acls: Option<Arc<Acls>>,
    principal: Option<String>,
}

impl Viewer {
    /// Executors may do what is about their own containers, which was decided before: no list speaks of them.
    pub(super) fn of(acls: Option<&Arc<Acls>>, asker: &Asker) -> Self {
        match asker {
            Asker::Anyone => Viewer { acls: acls.cloned(), principal: None },
            Asker::Principal(it) => Viewer { acls: acls.cloned(), principal: Some(it.clone()) },
            Asker::Executor(_) => Viewer::default(),
        }
    }

    /// Whether the rules of a list let this one at something; `None` is any.
    pub(super) fn may(&self, list: &str, object: Option<&str>) -> bool {
        self.acls.as_ref().is_none_or(|it| it.decide(list, self.principal.as_deref(), object))
    }

    /// The same, where the answer is a refusal.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn demand(&self, list: &str, object: Option<&str>) -> Result<(), Answer> {
        if self.may(list, object) { Ok(()) } else { Err(forbidden()) }
    }

    /// Whether there is nothing to decide.
    pub(super) fn sees_all(&self) -> bool {
        self.acls.is_none()
    }

    pub(super) fn framework(&self, it: &FrameworkInfo) -> bool {
        self.may("view_frameworks", Some(&it.user))
    }

    pub(super) fn executor(&self, framework: &FrameworkInfo, it: &ExecutorInfo) -> bool {
        self.may("view_executors", Some(user_of(framework, it)))
    }

    pub(super) fn task(&self, framework: &FrameworkInfo, executor: &ExecutorInfo, it: &TaskInfo) -> bool {
        self.may("view_tasks", Some(of_command(it.command.as_ref()).unwrap_or_else(|| user_of(framework, executor))))
    }

    /// A change of resources: seen by who may see every role of what it is about, and of what it makes of that. What cannot be told is not shown.
    pub(super) fn operation(&self, it: &Operation) -> bool {
        let sees = |it: &mesos::Resource| {
            let reserved = it.reservations().iter().map(|it| &it.role);
            reserved.chain(it.allocated_role()).all(|role| self.may("view_roles", Some(role.as_str())))
        };
        self.sees_all()
            || mesos::conversions(&it.info).is_ok_and(|all| {
                let mut resources = all.iter().flat_map(|it| it.consumed.iter().chain(it.converted.iter()));
                resources.all(sees)
            })
    }
}

pub(super) fn forbidden() -> Answer {
    plain(StatusCode::FORBIDDEN, None)
}

fn of_command(command: Option<&CommandInfo>) -> Option<&str> {
    command.and_then(|it| it.user.as_deref()).filter(|it| !it.is_empty())
}

/// As whom an executor runs.
pub(super) fn user_of<'a>(framework: &'a FrameworkInfo, executor: &'a ExecutorInfo) -> &'a str {
    of_command(executor.command.as_ref()).unwrap_or(&framework.user)
}

/// As whom what is in a container runs that is no executor's.
fn alone(launch: &Launch) -> &str {
    of_command(launch.command.as_ref()).unwrap_or(&launch.framework.user)
}

/// Whether a call of the v1 API may be made. Those that only show leave out what may not be seen, later.
///
/// # Errors
/// The refusal.
pub(super) fn permit(server: &Server, call: &Call) -> Result<(), Answer> {
    use call::Type;

    let viewer = &server.viewer;
    if viewer.sees_all() {
        return Ok(());
    }
    match call.r#type() {
        Type::GetFlags => viewer.demand("view_flags", None),
        Type::SetLoggingLevel => viewer.demand("set_log_level", None),
        Type::PruneImages => viewer.demand("prune_images", None),
        Type::LaunchNestedContainer => {
            let it = call.launch_nested_container.as_ref();
            let (as_user, under) = ("launch_nested_containers_as_user", "launch_nested_containers_under_parent_with_user");
            launch(server, it.map(|it| &it.container_id), it.and_then(|it| it.command.as_ref()), (as_user, under))
        }
        Type::LaunchNestedContainerSession => {
            let it = call.launch_nested_container_session.as_ref();
            let (as_user, under) = ("launch_nested_container_sessions_as_user", "launch_nested_container_sessions_under_parent_with_user");
            launch(server, it.map(|it| &it.container_id), it.and_then(|it| it.command.as_ref()), (as_user, under))
        }
        Type::LaunchContainer => {
            let it = call.launch_container.as_ref();
            let command = it.and_then(|it| it.command.as_ref());
            let nested = ("launch_nested_containers_as_user", "launch_nested_containers_under_parent_with_user");
            match it.filter(|it| it.container_id.parent.is_none()) {
                Some(_) => viewer.demand("launch_standalone_containers", Some(of_command(command).unwrap_or("root"))),
                None => launch(server, it.map(|it| &it.container_id), command, nested),
            }
        }
        Type::WaitNestedContainer | Type::WaitContainer => about(server, call, ("wait_nested_containers", "wait_standalone_containers")),
        Type::KillNestedContainer | Type::KillContainer => about(server, call, ("kill_nested_containers", "kill_standalone_containers")),
        Type::RemoveNestedContainer | Type::RemoveContainer => {
            about(server, call, ("remove_nested_containers", "remove_standalone_containers"))
        }
        Type::AttachContainerOutput => about(server, call, ("attach_containers_output", "attach_containers_output")),
        _ => Ok(()),
    }
}

/// A container that is to be made within another: as its own user, and where the outermost one's user is.
fn launch(server: &Server, id: Option<&ContainerId>, command: Option<&CommandInfo>, (as_user, under): (&str, &str)) -> Result<(), Answer> {
    let parent = id.and_then(ContainerKey::from_message).and_then(|it| server.containers.get(&it.outermost()));
    // One that is not there has no user; that it is not there is said later.
    let user = parent.as_ref().map(|it| user_of(&it.launch().framework, &it.launch().executor));
    server.viewer.demand(as_user, of_command(command).or(user))?;
    server.viewer.demand(under, user)
}

/// Something is to be done with a container that is there.
fn about(server: &Server, call: &Call, lists: (&str, &str)) -> Result<(), Answer> {
    of_container(server, super::operator::concerned(call), lists)
}

/// Whether a client may do with a container what the first list is about, or the second where the container is no executor's.
///
/// # Errors
/// The refusal.
pub(super) fn of_container(server: &Server, id: Option<&ContainerId>, (nested, standalone): (&str, &str)) -> Result<(), Answer> {
    if server.viewer.sees_all() {
        return Ok(());
    }
    let outermost = id.and_then(ContainerKey::from_message).and_then(|it| server.containers.get(&it.outermost()));
    match outermost.as_ref().map(crate::containers::Handle::launch) {
        Some(launch) if launch.framework.id.is_some() => server.viewer.demand(nested, Some(user_of(&launch.framework, &launch.executor))),
        Some(launch) => server.viewer.demand(standalone, Some(alone(launch))),
        None => server.viewer.demand(nested, None),
    }
}

/// Whether a file may be seen that is at this path below the sandboxes of all agents of this machine: `<agent>/frameworks/<f>/executors/<e>/…`.
pub(super) async fn sees_file(server: &Server, below: &Path) -> bool {
    if server.viewer.sees_all() {
        return true;
    }
    let parts: Vec<String> = below
        .components()
        .filter_map(|it| if let Component::Normal(it) = it { Some(it.to_string_lossy().into_owned()) } else { None })
        .collect();
    let user = match parts.as_slice() {
        [_, frameworks, framework, executors, executor, ..] if frameworks == "frameworks" && executors == "executors" => {
            let (framework, executor) = (framework.clone(), executor.clone());
            server.driver.look(move |view| owner(view.table, &framework, &executor)).await.ok().flatten()
        }
        _ => None,
    };
    server.viewer.may("access_sandboxes", user.as_deref())
}

/// As whom an executor runs or ran, as long as it is remembered.
fn owner(table: &crate::table::Table, framework: &str, executor: &str) -> Option<String> {
    let is_it = |it: &&Framework| it.info.id.as_ref().is_some_and(|it| it.value == framework);
    let all = table.frameworks().get(framework).into_iter().chain(table.completed_frameworks().iter().rev().filter(is_it));
    let mut newest_user = None;
    for it in all {
        let live = it.executors.get(executor);
        let over = it.completed.iter().rev().find(|it| it.info.executor_id.value == executor);
        if let Some(found) = live.or(over) {
            return Some(user_of(&it.info, &found.info).to_owned());
        }
        newest_user.get_or_insert_with(|| it.info.user.clone());
    }
    newest_user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sees_what_runs_as_a_user_that_a_list_names() {
        let text = r#"{"permissive": false,
            "view_frameworks": [{"principals": {"values": ["ada"]}, "users": {"values": ["web", "db"]}}],
            "view_tasks": [{"principals": {"values": ["ada"]}, "users": {"values": ["db"]}}],
            "view_executors": [{"principals": {"type": "ANY"}, "users": {"type": "ANY"}}]}"#;
        let acls = Arc::new(Acls::parse(text).unwrap());
        let ada = Viewer::of(Some(&acls), &Asker::Principal("ada".to_owned()));
        let anyone = Viewer::of(Some(&acls), &Asker::Anyone);
        let framework = FrameworkInfo { user: "web".to_owned(), ..FrameworkInfo::default() };
        let command = |user: &str| Some(CommandInfo { user: Some(user.to_owned()), ..CommandInfo::default() });
        assert!(ada.framework(&framework) && !anyone.framework(&framework));
        let executor = ExecutorInfo { command: command("db"), ..ExecutorInfo::default() };
        assert!(ada.executor(&framework, &executor) && anyone.executor(&framework, &executor));
        assert!(ada.task(&framework, &executor, &TaskInfo::default()), "a task runs as its executor does");
        assert!(!ada.task(&framework, &executor, &TaskInfo { command: command("root"), ..TaskInfo::default() }));
        assert!(!ada.task(&framework, &ExecutorInfo::default(), &TaskInfo::default()), "and else as its framework");
        assert!(!ada.may("view_flags", None) && Viewer::default().may("view_flags", None));
    }

    #[test]
    fn operations_are_seen_by_who_sees_the_roles_of_their_resources() {
        use mesos_proto::v1::offer::{self, operation};
        use mesos_proto::v1::{Resource, resource};

        let text = r#"{"view_roles": [{"principals": {"type": "NONE"}, "roles": {"values": ["secret"]}}]}"#;
        let acls = Arc::new(Acls::parse(text).unwrap());
        let anyone = Viewer::of(Some(&acls), &Asker::Anyone);
        let unreserving = |role: &str| {
            let reservation = resource::ReservationInfo {
                r#type: Some(resource::reservation_info::Type::Dynamic as i32),
                role: Some(role.to_owned()),
                ..resource::ReservationInfo::default()
            };
            let resources = vec![Resource { reservations: vec![reservation], ..crate::words::scalar_resource("cpus", 1.0) }];
            let info = offer::Operation {
                r#type: Some(operation::Type::Unreserve as i32),
                unreserve: Some(operation::Unreserve { resources }),
                ..offer::Operation::default()
            };
            Operation { info, ..Operation::default() }
        };
        assert!(anyone.operation(&unreserving("open")) && !anyone.operation(&unreserving("secret")));
        assert!(!anyone.operation(&Operation::default()), "nobody knows what it is about");
        assert!(Viewer::default().operation(&unreserving("secret")));
    }
}
