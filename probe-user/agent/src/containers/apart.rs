//! Containers that the task table does not know: what runs inside another one, and what clients make.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Containers, Handle};
use crate::sandbox::Sandbox;
use crate::table::{Exit, Launch};
use crate::words::ContainerKey;

/// How long a command that is run inside a container may take to be ended.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

impl Containers {
    /// Makes a container that the task table does not know: a client or a check wants it.
    pub fn launch_apart(&self, agent_id: &str, launch: Launch) -> Handle {
        let (answers, mut nobody) = mpsc::channel(8);
        let shared = self.shared.answering(answers);
        (self.shared.spawn)("container-apart", Box::pin(async move { while nobody.recv().await.is_some() {} }));
        let container = launch.container.clone();
        let apart = Containers { shared: Arc::new(shared) };
        apart.begin(agent_id, launch, false, true);
        let handle = apart.get(&container);
        handle.expect("begin has just put it there")
    }

    /// Ends a container that the task table does not know. It can be asked how it ended for as long as it is `remembered`; then nothing of it stays,
    /// but what is in the sandbox of another.
    pub fn end_apart(&self, container: &ContainerKey, remembered: Duration) {
        let Some(handle) = self.get(container) else { return };
        self.destroy(container);
        let (containers, container) = (self.clone(), container.clone());
        (self.shared.spawn)(
            "container-apart-end",
            Box::pin(async move {
                drop(handle.ended().await);
                tokio::time::sleep(remembered).await;
                // Somebody may have removed it and made another of the same name.
                if containers.get(&container).is_some_and(|it| std::sync::Arc::ptr_eq(&it.launch, &handle.launch)) {
                    containers.remove_apart(&container, &handle).await;
                }
            }),
        );
    }

    /// Forgets a container that is over, and removes its sandbox.
    pub async fn remove_apart(&self, container: &ContainerKey, handle: &Handle) {
        self.forget(container);
        let (trusted, sandbox) = (self.shared.layout.slaves(), handle.sandbox.clone());
        drop(tokio::task::spawn_blocking(move || Sandbox::remove(&trusted, &sandbox)).await);
    }

    /// Runs a command in a container, beside what runs there. Its exit status.
    ///
    /// # Errors
    /// When it could not be run, or took too long.
    pub async fn run_inside(
        &self,
        container: &ContainerKey,
        command: &mesos_proto::v1::CommandInfo,
        task: &mesos_proto::v1::TaskInfo,
        patience: Duration,
    ) -> Result<i32, String> {
        let late = || format!("Command timed out after {}", crate::words::render_duration(patience));
        let handle = self.get(container).ok_or_else(|| "the container is no more".to_owned())?;
        if handle.launch.is_docker() {
            let docker = self.docker().ok_or_else(|| "there is no Docker daemon".to_owned())?;
            let words = crate::environment::arguments(command)?.0;
            let env = crate::environment::given(command).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            let name = crate::environment::docker_name(&handle.launch);
            let ran = tokio::time::timeout(patience, docker.exec(&name, words, env)).await;
            return ran.map_err(|_| late())?.map(|it| i32::try_from(it).unwrap_or(-1));
        }
        let mut ids = crate::words::SystemIds;
        let key = container.nested(&format!("check-{}", crate::words::render_uuid(&crate::words::Ids::uuid(&mut ids))));
        let launch = Launch {
            container: key.clone(),
            task: None,
            command: Some(mesos_proto::v1::CommandInfo {
                user: command.user.clone().or_else(|| task.command.as_ref()?.user.clone()),
                ..command.clone()
            }),
            container_info: None,
            session: true,
            ..(*handle.launch).clone()
        };
        let nested = self.launch_apart(&self.agent_of(&handle), launch);
        let ended = tokio::time::timeout(patience, nested.ended()).await;
        let result = match ended {
            Ok(Ok(Exit { status: Some(status), .. })) if libc::WIFEXITED(status) => Ok(libc::WEXITSTATUS(status)),
            Ok(Ok(_)) => Err("Command was terminated".to_owned()),
            Ok(Err(problem)) => Err(problem),
            Err(_) => {
                self.destroy(&key);
                drop(tokio::time::timeout(ENDED_WITHIN, nested.ended()).await);
                Err(late())
            }
        };
        self.remove_apart(&key, &nested).await;
        result
    }

    /// The agent id that a sandbox is under.
    fn agent_of(&self, handle: &Handle) -> String {
        let below = handle.sandbox.strip_prefix(self.shared.layout.slaves()).ok();
        below.and_then(|it| it.components().next()).map(|it| it.as_os_str().to_string_lossy().into_owned()).unwrap_or_default()
    }
}
