use std::sync::Mutex;

use clap::Parser as _;

use super::*;
use crate::config::Flags;

fn config(arguments: &[&str]) -> Config {
    let flags = Flags::try_parse_from(std::iter::once("orchestrator-probe").chain(arguments.iter().copied())).unwrap();
    Config::resolve(&flags, []).unwrap()
}

#[test]
fn what_needs_a_restart_is_named_and_what_does_not_is_not() {
    let fixed = |roles: &str, more: &[&str]| {
        let before = config(&["--roles", roles]);
        let after = config(&[&["--roles", roles], more].concat());
        let changed = after.settings.changed(&before.settings);
        assert!(!changed.is_empty());
        config::fixed(&changed, before.roles)
    };
    let followed = ["--metrics-interval", "3s", "--container-env", "--no-docker", "--no-conntrack", "--log-filter", "debug"];
    assert_eq!(fixed("observe", &followed), [""; 0]);
    assert_eq!(fixed("observe", &["--pin-dir", "on", "--host-name", "other"]), ["host-name", "pin-dir"]);
    assert_eq!(fixed("observe,kubernetes", &["--kubernetes", "other", "--no-controls", "--no-cloud-metadata"]), ["cloud-metadata"]);
    // The agent's keys are nobody else's, and it follows none.
    assert_eq!(fixed("observe", &["--resources", "cpus:4"]), [""; 0]);
    assert_eq!(fixed("observe,run", &["--resources", "cpus:4", "--no-docker"]), ["docker-socket", "resources"]);
}

#[test]
fn a_restart_is_pending_until_the_configuration_is_that_of_the_start_again() {
    let (started, other) = (config(&["--host-name", "a"]), config(&["--host-name", "b", "--mask", "x"]));
    assert_eq!(pending(&other, &started), ["host-name"]);
    // Read again without a change it still is, and it is no more when the change is taken back.
    assert_eq!(pending(&other, &started), ["host-name"]);
    assert_eq!(pending(&started, &started), [""; 0]);
}

#[test]
fn a_configuration_that_is_as_it_was_has_no_changed_key() {
    assert_eq!(config(&["--mask", "a"]).settings.changed(&config(&["--mask", "a"]).settings), [""; 0]);
    assert_eq!(config(&["--mask", "a"]).settings.changed(&config(&["--mask", "b"]).settings), ["mask"]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_is_made_anew_when_its_part_changes_and_only_then() {
    let current = watch::Sender::new(Arc::new(config(&[])));
    let runs = Mutex::new(Vec::new());
    let stopping = CancellationToken::new();
    let run = |part: bool, stop: CancellationToken| {
        runs.lock().unwrap().push(part);
        async move { stop.cancelled().await }
    };
    let following = following(current.subscribe(), |config| config.container_env, stopping.clone(), Duration::from_secs(1), run);
    let change = async {
        for arguments in [&["--metrics-interval", "9s"][..], &["--container-env"], &["--container-env", "--no-docker"], &[]] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            current.send_replace(Arc::new(config(arguments)));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        stopping.cancel();
    };
    tokio::join!(following, change);
    assert_eq!(*runs.lock().unwrap(), [false, true, false]);
}
