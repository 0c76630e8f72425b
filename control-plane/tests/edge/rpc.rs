//! The gRPC API on the probes' listener, against the real map.

use std::collections::HashMap;
use std::time::Duration;

use proto::control::v1::control_service_client::ControlServiceClient;
use proto::control::v1::topology_service_client::TopologyServiceClient;
use proto::control::v1::{
    CallRequest, GetNodeRequest, ListChangesRequest, ListNodesRequest, ListViewsRequest, SearchRequest, WatchViewRequest,
};
use serde_json::Value;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use crate::world::{CONTAINER, World, process, processes_delta};

pub(crate) async fn channel(world: &World) -> Channel {
    Channel::from_shared(format!("http://{}", world.grpc)).unwrap().connect().await.unwrap()
}

/// What the HTTP API says of the same thing is the same.
#[tokio::test]
async fn the_map_is_told_as_over_http() {
    let (world, _probes) = World::with_two_hosts().await;
    let mut map = TopologyServiceClient::new(channel(&world).await);
    let views = map.list_views(ListViewsRequest::default()).await.unwrap().into_inner().views;
    let listed: Value = world.get("/api/topology").await.json();
    let flat = listed
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|view| std::iter::once(view.clone()).chain(view["sub_topologies"].as_array().cloned().unwrap_or_default()));
    let expected: Vec<(String, u64)> = flat
        .map(|view| (view["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(), view["stats"]["node_count"].as_u64().unwrap()))
        .collect();
    let told: Vec<(String, u64)> = views.iter().map(|view| (view.id.clone(), view.statistics.unwrap().node_count)).collect();
    assert_eq!(told, expected);
    assert!(views.iter().any(|view| view.id == "processes-by-name" && view.parent_id == "processes"));

    for view in ["containers", "processes", "hosts"] {
        let nodes =
            map.list_nodes(ListNodesRequest { view: view.to_owned(), ..ListNodesRequest::default() }).await.unwrap().into_inner().nodes;
        let expected: Value = world.get(&format!("/api/topology/{view}")).await.json();
        let expected = expected["nodes"].as_object().unwrap();
        assert_eq!(nodes.len(), expected.len(), "{view}");
        for node in nodes {
            let other = &expected[&node.id];
            assert_eq!(other["label"], node.label.as_str());
            assert_eq!(other["labelMinor"], node.label_minor.as_str());
            let rows = other["metadata"].as_array().map_or(0, Vec::len);
            assert_eq!(node.metadata.len(), rows, "{}", node.id);
            assert_eq!(node.adjacency.len(), other["adjacency"].as_array().map_or(0, Vec::len));
        }
    }
    // Options mean what they mean in a query.
    let options = HashMap::from([("unconnected".to_owned(), "hide".to_owned())]);
    let request = ListNodesRequest { view: "processes".to_owned(), options, ..ListNodesRequest::default() };
    let nodes = map.list_nodes(request).await.unwrap().into_inner().nodes;
    let expected: Value = world.get("/api/topology/processes?unconnected=hide").await.json();
    assert_eq!(nodes.len(), expected["nodes"].as_object().unwrap().len());

    let id = format!("{CONTAINER};<container>");
    let node = map.get_node(GetNodeRequest { view: "containers".to_owned(), id, ..GetNodeRequest::default() }).await.unwrap().into_inner();
    assert_eq!(node.node.unwrap().label, "shop");
    assert_eq!((node.children.len(), node.outgoing.len(), node.outgoing[0].port), (1, 1, 5432));

    let found = map.search(SearchRequest { query: "postgr".to_owned(), ..SearchRequest::default() }).await.unwrap().into_inner();
    assert_eq!((found.total, found.hits[0].matches[0].ranges[0].begin), (2, 9));
    let refused = map.search(SearchRequest { query: "a > (".to_owned(), ..SearchRequest::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let past = Some(prost_types::Timestamp { seconds: 1_000_000_000, nanos: 0 });
    let refused = map.search(SearchRequest { query: "x".to_owned(), at: past, ..SearchRequest::default() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "no history is kept here");
    let refused =
        map.list_changes(ListChangesRequest { from: Some(prost_types::Timestamp::default()), ..ListChangesRequest::default() }).await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition, "no history is kept here");
}

#[tokio::test]
async fn a_watch_tells_of_a_process_as_it_comes() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut map = TopologyServiceClient::new(channel(&world).await);
    let request = WatchViewRequest { view: "processes".to_owned(), query: "label: ^sh$".to_owned(), ..WatchViewRequest::default() };
    let mut stream = map.watch_view(request).await.unwrap().into_inner();
    let mut next = async || timeout(Duration::from_secs(10), stream.message()).await.expect("in time").unwrap().unwrap();
    let first = next().await;
    assert!(first.reset && first.add.is_empty());
    web.apply(processes_delta(2, [process(777, "sh", "")])).await;
    let second = next().await;
    assert_eq!(second.add.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["web-1;777"]);
    assert!(!second.reset);
    world.metric_becomes("monitoring_app_grpc_streams", 1.0).await;
    drop(map);
}

#[tokio::test]
async fn a_control_of_nobody_is_unavailable_and_is_written_down() {
    let world = World::start().await;
    let mut controls = ControlServiceClient::new(channel(&world).await);
    let call = CallRequest {
        probe_id: "nobody".to_owned(),
        node_id: "x".to_owned(),
        control: "docker_stop_container".to_owned(),
        ..CallRequest::default()
    };
    let refused = controls.call(call).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "probe nobody is not connected right now"));
    assert!(world.metric("monitoring_app_grpc_call_seconds_count{call=\"Call\",code=\"UNAVAILABLE\"}").await > 0.5);
}

#[tokio::test]
async fn health_says_what_readiness_does() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    let world = World::start().await;
    let mut health = HealthClient::new(channel(&world).await);
    let mut serves = async || {
        let service = "orchestrator.control.v1.TopologyService".to_owned();
        health.check(HealthCheckRequest { service }).await.unwrap().into_inner().status == 1
    };
    crate::world::eventually(async || serves().await, "it serves".to_owned()).await;
    assert_eq!(world.get("/ready").await.status, 200);
}
