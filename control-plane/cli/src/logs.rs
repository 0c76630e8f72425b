//! Files of a task's sandbox, found through the master, read from its agent.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::arguments::LogsFlags;
use crate::client::Client;
use crate::output::{Out, text};
use crate::resolve;

/// Between two looks of `--follow`.
const LOOK: Duration = Duration::from_millis(500);
/// Looks that find nothing new between two questions whether the task is over.
const LOOKS: u32 = 10;
/// Bytes that are asked for at once: an agent answers with no more.
const PIECE: u64 = 64 << 10;

pub(crate) fn run(client: &Client, flags: &LogsFlags, out: &mut Out<'_>) -> Result<()> {
    let task = resolve::task(client, &flags.task)?;
    let agent = resolve::agent_address(&resolve::agent_of(client, &task)?)?;
    let path = format!("{}/{}", sandbox(client, &agent, &task)?, flags.file.trim_start_matches('/'));
    let of_task =
        format!("/tasks?task_id={}&framework_id={}", resolve::encode(text(&task, "id")), resolve::encode(text(&task, "framework_id")));
    // Its agent has what it writes, however long no master answers.
    let is_over = || match client.get(&of_task) {
        Ok(answer) => {
            let known = resolve::list(&answer, "tasks");
            // A master that has just been elected knows none until agents are back.
            !known.is_empty() && known.iter().all(|it| resolve::is_over(text(it, "state")))
        }
        Err(_) => false,
    };
    File { client, agent: &agent, path: &path }.print(flags.lines, flags.follow.then_some(&is_over), out)
}

struct File<'a> {
    client: &'a Client,
    agent: &'a str,
    path: &'a str,
}

impl File<'_> {
    /// Prints its last so many lines, or all of it. `until`: and what comes afterwards, until this is so.
    fn print(&self, lines: Option<u64>, until: Option<&dyn Fn() -> bool>, out: &mut Out<'_>) -> Result<()> {
        let mut offset = match lines {
            Some(lines) => self.start_of_last(lines)?,
            None => 0,
        };
        let (mut looks, mut is_over) = (LOOKS, false);
        loop {
            let (data, size) = self.read(offset, PIECE)?;
            offset += data.len() as u64;
            out.raw(&data)?;
            if !data.is_empty() {
                continue;
            }
            let Some(until) = until.filter(|_| !is_over) else { return Ok(()) };
            if looks >= LOOKS {
                looks = 0;
                if until() {
                    // What it has written in between is still to be read.
                    is_over = true;
                    continue;
                }
            }
            looks += 1;
            // A file that was rotated begins anew.
            if size < offset {
                offset = 0;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What stands from `offset` on, as much as one answer has, and the size of the file. In bytes: `/files/read` answers with text, whose length is
    /// another one where the file is not UTF-8 or a piece ends amid a character.
    fn read(&self, offset: u64, length: u64) -> Result<(Vec<u8>, u64)> {
        let call = json!({ "path": self.path, "offset": offset, "length": length });
        let answer = self.client.agent_call(self.agent, "READ_FILE", call).with_context(|| format!("cannot read {}", self.path))?;
        let read = &answer["read_file"];
        let data = STANDARD.decode(text(read, "data")).context("the agent sent data that is not base64")?;
        Ok((data, read["size"].as_u64().context("the agent tells no size")?))
    }

    /// Where the last so many lines begin.
    fn start_of_last(&self, lines: u64) -> Result<u64> {
        let (_, mut end) = self.read(0, 0)?;
        if lines == 0 {
            return Ok(end);
        }
        // The line feed at the very end begins no line.
        let mut left = lines.saturating_add(1);
        let mut is_last = true;
        while end > 0 {
            let begin = end.saturating_sub(PIECE);
            let (piece, _) = self.read(begin, end - begin)?;
            if is_last && piece.last() != Some(&b'\n') {
                left -= 1;
            }
            is_last = false;
            for (at, _) in piece.iter().enumerate().rev().filter(|(_, it)| **it == b'\n') {
                left -= 1;
                if left == 0 {
                    return Ok(begin + at as u64 + 1);
                }
            }
            end = begin;
        }
        Ok(0)
    }
}

/// The directory of a task, as its agent tells it.
fn sandbox(client: &Client, agent: &str, task: &Value) -> Result<String> {
    let state = client.agent_get(agent, "/state")?;
    let (id, framework) = (text(task, "id"), text(task, "framework_id"));
    // A task without an executor of its own is its executor.
    let executor = Some(text(task, "executor_id")).filter(|it| !it.is_empty()).unwrap_or(id);
    for frameworks in ["frameworks", "completed_frameworks"] {
        for known in resolve::list(&state, frameworks).iter().filter(|it| text(it, "id") == framework) {
            for executors in ["executors", "completed_executors"] {
                let mut of_task = resolve::list(known, executors);
                of_task.retain(|it| text(it, "id") == executor && holds(it, id));
                if let Some(found) = of_task.last() {
                    let directory = text(found, "directory").to_owned();
                    // The default executor gives each of its tasks a directory below its own.
                    return Ok(if text(found, "type") == "DEFAULT" { format!("{directory}/tasks/{id}") } else { directory });
                }
            }
        }
    }
    bail!("the agent at {agent} knows no sandbox of the task {id} any more")
}

fn holds(executor: &Value, task: &str) -> bool {
    ["tasks", "queued_tasks", "completed_tasks"].iter().any(|it| resolve::list(executor, it).iter().any(|it| text(it, "id") == task))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Format};

    /// An agent with one file, which answers as many calls as it is given states of the file, and has gone then. It never answers with more than
    /// `most` bytes.
    fn agent(states: Vec<Vec<u8>>, most: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for file in states {
                let mut stream = listener.accept().unwrap().0;
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                    if let Some(it) = line.to_lowercase().strip_prefix("content-length:") {
                        length = it.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let call: Value = serde_json::from_slice(&body).unwrap();
                let of = |name: &str| usize::try_from(call["read_file"][name].as_u64().unwrap()).unwrap();
                let from = of("offset").min(file.len());
                let data = &file[from..file.len().min(from + of("length").min(most))];
                let answer = json!({ "type": "READ_FILE", "read_file": { "size": file.len(), "data": STANDARD.encode(data) } }).to_string();
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
            }
        });
        address
    }

    fn printed(agent: &str, lines: Option<u64>, until: Option<&dyn Fn() -> bool>) -> (Vec<u8>, bool) {
        let arguments = Arguments::try_parse_from(["orchestrator", "--master", "127.0.0.1:1", "leader"]).unwrap();
        let client = Client::open("127.0.0.1:1", &arguments.access).unwrap();
        let mut bytes = Vec::new();
        let done = File { client: &client, agent, path: "/a" }.print(lines, until, &mut Out::new(&mut bytes, Format::Table));
        (bytes, done.is_ok())
    }

    #[test]
    fn a_file_is_printed_as_it_is_whatever_its_characters() {
        let latin = b"caf\xe9 \xe9\xe9\xe9\n".to_vec();
        assert_eq!(printed(&agent(vec![latin.clone(); 2], 65536), None, None), (latin, true));
        // Pieces end amid characters.
        let text = "\u{20ac}uro\n".repeat(5).into_bytes();
        assert_eq!(printed(&agent(vec![text.clone(); 50], 4), None, None), (text.clone(), true));
        assert_eq!(printed(&agent(vec![text.clone(); 50], 65536), Some(2), None), (text[text.len() - 14..].to_vec(), true));
        assert_eq!(printed(&agent(vec![text.clone(); 50], 65536), Some(9), None), (text, true));
    }

    #[test]
    fn nothing_is_printed_twice_while_a_file_is_followed_and_one_that_was_rotated_begins_anew() {
        let (first, more, fresh) = (b"\xe9\xe9\n".to_vec(), b"\xe9\xe9\nx\n".to_vec(), b"y\n".to_vec());
        let states = vec![first.clone(), first, more.clone(), more, fresh.clone(), fresh];
        // The agent goes in the end, which ends it.
        assert_eq!(printed(&agent(states, 65536), None, Some(&|| false)), (b"\xe9\xe9\nx\ny\n".to_vec(), false));
    }
    #[test]
    fn who_follows_a_task_that_is_over_reads_its_last_words_and_ends() {
        let states = vec![b"a\n".to_vec(), b"a\n".to_vec(), b"a\nb\n".to_vec(), b"a\nb\n".to_vec()];
        assert_eq!(printed(&agent(states, 65536), None, Some(&|| true)), (b"a\nb\n".to_vec(), true));
    }
}
