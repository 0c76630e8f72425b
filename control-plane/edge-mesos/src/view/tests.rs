//! Documents of a large cluster.

use std::sync::Arc;
use std::time::Instant;

use base::Timestamp;
use master::{Config, Effect, Input, LinkId, Master, Register, Registry};
use mesos_proto::v1;

use super::classic::{Document, TaskQuery, render};
use super::operator::{Question, answer, maintenance_status};
use super::*;
use crate::flags::Flags;
use crate::pieces::Runs;

/// A master with so many agents of 20 tasks each.
fn scene(agents: usize) -> Scene {
    let info = v1::MasterInfo { id: "m".to_owned(), ..v1::MasterInfo::default() };
    let mut master = Master::new(Config::new(info.clone(), 1), Registry::default(), Timestamp::EPOCH);
    let scalar = |name: &str, value: f64| v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..v1::Resource::default()
    };
    let framework = v1::FrameworkInfo {
        user: "root".to_owned(),
        name: "f".to_owned(),
        id: Some(v1::FrameworkId { value: "f".to_owned() }),
        ..v1::FrameworkInfo::default()
    };
    let mut inputs = std::collections::VecDeque::new();
    for at in 0..agents {
        let id = v1::AgentId { value: format!("old-S{at}") };
        let task = |number: usize| v1::Task {
            name: "web".to_owned(),
            task_id: v1::TaskId { value: format!("web.{at}.{number}") },
            framework_id: v1::FrameworkId { value: "f".to_owned() },
            agent_id: id.clone(),
            state: v1::TaskState::TaskRunning.into(),
            statuses: vec![v1::TaskStatus {
                task_id: v1::TaskId { value: format!("web.{at}.{number}") },
                state: v1::TaskState::TaskRunning.into(),
                message: Some("said so".to_owned()),
                reason: Some(v1::task_status::Reason::TaskHealthCheckStatusUpdated.into()),
                ..v1::TaskStatus::default()
            }],
            resources: [scalar("cpus", 0.1), scalar("mem", 32.0)]
                .map(|it| v1::Resource { allocation_info: Some(v1::resource::AllocationInfo { role: Some("*".to_owned()) }), ..it })
                .to_vec(),
            ..v1::Task::default()
        };
        let register = Register {
            info: v1::AgentInfo { hostname: format!("node{at}"), id: Some(id.clone()), ..v1::AgentInfo::default() },
            pid: "slave(1)@10.0.0.1:5051".to_owned(),
            version: "1.11.0".to_owned(),
            total_resources: vec![scalar("cpus", 16.0), scalar("mem", 65_536.0), scalar("disk", 1e6)],
            frameworks: vec![framework.clone()],
            tasks: (0..20).map(task).collect(),
            ..Register::default()
        };
        inputs.push_back(Input::Register { link: LinkId(at as u64), register: Box::new(register) });
    }
    let mut effects = Vec::new();
    while let Some(input) = inputs.pop_front() {
        master.step(Timestamp::from_unix_millis(1), input, &mut effects);
        for effect in effects.drain(..) {
            if let Effect::Persist { write, .. } = effect {
                inputs.push_front(Input::Stored { write });
            }
        }
    }
    let about = About {
        info: Arc::new(info),
        leader: None,
        started_at: Timestamp::EPOCH,
        elected_at: None,
        flags: Flags::default().shown(),
        build: Build::THIS,
    };
    Scene { view: Arc::new(View { snapshot: master.snapshot(), version: 1 }), about, viewer: sight::Viewer::default() }
}

fn whole(scene: &Scene, document: &Document) -> Vec<u8> {
    render(scene, document, &mut Runs::default()).to_vec()
}

#[test]
fn documents_of_many_agents_are_whole() {
    let scene = scene(300);
    let state: serde_json::Value = serde_json::from_slice(&whole(&scene, &Document::State { flags: true })).unwrap();
    assert_eq!(state["slaves"].as_array().unwrap().len(), 300);
    assert_eq!(state["frameworks"][0]["tasks"].as_array().unwrap().len(), 6_000);
    let summary: serde_json::Value = serde_json::from_slice(&whole(&scene, &Document::Summary)).unwrap();
    assert_eq!(summary["slaves"][7]["TASK_RUNNING"], 20);
    let response = answer(&scene, Question::State);
    let text = mesos_proto::json::to_vec(&response);
    let again: v1::master::Response = mesos_proto::json::from_slice(&text).unwrap();
    assert_eq!(again.get_state.unwrap().get_tasks.unwrap().tasks.len(), 6_000);
}

#[test]
fn states_of_tasks_are_told_in_words_to_who_asks_for_them() {
    let scene = scene(1);
    let of = |words: bool| {
        let task_id = Some("web.0.7".to_owned());
        let query = TaskQuery { limit: 100, offset: 0, ascending: false, framework_id: Some("f".to_owned()), task_id, words };
        let all: serde_json::Value = serde_json::from_slice(&whole(&scene, &Document::Tasks(query))).unwrap();
        let [task] = all["tasks"].as_array().unwrap().as_slice() else { panic!("{all}") };
        let [status] = task["statuses"].as_array().unwrap().as_slice() else { panic!("{task}") };
        (status["state"].clone(), status["message"].clone(), status["reason"].clone())
    };
    let (state, null) = (serde_json::json!("TASK_RUNNING"), serde_json::Value::Null);
    assert_eq!(of(true), (state.clone(), "said so".into(), "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED".into()));
    assert_eq!(of(false), (state, null.clone(), null), "as Mesos has it");
}

#[test]
fn answers_to_inverse_offers_are_shown_however_the_machine_is_named() {
    use v1::allocator::InverseOfferStatus;
    let mut scene = scene(2);
    let view = Arc::get_mut(&mut scene.view).unwrap();
    let framework = v1::FrameworkId { value: "f".to_owned() };
    let status = InverseOfferStatus {
        status: v1::allocator::inverse_offer_status::Status::Accept.into(),
        framework_id: framework,
        ..Default::default()
    };
    view.snapshot.inverse_statuses.insert(("old-S0".into(), "f".into()), status);
    for (hostname, ip, count) in [
        (Some("NODE0"), None, 1),
        (None, Some("10.0.0.1"), 1),
        (Some(""), Some("10.0.0.1"), 1),
        (Some("node0"), Some("10.0.0.1"), 1),
        (Some("node0"), Some("10.0.0.2"), 0),
        (None, Some("10.0.0.2"), 0),
        (Some("node1"), None, 0),
    ] {
        let machine = v1::MachineId { hostname: hostname.map(str::to_owned), ip: ip.map(str::to_owned) };
        let window = v1::maintenance::Window { machine_ids: vec![machine.clone()], ..Default::default() };
        view.snapshot.registry.schedule = v1::maintenance::Schedule { windows: vec![window] };
        assert_eq!(maintenance_status(&view.snapshot).draining_machines[0].statuses.len(), count, "{machine:?}");
    }
}

/// Measures; run by hand with `--run-ignored all --no-capture`.
#[test]
#[ignore = "a measurement, not a test"]
fn documents_of_twenty_thousand_agents() {
    let begun = Instant::now();
    let scene = scene(20_000);
    println!("registered in {:?}", begun.elapsed());
    for document in [Document::State { flags: true }, Document::Summary, Document::Agents { id: None }, Document::Roles] {
        let (begun, mut runs) = (Instant::now(), Runs::default());
        let pieces = render(&scene, &document, &mut runs);
        println!("{document:?}: {} bytes in {:?}", pieces.len(), begun.elapsed());
        let begun = Instant::now();
        println!("    {} bytes compressed in {:?}", pieces.gzip().len(), begun.elapsed());
        let begun = Instant::now();
        let pieces = render(&scene, &document, &mut runs);
        println!("    again in {:?}", begun.elapsed());
        let begun = Instant::now();
        println!("    {} bytes compressed again in {:?}", pieces.gzip().len(), begun.elapsed());
    }
    for question in [Question::State, Question::Agents, Question::Tasks] {
        let begun = Instant::now();
        let response = answer(&scene, question);
        let made = begun.elapsed();
        let bytes = mesos_proto::json::to_vec(&response).len();
        println!("{question:?}: {bytes} bytes in {:?}, {made:?} of it to make the message", begun.elapsed());
    }
}
