//! A segment: a stretch of history that can be read by itself. Bytes only; files are the store's.
//!
//! A header, then blocks. The first block is the keyframe, all records of its moment. The others hold frames: what changed from one moment to
//! the next. Each block is compressed by itself and has a checksum, so that a torn end is found and cut, and a damaged block ends what can be
//! read and nothing else.
//!
//! ```text
//! header:  "OHIS" version:1 fingerprint:4 generation:1
//! block:   length:4 checksum:4 kind:1 at:8 raw length:4 payload:length        checksum over kind, at, raw length and payload
//! ```

use base::Timestamp;
use topology::ProbeId;

use crate::code::{Code as _, Columns, DecodeError, Reader, Texts, Writer};
use crate::recorder::Changes;
use crate::records::fingerprint;
use crate::world::{Change, World};

const MAGIC: [u8; 5] = *b"OHIS\x02";
/// Bytes before the first block.
pub(crate) const HEADER: usize = 10;
const BLOCK_HEADER: usize = 21;
/// A block that claims to be larger is none.
const RAW_MAX: usize = 1 << 30;
/// Fast enough for every second.
const LEVEL: i32 = 3;
/// For what is written once and kept for hours.
const LEVEL_KEPT: i32 = 7;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All records; the segment before led to the same.
    Keyframe,
    /// All records; what was before is over, by a restart or a gap.
    Beginning,
    /// What changed, frame by frame.
    Frames,
    /// Events were lost before this moment.
    Gap,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Keyframe => 0,
            Kind::Beginning => 1,
            Kind::Frames => 2,
            Kind::Gap => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Keyframe, Kind::Beginning, Kind::Frames, Kind::Gap].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// What changed until a moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) at: Timestamp,
    pub(crate) probes: Vec<(ProbeId, Vec<Change>)>,
}

/// What a segment says, piece by piece.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// All records of a moment, and whether the segment before led there.
    World(Timestamp, Box<World>, bool),
    Frame(Frame),
    /// How many events were lost before this moment.
    Gap(Timestamp, u64),
}

/// A block as its header tells, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockInfo {
    pub(crate) kind: Kind,
    /// Of its last frame.
    pub(crate) at: Timestamp,
    /// Where its payload begins and ends.
    payload: (usize, usize),
    raw_length: usize,
}

impl BlockInfo {
    /// First byte behind it.
    pub(crate) fn end(&self) -> usize {
        self.payload.1
    }
}

/// The first bytes of a segment.
pub(crate) fn header(generation: u8) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&fingerprint().to_le_bytes());
    bytes.push(generation);
    bytes
}

/// Generation of a segment that this program can read.
pub(crate) fn generation(bytes: &[u8]) -> Option<u8> {
    let expected = header(0);
    (bytes.len() >= HEADER && bytes[..HEADER - 1] == expected[..HEADER - 1]).then(|| bytes[HEADER - 1])
}

/// The block at an offset, if it is whole and what was written.
pub(crate) fn block_at(bytes: &[u8], offset: usize) -> Option<BlockInfo> {
    let head = bytes.get(offset..offset.checked_add(BLOCK_HEADER)?)?;
    let number = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
    let (length, checksum, raw_length) = (number(0) as usize, number(4), number(17) as usize);
    let at = u64::from_le_bytes(head[9..17].try_into().ok()?);
    let begin = offset + BLOCK_HEADER;
    let end = begin.checked_add(length)?;
    let payload = bytes.get(begin..end)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[8..]);
    hasher.update(payload);
    let kind = Kind::from_byte(head[8])?;
    (hasher.finalize() == checksum && raw_length <= RAW_MAX).then_some(BlockInfo {
        kind,
        at: Timestamp::from_unix_nanos(at),
        payload: (begin, end),
        raw_length,
    })
}

fn block(kind: Kind, at: Timestamp, raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let payload = zstd::bulk::compress(raw, level)?;
    let too_large = |_| std::io::Error::other("a block of the history is larger than four gigabytes");
    let mut bytes = Vec::with_capacity(BLOCK_HEADER + payload.len());
    bytes.extend_from_slice(&u32::try_from(payload.len()).map_err(too_large)?.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(kind.byte());
    bytes.extend_from_slice(&at.unix_nanos().to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(raw.len()).map_err(too_large)?.to_le_bytes());
    bytes.extend_from_slice(&payload);
    let checksum = crc32fast::hash(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// Writes one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentWriter {
    values: Writer,
}

impl SegmentWriter {
    /// The keyframe: all records of a moment.
    pub(crate) fn keyframe(&mut self, at: Timestamp, world: &World, continues: bool) -> std::io::Result<Vec<u8>> {
        self.values.base = at;
        self.values.number(world.probes.len() as u64);
        for (probe, known) in &world.probes {
            self.values.column(0);
            probe.put(&mut self.values);
            known.changes().put(&mut self.values);
        }
        block(if continues { Kind::Keyframe } else { Kind::Beginning }, at, &self.values.take(), LEVEL)
    }

    /// A frame: what changed until a moment.
    pub(crate) fn frame(&mut self, at: Timestamp, changes: &Changes) -> std::io::Result<Vec<u8>> {
        self.values.base = at;
        self.values.number(at.unix_nanos());
        self.values.number(changes.len() as u64);
        for (probe, changes) in changes {
            self.values.column(0);
            probe.put(&mut self.values);
            changes.put(&mut self.values);
        }
        block(Kind::Frames, at, &self.values.take(), LEVEL)
    }

    /// A mark: events were lost.
    pub(crate) fn gap(&mut self, at: Timestamp, lost: u64) -> std::io::Result<Vec<u8>> {
        self.values.number(lost);
        block(Kind::Gap, at, &self.values.take(), LEVEL)
    }
}

/// Reads one segment from its beginning.
#[derive(Debug, Default)]
pub(crate) struct SegmentReader {
    texts: Texts,
    pub(crate) offset: usize,
}

impl SegmentReader {
    /// Reads the next block of `bytes`, which are those of the segment as far as they are there: what it says, in order. `None` when there is
    /// no whole block any more.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<Vec<Piece>>, DecodeError> {
        let Some(info) = block_at(bytes, self.offset.max(HEADER)) else { return Ok(None) };
        self.offset = info.end();
        let raw = zstd::bulk::decompress(&bytes[info.payload.0..info.payload.1], info.raw_length).map_err(|_| DecodeError::Invalid)?;
        let mut reader = Reader::new(&raw, &mut self.texts)?;
        let mut pieces = Vec::new();
        match info.kind {
            Kind::Keyframe | Kind::Beginning => {
                reader.base = info.at;
                let mut world = World::default();
                for _ in 0..reader.count()? {
                    reader.column(0);
                    let probe = ProbeId::take(&mut reader)?;
                    let count = reader.count()?;
                    let mut failed = None;
                    let changes = (0..count).map_while(|_| Change::take(&mut reader).map_err(|error| failed = Some(error)).ok());
                    world.apply_all(info.at, &probe, changes);
                    if let Some(error) = failed {
                        return Err(error);
                    }
                }
                pieces.push(Piece::World(info.at, Box::new(world), info.kind == Kind::Keyframe));
            }
            Kind::Frames => {
                while {
                    reader.column(0);
                    !reader.is_empty()
                } {
                    let at = Timestamp::from_unix_nanos(reader.number()?);
                    reader.base = at;
                    let count = reader.count()?;
                    let probes = (0..count).map(|_| {
                        reader.column(0);
                        Ok((ProbeId::take(&mut reader)?, Vec::take(&mut reader)?))
                    });
                    pieces.push(Piece::Frame(Frame { at, probes: probes.collect::<Result<_, DecodeError>>()? }));
                }
            }
            Kind::Gap => pieces.push(Piece::Gap(info.at, reader.number()?)),
        }
        Ok(Some(pieces))
    }
}

/// The same segment in fewer bytes: all its frames in one block, compressed harder. `None` when it is not whole, or has nothing to gain.
pub(crate) fn compact(bytes: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    if generation(bytes) != Some(0) {
        return Ok(None);
    }
    let mut out = header(1);
    let mut frames = Columns::default();
    let mut last = Timestamp::EPOCH;
    let mut offset = HEADER;
    while let Some(info) = block_at(bytes, offset) {
        offset = info.end();
        let raw = zstd::bulk::decompress(&bytes[info.payload.0..info.payload.1], info.raw_length)?;
        match info.kind {
            Kind::Frames => {
                frames.append(&raw).map_err(std::io::Error::other)?;
                last = info.at;
            }
            kind => {
                // Marks stay where they are among the frames.
                if frames.len() > 0 {
                    out.extend(block(Kind::Frames, last, &frames.take(), LEVEL_KEPT)?);
                }
                out.extend(block(kind, info.at, &raw, LEVEL_KEPT)?);
            }
        }
        // A seek reads from the beginning: parts of some megabytes let it end early.
        if frames.len() > 4 << 20 {
            out.extend(block(Kind::Frames, last, &frames.take(), LEVEL_KEPT)?);
        }
    }
    if offset != bytes.len() {
        return Ok(None);
    }
    if frames.len() > 0 {
        out.extend(block(Kind::Frames, last, &frames.take(), LEVEL_KEPT)?);
    }
    Ok((out.len() < bytes.len()).then_some(out))
}
