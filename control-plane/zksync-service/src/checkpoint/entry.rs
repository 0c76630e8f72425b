//! An entry of the log, or a part of a snapshot: the same form, so that reading is one loop.

use std::collections::BTreeMap;

use zksync::{Base, Conflict, Key, PerSide};

use crate::store::Save;

/// Grows when older programs could not read what newer ones write.
const FORMAT: u8 = 1;
/// Bytes before they are compressed: so that an entry fits a request of every server, however badly it compresses.
const BYTES: usize = 256 * 1024;
/// What a damaged entry may pretend to be.
const BYTES_MAX: usize = 4 * 1024 * 1024;
const LEVEL: i32 = 1;

/// Changes of what both sides agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    /// Pairs; none for one that is none any more.
    pub(crate) bases: BTreeMap<Key, Option<Base>>,
    /// Open conflicts; none for one that is closed.
    pub(crate) conflicts: BTreeMap<u64, Option<Conflict>>,
    /// The last transaction of each side that is in the bases; not told before everything is.
    pub(crate) applied: Option<PerSide<u64>>,
    /// The save on the writer's disk that has all of this.
    pub(crate) save: Option<Save>,
}

/// As many entries as it takes; the last one tells that everything is there.
pub(crate) fn encode(
    bases: &BTreeMap<Key, Option<Base>>,
    conflicts: &BTreeMap<u64, Option<Conflict>>,
    applied: PerSide<u64>,
    save: Save,
) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let mut body = Body::default();
    for (key, base) in bases {
        body.base(key, base.as_ref());
        if body.bytes.len() >= BYTES {
            entries.push(std::mem::take(&mut body).finish(None));
        }
    }
    for (id, conflict) in conflicts {
        body.conflict(*id, conflict.as_ref());
        if body.bytes.len() >= BYTES {
            entries.push(std::mem::take(&mut body).finish(None));
        }
    }
    entries.push(body.finish(Some((applied, save))));
    entries
}

#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn base(&mut self, key: &str, base: Option<&Base>) {
        self.bytes.push(b'b');
        self.text(key.as_bytes());
        self.text(&base.map(Base::encode).unwrap_or_default());
    }

    fn conflict(&mut self, id: u64, conflict: Option<&Conflict>) {
        self.bytes.push(b'c');
        self.bytes.extend(id.to_le_bytes());
        self.text(&conflict.and_then(|conflict| serde_json::to_vec(conflict).ok()).unwrap_or_default());
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend(text);
    }

    fn finish(mut self, last: Option<(PerSide<u64>, Save)>) -> Vec<u8> {
        if let Some((applied, save)) = last {
            self.bytes.push(b'a');
            for number in [applied.a, applied.b, save] {
                self.bytes.extend(number.to_le_bytes());
            }
        }
        let mut entry = vec![FORMAT];
        // Compressing into memory cannot fail; should it, the entry is no entry, and whoever reads it says so.
        entry.extend(zstd::bulk::compress(&self.bytes, LEVEL).unwrap_or_default());
        entry
    }
}

impl Entry {
    /// From bytes; none when they are no entry.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Entry> {
        let body = zstd::bulk::decompress(bytes.strip_prefix(&[FORMAT])?, BYTES_MAX).ok()?;
        if body.is_empty() {
            return None;
        }
        let mut left = Left(&body);
        let mut entry = Entry::default();
        while let Some(kind) = left.some(1) {
            match kind {
                b"b" => {
                    let key = std::str::from_utf8(left.text()?).ok()?.into();
                    let base = left.text()?;
                    let base = if base.is_empty() { None } else { Some(Base::decode(base)?) };
                    entry.bases.insert(key, base);
                }
                b"c" => {
                    let id = left.number()?;
                    let conflict = left.text()?;
                    let conflict = if conflict.is_empty() { None } else { Some(serde_json::from_slice(conflict).ok()?) };
                    entry.conflicts.insert(id, conflict);
                }
                b"a" => {
                    entry.applied = Some(PerSide { a: left.number()?, b: left.number()? });
                    entry.save = Some(left.number()?);
                }
                _ => return None,
            }
        }
        Some(entry)
    }
}

struct Left<'b>(&'b [u8]);

impl<'b> Left<'b> {
    fn some(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.some(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = u32::from_le_bytes(self.some(4)?.try_into().ok()?);
        self.some(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use zksync::{ConflictKind, Seen};

    use super::*;

    fn base(n: i64) -> Base {
        let seen = Seen { czxid: n, mzxid: n * 7, version: 1, aversion: 0 };
        Base { seen: PerSide { a: seen, b: seen }, data: [n.to_le_bytes()[0]; 16], acl: 9, size: 64, shadow_of: None, pending: None }
    }

    #[test]
    fn what_is_written_is_read_again_in_however_many_entries_it_takes() {
        let mut bases: BTreeMap<Key, Option<Base>> = (0..9_000).map(|n| (format!("/app/{n}").into(), Some(base(n)))).collect();
        bases.insert("/gone".into(), None);
        let conflict = Conflict {
            id: 3,
            key: "/app/3".into(),
            kind: ConflictKind::Update,
            base: None,
            sides: PerSide::default(),
            first_seen_ms: 1,
            last_change_ms: 2,
        };
        let conflicts = BTreeMap::from([(3, Some(conflict)), (4, None)]);
        let entries = encode(&bases, &conflicts, PerSide { a: 5, b: 6 }, 17);
        assert!(entries.len() > 2 && entries.iter().all(|entry| entry.len() < 512 * 1024), "{}", entries.len());
        let mut read = Entry::default();
        for (place, bytes) in entries.iter().enumerate() {
            let entry = Entry::decode(bytes).unwrap();
            assert_eq!(entry.applied.is_some(), place + 1 == entries.len(), "nothing is said to be applied before all of it is there");
            read.bases.extend(entry.bases);
            read.conflicts.extend(entry.conflicts);
            (read.applied, read.save) = (entry.applied, entry.save);
        }
        assert_eq!(read, Entry { bases, conflicts, applied: Some(PerSide { a: 5, b: 6 }), save: Some(17) });
    }

    #[test]
    fn what_is_no_entry_is_told_and_not_believed() {
        let whole = encode(&BTreeMap::from([("/x".into(), Some(base(1)))]), &BTreeMap::new(), PerSide::default(), 1).remove(0);
        assert_eq!(Entry::decode(&[]), None);
        assert_eq!(Entry::decode(&[2, 0]), None);
        for end in 0..whole.len() {
            assert_eq!(Entry::decode(&whole[..end]), None, "{end}");
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            // Whatever it is taken for, nothing panics.
            drop(Entry::decode(&damaged));
        }
    }
}
