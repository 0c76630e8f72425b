use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::session::spawn;

/// Operations that servers before 3.6 do not have: reads of many znodes, ephemerals, watches of another kind than of old, who am I.
const NEWER: [i32; 6] = [22, 103, 104, 105, 106, 107];
const EXISTS: i32 = 3;
const UNIMPLEMENTED: i32 = -6;
/// Bytes of a request or an answer.
const FRAME_MAX: usize = 64 * 1024 * 1024;

/// A server as it was before 3.6, made of a newer one: stands before it and answers what the old one did not have as the old one did: with
/// "unimplemented", and then it hangs up. Gone when dropped.
#[derive(Debug)]
pub struct OldServer {
    address: SocketAddr,
    refused: Arc<AtomicU64>,
    _ends: DropGuard,
}

impl OldServer {
    /// Before `target`.
    pub async fn before(target: SocketAddr) -> OldServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (stop, refused) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (stop.clone(), refused.clone());
        spawn(async move {
            loop {
                let accepted = tokio::select! { accepted = listener.accept() => accepted, () = ended.cancelled() => return };
                let Ok((client, _)) = accepted else { continue };
                let (ended, count) = (ended.clone(), count.clone());
                spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    let marked = Mutex::default();
                    tokio::select! {
                        _ = requests(client_in, server_out, &marked, &count) => {}
                        _ = answers(server_in, client_out, &marked) => {}
                        () = ended.cancelled() => {}
                    }
                });
            }
        });
        OldServer { address, refused, _ends: stop.drop_guard() }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that it did not know.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

/// Numbers of the requests whose answers are to be refusals.
type Marked = Mutex<BTreeSet<i32>>;

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, marked: &Marked, refused: &AtomicU64) -> std::io::Result<()> {
    // The first one opens the session, and has neither number nor operation.
    let mut first = true;
    loop {
        let mut frame = read_frame(&mut from).await?;
        let number = |at: usize| frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
        if !first
            && let (Some(request), Some(operation)) = (number(0), number(4))
            && NEWER.contains(&operation)
        {
            marked.lock().unwrap_or_else(PoisonError::into_inner).insert(request);
            refused.fetch_add(1, Ordering::SeqCst);
            // Something harmless in its place, so that its answer comes when its turn is.
            frame = [request, EXISTS, 1].iter().flat_map(|word| word.to_be_bytes()).collect();
            frame.extend(b"/\0");
        }
        first = false;
        write_frame(&mut to, &frame).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, marked: &Marked) -> std::io::Result<()> {
    let mut first = true;
    loop {
        let mut frame = read_frame(&mut from).await?;
        let number = frame.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
        if !first
            && let Some(request) = number
            && marked.lock().unwrap_or_else(PoisonError::into_inner).remove(&request)
        {
            // Number and transaction stay; the error stands where all is well before, and nothing follows.
            frame.truncate(12);
            frame.extend(UNIMPLEMENTED.to_be_bytes());
            // Whoever asks such things is hung up on.
            return write_frame(&mut to, &frame).await;
        }
        first = false;
        write_frame(&mut to, &frame).await?;
    }
}

async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(to: &mut OwnedWriteHalf, frame: &[u8]) -> std::io::Result<()> {
    let mut bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(frame);
    to.write_all(&bytes).await
}
