use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> BootNanos {
    BootNanos(seconds * SECOND)
}

fn ingress(cgroup_id: u64) -> Place {
    Place { hook: Hook::Ingress, cgroup_id }
}

fn egress(cgroup_id: u64) -> Place {
    Place { hook: Hook::Egress, cgroup_id }
}

fn server(socket: u64, cgroup_id: u64, network_namespace: u64, address: &str) -> Server {
    Server { socket, cgroup_id, network_namespace, address: address.parse().unwrap() }
}

/// What an action leads to.
fn effects(action: impl FnOnce(&mut Vec<Effect>)) -> Vec<Effect> {
    let mut effects = Vec::new();
    action(&mut effects);
    effects
}

fn ask(attachments: &mut Attachments, seconds: u64, cgroup_id: u64, network_namespace: u64, server: &str) -> Vec<Effect> {
    let question = Question { cgroup_id, network_namespace, server: server.parse().unwrap() };
    effects(|effects| attachments.asked(at(seconds), question, effects))
}

fn find(attachments: &mut Attachments, seconds: u64, servers: &[Server]) -> Vec<Effect> {
    effects(|effects| attachments.found(at(seconds), servers.to_vec(), true, vec!["10.0.0.1".parse().unwrap()], effects))
}

fn tick(attachments: &mut Attachments, seconds: u64) -> Vec<Effect> {
    effects(|effects| attachments.tick(at(seconds), effects))
}

/// Pods of number `n` are cgroups `n`, in slices `n / 1,000`, of which all that are below 5 are in slice 500.
fn above(cgroup_id: u64) -> Vec<u64> {
    match cgroup_id {
        1_000.. => vec![cgroup_id / 1_000, 500],
        _ => Vec::new(),
    }
}

fn auto() -> Attachments {
    let mut attachments = Attachments::new(Mode::Auto, Above(Box::new(above)));
    assert_eq!(effects(|effects| attachments.start(at(0), effects)), [Effect::Search]);
    attachments
}

#[test]
fn a_search_that_had_no_time_for_all_forgets_no_server_and_goes_on() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53"), server(2, 30, 9, "0.0.0.0")]);
    let part = effects(|effects| attachments.found(at(400), vec![server(3, 40, 8, "0.0.0.0")], false, Vec::new(), effects));
    assert_eq!(part, [Effect::Attach(egress(40))]);
    assert_eq!((attachments.len(), attachments.next_deadline()), (3, Some(at(10))));
    assert_eq!(tick(&mut attachments, 411), [Effect::Search]);
    assert_eq!(find(&mut attachments, 412, &[server(2, 30, 9, "0.0.0.0")]), [Effect::Detach(egress(20)), Effect::Detach(egress(40))]);
    assert_eq!(tick(&mut attachments, 430), []);
}

#[test]
fn another_way_of_looking_leaves_what_is_not_looked_at_any_more_and_nothing_else() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53")]);
    ask(&mut attachments, 2, 1, 4, "192.0.2.1");
    ask(&mut attachments, 2, 50, 4, "192.0.2.1");
    let mode = |attachments: &mut Attachments, seconds, mode| effects(|effects| attachments.set_mode(at(seconds), mode, effects));
    assert_eq!(mode(&mut attachments, 3, Mode::Auto), []);
    // The root is listened to already.
    assert_eq!(mode(&mut attachments, 3, Mode::All), [Effect::Detach(ingress(50)), Effect::Detach(egress(20))]);
    assert_eq!((attachments.len(), tick(&mut attachments, 1_000)), (1, Vec::new()));
    assert_eq!(mode(&mut attachments, 1_000, Mode::Off), [Effect::Detach(ingress(1))]);
    assert_eq!(mode(&mut attachments, 1_000, Mode::All), [Effect::Attach(ingress(1))]);
    assert_eq!(mode(&mut attachments, 1_001, Mode::Auto), [Effect::Search, Effect::Detach(ingress(1))]);
    assert!(attachments.is_empty());
}

#[test]
fn servers_that_are_found_are_listened_to_as_they_answer() {
    let mut attachments = auto();
    let found = [server(1, 20, 3, "127.0.0.53"), server(2, 20, 3, "127.0.0.54"), server(3, 30, 9, "0.0.0.0"), server(4, 0, 9, "::")];
    assert_eq!(find(&mut attachments, 1, &found), [Effect::Attach(egress(20)), Effect::Attach(egress(30))]);
    assert_eq!(attachments.len(), 2);
    // Both ask a server here: its answer is seen as it leaves.
    assert_eq!(ask(&mut attachments, 2, 40, 3, "127.0.0.53"), []);
    assert_eq!(ask(&mut attachments, 2, 40, 9, "127.0.0.1"), []);
    // Nobody else is looked at, however long it takes.
    assert_eq!(tick(&mut attachments, 200), []);
}

#[test]
fn who_asks_a_server_elsewhere_is_listened_to_for_as_long_as_it_asks() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53")]);
    assert_eq!(ask(&mut attachments, 10, 40, 3, "192.0.2.53"), [Effect::Attach(ingress(40))]);
    assert_eq!(ask(&mut attachments, 30, 40, 3, "192.0.2.53"), []);
    assert_eq!(attachments.next_deadline(), Some(at(60)));
    assert_eq!(tick(&mut attachments, 59), []);
    assert_eq!(tick(&mut attachments, 60), [Effect::Detach(ingress(40))]);
    assert_eq!(ask(&mut attachments, 61, 40, 3, "192.0.2.53"), [Effect::Attach(ingress(40))]);
    assert_eq!(ask(&mut attachments, 61, 0, 3, "192.0.2.53"), [], "nobody knows where");
}

#[test]
fn the_same_loopback_address_of_another_namespace_is_another_server() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53")]);
    let asked = ask(&mut attachments, 20, 40, 7, "127.0.0.53");
    assert_eq!(asked, [Effect::Attach(ingress(40)), Effect::Search], "and somebody there should serve");
    assert_eq!(ask(&mut attachments, 21, 41, 7, "127.0.0.53"), [Effect::Attach(ingress(41))], "it is being looked for");
    // A kernel that does not tell namespaces leaves only the address to go by.
    assert_eq!(ask(&mut attachments, 21, 42, 0, "127.0.0.53"), []);
}

#[test]
fn an_address_of_this_machine_is_a_server_here_if_one_serves_on_all_addresses() {
    let mut attachments = auto();
    assert_eq!(find(&mut attachments, 1, &[]), []);
    assert_eq!(ask(&mut attachments, 20, 40, 3, "10.0.0.1"), [Effect::Attach(ingress(40)), Effect::Search]);
    find(&mut attachments, 21, &[server(1, 20, 3, "0.0.0.0")]);
    assert_eq!(ask(&mut attachments, 22, 41, 3, "10.0.0.1"), []);
    assert_eq!(ask(&mut attachments, 22, 41, 3, "10.0.0.2"), [Effect::Attach(ingress(41))]);
}

#[test]
fn a_server_that_the_kernel_does_not_let_us_listen_to_is_seen_at_its_clients() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53")]);
    attachments.attached(egress(20), false);
    assert_eq!((attachments.len(), attachments.refused()), (0, 1));
    assert_eq!(ask(&mut attachments, 2, 40, 3, "127.0.0.53"), [Effect::Attach(ingress(40))]);
    attachments.attached(ingress(40), false);
    assert_eq!(ask(&mut attachments, 3, 40, 3, "127.0.0.53"), [], "not at every question");
    assert_eq!(tick(&mut attachments, 40), [], "nothing is there to detach");
    assert_eq!(ask(&mut attachments, 41, 40, 3, "127.0.0.53")[0], Effect::Attach(ingress(40)), "but once more after a while");
}

#[test]
fn a_server_that_ends_is_left() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 20, 3, "127.0.0.53"), server(2, 20, 3, "127.0.0.54"), server(3, 30, 3, "::1")]);
    assert_eq!(effects(|effects| attachments.closed(1, effects)), [], "the other socket is still there");
    assert_eq!(effects(|effects| attachments.closed(2, effects)), [Effect::Detach(egress(20))]);
    assert_eq!(effects(|effects| attachments.closed(2, effects)), []);
    assert_eq!(effects(|effects| attachments.removed(30, effects)), [Effect::Detach(egress(30))]);
    assert_eq!(effects(|effects| attachments.removed(30, effects)), []);
    assert!(attachments.is_empty());
    // One that begins later.
    assert_eq!(effects(|effects| attachments.serving(at(5), server(9, 50, 3, "::"), effects)), [Effect::Attach(egress(50))]);
    // One that is known by what it does alone adds nothing to it.
    assert_eq!(effects(|effects| attachments.serving(at(5), server(0, 50, 3, "10.0.0.1"), effects)), []);
    assert_eq!(attachments.servers.len(), 1);
}

#[test]
fn a_server_that_answers_nobody_is_looked_for_and_left_when_it_is_gone() {
    let mut attachments = auto();
    let found = [server(1, 20, 3, "127.0.0.53"), server(2, 30, 3, "127.0.0.54")];
    find(&mut attachments, 1, &found);
    attachments.answered(at(200), egress(20));
    attachments.answered(at(400), egress(30));
    assert_eq!(attachments.next_deadline(), Some(at(500)));
    assert_eq!(tick(&mut attachments, 500), [Effect::Search]);
    assert_eq!(attachments.next_deadline(), Some(at(510)), "a search that tells nothing is not repeated at once");
    assert_eq!(tick(&mut attachments, 501), []);
    assert_eq!(find(&mut attachments, 501, &found[1..]), [Effect::Detach(egress(20))]);
}

#[test]
fn places_are_bounded_and_the_idlest_client_leaves() {
    let mut attachments = auto();
    find(&mut attachments, 1, &[server(1, 2, 3, "127.0.0.53")]);
    for client in 0..63 {
        assert_eq!(ask(&mut attachments, 10, 100 + client, 3, "192.0.2.53").len(), 1);
    }
    for client in 1..63 {
        ask(&mut attachments, 12, 100 + client, 3, "192.0.2.53");
    }
    assert_eq!((attachments.len(), attachments.evicted()), (PLACES_MAX, 0));
    assert_eq!(ask(&mut attachments, 13, 500, 3, "192.0.2.53"), [], "all of them were busy just now");
    assert_eq!(attachments.evicted(), 1);
    let asked = ask(&mut attachments, 15, 500, 3, "192.0.2.53");
    assert_eq!(asked, [Effect::Detach(ingress(100)), Effect::Attach(ingress(500))]);
    assert_eq!((attachments.len(), attachments.evicted()), (PLACES_MAX, 2));
}

#[test]
fn all_is_one_place_and_off_is_none() {
    let mut all = Attachments::new(Mode::All, Above::default());
    assert_eq!(effects(|effects| all.start(at(0), effects)), [Effect::Attach(ingress(1))]);
    assert_eq!(ask(&mut all, 1, 40, 3, "192.0.2.53"), []);
    assert_eq!(find(&mut all, 1, &[server(1, 20, 3, "127.0.0.53")]), []);
    assert_eq!(tick(&mut all, 10_000), []);
    assert_eq!((all.len(), all.next_deadline()), (1, None));
    let mut off = Attachments::new(Mode::Off, Above::default());
    assert_eq!(effects(|effects| off.start(at(0), effects)), []);
    assert_eq!(ask(&mut off, 1, 40, 3, "192.0.2.53"), []);
    assert!(off.is_empty());
}

#[test]
fn when_too_many_ask_those_of_one_slice_are_listened_to_there() {
    let mut attachments = auto();
    for pod in 0..PLACES_MAX as u64 {
        // Most of them in slice 2, and few in others.
        let cgroup = if pod < 10 { 3_000 + pod } else { 2_000 + pod };
        assert_eq!(ask(&mut attachments, 10, cgroup, 3, "192.0.2.53"), [Effect::Attach(ingress(cgroup))]);
    }
    let gathered = ask(&mut attachments, 11, 2_900, 3, "192.0.2.53");
    assert_eq!(gathered[0], Effect::Attach(ingress(2)), "first, so that nothing is missed");
    assert_eq!(
        gathered[1..].iter().filter(|it| matches!(it, Effect::Detach(place) if place.cgroup_id / 1_000 == 2)).count(),
        PLACES_MAX - 10
    );
    assert_eq!((gathered.len(), attachments.len(), attachments.evicted()), (PLACES_MAX - 9, 11, 0));
    // Who asks there is listened to already; who asks elsewhere has room.
    assert_eq!(ask(&mut attachments, 12, 2_017, 3, "192.0.2.53"), []);
    assert_eq!(ask(&mut attachments, 12, 3_100, 3, "192.0.2.53"), [Effect::Attach(ingress(3_100))]);
    // It is in use as long as anybody there asks.
    assert_eq!(ask(&mut attachments, 35, 2_555, 3, "192.0.2.53"), []);
    assert!(!tick(&mut attachments, 50).contains(&Effect::Detach(ingress(2))));
    assert_eq!(tick(&mut attachments, 65), [Effect::Detach(ingress(2))]);
    assert_eq!(ask(&mut attachments, 66, 2_017, 3, "192.0.2.53"), [Effect::Attach(ingress(2_017))]);
}

#[test]
fn where_a_slice_cannot_be_listened_to_its_cgroups_are_one_by_one() {
    let mut attachments = auto();
    for pod in 0..PLACES_MAX as u64 {
        ask(&mut attachments, 10, 2_000 + pod, 3, "192.0.2.53");
    }
    assert_eq!(ask(&mut attachments, 11, 2_900, 3, "192.0.2.53")[0], Effect::Attach(ingress(2)));
    attachments.attached(ingress(2), false);
    assert_eq!(ask(&mut attachments, 12, 2_017, 3, "192.0.2.53"), [Effect::Attach(ingress(2_017))]);
    assert_eq!((attachments.len(), attachments.refused()), (1, 1));
}
