//! How Docker sends the output of what has no terminal: pieces of standard output and standard error, each with a head of eight bytes that says
//! which, and how long. Of what has a terminal, the bytes come as they are.

use bytes::{Buf as _, Bytes};

/// Length of a piece's head.
const HEAD: usize = 8;

/// Takes the heads out.
#[derive(Debug)]
pub(crate) enum Framing {
    /// There are none.
    Raw,
    /// They are taken out.
    Pieces(Pieces),
}

/// Where in the pieces the stream stands.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    head: [u8; HEAD],
    head_length: usize,
    /// Bytes of the current piece that are still to come.
    left: usize,
}

impl Framing {
    pub(crate) fn of_terminal(is_terminal: bool) -> Self {
        if is_terminal { Framing::Raw } else { Framing::Pieces(Pieces::default()) }
    }

    /// What of `bytes` is output, in order.
    pub(crate) fn output(&mut self, mut bytes: Bytes, into: &mut Vec<Bytes>) {
        let pieces = match self {
            Framing::Raw => return into.push(bytes),
            Framing::Pieces(pieces) => pieces,
        };
        while !bytes.is_empty() {
            if pieces.left > 0 {
                let part = bytes.split_to(pieces.left.min(bytes.len()));
                pieces.left -= part.len();
                into.push(part);
                continue;
            }
            pieces.head[pieces.head_length] = bytes.get_u8();
            pieces.head_length += 1;
            if pieces.head_length == HEAD {
                let [.., a, b, c, d] = pieces.head;
                pieces.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                pieces.head_length = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_heads_are_taken_out_however_the_stream_is_cut(
            texts in proptest::collection::vec("[a-z\n]{0,40}", 0..20),
            cuts in proptest::collection::vec(1..17_usize, 1..50),
        ) {
            let mut stream = Vec::new();
            for text in &texts {
                stream.extend_from_slice(&[1, 0, 0, 0]);
                stream.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                stream.extend_from_slice(text.as_bytes());
            }
            let mut framing = Framing::of_terminal(false);
            let mut out = Vec::new();
            let (mut stream, mut cuts) = (Bytes::from(stream), cuts.into_iter().cycle());
            while !stream.is_empty() {
                let at = cuts.next().unwrap().min(stream.len());
                framing.output(stream.split_to(at), &mut out);
            }
            prop_assert_eq!(out.concat(), texts.concat().into_bytes());
        }

        #[test]
        fn a_terminals_bytes_stay_as_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            Framing::of_terminal(true).output(Bytes::from(bytes.clone()), &mut out);
            prop_assert_eq!(out.concat(), bytes);
        }
    }
}
