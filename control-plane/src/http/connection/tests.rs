use proptest::prelude::*;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// What comes out when `input` goes in, `piece` bytes at a time, read `room` bytes at a time.
async fn through(input: &[u8], piece: usize, room: usize) -> String {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let mut stream = ClientStream::new(server);
    let mut out = Vec::new();
    let mut buffer = vec![0; room];
    for chunk in input.chunks(piece) {
        client.write_all(chunk).await.unwrap();
        let mut expected_more = true;
        while expected_more {
            tokio::select! {
                biased;
                count = stream.read(&mut buffer) => out.extend_from_slice(&buffer[..count.unwrap()]),
                () = std::future::ready(()) => expected_more = false,
            }
        }
    }
    drop(client);
    stream.read_to_end(&mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check(input: &str, expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (piece, room) in [(1 << 16, 1 << 16), (1, 1), (7, 3), (3, 64)] {
        assert_eq!(runtime.block_on(through(input.as_bytes(), piece, room)), expected, "in pieces of {piece}, read by {room}");
    }
}

#[test]
fn angle_brackets_in_a_request_line_become_escapes() {
    check(
        "GET /api/topology/hosts/web-1;<host>?x=<> HTTP/1.1\r\nHost: <a>\r\n\r\n",
        "GET /api/topology/hosts/web-1;%3Chost%3E?x=%3C%3E HTTP/1.1\r\nHost: <a>\r\n\r\n",
    );
}

#[test]
fn requests_that_follow_on_the_connection_are_helped_too() {
    check(
        "GET /<a> HTTP/1.1\r\n\r\nGET /<b> HTTP/1.1\r\nX: <\r\n\r\n\r\nGET /<c> HTTP/1.1\r\n\r\n",
        "GET /%3Ca%3E HTTP/1.1\r\n\r\nGET /%3Cb%3E HTTP/1.1\r\nX: <\r\n\r\n\r\nGET /%3Cc%3E HTTP/1.1\r\n\r\n",
    );
}

#[test]
fn a_body_passes_as_it_is_and_its_length_is_respected() {
    check(
        "POST /<a> HTTP/1.1\r\nContent-Length: 12\r\n\r\n<b>\n\nGET /<\nGET /<c> HTTP/1.1\r\n\r\n",
        "POST /%3Ca%3E HTTP/1.1\r\nContent-Length: 12\r\n\r\n<b>\n\nGET /<\nGET /%3Cc%3E HTTP/1.1\r\n\r\n",
    );
}

#[test]
fn after_what_it_cannot_follow_everything_passes_as_it_is() {
    for header in [
        "Transfer-Encoding: chunked",
        "Upgrade: websocket",
        "Content-Length: x",
        "Content-Length: 1\r\nContent-Length: 1",
        " folded",
        "bare",
    ] {
        let input = format!("GET /<a> HTTP/1.1\r\n{header}\r\n\r\nGET /<b> HTTP/1.1\r\n\r\n");
        check(&input, &input.replacen("<a>", "%3Ca%3E", 1));
    }
}

#[test]
fn a_long_header_does_not_hide_the_next_one() {
    let long = "y".repeat(10_000);
    let input = format!("GET /<a> HTTP/1.1\r\nX: {long}\r\nContent-Length: 3\r\n\r\n<<<GET /<b> HTTP/1.1\r\n\r\n");
    check(&input, &input.replacen("<a>", "%3Ca%3E", 1).replacen("<b>", "%3Cb%3E", 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_has_nothing_to_escape_is_never_changed(input in "[A-Za-z0-9 :/;\r\n-]{0,200}", piece in 1_usize..40, room in 1_usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(through(input.as_bytes(), piece, room)), input);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let (_client, server) = tokio::io::duplex(16);
    let mut stream = ClientStream::new(server);
    let begun = Instant::now();
    let error = stream.write_all(&[0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 90);
}

/// Writes `length` bytes to a client that takes some of them every now and then.
async fn write_slowly(length: usize, taken: usize, pause: Duration) -> io::Result<Duration> {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let mut stream = ClientStream::new(server);
    let begun = Instant::now();
    let reading = async {
        let mut buffer = vec![0; taken];
        loop {
            tokio::time::sleep(pause).await;
            client.read_exact(&mut buffer).await.unwrap();
        }
    };
    let writing = async {
        for _ in 0..length.div_ceil(16 << 10) {
            stream.write_all(&[0; 16 << 10]).await?;
            stream.flush().await?;
        }
        Ok(begun.elapsed())
    };
    tokio::select! {
        () = reading => unreachable!(),
        outcome = writing => outcome,
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_comes_over_a_thin_line_and_not_in_drops() {
    let whole = write_slowly(35 << 20, 62_500, Duration::from_millis(500)).await.unwrap();
    assert!(whole > Duration::from_secs(240), "{whole:?}");
    let begun = Instant::now();
    let error = write_slowly(35 << 20, 1 << 10, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}
