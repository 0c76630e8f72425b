use proptest::prelude::*;

use super::*;

/// A message in the making.
struct Craft(Vec<u8>);

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
const ANY: u16 = 255;

/// Points at the question's name.
const QUESTION: &[u8] = &[0xc0, 12];

impl Craft {
    /// An answer without errors to one question.
    fn answer(name: &str, kind: u16) -> Self {
        let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(wire(name));
        message.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
        Craft(message)
    }

    fn record(mut self, owner: &[u8], kind: u16, seconds: u32, data: &[u8]) -> Self {
        self.0.extend(owner);
        self.0.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
        self.0.extend(seconds.to_be_bytes());
        self.0.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.0.extend(data);
        let count = be16(&self.0, 6) + 1;
        self.set(6, count)
    }

    fn set(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn parse(&self) -> Result<Message, MessageError> {
        parse(&self.0, true)
    }

    #[track_caller]
    fn is(&self, name: &str, addresses: &[(&str, u32)]) {
        let addresses = addresses.iter().map(|(address, seconds)| (address.parse().unwrap(), *seconds)).collect();
        assert_eq!(self.parse(), Ok(Message::Answer(Answer { name: name.to_owned(), addresses })));
    }
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[test]
fn the_addresses_of_a_name_are_read_in_lower_case() {
    let message =
        Craft::answer("GitHub.COM", A).record(QUESTION, A, 60, &[140, 82, 121, 3]).record(&wire("github.com"), A, 61, &[140, 82, 121, 4]);
    message.is("github.com", &[("140.82.121.3", 60), ("140.82.121.4", 61)]);
    let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
    Craft::answer("six.example", AAAA).record(QUESTION, AAAA, 5, &address.octets()).is("six.example", &[("2001:db8::7", 5)]);
    // A mapped address is the IPv4 address that it means.
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
    Craft::answer("mapped.example", AAAA).record(QUESTION, AAAA, 5, &mapped.octets()).is("mapped.example", &[("192.0.2.1", 5)]);
}

#[test]
fn a_question_for_everything_is_answered_with_both_kinds() {
    let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let message = Craft::answer("a.b", ANY).record(QUESTION, A, 9, &[192, 0, 2, 1]).record(QUESTION, AAAA, 8, &address.octets());
    message.is("a.b", &[("192.0.2.1", 9), ("2001:db8::7", 8)]);
}

#[test]
fn aliases_are_followed_from_the_question_in_whatever_order_they_come() {
    let message = Craft::answer("www.example.com", A)
        .record(&wire("edge.cdn.example"), A, 300, &[198, 51, 100, 9])
        .record(&wire("cdn.example"), CNAME, 20, &wire("edge.cdn.example"))
        .record(QUESTION, CNAME, 100, &wire("CDN.example"));
    message.is("www.example.com", &[("198.51.100.9", 20)]);
}

#[test]
fn what_was_not_asked_for_is_not_believed() {
    // Another owner than the question or the end of its aliases, another type, another class, and the sections behind the answer.
    let mut message = Craft::answer("mine.example", A)
        .record(&wire("bank.example"), A, 60, &[203, 0, 113, 1])
        .record(QUESTION, AAAA, 60, &[0x20; 16])
        .record(QUESTION, A, 60, &[203, 0, 113, 2])
        .record(&wire("bank.example"), A, 60, &[203, 0, 113, 3]);
    message.is("mine.example", &[("203.0.113.2", 60)]);
    // The last record is moved into the additional section.
    message = message.set(6, 3).set(10, 1);
    message.is("mine.example", &[("203.0.113.2", 60)]);
    // An alias that leads away takes the address of the question's own name along.
    let away = Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]).record(QUESTION, CNAME, 60, &wire("b.example"));
    assert_eq!(away.parse(), Ok(Message::Other));
    let mut chaos = Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]);
    let class = chaos.0.len() - 4 - 2 - 4 - 2;
    chaos = chaos.set(class, 3);
    assert_eq!(chaos.parse(), Ok(Message::Other));
}

#[test]
fn what_names_no_address_is_something_else() {
    let named = || Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]);
    assert!(matches!(named().parse(), Ok(Message::Answer(_))));
    for (what, flags) in [("a question", 0x0100), ("NXDOMAIN", 0x8183), ("SERVFAIL", 0x8182), ("a status", 0x9080), ("an update", 0xa880)] {
        assert_eq!(named().set(2, flags).parse(), Ok(Message::Other), "{what}");
    }
    assert_eq!(Craft::answer("a.example", A).parse(), Ok(Message::Other), "no answers");
    assert_eq!(Craft::answer("a.example", HTTPS).record(QUESTION, HTTPS, 60, &[0, 1, 0]).parse(), Ok(Message::Other), "hints");
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 251], [255, 255, 255, 255]] {
        assert_eq!(Craft::answer("a.example", A).record(QUESTION, A, 60, &address).parse(), Ok(Message::Other), "{address:?}");
    }
}

#[test]
fn a_message_has_one_question() {
    let message = || Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]);
    for questions in [0, 2, u16::MAX] {
        assert_eq!(message().set(4, questions).parse(), Err(MessageError::Questions(questions)));
    }
    assert_eq!(parse(&[], true), Err(MessageError::Short));
    assert_eq!(parse(&message().0[..11], true), Err(MessageError::Short));
    assert_eq!(parse(&message().0[..20], true), Err(MessageError::Short));
}

#[test]
fn a_name_that_points_at_itself_or_forth_ends() {
    let question = |name: &[u8]| {
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        parse(&message, true)
    };
    assert_eq!(question(&[0xc0, 12]), Err(MessageError::Name), "itself");
    assert_eq!(question(&[0xc0, 14, 0xc0, 12]), Err(MessageError::Name), "forth");
    assert_eq!(question(&[1, b'a', 0xc0, 12]), Err(MessageError::Name), "its own beginning");
    assert_eq!(question(&[0xc0, 0]), Err(MessageError::Name), "the header");
    assert_eq!(question(&[0x40, 0]), Err(MessageError::Name), "a label of an unknown form");
    assert_eq!(question(&[0x80, 0]), Err(MessageError::Name), "a label of an unknown form");
    // Two records whose names point at each other.
    let message = Craft::answer("a.example", A).record(&[0xc0, 29], A, 60, &[203, 0, 113, 1]);
    assert_eq!(message.parse(), Err(MessageError::Name));
}

#[test]
fn lengths_that_lie_are_noticed() {
    for data in [&[203, 0, 113][..], &[203, 0, 113, 1, 1]] {
        assert_eq!(Craft::answer("a.example", A).record(QUESTION, A, 60, data).parse(), Err(MessageError::Record));
    }
    assert_eq!(Craft::answer("a.example", AAAA).record(QUESTION, AAAA, 60, &[1; 15]).parse(), Err(MessageError::Record));
    // More data than there is, and a count of records that are not there.
    let mut message = Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]);
    let length = message.0.len() - 6;
    message = message.set(length, 400);
    assert_eq!(message.parse(), Err(MessageError::Record));
    let message = Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]).set(6, u16::MAX);
    assert_eq!(message.parse(), Err(MessageError::Record));
    // An alias whose name is shorter or longer than its record says.
    let long = [wire("b.example"), vec![7]].concat();
    assert_eq!(Craft::answer("a.example", A).record(QUESTION, CNAME, 60, &long).parse(), Err(MessageError::Record));
    assert_eq!(Craft::answer("a.example", A).record(QUESTION, CNAME, 60, &[9, b'b', 0]).parse(), Err(MessageError::Record));
}

#[test]
fn a_message_that_was_cut_is_used_as_far_as_it_is_whole() {
    let message = Craft::answer("a.example", A).record(QUESTION, A, 60, &[203, 0, 113, 1]).record(QUESTION, A, 60, &[203, 0, 113, 2]);
    let first = Ok(Message::Answer(Answer { name: "a.example".to_owned(), addresses: vec![("203.0.113.1".parse().unwrap(), 60)] }));
    let cut = &message.0[..message.0.len() - 3];
    assert_eq!(parse(cut, false), first, "by the copy");
    assert_eq!(parse(cut, true), Err(MessageError::Record));
    let mut cut = cut.to_vec();
    cut[2] |= 2;
    assert_eq!(parse(&cut, true), first, "by the server");
}

#[test]
fn a_name_that_cannot_be_written_is_refused() {
    for name in ["with blank.example", "tab\t.example", "back\\slash.example", "umlaut-ü.example", "zero\0.example", ""] {
        let message = Craft::answer(name, A).record(QUESTION, A, 60, &[203, 0, 113, 1]);
        assert_eq!(message.parse(), Err(MessageError::Unwritable), "{name:?}");
    }
    let dot = [&[3][..], b"a.b", &[0]].concat();
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend([&dot[..], &[0, 1, 0, 1], &[0; 16]].concat());
    assert_eq!(parse(&message, true), Err(MessageError::Unwritable));
    // International names are as they travel.
    Craft::answer("xn--bcher-kva.example", A)
        .record(QUESTION, A, 60, &[203, 0, 113, 1])
        .is("xn--bcher-kva.example", &[("203.0.113.1", 60)]);
}

#[test]
fn a_name_is_as_long_as_dns_allows() {
    let longest = [&"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].map(String::as_str).join(".");
    assert_eq!(longest.len(), NAME_MAX);
    Craft::answer(&longest, A).record(QUESTION, A, 60, &[203, 0, 113, 1]).is(&longest, &[("203.0.113.1", 60)]);
    let longer = format!("{longest}x");
    assert_eq!(Craft::answer(&longer, A).record(QUESTION, A, 60, &[203, 0, 113, 1]).parse(), Err(MessageError::Name));
    // 64 KiB of labels.
    let huge = "aaaaaaa.".repeat(8_000);
    assert_eq!(Craft::answer(&huge, A).parse(), Err(MessageError::Name));
}

#[test]
fn a_name_that_grows_by_pointers_is_bounded() {
    // Each name is a letter and a pointer at the one before.
    let mut message = Craft::answer("a.example", A);
    let mut before = 12;
    for _ in 0..POINTERS_MAX + 1 {
        let at = u16::try_from(message.0.len()).unwrap();
        let name = [&[1, b'x'][..], &(0xc000_u16 | before).to_be_bytes()].concat();
        message = message.record(&name, A, 60, &[203, 0, 113, 1]);
        before = at;
    }
    assert_eq!(message.parse(), Err(MessageError::Name));
}

#[test]
fn aliases_in_a_circle_end() {
    let message = Craft::answer("a.example", A).record(QUESTION, CNAME, 60, &wire("b.example")).record(
        &wire("b.example"),
        CNAME,
        60,
        &wire("a.example"),
    );
    assert_eq!(message.parse(), Err(MessageError::Aliases));
    let mut chain = Craft::answer("n0", A);
    for step in 0..=ALIASES_MAX {
        chain = chain.record(&wire(&format!("n{step}")), CNAME, 60, &wire(&format!("n{}", step + 1)));
    }
    assert_eq!(chain.parse(), Err(MessageError::Aliases));
}

#[test]
fn addresses_beyond_the_limit_are_left() {
    let mut message = Craft::answer("many.example", A);
    for number in 0..200 {
        message = message.record(QUESTION, A, 60, &[203, 0, 113, number]);
    }
    let Ok(Message::Answer(answer)) = message.parse() else { panic!("{:?}", message.parse()) };
    assert_eq!(answer.addresses.len(), ADDRESSES_MAX);
    let twice = Craft::answer("a.b", A).record(QUESTION, A, 60, &[203, 0, 113, 1]).record(QUESTION, A, 50, &[203, 0, 113, 1]);
    twice.is("a.b", &[("203.0.113.1", 60)]);
}

#[test]
fn a_time_to_live_with_its_upper_bit_set_is_none() {
    Craft::answer("a.b", A).record(QUESTION, A, 0x8000_0001, &[203, 0, 113, 1]).is("a.b", &[("203.0.113.1", 0)]);
}

fn check_bounds(message: &Message) {
    if let Message::Answer(answer) = message {
        assert!(!answer.name.is_empty() && answer.name.len() <= NAME_MAX);
        assert!(answer.name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
        assert!(!answer.addresses.is_empty() && answer.addresses.len() <= ADDRESSES_MAX);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1_300), whole: bool) {
        if let Ok(message) = parse(&bytes, whole) {
            check_bounds(&message);
        }
    }

    #[test]
    fn an_answer_with_some_bytes_changed_never_panics(
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
        length in 0_usize..200,
        whole: bool,
    ) {
        let message = Craft::answer("www.example.com", A)
            .record(QUESTION, CNAME, 100, &wire("cdn.example"))
            .record(&wire("cdn.example"), A, 300, &[198, 51, 100, 9])
            .record(&wire("cdn.example"), A, 300, &[198, 51, 100, 10]);
        let mut bytes = message.0;
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(length);
        if let Ok(message) = parse(&bytes, whole) {
            check_bounds(&message);
        }
    }
}
