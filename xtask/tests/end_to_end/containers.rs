//! Containers of the local Docker, and connections between them.

use anyhow::Result;
use serde_json::Value;

use crate::world::{Container, Counted, End, PATIENCE, connect, has_edge, nodes, serve, stack};

#[test]
fn a_connection_between_containers_on_the_bridge_is_counted_with_both_containers() -> Result<()> {
    let Some(server_container) = Container::named("server")? else { return Ok(()) };
    let Some(client_container) = Container::named("client")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    let (_server, _) = serve(&mut server_container.traffic(), "0.0.0.0:8080", 5_001)?;
    let to = format!("{}:8080", server_container.address()?).parse()?;
    let (_client, report) = connect(&mut client_container.traffic(), to, 2, 3_001)?;
    assert_eq!(report["connected"], 2, "{report}");

    let at_client = Counted { opened: 2, closed: 2, failed: 0, sent: 6_002, received: 10_002 };
    let flows = End::of_process(client_container.pid()?, "client", 8080).must_count(&mut stack, at_client)?;
    let id = client_container.id()?;
    stack.until(PATIENCE, "the client's flow has its container", |stack| {
        let flows = End::of_process(client_container.pid().unwrap_or(0), "client", 8080).flows(stack).unwrap_or_default();
        flows.iter().any(|flow| flow["containerId"] == id.as_str())
    })?;
    assert_eq!(flows[0]["serverAddress"], server_container.address()?);
    let at_server = Counted { sent: 10_002, received: 6_002, ..at_client };
    End { holder: format!("container={}", server_container.id()?), direction: "server", port: 8080 }.must_count(&mut stack, at_server)?;

    let (from, to) = (client_container.id()?, server_container.id()?);
    stack.until(PATIENCE, "the edge between the containers is on the map", |stack| has_edge(stack, "containers", &from, &to))
}

#[test]
fn a_container_comes_with_its_name_and_goes_when_it_is_removed() -> Result<()> {
    let Some(container) = Container::named("visitor")? else { return Ok(()) };
    let Some(mut stack) = stack()? else { return Ok(()) };
    container.start(&["sleep", "600"])?;
    let id = container.id()?;
    let find =
        |stack: &xtask::stack::Stack| nodes(stack, "containers").unwrap_or_default().into_iter().find(|(node, _)| node.contains(&id));
    let name = Value::from(container.name.as_str());
    stack.until(PATIENCE, "the container is on the map by its name", |stack| find(stack).is_some_and(|(_, node)| node["label"] == name))?;
    container.remove()?;
    stack.until(2 * PATIENCE, "the container is gone from the map", |stack| find(stack).is_none())
}
