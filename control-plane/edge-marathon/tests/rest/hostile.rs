//! Definitions that nobody in his right mind would send, and some that are nearly right.

use scheduler::IdGen;
use serde_json::{Value, json};

use crate::world::World;

fn junk(rng: &mut IdGen, depth: usize) -> Value {
    match rng.below(if depth > 2 { 9 } else { 11 }) {
        0 => Value::Null,
        1 => json!(rng.below(5)),
        2 => json!(-1),
        3 => json!(1e300),
        4 => json!(0.5),
        5 => json!(["", "/", "..", "a/b", "HTTP", "RO", "unlimited", "\u{0}\n<é>", "(", "*", "disabled"][rng.below(11)]),
        6 => json!("x".repeat(rng.below(300))),
        7 => json!(rng.below(2) == 0),
        8 => json!(u64::MAX),
        9 => Value::Array((0..rng.below(3)).map(|_| junk(rng, depth + 1)).collect()),
        _ => {
            let keys = ["id", "mode", "port", "protocol", "persistent", "size", "secret", "http", "value", "name", "labels"];
            (0..rng.below(4))
                .map(|_| (keys[rng.below(keys.len())].to_owned(), junk(rng, depth + 1)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
    }
}

/// Puts junk somewhere in `value`.
fn spoil(value: &mut Value, rng: &mut IdGen) {
    let stop = rng.below(3) == 0;
    match value {
        Value::Object(fields) if !stop && !fields.is_empty() => {
            let at = rng.below(fields.len());
            let key = fields.keys().nth(at).unwrap().clone();
            if rng.below(8) == 0 {
                fields.remove(&key);
            } else {
                spoil(fields.get_mut(&key).unwrap(), rng);
            }
        }
        Value::Array(items) if !stop && !items.is_empty() => {
            let at = rng.below(items.len());
            spoil(&mut items[at], rng);
        }
        other => *other = junk(rng, 0),
    }
}

fn whole_app(at: usize) -> Value {
    json!({
        "id": format!("/fuzz/a{at}"), "cmd": "sleep 1", "cpus": 0.1, "mem": 16, "disk": 0, "instances": 1, "user": "nobody", "tty": true,
        "env": {"A": "b", "S": {"secret": "s"}}, "secrets": {"s": {"source": "/x"}}, "labels": {"HAPROXY_GROUP": "external"},
        "constraints": [["hostname", "UNIQUE"], ["rack", "GROUP_BY", "2"]], "fetch": [{"uri": "http://x/y.tgz"}], "acceptedResourceRoles": ["*"],
        "networks": [{"mode": "container", "name": "net"}], "dependencies": ["/other"], "role": "fuzz",
        "container": {
            "type": "MESOS", "docker": {"image": "nginx", "parameters": []},
            "volumes": [{"containerPath": "data", "mode": "RW", "persistent": {"size": 5, "type": "root"}}, {"containerPath": "/h", "hostPath": "/h", "mode": "RO"}],
            "portMappings": [{"containerPort": 80, "hostPort": 0, "name": "web", "labels": {"VIP_0": "/x:80"}}],
            "linuxInfo": {"seccomp": {"unconfined": true}, "ipcInfo": {"mode": "PRIVATE", "shmSize": 4}}
        },
        "healthChecks": [{"protocol": "HTTP", "path": "/", "portIndex": 0}, {"protocol": "COMMAND", "command": {"value": "true"}}],
        "check": {"tcp": {"portIndex": 0}}, "readinessChecks": [{"portName": "web"}],
        "upgradeStrategy": {"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0}, "unreachableStrategy": "disabled",
        "backoffSeconds": 1, "backoffFactor": 1.5, "maxLaunchDelaySeconds": 10, "killSelection": "OLDEST_FIRST",
        "resourceLimits": {"cpus": "unlimited", "mem": 64}, "executorResources": {"cpus": 0.1, "mem": 32, "disk": 10}
    })
}

fn whole_pod(at: usize) -> Value {
    json!({
        "id": format!("/fuzz/p{at}"), "labels": {"a": "b"}, "environment": {"A": "b"}, "networks": [{"mode": "container/bridge"}],
        "containers": [{
            "name": "one", "exec": {"command": {"shell": "sleep 1"}}, "resources": {"cpus": 0.1, "mem": 16},
            "endpoints": [{"name": "web", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"]}], "image": {"kind": "DOCKER", "id": "nginx"},
            "healthCheck": {"http": {"endpoint": "web", "path": "/"}}, "volumeMounts": [{"name": "v", "mountPath": "x"}],
            "artifacts": [{"uri": "http://x"}], "lifecycle": {"killGracePeriodSeconds": 3}
        }],
        "volumes": [{"name": "v"}], "scaling": {"kind": "fixed", "instances": 1},
        "scheduling": {"backoff": {"backoff": 1, "backoffFactor": 1.1}, "upgrade": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
            "placement": {"constraints": [{"fieldName": "rack", "operator": "LIKE", "value": "r1"}], "acceptedResourceRoles": ["*"]},
            "killSelection": "YOUNGEST_FIRST", "unreachableStrategy": {"inactiveAfterSeconds": 1, "expungeAfterSeconds": 2}}
    })
}

fn has_error_shape(body: &Value) -> bool {
    let one = |it: &Value| {
        it["path"].is_string() && it["errors"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_string))
    };
    body["message"].is_string()
        && match &body["details"] {
            Value::Null | Value::String(_) => true,
            Value::Array(all) => !all.is_empty() && all.iter().all(one),
            _ => false,
        }
}

#[tokio::test]
async fn ten_thousand_definitions_cause_no_failure() {
    let world = World::with(|settings| {
        settings.masters.clear();
        settings.core.max_instances = 5_000;
        for feature in ["secrets", "external_volumes", "gpu_resources"] {
            settings.core.features.insert(feature.to_owned());
        }
    })
    .await;
    let mut rng = IdGen::new(42);
    let (mut made, mut refused) = (0, 0);
    for at in 0..10_000 {
        let pod = at % 4 == 3;
        let mut body = if pod { whole_pod(at) } else { whole_app(at % 500) };
        for _ in 0..rng.below(4) {
            spoil(&mut body, &mut rng);
        }
        let (method, path) = match (pod, at % 4) {
            (true, _) => ("POST", "/v2/pods?force=true".to_owned()),
            (false, 0) => ("PUT", format!("/v2/apps/fuzz/a{}?force=true", at % 500)),
            (false, 1) => ("POST", "/v2/apps?force=true".to_owned()),
            (false, _) => {
                body = json!({"apps": [body]});
                ("PUT", "/v2/groups/fuzz/g?force=true".to_owned())
            }
        };
        let text = body.to_string();
        let answer = world.send(method, &path, &[], text.clone()).await;
        match answer.status {
            200 | 201 => made += 1,
            400 | 409 | 422 => {
                refused += 1;
                assert!(has_error_shape(&answer.json()), "{} for {text}", answer.text);
            }
            other => panic!("{other} {} for {method} {path} {text}", answer.text),
        }
    }
    assert!(made > 1_000 && refused > 1_000, "{made} made, {refused} refused");
    world.get("/v2/apps?embed=apps.tasks&embed=apps.taskStats&embed=apps.readiness").await.is(200);
    world.get("/v2/pods/::status").await.is(200);
    world.get("/v2/groups").await.is(200);
    world.get("/v2/queue").await.is(200);
    // All of it is understood by the next run.
    let (master, store) = world.stop().await;
    let world = World::on(master, store, |settings| settings.masters.clear()).await;
    world.get("/v2/apps").await.is(200);
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_are_refused() {
    let world = World::with(|settings| settings.max_body = 10_000).await;
    for (body, status) in [
        (b"\xff\xfe".to_vec(), 400),
        (b"[".repeat(5_000), 400),
        (b"{\"id\":\"/a\",\"cmd\":\"".iter().copied().chain(std::iter::repeat_n(b'x', 20_000)).collect(), 413),
        (b"[]".to_vec(), 422),
        (b"7".to_vec(), 422),
        (b"null".to_vec(), 422),
    ] {
        let answer = world.send("POST", "/v2/apps", &[], body).await.is(status);
        assert!(has_error_shape(&answer), "{answer}");
    }
    for path in
        ["/v2/apps/%ff", "/v2/apps/%2e%2e/x", "/v2/apps/////", "/v2/groups/..", "/v2/pods/::::", "/v2/tasks/%00", "/v2//", "//v2/apps"]
    {
        let answer = world.get(path).await;
        assert!(answer.status < 500, "{path}: {}", answer.text);
    }
}
