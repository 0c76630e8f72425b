//! Numbered reports that wait to be sent and, sent, to be acknowledged. Pure.
//!
//! Reports are held as bytes: what they weigh is then exact, and a control plane that stays away for long costs no more than the limit.

use std::collections::VecDeque;

use prost::Message;
use proto::probe::v1::Report;

/// How much is held at most, in encoded bytes.
pub const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The report did not fit: everything that was held has been given up, and only a snapshot can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// How many reports were given up, the new one included.
    pub dropped: u64,
}

/// The reports of one session.
#[derive(Debug)]
pub struct Outbox {
    held: VecDeque<Held>,
    bytes: usize,
    bytes_max: usize,
    next_sequence: u64,
    /// Last number that went out, on any stream of this session.
    sent: u64,
    /// Last number that went out on this stream, or that it resumes after.
    position: u64,
    acknowledged: u64,
}

#[derive(Debug)]
struct Held {
    sequence: u64,
    encoded: Vec<u8>,
}

impl Outbox {
    /// An empty outbox that holds at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Outbox { held: VecDeque::new(), bytes: 0, bytes_max, next_sequence: 1, sent: 0, position: 0, acknowledged: 0 }
    }

    /// Numbers a report and holds it. Returns its number.
    pub fn push(&mut self, mut report: Report) -> Result<u64, Overflow> {
        report.sequence = self.next_sequence;
        let encoded = report.encode_to_vec();
        if self.bytes + encoded.len() > self.bytes_max && !self.held.is_empty() {
            return Err(Overflow { dropped: self.clear() + 1 });
        }
        self.next_sequence += 1;
        self.bytes += encoded.len();
        self.held.push_back(Held { sequence: report.sequence, encoded });
        Ok(report.sequence)
    }

    /// Gives up everything that is held. Numbers that never went out are used again, so that a stream sees no gap.
    pub fn clear(&mut self) -> u64 {
        let dropped = self.held.len() as u64;
        self.held.clear();
        self.bytes = 0;
        self.next_sequence = self.sent + 1;
        dropped
    }

    /// The next report for this stream.
    pub fn take_next(&mut self) -> Option<Report> {
        let index = self.held.partition_point(|held| held.sequence <= self.position);
        let held = self.held.get(index)?;
        self.position = held.sequence;
        self.sent = self.sent.max(held.sequence);
        // It was encoded from a report a moment ago.
        Report::decode(held.encoded.as_slice()).ok()
    }

    /// Whether a report waits to go out.
    pub fn has_next(&self) -> bool {
        self.held.back().is_some_and(|last| last.sequence > self.position)
    }

    /// The receiver has everything up to `sequence`.
    pub fn acknowledge(&mut self, sequence: u64) {
        // A number that never went out was never received, whatever the other side says.
        let sequence = sequence.min(self.sent);
        self.acknowledged = self.acknowledged.max(sequence);
        while let Some(first) = self.held.front()
            && first.sequence <= sequence
        {
            self.bytes -= first.encoded.len();
            self.held.pop_front();
        }
    }

    /// A new stream goes on after `sequence`. Returns whether it can: everything after that number must be held.
    pub fn resume(&mut self, sequence: u64) -> bool {
        if sequence > self.sent || self.oldest_held() > sequence + 1 {
            return false;
        }
        self.acknowledge(sequence);
        self.position = sequence;
        true
    }

    /// Oldest number that a stream could go on with: what is held, or the next one when all is acknowledged.
    pub fn oldest_held(&self) -> u64 {
        self.held.front().map_or(self.next_sequence, |held| held.sequence)
    }

    /// Last number that was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether everything that went out on this stream was acknowledged.
    pub fn is_caught_up(&self) -> bool {
        self.acknowledged >= self.position
    }

    /// A new stream begins anew: nothing has gone out on it.
    pub fn restart(&mut self) {
        self.position = self.acknowledged;
    }

    /// Encoded bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether less than half of the limit is in use: room for parts of a snapshot.
    pub fn has_room(&self) -> bool {
        self.bytes < self.bytes_max / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at: u64) -> Report {
        Report { observed_at_unix_nanos: at, ..Report::default() }
    }

    fn sequences(outbox: &mut Outbox) -> Vec<u64> {
        std::iter::from_fn(|| outbox.take_next().map(|it| it.sequence)).collect()
    }

    #[test]
    fn a_stream_that_breaks_goes_on_after_what_was_applied() {
        let mut outbox = Outbox::new(1_000);
        (1..=4).for_each(|at| assert_eq!(outbox.push(report(at)), Ok(at)));
        assert_eq!(sequences(&mut outbox), [1, 2, 3, 4]);
        outbox.acknowledge(1);
        assert_eq!(outbox.oldest_held(), 2);
        assert!(outbox.resume(2));
        assert_eq!(sequences(&mut outbox), [3, 4]);
        outbox.acknowledge(4);
        assert_eq!((outbox.bytes(), outbox.oldest_held(), outbox.is_caught_up()), (0, 5, true));
    }

    #[test]
    fn what_is_no_longer_held_cannot_be_resumed() {
        let mut outbox = Outbox::new(1_000);
        (1..=3).for_each(|at| assert_eq!(outbox.push(report(at)), Ok(at)));
        sequences(&mut outbox);
        outbox.acknowledge(2);
        assert!(!outbox.resume(0), "report 1 is forgotten");
        assert!(!outbox.resume(9), "report 9 was never sent");
        assert!(outbox.resume(2));
    }

    #[test]
    fn an_overflow_gives_all_up_and_the_numbers_go_on_without_a_gap() {
        let mut outbox = Outbox::new(50);
        let mut pushed = 0;
        outbox.push(report(1)).unwrap();
        outbox.push(report(2)).unwrap();
        assert_eq!(outbox.take_next().unwrap().sequence, 1);
        let overflow = loop {
            pushed += 1;
            if let Err(overflow) = outbox.push(report(pushed)) {
                break overflow;
            }
        };
        assert_eq!(overflow.dropped, pushed + 2);
        assert_eq!(outbox.bytes(), 0);
        outbox.push(report(9)).unwrap();
        assert_eq!(sequences(&mut outbox), [2]);
    }

    #[test]
    fn an_acknowledgement_of_the_future_is_cut() {
        let mut outbox = Outbox::new(1_000);
        outbox.push(report(1)).unwrap();
        outbox.acknowledge(u64::MAX);
        assert_eq!(sequences(&mut outbox), [1]);
    }
}
