//! Lines of a log as they come, each marked with whose it is.

use bytes::Bytes;

/// A line that is longer than this is told in parts.
const LINE_BYTES: usize = 64 << 10;

/// Cuts what comes into lines.
#[derive(Debug)]
pub(super) struct Lines {
    mark: Vec<u8>,
    /// The begin of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn of_container(name: &str) -> Self {
        Lines { mark: format!("[{name}] ").into_bytes(), begun: Vec::new() }
    }

    /// The lines that end in `bytes`, marked.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Bytes {
        let mut marked = Vec::with_capacity(bytes.len() + self.mark.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.put(&mut marked);
            } else if self.begun.len() >= LINE_BYTES {
                self.begun.push(b'\n');
                self.put(&mut marked);
            }
        }
        marked.into()
    }

    /// A last line without its end.
    pub(super) fn end(&mut self) -> Bytes {
        if self.begun.is_empty() { Bytes::new() } else { self.take(b"\n") }
    }

    /// The last line, and why nothing comes after it.
    pub(super) fn broken(&mut self, why: &str) -> Bytes {
        let mut last = self.end().to_vec();
        last.extend_from_slice(&self.mark);
        last.extend_from_slice(format!("the log broke off: {why}\n").as_bytes());
        last.into()
    }

    fn put(&mut self, marked: &mut Vec<u8>) {
        marked.extend_from_slice(&self.mark);
        marked.append(&mut self.begun);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_line_is_marked_once_however_the_log_is_cut(
            texts in proptest::collection::vec("[a-z]{0,9}", 0..20),
            cuts in proptest::collection::vec(1..7_usize, 1..9),
        ) {
            let log: String = texts.iter().map(|text| format!("{text}\n")).collect();
            let mut lines = Lines::of_container("web");
            let (mut marked, mut rest, mut cuts) = (Vec::new(), log.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                marked.extend_from_slice(&lines.take(now));
                rest = later;
            }
            marked.extend_from_slice(&lines.end());
            let expected: String = texts.iter().map(|text| format!("[web] {text}\n")).collect();
            prop_assert_eq!(String::from_utf8(marked).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_without_end_is_told_in_parts_and_a_broken_log_says_so() {
        let mut lines = Lines::of_container("a");
        let told = lines.take(&vec![b'x'; 2 * LINE_BYTES]);
        assert!(told.len() >= LINE_BYTES && told.starts_with(b"[a] xx"));
        let mut lines = Lines::of_container("a");
        assert!(lines.take(b"half").is_empty());
        assert_eq!(lines.broken("reset"), "[a] half\n[a] the log broke off: reset\n");
    }
}
