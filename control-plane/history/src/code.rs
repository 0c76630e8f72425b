//! Values to bytes and back: small numbers in few bytes, texts once in a segment, moments relative to the frame that they are in.
//!
//! A field's values stand together, in a column of their own: what is alike compresses well.
//!
//! ```text
//! columns: count, count * (number, length), the bytes of each
//! ```
//!
//! Everything that is read was written by a program like this one and passed a checksum; it is refused all the same when it is not
//! well-formed, and nothing is allocated before it is there.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base::Timestamp;

/// Different texts of a segment that get a number; the rest is written out.
const TEXTS_MAX: usize = 1 << 20;

/// Bytes that are no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// A value that nothing has.
    #[error("the bytes hold a value that nothing has")]
    Invalid,
}

/// Most columns that there are.
pub(crate) const COLUMNS: usize = 64 + 48 * 48;

/// The bytes of columns by their numbers.
#[derive(Debug)]
pub(crate) struct Columns(Vec<Vec<u8>>);

/// Writes one segment's values; knows the texts that it has written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    columns: Columns,
    column: usize,
    texts: HashMap<Arc<str>, u32>,
    /// Moments are written relative to this one.
    pub(crate) base: Timestamp,
}

/// Reads one segment's values.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    columns: Vec<&'a [u8]>,
    column: usize,
    length: usize,
    texts: &'a mut Texts,
    pub(crate) base: Timestamp,
}

/// Texts of a segment by their numbers, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts(Vec<Arc<str>>);

impl Default for Columns {
    fn default() -> Self {
        Columns(vec![Vec::new(); COLUMNS])
    }
}

impl Columns {
    /// Adds the values of others behind those that are there.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let others = split(bytes)?;
        self.0.iter_mut().zip(others).for_each(|(own, other)| own.extend_from_slice(other));
        Ok(())
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// All as one; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let filled = || self.0.iter().enumerate().filter(|(_, column)| !column.is_empty());
        let mut bytes = Vec::with_capacity(self.len() + 512);
        put_number(&mut bytes, filled().count() as u64);
        for (number, column) in filled() {
            put_number(&mut bytes, number as u64);
            put_number(&mut bytes, column.len() as u64);
        }
        for column in &mut self.0 {
            bytes.append(column);
        }
        bytes
    }
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 128")]
    out.push(value as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Invalid);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::Invalid)
}

/// The columns of bytes by their numbers.
fn split(mut bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut number = || take_number(&mut bytes).and_then(|it| usize::try_from(it).map_err(|_| DecodeError::Invalid));
    let count = number()?;
    if count > COLUMNS {
        return Err(DecodeError::Invalid);
    }
    let lengths = (0..count).map(|_| Ok((number()?, number()?))).collect::<Result<Vec<_>, DecodeError>>()?;
    let mut columns: Vec<&[u8]> = vec![&[]; COLUMNS];
    for (number, length) in lengths {
        let (column, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        bytes = rest;
        *columns.get_mut(number).ok_or(DecodeError::Invalid)? = column;
    }
    if bytes.is_empty() { Ok(columns) } else { Err(DecodeError::Invalid) }
}

impl Writer {
    /// What was written since the last time.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.column = 0;
        self.columns.take()
    }

    /// What follows goes into this column.
    pub(crate) fn column(&mut self, column: usize) {
        self.column = column;
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.columns.0[self.column]
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.out().push(byte);
    }

    pub(crate) fn number(&mut self, value: u64) {
        put_number(self.out(), value);
    }

    /// Small in either direction.
    pub(crate) fn signed(&mut self, value: i64) {
        #[expect(clippy::cast_sign_loss, reason = "bits, in another order")]
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    fn text(&mut self, text: &Arc<str>) {
        if let Some(&number) = self.texts.get(text) {
            self.number(u64::from(number) + 2);
            return;
        }
        let known = self.texts.len();
        self.number(u64::from(known >= TEXTS_MAX));
        self.number(text.len() as u64);
        self.out().extend_from_slice(text.as_bytes());
        if known < TEXTS_MAX {
            self.texts.insert(text.clone(), u32::try_from(known).unwrap_or(u32::MAX));
        }
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], texts: &'a mut Texts) -> Result<Self, DecodeError> {
        Ok(Reader { columns: split(bytes)?, column: 0, length: bytes.len(), texts, base: Timestamp::EPOCH })
    }

    /// What follows is in this column.
    pub(crate) fn column(&mut self, column: usize) {
        self.column = column;
    }

    /// Whether nothing more is in this column.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns[self.column].is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let bytes = &mut self.columns[self.column];
        let (&first, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        Ok(first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        take_number(&mut self.columns[self.column])
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.number()?;
        #[expect(clippy::cast_possible_wrap, reason = "bits, in another order")]
        let (magnitude, sign) = ((value >> 1) as i64, -((value & 1) as i64));
        Ok(magnitude ^ sign)
    }

    /// How many items follow, each of at least one byte in one of the columns.
    pub(crate) fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::Invalid)?;
        if count > self.length { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let bytes = &mut self.columns[self.column];
        let (taken, rest) = bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<Arc<str>, DecodeError> {
        let number = self.number()?;
        if let Some(known) = number.checked_sub(2) {
            let known = usize::try_from(known).map_err(|_| DecodeError::Invalid)?;
            return self.texts.0.get(known).cloned().ok_or(DecodeError::Invalid);
        }
        let length = self.count()?;
        let text: Arc<str> = std::str::from_utf8(self.slice(length)?).map_err(|_| DecodeError::Invalid)?.into();
        if number == 0 {
            if self.texts.0.len() >= TEXTS_MAX {
                return Err(DecodeError::Invalid);
            }
            self.texts.0.push(text.clone());
        }
        Ok(text)
    }
}

/// A value that can be written and read.
pub(crate) trait Code: Sized {
    /// Names of its parts: what is written is only read by a program with the same.
    const SHAPE: &'static str;

    fn put(&self, out: &mut Writer);
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Code for $type {
            const SHAPE: &'static str = stringify!($type);

            fn put(&self, out: &mut Writer) {
                out.number(u64::from(*self));
            }

            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                from.number()?.try_into().map_err(|_| DecodeError::Invalid)
            }
        }
    )*};
}

numbers!(u8, u16, u32);

impl Code for u64 {
    const SHAPE: &'static str = "u64";

    fn put(&self, out: &mut Writer) {
        out.number(*self);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.number()
    }
}

impl Code for i32 {
    const SHAPE: &'static str = "i32";

    fn put(&self, out: &mut Writer) {
        out.signed(i64::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.signed()?.try_into().map_err(|_| DecodeError::Invalid)
    }
}

impl Code for bool {
    const SHAPE: &'static str = "bool";

    fn put(&self, out: &mut Writer) {
        out.byte(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid),
        }
    }
}

/// Whole numbers and hundredths are frequent, and short.
impl Code for f64 {
    const SHAPE: &'static str = "f64";

    fn put(&self, out: &mut Writer) {
        #[expect(clippy::cast_possible_truncation, reason = "compared with what it was")]
        let whole = *self as i64;
        #[expect(clippy::cast_precision_loss, reason = "small enough to be exact")]
        if (whole as f64).to_bits() == self.to_bits() && whole.unsigned_abs() < 1 << 52 {
            out.byte(0);
            out.signed(whole);
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "compared with what it was")]
        let hundredths = (*self * 100.0).round() as i64;
        if hundredths.unsigned_abs() < 1 << 40 && of_hundredths(hundredths).to_bits() == self.to_bits() {
            out.byte(2);
            out.signed(hundredths);
        } else {
            out.byte(1);
            out.out().extend_from_slice(&self.to_bits().to_le_bytes());
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            #[expect(clippy::cast_precision_loss, reason = "small enough to be exact")]
            0 => Ok(from.signed()? as f64),
            2 => Ok(of_hundredths(from.signed()?)),
            1 => Ok(f64::from_bits(u64::from_le_bytes(from.slice(8)?.try_into().map_err(|_| DecodeError::Truncated)?))),
            _ => Err(DecodeError::Invalid),
        }
    }
}

/// So many hundredths.
pub(crate) fn of_hundredths(count: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "compared with what it was before it is written")]
    {
        count as f64 / 100.0
    }
}

impl Code for Arc<str> {
    const SHAPE: &'static str = "text";

    fn put(&self, out: &mut Writer) {
        out.text(self);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.text()
    }
}

/// Whole milliseconds before or after the frame in few bytes; the beginning of time as one, any other moment exactly.
impl Code for Timestamp {
    const SHAPE: &'static str = "moment";

    fn put(&self, out: &mut Writer) {
        let nanos = self.unix_nanos();
        if nanos == 0 {
            out.number(0);
        } else if nanos.is_multiple_of(1_000_000) {
            let (own, base) = (nanos / 1_000_000, out.base.unix_millis());
            #[expect(clippy::cast_possible_wrap, reason = "milliseconds since 1970 are far below the middle of their range")]
            let distance = own as i64 - base as i64;
            #[expect(clippy::cast_sign_loss, reason = "bits, in another order")]
            out.number(((((distance << 1) ^ (distance >> 63)) as u64) << 1) + 2);
        } else {
            out.number(1);
            out.number(nanos);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.number()?;
        if number == 0 {
            return Ok(Timestamp::EPOCH);
        }
        if number == 1 {
            return Ok(Timestamp::from_unix_nanos(from.number()?));
        }
        if number % 2 == 1 {
            return Err(DecodeError::Invalid);
        }
        let value = (number - 2) >> 1;
        #[expect(clippy::cast_possible_wrap, reason = "bits, in another order")]
        let distance = ((value >> 1) as i64) ^ -((value & 1) as i64);
        let millis = from.base.unix_millis().checked_add_signed(distance).ok_or(DecodeError::Invalid)?;
        Ok(Timestamp::from_unix_millis(millis))
    }
}

impl Code for IpAddr {
    const SHAPE: &'static str = "address";

    fn put(&self, out: &mut Writer) {
        match self {
            IpAddr::V4(address) => {
                out.byte(4);
                out.out().extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                out.byte(6);
                out.out().extend_from_slice(&address.octets());
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            4 => <[u8; 4]>::try_from(from.slice(4)?).map(|it| IpAddr::V4(Ipv4Addr::from(it))).map_err(|_| DecodeError::Truncated),
            6 => <[u8; 16]>::try_from(from.slice(16)?).map(|it| IpAddr::V6(Ipv6Addr::from(it))).map_err(|_| DecodeError::Truncated),
            _ => Err(DecodeError::Invalid),
        }
    }
}

impl<T: Code> Code for Option<T> {
    const SHAPE: &'static str = T::SHAPE;

    fn put(&self, out: &mut Writer) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Code> Code for Vec<T> {
    const SHAPE: &'static str = T::SHAPE;

    fn put(&self, out: &mut Writer) {
        out.number(self.len() as u64);
        self.iter().for_each(|item| item.put(out));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = from.count()?;
        (0..count).map(|_| T::take(from)).collect()
    }
}

impl<T: Code> Code for Arc<[T]> {
    const SHAPE: &'static str = T::SHAPE;

    fn put(&self, out: &mut Writer) {
        out.number(self.len() as u64);
        self.iter().for_each(|item| item.put(out));
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Vec::take(from).map(Arc::from)
    }
}

impl<K: Code + Ord, V: Code> Code for BTreeMap<K, V> {
    const SHAPE: &'static str = V::SHAPE;

    fn put(&self, out: &mut Writer) {
        out.number(self.len() as u64);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = from.count()?;
        (0..count).map(|_| Ok((K::take(from)?, V::take(from)?))).collect()
    }
}

impl<A: Code, B: Code> Code for (A, B) {
    const SHAPE: &'static str = A::SHAPE;

    fn put(&self, out: &mut Writer) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round<T: Code>(values: &[T]) -> Vec<T> {
        let mut writer = Writer { base: Timestamp::from_unix_millis(1_700_000_000_000), ..Writer::default() };
        values.iter().for_each(|value| value.put(&mut writer));
        let bytes = writer.take();
        let mut texts = Texts::default();
        let mut reader = Reader::new(&bytes, &mut texts).unwrap();
        reader.base = Timestamp::from_unix_millis(1_700_000_000_000);
        let read = values.iter().map(|_| T::take(&mut reader).unwrap()).collect();
        assert!(reader.is_empty());
        read
    }

    proptest! {
        #[test]
        fn every_value_comes_back(numbers: Vec<u64>, signed: Vec<i32>, floats in prop::collection::vec(prop::num::f64::ANY, 0..9),
                                  texts: Vec<String>, nanos: Vec<u64>, addresses: Vec<IpAddr>) {
            prop_assert_eq!(round(&numbers), numbers);
            prop_assert_eq!(round(&signed), signed);
            let bits = |list: &[f64]| list.iter().map(|it| it.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&round(&floats)), bits(&floats));
            let texts: Vec<Arc<str>> = texts.into_iter().map(Arc::from).collect();
            let twice: Vec<Arc<str>> = texts.iter().chain(&texts).cloned().collect();
            prop_assert_eq!(round(&twice), twice);
            let moments: Vec<Timestamp> = nanos.iter().map(|&it| Timestamp::from_unix_nanos(it)).collect();
            prop_assert_eq!(round(&moments), moments);
            let millis: Vec<Timestamp> = nanos.iter().map(|&it| Timestamp::from_unix_millis(it % 18_000_000_000_000)).collect();
            prop_assert_eq!(round(&millis), millis);
            prop_assert_eq!(round(&addresses), addresses);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            fn attempt<T: Code>(bytes: &[u8]) {
                let mut texts = Texts::default();
                // As they are, and as the first column.
                let mut columns = Columns::default();
                columns.0[0] = bytes.to_vec();
                for bytes in [bytes.to_vec(), columns.take()] {
                    if let Ok(mut reader) = Reader::new(&bytes, &mut texts) {
                        let _ = T::take(&mut reader);
                    }
                }
            }
            attempt::<Vec<(Arc<str>, Option<f64>)>>(&bytes);
            attempt::<Vec<(Timestamp, IpAddr)>>(&bytes);
            attempt::<BTreeMap<u64, Vec<i32>>>(&bytes);
        }
    }
}
