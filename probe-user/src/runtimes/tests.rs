use clap::Parser as _;
use tokio::sync::watch;

use super::*;
use crate::config::Flags;

fn config(arguments: &[&str]) -> Arc<Config> {
    let flags = Flags::try_parse_from(std::iter::once(&"probe").chain(arguments)).expect("the flags are right");
    Arc::new(Config::resolve(&flags, []).expect("the configuration is right"))
}

/// What a loop says when the configuration changes from one to the other, and then when the probe stops.
async fn said_after_a_change<F: Future<Output = ()>>(from: &[&str], to: &[&str], run: impl FnOnce(Runtimes) -> F) -> Vec<Source> {
    let current = watch::Sender::new(config(from));
    let (inputs, mut said) = mpsc::channel(100);
    let stopping = CancellationToken::new();
    let runtimes = Runtimes { current: current.subscribe(), telemetry: Telemetry::new(), inputs, stopping: stopping.clone() };
    let steps = async {
        tokio::task::yield_now().await;
        current.send_replace(config(to));
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        stopping.cancel();
    };
    futures::future::join(run(runtimes), steps).await;
    let mut left = Vec::new();
    while let Ok(input) = said.try_recv() {
        if let Input::RuntimeUnfollowed(source) = input {
            left.push(source);
        }
    }
    left
}

#[tokio::test]
async fn a_socket_that_is_not_followed_any_more_is_said_so() {
    let cri = |runtimes: Runtimes| runtimes.cri(broadcast::Sender::new(1));
    let gone = Source::of_cri_socket(&PathBuf::from("/none/a"));
    assert_eq!(said_after_a_change(&["--cri-socket", "/none/a,/none/b"], &["--cri-socket", "/none/b,/none/c"], cri).await, [gone]);
    assert_eq!(said_after_a_change(&["--cri-socket", "/none/a"], &["--cri-socket", "off"], cri).await, [gone]);
    assert_eq!(
        said_after_a_change(&["--docker-socket", "/none/a"], &["--docker-socket", "/none/b"], Runtimes::docker).await,
        [Source::Docker]
    );
    assert_eq!(said_after_a_change(&["--docker-socket", "/none/a"], &["--no-docker"], Runtimes::docker).await, [Source::Docker]);
}

#[tokio::test]
async fn other_masks_and_a_stop_forget_nothing() {
    let cri = |runtimes: Runtimes| runtimes.cri(broadcast::Sender::new(1));
    assert_eq!(said_after_a_change(&["--cri-socket", "/none/a"], &["--cri-socket", "/none/a", "--container-env"], cri).await, []);
    assert_eq!(
        said_after_a_change(&["--docker-socket", "/none/a"], &["--docker-socket", "/none/a", "--mask", "x"], Runtimes::docker).await,
        []
    );
}

#[tokio::test]
async fn a_runtime_that_is_here_and_is_not_asked_is_a_blind_spot_until_it_is() {
    for is_there in [true, false] {
        let (inputs, mut said) = mpsc::channel(10);
        let current = watch::Sender::new(config(&[]));
        let runtimes = Runtimes { current: current.subscribe(), telemetry: Telemetry::new(), inputs, stopping: CancellationToken::new() };
        let stop = CancellationToken::new();
        let ended = async {
            tokio::task::yield_now().await;
            stop.cancel();
        };
        futures::future::join(runtimes.unasked("docker", is_there, "Docker is here.", stop.clone()), ended).await;
        let mut told = Vec::new();
        while let Ok(input) = said.try_recv() {
            let Input::BlindSpot { cause: "docker", sentence } = input else { panic!("{input:?}") };
            told.push(sentence);
        }
        assert_eq!(told, if is_there { vec![Some("Docker is here.".to_owned()), None] } else { Vec::new() });
    }
}
