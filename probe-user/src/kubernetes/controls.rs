//! Controls of a cluster: what is called on a node of the map, done to the object behind it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use probe_controls::{Answer, Call, Executor, LogArguments, Opened, PipeEnd, Pipes, Size};
use probe_kubernetes::Kind;
use probe_kubernetes::controls::{Hands, LogRequest, Place, Sizes};
use tokio::sync::{mpsc, oneshot};

use crate::mask::Masks;

mod terminal;

/// Questions that wait for the driver at most.
pub(super) const QUESTIONS_MAX: usize = 16;

/// Lines of each container's log that are shown at first.
const LOG_LINES: u32 = 1_000;

/// What stands behind the id of a container's node.
const CONTAINER: &str = ";<container>";
/// Containers of pods are called as Docker's are.
const ATTACH: &str = "docker_attach_container";
const EXEC: &str = "docker_exec_container";
const RESIZE: &str = "docker_resize_exec_tty";

/// What a cluster's collector carries out.
const CONTROLS: [&str; 10] = [
    ATTACH,
    EXEC,
    RESIZE,
    "kubernetes_get_logs",
    "kubernetes_describe",
    "kubernetes_delete_pod",
    "kubernetes_scale_up",
    "kubernetes_scale_down",
    "kubernetes_cordon_node",
    "kubernetes_uncordon_node",
];

/// Which object is this, and how is it changed? Only the driver knows what is in the cluster.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) object: Asked,
    pub(super) reply: oneshot::Sender<(Hands, Option<Place>)>,
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// The object with this uid.
    Object(String),
    /// The pod that has the container with this id.
    PodOfContainer(String),
}

/// Carries out the controls of a cluster.
#[derive(Debug)]
pub(super) struct ClusterControls {
    questions: mpsc::Sender<Question>,
    masks: Masks,
    /// Terminals that are open, by the numbers of their pipes.
    terminals: Mutex<HashMap<u64, Sizes>>,
}

impl ClusterControls {
    pub(super) fn new(questions: mpsc::Sender<Question>, masks: Masks) -> Self {
        ClusterControls { questions, masks, terminals: Mutex::default() }
    }

    async fn ask(&self, object: Asked) -> Result<(Hands, Option<Place>), String> {
        let (reply, answer) = oneshot::channel();
        let gone = |()| "the collector stops".to_owned();
        self.questions.send(Question { object, reply }).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))
    }

    async fn carry_out(self: Arc<Self>, call: Call, pipes: Pipes) -> Result<Answer, String> {
        let Call { node, control, arguments } = call;
        if !CONTROLS.contains(&control.as_str()) {
            return Err(format!("Control {control:?} not recognised"));
        }
        if control == RESIZE {
            let Size { pipe, height, width } = Size::parse(&arguments)?;
            let terminal = self.terminals.lock().unwrap_or_else(PoisonError::into_inner).get(&pipe).cloned();
            let terminal = terminal.ok_or_else(|| format!("Unknown pipeID (pipe-{pipe})"))?;
            return terminal.set(width, height).map(|()| Answer::default()).map_err(|error| error.to_string());
        }
        let invalid = || format!("Invalid ID: {node}");
        if control == ATTACH || control == EXEC {
            let id = node.strip_suffix(CONTAINER).filter(|id| !id.is_empty()).ok_or_else(invalid)?;
            let (hands, pod) = self.ask(Asked::PodOfContainer(id.to_owned())).await?;
            let pod = pod.ok_or_else(|| format!("no pod of the cluster is known to have the container {id}"))?;
            let opened = if control == EXEC { terminal::exec(&hands, &pod, id).await } else { terminal::attach(&hands, &pod, id).await };
            return opened.map(|opened| self.open(opened, &pipes));
        }
        let (id, tag) = node.rsplit_once(';').ok_or_else(invalid)?;
        let (hands, place) = self.ask(Asked::Object(id.to_owned())).await?;
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
                let text = hands.describe(&place, &self.masks).await.map_err(|error| error.to_string())?;
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

impl probe_kubernetes::controls::Masks for Masks {
    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        Masks::arguments(self, arguments.iter().copied()).map(std::borrow::Cow::into_owned).collect()
    }

    fn value(&self, name: &str, value: &str) -> String {
        self.label(name, value).into_owned()
    }

    fn text(&self, text: &str) -> String {
        Masks::text(self, text).into_owned()
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

#[cfg(test)]
mod tests;
