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
    table.lose(Source::Docker, at(125));
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

#[test]
fn those_that_ended_first_give_way_to_those_that_run() {
    let mut table = ContainerTable::default();
    let ended = |id: usize| {
        let mut facts = facts(&format!("{id:05}"), "i", ContainerState::Exited);
        facts.finished_at_unix_nanos = (10_000 - id as u64) * SECOND;
        facts
    };
    (0..CONTAINERS_MAX).for_each(|id| assert!(table.put(ended(id), at(0))));
    table.take_changes();
    assert!(table.put(facts("running", "i", ContainerState::Running), at(1)));
    assert_eq!(table.take_changes().containers_gone, [format!("{:05}", CONTAINERS_MAX - 1)], "it ended before all others");
    assert!(!table.put(ended(CONTAINERS_MAX), at(1)), "an even older one");
    let mut late = ended(0);
    (late.record.id, late.finished_at_unix_nanos) = ("late".to_owned(), 20_000 * SECOND);
    assert!(table.put(late, at(1)));
    assert_eq!((table.len(), table.refused()), (CONTAINERS_MAX, 3));
    assert!(table.source_of("running").is_some());
}

/// Of a CRI runtime and of Docker, each with a first process.
fn of_two_runtimes() -> ContainerTable {
    let mut table = ContainerTable::default();
    let of = |id: &str, source, state, pid| {
        let mut facts = facts(id, "i", state);
        (facts.source, facts.record.pid) = (source, pid);
        facts
    };
    table.put(of("a", Source::Docker, ContainerState::Running, 7), at(100));
    table.put(of("b", Source::Docker, ContainerState::Running, 8), at(100));
    table.put(of("old", Source::Docker, ContainerState::Exited, 0), at(100));
    table.put(of("c", Source::Cri(1), ContainerState::Running, 9), at(100));
    table.take_changes();
    table
}

#[test]
fn what_a_lost_runtime_told_ends_with_its_first_process_and_is_forgotten() {
    let mut table = of_two_runtimes();
    table.walked(at(110), at(110).boot, |pid| pid < 10, |_| false);
    table.lose(Source::Docker, at(120));
    table.walked(at(130), at(130).boot, |pid| pid == 8, |_| false);
    let told = table.take_changes();
    assert_eq!(told.containers.iter().map(|it| (it.id.as_str(), it.state())).collect::<Vec<_>>(), [("a", ContainerState::Exited)]);
    table.walked(at(719), at(719).boot, |pid| pid == 8, |_| false);
    assert!(!table.has_changes());
    table.walked(at(720), at(720).boot, |pid| pid == 8, |_| false);
    assert_eq!(table.take_changes().containers_gone, ["old"], "it was over when the runtime was lost");
    table.walked(at(730), at(730).boot, |pid| pid == 8, |_| false);
    assert_eq!(table.take_changes().containers_gone, ["a"]);
    table.walked(at(99_999), at(99_999).boot, |pid| pid == 8, |_| false);
    assert_eq!(table.len(), 2, "one runs, and the other is of a runtime that answers");
    table.keep_only(Source::Docker, &BTreeSet::from(["b".to_owned()]), at(100_000));
    table.walked(at(100_001), at(100_001).boot, |_| false, |_| false);
    assert!(!table.has_changes(), "it is back, and will say so itself");
}

#[test]
fn where_no_first_process_is_seen_its_absence_says_nothing() {
    let mut table = of_two_runtimes();
    table.lose(Source::Docker, at(120));
    table.walked(at(130), at(130).boot, |_| false, |_| false);
    assert!(!table.has_changes());
    table.walked(at(131), at(99).boot, |pid| pid == 9, |_| false);
    table.walked(at(132), at(99).boot, |pid| pid == 7, |_| false);
    assert!(!table.has_changes(), "the walk may have been before they began");
    table.visible.clear();
    // Nothing was heard and nothing was seen for long.
    table.walked(at(720), at(720).boot, |_| false, |id| id == "a");
    assert_eq!(table.take_changes().containers_gone, ["b", "old"]);
}

#[test]
fn what_is_not_followed_any_more_is_forgotten_at_once() {
    let mut table = of_two_runtimes();
    let mut better = facts("d", "i", ContainerState::Running);
    better.source = Source::Cri(2);
    table.put(better.clone(), at(120));
    assert_eq!(table.unfollow(Source::Cri(2)), ["d"]);
    assert_eq!(table.take_changes().containers_gone, ["d"]);
    better.source = Source::Cri(1);
    assert!(table.put(better, at(121)), "a lesser source may tell of it now");
    assert_eq!(table.unfollow(Source::Docker), ["a", "b", "old"]);
}

#[test]
fn a_socket_is_one_source_wherever_it_stands_in_a_list() {
    let source = |path: &str| Source::of_cri_socket(Path::new(path));
    assert_eq!(source("/run/k3s/containerd/containerd.sock"), source("/run/k3s/containerd/containerd.sock"));
    assert_ne!(source("/run/k3s/containerd/containerd.sock"), source("/run/containerd/containerd.sock"));
    assert!(Source::Cgroup < source("/a") && source("/a") < Source::Docker);
}
