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
    let before = config(&[]);
    let same = config(&["--metrics-interval", "3s", "--container-env", "--no-docker", "--no-conntrack", "--log-filter", "debug"]);
    assert_eq!(fixed(&before, &same), [""; 0]);
    assert_eq!(fixed(&before, &config(&["--pin-dir", "on", "--host-name", "other"])), ["host-name", "pin-dir"]);
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
