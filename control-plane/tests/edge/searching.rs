//! Searches over everything, and views that show only what answers.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use orchestrator_control::http::scope::schema::Nodes;
use serde_json::Value;

use crate::websocket::Client;
use crate::world::{CONTAINER, World, process, processes_delta};

fn lines(reply: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().replace(CONTAINER, "CONTAINER");
    reply["hits"].as_array().unwrap().iter().map(|hit| format!("{} {}", text(&hit["view"]), text(&hit["id"]))).collect()
}

async fn check(world: &World, target: &str, expected: Expect) {
    let reply = world.get(target).await;
    let body = reply.text().replace(CONTAINER, "CONTAINER");
    expected.assert_eq(&format!("{} {}\n{body}\n", reply.status, reply.header("content-type")));
}

#[tokio::test]
async fn a_search_looks_into_every_view_and_says_where_it_found_what() {
    let (world, _probes) = World::with_two_hosts().await;
    check(
        &world,
        "/api/search?q=postgr&limit=2",
        expect![[r#"
            200 application/json
            {"total":2,"totals":{"processes":1,"processes-by-name":1},"hits":[{"view":"processes-by-name","id":"/usr/bin/postgres","label":"/usr/bin/postgres","labelMinor":"1 process","shape":"square","stack":true,"pseudo":false,"score":4000,"matches":[{"field":"label","text":"/usr/bin/postgres","skipped":0,"ranges":[[9,15]]},{"field":"id","text":"/usr/bin/postgres","skipped":0,"ranges":[[9,15]]}]},{"view":"processes","id":"db-1;200","label":"/usr/bin/postgres","labelMinor":"db-1 (200)","shape":"square","stack":false,"pseudo":false,"score":4000,"matches":[{"field":"label","text":"/usr/bin/postgres","skipped":0,"ranges":[[9,15]]},{"field":"Command","text":"/usr/bin/postgres --port <5432>","skipped":0,"ranges":[[9,15]]}]}],"next":null}
        "#]],
    )
    .await;
    let found = |query: &str| {
        let target = format!("/api/search?q={query}");
        let world = &world;
        async move { lines(&world.get(&target).await.json()) }
    };
    assert_eq!(found("label:%5Eshop%24").await, ["containers CONTAINER;<container>"]);
    assert_eq!(found("pid+%3E%3D+200").await, ["processes db-1;200"]);
    assert_eq!(found("tier:front+AND+NOT+postgres").await, ["containers CONTAINER;<container>"]);
    assert_eq!(found("nosuchthing").await, [""; 0]);
    assert_eq!(found("host&view=hosts").await, ["hosts web-1;<host>", "hosts db-1;<host>"]);
}

#[tokio::test]
async fn pages_of_a_search_follow_each_other() {
    let (world, _probes) = World::with_two_hosts().await;
    let whole = lines(&world.get("/api/search?q=web|db").await.json());
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = world.get(&format!("/api/search?q=web|db&limit=3&after={after}")).await.json();
        assert_eq!(page["total"], whole.len());
        paged.extend(lines(&page));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert!(whole.len() > 6, "{whole:?}");
    assert_eq!(paged, whole);
}

#[tokio::test]
async fn what_is_no_query_is_refused_and_says_where() {
    let world = World::start().await;
    for (query, text) in [
        ("", "q is missing: what to look for"),
        ("q=", "there is nothing to look for in the query at character 1"),
        ("q=%E6%9D%B1+AND", "an operator of the query has no operand, or a parenthesis has no partner, at character 6"),
        ("q=a+AND+%28b+OR+c", "an operator of the query has no operand, or a parenthesis has no partner, at character 14"),
        ("q=a+%22b", "the quote at character 3 of the query has no partner"),
        ("q=a&limit=0", "limit is 0, which is not between 1 and 1000"),
        ("q=a&limit=x", "limit is \"x\", which is no such number"),
        ("q=a&view=nosuch", "view is \"nosuch\", which is no view"),
        ("q=a&after=1.2", "after is \"1.2\", which no page before this one gave"),
    ] {
        let reply = world.get(&format!("/api/search?{query}")).await;
        assert_eq!((reply.status, reply.json::<String>().as_str()), (400, text), "{query}");
    }
    let long = world.get(&format!("/api/search?q={}", "x".repeat(5_000))).await;
    assert_eq!((long.status, long.json::<String>().as_str()), (400, "the query is longer than 4096 bytes"));
    for target in ["/api/topology/hosts?q=NOT", "/api/topology/hosts/ws?q=NOT"] {
        let reply = world.get(target).await;
        assert_eq!(reply.status, 400, "{target}");
        assert!(reply.json::<String>().contains("at character 4"), "{target}");
    }
    // Evil, and answered all the same.
    assert_eq!(world.get("/api/search?q=(((((a%2B)%2B)%2B)%2B)%2B)%2B%24").await.status, 200);
}

#[tokio::test]
async fn a_view_shows_only_what_answers_when_it_is_asked_to() {
    let (world, _probes) = World::with_two_hosts().await;
    let ids = |target: &'static str| {
        let world = &world;
        async move { world.get(target).await.json::<Nodes>().nodes.into_keys().collect::<Vec<String>>() }
    };
    assert_eq!(ids("/api/topology/hosts").await, ["db-1;<host>", "web-1;<host>"]);
    assert_eq!(ids("/api/topology/hosts?q=web").await, ["web-1;<host>"]);
    assert_eq!(ids("/api/topology/hosts?q=").await, ["db-1;<host>", "web-1;<host>"]);
    assert_eq!(ids("/api/topology/processes?q=pid%3D200").await, ["db-1;200"]);
    assert_eq!(ids("/api/topology/processes?q=nothing").await, [""; 0]);
    // Said several times, all of it holds, each by itself.
    assert_eq!(ids("/api/topology/hosts?q=web+OR+db&q=NOT+web").await, ["db-1;<host>"]);
    assert_eq!(world.get("/api/topology/hosts?q=web&q=a+AND").await.status, 400);
    assert_eq!(world.get(&format!("/api/topology/hosts?{}", ["q=e"; 33].join("&"))).await.status, 400);
}

#[tokio::test]
async fn a_followed_view_shows_what_comes_to_answer_and_hides_what_ceases_to() {
    let (world, [mut web, _db]) = World::with_two_hosts().await;
    let mut client = Client::connect(world.http, "/api/topology/processes/ws?t=50ms&unconnected=show&q=redis").await;
    let mut shown = BTreeMap::new();
    let first = client.update().await;
    assert!(first.reset && first.add.is_none());
    let mut follow = async |client: &mut Client, wanted: &[&str]| {
        for _ in 0..100 {
            let update = client.update().await;
            for id in update.remove.into_iter().flatten() {
                shown.remove(&id).expect("what goes was there");
            }
            for node in update.update.into_iter().flatten() {
                shown.insert(node.id.clone(), node).expect("what changes was there");
            }
            for node in update.add.into_iter().flatten() {
                assert!(shown.insert(node.id.clone(), node).is_none(), "what comes was not there");
            }
            if shown.keys().map(String::as_str).eq(wanted.iter().copied()) {
                return;
            }
        }
        panic!("{:?} and not {wanted:?}", shown.keys());
    };
    web.apply(processes_delta(2, [process(300, "redis", ""), process(301, "caddy", "")])).await;
    follow(&mut client, &["web-1;300"]).await;
    web.apply(processes_delta(3, [process(300, "memcached", ""), process(301, "redis-sentinel", "")])).await;
    follow(&mut client, &["web-1;301"]).await;
    web.apply(processes_delta(4, [process(300, "redis", "")])).await;
    follow(&mut client, &["web-1;300", "web-1;301"]).await;
}
