//! Streams of events.

use mesos_proto::recordio::Decoder;

use super::*;

struct Stream {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Server {
    /// Opens a stream, and gives back its head.
    async fn open(&self, path: &str, headers: &str, body: &str) -> (String, Stream) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut stream = Stream { socket, received: Vec::new() };
        loop {
            if let Some(end) = stream.received.windows(4).position(|it| it == b"\r\n\r\n") {
                let head = String::from_utf8(stream.received.drain(..end + 4).collect()).unwrap();
                return (head, stream);
            }
            stream.more().await;
        }
    }
}

impl Stream {
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(Duration::from_secs(10), self.socket.read_buf(&mut self.received)).await;
        read.expect("nothing came for ten seconds").unwrap() > 0
    }

    /// At least so many chunks.
    async fn chunks(&mut self, count: usize) -> Vec<Vec<u8>> {
        loop {
            let chunks = pieces(&self.received);
            if chunks.len() >= count || !self.more().await {
                return chunks;
            }
        }
    }
}

#[tokio::test]
async fn an_operators_stream_begins_with_the_state_and_one_record_is_one_chunk() {
    let server = server().await;
    let headers = "Content-Type: application/json\r\n";
    let (head, mut stream) = server.open("/api/v1", headers, r#"{"type":"SUBSCRIBE"}"#).await;
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
    assert!(head.contains("content-type: application/json") && !head.contains("mesos-stream-id"), "{head}");
    let chunks = stream.chunks(1).await;
    let mut decoder = Decoder::new(1 << 20);
    decoder.push(&chunks[0]);
    let record = decoder.next_record().unwrap().unwrap();
    assert!(decoder.is_between_records());
    let event: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!((&event["type"], &event["subscribed"]["heartbeat_interval_seconds"]), (&"SUBSCRIBED".into(), &15.0.into()));
    assert!(event["subscribed"]["get_state"]["get_agents"].is_object());
}

#[tokio::test]
async fn the_oldest_of_too_many_operators_is_closed() {
    let server = server().await;
    let headers = "Content-Type: application/json\r\n";
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (_, mut stream) = server.open("/api/v1", headers, r#"{"type":"SUBSCRIBE"}"#).await;
        stream.chunks(1).await;
        streams.push(stream);
    }
    let mut oldest = streams.remove(0);
    while oldest.more().await {
        if oldest.received.ends_with(b"0\r\n\r\n") {
            break;
        }
    }
    assert!(oldest.received.ends_with(b"0\r\n\r\n"));
}
