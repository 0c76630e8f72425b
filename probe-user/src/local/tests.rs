use futures::future;

use super::*;
use crate::containers::Source;

/// Looks while the driver says at each look what `answers` says, and then the last of it again. Returns the blind spots and how often was looked.
async fn looked(answers: impl Fn(usize) -> Look) -> (Vec<String>, usize) {
    let (inputs, mut inbox) = mpsc::channel(1);
    let eyes = Eyes { inputs, started: CancellationToken::new(), refused: watch::channel(None).1 };
    let driver = async {
        let mut looks = 0;
        while let Some(input) = inbox.recv().await {
            if let Input::LookWanted(reply) = input {
                drop(reply.send(answers(looks)));
                looks += 1;
            }
        }
        looks
    };
    let look = async move { eyes.look_at_all().await.expect("the driver lives") };
    let (look, looks) = future::join(look, driver).await;
    (look.report.capture.unwrap_or_default().blind_spots, looks)
}

fn with(change: impl FnOnce(&mut crate::containers::reading::Readings)) -> Look {
    let mut look = Look::default();
    look.readings.begin(Source::Docker, "Docker at /d".to_owned());
    change(&mut look.readings);
    look
}

#[tokio::test(start_paused = true)]
async fn a_runtime_is_waited_for_until_it_has_told_all() {
    let told = looked(|looks| {
        with(|it| {
            if looks == 3 {
                it.done(Source::Docker)
            }
        })
    })
    .await;
    assert_eq!(told, (Vec::new(), 4));
    assert_eq!(looked(|_| Look::default()).await, (Vec::new(), 1), "there is none");
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_too_long_or_does_not_answer_is_said_so() {
    let begun = tokio::time::Instant::now();
    let (told, _) = looked(|_| with(|_| {})).await;
    assert_eq!(told, ["Containers of Docker at /d: it had not told of all of them yet."]);
    assert_eq!(begun.elapsed(), RUNTIMES_READ_WITHIN);
    // What does not answer is not waited for; the driver has said so.
    let silent = |it: &mut crate::containers::reading::Readings| it.failed(Source::Docker, "Docker".to_owned(), "it hangs".to_owned());
    assert_eq!(looked(|_| with(silent)).await, (Vec::new(), 1));
}
