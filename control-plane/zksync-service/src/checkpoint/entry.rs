//! An entry of the log, or a part of a snapshot: the same form, so that reading is one loop.

use std::collections::BTreeMap;

use zksync::{Base, Conflict, Intent, Key, PerSide, Resolution, Tombstone};

use crate::store::Save;

/// Grows when older programs could not read what newer ones write.
const FORMAT: u8 = 4;
/// Those before: the first knew no intents and no resolutions, the second not what we wrote last and whether deletes are held back, the third not what
/// is left of pairs that are gone.
const FORMATS_BEFORE: [u8; 3] = [1, 2, 3];
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
    /// Pairs that are gone; none for one that is there again, or is not remembered any more.
    pub(crate) tombstones: BTreeMap<Key, Option<Tombstone>>,
    /// Open conflicts; none for one that is closed.
    pub(crate) conflicts: BTreeMap<u64, Option<Conflict>>,
    /// Resolutions that are about to be carried out; none for one that has been, or will not be.
    pub(crate) intents: BTreeMap<u64, Option<Intent>>,
    /// Resolutions that were carried out, by their numbers.
    pub(crate) resolutions: BTreeMap<u64, Resolution>,
    /// What is only told when everything else is.
    pub(crate) told: Option<Told>,
}

/// How far it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The last transaction of each side that is in the bases.
    pub(crate) applied: PerSide<u64>,
    /// The save on the writer's disk that has all of this.
    pub(crate) save: Save,
    /// The newest transaction of ours on each side that was answered.
    pub(crate) own: PerSide<i64>,
    /// Until when everything on each side is known to have been there: milliseconds since 1970.
    pub(crate) known_ms: PerSide<u64>,
    /// Deletes are held back, and nobody has approved them.
    pub(crate) braked: bool,
}

/// As many entries as it takes; the last one tells that everything is there, if `whole` says so.
pub(crate) fn encode(whole: &Entry) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let mut body = Body::default();
    let mut cut = |body: &mut Body| {
        if body.bytes.len() >= BYTES {
            entries.push(std::mem::take(body).finish(None));
        }
    };
    for (key, base) in &whole.bases {
        body.base(key, base.as_ref());
        cut(&mut body);
    }
    for (key, tombstone) in &whole.tombstones {
        body.tombstone(key, tombstone.as_ref());
        cut(&mut body);
    }
    for (id, conflict) in &whole.conflicts {
        body.document(b'c', *id, conflict.as_ref());
        cut(&mut body);
    }
    for (id, intent) in &whole.intents {
        body.document(b'i', *id, intent.as_ref());
        cut(&mut body);
    }
    for (number, resolution) in &whole.resolutions {
        body.document(b'r', *number, Some(resolution));
        cut(&mut body);
    }
    let last = whole.told;
    // An empty body is no entry.
    if last.is_some() || !body.bytes.is_empty() {
        entries.push(body.finish(last));
    }
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

    fn tombstone(&mut self, key: &str, tombstone: Option<&Tombstone>) {
        self.bytes.push(b't');
        self.text(key.as_bytes());
        self.text(&tombstone.map(Tombstone::encode).unwrap_or_default());
    }

    fn document<T: serde::Serialize>(&mut self, kind: u8, id: u64, document: Option<&T>) {
        self.bytes.push(kind);
        self.bytes.extend(id.to_le_bytes());
        self.text(&document.and_then(|document| serde_json::to_vec(document).ok()).unwrap_or_default());
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend(text);
    }

    fn finish(mut self, last: Option<Told>) -> Vec<u8> {
        if let Some(Told { applied, save, own, known_ms, braked }) = last {
            self.bytes.push(b'a');
            for number in [applied.a, applied.b, save] {
                self.bytes.extend(number.to_le_bytes());
            }
            self.bytes.push(b'o');
            for number in [own.a, own.b] {
                self.bytes.extend(number.to_le_bytes());
            }
            self.bytes.push(u8::from(braked));
            self.bytes.push(b'k');
            for number in [known_ms.a, known_ms.b] {
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
        let body = bytes.split_first().filter(|(format, _)| **format == FORMAT || FORMATS_BEFORE.contains(*format))?.1;
        let body = zstd::bulk::decompress(body, BYTES_MAX).ok()?;
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
                b"t" => {
                    let key = std::str::from_utf8(left.text()?).ok()?.into();
                    let tombstone = left.text()?;
                    let tombstone = if tombstone.is_empty() { None } else { Some(Tombstone::decode(tombstone)?) };
                    entry.tombstones.insert(key, tombstone);
                }
                b"c" => {
                    let (id, conflict) = left.document()?;
                    entry.conflicts.insert(id, conflict);
                }
                b"i" => {
                    let (id, intent) = left.document()?;
                    entry.intents.insert(id, intent);
                }
                b"r" => {
                    let (number, resolution) = left.document()?;
                    entry.resolutions.insert(number, resolution?);
                }
                b"a" => {
                    let applied = PerSide { a: left.number()?, b: left.number()? };
                    entry.told = Some(Told { applied, save: left.number()?, ..Told::default() });
                }
                b"o" => {
                    let told = entry.told.as_mut()?;
                    told.own = PerSide { a: left.signed()?, b: left.signed()? };
                    told.braked = left.some(1)? != [0];
                }
                b"k" => entry.told.as_mut()?.known_ms = PerSide { a: left.number()?, b: left.number()? },
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

    fn signed(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.some(8)?.try_into().ok()?))
    }

    fn document<T: serde::de::DeserializeOwned>(&mut self) -> Option<(u64, Option<T>)> {
        let id = self.number()?;
        let document = self.text()?;
        Some((id, if document.is_empty() { None } else { Some(serde_json::from_slice(document).ok()?) }))
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = u32::from_le_bytes(self.some(4)?.try_into().ok()?);
        self.some(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use zksync::{ConflictKind, Seen, Side, Strategy, Value, Winner};

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
            base_data: Some(vec![1, 2, 3]),
            deleted: None,
        };
        let conflicts = BTreeMap::from([(3, Some(conflict)), (4, None)]);
        let gone = Tombstone { by: Some(Side::A), newest: PerSide { a: 1, b: 2 }, data: Some([3; 16]), size: 4, from_ms: 5, to_ms: 6 };
        let resolution = |n: u64| Resolution {
            key: format!("/app/{n}").into(),
            kind: ConflictKind::Update,
            strategy: Strategy::AWins,
            winner: Winner::A,
            ambiguous: false,
            sides: PerSide {
                a: None,
                b: Some(Value {
                    seen: Seen::default(),
                    mtime: 1,
                    size: 1 << 20,
                    hash: Some([1; 16]),
                    data: vec![7; 64 * 1024].into(),
                    cut: true,
                    unread: false,
                    acl: None,
                }),
            },
            deleted: Some(gone),
            at_ms: n,
        };
        let intents = BTreeMap::from([(7, Some(Intent { side: Side::B, record: None, resolution: resolution(7) })), (8, None)]);
        let resolutions: BTreeMap<u64, Resolution> = (1..20).map(|n| (n, resolution(n))).collect();
        let known_ms = PerSide { a: 9, b: 10 };
        let told = Told { applied: PerSide { a: 5, b: 6 }, save: 17, own: PerSide { a: 7, b: -8 }, known_ms, braked: true };
        let tombstones = BTreeMap::from([("/app/gone".into(), Some(gone)), ("/app/again".into(), None)]);
        let whole = Entry { bases, tombstones, conflicts, intents, resolutions, told: Some(told) };
        let entries = encode(&whole);
        assert!(entries.len() > 2 && entries.iter().all(|entry| entry.len() < 512 * 1024), "{}", entries.len());
        let mut read = Entry::default();
        for (place, bytes) in entries.iter().enumerate() {
            let entry = Entry::decode(bytes).unwrap();
            assert_eq!(entry.told.is_some(), place + 1 == entries.len(), "nothing is said to be applied before all of it is there");
            read.bases.extend(entry.bases);
            read.tombstones.extend(entry.tombstones);
            read.conflicts.extend(entry.conflicts);
            read.intents.extend(entry.intents);
            read.resolutions.extend(entry.resolutions);
            read.told = entry.told;
        }
        assert_eq!(read, whole);
    }

    #[test]
    fn what_is_no_entry_is_told_and_not_believed() {
        let bases = BTreeMap::from([("/x".into(), Some(base(1)))]);
        let whole = encode(&Entry { bases, told: Some(Told { save: 1, ..Told::default() }), ..Entry::default() }).remove(0);
        assert_eq!(Entry::decode(&[]), None);
        assert_eq!(Entry::decode(&[5, 0]), None);
        let mut before = whole.clone();
        before[0] = 1;
        assert!(Entry::decode(&before).is_some(), "what a program before this one has left");
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
