//! The server's end of terminals: `exec` and `attach` over WebSockets, by `v4.channel.k8s.io` and `v5.channel.k8s.io`. What it runs is a shell of a
//! few words: `exit 3`, `size`, and everything else it says back.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// Channels, by the first byte of each message.
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// What was asked for.
#[derive(Debug)]
struct Asked {
    is_exec: bool,
    container: String,
    has_input: bool,
    is_terminal: bool,
    command: Vec<String>,
}

impl Asked {
    fn of(part: &str, query: &str) -> Self {
        let decoded = |text: &str| text.replace('+', " ").replace("%2F", "/");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let known: BTreeMap<&str, String> = pairs.clone().map(|(key, value)| (key, decoded(value))).collect();
        let says = |key: &str| known.get(key).is_some_and(|value| value == "true");
        Asked {
            is_exec: part == "exec",
            container: known.get("container").cloned().unwrap_or_default(),
            has_input: says("stdin"),
            is_terminal: says("tty"),
            command: pairs.filter(|(key, _)| *key == "command").map(|(_, value)| decoded(value)).collect(),
        }
    }
}

/// Answers a request for a terminal, by one of `protocols`. A container whose name begins with "bare" has no shell.
pub(crate) fn answer(
    part: &str,
    query: &str,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    protocols: &[&'static str],
    typed: impl Fn(&[u8]) + Send + 'static,
) -> Response {
    let asked = Asked::of(part, query);
    match upgrade {
        Ok(upgrade) => upgrade.protocols(protocols.iter().copied()).on_upgrade(move |socket| serve(socket, asked, typed)),
        Err(error) => error.into_response(),
    }
}

async fn serve(mut socket: WebSocket, asked: Asked, typed: impl Fn(&[u8])) {
    // Nobody may be there any more, which is no matter of the server's.
    drop(speak(&mut socket, asked, typed).await);
}

async fn speak(socket: &mut WebSocket, asked: Asked, typed: impl Fn(&[u8])) -> Result<(), axum::Error> {
    // As the real one does, before there is anything to say.
    for channel in [OUTPUT, ERRORS, STATUS] {
        say(socket, channel, "").await?;
    }
    if asked.is_exec && asked.container.starts_with("bare") {
        let message = "OCI runtime exec failed: exec: \"/bin/sh\": stat /bin/sh: no such file or directory";
        return end(socket, &json!({"status": "Failure", "reason": "InternalError", "message": message, "code": 500})).await;
    }
    let Asked { is_exec, container, has_input, is_terminal, command } = &asked;
    say(socket, OUTPUT, &format!("{container} exec={is_exec} stdin={has_input} tty={is_terminal} command={}\r\n", command.len())).await?;
    if !is_terminal {
        say(socket, ERRORS, "this is no terminal\r\n").await?;
    }
    let mut size = Value::Null;
    let mut line = Vec::new();
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((&INPUT, bytes)) => {
                typed(bytes);
                for &byte in bytes {
                    match byte {
                        b'\r' | b'\n' => {
                            let word = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                            match word.as_str() {
                                "exit 3" => {
                                    let cause = json!({"reason": "ExitCode", "message": "3"});
                                    let status = json!({
                                        "status": "Failure", "reason": "NonZeroExitCode",
                                        "message": "command terminated with non-zero exit code: exit status 3", "details": {"causes": [cause]},
                                    });
                                    return end(socket, &status).await;
                                }
                                "size" => say(socket, OUTPUT, &format!("{}x{}\r\n", size["Width"], size["Height"])).await?,
                                other => say(socket, OUTPUT, &format!("{other}!\r\n")).await?,
                            }
                        }
                        // An interrupt, and the end of what is typed.
                        3 => line.clear(),
                        4 if line.is_empty() => return end(socket, &json!({"status": "Success"})).await,
                        byte => line.push(byte),
                    }
                }
            }
            Some((&SIZE, bytes)) => size = serde_json::from_slice(bytes).unwrap_or_default(),
            _ => {}
        }
    }
    Ok(())
}

async fn end(socket: &mut WebSocket, status: &Value) -> Result<(), axum::Error> {
    say(socket, STATUS, &status.to_string()).await?;
    socket.send(Message::Close(None)).await
}

async fn say(socket: &mut WebSocket, channel: u8, text: &str) -> Result<(), axum::Error> {
    let bytes: Bytes = [&[channel], text.as_bytes()].concat().into();
    socket.send(Message::Binary(bytes)).await
}
