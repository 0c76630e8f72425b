//! Who answers for a service: slices folded into it.

use expect_test::expect;
use probe_kubernetes::Kind;
use probe_kubernetes::index::{ENDPOINTS_MAX, Index};
use serde_json::{Value, json};

use crate::following::{Told, config};
use crate::make::{bare, facts, selecting, slice};
use crate::picture::shown;
use crate::server::Server;

/// A service that selects nothing.
fn service(name: &str) -> Value {
    let mut service = bare(Kind::Service, "shop", name);
    service["spec"] = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    service
}

/// What was told, and the endpoints of it.
fn tell(index: &mut Index) -> String {
    let changes = index.take_changes(usize::MAX);
    let gone = changes.gone.iter().map(|uid| format!("- {uid}\n"));
    let changed = changes.changed.iter().map(|object| {
        let endpoints = shown(object).lines().find_map(|line| line.strip_prefix("  endpoints: ").map(str::to_owned));
        format!("+ {} <- {}\n", object.uid, endpoints.unwrap_or_default())
    });
    gone.chain(changed).collect()
}

#[test]
fn slices_are_told_as_a_part_of_their_service_and_never_by_themselves() {
    let mut index = Index::default();
    let a = || slice("shop", "web-a", "web", &[("10.1.0.2", false, Some("web-2")), ("10.1.0.1", true, Some("web-1"))]);
    let b = |targets: &[(&str, bool, Option<&str>)]| slice("shop", "web-b", "web", targets);
    let apply = |index: &mut Index, kind, object: &Value| {
        index.apply(facts(kind, object));
        tell(index)
    };
    let mut steps = vec![
        ("a slice before its service", apply(&mut index, Kind::EndpointSlice, &a())),
        ("the service", apply(&mut index, Kind::Service, &service("web"))),
        ("another slice", apply(&mut index, Kind::EndpointSlice, &b(&[("192.0.2.7", true, None)]))),
        ("an endpoint in both: ready once is ready", apply(&mut index, Kind::EndpointSlice, &b(&[("10.1.0.2", true, Some("web-2"))]))),
        ("the same again", apply(&mut index, Kind::EndpointSlice, &b(&[("10.1.0.2", true, Some("web-2"))]))),
        ("of another namespace", apply(&mut index, Kind::EndpointSlice, &slice("other", "web-a", "web", &[("10.9.9.9", true, None)]))),
        (
            "the slice is another service's",
            apply(&mut index, Kind::EndpointSlice, &slice("shop", "web-b", "api", &[("10.1.0.2", true, None)])),
        ),
    ];
    index.delete(Kind::EndpointSlice, &facts(Kind::EndpointSlice, &a()).uid);
    steps.push(("the slice is gone", tell(&mut index)));
    index.delete(Kind::Service, &facts(Kind::Service, &service("web")).uid);
    steps.push(("the service is gone", tell(&mut index)));
    expect![[r#"
        a slice before its service
        the service
        + services-shop-web <- 10.1.0.1:8080/TCP pods-shop-web-1, 10.1.0.2:8080/TCP pods-shop-web-2 not ready
        another slice
        + services-shop-web <- 10.1.0.1:8080/TCP pods-shop-web-1, 192.0.2.7:8080/TCP , 10.1.0.2:8080/TCP pods-shop-web-2 not ready
        an endpoint in both: ready once is ready
        + services-shop-web <- 10.1.0.1:8080/TCP pods-shop-web-1, 10.1.0.2:8080/TCP pods-shop-web-2
        the same again
        of another namespace
        the slice is another service's
        + services-shop-web <- 10.1.0.1:8080/TCP pods-shop-web-1, 10.1.0.2:8080/TCP pods-shop-web-2 not ready
        the slice is gone
        + services-shop-web <- 
        the service is gone
        - services-shop-web
    "#]]
    .assert_eq(&steps.into_iter().map(|(name, text)| format!("{name}\n{text}")).collect::<String>());
    assert_eq!(index.len(Kind::EndpointSlice), 2, "the other namespace's and the other service's");
}

#[test]
fn of_a_service_of_thousands_the_first_are_told_those_that_are_ready_before_all() {
    let mut index = Index::default();
    index.apply(facts(Kind::Service, &service("web")));
    for part in 0..10 {
        let addresses = (0..100).map(|n| format!("10.{part}.0.{n}")).collect::<Vec<_>>();
        let targets = addresses.iter().map(|address| (address.as_str(), part >= 8, None)).collect::<Vec<_>>();
        index.apply(facts(Kind::EndpointSlice, &slice("shop", &format!("web-{part}"), "web", &targets)));
    }
    let told = index.take_changes(usize::MAX).changed;
    let [service] = &told[..] else { panic!("{told:#?}") };
    assert_eq!(service.endpoints.len(), ENDPOINTS_MAX);
    assert!(service.endpoints[..200].iter().all(|it| it.ready) && service.endpoints[200..].iter().all(|it| !it.ready));
    assert_eq!(service.endpoints[200].address, "10.0.0.0");
}

#[test]
fn what_is_no_address_is_no_endpoint_and_what_is_not_said_is_assumed_as_the_api_says() {
    let mut slice = slice("shop", "web-a", "web", &[]);
    slice["ports"] = json!([{"port": null}, {"port": 53, "protocol": "UDP"}, {"port": 99_999}, {"port": 1, "protocol": "QUIC"}]);
    slice["endpoints"] = json!([
        {"addresses": ["fd00::1", "fd00::2"]},
        {"addresses": ["db.example.com"], "conditions": {"ready": true}},
        {"addresses": []}, {"addresses": null}, {},
        {"addresses": ["10.1.0.1"], "conditions": {"ready": null}, "targetRef": {"kind": "Node", "uid": "n"}},
    ]);
    let mut index = Index::default();
    index.apply(facts(Kind::Service, &service("web")));
    index.apply(facts(Kind::EndpointSlice, &slice));
    slice["metadata"]["uid"] = json!("second");
    slice["ports"] = json!(null);
    index.apply(facts(Kind::EndpointSlice, &slice));
    expect![[r#"
        + services-shop-web <- 10.1.0.1:0/ , 10.1.0.1:0/TCP , 10.1.0.1:53/UDP , fd00::1:0/ , fd00::1:0/TCP , fd00::1:53/UDP 
    "#]]
    .assert_eq(&tell(&mut index));
}

#[tokio::test]
async fn a_service_without_a_selector_has_endpoints_and_they_are_followed() {
    let server = Server::start().await;
    server.put(Kind::Service, service("db"));
    server.put(Kind::Service, selecting(Kind::Service, "shop", "web", json!({"app": "web"})));
    server.put(Kind::EndpointSlice, slice("shop", "db-1", "db", &[("192.0.2.1", true, None)]));
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    let endpoints =
        |told: &Told| told.picture.objects["services-shop-db"].endpoints.iter().map(|it| it.address.clone()).collect::<Vec<_>>();
    assert_eq!(endpoints(&told), ["192.0.2.1"]);
    server.put(Kind::EndpointSlice, slice("shop", "db-1", "db", &[("192.0.2.1", true, None), ("192.0.2.2", true, None)]));
    told.until_as(&server).await;
    assert_eq!(endpoints(&told), ["192.0.2.1", "192.0.2.2"]);
    server.delete(Kind::EndpointSlice, "shop", "db-1");
    told.until_as(&server).await;
    assert!(endpoints(&told).is_empty());
    assert!(told.picture.ever_gone.is_empty());
}
