//! Bytes between a pipe and one of the daemon's streams.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::raw::RawBody;
use crate::framing::Framing;
use crate::pipe::{PipeEnd, PipeReceiver, PipeSender};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Both ways, until the other side has ended or the pipe is closed.
pub(crate) async fn converse(pipe: PipeEnd, stream: impl AsyncRead + AsyncWrite, is_terminal: bool) -> Result<(), String> {
    let (sender, receiver) = pipe.split();
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        biased;
        () = sender.closed().cancelled() => Ok(()),
        ended = output(&sender, reader, is_terminal) => ended,
        () = input(receiver, writer) => Ok(()),
    }
}

/// One way.
pub(crate) async fn follow(pipe: PipeEnd, mut body: RawBody, is_terminal: bool) -> Result<(), String> {
    // What somebody types into logs is for nobody, but has to be taken.
    let (sender, mut receiver) = pipe.split();
    let mut framing = Framing::of_terminal(is_terminal);
    let mut parts = Vec::new();
    let written = async {
        while let Some(bytes) = body.next().await {
            framing.output(bytes?, &mut parts);
            for part in parts.drain(..) {
                if !sender.send(part).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = sender.closed().cancelled() => Ok(()),
        ended = written => ended,
        () = async { while receiver.receive().await.is_some() {} } => Ok(()),
    }
}

async fn output(sender: &PipeSender, mut reader: impl AsyncRead + Unpin, is_terminal: bool) -> Result<(), String> {
    let mut framing = Framing::of_terminal(is_terminal);
    let mut buffer = BytesMut::new();
    let mut parts: Vec<Bytes> = Vec::new();
    loop {
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            // The daemon resets what is over.
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(_) => {}
        }
        framing.output(buffer.split().freeze(), &mut parts);
        for part in parts.drain(..) {
            if !sender.send(part).await {
                return Ok(());
            }
        }
    }
}

async fn input(mut receiver: PipeReceiver, mut writer: impl AsyncWrite + Unpin) {
    while let Some(bytes) = receiver.receive().await {
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            break;
        }
    }
    // What it last said may still be on its way.
    std::future::pending().await
}
