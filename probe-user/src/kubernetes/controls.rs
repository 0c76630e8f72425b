//! Controls of a cluster: what is called on a node of the map, done to the object behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use probe_controls::{Answer, Call, Executor, LogArguments, Opened, PipeEnd, Pipes};
use probe_kubernetes::Kind;
use probe_kubernetes::controls::{Hands, LogRequest, Place};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for the driver at most.
pub(super) const QUESTIONS_MAX: usize = 16;

/// Lines of each container's log that are shown at first.
const LOG_LINES: u32 = 1_000;

/// What a cluster's collector carries out.
const CONTROLS: [&str; 7] = [
    "kubernetes_get_logs",
    "kubernetes_describe",
    "kubernetes_delete_pod",
    "kubernetes_scale_up",
    "kubernetes_scale_down",
    "kubernetes_cordon_node",
    "kubernetes_uncordon_node",
];

/// Which object has this uid, and how is it changed? Only the driver knows what is in the cluster.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) uid: String,
    pub(super) reply: oneshot::Sender<(Hands, Option<Place>)>,
}

/// Carries out the controls of a cluster.
#[derive(Debug)]
pub(super) struct ClusterControls {
    questions: mpsc::Sender<Question>,
}

impl ClusterControls {
    pub(super) fn new(questions: mpsc::Sender<Question>) -> Self {
        ClusterControls { questions }
    }

    async fn ask(&self, uid: &str) -> Result<(Hands, Option<Place>), String> {
        let (reply, answer) = oneshot::channel();
        let gone = |()| "the collector stops".to_owned();
        self.questions.send(Question { uid: uid.to_owned(), reply }).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))
    }

    async fn carry_out(self: Arc<Self>, call: Call, pipes: Pipes) -> Result<Answer, String> {
        let Call { node, control, arguments } = call;
        if !CONTROLS.contains(&control.as_str()) {
            return Err(format!("Control {control:?} not recognised"));
        }
        let invalid = || format!("Invalid ID: {node}");
        let (id, tag) = node.rsplit_once(';').ok_or_else(invalid)?;
        let (hands, place) = self.ask(id).await?;
        let is_cordon = control == "kubernetes_cordon_node";
        if is_cordon || control == "kubernetes_uncordon_node" {
            // Nodes are called as their hosts are.
            let host = Some(id).filter(|_| tag == "<host>").ok_or_else(invalid)?;
            return hands.cordon(host, is_cordon).await.map(|()| Answer::default()).map_err(|error| error.to_string());
        }
        let place = place.ok_or_else(|| format!("Not found: {node}"))?;
        let is_pod = place.kind == Kind::Pod;
        match control.as_str() {
            "kubernetes_get_logs" if is_pod => logs(&hands, &place, &arguments, &pipes).await,
            "kubernetes_delete_pod" if is_pod => {
                hands.delete_pod(&place).await.map_err(|error| error.to_string())?;
                Ok(Answer { removed_node: node, opened: None })
            }
            "kubernetes_scale_up" | "kubernetes_scale_down" if matches!(place.kind, Kind::Deployment | Kind::StatefulSet) => {
                let by = if control == "kubernetes_scale_up" { 1 } else { -1 };
                hands.scale(&place, by).await.map(|()| Answer::default()).map_err(|error| error.to_string())
            }
            "kubernetes_describe" => {
                let text = hands.describe(&place).await.map_err(|error| error.to_string())?;
                let text = futures::stream::once(async move { text.into() }).boxed();
                Ok(opened(pipes.open(), text))
            }
            _ => Err(invalid()),
        }
    }
}

impl Executor for ClusterControls {
    fn controls(&self) -> Vec<String> {
        CONTROLS.map(str::to_owned).into()
    }

    fn call(self: Arc<Self>, call: Call, pipes: Pipes) -> BoxFuture<'static, Result<Answer, String>> {
        self.carry_out(call, pipes).boxed()
    }
}

async fn logs(hands: &Hands, pod: &Place, arguments: &BTreeMap<String, String>, pipes: &Pipes) -> Result<Answer, String> {
    let LogArguments { follow, tail, since, timestamps } = LogArguments::parse(arguments, Some(LOG_LINES), true)?;
    let lines = hands.logs(pod, &LogRequest { follow, tail, since, timestamps }).await.map_err(|error| error.to_string())?;
    Ok(opened(pipes.open(), lines))
}

/// What is written to a pipe until it ends.
fn opened(pipe: PipeEnd, mut bytes: BoxStream<'static, bytes::Bytes>) -> Answer {
    let number = pipe.number();
    let session = async move {
        // What somebody types is for nobody, but has to be taken.
        let (sender, mut receiver) = pipe.split();
        let written = async {
            while let Some(part) = bytes.next().await {
                if !sender.send(part).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = written => {}
            () = async { while receiver.receive().await.is_some() {} } => {}
        }
        Ok(())
    };
    let opened = Opened { pipe: number, raw_tty: false, resize_control: "", session: session.boxed() };
    Answer { removed_node: String::new(), opened: Some(opened) }
}
