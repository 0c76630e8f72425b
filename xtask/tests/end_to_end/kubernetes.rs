//! A cluster on the map: the collector reads it from a server that speaks the Kubernetes API, the probe of the node sees its containers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::stack::Stack;
use xtask::traffic::Process;
use xtask::{Checkout, Profile, http};

use crate::controls::Pipe;
use crate::world::{Container, PATIENCE, connect, has_edge, nodes, serve, stack};

/// How long a lease that nobody renews is still its holder's, and what taking over takes.
const TAKEN_OVER: Duration = Duration::from_secs(40);

/// The tests' server of the Kubernetes API.
struct Api {
    address: SocketAddr,
    process: Option<Process>,
}

impl Api {
    fn start() -> Result<Self> {
        let mut api = Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), process: None };
        api.start_again()?;
        Ok(api)
    }

    /// Without the objects of before.
    fn start_again(&mut self) -> Result<()> {
        self.process = None;
        let program = Checkout::here().binary(Profile::Debug, "examples/api_server");
        ensure!(program.exists(), "{} is not built; `cargo xtask test` does", program.display());
        let mut process = Process::start(std::process::Command::new(program).arg(self.address.to_string()))?;
        self.address = process.listening()?;
        self.process = Some(process);
        Ok(())
    }

    fn create(&self, group: &str, namespace: &str, plural: &str, object: &Value) -> Result<()> {
        let place = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
        let reply = http::send(self.address, "POST", &format!("/{group}/{place}{plural}"), Some(object))?;
        ensure!(reply.status < 300, "{plural}: {} {}", reply.status, reply.text());
        Ok(())
    }

    fn delete(&self, path: &str) -> Result<()> {
        let reply = http::send(self.address, "DELETE", path, None)?;
        ensure!(reply.status < 300, "{path}: {} {}", reply.status, reply.text());
        Ok(())
    }

    fn pod(&self, name: &str, app: &str, status: &Value) -> Result<()> {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": format!("rs-{app}"), "controller": true}]);
        let metadata = json!({"name": name, "uid": format!("pod-{name}"), "labels": {"app": app}, "ownerReferences": owner});
        self.create("api/v1", "shop", "pods", &json!({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}))
    }

    /// A deployment with its replica set and its service.
    fn app(&self, app: &str) -> Result<()> {
        let selector = json!({"matchLabels": {"app": app}});
        let deployment =
            json!({"metadata": {"name": app, "uid": format!("deployment-{app}")}, "spec": {"replicas": 1, "selector": selector}});
        self.create("apis/apps/v1", "shop", "deployments", &deployment)?;
        let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "uid": format!("deployment-{app}"), "controller": true}]);
        let metadata = json!({"name": format!("{app}-1"), "uid": format!("rs-{app}"), "ownerReferences": owner});
        self.create("apis/apps/v1", "shop", "replicasets", &json!({"metadata": metadata, "spec": {"selector": selector}}))?;
        let spec = json!({"clusterIP": "10.96.7.7", "selector": {"app": app}, "ports": [{"port": 80}]});
        let metadata = json!({"name": app, "uid": format!("service-{app}")});
        self.create("api/v1", "shop", "services", &json!({"metadata": metadata, "spec": spec}))
    }
}

fn running() -> Value {
    json!({"phase": "Running", "podIP": "10.244.0.9"})
}

fn has(stack: &Stack, view: &str, id: &str) -> bool {
    nodes(stack, view).is_ok_and(|nodes| nodes.contains_key(id))
}

fn reporters(stack: &Stack) -> Vec<Value> {
    let probes = http::get_json(stack.http(), "/api/v1/probes").unwrap_or_default();
    let all = probes["probes"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .filter(|probe| probe["connected"] == true && probe["id"].as_str().is_some_and(|id| id.starts_with("kubernetes-")))
        .collect()
}

#[test]
fn pods_and_what_owns_and_selects_them_are_on_the_map_with_the_connections_of_their_containers() -> Result<()> {
    let Some(server_container) = Container::named("pod-server")? else { return Ok(()) };
    let Some(client_container) = Container::named("pod-client")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let api = Api::start()?;
    api.create("api/v1", "", "namespaces", &json!({"metadata": {"name": "kube-system", "uid": "the-cluster"}}))?;
    api.app("web")?;
    api.app("front")?;
    stack.start_collector(api.address)?;
    stack.until(PATIENCE, "the services are there before their pods", |stack| has(stack, "services", "service-web;<service>"))?;

    // One pod is known by the ids of its containers, the other by the labels that the kubelet gives to containers.
    let (_server, _) = serve(&mut server_container.traffic(), "0.0.0.0:8080", 1_000)?;
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "ready": true, "containerID": format!("docker://{}", server_container.id()?), "state": {"running": {}}}]});
    api.pod("web-1-a", "web", &status)?;
    api.pod("front-1-a", "front", &json!({"phase": "Running"}))?;
    let to = format!("{}:8080", server_container.address()?).parse()?;
    let labels = ["io.kubernetes.pod.uid=pod-front-1-a", "io.kubernetes.pod.name=front-1-a", "io.kubernetes.pod.namespace=shop"];
    let (_client, report) = connect(&mut client_container.traffic_labelled(&labels.map(str::to_owned)), to, 3, 500)?;
    assert_eq!(report["connected"], 3, "{report}");

    for (view, from, to) in [
        ("pods", "pod-front-1-a;<pod>", "pod-web-1-a;<pod>"),
        ("kube-controllers", "deployment-front;<deployment>", "deployment-web;<deployment>"),
        ("services", "service-front;<service>", "service-web;<service>"),
    ] {
        stack.until(PATIENCE, &format!("{view} are connected"), |stack| has_edge(stack, view, from, to))?;
    }
    let pod = http::get_json(stack.http(), "/api/topology/pods/pod-web-1-a;%3Cpod%3E")?;
    let children = pod["node"]["children"].as_array().cloned().unwrap_or_default();
    let inside = children.iter().flat_map(|group| group["nodes"].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>();
    let id = server_container.id()?;
    ensure!(inside.iter().any(|node| node["id"].as_str().is_some_and(|node| node.contains(&id))), "the pod has its container: {pod}");
    let [collector] = &reporters(&stack)[..] else { bail!("not one collector: {:?}", reporters(&stack)) };
    assert_eq!(collector["id"], "kubernetes-the-cluster-orchestrator", "{collector}");

    // What goes in the cluster goes on the map, and what is scaled up comes.
    api.delete("/api/v1/namespaces/shop/pods/front-1-a")?;
    api.pod("web-1-b", "web", &running())?;
    stack.until(PATIENCE, "the pods are as in the cluster", |stack| {
        !has(stack, "pods", "pod-front-1-a;<pod>") && has(stack, "pods", "pod-web-1-b;<pod>")
    })
}

#[test]
fn whoever_is_killed_the_cluster_comes_back() -> Result<()> {
    let mut stack = Stack::control_alone(Profile::Debug)?;
    let mut api = Api::start()?;
    let fill = |api: &Api| -> Result<()> {
        api.app("web")?;
        (0..50).try_for_each(|n| api.pod(&format!("web-1-{n}"), "web", &running()))
    };
    fill(&api)?;
    let first = stack.start_collector(api.address)?;
    let pods = |stack: &Stack| nodes(stack, "pods").map_or(0, |nodes| nodes.keys().filter(|id| id.ends_with(";<pod>")).count());
    stack.until(PATIENCE, "the pods are on the map", |stack| pods(stack) == 50)?;

    stack.kill_control()?;
    // While nobody listens, the cluster goes on.
    api.pod("late", "web", &running())?;
    api.delete("/api/v1/namespaces/shop/pods/web-1-0")?;
    stack.start_control()?;
    stack.until(PATIENCE, "the map is whole again, with what happened meanwhile", |stack| {
        pods(stack) == 50 && has(stack, "pods", "pod-late;<pod>") && !has(stack, "pods", "pod-web-1-0;<pod>")
    })?;

    // A second collector waits, and takes over.
    let second = stack.start_collector(api.address)?;
    let begun = Instant::now();
    while !stack.collector_log(second).contains("another collector reports") {
        ensure!(begun.elapsed() < PATIENCE, "the second does not say that it waits: {}", stack.collector_log(second));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(reporters(&stack).len(), 1);
    stack.kill_collector(first)?;
    api.pod("later", "web", &running())?;
    stack.until(TAKEN_OVER, "the second has taken over", |stack| pods(stack) == 51 && reporters(stack).len() == 1)?;

    // The API is killed, and comes back with another cluster: what is no longer there leaves the map.
    api.start_again().context("the API comes back where it was")?;
    api.app("web")?;
    api.pod("only", "web", &running())?;
    stack.until(TAKEN_OVER, "the map is the new cluster's", |stack| pods(stack) == 1 && has(stack, "pods", "pod-only;<pod>"))
}

#[test]
fn what_is_called_on_the_map_is_done_in_the_cluster() -> Result<()> {
    let mut stack = Stack::control_alone(Profile::Debug)?;
    let api = Api::start()?;
    api.app("web")?;
    api.pod("web-1-a", "web", &running())?;
    stack.start_collector(api.address)?;
    stack.until(PATIENCE, "the pod is on the map", |stack| has(stack, "pods", "pod-web-1-a;<pod>"))?;
    let inside = json!([{"name": "main", "ready": true, "containerID": "containerd://c1", "state": {"running": {}}}]);
    api.pod("web-1-b", "web", &json!({"phase": "Running", "containerStatuses": inside}))?;
    stack.until(PATIENCE, "the other pod is on the map", |stack| has(stack, "pods", "pod-web-1-b;<pod>"))?;
    let panel = http::get_json(stack.http(), "/api/topology/pods/pod-web-1-a;<pod>")?;
    let controls = panel["node"]["controls"].as_array().cloned().unwrap_or_default();
    let offered: Vec<_> = controls.iter().filter_map(|control| control["id"].as_str()).collect();
    ensure!(offered == ["kubernetes_get_logs", "kubernetes_describe", "kubernetes_delete_pod"], "{offered:?}");
    ensure!(controls[2]["confirmation"].as_str().is_some_and(|text| !text.is_empty()), "deleting asks nothing");
    let probe = controls[0]["probeId"].as_str().context("no probe")?.to_owned();
    let call = |node: &str, control: &str| http::send(stack.http(), "POST", &format!("/api/control/{probe}/{node}/{control}"), None);
    let replicas = || -> Result<Value> {
        let deployment = http::get_json(api.address, "/apis/apps/v1/namespaces/shop/deployments/web")?;
        Ok(deployment["spec"]["replicas"].clone())
    };

    ensure!(call("deployment-web;<deployment>", "kubernetes_scale_up")?.json()? == json!({}), "it cannot be scaled");
    assert_eq!(replicas()?, 2);
    ensure!(call("deployment-web;<deployment>", "kubernetes_scale_down")?.json()? == json!({}), "it cannot be scaled");
    assert_eq!(replicas()?, 1);

    let described = call("pod-web-1-a;<pod>", "kubernetes_describe")?.json()?;
    let text = Pipe::connect(stack.http(), &described)?.rest()?;
    ensure!(text.contains("name: web-1-a") && text.contains("Normal Scheduled"), "{text}");
    // It was made without containers, and is told so.
    let reply = call("pod-web-1-a;<pod>", "kubernetes_get_logs")?;
    ensure!(reply.status == 400 && reply.json()? == json!("pod web-1-a has no containers"), "{}", reply.text());
    for (node, control) in
        [("pod-web-1-a;<pod>", "kubernetes_scale_up"), ("pod-gone;<pod>", "kubernetes_delete_pod"), ("x", "kubernetes_describe")]
    {
        ensure!(call(node, control)?.status == 400, "{control} of {node}");
    }

    // A terminal in a container, by the id that its runtime gave it.
    let opened = call("c1;<container>", "docker_exec_container")?.json()?;
    ensure!(opened["raw_tty"] == true && opened["resize_tty_control"] == "docker_resize_exec_tty", "{opened}");
    let mut shell = Pipe::connect(stack.http(), &opened)?;
    shell.until("main exec=true stdin=true tty=true")?;
    shell.send("hello\r")?;
    shell.until("hello!")?;
    shell.send("exit 3\r")?;
    shell.rest()?;
    let reply = call("c2;<container>", "docker_exec_container")?;
    ensure!(reply.status == 400 && reply.text().contains("no pod of the cluster is known to have the container c2"), "{}", reply.text());

    let reply = call("pod-web-1-a;<pod>", "kubernetes_delete_pod")?;
    ensure!(reply.json()? == json!({"removedNode": "pod-web-1-a;<pod>"}), "{}", reply.text());
    let gone = http::get(api.address, "/api/v1/namespaces/shop/pods/web-1-a")?;
    ensure!(gone.status == 404, "it is still there");
    stack.until(PATIENCE, "the pod has left the map", |stack| !has(stack, "pods", "pod-web-1-a;<pod>"))
}
