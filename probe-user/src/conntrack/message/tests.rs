use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

// Recorded on Linux 6.18, with port 80 of a service address translated to port 8080 of a server, port 53 to 5353, and everything masqueraded
// that leaves the router over IPv4.

/// A new connection over IPv4.
const NEW_TCP: &str = concat!(
    "c4000000000100060000000000000000020000003400018014000180080001000a090102080002000a09600a1c0002800500010006000000060002008e340000",
    "06000300005000003400028014000180080001000a090202080002000a0902011c0002800500010006000000060002001f900000060003008e34000008000c00",
    "95414ed308000300000001b80800070000000078300004802c0001800500010001000000050002000a0000000500030000000000060004000300000006000500",
    "00000000",
);

/// A new connection over IPv6.
const NEW_TCP6: &str = concat!(
    "f40000000001000600000000000000000a0000004c0001802c00018014000300fd00000900010000000000000000000214000400fd0000090096000000000000",
    "000000101c0002800500010006000000060002008074000006000300005000004c0002802c00018014000300fd00000900020000000000000000000214000400",
    "fd0000090001000000000000000000021c0002800500010006000000060002001f900000060003008074000008000c00d210ff9f08000300000001a808000700",
    "00000078300004802c0001800500010001000000050002000a000000050003000000000006000400030000000600050000000000",
);

/// A first datagram.
const NEW_UDP: &str = concat!(
    "94000000000100060000000000000000020000003400018014000180080001000a090102080002000a09600a1c000280050001001100000006000200a0030000",
    "06000300003500003400028014000180080001000a090202080002000a0902011c00028005000100110000000600020014e9000006000300a003000008000c00",
    "8e65cba408000300000001b8080007000000001e",
);

/// A new connection of which only the source is translated.
const NEW_MASQUERADED: &str = concat!(
    "c4000000000100060000000000000000020000003400018014000180080001000a090102080002000a0902021c000280050001000600000006000200a6940000",
    "060003001f9000003400028014000180080001000a090202080002000a0902011c0002800500010006000000060002001f90000006000300a694000008000c00",
    "8d13031508000300000001980800070000000078300004802c0001800500010001000000050002000a0000000500030000000000060004000300000006000500",
    "00000000",
);

/// The end of the connection over IPv6.
const ENDED_TCP6: &str = concat!(
    "d40000000201000000000000cd1200000a0000004c0001802c00018014000300fd00000900010000000000000000000214000400fd0000090096000000000000",
    "000000101c0002800500010006000000060002008074000006000300005000004c0002802c00018014000300fd00000900020000000000000000000214000400",
    "fd0000090001000000000000000000021c0002800500010006000000060002001f900000060003008074000008000c00d210ff9f08000300000003ae08000700",
    "00000071100004800c0001800500010007000000",
);

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn told(datagram: &[u8]) -> String {
    let ends = |tuple: &Tuple| {
        let [source, destination] = [tuple.source, tuple.destination].map(|(address, port)| std::net::SocketAddr::new(address, port));
        format!("{source} > {destination}")
    };
    let mut told = String::new();
    for message in parse(datagram) {
        match message {
            Ok(Message::Entry(entry) | Message::Ended(entry)) => {
                let kind = if matches!(message, Ok(Message::Entry(_))) { "entry" } else { "ended" };
                let translated = if entry.is_translated() { "translated" } else { "not translated" };
                let Entry { id, zone, status, protocol, original, reply } = entry;
                writeln!(told, "{kind} {id:x} zone {zone} status {status:x} ({translated}) {protocol:?}").unwrap();
                writeln!(told, "  {}\n  {}", ends(&original), ends(&reply)).unwrap();
            }
            other => writeln!(told, "{other:?}").unwrap(),
        }
    }
    told
}

#[track_caller]
fn check(datagram: &[u8], expected: Expect) {
    expected.assert_eq(&told(datagram));
}

/// A message with some of its bytes exchanged for others.
fn patched(hex: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(hex.contains(from));
    bytes(&hex.replace(from, to))
}

#[test]
fn recorded_messages_are_understood() {
    let all = [NEW_TCP, NEW_TCP6, NEW_UDP, NEW_MASQUERADED, ENDED_TCP6].concat();
    check(
        &bytes(&all),
        expect![[r#"
        entry 95414ed3 zone 0 status 1b8 (translated) Tcp
          10.9.1.2:36404 > 10.9.96.10:80
          10.9.2.2:8080 > 10.9.2.1:36404
        entry d210ff9f zone 0 status 1a8 (translated) Tcp
          [fd00:9:1::2]:32884 > [fd00:9:96::10]:80
          [fd00:9:2::2]:8080 > [fd00:9:1::2]:32884
        entry 8e65cba4 zone 0 status 1b8 (translated) Udp
          10.9.1.2:40963 > 10.9.96.10:53
          10.9.2.2:5353 > 10.9.2.1:40963
        entry 8d130315 zone 0 status 198 (translated) Tcp
          10.9.1.2:42644 > 10.9.2.2:8080
          10.9.2.2:8080 > 10.9.2.1:42644
        ended d210ff9f zone 0 status 3ae (translated) Tcp
          [fd00:9:1::2]:32884 > [fd00:9:96::10]:80
          [fd00:9:2::2]:8080 > [fd00:9:1::2]:32884
    "#]],
    );
}

#[test]
fn an_entry_of_a_zone_has_its_number() {
    // CTA_ZONE before CTA_ID.
    let mut message = patched(NEW_UDP, "08000c008e65cba4", "060012000007000008000c008e65cba4");
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_ne_bytes());
    check(
        &message,
        expect![[r#"
        entry 8e65cba4 zone 7 status 1b8 (translated) Udp
          10.9.1.2:40963 > 10.9.96.10:53
          10.9.2.2:5353 > 10.9.2.1:40963
    "#]],
    );
}

#[test]
fn an_entry_of_a_protocol_without_ports_is_nothing_here() {
    check(
        &patched(NEW_UDP, "0500010011", "0500010001"),
        expect![[r#"
        Ok(Other)
    "#]],
    );
}

#[test]
fn the_ends_of_a_dump_and_answers_have_their_code() {
    let message = |kind: u16, payload: &[u8]| {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let padding = vec![0; payload.len().next_multiple_of(4) - payload.len()];
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], payload, &padding].concat()
    };
    let denied = (-libc::EPERM).to_ne_bytes();
    let all = [
        message(NLMSG_DONE, &[0; 4]),
        message(NLMSG_DONE, &[]),
        message(NLMSG_DONE, &denied),
        message(NLMSG_ERROR, &denied),
        message(NLMSG_ERROR, &[1, 2]),
        message(NLMSG_OVERRUN, &[1]),
        message(0xa03, &[]),
        message(0xa03, &[1]),
    ];
    let mut all = all.concat();
    // The last one may come without its padding.
    all.truncate(all.len() - 3);
    check(
        &all,
        expect![[r#"
        Ok(Done(0))
        Ok(Done(0))
        Ok(Done(-1))
        Ok(Answer(-1))
        Err(Length)
        Ok(Overrun)
        Ok(Other)
        Ok(Other)
    "#]],
    );
}

#[test]
fn what_is_wrong_is_said_and_what_follows_is_read() {
    let incomplete = patched(NEW_UDP, "34000280", "34000580");
    let short_address = patched(NEW_UDP, "140001800800", "140001800700");
    let long_attribute = patched(NEW_UDP, "08000c00", "ff000c00");
    let no_length = patched(NEW_UDP, "08000c00", "00000c00");
    let nfgenmsg_cut_off = [&18_u32.to_ne_bytes()[..], &IPCTNL_MSG_CT_NEW.to_ne_bytes(), &[0; 12], &[0; 2]].concat();
    let all = [incomplete, short_address, long_attribute, no_length, nfgenmsg_cut_off, bytes(NEW_MASQUERADED)];
    check(
        &all.concat(),
        expect![[r#"
        Err(Incomplete)
        Err(Attribute)
        Err(Attribute)
        Err(Attribute)
        Err(Length)
        entry 8d130315 zone 0 status 198 (translated) Tcp
          10.9.1.2:42644 > 10.9.2.2:8080
          10.9.2.2:8080 > 10.9.2.1:42644
    "#]],
    );
}

#[test]
fn a_message_that_is_cut_off_ends_the_datagram() {
    let whole = bytes(NEW_TCP);
    for length in 1..whole.len() {
        assert_eq!(parse(&whole[..length]).collect::<Vec<_>>(), [Err(Malformed::Length)], "{length} bytes");
    }
    assert_eq!(parse(&[]).count(), 0);
}

#[test]
fn a_request_asks_for_a_status_within_a_mask() {
    let request = dump_request(IPS_SRC_NAT, IPS_SRC_NAT | IPS_DST_NAT);
    let (kind, payload, length) = frame(&request).unwrap();
    assert_eq!((kind, length), (IPCTNL_MSG_CT_GET, request.len()));
    let asked: Vec<_> = attributes(&payload[GENERAL_LEN..]).map(Result::unwrap).collect();
    assert_eq!(asked, [(CTA_STATUS, &[0, 0, 0, 0x10][..]), (CTA_STATUS_MASK, &[0, 0, 0, 0x30])]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(parse(&bytes).count() <= bytes.len());
    }

    #[test]
    fn damaged_messages_never_panic_and_come_to_an_end(
        whole in proptest::sample::select(vec![NEW_TCP, NEW_TCP6, NEW_UDP, NEW_MASQUERADED, ENDED_TCP6]),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut datagram = bytes(whole);
        for (at, byte) in damage {
            *at.get_mut(&mut datagram) = byte;
        }
        prop_assert!(parse(&datagram).count() <= datagram.len());
        datagram.truncate(cut.index(datagram.len()));
        prop_assert!(parse(&datagram).count() <= datagram.len());
    }

    #[test]
    fn lengths_that_fit_reach_the_attributes_and_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let length = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let datagram = [&length.to_ne_bytes()[..], &IPCTNL_MSG_CT_NEW.to_ne_bytes(), &[0; 10], &payload].concat();
        prop_assert_eq!(parse(&datagram).count(), 1);
    }
}

/// IPVS changes the answer's tuple and marks nothing.
#[test]
fn an_entry_whose_answer_comes_from_elsewhere_is_translated_whatever_its_status_says() {
    let unmarked = patched(NEW_MASQUERADED, "0800030000000198", "0800030000000188");
    assert!(told(&unmarked).contains("status 188 (translated)"));
    let entry = |reply_to: &str| {
        let at = |text: &str| text.parse::<std::net::SocketAddr>().map(|at| (at.ip(), at.port())).unwrap();
        Entry {
            id: 1,
            zone: 0,
            status: 0x188,
            protocol: Protocol::Tcp,
            original: Tuple { source: at("10.9.1.2:4000"), destination: at("10.9.96.10:80") },
            reply: Tuple { source: at("10.9.96.10:80"), destination: at(reply_to) },
        }
    };
    assert!(!entry("10.9.1.2:4000").is_translated() && entry("10.9.1.2:4001").is_translated());
}
