//! The one word for the state of a pod, as `kubectl get pods` says it: a pod that pulls an image that is not there is "Pending" by its phase and
//! "ImagePullBackOff" to people.

use super::pod::{ContainerState, ContainerStatus, InitContainer, Status};

/// What is shown of the state of a pod.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) state: String,
    pub(super) restarts: u32,
}

/// From the status of a pod. A failed pod stays "Failed": that is how the map knows that it is over.
pub(super) fn of(status: &Status, init_containers: &[InitContainer], terminating: bool) -> Seen {
    let phase = status.phase.as_deref().unwrap_or_default();
    let mut seen = Seen { state: before_containers(status, phase), restarts: 0 };
    let initializing = during_initialization(status, init_containers, &mut seen);
    if !initializing || condition(status, "Initialized") {
        during_run(status, init_containers, &mut seen);
    }
    let over = matches!(phase, "Failed" | "Succeeded");
    if phase == "Failed" {
        seen.state = phase.to_owned();
    } else if terminating && status.reason.as_deref() == Some("NodeLost") {
        seen.state = "Unknown".to_owned();
    } else if terminating && !over {
        seen.state = "Terminating".to_owned();
    }
    seen
}

fn before_containers(status: &Status, phase: &str) -> String {
    let gated =
        status.conditions.iter().flatten().any(|one| one.r#type == "PodScheduled" && one.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        return "SchedulingGated".to_owned();
    }
    status.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or(phase).to_owned()
}

/// The first init container that is neither done nor a running sidecar speaks for the pod.
fn during_initialization(status: &Status, init_containers: &[InitContainer], seen: &mut Seen) -> bool {
    for (at, container) in status.init_container_statuses.iter().flatten().enumerate() {
        seen.restarts = seen.restarts.saturating_add(restarts(container));
        let state = container.state.as_ref();
        let terminated = state.and_then(|state| state.terminated.as_ref());
        let sidecar_runs = is_sidecar(container, init_containers) && container.started == Some(true);
        if terminated.is_some_and(|end| end.exit_code == 0) || sidecar_runs {
            continue;
        }
        let waiting = state.and_then(waiting_reason).filter(|&reason| reason != "PodInitializing");
        seen.state = match (state.and_then(end_reason), waiting) {
            (Some(end), _) => format!("Init:{end}"),
            (None, Some(waiting)) => format!("Init:{waiting}"),
            (None, None) => format!("Init:{at}/{}", init_containers.len()),
        };
        return true;
    }
    false
}

/// The first container that waits or has ended speaks for the pod, unless another one still runs.
fn during_run(status: &Status, init_containers: &[InitContainer], seen: &mut Seen) {
    let sidecars = status.init_container_statuses.iter().flatten().filter(|one| is_sidecar(one, init_containers));
    let containers = || status.container_statuses.iter().flatten();
    seen.restarts = sidecars.chain(containers()).fold(0, |sum, one| sum.saturating_add(restarts(one)));
    let spoken = containers().filter_map(|one| one.state.as_ref()).find_map(|state| match waiting_reason(state) {
        Some(reason) => Some(reason.to_owned()),
        None => end_reason(state),
    });
    if let Some(spoken) = spoken {
        seen.state = spoken;
    }
    let one_runs = containers().any(|one| one.ready && one.state.as_ref().is_some_and(|state| state.running.is_some()));
    if seen.state == "Completed" && one_runs {
        seen.state = if condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn waiting_reason(state: &ContainerState) -> Option<&str> {
    state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()).filter(|reason| !reason.is_empty())
}

fn end_reason(state: &ContainerState) -> Option<String> {
    let end = state.terminated.as_ref()?;
    Some(match (end.reason.as_deref(), end.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", end.exit_code),
    })
}

fn is_sidecar(container: &ContainerStatus, init_containers: &[InitContainer]) -> bool {
    init_containers.iter().any(|one| one.name == container.name && one.restart_policy.as_deref() == Some("Always"))
}

fn condition(status: &Status, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|one| one.r#type == kind && one.status == "True")
}

fn restarts(container: &ContainerStatus) -> u32 {
    u32::try_from(container.restart_count.max(0)).unwrap_or(u32::MAX)
}
