//! What a container is told while it runs, however long the daemon is away.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{KillContainerOptionsBuilder, StopContainerOptionsBuilder};
use tokio::time::sleep;

use super::super::{Command, Run, limits};
use super::request::allowance;
use super::{AWAY, Docker, words};
use crate::cgroups::Limits;

/// Stopping takes its time: the loop does not wait for it. A daemon that is away is told when it is back: nobody tells the agent twice.
pub(super) fn obey(run: &Run, docker: &Docker, name: &str, command: Command, over: &tokio_util::sync::CancellationToken) {
    let (docker, name, over) = (docker.clone(), name.to_owned(), over.clone());
    let limits = match &command {
        Command::Resize(it) => limits(&it.resources, &it.limits),
        _ => limits(&run.launch.resources, &run.launch.limits),
    };
    let enable_cfs = run.shared.config.cgroups_enable_cfs;
    (run.shared.spawn)(
        "docker-command",
        Box::pin(async move {
            let telling = async {
                while let Err(error) = tell(&docker, &name, &command, &limits, enable_cfs).await {
                    if !is_told_again(&command, &error) {
                        tracing::warn!(name, error = words(&error), "Docker refuses to end or change a container");
                        return;
                    }
                    sleep(AWAY).await;
                }
            };
            tokio::select! { () = telling => {}, () = over.cancelled() => {} }
        }),
    );
}

/// Whether a daemon that answered so is told again. One that has only not answered in time may have heard: a program takes its second SIGTERM for
/// impatience, and SIGKILL as often as it comes.
fn is_told_again(command: &Command, error: &Error) -> bool {
    match error {
        Error::DockerResponseServerError { .. } => false,
        Error::RequestTimeoutError => matches!(command, Command::Destroy),
        _ => true,
    }
}

async fn tell(docker: &Docker, name: &str, command: &Command, limits: &Limits, enable_cfs: bool) -> Result<(), Error> {
    let connection = docker.connect().await?;
    match command {
        Command::Terminate(grace) => {
            let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            // The answer comes when the container has ended: it may take longer than any other.
            let patient = connection.clone().with_timeout(*grace + Duration::from_secs(60));
            patient.stop_container(name, Some(options)).await
        }
        Command::Signal(signal) => {
            let options = KillContainerOptionsBuilder::new().signal(signal.as_str()).build();
            connection.kill_container(name, Some(options)).await
        }
        Command::Destroy => connection.kill_container(name, None).await,
        Command::Resize(_) => {
            let now = connection.inspect_container(name, None).await?.host_config.and_then(|it| it.memory);
            connection.update_container(name, allowance(limits, enable_cfs, now.unwrap_or(0))).await
        }
    }
}
