//! Files of a task's sandbox, found through the master, read from its agent.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::arguments::LogsFlags;
use crate::client::Client;
use crate::output::{Out, text};
use crate::resolve;

/// Between two looks of `--follow`.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes that are looked through at once for the last lines.
const PIECE: u64 = 64 << 10;

pub(crate) fn run(client: &Client, flags: &LogsFlags, out: &mut Out<'_>) -> Result<()> {
    let task = resolve::task(client, &flags.task)?;
    let agent = resolve::agent_address(&resolve::agent_of(client, &task)?)?;
    let path = format!("{}/{}", sandbox(client, &agent, &task)?, flags.file.trim_start_matches('/'));
    let file = File { client, agent: &agent, path: &path };
    let mut offset = match flags.lines {
        Some(lines) => file.start_of_last(lines)?,
        None => 0,
    };
    loop {
        let data = file.read(offset, None)?;
        offset += data.len() as u64;
        out.raw(data.as_bytes())?;
        if !data.is_empty() {
            continue;
        }
        if !flags.follow {
            return Ok(());
        }
        std::thread::sleep(LOOK);
        // A file that was rotated begins anew.
        if file.size()? < offset {
            offset = 0;
        }
    }
}

struct File<'a> {
    client: &'a Client,
    agent: &'a str,
    path: &'a str,
}

impl File<'_> {
    fn ask(&self, query: &str) -> Result<Value> {
        let path = format!("/files/read?path={}{query}", resolve::encode(self.path));
        self.client.agent_get(self.agent, &path).with_context(|| format!("cannot read {}", self.path))
    }

    /// What stands from `offset` on, as much as one answer has. Its length in bytes is that of the text unless the file is not UTF-8.
    fn read(&self, offset: u64, length: Option<u64>) -> Result<String> {
        let length = length.map(|it| format!("&length={it}")).unwrap_or_default();
        Ok(text(&self.ask(&format!("&offset={offset}{length}"))?, "data").to_owned())
    }

    fn size(&self) -> Result<u64> {
        self.ask("&offset=-1")?["offset"].as_u64().context("the agent tells no size")
    }

    /// Where the last so many lines begin.
    fn start_of_last(&self, lines: u64) -> Result<u64> {
        let mut end = self.size()?;
        if lines == 0 {
            return Ok(end);
        }
        // The line feed at the very end begins no line.
        let mut left = lines + 1;
        let mut is_last = true;
        while end > 0 {
            let begin = end.saturating_sub(PIECE);
            let piece = self.read(begin, Some(end - begin))?;
            if is_last && !piece.ends_with('\n') {
                left -= 1;
            }
            is_last = false;
            for (at, _) in piece.rmatch_indices('\n') {
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
