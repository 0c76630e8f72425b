//! Segments that another control plane has written, kept here as they are: each can be read by itself, whoever wrote it.
//!
//! A segment is known by the moment of its keyframe. One that is there already is replaced when the copy goes further, so a copy that was
//! broken off is simply made again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use base::Timestamp;

use super::{Segment, Store, cut_torn_end, describe};
use crate::segment::{HEADER, Kind, block_at};

/// A copy that is longer than this is none: a segment is its keyframe and a minute.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// In a block: where its checksum is, and what it covers from the kind on.
const CHECKSUM: usize = 4;
const KIND: usize = 8;

/// A segment of which a part is here.
#[derive(Debug)]
pub struct Copy {
    file: File,
    beside: PathBuf,
    continues: bool,
    length: u64,
}

/// What became of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It is kept, in this file.
    Kept(PathBuf),
    /// What was here before goes further.
    Known,
    /// There is no whole keyframe in it, or a program of another version has written it.
    Unreadable,
}

impl Copy {
    /// Takes some more bytes.
    ///
    /// # Errors
    /// When the disk refuses, or the segment does not end.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.length > COPY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a copied segment does not end"));
        }
        self.file.write_all(bytes)
    }
}

impl Store {
    /// A segment is to come; `continues` says that the one before it, which led to the same, is here. Nothing of it can be read before
    /// [`Store::end_copy`].
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin_copy(&self, continues: bool) -> io::Result<Copy> {
        // There is one at a time; what a kill has left of the last is written over.
        let beside = self.settings.directory.join("segment.copying");
        let file = File::create(&beside)?;
        Ok(Copy { file, beside, continues, length: 0 })
    }

    /// No more of a segment will come: what is whole of it is kept.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn end_copy(&mut self, copy: Copy) -> io::Result<Copied> {
        let Copy { file, beside, continues, .. } = copy;
        file.sync_data()?;
        drop(file);
        cut_torn_end(&beside)?;
        let Some(found) = describe(self.next_number, &beside)? else {
            std::fs::remove_file(&beside)?;
            return Ok(Copied::Unreadable);
        };
        let known = self.catalogue.read(|known| known.segments.iter().find(|segment| segment.from == found.from).cloned());
        if known.as_ref().is_some_and(|known| known.to > found.to) {
            std::fs::remove_file(&beside)?;
            return Ok(Copied::Known);
        }
        let begins = known.as_ref().map_or(!continues || found.begins, |known| known.begins);
        if begins && !found.begins {
            begin_anew(&beside)?;
        }
        let number = known.map_or(self.next_number, |known| known.number);
        let path = self.path(number);
        std::fs::rename(&beside, &path)?;
        self.given_up_for_room = 0;
        self.next_number = self.next_number.max(number + 1);
        let segment = Segment { number, path: path.clone(), begins, ..found };
        self.catalogue.change(|known| match known.segments.iter_mut().find(|it| it.number == number) {
            Some(before) => *before = segment,
            None => known.segments.push(segment),
        });
        Ok(Copied::Kept(path))
    }

    /// Removes what is too old or too much, as [`Store::tend`] does: for whoever only copies. Says how many segments went.
    pub fn retain_copies(&mut self, now: Timestamp) -> usize {
        self.retain(now)
    }
}

/// Marks the keyframe of a segment as one to which nothing leads.
fn begin_anew(path: &std::path::Path) -> io::Result<()> {
    let mut bytes = std::fs::read(path)?;
    let Some(end) = block_at(&bytes, HEADER).map(|block| block.end()) else { return Ok(()) };
    bytes[HEADER + KIND] = Kind::Beginning as u8;
    let checksum = crc32fast::hash(&bytes[HEADER + KIND..end]);
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&[Kind::Beginning as u8], (HEADER + KIND) as u64)?;
    file.write_all_at(&checksum.to_le_bytes(), (HEADER + CHECKSUM) as u64)?;
    file.sync_data()
}
