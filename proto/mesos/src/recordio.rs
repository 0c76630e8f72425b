//! The framing of streams: a record is its length in decimal digits, a line feed, and that many bytes.

use bytes::{Bytes, BytesMut};

/// Digits that a length may have.
const MOST_DIGITS: usize = 10;

/// One framed record. A stream hands over each as one piece: clients exist that take a piece for a record.
pub fn frame(record: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(record.len() + 12);
    framed.extend_from_slice(record.len().to_string().as_bytes());
    framed.push(b'\n');
    framed.extend_from_slice(record);
    framed.into()
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// What stands where a length should is none.
    #[error("a record's length is not a number")]
    Length,
    /// A record is announced that is longer than allowed.
    #[error("a record of {length} bytes, where {longest} are allowed")]
    TooLong {
        /// As announced.
        length: usize,
        /// As allowed.
        longest: usize,
    },
}

/// Takes a stream apart, however its pieces are cut.
#[derive(Debug)]
pub struct Decoder {
    pending: BytesMut,
    longest: usize,
}

impl Decoder {
    /// A decoder of records that have `longest` bytes at most.
    pub fn new(longest: usize) -> Self {
        Decoder { pending: BytesMut::new(), longest }
    }

    /// Adds what came.
    pub fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// The next whole record; `None` when more has to come first.
    ///
    /// # Errors
    /// When the stream is not framed. Nothing after that can be understood.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, FramingError> {
        let Some(end) = self.pending.iter().take(MOST_DIGITS + 1).position(|byte| *byte == b'\n') else {
            return if self.pending.len() > MOST_DIGITS { Err(FramingError::Length) } else { Ok(None) };
        };
        let digits = std::str::from_utf8(&self.pending[..end]).map_err(|_| FramingError::Length)?;
        let length: usize = digits.parse().map_err(|_| FramingError::Length)?;
        if length > self.longest {
            return Err(FramingError::TooLong { length, longest: self.longest });
        }
        if self.pending.len() < end + 1 + length {
            return Ok(None);
        }
        let mut record = self.pending.split_to(end + 1 + length);
        Ok(Some(record.split_off(end + 1).freeze()))
    }

    /// Whether bytes wait that are no whole record yet.
    pub fn is_between_records(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_any_cutting() {
        let records: [&[u8]; 4] = [b"{}", b"", b"a\nb", &[0xff; 1_000]];
        let stream: Vec<u8> = records.iter().flat_map(|record| frame(record)).collect();
        for size in [1, 2, 3, 7, stream.len()] {
            let mut decoder = Decoder::new(1_000);
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    found.push(record);
                }
            }
            assert_eq!(found, records);
            assert!(decoder.is_between_records());
        }
    }

    #[test]
    fn what_is_not_framed_is_refused_before_it_is_collected() {
        for (bytes, error) in [
            (&b"x\n"[..], FramingError::Length),
            (b"-1\nx", FramingError::Length),
            (b"99999999999999", FramingError::Length),
            (b"11\n", FramingError::TooLong { length: 11, longest: 10 }),
        ] {
            let mut decoder = Decoder::new(10);
            decoder.push(bytes);
            assert_eq!(decoder.next_record(), Err(error));
        }
    }
}
