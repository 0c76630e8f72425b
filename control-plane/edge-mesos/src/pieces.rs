//! Documents in pieces. A document of megabytes is mostly what it was when it was last asked for, so its long lists are written and compressed in
//! runs of some dozen items, and a run none of whose items has changed is taken as it stands.
//!
//! A run is known by the identities of its items: the state never changes an item in place, it makes another. Where a run begins is decided by its
//! first item alone, so that what is added or removed changes the runs around it and no other. Runs are compressed each for itself and end on a whole
//! byte (RFC 1951, 3.2.4), so that one after the other they are one stream, as gzip programs for several processors make it.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// A run begins at one of so many items, on average.
const RUN: u64 = 32;
/// Items of a run at most.
const LONGEST: usize = 256;
/// Shorter runs are not worth their keeping.
const SHORTEST: usize = 4;

/// Bytes of a document that do not change.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    deflated: OnceLock<Deflated>,
}

#[derive(Debug)]
struct Deflated {
    bytes: Bytes,
    /// Of the bytes before they were compressed.
    checksum: crc32fast::Hasher,
}

impl Piece {
    fn new(bytes: Bytes) -> Arc<Piece> {
        Arc::new(Piece { bytes, deflated: OnceLock::new() })
    }

    fn deflated(&self, compress: &mut Compress) -> &Deflated {
        self.deflated.get_or_init(|| {
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&self.bytes);
            Deflated { bytes: deflate(compress, &self.bytes).into(), checksum }
        })
    }
}

/// A part of a stream: blocks that refer to nothing before them, and an empty one that ends on a whole byte.
fn deflate(compress: &mut Compress, bytes: &[u8]) -> Vec<u8> {
    compress.reset();
    let mut out = Vec::with_capacity(bytes.len() / 4 + 64);
    loop {
        let (read, room) = (usize::try_from(compress.total_in()).unwrap_or(usize::MAX), out.capacity() - out.len());
        let status = compress.compress_vec(bytes.get(read..).unwrap_or_default(), &mut out, FlushCompress::Full);
        // It is whole when everything was read and there was more room than was needed.
        let is_read = usize::try_from(compress.total_in()).unwrap_or(usize::MAX) >= bytes.len();
        if is_read && out.len() < out.capacity() || room > 0 && !matches!(status, Ok(Status::Ok)) {
            out.shrink_to_fit();
            return out;
        }
        out.reserve(out.capacity().max(64));
    }
}

/// A document.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Arc<Piece>>);

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Pieces {
        Pieces(vec![Piece::new(bytes.into())])
    }
}

impl Pieces {
    /// Bytes, all in all.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|it| it.bytes.len()).sum()
    }

    /// The bytes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().map(|it| &it.bytes)
    }

    /// Everything in one.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.iter().for_each(|it| all.extend_from_slice(it));
        all
    }

    /// Compressed: one member of RFC 1952.
    pub(crate) fn gzip(&self) -> Bytes {
        // Deflate, no name and no time, the fastest compression, any system.
        const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
        // The last block, which is empty.
        const LAST: [u8; 2] = [3, 0];
        let mut compress = Compress::new(Compression::fast(), false);
        let parts: Vec<&Deflated> = self.0.iter().map(|it| it.deflated(&mut compress)).collect();
        let mut out = Vec::with_capacity(parts.iter().map(|it| it.bytes.len()).sum::<usize>() + 20);
        let mut checksum = crc32fast::Hasher::new();
        out.extend_from_slice(&HEAD);
        for part in parts {
            out.extend_from_slice(&part.bytes);
            checksum.combine(&part.checksum);
        }
        out.extend_from_slice(&LAST);
        out.extend_from_slice(&checksum.finalize().to_le_bytes());
        // The length is told modulo 2^32.
        out.extend_from_slice(&(self.len() as u64).to_le_bytes()[..4]);
        out.into()
    }
}

/// The runs of a document as it was last written.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// By the identity of the first item.
    runs: HashMap<usize, Run>,
    round: u64,
}

#[derive(Debug)]
struct Run {
    /// Held, so that no other item can have their identity.
    items: Box<[Arc<dyn Any + Send + Sync>]>,
    /// Whether it begins its list, and so begins without a comma.
    is_first: bool,
    piece: Arc<Piece>,
    /// When it was last used.
    round: u64,
}

fn identity<T: ?Sized>(item: &Arc<T>) -> usize {
    Arc::as_ptr(item).cast::<()>().addr()
}

/// Whether a run begins here.
fn begins<T>(item: &Arc<T>) -> bool {
    // Addresses have zeros at the end and much in common at the beginning: a multiplication (Fibonacci hashing) mixes them.
    let mixed = (identity(item) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed.is_multiple_of(RUN)
}

/// Where a document is written to.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    bytes: Vec<u8>,
    /// Pieces that stand there, by the number of bytes before them.
    pieces: Vec<(usize, Arc<Piece>)>,
    runs: Option<Runs>,
}

impl Sink {
    /// Takes from `runs` what has not changed.
    pub(crate) fn with(runs: Runs) -> Sink {
        let runs = Runs { round: runs.round + 1, ..runs };
        Sink { runs: Some(runs), ..Sink::default() }
    }

    /// Where the next bytes go.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was written, where nothing was kept.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        if self.pieces.is_empty() { self.bytes } else { self.finish().0.to_vec() }
    }

    /// What was written, and the runs for the next time.
    pub(crate) fn finish(self) -> (Pieces, Runs) {
        let all = Bytes::from(self.bytes);
        let (mut done, mut at) = (Vec::with_capacity(self.pieces.len() * 2 + 1), 0);
        for (before, piece) in self.pieces {
            if before > at {
                done.push(Piece::new(all.slice(at..before)));
                at = before;
            }
            done.push(piece);
        }
        if all.len() > at {
            done.push(Piece::new(all.slice(at..)));
        }
        let mut runs = self.runs.unwrap_or_default();
        let round = runs.round;
        runs.runs.retain(|_, run| run.round == round);
        (Pieces(done), runs)
    }

    /// Writes the items of a list, of which `is_first` says whether it has none yet. `write` writes some, with what stands between them.
    pub(crate) fn items<'t, T: Any + Send + Sync>(
        &mut self,
        is_first: &mut bool,
        items: impl Iterator<Item = &'t Arc<T>>,
        write: impl Fn(&mut Sink, &mut bool, &[&Arc<T>]),
    ) {
        let mut run: Vec<&Arc<T>> = Vec::new();
        for item in items {
            if run.len() >= LONGEST || begins(item) {
                self.run(is_first, &run, &write);
                run.clear();
            }
            run.push(item);
        }
        self.run(is_first, &run, &write);
    }

    fn run<T: Any + Send + Sync>(&mut self, is_first: &mut bool, items: &[&Arc<T>], write: &impl Fn(&mut Sink, &mut bool, &[&Arc<T>])) {
        let Some(first) = items.first() else { return };
        let Some(runs) = self.runs.as_mut().filter(|_| items.len() >= SHORTEST) else { return write(self, is_first, items) };
        let round = runs.round;
        let known = runs.runs.get_mut(&identity(first)).filter(|known| {
            let same = known.items.iter().zip(items).all(|(known, item)| identity(known) == identity(item));
            same && known.items.len() == items.len() && known.is_first == *is_first
        });
        let piece = if let Some(known) = known {
            known.round = round;
            known.piece.clone()
        } else {
            let mut sink = Sink::default();
            write(&mut sink, &mut is_first.clone(), items);
            sink.bytes.shrink_to_fit();
            let piece = Piece::new(sink.bytes.into());
            let held = items.iter().map(|it| Arc::clone(it) as Arc<dyn Any + Send + Sync>).collect();
            runs.runs.insert(identity(first), Run { items: held, is_first: *is_first, piece: piece.clone(), round });
            piece
        };
        *is_first = false;
        self.pieces.push((self.bytes.len(), piece));
    }
}

#[cfg(test)]
mod tests;
