//! How records look in the ensemble. Pure.

use std::fmt::Write as _;

use super::Change;

/// What is in the znode of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored<'v> {
    /// A large value is being written for the first time.
    Nothing,
    /// The value.
    Whole(&'v [u8]),
    /// The value is below, in parts named by `prefix` and a number.
    InParts { prefix: String, count: usize, length: usize, checksum: u64 },
}

const NOTHING: u8 = 0;
const WHOLE: u8 = 1;
const IN_PARTS: u8 = 2;

impl Stored<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Stored::Nothing => vec![NOTHING],
            Stored::Whole(value) => {
                let mut data = Vec::with_capacity(value.len() + 1);
                data.push(WHOLE);
                data.extend_from_slice(value);
                data
            }
            Stored::InParts { prefix, count, length, checksum } => {
                let mut data = vec![IN_PARTS];
                data.extend_from_slice(format!("{prefix} {count} {length} {checksum}").as_bytes());
                data
            }
        }
    }

    pub(super) fn decode(data: &[u8]) -> Option<Stored<'_>> {
        let (head, rest) = data.split_first()?;
        match *head {
            NOTHING if rest.is_empty() => Some(Stored::Nothing),
            WHOLE => Some(Stored::Whole(rest)),
            IN_PARTS => {
                let mut words = std::str::from_utf8(rest).ok()?.split(' ');
                let stored = Stored::InParts {
                    prefix: words.next()?.to_owned(),
                    count: words.next()?.parse().ok()?,
                    length: words.next()?.parse().ok()?,
                    checksum: words.next()?.parse().ok()?,
                };
                words.next().is_none().then_some(stored)
            }
            _ => None,
        }
    }
}

/// FNV-1a, 64 bits: told apart is what was torn or mixed, not what somebody forged.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Records are spread over 256 znodes: a list of children has to fit into an answer.
pub(super) fn shard_of(key: &str) -> String {
    format!("{:02x}", checksum(key.as_bytes()) & 0xff)
}

/// A key as the name of a znode. The letter in front keeps it apart from `.` and `..`.
pub(super) fn name_of(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 1);
    name.push('k');
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'@' | b'=' | b',' => name.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    name
}

/// The key that has this name.
pub(super) fn key_of(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.strip_prefix('k')?.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A number of eight bytes; 0 when there is none.
pub(super) fn number(data: &[u8]) -> u64 {
    data.try_into().map_or(0, u64::from_be_bytes)
}

/// Changes in one value.
pub(super) fn encode_batch(changes: &[Change]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut put = |bytes: &[u8]| {
        data.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        data.extend_from_slice(bytes);
    };
    for change in changes {
        match change {
            Change::Put { key, value } => {
                put(b"put");
                put(key.as_bytes());
                put(value);
            }
            Change::Delete { key } => {
                put(b"delete");
                put(key.as_bytes());
            }
        }
    }
    data
}

/// Reads [`encode_batch`].
pub(super) fn batch_of(mut data: &[u8]) -> Option<Vec<Change>> {
    let mut take = || -> Option<Option<&[u8]>> {
        if data.is_empty() {
            return Some(None);
        }
        let length = usize::try_from(number(data.get(..8)?)).ok()?;
        let bytes = data.get(8..)?.get(..length)?;
        data = &data[8 + length..];
        Some(Some(bytes))
    };
    let mut changes = Vec::new();
    while let Some(word) = take()? {
        let key = String::from_utf8(take()??.to_vec()).ok()?;
        changes.push(match word {
            b"put" => Change::Put { key, value: take()??.to_vec() },
            b"delete" => Change::Delete { key },
            _ => return None,
        });
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_key_is_a_name_and_comes_back(key in ".*") {
            let name = name_of(&key);
            prop_assert!(!name.contains('/') && name.is_ascii());
            prop_assert_eq!(key_of(&name), Some(key));
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Stored::decode(&data), batch_of(&data), key_of(&String::from_utf8_lossy(&data)));
        }

        #[test]
        fn a_batch_comes_back_and_a_torn_one_is_refused(
            changes in proptest::collection::vec((".{0,8}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..16))), 1..5),
            cut in 1_usize..8,
        ) {
            let changes: Vec<Change> = changes.into_iter().map(|(key, value)| match value {
                Some(value) => Change::Put { key, value },
                None => Change::Delete { key },
            }).collect();
            let data = encode_batch(&changes);
            prop_assert_eq!(batch_of(&data[..data.len() - cut]), None);
            prop_assert_eq!(batch_of(&data), Some(changes));
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let in_parts = Stored::InParts { prefix: "0000000001-000001".to_owned(), count: 2, length: 7, checksum: 9 };
        for stored in [Stored::Nothing, Stored::Whole(b""), Stored::Whole(b"x"), in_parts] {
            assert_eq!(Stored::decode(&stored.encode()), Some(stored));
        }
        for rubbish in [&b""[..], b"\x00x", b"\x07", b"\x02a 1 2", b"\x02a 1 2 3 4", b"\x02a -1 2 3"] {
            assert_eq!(Stored::decode(rubbish), None);
        }
    }
}
