use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::*;

/// What a client sends: opcode, whether it is the last of its message, whether it is marked as compressed, and its payload.
fn frames() -> impl Strategy<Value = Vec<(OpCode, bool, bool, Vec<u8>)>> {
    let opcode = prop_oneof![
        Just(OpCode::Data(Data::Text)),
        Just(OpCode::Data(Data::Binary)),
        Just(OpCode::Data(Data::Continue)),
        Just(OpCode::Control(Control::Ping)),
        Just(OpCode::Control(Control::Close)),
    ];
    let size = prop_oneof![4 => 0_usize..130, 1 => 65_530_usize..65_540];
    let payload = size.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size));
    prop::collection::vec((opcode, any::<bool>(), any::<bool>(), payload), 0..6)
}

fn wire(frames: &[(OpCode, bool, bool, Vec<u8>)]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (opcode, is_final, is_marked, payload) in frames {
        let header =
            FrameHeader { is_final: *is_final, rsv1: *is_marked, opcode: *opcode, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
        let frame = Frame::from_payload(header, payload.clone().into());
        frame.format(&mut wire).unwrap();
    }
    wire
}

fn expected(frames: &[(OpCode, bool, bool, Vec<u8>)]) -> Vec<u8> {
    let mut frames = frames.to_vec();
    for (opcode, _, is_marked, _) in &mut frames {
        if *is_marked && matches!(opcode, OpCode::Data(Data::Text | Data::Binary)) {
            (*opcode, *is_marked) = (OpCode::Data(Data::Binary), false);
        }
    }
    wire(&frames)
}

proptest! {
    #[test]
    fn compressed_messages_become_bytes_and_all_else_stays(frames in frames(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut bytes = wire(&frames);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut place, mut from) = (Place::First, 0);
        for to in cuts.into_iter().chain([bytes.len()]) {
            place = place.pass(&mut bytes[from..to]);
            from = to;
        }
        prop_assert_eq!(place, Place::First);
        prop_assert!(bytes == expected(&frames));
    }

    #[test]
    fn anything_at_all_is_passed_over(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Place::First.pass(&mut bytes);
    }
}

#[tokio::test]
async fn without_an_agreement_nothing_is_touched() {
    let frames = [(OpCode::Data(Data::Text), true, true, b"x".to_vec())];
    for (is_compressed, wanted) in [(false, wire(&frames)), (true, expected(&frames))] {
        let sent = wire(&frames);
        let mut got = Vec::new();
        Incoming::new(io::Cursor::new(sent), is_compressed).read_to_end(&mut got).await.unwrap();
        assert_eq!(got, wanted);
    }
}
