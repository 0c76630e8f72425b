//! States of containers for people, in Docker's words.

use proto::probe::v1::ContainerState;

use crate::containers::ContainerFacts;

/// The state as `docker ps` words it.
pub(super) fn state_for_people(facts: &ContainerFacts, now_unix_nanos: u64) -> String {
    let since = |at: u64| duration_for_people(now_unix_nanos.saturating_sub(at) / 1_000_000_000);
    match facts.record.state() {
        // The list alone does not say since when.
        ContainerState::Running if facts.record.started_at_unix_nanos == 0 => "Up".to_owned(),
        ContainerState::Paused if facts.record.started_at_unix_nanos == 0 => "Up (Paused)".to_owned(),
        ContainerState::Running => format!("Up {}", since(facts.record.started_at_unix_nanos)),
        ContainerState::Paused => format!("Up {} (Paused)", since(facts.record.started_at_unix_nanos)),
        ContainerState::Restarting => format!("Restarting ({}) {} ago", facts.record.exit_code, since(facts.finished_at_unix_nanos)),
        ContainerState::Exited if facts.finished_at_unix_nanos == 0 => format!("Exited ({})", facts.record.exit_code),
        ContainerState::Exited => format!("Exited ({}) {} ago", facts.record.exit_code, since(facts.finished_at_unix_nanos)),
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Dead => "Dead".to_owned(),
        ContainerState::Unspecified => String::new(),
    }
}

/// Docker's coarse wording of a duration.
fn duration_for_people(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds / MINUTE == 1 => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        // Docker rounds hours to the nearest one.
        _ if (seconds + HOUR / 2) / HOUR == 1 => "About an hour".to_owned(),
        _ if seconds < 48 * HOUR => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        _ if seconds < 14 * DAY => format!("{} days", seconds / DAY),
        _ if seconds < 60 * DAY => format!("{} weeks", seconds / (7 * DAY)),
        _ if seconds < 730 * DAY => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}
