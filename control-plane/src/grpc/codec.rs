use bytes::{Buf as _, Bytes};
use proto::probe::v1::ControlMessage;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// Takes probes' messages as the bytes that came. They are decoded a step later, so that one that cannot be is refused by itself and the
/// stream goes on; the usual codec would end the stream.
#[derive(Debug, Default)]
pub(crate) struct RawMessages;

impl Codec for RawMessages {
    type Encode = ControlMessage;
    type Decode = Bytes;
    type Encoder = ProstEncoder<ControlMessage>;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

/// Gives out a message's bytes.
#[derive(Debug)]
pub(crate) struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
