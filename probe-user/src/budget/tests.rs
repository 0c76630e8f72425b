use std::sync::Arc;

use clap::Parser as _;

use super::*;
use crate::config::Flags;

fn config(arguments: &[&str]) -> Config {
    let flags = Flags::try_parse_from([&["orchestrator-probe"], arguments].concat()).unwrap();
    Config::resolve(&flags, []).unwrap()
}

fn step(number: u8) -> Step {
    Step::of_number(number).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_stretched_by_the_step_and_shortened_when_it_goes_down() {
    let pace = Pace::default();
    let pause = Duration::from_secs(10);
    let begun = tokio::time::Instant::now();
    pace.sleep(pause).await;
    assert_eq!((begun.elapsed(), pace.left_out()), (pause, 0));
    pace.set(step(2));
    let begun = tokio::time::Instant::now();
    pace.sleep(pause).await;
    assert_eq!((begun.elapsed(), pace.left_out()), (pause * 4, 3));
    let begun = tokio::time::Instant::now();
    let (sleeper, setter) = (pace.clone(), pace.clone());
    let set = async {
        tokio::time::sleep(Duration::from_secs(15)).await;
        setter.set(Step::FIRST);
    };
    tokio::join!(sleeper.sleep(pause), set);
    assert_eq!(begun.elapsed(), Duration::from_secs(15), "it was over long ago by the shorter pause");
    assert_eq!(pace.stretched(pause), pause);
}

/// A probe that uses 12 MB, by a clock that the test moves.
#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_told_and_taken_back_with_another_budget() {
    let (sender, current) = watch::channel(Arc::new(config(&["--memory-budget", "10MB"])));
    let (inputs, mut told) = mpsc::channel(64);
    let (pace, telemetry) = (Pace::default(), Telemetry::new());
    let begun = tokio::time::Instant::now();
    let read = || Reading { awake: begun.elapsed(), cpu: Duration::ZERO, resident_bytes: 12_000_000 };
    let watched = async {
        assert!(matches!(told.recv().await.unwrap(), Input::BlindSpot { cause: CAUSE, sentence: None }));
        let Some(Input::BlindSpot { sentence: Some(sentence), .. }) = told.recv().await else { panic!("nothing was said") };
        assert_eq!(begun.elapsed(), SETTLED_AFTER + probe_budget::WINDOW);
        assert!(sentence.contains("(5 % of a CPU and 10 MB)") && sentence.contains("2 times as rarely"), "{sentence}");
        assert_eq!((pace.factor(), telemetry.metrics().budget_step.get()), (2, 1));
        pace.sleep(Duration::from_secs(1)).await;
        let lost = told.recv().await.unwrap();
        assert!(
            matches!(&lost, Input::Observed(batch) if matches!(batch[..], [Observation::LostOther { cause: LEFT_OUT, total: 1 }])),
            "{lost:?}"
        );
        sender.send_replace(Arc::new(config(&["--memory-budget", "off"])));
        while !matches!(told.recv().await.unwrap(), Input::BlindSpot { cause: CAUSE, sentence: None }) {}
        assert_eq!((pace.factor(), telemetry.metrics().budget_step.get()), (1, 0));
    };
    tokio::select! {
        _ = keep(&pace, &current, &inputs, &telemetry, read) => panic!("it ended"),
        () = watched => {}
    }
}

#[test]
fn what_was_used_is_read_from_this_process() {
    let first = read();
    let second = read();
    assert!(first.resident_bytes > 1_000_000 && first.awake <= second.awake && first.cpu <= second.cpu, "{first:?} {second:?}");
}
