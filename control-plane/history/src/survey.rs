//! What the bytes of a segment are spent on.

use std::collections::BTreeMap;

use crate::code::{Code as _, Writer};
use crate::player::PlayError;
use crate::segment::{self, Piece, SegmentReader};
use crate::world::Change;

/// What one kind of record takes in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How many of them there are.
    pub records: u64,
    /// Bytes before they are compressed.
    pub raw: u64,
    /// Bytes when all of the kind are compressed as one.
    pub compressed: u64,
}

/// What each kind of record takes in the bytes of a segment: those of its keyframe and those of its changes.
///
/// # Errors
/// When it is no segment of this program, or damaged.
pub fn survey(bytes: &[u8]) -> Result<BTreeMap<(bool, &'static str), Spent>, PlayError> {
    segment::generation(bytes).ok_or(crate::DecodeError::Invalid)?;
    let mut reader = SegmentReader::default();
    // Texts are written where they are met first, as in the segment.
    let mut writer = Writer::default();
    let mut all: BTreeMap<(bool, &'static str), (u64, Vec<u8>)> = BTreeMap::new();
    let mut note = |is_keyframe: bool, at, change: &Change| {
        writer.base = at;
        change.put(&mut writer);
        let (records, raw) = all.entry((is_keyframe, change.kind())).or_default();
        *records += 1;
        raw.extend(writer.take());
    };
    while let Some(pieces) = reader.next(bytes)? {
        for piece in pieces {
            match piece {
                Piece::World(at, world, _) => {
                    world.probes.values().flat_map(|known| known.changes()).for_each(|change| note(true, at, &change));
                }
                Piece::Frame(frame) => {
                    frame.probes.iter().flat_map(|(_, changes)| changes).for_each(|change| note(false, frame.at, change))
                }
                Piece::Gap(..) => {}
            }
        }
    }
    all.into_iter()
        .map(|(kind, (records, raw))| {
            let compressed = zstd::bulk::compress(&raw, 7)?.len() as u64;
            Ok((kind, Spent { records, raw: raw.len() as u64, compressed }))
        })
        .collect()
}
