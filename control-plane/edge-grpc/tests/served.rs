//! A server with pictures that the tests make, and clients that speak to it over a real connection.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of this is a test, helpers too: a surprise ends it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Timestamp;
use edge_grpc::{Ask, Context, Feed, Limits, Observer, Services, Serving, Source, Trouble};
use imbl::OrdMap;
use proto::control::v1::control_service_client::ControlServiceClient;
use proto::control::v1::topology_service_client::TopologyServiceClient;
use proto::control::v1::{
    CallRequest, ClosePipeRequest, GetNodeRequest, ListChangesRequest, ListChangesResponse, ListNodesRequest, ListViewsRequest,
    PipeRequest, SearchRequest, SearchResponse, View as ListedView, WatchViewRequest, WatchViewResponse,
};
use relay::{Abilities, Audit, End, Link, Opened, Order, Switchboard, Word};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status, Streaming};
use topology::{Details, NodeId, NodeSummary, PublishedNode, Shape, View, ViewSnapshot};

/// Pictures as the tests make them.
#[derive(Clone)]
struct Made(watch::Sender<Arc<ViewSnapshot>>);

fn node(id: &str, label: &str) -> PublishedNode {
    PublishedNode::new(NodeSummary { label: label.into(), ..NodeSummary::blank(id.into(), Shape::Hexagon) })
}

fn picture(nodes: impl IntoIterator<Item = (String, String)>) -> Arc<ViewSnapshot> {
    let nodes: OrdMap<NodeId, PublishedNode> =
        nodes.into_iter().map(|(id, label)| (NodeId::from(id.as_str()), node(&id, &label))).collect();
    let mut picture = ViewSnapshot { nodes, ..ViewSnapshot::default() };
    picture.stats.node_count = picture.nodes.len() as u64;
    Arc::new(picture)
}

impl Made {
    /// Replaces some nodes and takes others away.
    fn change(&self, labels: &[(&str, &str)], gone: &[&str], structure: bool) {
        self.0.send_modify(|picture| {
            let mut changed = ViewSnapshot::clone(picture);
            for (id, label) in labels {
                changed.nodes.insert((*id).into(), node(id, label));
            }
            for id in gone {
                changed.nodes.remove(*id);
            }
            changed.structure_version += u64::from(structure);
            *picture = Arc::new(changed);
        });
    }
}

#[async_trait]
impl Source for Made {
    async fn views(&self, ask: &Ask) -> Result<Vec<ListedView>, Trouble> {
        if ask.at.is_some() {
            return Err(Trouble::NoHistory);
        }
        Ok(vec![ListedView { id: format!("{:?}", ask.options), ..ListedView::default() }])
    }

    async fn picture(&self, _: View, _: &Ask) -> Result<Arc<ViewSnapshot>, Trouble> {
        Ok(self.0.borrow().clone())
    }

    async fn follow(&self, _: View, _: &Ask) -> Result<Box<dyn Feed>, Trouble> {
        Ok(Box::new(Followed { pictures: self.0.subscribe(), structure: 0 }))
    }

    async fn details(&self, _: View, id: &str, _: &Ask) -> Result<Option<Box<Details>>, Trouble> {
        let picture = self.0.borrow().clone();
        Ok(picture.nodes.get(id).map(|node| {
            let (controls, children, incoming, outgoing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            Box::new(Details { summary: node.summary().clone(), controls, children, incoming, outgoing, shows_remote: false })
        }))
    }

    async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Trouble> {
        if request.query.is_empty() { Err(Trouble::Invalid("q is missing".to_owned())) } else { Ok(SearchResponse::default()) }
    }

    async fn changes(&self, _: ListChangesRequest) -> Result<ListChangesResponse, Trouble> {
        Err(Trouble::Broken("the disk is on fire".to_owned()))
    }
}

struct Followed {
    pictures: watch::Receiver<Arc<ViewSnapshot>>,
    structure: u64,
}

#[async_trait]
impl Feed for Followed {
    async fn current(&mut self) -> Result<Arc<ViewSnapshot>, Trouble> {
        let picture = self.pictures.borrow_and_update().clone();
        self.structure = picture.structure_version;
        Ok(picture)
    }

    async fn urgent(&mut self) -> Result<(), Trouble> {
        loop {
            self.pictures.changed().await.map_err(|_| Trouble::Stopped)?;
            if self.pictures.borrow_and_update().structure_version != self.structure {
                return Ok(());
            }
        }
    }
}

/// Counts nothing.
struct Deaf;

impl Observer for Deaf {
    fn answered(&self, _: &'static str, _: Code, _: Duration) {}
    fn streams_open(&self, _: usize) {}
}

impl relay::Observer for Deaf {
    fn call_settled(&self, _: relay::Outcome, _: Duration) {}
    fn stray_answer(&self) {}
    fn pipes_open(&self, _: usize) {}
    fn pipe_closed(&self, _: relay::Cause) {}
    fn pipe_refused(&self, _: relay::PipeRefusal) {}
    fn pipe_bytes(&self, _: End, _: u64) {}
    fn audit_failed(&self, _: &relay::AuditError) {}
}

/// A server.
struct World {
    made: Made,
    board: Switchboard,
    serving: Serving,
    stopping: CancellationToken,
    channel: Channel,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start(nodes: impl IntoIterator<Item = (String, String)>, limits: Limits) -> World {
        let made = Made(watch::Sender::new(picture(nodes)));
        let begun = Instant::now();
        let now = move || Timestamp::from_unix_nanos(1) + begun.elapsed();
        let directory = tempfile::tempdir().unwrap();
        let board = Switchboard::new(relay::Limits::DEFAULT, (now, now), Deaf, Audit::in_directory(directory.path()));
        let stopping = CancellationToken::new();
        let context = Context::new(made.clone(), board.clone(), Deaf, limits, stopping.clone());
        let (routes, serving) = Services::new(&context).into_routes().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        World { made, board, serving, stopping, channel, _directory: directory }
    }

    async fn with(nodes: &[(&str, &str)]) -> World {
        let nodes: Vec<_> = nodes.iter().map(|(id, label)| ((*id).to_owned(), (*label).to_owned())).collect();
        Self::start(nodes, Limits::DEFAULT).await
    }

    fn map(&self) -> TopologyServiceClient<Channel> {
        TopologyServiceClient::new(self.channel.clone())
    }

    fn controls(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel.clone())
    }

    async fn watch(&self, request: WatchViewRequest) -> Streaming<WatchViewResponse> {
        self.map().watch_view(request).await.unwrap().into_inner()
    }
}

fn hosts() -> WatchViewRequest {
    WatchViewRequest { view: "hosts".to_owned(), ..WatchViewRequest::default() }
}

/// Applies messages up to the end of an update.
async fn update(stream: &mut Streaming<WatchViewResponse>, known: &mut BTreeMap<String, String>) -> usize {
    let mut parts = 0;
    loop {
        let message = timeout(Duration::from_secs(10), stream.message()).await.expect("a message comes").unwrap().expect("it goes on");
        parts += 1;
        if message.reset {
            known.clear();
        }
        for id in message.remove {
            assert!(known.remove(&id).is_some(), "{id}");
        }
        for node in message.update {
            assert!(known.insert(node.id, node.label).is_some());
        }
        for node in message.add {
            assert!(known.insert(node.id, node.label).is_none());
        }
        if !message.more {
            assert!(message.statistics.is_some());
            return parts;
        }
    }
}

fn many(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("n{number:05}"), format!("node {number} {}", "x".repeat(100)))).collect()
}

#[tokio::test]
async fn pages_of_a_view_have_every_node_once() {
    let world = World::start(many(2_345), Limits { message_bytes: 8 << 10, ..Limits::DEFAULT }).await;
    let mut ids = Vec::new();
    let mut request = ListNodesRequest { view: "processes".to_owned(), page_size: 400, ..ListNodesRequest::default() };
    loop {
        let page = world.map().list_nodes(request.clone()).await.unwrap().into_inner();
        assert!(!page.nodes.is_empty() && page.nodes.len() <= 400, "{}", page.nodes.len());
        // 32 KiB of nodes of 130 bytes.
        assert!(page.nodes.len() < 300, "a page ends when it is large: {}", page.nodes.len());
        assert_eq!(page.statistics.unwrap().node_count, 2_345);
        ids.extend(page.nodes.into_iter().map(|node| node.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(ids, many(2_345).into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    let query = "label: ^node 23".to_owned();
    let found =
        world.map().list_nodes(ListNodesRequest { view: "processes".to_owned(), query, ..ListNodesRequest::default() }).await.unwrap();
    let found: Vec<String> = found.into_inner().nodes.into_iter().map(|node| node.id).collect();
    assert_eq!((found.first().map(String::as_str), found.len()), (Some("n00023"), 1 + 10 + 45));
}

#[tokio::test]
async fn a_watched_view_comes_whole_and_then_as_it_changes() {
    let world = World::start(many(3_000), Limits { message_bytes: 32 << 10, ..Limits::DEFAULT }).await;
    let mut stream = world.watch(WatchViewRequest { interval: Some(prost_types::Duration { seconds: 0, nanos: 1 }), ..hosts() }).await;
    let mut known = BTreeMap::new();
    let parts = update(&mut stream, &mut known).await;
    assert!((8..40).contains(&parts), "in parts: {parts}");
    assert_eq!(known.len(), 3_000);
    world.made.change(&[("n00007", "another"), ("new", "fresh")], &["n00001", "n00002"], true);
    assert_eq!(update(&mut stream, &mut known).await, 1);
    assert_eq!((known.len(), known["n00007"].as_str(), known["new"].as_str()), (2_999, "another", "fresh"));
    // Nothing is sent while nothing changes.
    assert!(timeout(Duration::from_millis(300), stream.message()).await.is_err());
}

#[tokio::test]
async fn what_comes_or_goes_does_not_wait_for_the_interval_and_texts_do() {
    let world = World::with(&[("a", "1")]).await;
    let hour = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let mut stream = world.watch(WatchViewRequest { interval: hour, ..hosts() }).await;
    let mut known = BTreeMap::new();
    update(&mut stream, &mut known).await;
    world.made.change(&[("a", "2")], &[], false);
    assert!(timeout(Duration::from_millis(300), stream.message()).await.is_err());
    world.made.change(&[("b", "1")], &[], true);
    update(&mut stream, &mut known).await;
    assert_eq!(known, BTreeMap::from([("a".to_owned(), "2".to_owned()), ("b".to_owned(), "1".to_owned())]));
}

#[tokio::test]
async fn a_query_shows_nodes_as_they_come_to_answer_it_and_cease_to() {
    let world = World::with(&[("a", "web"), ("b", "db")]).await;
    let mut stream = world.watch(WatchViewRequest { query: "label: web".to_owned(), ..hosts() }).await;
    let mut known = BTreeMap::new();
    update(&mut stream, &mut known).await;
    assert_eq!(known.keys().collect::<Vec<_>>(), ["a"]);
    world.made.change(&[("a", "db"), ("b", "web 2"), ("c", "mail")], &[], true);
    update(&mut stream, &mut known).await;
    assert_eq!(known, BTreeMap::from([("b".to_owned(), "web 2".to_owned())]));
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_stream_and_its_place() {
    let limits = Limits { streams: 1, message_bytes: 16 << 10, patience: Duration::from_millis(300) };
    let world = World::start(many(40_000), limits).await;
    let mut stalled = world.watch(hosts()).await;
    assert_eq!(world.map().watch_view(hosts()).await.unwrap_err().code(), Code::ResourceExhausted);
    let begun = Instant::now();
    let mut next = loop {
        match world.map().watch_view(hosts()).await {
            Ok(stream) => break stream.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "its place is free again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(next.message().await.unwrap().unwrap().reset);
    let end = loop {
        match stalled.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let status = end.expect_err("it does not end as if it had been told everything");
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "the client does not read what it is sent"));
}

#[tokio::test]
async fn mistakes_have_the_codes_that_clients_expect() {
    let world = World::with(&[("a", "web")]).await;
    let (mut map, mut controls) = (world.map(), world.controls());
    let code = |result: Result<(), Status>| result.unwrap_err().code();
    let view = |view: &str| ListNodesRequest { view: view.to_owned(), ..ListNodesRequest::default() };
    let drop_reply = |result: Result<tonic::Response<_>, Status>| result.map(drop);
    assert_eq!(code(map.list_nodes(view("nothing")).await.map(drop)), Code::NotFound);
    assert_eq!(code(map.list_nodes(ListNodesRequest { query: "a > ".to_owned(), ..view("hosts") }).await.map(drop)), Code::InvalidArgument);
    let token = "x".repeat(10_000);
    assert_eq!(code(map.list_nodes(ListNodesRequest { page_token: token, ..view("hosts") }).await.map(drop)), Code::InvalidArgument);
    let options: HashMap<String, String> = (0..65).map(|it| (it.to_string(), String::new())).collect();
    assert_eq!(code(map.list_nodes(ListNodesRequest { options, ..view("hosts") }).await.map(drop)), Code::InvalidArgument);
    let node = GetNodeRequest { view: "hosts".to_owned(), id: "b".to_owned(), ..GetNodeRequest::default() };
    assert_eq!(code(map.get_node(node.clone()).await.map(drop)), Code::NotFound);
    let found = map.get_node(GetNodeRequest { id: "a".to_owned(), ..node }).await.unwrap().into_inner();
    assert_eq!(found.node.unwrap().label, "web");
    let interval = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    assert_eq!(code(map.watch_view(WatchViewRequest { interval, ..hosts() }).await.map(drop)), Code::InvalidArgument);
    assert_eq!(code(map.watch_view(WatchViewRequest { view: String::new(), ..hosts() }).await.map(drop)), Code::NotFound);
    assert_eq!(code(map.search(SearchRequest::default()).await.map(drop)), Code::InvalidArgument);
    assert_eq!(code(map.list_changes(ListChangesRequest::default()).await.map(drop)), Code::Internal);
    let at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    assert_eq!(code(map.list_views(ListViewsRequest { at, ..ListViewsRequest::default() }).await.map(drop)), Code::FailedPrecondition);
    let at = Some(prost_types::Timestamp { seconds: 1, nanos: -1 });
    assert_eq!(code(map.list_views(ListViewsRequest { at, ..ListViewsRequest::default() }).await.map(drop)), Code::InvalidArgument);
    let call = CallRequest { probe_id: "p".to_owned(), node_id: "n".to_owned(), control: "c".to_owned(), ..CallRequest::default() };
    assert_eq!(code(drop_reply(controls.call(call.clone()).await)), Code::Unavailable);
    assert_eq!(code(drop_reply(controls.call(CallRequest { control: String::new(), ..call.clone() }).await)), Code::InvalidArgument);
    let arguments = HashMap::from([("x".to_owned(), "y".repeat(100_000))]);
    assert_eq!(code(drop_reply(controls.call(CallRequest { arguments, ..call }).await)), Code::InvalidArgument);
}

#[tokio::test]
async fn the_end_of_the_process_ends_streams_as_unavailable() {
    let world = World::with(&[("a", "web")]).await;
    let mut stream = world.watch(hosts()).await;
    assert!(stream.message().await.unwrap().unwrap().reset);
    world.stopping.cancel();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.map().list_nodes(ListNodesRequest::default()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.map().watch_view(hosts()).await.unwrap_err().code(), Code::Unavailable);
}

/// A probe's end: answers one call with a pipe, and echoes what comes through it.
async fn echo(link: Link, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Call { call, control, .. } if control == "attach" => {
                tokio::spawn(link.answered_with_pipe(call, Opened { pipe: 1, raw_tty: true, resize_control: "" }).run());
                link.said(1, Word::Credit(1 << 20));
            }
            Order::Call { call, .. } => link.answered(call, Err("it is broken".to_owned())),
            Order::Pipe { pipe, word: Word::Data(data) } => link.said(pipe, Word::Data(data)),
            Order::Pipe { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_control_opens_a_pipe_that_carries_bytes_both_ways() {
    let world = World::with(&[]).await;
    let (link, orders) = world.board.link("probe-1", Abilities::Unknown);
    let probe = tokio::spawn(echo(link, orders));
    let call = |control: &str| CallRequest {
        probe_id: "probe-1".to_owned(),
        node_id: "n".to_owned(),
        control: control.to_owned(),
        ..CallRequest::default()
    };
    let failed = world.controls().call(call("other")).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Unknown, "it is broken"));
    let answer = world.controls().call(call("attach")).await.unwrap().into_inner();
    assert!(answer.raw_tty && !answer.pipe_id.is_empty());
    let (send, requests) = mpsc::channel(8);
    send.send(PipeRequest { pipe_id: answer.pipe_id.clone(), data: "hel".into() }).await.unwrap();
    send.send(PipeRequest { data: "lo".into(), ..PipeRequest::default() }).await.unwrap();
    let mut said = world.controls().pipe(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut heard = Vec::new();
    while heard.len() < 5 {
        heard.extend_from_slice(&timeout(Duration::from_secs(10), said.message()).await.unwrap().unwrap().unwrap().data);
    }
    assert_eq!(heard, b"hello");
    world.controls().close_pipe(ClosePipeRequest { pipe_id: answer.pipe_id.clone() }).await.unwrap();
    assert!(timeout(Duration::from_secs(10), said.message()).await.unwrap().unwrap().is_none(), "the stream ends with the pipe");
    let again = tokio_stream::iter([PipeRequest { pipe_id: answer.pipe_id, ..PipeRequest::default() }]);
    assert_eq!(world.controls().pipe(again).await.unwrap_err().code(), Code::NotFound);
    let nameless = tokio_stream::iter([PipeRequest { data: "x".into(), ..PipeRequest::default() }]);
    assert_eq!(world.controls().pipe(nameless).await.unwrap_err().code(), Code::InvalidArgument);
    probe.abort();
}

#[tokio::test]
async fn general_clients_find_out_what_there_is_and_whether_it_serves() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let world = World::with(&[]).await;
    let mut health = HealthClient::new(world.channel.clone());
    for (service, serves) in [("", false), ("orchestrator.control.v1.TopologyService", false), ("", true)] {
        world.serving.tell(serves).await;
        let status = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner().status;
        assert_eq!(status, if serves { 1 } else { 2 }, "{service}");
    }
    let mut reflection = ServerReflectionClient::new(world.channel.clone());
    let mut ask = async |request| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut replies = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(listed) = ask(MessageRequest::ListServices(String::new())).await else { panic!("no list") };
    let listed: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["orchestrator.control.v1.TopologyService", "orchestrator.control.v1.ControlService", "grpc.health.v1.Health"] {
        assert!(listed.iter().any(|listed| listed == name), "{name} in {listed:?}");
    }
    assert!(!listed.iter().any(|name| name.contains("ProbeService") || name.contains("runtime")), "{listed:?}");
    let others = ["orchestrator.control.v1.Node", "google.protobuf.Timestamp"];
    for symbol in listed.iter().map(String::as_str).chain(others) {
        let reply = ask(MessageRequest::FileContainingSymbol(symbol.to_owned())).await;
        assert!(matches!(reply, MessageResponse::FileDescriptorResponse(_)), "{symbol}: {reply:?}");
    }
}
