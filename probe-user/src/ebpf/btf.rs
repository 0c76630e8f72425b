//! Offsets of structure members, from the type information of the running kernel.
//!
//! A reader of the one thing that is needed here: aya's keeps tens of megabytes of parsed types for it. This one holds the file and one number
//! per type while it looks, and nothing afterwards.

use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Where the kernel shows its types.
pub(super) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Why type information could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there, as on kernels without `CONFIG_DEBUG_INFO_BTF`.
    #[error("no type information of the kernel")]
    Unavailable(#[source] io::Error),
    /// It does not have the form that it should.
    #[error("type information of the kernel is malformed at byte {0}")]
    Malformed(usize),
}

const MAGIC: u32 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const MAX_DEPTH: u32 = 16;

/// The types of a kernel.
pub(super) struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Position of each type; ids begin with 1.
    positions: Vec<u32>,
    structures: HashMap<Box<str>, u32>,
}

impl Btf {
    /// Reads the file and finds the named structures.
    pub(super) fn read(path: &Path, wanted: &[&str]) -> Result<Self, BtfError> {
        Self::parse(std::fs::read(path).map_err(BtfError::Unavailable)?, wanted)
    }

    fn parse(data: Vec<u8>, wanted: &[&str]) -> Result<Self, BtfError> {
        let mut btf = Btf { data, strings: 0, positions: Vec::new(), structures: HashMap::new() };
        if btf.word(0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = btf.word(4)? as usize;
        let types = header + btf.word(8)? as usize;
        let end = types + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        btf.positions.reserve(end.saturating_sub(types) / 24);
        let mut position = types;
        while position < end {
            btf.positions.push(u32::try_from(position).map_err(|_| BtfError::Malformed(position))?);
            let info = btf.word(position + 4)?;
            if kind(info) == KIND_STRUCT {
                let id = u32::try_from(btf.positions.len()).map_err(|_| BtfError::Malformed(position))?;
                let name = btf.name(position)?;
                // The first definition of a name counts; modules may bring others.
                if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                    btf.structures.entry((*name).into()).or_insert(id);
                }
            }
            position += 12 + trailer(info).ok_or(BtfError::Malformed(position))?;
        }
        Ok(btf)
    }

    /// Offset in bytes of a member, also one inside anonymous structures; `None` when there is no such structure or member, or when it is a
    /// bit field.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.offset_in(*self.structures.get(structure)?, member.as_bytes(), 0)
    }

    fn offset_in(&self, id: u32, member: &[u8], depth: u32) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        let position = *self.positions.get(id.checked_sub(1)? as usize)? as usize;
        let info = self.word(position + 4).ok()?;
        if !matches!(kind(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let with_bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let at = position + 12 + 12 * index;
            let raw = self.word(at + 8).ok()?;
            let (bits, width) = if with_bit_fields { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            let name = self.name(at).ok()?;
            if name == member {
                return (bits % 8 == 0 && width == 0).then_some(bits / 8);
            }
            if name.is_empty()
                && let Some(inner) = self.offset_in(self.word(at + 4).ok()?, member, depth + 1)
            {
                return Some(bits / 8 + inner);
            }
        }
        None
    }

    fn name(&self, at: usize) -> Result<&[u8], BtfError> {
        let start = self.strings + self.word(at)? as usize;
        let rest = self.data.get(start..).ok_or(BtfError::Malformed(at))?;
        let length = rest.iter().position(|byte| *byte == 0).ok_or(BtfError::Malformed(at))?;
        Ok(&rest[..length])
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(BtfError::Malformed(at))?;
        Ok(u32::from_le_bytes(bytes))
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Bytes that follow the three words of a type.
fn trailer(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match kind(info) {
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        KIND_ARRAY => 12,
        // Structure, union, section, 64-bit enumeration.
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
        // Enumeration, function prototype.
        6 | 13 => 8 * count,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
