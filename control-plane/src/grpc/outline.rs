//! A look at a message before it is decoded: its number, and how many records it would become. Two bytes on the wire can be a record of
//! hundreds in memory, so a limit on bytes alone is none.

/// Most records of all kinds in one report; with less than 4 MiB there is no room for so many that say something.
pub(crate) const RECORDS_MAX: u64 = 131_072;

/// What a look at a message showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// `Report.sequence`; 0 when this is no report or it cannot be read.
    pub(crate) sequence: u64,
    /// Records of all kinds, the parts of containers, images and hosts included.
    pub(crate) records: u64,
}

/// Field of `ProbeMessage`.
const REPORT: u32 = 2;
/// Field of `Report`.
const SEQUENCE: u32 = 1;
/// Fields of `Report` whose records have lists or maps of their own: host, containers, images, capture, losses, samples of the host,
/// Kubernetes objects, names.
const WITH_PARTS: [u32; 8] = [4, 7, 9, 13, 14, 15, 20, 42];
/// Field of `Report`: flows are many, and of their parts only the lists count.
const FLOWS: u32 = 11;
/// Fields of `Flow`.
const COUNTERS: u32 = 3;
const TRANSLATIONS: u32 = 6;

/// Looks at an encoded `ProbeMessage`. What is not well-formed ends the look; decoding will tell what is wrong.
pub(crate) fn outline(message: &[u8]) -> Outline {
    let mut outline = Outline::default();
    for (number, value) in Fields(message) {
        let (REPORT, Value::Bytes(report)) = (number, value) else { continue };
        for (number, value) in Fields(report) {
            match value {
                Value::Number(sequence) if number == SEQUENCE => outline.sequence = sequence,
                Value::Bytes(record) => {
                    outline.records += 1;
                    if WITH_PARTS.contains(&number) {
                        outline.records += parts(record);
                    } else if number == FLOWS {
                        outline.records += parts_of_flow(record);
                    }
                }
                Value::Number(_) | Value::Fixed => {}
            }
        }
    }
    outline
}

fn parts(record: &[u8]) -> u64 {
    Fields(record).filter(|(_, part)| matches!(part, Value::Bytes(_))).count() as u64
}

/// Translations, and totals of application protocols.
fn parts_of_flow(flow: &[u8]) -> u64 {
    let of_field = |(number, part): (u32, Value<'_>)| match (number, part) {
        (TRANSLATIONS, Value::Bytes(_)) => 1,
        (COUNTERS, Value::Bytes(counters)) => parts(counters),
        _ => 0,
    };
    Fields(flow).map(of_field).sum()
}

/// The fields of an encoded message, in order, until one is not well-formed.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Fixed,
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use proto::probe::v1::{Container, PortMapping, ProbeMessage, Process, Report, probe_message::Body};

    use super::*;

    fn encoded(report: Report) -> Vec<u8> {
        ProbeMessage { body: Some(Body::Report(report)) }.encode_to_vec()
    }

    #[test]
    fn the_number_and_the_records_are_seen_without_decoding() {
        let container = Container { id: "c".to_owned(), ports: vec![PortMapping::default(); 3], ..Container::default() };
        let report = Report {
            sequence: 300,
            processes: vec![Process::default(); 5],
            containers: vec![container],
            observed_at_unix_nanos: 1,
            ..Report::default()
        };
        // Five processes, a container, its id and its three ports.
        assert_eq!(outline(&encoded(report)), Outline { sequence: 300, records: 10 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            outline(&bytes);
        }
    }
}
