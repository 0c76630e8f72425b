use serde::{Deserialize, Serialize};

use crate::node::{AclPending, Base, Hash, Key, PerSide, Seen, Side, key_text};
use crate::tombstone::Tombstone;

/// What a transaction did, as it is written with it into a slot of the side that it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Number of the transaction in its direction.
    pub sequence: u64,
    /// One for each operation.
    pub records: Vec<Record>,
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The pair.
    #[serde(with = "key_text")]
    pub key: Key,
    /// The state of the source that was copied; none for a delete.
    pub source: Option<Seen>,
    /// What it made of the target, where the transaction's number stands for `mzxid`; `czxid` is 0 for a create. Of a delete, what it was to find.
    pub target: Seen,
    /// What the data hash to.
    pub data: Hash,
    /// What the access control list hashes to.
    pub acl: u64,
    /// Bytes of the data.
    pub size: u32,
    /// The copy is ephemeral.
    pub shadow: bool,
}

/// Grows when older programs could not read what newer ones write.
const SLOT_FORMAT: u8 = 1;
const BASE_FORMAT: u8 = 1;
const TOMBSTONE_FORMAT: u8 = 1;

impl Record {
    /// Bytes in a slot.
    pub(crate) fn length(&self) -> usize {
        2 + self.key.len() + 1 + 24 + 24 + 16 + 8 + 4
    }
}

impl Slot {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.records.iter().map(Record::length).sum::<usize>());
        bytes.push(SLOT_FORMAT);
        bytes.extend(self.sequence.to_le_bytes());
        for record in &self.records {
            // A path is at most as long as a request, which is below 64 KiB for every path that a client can have created in practice;
            // longer ones are refused before (see `PATH_MAX`).
            let length = u16::try_from(record.key.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend(&record.key.as_bytes()[..usize::from(length)]);
            bytes.push(u8::from(record.source.is_some()) | u8::from(record.shadow) << 1);
            put_seen(&mut bytes, &record.source.unwrap_or_default());
            put_seen(&mut bytes, &record.target);
            bytes.extend(record.data);
            bytes.extend(record.acl.to_le_bytes());
            bytes.extend(record.size.to_le_bytes());
        }
        bytes
    }

    /// From bytes; none when they are no slot, e.g. those of an empty one.
    pub fn decode(bytes: &[u8]) -> Option<Slot> {
        let mut bytes = Bytes(bytes);
        if bytes.take::<1>()? != [SLOT_FORMAT] {
            return None;
        }
        let sequence = u64::from_le_bytes(bytes.take()?);
        let mut records = Vec::new();
        while !bytes.0.is_empty() {
            let length = u16::from_le_bytes(bytes.take()?);
            let key = std::str::from_utf8(bytes.some(usize::from(length))?).ok()?.into();
            let [flags] = bytes.take()?;
            let source = bytes.seen()?;
            records.push(Record {
                key,
                source: (flags & 1 != 0).then_some(source),
                target: bytes.seen()?,
                data: bytes.take()?,
                acl: u64::from_le_bytes(bytes.take()?),
                size: u32::from_le_bytes(bytes.take()?),
                shadow: flags & 2 != 0,
            });
        }
        Some(Slot { sequence, records })
    }
}

impl Base {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        bytes.push(BASE_FORMAT);
        bytes.push(side_byte(self.shadow_of));
        put_seen(&mut bytes, &self.seen.a);
        put_seen(&mut bytes, &self.seen.b);
        bytes.extend(self.data);
        bytes.extend(self.acl.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        if let Some(pending) = &self.pending {
            bytes.push(side_byte(Some(pending.side)));
            bytes.extend(pending.aversion.to_le_bytes());
            bytes.extend(pending.acl.to_le_bytes());
            put_seen(&mut bytes, &pending.source);
        }
        bytes
    }

    /// From bytes; none when they are no base.
    pub fn decode(bytes: &[u8]) -> Option<Base> {
        let mut bytes = Bytes(bytes);
        let [format, shadow] = bytes.take()?;
        let seen = PerSide { a: bytes.seen()?, b: bytes.seen()? };
        let base = Base {
            seen,
            data: bytes.take()?,
            acl: u64::from_le_bytes(bytes.take()?),
            size: u32::from_le_bytes(bytes.take()?),
            shadow_of: side_of(shadow),
            pending: None,
        };
        let pending = if bytes.0.is_empty() {
            None
        } else {
            let [side] = bytes.take()?;
            let aversion = i32::from_le_bytes(bytes.take()?);
            Some(AclPending { side: side_of(side)?, aversion, acl: u64::from_le_bytes(bytes.take()?), source: bytes.seen()? })
        };
        let base = Base { pending, ..base };
        (format == BASE_FORMAT && bytes.0.is_empty()).then_some(base)
    }
}

impl Tombstone {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(60);
        bytes.extend([TOMBSTONE_FORMAT, side_byte(self.by), u8::from(self.data.is_some())]);
        bytes.extend(self.newest.a.to_le_bytes());
        bytes.extend(self.newest.b.to_le_bytes());
        bytes.extend(self.data.unwrap_or_default());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.from_ms.to_le_bytes());
        bytes.extend(self.to_ms.to_le_bytes());
        bytes
    }

    /// From bytes; none when they are no tombstone.
    pub fn decode(bytes: &[u8]) -> Option<Tombstone> {
        let mut bytes = Bytes(bytes);
        let [format, by, has_data] = bytes.take()?;
        let newest = PerSide { a: i64::from_le_bytes(bytes.take()?), b: i64::from_le_bytes(bytes.take()?) };
        let data: Hash = bytes.take()?;
        let tombstone = Tombstone {
            by: side_of(by),
            newest,
            data: (has_data != 0).then_some(data),
            size: u32::from_le_bytes(bytes.take()?),
            from_ms: u64::from_le_bytes(bytes.take()?),
            to_ms: u64::from_le_bytes(bytes.take()?),
        };
        (format == TOMBSTONE_FORMAT && bytes.0.is_empty()).then_some(tombstone)
    }
}

fn side_byte(side: Option<Side>) -> u8 {
    match side {
        None => 0,
        Some(Side::A) => 1,
        Some(Side::B) => 2,
    }
}

fn side_of(byte: u8) -> Option<Side> {
    match byte {
        1 => Some(Side::A),
        2 => Some(Side::B),
        _ => None,
    }
}

fn put_seen(bytes: &mut Vec<u8>, seen: &Seen) {
    bytes.extend(seen.czxid.to_le_bytes());
    bytes.extend(seen.mzxid.to_le_bytes());
    bytes.extend(seen.version.to_le_bytes());
    bytes.extend(seen.aversion.to_le_bytes());
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn some(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.some(N)?.try_into().ok()
    }

    fn seen(&mut self) -> Option<Seen> {
        Some(Seen {
            czxid: i64::from_le_bytes(self.take()?),
            mzxid: i64::from_le_bytes(self.take()?),
            version: i32::from_le_bytes(self.take()?),
            aversion: i32::from_le_bytes(self.take()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_bases_come_back_as_they_were_and_garbage_does_not() {
        let seen = Seen { czxid: 1, mzxid: -2, version: 3, aversion: 4 };
        let record = |source| Record { key: "/ä/b".into(), source, target: seen, data: [7; 16], acl: 9, size: 10, shadow: true };
        let slot = Slot { sequence: u64::MAX, records: vec![record(Some(seen)), record(None)] };
        let bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes).as_ref(), Some(&slot));
        assert_eq!(bytes.len(), 9 + slot.records.iter().map(Record::length).sum::<usize>());
        for length in 0..bytes.len() {
            if let Some(shorter) = Slot::decode(&bytes[..length]) {
                assert!(shorter.records.len() < slot.records.len());
            }
        }
        let base =
            Base { seen: PerSide { a: seen, b: Seen::default() }, data: [1; 16], acl: 2, size: 3, shadow_of: Some(Side::B), pending: None };
        assert_eq!(Base::decode(&base.encode()), Some(base));
        let base = Base { pending: Some(AclPending { side: Side::A, aversion: 3, acl: 4, source: seen }), ..base };
        assert_eq!(Base::decode(&base.encode()), Some(base));
        assert_eq!(Base::decode(&base.encode()[1..]), None);
        assert_eq!(Base::decode(b""), None);
        let of = |by, data| Tombstone { by, newest: PerSide { a: 1, b: -2 }, data, size: 3, from_ms: 4, to_ms: u64::MAX };
        for gone in [of(None, None), of(Some(Side::A), Some([7; 16])), of(Some(Side::B), None)] {
            assert_eq!(Tombstone::decode(&gone.encode()), Some(gone));
            assert_eq!(Tombstone::decode(&gone.encode()[1..]), None);
        }
    }
}
