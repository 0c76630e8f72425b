//! The v1 agent API: `POST /api/v1`.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use mesos_proto::v1::agent::{Call, Response, call, response};
use mesos_proto::v1::{ContainerId, Flag, Metric, TimeInfo, VersionInfo};

use super::rights::{self, Viewer};
use super::{
    Answer, Encoding, Server, accepted_encoding, content_encoding, files, metrics, not_allowed, plain, sessions, state, stopping, whole,
};
use crate::driver::View;
use crate::link::{VERSION, task_message};
use crate::login::Asker;
use crate::table::{Executor, Framework, Kind, Task};
use crate::words::{ContainerKey, is_terminal};

pub(super) async fn handle(server: Server, asker: &Asker, request: Request<Incoming>) -> Answer {
    match try_handle(server, asker, request).await {
        Ok(answer) | Err(answer) => answer,
    }
}

pub(super) fn bad(text: &str) -> Answer {
    plain(StatusCode::BAD_REQUEST, Some(text))
}

fn missing(field: &str) -> Answer {
    bad(&format!("Failed to validate agent::Call: Expecting '{field}' to be present"))
}

async fn try_handle(server: Server, asker: &Asker, request: Request<Incoming>) -> Result<Answer, Answer> {
    if request.method() != Method::POST {
        return Err(not_allowed("POST", request.method()));
    }
    if sessions::is_streaming(request.headers()) {
        return sessions::attach_input(server, asker, request).await;
    }
    if request.headers().contains_key("message-content-type") {
        let text = "Expecting 'Message-Content-Type' to be not set for non-streaming requests";
        return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(text)));
    }
    let content = content_encoding(request.headers())?;
    let headers = request.headers().clone();
    let body = whole(request.into_body()).await?;
    let call: Call = content.read(&body).map_err(|text| bad(&text))?;
    // A type that nobody knows is none.
    if call.r#type.and_then(|it| call::Type::try_from(it).ok()).is_none() {
        return Err(missing("type"));
    }
    permit(asker, concerned(&call))?;
    rights::permit(&server, &call)?;
    match call.r#type() {
        call::Type::LaunchNestedContainer => {
            let it = call.launch_nested_container.ok_or_else(|| missing("launch_nested_container"))?;
            return sessions::launch(&server, &it.container_id, it.command, it.container, Default::default()).await;
        }
        call::Type::LaunchContainer => {
            let it = call.launch_container.ok_or_else(|| missing("launch_container"))?;
            return sessions::launch(&server, &it.container_id, it.command, it.container, (it.resources, it.limits.into_iter().collect()))
                .await;
        }
        call::Type::KillNestedContainer => {
            let it = call.kill_nested_container.ok_or_else(|| missing("kill_nested_container"))?;
            return sessions::kill(&server, &it.container_id, it.signal);
        }
        call::Type::KillContainer => {
            let it = call.kill_container.ok_or_else(|| missing("kill_container"))?;
            return sessions::kill(&server, &it.container_id, it.signal);
        }
        call::Type::RemoveNestedContainer => {
            let it = call.remove_nested_container.ok_or_else(|| missing("remove_nested_container"))?;
            return sessions::remove(&server, &it.container_id).await;
        }
        call::Type::RemoveContainer => {
            let it = call.remove_container.ok_or_else(|| missing("remove_container"))?;
            return sessions::remove(&server, &it.container_id).await;
        }
        call::Type::LaunchNestedContainerSession => {
            let it = call.launch_nested_container_session.ok_or_else(|| missing("launch_nested_container_session"))?;
            return sessions::launch_session(server, it, &headers).await;
        }
        call::Type::AttachContainerOutput => {
            let it = call.attach_container_output.ok_or_else(|| missing("attach_container_output"))?;
            return sessions::attach_output(server, &it.container_id, &headers).await;
        }
        call::Type::AttachContainerInput => {
            let text = "Expecting 'Content-Type' to be application/recordio for ATTACH_CONTAINER_INPUT";
            return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(text)));
        }
        call::Type::SetLoggingLevel => {
            let it = call.set_logging_level.ok_or_else(|| bad("Expecting 'set_logging_level' to be present"))?;
            let nanos = u64::try_from(it.duration.nanoseconds).map_err(|_| bad("'duration' is negative"))?;
            server.config.verbosity.set(it.level, Duration::from_nanos(nanos), &server.spawn);
            return Ok(plain(StatusCode::OK, Some("")));
        }
        // Docker keeps the images themselves, and prunes them; what is unpacked of them is the agent's.
        call::Type::PruneImages => {
            let kept = call.prune_images.unwrap_or_default().excluded_images;
            let pruned = server.containers.prune_images(&kept).await;
            tracing::info!(pruned, "unpacked images that no container uses are removed");
            return Ok(plain(StatusCode::OK, Some("")));
        }
        call::Type::Unknown
        | call::Type::AddResourceProviderConfig
        | call::Type::UpdateResourceProviderConfig
        | call::Type::RemoveResourceProviderConfig
        | call::Type::MarkResourceProviderGone => return Err(plain(StatusCode::NOT_IMPLEMENTED, None)),
        _ => {}
    }
    let accepted = accepted_encoding(&headers)?;
    ask(&server, call, accepted).await
}

/// The container that a call is about, where that may be one of an executor.
pub(super) fn concerned(call: &Call) -> Option<&ContainerId> {
    match call.r#type() {
        call::Type::LaunchNestedContainer => call.launch_nested_container.as_ref().map(|it| &it.container_id),
        call::Type::LaunchNestedContainerSession => call.launch_nested_container_session.as_ref().map(|it| &it.container_id),
        call::Type::WaitNestedContainer => call.wait_nested_container.as_ref().map(|it| &it.container_id),
        call::Type::KillNestedContainer => call.kill_nested_container.as_ref().map(|it| &it.container_id),
        call::Type::RemoveNestedContainer => call.remove_nested_container.as_ref().map(|it| &it.container_id),
        call::Type::LaunchContainer => call.launch_container.as_ref().map(|it| &it.container_id),
        call::Type::WaitContainer => call.wait_container.as_ref().map(|it| &it.container_id),
        call::Type::KillContainer => call.kill_container.as_ref().map(|it| &it.container_id),
        call::Type::RemoveContainer => call.remove_container.as_ref().map(|it| &it.container_id),
        call::Type::AttachContainerOutput => call.attach_container_output.as_ref().map(|it| &it.container_id),
        _ => None,
    }
}

/// Executors may do what is about their own container and those in it, and nothing else.
///
/// # Errors
/// The refusal.
pub(super) fn permit(asker: &Asker, container: Option<&ContainerId>) -> Result<(), Answer> {
    let Asker::Executor(claims) = asker else { return Ok(()) };
    let own = container.and_then(ContainerKey::from_message).is_some_and(|it| it.outermost().to_string() == claims.cid);
    if own { Ok(()) } else { Err(plain(StatusCode::FORBIDDEN, None)) }
}

/// Calls that are answered with a message.
async fn ask(server: &Server, call: Call, accepted: Encoding) -> Result<Answer, Answer> {
    let answer = |r#type: response::Type| Response { r#type: Some(r#type as i32), ..Response::default() };
    let gone = |_| stopping();
    let response = match call.r#type() {
        call::Type::GetHealth => Response { get_health: Some(response::GetHealth { healthy: true }), ..answer(response::Type::GetHealth) },
        call::Type::GetFlags => {
            let flags = server.config.flags().into_iter().map(|(name, value)| Flag { name, value: Some(value) }).collect();
            Response { get_flags: Some(response::GetFlags { flags }), ..answer(response::Type::GetFlags) }
        }
        call::Type::GetVersion => {
            let version_info = VersionInfo { version: VERSION.to_owned(), ..VersionInfo::default() };
            Response { get_version: Some(response::GetVersion { version_info }), ..answer(response::Type::GetVersion) }
        }
        call::Type::GetMetrics => {
            let all = metrics::snapshot(server).await.map_err(gone)?;
            let metrics = all.into_iter().map(|(name, value)| Metric { name, value: Some(value) }).collect();
            Response { get_metrics: Some(response::GetMetrics { metrics }), ..answer(response::Type::GetMetrics) }
        }
        call::Type::GetLoggingLevel => {
            let level = server.config.verbosity.level();
            Response { get_logging_level: Some(response::GetLoggingLevel { level }), ..answer(response::Type::GetLoggingLevel) }
        }
        call::Type::ListFiles => {
            let path = call.list_files.ok_or_else(|| missing("list_files"))?.path;
            let file_infos = files::list(server, &path).await.map_err(|error| error.answer())?;
            Response { list_files: Some(response::ListFiles { file_infos }), ..answer(response::Type::ListFiles) }
        }
        call::Type::ReadFile => {
            let it = call.read_file.ok_or_else(|| missing("read_file"))?;
            let piece = files::piece(server, &it.path, it.offset, it.length.unwrap_or(u64::MAX)).await;
            let (data, size) = piece.map_err(|error| error.answer())?;
            Response { read_file: Some(response::ReadFile { size, data }), ..answer(response::Type::ReadFile) }
        }
        call::Type::GetContainers => {
            let nested = call.get_containers.is_some_and(|it| it.show_nested());
            let standalone = call.get_containers.is_some_and(|it| it.show_standalone());
            let get_containers = Some(containers(server, nested, standalone).await?);
            Response { get_containers, ..answer(response::Type::GetContainers) }
        }
        call::Type::WaitNestedContainer => {
            let it = call.wait_nested_container.ok_or_else(|| missing("wait_nested_container"))?;
            let end = sessions::wait(server, &it.container_id).await?;
            let response::WaitContainer { exit_status, state, reason, limitation, message } = end;
            let end = response::WaitNestedContainer { exit_status, state, reason, limitation, message };
            Response { wait_nested_container: Some(end), ..answer(response::Type::WaitNestedContainer) }
        }
        call::Type::WaitContainer => {
            let it = call.wait_container.ok_or_else(|| missing("wait_container"))?;
            let end = sessions::wait(server, &it.container_id).await?;
            Response { wait_container: Some(end), ..answer(response::Type::WaitContainer) }
        }
        other => {
            let viewer = server.viewer.clone();
            server.driver.look(move |view| of_view(other, view, &viewer)).await.map_err(gone)?
        }
    };
    Ok(accepted.answer(&response))
}

/// Calls that are answered from the table alone.
fn of_view(kind: call::Type, view: &View<'_>, viewer: &Viewer) -> Response {
    let answer = |r#type: response::Type| Response { r#type: Some(r#type as i32), ..Response::default() };
    match kind {
        call::Type::GetFrameworks => Response { get_frameworks: Some(frameworks(view, viewer)), ..answer(response::Type::GetFrameworks) },
        call::Type::GetExecutors => Response { get_executors: Some(executors(view, viewer)), ..answer(response::Type::GetExecutors) },
        call::Type::GetTasks => Response { get_tasks: Some(tasks(view, viewer)), ..answer(response::Type::GetTasks) },
        call::Type::GetState => {
            let get_state = response::GetState {
                get_tasks: Some(tasks(view, viewer)),
                get_executors: Some(executors(view, viewer)),
                get_frameworks: Some(frameworks(view, viewer)),
            };
            Response { get_state: Some(get_state), ..answer(response::Type::GetState) }
        }
        call::Type::GetOperations => {
            let operations = view.ledger.operations().filter(|it| viewer.operation(it)).cloned().collect();
            Response { get_operations: Some(response::GetOperations { operations }), ..answer(response::Type::GetOperations) }
        }
        call::Type::GetResourceProviders => Response {
            get_resource_providers: Some(response::GetResourceProviders::default()),
            ..answer(response::Type::GetResourceProviders)
        },
        _ => {
            let get_agent = response::GetAgent {
                agent_info: Some(view.agent.clone()),
                drain_config: view.table.drain().map(state::drain_config),
                estimated_drain_start_time: view.table.drain_began().map(time_info),
            };
            Response { get_agent: Some(get_agent), ..answer(response::Type::GetAgent) }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "nanoseconds of this century fit")]
fn time_info(seconds: f64) -> TimeInfo {
    TimeInfo { nanoseconds: (seconds * 1e9) as i64 }
}

fn frameworks(view: &View<'_>, viewer: &Viewer) -> response::GetFrameworks {
    let of = |it: &Framework| viewer.framework(&it.info).then(|| response::get_frameworks::Framework { framework_info: it.info.clone() });
    response::GetFrameworks {
        frameworks: view.table.frameworks().values().filter_map(of).collect(),
        completed_frameworks: view.table.completed_frameworks().iter().filter_map(of).collect(),
    }
}

fn executors(view: &View<'_>, viewer: &Viewer) -> response::GetExecutors {
    let of = |(framework, it): (&Framework, &Executor)| {
        let is_seen = viewer.framework(&framework.info) && viewer.executor(&framework.info, &it.info);
        is_seen.then(|| response::get_executors::Executor { executor_info: it.info.clone() })
    };
    let frameworks = || view.table.frameworks().values();
    let completed = frameworks().chain(view.table.completed_frameworks());
    response::GetExecutors {
        executors: frameworks().flat_map(|it| it.executors.values().map(move |one| (it, one))).filter_map(of).collect(),
        completed_executors: completed.flat_map(|it| it.completed.iter().map(move |one| (it, one))).filter_map(of).collect(),
    }
}

fn tasks(view: &View<'_>, viewer: &Viewer) -> response::GetTasks {
    let mut all = response::GetTasks::default();
    let agent = view.table.agent_id();
    let sees = |framework: &Framework, executor: &Executor, it: &Task| {
        viewer.framework(&framework.info)
            && viewer.executor(&framework.info, &executor.info)
            && viewer.task(&framework.info, &executor.info, &it.info)
    };
    for (id, framework) in view.table.frameworks() {
        for (executor_id, executor) in &framework.executors {
            let message = |it: &Task| task_message(id, executor_id, executor.kind == Kind::Command, agent, &framework.info.user, it);
            for task in executor.tasks.values().filter(|it| sees(framework, executor, it)) {
                match (is_terminal(task.state), task.delivered) {
                    (true, _) => all.terminated_tasks.push(message(task)),
                    (false, true) => all.launched_tasks.push(message(task)),
                    (false, false) => all.queued_tasks.push(message(task)),
                }
            }
            all.completed_tasks.extend(executor.completed.iter().filter(|it| sees(framework, executor, it)).map(message));
        }
    }
    for framework in view.table.frameworks().values().chain(view.table.completed_frameworks()) {
        let id = framework.info.id.clone().unwrap_or_default().value;
        for executor in &framework.completed {
            let executor_id = &executor.info.executor_id.value;
            let message = |it: &Task| task_message(&id, executor_id, executor.kind == Kind::Command, agent, &framework.info.user, it);
            all.completed_tasks.extend(executor.completed.iter().filter(|it| sees(framework, executor, it)).map(message));
        }
    }
    all
}

async fn containers(server: &Server, nested: bool, standalone: bool) -> Result<response::GetContainers, Answer> {
    use mesos_proto::v1::{ContainerStatus, ExecutorId, FrameworkId};

    let executors = state::running(server).await.map_err(|_| stopping())?;
    let mut entries: Vec<response::get_containers::Container> = Vec::new();
    let measured = state::measured(&server.containers, executors.iter().map(|it| it.container.clone()).collect()).await;
    for it in executors.iter().filter(|it| server.viewer.may("view_containers", Some(&it.user))) {
        entries.push(response::get_containers::Container {
            framework_id: Some(FrameworkId { value: it.framework.clone() }),
            executor_id: Some(ExecutorId { value: it.executor.clone() }),
            executor_name: Some(it.name.clone()),
            container_id: it.container.to_message(),
            container_status: Some(it.status.clone()),
            resource_statistics: measured.get(&it.container).cloned(),
        });
    }
    for (key, handle) in server.containers.running() {
        let owner = executors.iter().find(|it| it.container == key.outermost());
        let shown = match owner {
            Some(owner) => nested && key != owner.container && server.viewer.may("view_containers", Some(&owner.user)),
            None => {
                let user = &handle.launch().framework.user;
                standalone && handle.state().ended.is_none() && server.viewer.may("view_standalone_containers", Some(user))
            }
        };
        if shown {
            entries.push(response::get_containers::Container {
                framework_id: owner.map(|it| FrameworkId { value: it.framework.clone() }),
                executor_id: owner.map(|it| ExecutorId { value: it.executor.clone() }),
                executor_name: owner.map(|it| it.name.clone()),
                container_id: key.to_message(),
                container_status: Some(ContainerStatus {
                    container_id: Some(key.to_message()),
                    executor_pid: handle.state().started.and_then(|it| it.pid),
                    ..ContainerStatus::default()
                }),
                resource_statistics: None,
            });
        }
    }
    Ok(response::GetContainers { containers: entries })
}
