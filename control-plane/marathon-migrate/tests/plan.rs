//! What is planned, and what speaks against it.

use expect_test::{Expect, expect};
use marathon_migrate::{Action, Item, Plan, Snapshot, Source, Start, Wish};
use serde_json::{Value, json};

fn item(definition: Value, running: u64) -> Item {
    Item { definition, history: Vec::new(), running, hosts: vec!["h1".to_owned()] }
}

fn old(apps: Vec<(&str, Item)>) -> Snapshot {
    let source = Source { framework_id: Some("old".to_owned()), ..Source::default() };
    Snapshot { source, apps: apps.into_iter().map(|(id, it)| (id.to_owned(), it)).collect(), ..Snapshot::default() }
}

fn new(apps: Vec<(&str, Item)>) -> Snapshot {
    Snapshot { source: Source { framework_id: Some("new".to_owned()), ..Source::default() }, ..old(apps) }
}

fn check(from: &Snapshot, to: &Snapshot, wish: Wish, expected: &Expect) {
    let plan = Plan::new(from, to, wish);
    let mut lines = Vec::new();
    for action in &plan.actions {
        lines.push(match action {
            Action::PutGroup { id, .. } => format!("group {id}"),
            Action::Put { id, bodies, instances, wanted, there, .. } => {
                let numbers: Vec<_> = bodies.iter().map(|it| it["instances"].to_string()).collect();
                format!("put {id} {instances} of {wanted}, there {there}: {}", numbers.join(" "))
            }
        });
    }
    lines.extend(plan.same.iter().map(|it| format!("same {it}")));
    lines.extend(plan.problems.iter().map(|it| format!("problem {it}")));
    lines.extend(plan.warnings.iter().map(|it| format!("note {it}")));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn what_runs_comes_suspended_unless_somebody_says_otherwise() {
    let from =
        old(vec![("/idle", item(json!({"id": "/idle", "instances": 2}), 0)), ("/runs", item(json!({"id": "/runs", "instances": 3}), 3))]);
    let to = new(Vec::new());
    check(
        &from,
        &to,
        Wish::default(),
        &expect![[r#"
        put /idle 0 of 2, there false: 0
        put /runs 0 of 3, there false: 0"#]],
    );
    let wish = |start| Wish { start, ..Wish::default() };
    check(
        &from,
        &to,
        wish(Start::Idle),
        &expect![[r#"
        put /idle 2 of 2, there false: 2
        put /runs 0 of 3, there false: 0"#]],
    );
    check(
        &from,
        &to,
        wish(Start::All),
        &expect![[r#"
        put /idle 2 of 2, there false: 2
        put /runs 3 of 3, there false: 3
        note /runs: 3 instances run in the old one, and 3 more are started"#]],
    );
}

#[test]
fn versions_come_suspended_and_one_after_the_other() {
    let mut app = item(json!({"id": "/a", "cmd": "3", "instances": 5}), 5);
    app.history = ["1", "1", "2"].iter().map(|cmd| ((*cmd).to_owned(), json!({"id": "/a", "cmd": cmd, "instances": 1}))).collect();
    check(
        &old(vec![("/a", app)]),
        &new(Vec::new()),
        Wish { start: Start::All, overwrite: false },
        &expect![[r#"
        put /a 5 of 5, there false: 0 0 5
        note /a: 5 instances run in the old one, and 5 more are started"#]],
    );
}

#[test]
fn what_is_there_is_changed_only_by_wish_and_keeps_its_number() {
    let from =
        old(vec![("/a", item(json!({"id": "/a", "cmd": "new", "instances": 5}), 5)), ("/b", item(json!({"id": "/b", "instances": 1}), 1))]);
    let to =
        new(vec![("/a", item(json!({"id": "/a", "cmd": "old", "instances": 2}), 2)), ("/b", item(json!({"id": "/b", "instances": 7}), 7))]);
    check(
        &from,
        &to,
        Wish::default(),
        &expect![[r#"
        same /b
        problem /a is there already, and differs; --overwrite changes it"#]],
    );
    check(
        &from,
        &to,
        Wish { overwrite: true, ..Wish::default() },
        &expect![[r#"
        put /a 2 of 5, there true: 2
        same /b"#]],
    );
}

#[test]
fn one_and_the_same_marathon_is_not_imported_into_itself() {
    let one = old(Vec::new());
    check(
        &one,
        &one.clone(),
        Wish::default(),
        &expect!["problem both are the framework old: it is one and the same Marathon, or two that fight for its tasks"],
    );
}

#[test]
fn what_will_not_go_by_itself_is_told() {
    let definition = json!({
        "id": "/a", "instances": 1, "requirePorts": true, "portDefinitions": [{"port": 8080}], "secrets": {"x": {"source": "y"}},
        "constraints": [["rack", "GROUP_BY"], ["hostname", "UNIQUE"]], "container": {"volumes": [{"persistent": {"size": 1}}]},
    });
    let other = json!({"id": "/b", "portDefinitions": [{"port": 8080}]});
    check(
        &old(vec![("/a", item(definition, 1))]),
        &new(vec![("/b", item(other, 0))]),
        Wish::default(),
        &expect![[r#"
        put /a 0 of 1, there false: 0
        note /a: the service port 8080 is also that of /b, which is there already
        note /a uses secrets: their values cannot be read, and have to be brought by other means
        note /a wants the host ports [8080]: on h1 they are taken as long as the old instances run
        note /a is bound to agents by their attributes {"rack"}: the new agents must have them
        note /a has persistent volumes: what is in them stays with the old one"#]],
    );
}

#[test]
fn a_picture_comes_back_from_its_file() {
    let mut snapshot = old(vec![("/a", item(json!({"id": "/a"}), 2))]);
    snapshot.apps.get_mut("/a").unwrap().history.push(("2020".to_owned(), json!({"id": "/a", "cmd": "x"})));
    snapshot.groups.insert("/g".to_owned(), marathon_migrate::GroupFacts { dependencies: json!(["/a"]), enforce_role: Some(true) });
    assert_eq!(Snapshot::read(&snapshot.write()).unwrap(), snapshot);
    for odd in [
        json!(null),
        json!({"kind": "x"}),
        json!({"kind": "marathon-export", "format": 9}),
        json!({"kind": "marathon-export", "format": 1, "apps": [{}]}),
    ] {
        assert!(Snapshot::read(&odd).is_err());
    }
}
