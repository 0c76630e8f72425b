use super::*;
use crate::observation::Counted;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

fn at(nanos: u64) -> BootNanos {
    BootNanos(100 * SECOND + nanos)
}

/// `name.example` is 203.0.113.`last`.
fn message(name: &str, last: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.push(u8::try_from(name.len()).unwrap());
    message.extend(name.as_bytes());
    message.extend(b"\x07example\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
    message.extend([203, 0, 113, last]);
    message
}

fn receive(watch: &mut Watch, nanos: u64, server: &str, hook: Hook, message: &[u8]) -> Vec<String> {
    let client = if server.starts_with("127.") { "127.0.0.1" } else { "192.0.2.7" };
    send(watch, nanos, server, client, hook, message)
}

fn send(watch: &mut Watch, nanos: u64, server: &str, client: &str, hook: Hook, message: &[u8]) -> Vec<String> {
    let (server, client) = (server.parse().unwrap(), client.parse().unwrap());
    let datagram = Datagram { at: at(nanos), hook, cgroup_id: 40, server, client, message, whole: true };
    let mut out = Vec::new();
    watch.on_datagram(at(nanos), datagram, &mut out);
    told(&out)
}

fn ask(watch: &mut Watch, nanos: u64, server: &str) -> Vec<String> {
    let client = if server.starts_with("127.") { "127.0.0.1" } else { "192.0.2.7" };
    ask_from(watch, nanos, client, server)
}

fn ask_from(watch: &mut Watch, nanos: u64, client: &str, server: &str) -> Vec<String> {
    let question = Question { cgroup_id: 40, network_namespace: 3, server: server.parse().unwrap() };
    let mut out = Vec::new();
    watch.on_event(at(nanos), Event::Asked { question, client: client.parse().unwrap() }, &mut Vec::new(), &mut out);
    told(&out)
}

fn tick(watch: &mut Watch, nanos: u64) -> Vec<String> {
    let mut out = Vec::new();
    watch.tick(at(nanos), &mut Vec::new(), &mut out);
    told(&out)
}

fn told(out: &[Observation]) -> Vec<String> {
    let told = out.iter().map(|it| match it {
        Observation::NameResolved { name, addresses, .. } => format!("{name} {}", addresses[0].0),
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[test]
fn an_answer_is_believed_from_a_server_that_was_asked() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    ask(&mut watch, 0, "192.0.2.53");
    assert_eq!(receive(&mut watch, MILLI, "192.0.2.53", Hook::Ingress, &message("a", 1)), ["a.example 203.0.113.1"]);
    assert_eq!(receive(&mut watch, MILLI, "192.0.2.66", Hook::Ingress, &message("bank", 2)), [] as [&str; 0]);
    assert_eq!(tick(&mut watch, 400 * MILLI), [] as [&str; 0]);
    assert_eq!((watch.counts().messages, watch.counts().answers, watch.counts().unasked), (2, 1, 1));
    // A minute later nobody waits for an answer of the first either.
    assert_eq!(receive(&mut watch, 60 * SECOND, "192.0.2.53", Hook::Ingress, &message("bank", 2)), [] as [&str; 0]);
    tick(&mut watch, 61 * SECOND);
    assert_eq!(watch.counts().unasked, 2);
    assert_eq!(watch.asked.size(), 0);
}

#[test]
fn an_answer_that_overtakes_its_question_waits_for_it() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    assert_eq!(receive(&mut watch, 0, "192.0.2.53", Hook::Ingress, &message("a", 1)), [] as [&str; 0]);
    assert_eq!(watch.next_deadline(), Some(at(300 * MILLI)));
    assert_eq!(ask(&mut watch, 5 * MILLI, "192.0.2.54"), [] as [&str; 0]);
    assert_eq!(ask(&mut watch, 6 * MILLI, "192.0.2.53"), ["a.example 203.0.113.1"]);
    assert_eq!(watch.counts().unasked, 0);
}

#[test]
fn a_server_of_this_machine_says_what_it_answers() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    ask(&mut watch, 0, "127.0.0.53");
    assert_eq!(receive(&mut watch, 0, "127.0.0.53", Hook::Egress, &message("a", 1)), ["a.example 203.0.113.1"]);
    // The client asked the address of a service, which is translated to that of the server.
    ask_from(&mut watch, 0, "10.1.0.7", "10.96.0.10");
    assert_eq!(send(&mut watch, 0, "10.1.0.2", "10.1.0.7", Hook::Egress, &message("b", 2)), ["b.example 203.0.113.2"]);
    // Where the address of the client is not known, its server is believed.
    ask_from(&mut watch, 0, "0.0.0.0", "10.1.0.3");
    assert_eq!(send(&mut watch, 0, "10.1.0.3", "10.1.0.8", Hook::Egress, &message("c", 3)), ["c.example 203.0.113.3"]);
}

#[test]
fn a_server_of_this_machine_is_not_believed_what_nobody_asked() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    ask_from(&mut watch, 0, "10.1.0.7", "10.1.0.2");
    ask(&mut watch, 0, "127.0.0.53");
    for (server, client) in [("10.1.0.2", "10.1.0.8"), ("10.1.0.7", "10.1.0.7"), ("127.0.0.1", "127.0.0.1")] {
        assert_eq!(send(&mut watch, MILLI, server, client, Hook::Egress, &message("bank", 2)), [] as [&str; 0], "{server} {client}");
    }
    assert_eq!(tick(&mut watch, 400 * MILLI), [] as [&str; 0]);
    assert_eq!((watch.counts().answers, watch.counts().unasked), (0, 3));
    // The question may come a little later, and is good for a minute.
    assert_eq!(send(&mut watch, SECOND, "10.1.0.2", "10.1.0.8", Hook::Egress, &message("a", 1)), [] as [&str; 0]);
    assert_eq!(ask_from(&mut watch, SECOND + MILLI, "10.1.0.8", "10.1.0.2"), ["a.example 203.0.113.1"]);
    assert_eq!(send(&mut watch, 62 * SECOND, "10.1.0.2", "10.1.0.8", Hook::Egress, &message("b", 1)), [] as [&str; 0]);
}

#[test]
fn a_socket_that_is_kept_is_believed_for_as_long_as_it_is_answered() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    // Its first question is all that it is seen to ask.
    ask_from(&mut watch, 0, "10.1.0.7", "10.1.0.2");
    for (minute, last) in (0..10).zip(1..) {
        let nanos = minute * 50 * SECOND + MILLI;
        tick(&mut watch, nanos);
        let name = format!("n{last}");
        assert_eq!(send(&mut watch, nanos, "10.1.0.2", "10.1.0.7", Hook::Egress, &message(&name, last)).len(), 1, "{name}");
    }
    // For long it has heard nothing.
    tick(&mut watch, 520 * SECOND);
    assert_eq!(send(&mut watch, 520 * SECOND, "10.1.0.2", "10.1.0.7", Hook::Egress, &message("late", 1)), [] as [&str; 0]);
}

#[test]
fn the_same_answer_is_told_once_in_a_while() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    ask(&mut watch, 0, "127.0.0.53");
    let mut leave = |nanos, name, last| receive(&mut watch, nanos, "127.0.0.53", Hook::Egress, &message(name, last)).len();
    assert_eq!((leave(0, "a", 1), leave(MILLI, "a", 1), leave(MILLI, "a", 2), leave(MILLI, "b", 1)), (1, 0, 1, 1));
    assert_eq!((leave(2 * SECOND, "a", 1), leave(2 * SECOND, "a", 1)), (1, 0));
    assert_eq!(watch.counts().answers, 6);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    for number in 0..=u16::MAX / 16 {
        let [high, low] = number.to_be_bytes();
        ask(&mut watch, u64::from(number), &format!("198.18.{high}.{low}"));
        ask(&mut watch, u64::from(number), "127.0.0.53");
        receive(&mut watch, u64::from(number), "127.0.0.53", Hook::Egress, &message(&format!("n{number}"), 1));
        receive(&mut watch, u64::from(number), "192.0.2.66", Hook::Ingress, &message("bank", 1));
    }
    assert_eq!(watch.asked.size(), crate::dns::asked::ASKED_MAX);
    assert!(watch.told.len() <= REPEATED_MAX);
    assert_eq!(watch.waiting.len(), WAITING_MAX);
    assert_eq!(watch.counts().unasked, u64::from(u16::MAX / 16) + 1 - WAITING_MAX as u64);
}

#[test]
fn bytes_that_are_no_message_are_counted() {
    let mut watch = Watch::new(Mode::Auto, Above::default());
    assert_eq!(receive(&mut watch, 0, "127.0.0.53", Hook::Egress, &[0x80; 12]), [] as [&str; 0]);
    assert_eq!((watch.counts().messages, watch.counts().malformed), (1, 1));
}

#[test]
fn datagrams_to_and_from_the_port_of_dns_concern_names() {
    let end = FlowEnd {
        pid: 7,
        start_time: None,
        cgroup_id: 40,
        network_namespace: 3,
        direction: Direction::Client,
        protocol: Protocol::Udp,
        client_address: "10.0.0.9".parse().unwrap(),
        server_address: "192.0.2.53".parse().unwrap(),
        server_port: 53,
    };
    let seen = |end| Event::of(&Observation::FlowSeen { at: at(0), end, client_port: 9, original_server: None, found_open: false });
    let question = Question { cgroup_id: 40, network_namespace: 3, server: "192.0.2.53".parse().unwrap() };
    let asked = Event::Asked { question, client: "10.0.0.9".parse().unwrap() };
    assert_eq!(seen(end), Some(asked.clone()));
    assert!(matches!(seen(FlowEnd { direction: Direction::Server, ..end }), Some(Event::Serving(Server { cgroup_id: 40, .. }))));
    assert_eq!(seen(FlowEnd { server_port: 443, ..end }), None);
    assert_eq!(seen(FlowEnd { protocol: Protocol::Tcp, ..end }), None);
    let closing = |opened| Observation::FlowCounted { last_active: at(0), end, delta: Counted { opened, closed: 1, ..Counted::default() } };
    assert_eq!((Event::of(&closing(0)), Event::of(&closing(1))), (None, Some(asked)));
    let listener = ListenerOpened {
        at: at(0),
        socket: 9,
        pid: 7,
        start_time: None,
        cgroup_id: 40,
        network_namespace: 3,
        protocol: Protocol::Udp,
        address: "127.0.0.53".parse().unwrap(),
        port: 53,
    };
    let opened = |listener| Event::of(&Observation::ListenerOpened(listener));
    let server = Server { socket: 9, cgroup_id: 40, network_namespace: 3, address: "127.0.0.53".parse().unwrap() };
    assert_eq!(opened(listener), Some(Event::Serving(server)));
    assert_eq!(
        (opened(ListenerOpened { port: 54, ..listener }), opened(ListenerOpened { protocol: Protocol::Tcp, ..listener })),
        (None, None)
    );
    assert_eq!(Event::of(&Observation::ListenerClosed { at: at(0), socket: 9 }), Some(Event::Closed(9)));
    assert_eq!(Event::of(&Observation::CgroupRemoved { at: at(0), id: 40 }), Some(Event::CgroupRemoved(40)));
}
