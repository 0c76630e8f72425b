//! What agents are told to run.

use mesos_proto::v1::CommandInfo;
use serde_json::{Value, json};

use crate::world::World;

async fn command_of(world: &World, name: &str) -> CommandInfo {
    let found = |world: &World| world.master.task_infos().into_iter().find(|it| it.name == name);
    for _ in 0..500 {
        if let Some(command) = found(world).and_then(|it| it.command) {
            return command;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{name} is not launched")
}

#[tokio::test]
async fn the_first_argument_is_the_program_where_there_is_no_image() {
    let world = World::new().await;
    let app =
        |id: &str, container: Value| json!({"id": id, "args": ["/bin/sleep", "1000"], "cpus": 0.1, "mem": 16, "container": container});
    let image = json!({"image": "busybox"});
    for (name, container, program) in [
        ("plain", Value::Null, Some("/bin/sleep")),
        ("mesos", json!({"type": "MESOS"}), Some("/bin/sleep")),
        ("mesos-image", json!({"type": "MESOS", "docker": image}), None),
        ("docker", json!({"type": "DOCKER", "docker": image}), None),
    ] {
        world.post("/v2/apps", app(&format!("/{name}"), container)).await.is(201);
        let command = command_of(&world, name).await;
        assert_eq!((command.shell, command.value.as_deref()), (Some(false), program), "{name}");
        assert_eq!(command.arguments, ["/bin/sleep", "1000"], "{name}");
    }
}

#[tokio::test]
async fn an_executor_of_ones_own_is_told_what_the_app_runs() {
    let world = World::new().await;
    let app = json!({"id": "/own", "cmd": "serve --port $PORT0", "executor": "/opt/it's/executor", "cpus": 0.1, "mem": 16});
    world.post("/v2/apps", app).await.is(201);
    let executor = loop {
        match world.master.task_infos().into_iter().find(|it| it.name == "own") {
            Some(task) => break task.executor.unwrap(),
            None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let command = executor.command.unwrap();
    let path = r"'/opt/it'\''s/executor'";
    assert_eq!(command.value.unwrap(), format!("chmod ug+rx {path} && exec {path} serve --port $PORT0"));
    assert_eq!((command.shell, command.arguments.len()), (Some(true), 0));
}

#[tokio::test]
async fn the_words_of_a_pod_replace_the_entry_point_only_when_it_says_so() {
    let world = World::new().await;
    for (name, image, overrides, program) in [
        ("bare", Value::Null, Value::Null, Some("/bin/sleep")),
        ("bare-not", Value::Null, json!(false), Some("/bin/sleep")),
        ("image", json!({"kind": "DOCKER", "id": "busybox"}), Value::Null, None),
        ("image-over", json!({"kind": "DOCKER", "id": "busybox"}), json!(true), Some("/bin/sleep")),
    ] {
        let exec = json!({"command": {"argv": ["/bin/sleep", "1000"]}, "overrideEntrypoint": overrides});
        let container = json!({"name": name, "exec": exec, "resources": {"cpus": 0.1, "mem": 16}, "image": image});
        world.post("/v2/pods", json!({"id": format!("/{name}"), "containers": [container]})).await.is(201);
        let command = command_of(&world, name).await;
        assert_eq!((command.shell, command.value.as_deref()), (Some(false), program), "{name}");
        assert_eq!(command.arguments, ["/bin/sleep", "1000"], "{name}");
    }
}
