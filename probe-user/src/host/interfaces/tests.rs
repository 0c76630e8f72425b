use proptest::prelude::*;

use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(name: &str, kind: Option<&str>, up: bool, numbers: &[u64]) -> Vec<u8> {
    let mut body = vec![0; MESSAGE_LEN];
    body[8..12].copy_from_slice(&u32::from(up).to_ne_bytes());
    body.extend(attribute(IFLA_IFNAME, format!("{name}\0").as_bytes()));
    if let Some(kind) = kind {
        // Nested attributes carry a flag.
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, format!("{kind}\0").as_bytes())));
    }
    body.extend(attribute(IFLA_STATS64, &numbers.iter().flat_map(|it| it.to_ne_bytes()).collect::<Vec<_>>()));
    let mut bytes = u32::try_from(body.len() + HEADER_LEN).unwrap().to_ne_bytes().to_vec();
    bytes.extend(RTM_NEWLINK.to_ne_bytes());
    bytes.resize(HEADER_LEN, 0);
    bytes.extend(body);
    bytes
}

#[test]
fn ends_of_pairs_are_one_interface() {
    let mut datagram = message("eth0", None, true, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
    for number in 0..1_000 {
        datagram.extend(message(&format!("x{number}"), Some("veth"), number == 7, &[1, 1, 10, 20, 0, 0, 0, u64::MAX / 900]));
    }
    let mut interfaces = Interfaces::default();
    assert!(!parse_links(&datagram, &mut interfaces).unwrap());
    let (told, left_out) = interfaces.finish();
    assert_eq!((told.len(), left_out), (2, 0));
    let eth0 = NetworkInterface {
        name: "eth0".to_owned(),
        up: true,
        received_bytes: 3,
        sent_bytes: 4,
        received_packets: 1,
        sent_packets: 2,
        errors: 11,
        dropped: 15,
    };
    assert_eq!(told[0], eth0);
    assert_eq!((told[1].name.as_str(), told[1].up, told[1].received_bytes, told[1].sent_bytes), (CONTAINERS_ENDS, true, 10_000, 20_000));
    assert_eq!(told[1].dropped, u64::MAX, "a sum that does not fit stays at the end");
}

#[test]
fn more_than_the_limit_are_counted() {
    let mut interfaces = Interfaces::default();
    for number in 0..300 {
        parse_links(&message(&format!("vlan{number}"), Some("vlan"), true, &[0; 8]), &mut interfaces).unwrap();
    }
    parse_links(&message("x", Some("veth"), true, &[0; 8]), &mut interfaces).unwrap();
    let (told, left_out) = interfaces.finish();
    assert_eq!((told.len(), left_out), (INTERFACES_MAX, 45));
}

#[test]
fn an_error_of_the_kernel_is_an_error() {
    let mut datagram = vec![20, 0, 0, 0];
    datagram.extend(NLMSG_ERROR.to_ne_bytes());
    datagram.resize(HEADER_LEN, 0);
    datagram.extend((-libc::EPERM).to_ne_bytes());
    let error = parse_links(&datagram, &mut Interfaces::default()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

#[test]
fn the_loopback_of_this_machine_is_up_and_both_ways_of_reading_agree() {
    let read = || (read_here().unwrap().finish().0, parse_dev(&std::fs::read("/proc/self/net/dev").unwrap()).finish().0);
    // The file does not tell which are ends of pairs unless they are named so.
    let agree = |(told, listed): &(Vec<NetworkInterface>, Vec<NetworkInterface>)| {
        let is_named = |by: &[NetworkInterface], name: &str| by.iter().any(|it| it.name == name);
        let has_ends = is_named(told, CONTAINERS_ENDS);
        told.iter().all(|it| it.name == CONTAINERS_ENDS || is_named(listed, &it.name))
            && listed.iter().all(|it| it.name == CONTAINERS_ENDS || has_ends || is_named(told, &it.name))
    };
    // Other tests make networks and take them away, also between the one reading and the other.
    let later = (0..50).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        read()
    });
    let (told, listed) = std::iter::once(read()).chain(later).find(agree).expect("they agree");
    let loopback = told.iter().find(|it| it.name == "lo").unwrap();
    assert!(loopback.up);
    let listed = listed.iter().find(|it| it.name == "lo").unwrap();
    assert!(listed.received_bytes >= loopback.received_bytes && listed.received_packets >= loopback.received_packets);
}

#[test]
fn bytes_over_the_loopback_are_counted() {
    let received = || read_here().unwrap().finish().0.into_iter().find(|it| it.name == "lo").unwrap().received_bytes;
    let before = received();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..10 {
        socket.send_to(&[7; 10_000], socket.local_addr().unwrap()).unwrap();
    }
    assert!(received() - before >= 100_000);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_interfaces_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut interfaces = Interfaces::default();
        let _ = parse_links(&bytes, &mut interfaces);
        link(&bytes);
        parse_dev(&bytes);
    }

    #[test]
    fn a_message_with_odd_bytes_in_it_is_read_or_not(at in 0..200_usize, byte in any::<u8>()) {
        let mut bytes = message("eth0", Some("veth"), true, &[1; 25]);
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        let _ = parse_links(&bytes, &mut Interfaces::default());
    }
}
