use super::*;

const SECOND: u64 = 1_000_000_000;

fn facts(id: &str, image: &str, state: ContainerState) -> ContainerFacts {
    let record = Container {
        id: id.to_owned(),
        image_id: image.to_owned(),
        state: state.into(),
        started_at_unix_nanos: 100 * SECOND,
        runtime: "docker".to_owned(),
        exit_code: 137,
        ..Container::default()
    };
    ContainerFacts { source: Source::Docker, record, finished_at_unix_nanos: 160 * SECOND }
}

fn image(id: &str) -> Image {
    Image { id: id.to_owned(), ..Image::default() }
}

/// The clock of the boot runs with that of the world here.
fn at(seconds: u64) -> Now {
    Now { boot: BootNanos(seconds * SECOND), unix_nanos: seconds * SECOND }
}

#[test]
fn states_are_worded_as_docker_words_them() {
    let at = |state, now: u64| state_for_people(&facts("a", "i", state), now * SECOND);
    assert_eq!(at(ContainerState::Running, 100), "Up Less than a second");
    assert_eq!(at(ContainerState::Running, 159), "Up 59 seconds");
    assert_eq!(at(ContainerState::Running, 219), "Up About a minute");
    assert_eq!(at(ContainerState::Paused, 100 + 7_200), "Up 2 hours (Paused)");
    assert_eq!(at(ContainerState::Exited, 160 + 3_600), "Exited (137) About an hour ago");
    assert_eq!(at(ContainerState::Exited, 160 + 86_400 * 20), "Exited (137) 2 weeks ago");
    assert_eq!(at(ContainerState::Created, 500), "Created");
}

#[test]
fn an_outline_keeps_what_was_known_and_is_enough_for_a_stranger() {
    let mut table = ContainerTable::default();
    let outline = |id: &str, state: ContainerState| {
        let record = Container { id: id.to_owned(), name: "web".to_owned(), exit_code: 3, ..Container::default() };
        let mut facts = ContainerFacts { source: Source::Docker, record, finished_at_unix_nanos: 0 };
        facts.record.set_state(state);
        facts
    };
    let mut known = facts("a", "i", ContainerState::Running);
    known.record.hostname = "inside".to_owned();
    known.record.pid = 17;
    table.put(known, at(100));
    table.outline(outline("a", ContainerState::Paused), at(110));
    table.outline(outline("b", ContainerState::Running), at(110));
    let told = table.take_changes().containers;
    assert_eq!((told[0].name.as_str(), told[0].hostname.as_str(), told[0].pid), ("web", "inside", 17));
    assert_eq!((told[0].image_id.as_str(), told[0].state_human.as_str()), ("i", "Up 10 seconds (Paused)"));
    assert_eq!((told[1].name.as_str(), told[1].state_human.as_str()), ("web", "Up"));
    table.outline(outline("a", ContainerState::Exited), at(200));
    let told = table.take_changes().containers;
    assert_eq!((told[0].pid, told[0].exit_code), (0, 3));
    assert_eq!(told[0].state_human, "Exited (3) Less than a second ago");
}

#[test]
fn an_image_stays_while_a_container_uses_it() {
    let mut table = ContainerTable::default();
    table.put_image(image("unused"));
    assert!(!table.has_changes());
    table.put(facts("a", "i", ContainerState::Running), at(0));
    table.put(facts("b", "i", ContainerState::Running), at(0));
    table.put_image(image("i"));
    assert_eq!(table.take_changes().images.len(), 1);
    table.remove(Source::Docker, "a", at(20));
    assert!(table.take_changes().images_gone.is_empty());
    // Another image under the same name: the container was updated.
    table.put(facts("b", "j", ContainerState::Running), at(21));
    assert_eq!(table.take_changes().images_gone, ["i"]);
    table.put_image(image("j"));
    table.put(facts("b", "j", ContainerState::Paused), at(22));
    table.remove(Source::Docker, "b", at(30));
    assert_eq!(table.take_changes().images_gone, ["j"]);
    assert!(table.image_users.is_empty());
}

#[test]
fn a_fresh_list_of_one_runtime_leaves_the_others_alone() {
    let mut table = ContainerTable::default();
    let mut other = facts("c", "i", ContainerState::Running);
    other.source = Source::Cri(0);
    table.put(other, at(0));
    table.put(facts("a", "i", ContainerState::Running), at(0));
    table.put(facts("b", "i", ContainerState::Running), at(0));
    table.take_changes();
    assert_eq!(table.keep_only(Source::Docker, &BTreeSet::from(["b".to_owned()]), at(20)), ["a"]);
    assert_eq!(table.take_changes().containers_gone, ["a"]);
    assert_eq!(table.len(), 2);
}

#[test]
fn the_same_facts_again_are_no_change_but_time_is() {
    let mut table = ContainerTable::default();
    table.put(facts("a", "i", ContainerState::Running), at(130));
    table.take_changes();
    table.put(facts("a", "i", ContainerState::Running), at(130));
    assert!(!table.has_changes());
    table.refresh(230 * SECOND);
    assert_eq!(table.take_changes().containers[0].state_human, "Up 2 minutes");
}

#[test]
fn of_two_that_tell_of_one_container_the_better_is_believed() {
    let mut table = ContainerTable::default();
    let of = |source, name: &str| {
        let mut facts = facts("a", "i", ContainerState::Running);
        facts.source = source;
        facts.record.name = name.to_owned();
        facts
    };
    assert!(table.put(of(Source::Cgroup, "a1b2"), at(0)));
    table.set_cgroup("a", 7);
    assert!(table.put(of(Source::Cri(1), "web"), at(1)));
    assert!(!table.put(of(Source::Cgroup, "a1b2"), at(2)));
    assert!(table.put(of(Source::Docker, "k8s_web"), at(3)));
    assert!(!table.put(of(Source::Cri(1), "web"), at(4)));
    assert!(!table.remove(Source::Cri(1), "a", at(100)), "it is not theirs any more");
    let told = table.take_changes().containers;
    assert_eq!((told.len(), told[0].name.as_str(), told[0].cgroup_id), (1, "k8s_web", 7));
    assert!(table.remove(Source::Docker, "a", at(100)));
}

#[test]
fn a_container_that_lives_for_a_moment_stays_as_an_exited_one() {
    let mut table = ContainerTable::default();
    table.put(facts("a", "i", ContainerState::Running), at(100));
    table.remove(Source::Docker, "a", at(100));
    let told = table.take_changes();
    assert_eq!((told.containers.len(), told.containers[0].state()), (1, ContainerState::Exited));
    assert!(told.containers_gone.is_empty());
    table.retire(at(114));
    assert_eq!(table.len(), 1);
    table.retire(at(115));
    assert_eq!(table.take_changes().containers_gone, ["a"]);
    // One that is there again meanwhile stays.
    table.put(facts("b", "i", ContainerState::Running), at(200));
    table.remove(Source::Docker, "b", at(201));
    table.put(facts("b", "i", ContainerState::Running), at(202));
    table.retire(at(300));
    assert_eq!(table.len(), 1);
}

#[test]
fn what_a_lost_runtime_told_ends_with_its_cgroup() {
    let mut table = ContainerTable::default();
    table.put(facts("a", "i", ContainerState::Running), at(100));
    table.take_changes();
    table.cgroup_removed("a", at(120));
    assert!(!table.has_changes(), "Docker itself will tell");
    table.lose(Source::Docker);
    table.cgroup_removed("a", at(130));
    let told = table.take_changes().containers;
    assert_eq!((told[0].state(), told[0].state_human.as_str()), (ContainerState::Exited, "Exited (137) Less than a second ago"));
    table.keep_only(Source::Docker, &BTreeSet::from(["a".to_owned()]), at(140));
    table.put(facts("a", "i", ContainerState::Running), at(140));
    table.take_changes();
    table.cgroup_removed("a", at(150));
    assert!(!table.has_changes(), "it is back");
}

#[test]
fn a_full_table_refuses_and_counts() {
    let mut table = ContainerTable::default();
    for id in 0..CONTAINERS_MAX + 3 {
        table.put(facts(&id.to_string(), "i", ContainerState::Running), at(0));
    }
    assert_eq!((table.len(), table.refused()), (CONTAINERS_MAX, 3));
    assert!(table.put(facts("0", "i", ContainerState::Exited), at(1)), "what is there may change");
}
