use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn errors_have_marathons_shape() {
    let world = World::new().await;
    let broken = world.send("POST", "/v2/apps", &[], "{\"id\":").await.is(400);
    assert_eq!(broken["message"], "Invalid JSON");
    assert!(broken["details"].is_string());
    let empty = world.send("POST", "/v2/apps", &[], "").await.is(400);
    assert_eq!(empty["message"], "Please specify data in JSON format");
    let wrong = world.post("/v2/apps", json!({"id": 7, "instances": "two", "cpus": -1, "labels": {"a": 1}})).await.is(422);
    assert_eq!(
        wrong,
        json!({"message": "Invalid JSON", "details": [
            {"path": "/id", "errors": ["error.expected.jsstring"]},
            {"path": "/instances", "errors": ["error.expected.jsnumber"]},
            {"path": "/cpus", "errors": ["error.min"]},
            {"path": "/labels/a", "errors": ["error.expected.jsstring"]},
        ]})
    );
    let invalid = world
        .post("/v2/apps", json!({"id": "/a", "cmd": "x", "upgradeStrategy": {"minimumHealthCapacity": 2, "maximumOverCapacity": 0}}))
        .await
        .is(422);
    assert_eq!(invalid["message"], "Object is not valid");
    assert_eq!(invalid["details"][0]["path"], "/upgradeStrategy/minimumHealthCapacity");
    let nothing = world.post("/v2/apps", json!({"id": "/a"})).await.is(422);
    assert_eq!(nothing["details"][0]["errors"][0], "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
    let upper = world.post("/v2/apps", json!({"id": "/A", "cmd": "x"})).await.is(422);
    assert!(upper["details"][0]["errors"][0].as_str().unwrap().starts_with("must fully match regular expression"));
    for (method, path, status, message) in [
        ("GET", "/v2/apps/nope", 404, "App '/nope' does not exist"),
        ("DELETE", "/v2/apps/nope", 404, "App '/nope' does not exist"),
        ("POST", "/v2/apps/nope/restart", 404, "App '/nope' does not exist"),
        ("GET", "/v2/groups/nope", 404, "Group '/nope' does not exist"),
        ("DELETE", "/v2/deployments/nope", 404, "DeploymentPlan nope does not exist"),
        ("GET", "/v2/nope", 404, "URI not found"),
        ("GET", "/nope", 404, "URI not found"),
        ("POST", "/v2/info", 405, "Method Not Allowed"),
        ("GET", "/v2/plugins/x/main.js", 404, "No plugin with this pluginId: x"),
        ("GET", "/v2/groups/versions/yesterday", 422, "Invalid timestamp provided 'yesterday'. Expecting ISO-8601 datetime string."),
        ("GET", "/v2/apps?label=foo%3D", 422, "Can not parse label selector 'foo='"),
    ] {
        let answer = world.send(method, path, &[], "").await.is(status);
        assert_eq!(answer["message"], message, "{method} {path}");
    }
    let taken = json!({"id": "/a", "cmd": "sleep 1"});
    world.post("/v2/apps", taken.clone()).await.is(201);
    assert_eq!(world.post("/v2/apps", taken).await.is(409)["message"], "An app with id [/a] already exists.");
    let below = world.post("/v2/apps", json!({"id": "/a/b", "cmd": "sleep 1"})).await.is(422);
    assert_eq!(below["details"][0]["errors"][0], "Groups and Applications may not have the same identifier.");
    let version = world.put("/v2/apps/a", json!({"version": "2020-01-01T00:00:00.000Z", "cpus": 1})).await;
    assert_eq!(version.status, 422);
    let circle = world
        .put(
            "/v2/groups",
            json!({"apps": [
        {"id": "/x", "cmd": "sleep 1", "dependencies": ["/y"]}, {"id": "/y", "cmd": "sleep 1", "dependencies": ["/x"]}]}),
        )
        .await
        .is(422);
    assert_eq!(circle["details"][0]["errors"][0], "Dependency graph has cyclic dependencies.");
}

#[tokio::test]
async fn an_app_comes_back_with_its_defaults_and_in_its_new_spelling() {
    let world = World::new().await;
    let old = json!({
        "id": "bridged", "instances": 0, "cpus": 0.5, "mem": 64.0, "ports": null, "dependencies": null, "uris": ["http://x/a.tgz", "http://x/b"],
        "container": {"type": "DOCKER", "docker": {"image": "nginx", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]}},
        "healthChecks": [{"protocol": "HTTP", "path": "/h", "portIndex": 0}], "storeUrls": []
    });
    let mut app = world.post("/v2/apps", old).await.is(201);
    for key in ["version", "versionInfo", "deployments"] {
        app.as_object_mut().unwrap().remove(key);
    }
    let expected = json!({
        "id": "/bridged", "backoffFactor": 1.15, "backoffSeconds": 1, "cpus": 0.5, "disk": 0, "executor": "", "gpus": 0, "instances": 0,
        "container": {
            "type": "DOCKER",
            "docker": {"forcePullImage": false, "image": "nginx", "parameters": [], "privileged": false},
            "volumes": [],
            "portMappings": [{"containerPort": 80, "hostPort": 0, "labels": {}, "protocol": "tcp", "servicePort": 10_000}]
        },
        "fetch": [
            {"uri": "http://x/a.tgz", "extract": true, "executable": false, "cache": false},
            {"uri": "http://x/b", "extract": false, "executable": false, "cache": false}
        ],
        "healthChecks": [{
            "gracePeriodSeconds": 300, "ignoreHttp1xx": false, "intervalSeconds": 60, "ipProtocol": "IPv4", "maxConsecutiveFailures": 3,
            "path": "/h", "portIndex": 0, "protocol": "HTTP", "timeoutSeconds": 20, "delaySeconds": 15
        }],
        "killSelection": "YOUNGEST_FIRST", "labels": {}, "maxLaunchDelaySeconds": 300, "mem": 64,
        "networks": [{"mode": "container/bridge"}], "requirePorts": false, "role": "*",
        "unreachableStrategy": {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0},
        "upgradeStrategy": {"maximumOverCapacity": 1, "minimumHealthCapacity": 1},
        "tasksStaged": 0, "tasksRunning": 0, "tasksHealthy": 0, "tasksUnhealthy": 0, "tasks": []
    });
    assert_eq!(app, expected);
    // What is given back can be given again, and changes nothing.
    let shown = world.get("/v2/apps/bridged").await.is(200)["app"].clone();
    let mut again = shown.clone();
    for key in ["version", "tasks", "deployments", "tasksStaged"] {
        again.as_object_mut().unwrap().remove(key);
    }
    world.put("/v2/apps/bridged", again).await.is(200);
    assert_eq!(world.get("/v2/apps/bridged").await.is(200)["app"]["version"], shown["version"]);
}

#[tokio::test]
async fn the_server_says_who_it_is() {
    let world = World::new().await;
    assert_eq!(world.get("/ping").await.text, "pong");
    assert_eq!(world.send("GET", "/ping", &[("accept", "application/json")], "").await.text, "\"pong\"");
    let root = world.get("/").await;
    assert_eq!((root.status, root.headers["location"].to_str().unwrap()), (302, "/ui/"));
    assert_eq!(root.headers["cache-control"], "no-cache, no-store, must-revalidate");
    assert!(root.headers.contains_key("x-marathon-leader"));
    let info = world.get("/v2/info").await.is(200);
    assert_eq!(info["name"], "marathon");
    assert_eq!(info["marathon_config"]["webui_url"], Value::Null);
    let leader = world.get("/v2/leader").await.is(200);
    assert_eq!(leader["leader"], info["leader"]);
    assert_eq!(world.get("/v2/plugins").await.is(200), json!({"plugins": []}));
    let metrics = world.get("/metrics").await.is(200);
    assert!(metrics["counters"]["marathon.deployments.counter"]["count"].is_u64());
    assert_eq!(metrics["gauges"]["marathon.groups.active.gauge"]["value"], 1);
    let page = world.get("/metrics/prometheus").await.text;
    assert!(page.contains("marathon_apps_active_gauge 0"), "{page}");
}

#[tokio::test]
async fn credentials_are_asked_for_when_there_are_any() {
    let world = World::with(|settings| settings.http_credentials = Some(("user".to_owned(), "pass".to_owned()))).await;
    let refused = world.get("/v2/apps").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"Mesosphere\"");
    assert_eq!(world.send("GET", "/v2/apps", &[("authorization", "Basic dXNlcjpwYXNz")], "").await.status, 200);
}
