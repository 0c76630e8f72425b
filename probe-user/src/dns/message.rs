//! Messages of DNS (RFC 1035): what an answer says of addresses. Pure, strict, and for bytes that anybody may have made.
//!
//! Only what was asked is believed: the address records at the end of the chain of aliases that begins at the question's name. Other sections
//! are not read. A message that was cut, by its server or by the copy, is used as far as its records are whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most records of an answer that are read. A message of 1,232 bytes has 73 addresses at most.
pub const RECORDS_MAX: usize = 80;

/// Most addresses that are taken from one answer.
pub const ADDRESSES_MAX: usize = 32;

/// Most aliases that are followed from the question to its addresses.
pub const ALIASES_MAX: usize = 16;

/// Longest name in its written form (RFC 1035: 255 bytes on the wire).
pub const NAME_MAX: usize = 253;

/// Most pointers that are followed within one name. Each has to point further back than the one before, so more would end as well.
const POINTERS_MAX: usize = 32;

const HEADER_LEN: usize = 12;
const CLASS_INTERNET: u16 = 1;

mod record_type {
    pub(super) const A: u16 = 1;
    pub(super) const CNAME: u16 = 5;
    pub(super) const AAAA: u16 = 28;
    pub(super) const ANY: u16 = 255;
}

/// What an answer says: the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As it was asked for, in lower case, without the final dot.
    pub name: String,
    /// Its addresses, with the seconds for which they may be used: the least along the way to them.
    pub addresses: Vec<(IpAddr, u32)>,
}

/// What a message is, when it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// It names addresses.
    Answer(Answer),
    /// It names none: an error, an empty answer, a question for something else, a question itself.
    Other,
}

/// Why bytes are no message of DNS that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than its header or its question.
    #[error("message is too short")]
    Short,
    /// Not one question, or counts that no message can have.
    #[error("message has {0} questions")]
    Questions(u16),
    /// A label longer than the message, of an unknown form, or pointers that do not lead back.
    #[error("a name in it leads nowhere")]
    Name,
    /// The question's name has bytes that are not printable, or is too long.
    #[error("its name cannot be written")]
    Unwritable,
    /// A record's length does not fit its type.
    #[error("a record in it has a wrong length")]
    Record,
    /// Aliases that lead in a circle.
    #[error("its aliases have no end")]
    Aliases,
}

/// Takes a message apart. `whole` says whether `bytes` are all of it: otherwise it may end in the middle of a record.
///
/// # Errors
/// When it is not a message of DNS, or one that no server makes.
pub fn parse(bytes: &[u8], whole: bool) -> Result<Message, MessageError> {
    let mut reader = Reader { bytes, at: 0 };
    let header = reader.take(HEADER_LEN).ok_or(MessageError::Short)?;
    let flags = Flags(be16(header, 2));
    if !flags.is_response() || flags.operation() != 0 || flags.result() != 0 {
        return Ok(Message::Other);
    }
    let (questions, answers) = (be16(header, 4), be16(header, 6));
    if questions != 1 {
        return Err(MessageError::Questions(questions));
    }
    let asked = reader.name()?.ok_or(MessageError::Short)?;
    let question = reader.take(4).ok_or(MessageError::Short)?;
    let (asked_type, class) = (be16(question, 0), be16(question, 2));
    let wants_addresses = matches!(asked_type, record_type::A | record_type::AAAA | record_type::ANY);
    if class != CLASS_INTERNET || !wants_addresses || answers == 0 {
        return Ok(Message::Other);
    }
    let name = asked.written().ok_or(MessageError::Unwritable)?;
    let mut records = Vec::new();
    let complete = whole && !flags.is_truncated();
    for _ in 0..usize::from(answers).min(RECORDS_MAX) {
        match reader.record(asked_type) {
            Ok(Some(record)) => records.extend(record),
            // Within its bytes everything was well; the rest of it is elsewhere.
            Ok(None) if !complete => break,
            Ok(None) => return Err(MessageError::Record),
            Err(error) => return Err(error),
        }
    }
    let addresses = resolve(&asked, &records)?;
    Ok(if addresses.is_empty() { Message::Other } else { Message::Answer(Answer { name, addresses }) })
}

/// Follows the aliases from `asked` to its addresses.
fn resolve(asked: &Name, records: &[Record]) -> Result<Vec<(IpAddr, u32)>, MessageError> {
    let mut owner = asked;
    let mut least = u32::MAX;
    for _ in 0..=ALIASES_MAX {
        let alias = records.iter().find_map(|record| match &record.data {
            Data::Alias(target) if record.owner == *owner => Some((target, record.time_to_live)),
            _ => None,
        });
        let Some((target, time_to_live)) = alias else {
            let mut addresses = Vec::new();
            for record in records.iter().filter(|record| record.owner == *owner) {
                if let Data::Address(address) = record.data
                    && is_nameable(address)
                    && addresses.len() < ADDRESSES_MAX
                    && !addresses.iter().any(|(known, _)| *known == address)
                {
                    addresses.push((address, least.min(record.time_to_live)));
                }
            }
            return Ok(addresses);
        };
        owner = target;
        least = least.min(time_to_live);
    }
    Err(MessageError::Aliases)
}

/// Whether an address means one place: every machine has its own loopback, and blocked names are given such addresses.
fn is_nameable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

#[derive(Clone, Copy)]
struct Flags(u16);

impl Flags {
    fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    fn operation(self) -> u16 {
        self.0 >> 11 & 0xf
    }

    fn is_truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }

    fn result(self) -> u16 {
        self.0 & 0xf
    }
}

/// A name as on the wire: labels with their lengths, letters in lower case, no pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Name(Vec<u8>);

impl Name {
    /// Longest form on the wire, without the empty label at the end.
    const WIRE_MAX: usize = 254;

    /// With dots between the labels. `None` for the root, and for names with bytes that are not printable or could be taken for a dot.
    fn written(&self) -> Option<String> {
        let mut text = String::with_capacity(self.0.len());
        let mut rest = self.0.as_slice();
        while let Some((&length, after)) = rest.split_first() {
            let (label, after) = after.split_at_checked(length.into())?;
            rest = after;
            if !text.is_empty() {
                text.push('.');
            }
            for &byte in label {
                if !byte.is_ascii_graphic() || matches!(byte, b'.' | b'\\') {
                    return None;
                }
                text.push(char::from(byte));
            }
        }
        (!text.is_empty() && text.len() <= NAME_MAX).then_some(text)
    }
}

struct Record {
    owner: Name,
    time_to_live: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(Name),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    /// A name, and past it. `None` when the bytes end within it.
    fn name(&mut self) -> Result<Option<Name>, MessageError> {
        let mut name = Vec::new();
        let mut at = self.at;
        // Where the name as it stands here ends: behind its first pointer, or its empty label.
        let mut end = None;
        let mut backmost = self.at;
        let mut pointers = 0;
        loop {
            let Some(&length) = self.bytes.get(at) else { return Ok(None) };
            match length >> 6 {
                0 if length == 0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Ok(Some(Name(name)));
                }
                0 => {
                    let Some(label) = self.bytes.get(at..=at + usize::from(length)) else { return Ok(None) };
                    if name.len() + label.len() > Name::WIRE_MAX {
                        return Err(MessageError::Name);
                    }
                    // A length is below 64, and no letter of upper case is: it stays as it is.
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += label.len();
                }
                0b11 => {
                    let Some(&low) = self.bytes.get(at + 1) else { return Ok(None) };
                    end = end.or(Some(at + 2));
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    // Back, always: what points at itself or forth would never end.
                    if target >= backmost || target < HEADER_LEN || pointers > POINTERS_MAX {
                        return Err(MessageError::Name);
                    }
                    backmost = target;
                    at = target;
                }
                _ => return Err(MessageError::Name),
            }
        }
    }

    /// The next record: `Some(None)` for one of another type than wanted, `None` when the bytes end within it.
    fn record(&mut self, asked_type: u16) -> Result<Option<Option<Record>>, MessageError> {
        let Some(owner) = self.name()? else { return Ok(None) };
        let Some(fixed) = self.take(10) else { return Ok(None) };
        let (kind, class, length) = (be16(fixed, 0), be16(fixed, 2), usize::from(be16(fixed, 8)));
        // RFC 2181: the upper bit set means zero.
        let time_to_live = i32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let time_to_live = u32::try_from(time_to_live).unwrap_or(0);
        let begin = self.at;
        let Some(bytes) = self.take(length) else { return Ok(None) };
        let wanted = class == CLASS_INTERNET && (kind == asked_type || asked_type == record_type::ANY || kind == record_type::CNAME);
        let data = match kind {
            _ if !wanted => None,
            record_type::A => Some(Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).map_err(|_| MessageError::Record)?).into())),
            record_type::AAAA => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).map_err(|_| MessageError::Record)?);
                Some(Data::Address(IpAddr::V6(address).to_canonical()))
            }
            record_type::CNAME => {
                let mut inner = Reader { bytes: &self.bytes[..begin + length], at: begin };
                let target = inner.name()?.filter(|_| inner.at == begin + length).ok_or(MessageError::Record)?;
                Some(Data::Alias(target))
            }
            _ => None,
        };
        Ok(Some(data.map(|data| Record { owner, time_to_live, data })))
    }
}

/// Two bytes of a slice that is known to have them.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
