//! What the servers of these tests answer.
//!
//! `n7.…` is 203.0.113.7 and 2001:db8::7, and `alias7.…` is an alias of it. Other names do not exist.

const HEADER_LEN: usize = 12;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// The answer to a message.
pub(crate) fn to(question: &[u8]) -> Vec<u8> {
    let name_len = question[HEADER_LEN..].iter().position(|&byte| byte == 0).unwrap() + 1;
    let asked = &question[HEADER_LEN..HEADER_LEN + name_len + 4];
    let kind = u16::from_be_bytes([asked[name_len], asked[name_len + 1]]);
    let label = std::str::from_utf8(&asked[1..=usize::from(asked[0])]).unwrap();
    let mut records = Vec::new();
    let mut owner = vec![0xc0, 12];
    let number = label.strip_prefix("alias").inspect(|_| {
        let target = wire(&format!("target.{label}.example"));
        records.push(record(&owner, CNAME, &target));
        owner.clone_from(&target);
    });
    if let Some(Ok(number)) = number.or_else(|| label.strip_prefix('n')).map(str::parse::<u8>) {
        let address = if kind == AAAA { [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[number]].concat() } else { vec![203, 0, 113, number] };
        records.push(record(&owner, kind, &address));
    }
    // A response, recursion available; name error when there is nothing.
    let result = if records.is_empty() { 0x83 } else { 0x80 };
    let count = u8::try_from(records.len()).unwrap();
    [&question[..2], &[0x81, result, 0, 1, 0, count, 0, 0, 0, 0], asked, &records.concat()].concat()
}

/// A question.
pub(crate) fn question(id: u16, name: &str, kind: &str) -> Vec<u8> {
    let kind = if kind == "AAAA" { AAAA } else { 1 };
    [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &wire(name), &kind.to_be_bytes(), &[0, 1]].concat()
}

fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [owner, &kind.to_be_bytes(), &[0, 1], &60_u32.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
