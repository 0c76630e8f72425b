//! What earlier agents have left with Docker: containers that nobody claims, and those that are over and wait for their removal.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use tokio::time::{Instant, sleep, sleep_until};

use super::logs::seconds;
use super::{AWAY, Docker, LABEL, OWNER_LABEL};
use crate::words::ContainerKey;

/// How often it is tried to remove a container while the daemon is away.
const ATTEMPTS: usize = 60;

/// A container that is over: its name or id, and how long it stays yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::containers) struct Over {
    name: String,
    stays: Duration,
}

impl Docker {
    /// Removes a container that is over.
    pub(in crate::containers) async fn remove_later(&self, name: String, delay: Duration) {
        sleep(delay).await;
        self.remove(&name).await;
    }

    /// Removes containers that are over, each in its time.
    pub(in crate::containers) async fn remove_each(&self, mut over: Vec<Over>) {
        let begun = Instant::now();
        over.sort_by_key(|it| it.stays);
        for it in over {
            // A time that is too far away for the clock does not come.
            let Some(at) = begun.checked_add(it.stays) else { return };
            sleep_until(at).await;
            self.remove(&it.name).await;
        }
    }

    async fn remove(&self, name: &str) {
        for _ in 0..ATTEMPTS {
            let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
            let removed = match self.connect().await {
                Ok(docker) => docker.remove_container(name, Some(options)).await,
                Err(error) => Err(error),
            };
            // Whatever it answers, it has heard.
            if matches!(removed, Ok(()) | Err(bollard::errors::Error::DockerResponseServerError { .. })) {
                return;
            }
            sleep(AWAY).await;
        }
        tracing::warn!(name, "Docker is away: a container that is over stays until the agent's next start");
    }

    /// Ends containers of this agent that nobody claims, where that is wanted (`kill`). Those that are over stay for `delay` after their end: what is
    /// left of that.
    pub(in crate::containers) async fn end_orphans(&self, owner: &str, claimed: &[ContainerKey], kill: bool, delay: Duration) -> Vec<Over> {
        let Ok(docker) = self.connect().await else { return Vec::new() };
        // Other agents on this host, and other programs, may use the same names: ours are labelled.
        let filters = HashMap::from([("label", vec![format!("{OWNER_LABEL}={owner}")])]);
        let filters: HashMap<String, Vec<String>> = filters.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let Ok(containers) = docker.list_containers(Some(options)).await else { return Vec::new() };
        let mut over = Vec::new();
        for container in containers {
            let Some(name) = container.id else { continue };
            let id = container.labels.and_then(|it| it.get(LABEL).cloned());
            if id.as_ref().is_some_and(|id| claimed.iter().any(|it| it.as_str() == id)) {
                continue;
            }
            match container.state {
                Some(State::EXITED | State::DEAD) => {
                    let found = docker.inspect_container(&name, None).await.ok();
                    let finished = found.and_then(|it| it.state?.finished_at);
                    over.push(Over { name, stays: stays(finished.as_deref(), SystemTime::now(), delay) });
                }
                // It was made by an agent that was killed before it could start it.
                Some(State::CREATED) => over.push(Over { name, stays: Duration::ZERO }),
                Some(State::REMOVING) => {}
                _ if kill => {
                    tracing::info!(container = id.as_deref().unwrap_or(&name), "ending a Docker container that nobody claims");
                    let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
                    drop(docker.remove_container(&name, Some(options)).await);
                }
                _ => {}
            }
        }
        over
    }
}

/// How long a container stays that ended at this time, such as `2024-05-01T10:00:00.1Z`.
fn stays(finished: Option<&str>, now: SystemTime, delay: Duration) -> Duration {
    let finished = finished.map(seconds).and_then(|it| u64::try_from(it).ok()).filter(|it| *it > 0);
    let Some(finished) = finished else { return delay };
    let ago = now.duration_since(UNIX_EPOCH + Duration::from_secs(finished)).unwrap_or_default();
    delay.saturating_sub(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_stays_for_what_is_left_of_its_time() {
        let now = UNIX_EPOCH + Duration::from_secs(1_714_557_600 + 100);
        let hour = Duration::from_secs(3600);
        let of = |finished: &str| stays(Some(finished), now, hour);
        assert_eq!(of("2024-05-01T10:00:00.123456789Z"), Duration::from_secs(3500));
        assert_eq!(of("2024-04-30T10:00:00Z"), Duration::ZERO);
        assert_eq!(of("2024-05-01T11:00:00Z"), hour, "a clock that was set back");
        assert_eq!((of("0001-01-01T00:00:00Z"), stays(None, now, hour)), (hour, hour));
    }
}
