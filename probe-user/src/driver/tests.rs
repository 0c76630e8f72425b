use super::*;
use crate::procfs::Arguments;
use crate::publisher::Limits;
use crate::report::Builder;

#[tokio::test]
async fn a_runtime_that_does_not_tell_is_a_blind_spot_until_it_does() {
    let procfs = Arc::new(Procfs::new("/nonexistent", Arguments::Hide));
    let driver = Driver::new(Publisher::new(Builder::of_host("probe"), Limits::default()), procfs, Telemetry::new()).looked_at();
    let (_observations, observed) = mpsc::channel(1);
    let (inputs, inbox) = mpsc::channel(8);
    let finish = CancellationToken::new();
    let asked = async {
        let blind_spots = async || {
            let (reply, answer) = oneshot::channel();
            inputs.send(Input::LookWanted(reply)).await.unwrap();
            answer.await.unwrap().report.capture.unwrap_or_default().blind_spots
        };
        let (source, what) = (Source::Docker, "Docker at /d".to_owned());
        inputs.send(Input::RuntimeFound { source, what: what.clone() }).await.unwrap();
        assert_eq!(blind_spots().await, [""; 0]);
        inputs.send(Input::RuntimeSilent { source, what, reason: "it does not answer".to_owned() }).await.unwrap();
        assert_eq!(blind_spots().await, ["Containers of Docker at /d: it does not answer."]);
        inputs.send(Input::RuntimeRead(source)).await.unwrap();
        assert_eq!(blind_spots().await, [""; 0]);
        finish.cancel();
    };
    tokio::join!(driver.run(observed, inbox, finish.clone()), asked);
}
