//! A view that is watched: the whole of it first, then what changed, in messages that a client takes at its own pace.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use proto::control::v1::{Node, WatchViewResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use topology::{Delta, Query, ViewSnapshot};

use crate::filtering::{self, FilteringError};
use crate::source::{Feed, Trouble};
use crate::{Context, Room, convert, stopping};

/// Between two updates of metrics and texts when the client does not say.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two updates, whatever the client says and however much changes.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// The longest that a client may say: beyond any use, and within what clocks can add.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client is sent, and at the end why there is no more.
pub(crate) struct Messages(std::pin::Pin<Box<dyn Stream<Item = Result<WatchViewResponse, Status>> + Send>>);

impl Stream for Messages {
    type Item = Result<WatchViewResponse, Status>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Begins to fill a stream.
pub(crate) fn start(context: &Context, room: Room, feed: Box<dyn Feed>, words: Option<Query>, interval: Option<Duration>) -> Messages {
    // One that waits, beside what HTTP/2 has taken: this is all that a client holds up.
    let (outbox, messages) = mpsc::channel(1);
    let end = Arc::new(Mutex::new(None));
    let begun = Instant::now();
    let interval = interval.unwrap_or(INTERVAL).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let watcher = Watcher { context: context.clone(), feed, words: words.map(Arc::new), interval, outbox };
    let (told, counted) = (end.clone(), context.clone());
    context.0.tasks.spawn(async move {
        let Err(status) = watcher.run(&told).await;
        counted.0.observer.answered("WatchView", status.code(), begun.elapsed());
        drop(room);
    });
    let last = stream::once(async move { end.lock().unwrap_or_else(PoisonError::into_inner).take() });
    let last = last.filter_map(|end: Option<Status>| std::future::ready(end.map(Err)));
    Messages(Box::pin(ReceiverStream::new(messages).map(Ok).chain(last)))
}

struct Watcher {
    context: Context,
    feed: Box<dyn Feed>,
    words: Option<Arc<Query>>,
    interval: Duration,
    outbox: mpsc::Sender<WatchViewResponse>,
}

/// What a client has been sent.
struct Known {
    picture: Arc<ViewSnapshot>,
    /// Of that, what answers the query: the same, when there is none.
    shown: Arc<ViewSnapshot>,
}

impl Watcher {
    /// Until it ends, and why. Said before the outbox is dropped, so that whoever reads to the end finds it.
    async fn run(mut self, end: &Mutex<Option<Status>>) -> Result<Infallible, Status> {
        let Err(status) = self.follow().await;
        *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
        Err(status)
    }

    async fn follow(&mut self) -> Result<Infallible, Status> {
        let stopped = self.context.0.stopping.clone();
        let picture = self.feed.current().await?;
        let shown = answering(self.words.clone(), &picture).await?;
        self.send_all(&shown).await?;
        let mut known = Known { picture, shown };
        let mut sent_at = Instant::now();
        let mut tick = sent_at + self.interval;
        let mut early = None;
        loop {
            let due = early.map_or(tick, |early| tick.min(early));
            tokio::select! {
                biased;
                () = stopped.cancelled() => return Err(stopping()),
                () = self.outbox.closed() => return Err(Status::cancelled("the client has gone away")),
                () = sleep_until(due) => {
                    known = self.update(known).await?;
                    sent_at = Instant::now();
                    early = None;
                    if tick <= sent_at {
                        // Ticks that were missed while the client was slow are not made up for.
                        tick = (tick + self.interval).max(sent_at);
                    }
                }
                urgent = self.feed.urgent(), if early.is_none() => {
                    urgent?;
                    early = Some(sent_at + SHORTEST_INTERVAL);
                }
            }
        }
    }

    /// Everything that is shown, in as many messages as it takes. A node is put into words when its message is.
    async fn send_all(&mut self, shown: &ViewSnapshot) -> Result<(), Status> {
        let mut part = Part { message: WatchViewResponse { reset: true, ..WatchViewResponse::default() }, bytes: 0 };
        for node in shown.nodes.values() {
            part.push(|message| &mut message.add, convert::node(node.summary()));
            self.send_if_full(&mut part).await?;
        }
        self.send_last(part, shown).await
    }

    /// Sends what changed.
    async fn update(&mut self, known: Known) -> Result<Known, Status> {
        let picture = self.feed.current().await?;
        let change = Delta::between(&known.picture, &picture);
        let (change, shown) = match &self.words {
            None => (change, picture.clone()),
            Some(words) => {
                let (words, picture, before) = (words.clone(), picture.clone(), known.shown.clone());
                let answering = filtering::in_turn(move |may_go_on| {
                    let shown = picture.answering_after(&words, &before, &change, may_go_on)?;
                    Ok((Delta::between(&before, &shown), shown))
                });
                answering.await.map_err(given_up)?
            }
        };
        if !change.is_empty() {
            let mut part = Part::default();
            for id in &change.remove {
                part.bytes += id.as_str().len();
                part.message.remove.push(id.to_string());
                self.send_if_full(&mut part).await?;
            }
            for node in &change.update {
                part.push(|message| &mut message.update, convert::node(node.summary()));
                self.send_if_full(&mut part).await?;
            }
            for node in &change.add {
                part.push(|message| &mut message.add, convert::node(node.summary()));
                self.send_if_full(&mut part).await?;
            }
            self.send_last(part, &shown).await?;
        }
        Ok(Known { picture, shown })
    }

    async fn send_if_full(&mut self, part: &mut Part) -> Result<(), Status> {
        if part.bytes < self.context.0.limits.message_bytes {
            return Ok(());
        }
        let mut message = std::mem::take(part).message;
        message.more = true;
        self.send(message).await
    }

    async fn send_last(&mut self, part: Part, shown: &ViewSnapshot) -> Result<(), Status> {
        let statistics = Some(convert::statistics(shown.stats));
        self.send(WatchViewResponse { statistics, ..part.message }).await
    }

    async fn send(&mut self, message: WatchViewResponse) -> Result<(), Status> {
        match timeout(self.context.0.limits.patience, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::new(Code::Cancelled, "the client has gone away")),
            Err(_) => Err(Status::resource_exhausted("the client does not read what it is sent")),
        }
    }
}

/// The nodes that answer the query, if there is one. Looks at every node.
async fn answering(words: Option<Arc<Query>>, picture: &Arc<ViewSnapshot>) -> Result<Arc<ViewSnapshot>, Status> {
    let Some(words) = words else { return Ok(picture.clone()) };
    let picture = picture.clone();
    filtering::in_turn(move |may_go_on| picture.answering(&words, may_go_on)).await.map_err(given_up)
}

fn given_up(error: FilteringError) -> Status {
    match error {
        FilteringError::TooLong(error) => Trouble::TooLong(error.to_string()).into(),
        FilteringError::Stopped => stopping(),
    }
}

/// A message that is being filled.
#[derive(Default)]
struct Part {
    message: WatchViewResponse,
    bytes: usize,
}

impl Part {
    fn push(&mut self, field: impl FnOnce(&mut WatchViewResponse) -> &mut Vec<Node>, node: Node) {
        self.bytes += node.encoded_len();
        field(&mut self.message).push(node);
    }
}
