//! A command beside a task, in a container nested in that of the task, with what is typed and what it says passed on.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesos_proto::recordio::{Decoder, frame};
use rustix::termios::{self, OptionalActions, Termios};
use serde_json::{Value, json};
use signal_hook::consts::SIGWINCH;

use crate::arguments::ExecFlags;
use crate::client::Client;
use crate::output::text;
use crate::resolve;

/// How often the agent hears that we are still there.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Longest record of output.
const RECORD_MAX: usize = 16 << 20;
/// Bytes of input in one record.
const INPUT_MAX: usize = 16 << 10;
/// Exit code when the command ended by a signal, as shells have it: this and its number.
const BY_SIGNAL: i32 = 128;

pub(crate) fn run(client: &Client, flags: &ExecFlags) -> Result<u8> {
    let task = resolve::task(client, &flags.task)?;
    let parent = resolve::container_of(&task)
        .with_context(|| format!("the task {} has no container (it is {})", text(&task, "id"), text(&task, "state")))?;
    if let Some(hint) = refusal(&task, &parent) {
        bail!(hint);
    }
    let agent = resolve::agent_address(&resolve::agent_of(client, &task)?)?;
    if flags.tty && !io::stdin().is_terminal() {
        bail!("--tty needs a terminal here");
    }
    let container = json!({ "value": uuid::Uuid::new_v4().to_string(), "parent": parent });
    let terminal = std::env::var("TERM").ok().filter(|it| flags.tty && !it.is_empty());
    let mut session = json!({ "container_id": container, "command": command(flags, terminal.as_deref()) });
    if flags.tty {
        session["container"] = json!({ "type": "MESOS", "tty_info": tty_info() });
    }
    let call = json!({ "type": "LAUNCH_NESTED_CONTAINER_SESSION", "launch_nested_container_session": session });
    let output = client.agent_stream(&agent, &call)?;
    let restored = flags.tty.then(RawTerminal::enter).transpose()?;
    let outcome = attend(client, &agent, &container, flags, output);
    drop(restored);
    let answer = outcome?;
    let waited = &answer["wait_container"];
    if let Some(message) = waited["message"].as_str() {
        let _ = writeln!(io::stderr(), "{message}");
    }
    Ok(exit_code(waited["exit_status"].as_i64()))
}

/// Nothing can be nested in what is not the agent's own.
fn refusal(task: &Value, container: &Value) -> Option<String> {
    let name = format!("mesos-{}", text(container, "value"));
    (task["container"]["type"] == "DOCKER").then(|| {
        let id = text(task, "id");
        format!("the task {id} is in a container of Docker's: `docker exec {name}` on its agent's host runs a command in it, and so does the map's page")
    })
}

/// What is run. `terminal`: what kind of one is here, which programs there are to know.
fn command(flags: &ExecFlags, terminal: Option<&str>) -> Value {
    let mut command = json!({ "shell": false, "value": flags.command.first(), "arguments": flags.command });
    if let Some(user) = &flags.user {
        command["user"] = json!(user);
    }
    if let Some(terminal) = terminal {
        command["environment"] = json!({ "variables": [{ "name": "TERM", "type": "VALUE", "value": terminal }] });
    }
    command
}

/// Until the command has ended; gives back how.
fn attend(client: &Client, agent: &str, container: &Value, flags: &ExecFlags, output: impl Read) -> Result<Value> {
    let wait = json!({ "type": "WAIT_CONTAINER", "wait_container": { "container_id": container } });
    let (waiting, at) = (client.clone(), agent.to_owned());
    let ended = std::thread::spawn(move || waiting.agent_wait(&at, &wait));
    if flags.interactive || flags.tty {
        let (records, taken) = channel();
        feed(&records, container, flags.interactive, flags.tty)?;
        let (client, agent) = (client.clone(), agent.to_owned());
        // It ends with the process: nothing can take a thread out of a read of standard input.
        std::thread::spawn(move || {
            if let Err(error) = client.agent_feed(&agent, Records { taken, rest: VecDeque::new() }) {
                // The command may go on without: it is not ours to end.
                let _ = writeln!(io::stderr(), "what is typed does not reach the command: {error:#}");
            }
        });
    }
    pass(output)?;
    match ended.join() {
        Ok(answer) => answer,
        Err(_) => bail!("waiting for the command broke off"),
    }
}

/// From what `wait(2)` tells.
fn exit_code(status: Option<i64>) -> u8 {
    let status = status.and_then(|it| i32::try_from(it).ok()).unwrap_or(1 << 8);
    let code = if status & 0x7f == 0 { status >> 8 & 0xff } else { BY_SIGNAL + (status & 0x7f) };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Writes what the command says, until it has ended.
fn pass(mut output: impl Read) -> Result<()> {
    let mut decoder = Decoder::new(RECORD_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        while let Some(record) = decoder.next_record()? {
            let message: Value = serde_json::from_slice(&record).context("the agent sent a record that is not JSON")?;
            let data = &message["data"];
            let bytes = STANDARD.decode(text(data, "data")).context("the agent sent data that is not base64")?;
            if text(data, "type") == "STDERR" {
                io::stderr().write_all(&bytes)?;
            } else {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes)?;
                stdout.flush()?;
            }
        }
        match output.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => decoder.push(buffer.get(..length).unwrap_or_default()),
        }
    }
}

/// Starts whatever makes records of input: the keyboard, the size of the terminal, the passing of time.
fn feed(records: &Sender<Option<Value>>, container: &Value, has_input: bool, has_terminal: bool) -> Result<()> {
    let first = json!({ "type": "CONTAINER_ID", "container_id": container });
    drop(records.send(Some(first)));
    if has_terminal {
        let mut resized = signal_hook::iterator::Signals::new([SIGWINCH]).context("cannot watch the size of the terminal")?;
        let records = records.clone();
        std::thread::spawn(move || {
            for _ in resized.forever() {
                let control = json!({ "type": "TTY_INFO", "tty_info": tty_info() });
                if records.send(Some(process_io(&json!({ "type": "CONTROL", "control": control })))).is_err() {
                    return;
                }
            }
        });
    }
    if has_input {
        let records = records.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; INPUT_MAX];
            loop {
                let length = io::stdin().lock().read(&mut buffer).unwrap_or(0);
                let data = json!({ "type": "STDIN", "data": STANDARD.encode(buffer.get(..length).unwrap_or_default()) });
                // An empty piece says that there is no more.
                let sent = records.send(Some(process_io(&json!({ "type": "DATA", "data": data }))));
                if sent.is_err() || length == 0 {
                    drop(records.send(None));
                    return;
                }
            }
        });
    }
    Ok(())
}

fn process_io(message: &Value) -> Value {
    json!({ "type": "PROCESS_IO", "process_io": message })
}

fn tty_info() -> Value {
    let size = termios::tcgetwinsize(io::stdin()).or_else(|_| termios::tcgetwinsize(io::stdout()));
    match size {
        Ok(size) => json!({ "window_size": { "rows": size.ws_row, "columns": size.ws_col } }),
        Err(_) => json!({}),
    }
}

/// The body of the request that carries input, as it comes to be.
struct Records {
    taken: Receiver<Option<Value>>,
    rest: VecDeque<u8>,
}

impl Read for Records {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let input = match self.taken.recv_timeout(HEARTBEAT) {
                Ok(Some(input)) => input,
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {
                    let interval = json!({ "nanoseconds": i64::try_from(HEARTBEAT.as_nanos()).unwrap_or(i64::MAX) });
                    process_io(&json!({ "type": "CONTROL", "control": { "type": "HEARTBEAT", "heartbeat": { "interval": interval } } }))
                }
            };
            let call = json!({ "type": "ATTACH_CONTAINER_INPUT", "attach_container_input": input });
            self.rest.extend(frame(call.to_string().as_bytes()));
        }
        self.rest.read(into)
    }
}

/// The terminal passes every key on while this lives.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let before = termios::tcgetattr(io::stdin()).context("cannot ask the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw).context("cannot set the terminal")?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!([Some(0), Some(3 << 8), Some(9), None].map(exit_code), [0, 3, 137, 1]);
    }

    #[test]
    fn programs_know_the_terminal_and_containers_of_docker_take_none() {
        let flags = ExecFlags { tty: true, interactive: true, user: None, task: "t".into(), command: vec!["top".into(), "-d1".into()] };
        let variables = json!([{ "name": "TERM", "type": "VALUE", "value": "xterm" }]);
        assert_eq!(command(&flags, Some("xterm"))["environment"]["variables"], variables);
        assert_eq!(command(&flags, None), json!({ "shell": false, "value": "top", "arguments": ["top", "-d1"] }));
        let container = json!({ "value": "c" });
        assert!(
            refusal(&json!({ "id": "t", "container": { "type": "DOCKER" } }), &container)
                .is_some_and(|it| it.contains("docker exec mesos-c"))
        );
        assert_eq!(refusal(&json!({ "id": "t" }), &container), None);
    }

    #[test]
    fn input_is_framed_and_ends() {
        let (records, taken) = channel();
        records.send(Some(json!({ "type": "CONTAINER_ID" }))).unwrap();
        records.send(None).unwrap();
        let mut bytes = Vec::new();
        Records { taken, rest: VecDeque::new() }.read_to_end(&mut bytes).unwrap();
        let mut decoder = Decoder::new(RECORD_MAX);
        decoder.push(&bytes);
        let record: Value = serde_json::from_slice(&decoder.next_record().unwrap().unwrap()).unwrap();
        assert_eq!(record["attach_container_input"]["type"], "CONTAINER_ID");
        assert!(decoder.is_between_records());
    }
}
