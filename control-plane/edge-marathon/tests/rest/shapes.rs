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
    assert_eq!(world.post("/v2/apps", taken.clone()).await.is(409)["message"], "An app with id [/a] already exists.");
    let below = world.post("/v2/apps", json!({"id": "/a/b", "cmd": "sleep 1"})).await.is(422);
    assert_eq!(below["details"][0]["errors"][0], "Groups and Applications may not have the same identifier.");
    let mut wrong = taken.clone();
    wrong["upgradeStrategy"] = json!({"minimumHealthCapacity": 2, "maximumOverCapacity": 0});
    assert_eq!(world.post("/v2/apps", wrong).await.is(422)["details"][0]["path"], "/upgradeStrategy/minimumHealthCapacity");
    let alone = json!({"version": "2020-01-01T00:00:00.000Z"});
    for path in ["/v2/apps/a", "/v2/apps/nope"] {
        let unknown = world.put(path, alone.clone()).await.is(404);
        assert_eq!(unknown["message"], format!("App '{}' does not exist", path.strip_prefix("/v2/apps").unwrap()));
    }
    for version in [json!("2020-01-01T00:00:00.000Z"), world.get("/v2/apps/a").await.is(200)["app"]["version"].clone()] {
        let mixed = world.put("/v2/apps/a", json!({"version": version, "cmd": "x"})).await.is(422);
        assert_eq!(mixed["details"], json!([{"path": "/", "errors": ["The 'version' field may only be combined with the 'id' field."]}]));
    }
    // A whole definition is taken for what it says, whichever version it was read from.
    world.put("/v2/apps/a?partialUpdate=false&force=true", json!({"version": "2020-01-01T00:00:00.000Z", "cmd": "sleep 2"})).await.is(200);
    assert_eq!(world.get("/v2/apps/a").await.is(200)["app"]["cmd"], "sleep 2");
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

#[tokio::test]
async fn an_app_has_a_command_or_arguments_and_a_docker_container_an_image() {
    let world = World::with(|settings| settings.masters.clear()).await;
    for container in [json!({"type": "DOCKER"}), json!({"volumes": []})] {
        let app = json!({"id": "/d", "cmd": "sleep 1", "container": container});
        let refused = world.post("/v2/apps", app).await.is(422);
        assert_eq!(refused["details"], json!([{"path": "/container/docker", "errors": ["not defined"]}]));
    }
    let both = json!([{"path": "/", "errors": ["AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."]}]);
    world.post("/v2/apps", json!({"id": "/cmd", "cmd": "sleep 1"})).await.is(201);
    world.post("/v2/apps", json!({"id": "/args", "args": ["sleep", "1"]})).await.is(201);
    assert_eq!(world.put("/v2/apps/cmd?force=true", json!({"args": ["sleep", "1"]})).await.is(422)["details"], both);
    assert_eq!(world.put("/v2/apps/args?force=true", json!({"cmd": "sleep 1"})).await.is(422)["details"], both);
    // One for the other: by saying that there are none of them any more, or by saying everything anew.
    world.put("/v2/apps/args?force=true", json!({"cmd": "sleep 1", "args": []})).await.is(200);
    world.put("/v2/apps/cmd?force=true&partialUpdate=false", json!({"args": ["sleep", "1"]})).await.is(200);
    let app = world.get("/v2/apps/cmd").await.is(200)["app"].clone();
    assert_eq!((app.get("cmd"), &app["args"]), (None, &json!(["sleep", "1"])));
}

#[tokio::test]
async fn secrets_are_refused_unless_the_feature_is_on() {
    let app =
        json!({"id": "/s", "cmd": "sleep 1", "instances": 0, "env": {"PASSWORD": {"secret": "p"}}, "secrets": {"p": {"source": "/p"}}});
    let world = World::with(|settings| settings.masters.clear()).await;
    let refused = world.post("/v2/apps", app.clone()).await.is(422);
    assert_eq!(refused["details"][0]["errors"][0], "Feature secrets is not enabled. Enable with --enable_features secrets)");
    let world = World::with(|settings| {
        settings.masters.clear();
        settings.core.features.insert("secrets".to_owned());
    })
    .await;
    world.post("/v2/apps", app).await.is(201);
    assert_eq!(world.get("/v2/info").await.is(200)["marathon_config"]["features"], json!(["secrets"]));
}

#[tokio::test]
async fn every_route_says_which_methods_it_has() {
    let world = World::with(|settings| settings.access_control_allow_origin = Some("*".to_owned())).await;
    for path in [
        "/",
        "/ui/",
        "/ping",
        "/metrics",
        "/metrics/prometheus",
        "/config",
        "/help",
        "/v2/apps",
        "/v2/apps/",
        "/v2/apps/a",
        "/v2/apps/g/a",
        "/v2/apps/*",
        "/v2/apps/a/restart",
        "/v2/apps/a/versions",
        "/v2/apps/a/versions/2020-01-01T00:00:00.000Z",
        "/v2/apps/a/tasks",
        "/v2/apps/a/tasks/t",
        "/v2/apps/a/autoscale",
        "/v2/autoscale",
        "/v2/groups",
        "/v2/groups/g",
        "/v2/groups/apps",
        "/v2/groups/g/apps",
        "/v2/groups/g/versions",
        "/v2/groups/versions/2020-01-01T00:00:00.000Z",
        "/v2/pods",
        "/v2/pods/p",
        "/v2/pods/::status",
        "/v2/pods/p::status",
        "/v2/pods/p::versions",
        "/v2/pods/p::versions/x",
        "/v2/pods/p::instances",
        "/v2/pods/p::instances/i",
        "/v2/tasks",
        "/v2/tasks/delete",
        "/v2/deployments",
        "/v2/deployments/d",
        "/v2/queue",
        "/v2/queue/a/delay",
        "/v2/events",
        "/v2/info",
        "/v2/plugins",
        "/v2/leader",
    ] {
        let asked = [("origin", "http://page"), ("access-control-request-headers", "content-type")];
        let answer = world.send("OPTIONS", path, &asked, "").await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{path}");
        assert_eq!(answer.headers["access-control-allow-headers"], "content-type", "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap().to_owned();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            // The one that ends the process, and the one that only a stream is answered to.
            if matches!((method, path), ("DELETE", "/v2/leader") | ("GET", "/v2/events")) {
                continue;
            }
            let answer = world.send(method, path, &[], "").await;
            assert_eq!(answer.status != 405, allowed.split(", ").any(|it| it == method), "{method} {path}: {}", answer.text);
            if answer.status == 405 {
                assert_eq!(answer.headers["allow"], allowed.as_str(), "{method} {path}");
            }
        }
    }
    for path in ["/nope", "/v2/nope", "/v2/pods/p::nope"] {
        assert_eq!(world.send("OPTIONS", path, &[], "").await.status, 404, "{path}");
    }
    let world = World::new().await;
    let answer = world.send("OPTIONS", "/v2/apps", &[], "").await;
    assert_eq!((answer.status, answer.headers.get("access-control-allow-origin")), (200, None));
    assert_eq!(answer.headers["allow"], "GET, HEAD, POST, PUT, PATCH, OPTIONS");
}

#[tokio::test]
async fn endpoints_are_listed_in_lines_for_those_who_want_them() {
    let world = World::new().await;
    let app = |id: &str| json!({"id": id, "cmd": "sleep 1", "cpus": 0.1, "mem": 16});
    world.put("/v2/groups/g", json!({"apps": [app("/g/a"), app("/g/b")]})).await.is(200);
    world.settled().await;
    let plain = [("accept", "text/plain")];
    let all = world.send("GET", "/v2/tasks", &plain, "").await.text;
    let one = world.send("GET", "/v2/apps/g/a/tasks", &plain, "").await;
    assert_eq!(one.headers["content-type"], "text/plain");
    assert!(one.text.starts_with("g_a\t10000\t127.0.0."), "{}", one.text);
    assert_eq!(all.lines().next().map(|line| format!("{line}\n")), Some(one.text));
    assert_eq!(world.send("GET", "/v2/apps/g/*/tasks", &plain, "").await.text, all);
    assert_eq!(world.send("GET", "/v2/apps/nope/tasks", &plain, "").await.status, 404);
    assert_eq!(world.get("/v2/apps/g/a/tasks").await.is(200)["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn levels_of_loggers_are_set_shown_and_end() {
    let world = World::new().await;
    let set = world.post("/logging", json!({"level": "debug", "logger": "mesosphere.marathon", "durationSeconds": 1})).await.is(200);
    assert_eq!(set, json!({"level": "debug", "logger": "mesosphere.marathon", "durationSeconds": 1}));
    world.post("/logging", json!({"level": "WARN", "logger": "ROOT"})).await.is(200);
    assert_eq!(world.get("/logging").await.is(200), json!({"ROOT": "WARN", "mesosphere.marathon": "DEBUG"}));
    world.until("/logging", |all| all == &json!({"ROOT": "WARN"})).await;
    for (body, path) in [
        (json!({"logger": "ROOT"}), "/level"),
        (json!({"level": "loud", "logger": "ROOT"}), "/level"),
        (json!({"level": "info"}), "/logger"),
        (json!({"level": "info", "logger": "a=trace,b"}), "/logger"),
        (json!({"level": "info", "logger": "a", "durationSeconds": 0}), "/durationSeconds"),
    ] {
        let refused = world.post("/logging", body).await.is(422);
        assert!(refused["details"].as_array().unwrap().iter().any(|it| it["path"] == path), "{refused}");
    }
    world.send("POST", "/logging", &[], "{").await.is(400);
    assert_eq!(world.delete("/logging").await.status, 405);
}

/// What Marathon's own code says of each: `AppNormalization` and `validateOldAppAPI`.
#[tokio::test]
async fn ports_are_taken_in_every_spelling() {
    let world = World::new().await;
    let bridged = json!({"type": "DOCKER", "docker": {"image": "nginx", "network": "BRIDGE", "portMappings": [{"containerPort": 80}]}});
    let with = |fields: Value| {
        let mut app = json!({"id": "/ported", "instances": 0, "cmd": "sleep 1"});
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        app
    };
    let made = async |fields: Value| {
        let app = world.post("/v2/apps", with(fields)).await.is(201);
        world.delete("/v2/apps/ported").await.is(200);
        world.settled().await;
        app
    };
    let refused = async |fields: Value| {
        let error = world.post("/v2/apps", with(fields)).await.is(422);
        format!("{} {}", error["details"][0]["path"].as_str().unwrap(), error["details"][0]["errors"][0].as_str().unwrap())
    };
    let both = made(json!({"ports": [7000, 0], "portDefinitions": [{"port": 7000, "name": "a"}, {"port": 0}]})).await;
    assert_eq!(both["portDefinitions"][0], json!({"port": 7000, "name": "a", "protocol": "tcp", "labels": {}}));
    let unequal = refused(json!({"ports": [7000], "portDefinitions": [{"port": 7001}]})).await;
    assert_eq!(unequal, "/ cannot specify both ports and port definitions");
    assert_eq!(refused(json!({"ports": [7000, 7000], "container": bridged})).await, "/ ports must be unique");
    // On a bridge their number alone counts.
    for ports in [json!({"ports": [0, 0]}), json!({"portDefinitions": [{"port": 1}, {"port": 2, "name": "x"}]})] {
        let mut fields = ports.clone();
        fields["container"] = bridged.clone();
        let app = made(fields).await;
        let mappings: Vec<_> =
            app["container"]["portMappings"].as_array().unwrap().iter().map(|it| [&it["containerPort"], &it["hostPort"]]).collect();
        assert_eq!(mappings, [[&json!(80), &json!(0)], [&json!(0), &json!(0)]], "{ports}");
        assert_eq!(app["portDefinitions"], Value::Null);
    }
    // On the host's network nothing is mapped, whatever is said.
    let mapped = json!([{"containerPort": 80}]);
    for fields in [
        json!({"container": {"type": "DOCKER", "docker": {"image": "nginx", "portMappings": mapped}}}),
        json!({"container": {"type": "MESOS", "docker": {"image": "nginx"}, "portMappings": mapped}, "networks": [{"mode": "host"}]}),
    ] {
        let app = made(fields).await;
        assert_eq!(app["container"]["portMappings"], Value::Null);
        assert_eq!(app["portDefinitions"].as_array().unwrap().len(), 1);
    }
    let mesos = json!({"container": {"type": "MESOS", "docker": {"image": "nginx", "portMappings": mapped}}});
    assert_eq!(refused(mesos).await, "/container/docker/portMappings must be empty");
    let credential = json!({"container": {"type": "DOCKER", "docker": {"image": "nginx", "credential": {"principal": "p"}}}});
    assert_eq!(refused(credential).await, "/container/docker/credential must be empty");
}

#[tokio::test]
async fn what_depends_is_named_from_where_it_is_given() {
    let world = World::new().await;
    let app = |id: &str| json!({"id": id, "cmd": "sleep 1", "instances": 0, "dependencies": ["other"]});
    assert_eq!(world.post("/v2/apps", app("/deep/one")).await.is(201)["dependencies"], json!(["/other"]));
    world.put("/v2/apps/deep/two", app("/deep/two")).await.is(201);
    assert_eq!(world.get("/v2/apps/deep/two").await.is(200)["app"]["dependencies"], json!(["/other"]));
    world.post("/v2/groups", json!({"id": "/group", "apps": [app("three")]})).await.is(201);
    assert_eq!(world.get("/v2/apps/group/three").await.is(200)["app"]["dependencies"], json!(["/group/other"]));
}

#[tokio::test]
async fn nothing_is_reserved_for_everybody() {
    let world = World::new().await;
    let volume = json!({"containerPath": "data", "mode": "RW", "persistent": {"size": 5}});
    let app = |role: Value| json!({"id": "/r/a", "cmd": "sleep 1", "instances": 0, "role": role, "container": {"type": "MESOS", "volumes": [volume]}});
    let error = world.post("/v2/apps", app(Value::Null)).await.is(422);
    assert_eq!(error["details"], json!([{"path": "/role", "errors": ["Resident apps cannot have the role *"]}]));
    world.post("/v2/apps", app(json!("r"))).await.is(201);
    let pod = json!({
        "id": "/r/p", "volumes": [{"name": "v", "persistent": {"size": 5}}],
        "containers": [{"name": "c", "resources": {"cpus": 0.1, "mem": 16}, "volumeMounts": [{"name": "v", "mountPath": "v"}]}]
    });
    let error = world.post("/v2/pods", pod).await.is(422);
    assert_eq!(error["details"], json!([{"path": "/role", "errors": ["Resident pods cannot have the role *"]}]));
}
