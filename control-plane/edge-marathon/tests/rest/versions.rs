//! Versions outlive the Marathon that made them.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn old_groups_can_be_seen_and_brought_back_after_a_restart() {
    let world = World::with(|settings| settings.masters.clear()).await;
    let app = |id: &str, cmd: &str| json!({"id": id, "cmd": cmd, "cpus": 0.1, "mem": 16, "instances": 0});
    world.put("/v2/groups/g", json!({"apps": [app("/g/a", "one"), app("/g/b", "one")]})).await.is(200);
    let first = world.settled_version("/v2/groups/g").await;
    world.put("/v2/groups/g?force=true", json!({"apps": [app("/g/a", "two")], "dependencies": ["/x"]})).await.is(200);
    world.delete("/v2/apps/g/a").await.is(200);
    let versions = world.get("/v2/groups/versions").await.is(200);
    assert!(versions.as_array().unwrap().len() >= 3, "{versions}");
    let path = format!("/v2/groups/g/versions/{first}");
    let before = world.get(&path).await.is(200);
    let (master, store) = world.stop().await;
    let world = World::on(master, store, |settings| settings.masters.clear()).await;
    assert_eq!(world.get("/v2/groups/versions").await.is(200), versions);
    let after = world.get(&path).await.is(200);
    assert_eq!(after, before);
    assert_eq!(after["apps"].as_array().unwrap().len(), 2);
    assert_eq!(after["dependencies"], json!([]));
    world.put("/v2/groups/g?force=true", json!({"version": first})).await.is(200);
    let apps = world.get("/v2/groups/g").await.is(200)["apps"].clone();
    let commands: Vec<_> = apps.as_array().unwrap().iter().map(|it| (it["id"].clone(), it["cmd"].clone())).collect();
    assert_eq!(commands, [(json!("/g/a"), json!("one")), (json!("/g/b"), json!("one"))]);
}
