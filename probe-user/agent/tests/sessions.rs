//! Sessions in containers, and clients that attach to tasks: what is typed and what is said, however much and however slowly.
#![allow(clippy::unwrap_used, missing_docs, reason = "the helpers of a test fail by panicking")]

mod support;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mesos_proto::recordio::Decoder;
use mesos_proto::v1::agent::{ProcessIo, process_io};
use mesos_proto::v1::{ContainerInfo, FrameworkInfo, TaskInfo, TaskState, TtyInfo, container_info, tty_info};
use prost::Message as _;
use serde_json::{Value, json};
use support::{World, framework, task};

/// A request whose body is a stream, in chunks.
struct Feed(TcpStream);

impl Feed {
    fn open(world: &World) -> Feed {
        let mut stream = TcpStream::connect(world.http).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let head = "POST /api/v1 HTTP/1.1\r\nHost: agent\r\nContent-Type: application/recordio\r\nMessage-Content-Type: application/json";
        write!(stream, "{head}\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        Feed(stream)
    }

    fn say(&mut self, input: &Value) {
        let call = json!({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": input}).to_string();
        let record = format!("{}\n{call}", call.len());
        write!(self.0, "{:x}\r\n{record}\r\n", record.len()).unwrap();
    }

    fn to(world: &World, id: &Value) -> Feed {
        let mut feed = Feed::open(world);
        feed.say(&json!({"type": "CONTAINER_ID", "container_id": id}));
        feed
    }

    fn data(&mut self, text: &str) {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        self.say(&json!({"type": "PROCESS_IO", "process_io": {"type": "DATA", "data": {"type": "STDIN", "data": data}}}));
    }

    fn end(mut self) -> String {
        // Who is refused is not listened to until the end.
        drop(self.0.write_all(b"0\r\n\r\n"));
        let mut answer = String::new();
        BufReader::new(self.0).read_line(&mut answer).unwrap();
        answer
    }
}

/// A response of records, in chunks.
struct Output {
    lines: BufReader<TcpStream>,
    decoder: Decoder,
    is_json: bool,
}

impl Output {
    fn open(world: &World, call: &Value, encoding: &str) -> Output {
        let call = call.to_string();
        let mut stream = TcpStream::connect(world.http).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let head = "POST /api/v1 HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nAccept: application/recordio";
        write!(stream, "{head}\r\nMessage-Accept: {encoding}\r\nContent-Length: {}\r\n\r\n{call}", call.len()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains(&format!("message-content-type: {encoding}")), "{head}");
        Output { lines, decoder: Decoder::new(1 << 20), is_json: encoding == "application/json" }
    }

    fn session(world: &World, id: &Value, command: &Value, terminal: Option<(u32, u32)>) -> Output {
        let mut launch = json!({"container_id": id, "command": command});
        if let Some((rows, columns)) = terminal {
            launch["container"] = json!({"type": "MESOS", "tty_info": {"window_size": {"rows": rows, "columns": columns}}});
        }
        let call = json!({"type": "LAUNCH_NESTED_CONTAINER_SESSION", "launch_nested_container_session": launch});
        Output::open(world, &call, "application/json")
    }

    fn of(world: &World, id: &Value, encoding: &str) -> Output {
        let call = json!({"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": id}});
        Output::open(world, &call, encoding)
    }

    /// `None` at the end; an error where the connection breaks off before.
    fn record(&mut self) -> io::Result<Option<ProcessIo>> {
        loop {
            if let Some(record) = self.decoder.next_record().unwrap() {
                return Ok(Some(if self.is_json { of_json(&record) } else { ProcessIo::decode(&*record).unwrap() }));
            }
            let mut size = String::new();
            self.lines.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let mut chunk = vec![0; size + 2];
            self.lines.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(None);
            }
            self.decoder.push(&chunk[..size]);
        }
    }

    /// What is said, until the text is there.
    fn hear(&mut self, until: &str) -> String {
        let mut said = String::new();
        while !said.contains(until) {
            let record = self.record().unwrap().unwrap_or_else(|| panic!("over after {said:?}"));
            said.push_str(&String::from_utf8_lossy(record.data.as_ref().map_or(&[], |it| it.data())));
        }
        said
    }

    /// All that is still said.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        while let Some(record) = self.record()? {
            said.extend(record.data.iter().flat_map(|it| it.data()));
        }
        Ok(said)
    }
}

/// The part of a record that these tests look at.
fn of_json(record: &[u8]) -> ProcessIo {
    use base64::Engine as _;

    let record: Value = serde_json::from_slice(record).unwrap();
    let data = record["data"]["data"].as_str().map(|it| base64::engine::general_purpose::STANDARD.decode(it).unwrap());
    let interval = record["control"]["heartbeat"]["interval"]["nanoseconds"].as_i64();
    assert_eq!(record["type"], if data.is_some() { "DATA" } else { "CONTROL" }, "{record}");
    ProcessIo {
        data: data.map(|it| process_io::Data { data: Some(it), ..process_io::Data::default() }),
        control: interval.map(|nanoseconds| {
            assert_eq!(record["control"]["type"], "HEARTBEAT");
            process_io::Control {
                r#type: Some(process_io::control::Type::Heartbeat as i32),
                heartbeat: Some(process_io::control::Heartbeat { interval: Some(mesos_proto::v1::DurationInfo { nanoseconds }) }),
                ..process_io::Control::default()
            }
        }),
        ..ProcessIo::default()
    }
}

/// A task to have sessions in, and its container.
fn host(world: &World) -> Value {
    run(world, &task("host", "sleep 1000"))
}

/// A task that runs, and its container.
fn run(world: &World, task: &TaskInfo) -> Value {
    let framework: FrameworkInfo = framework(true);
    world.master.acknowledge_all(true);
    world.master.run_task(&framework, task);
    world.master.state(&task.task_id.value, TaskState::TaskRunning);
    json!({"value": world.container(&framework, &task.task_id.value)})
}

fn terminal_task(id: &str, command: &str) -> TaskInfo {
    let size = tty_info::WindowSize { rows: 24, columns: 80 };
    let container = ContainerInfo {
        r#type: container_info::Type::Mesos as i32,
        tty_info: Some(TtyInfo { window_size: Some(size) }),
        ..ContainerInfo::default()
    };
    TaskInfo { container: Some(container), ..task(id, command) }
}

#[test]
fn a_terminal_takes_what_is_typed_and_knows_its_size() {
    let world = World::new(|_| {});
    world.master.acknowledge_all(true);
    let framework = framework(true);
    world.master.run_task(&framework, &task("host", "sleep 1000"));
    world.master.state("host", TaskState::TaskRunning);
    let id = json!({"value": "terminal", "parent": {"value": world.container(&framework, "host")}});
    let command = json!({"shell": false, "value": "sh", "arguments": ["sh"]});
    let mut output = Output::session(&world, &id, &command, Some((30, 100)));

    let mut input = Feed::to(&world, &id);
    input.data("stty size; tty; echo in''side\n");
    let said = output.hear("inside");
    assert!(said.contains("30 100") && said.contains("/dev/pts/"), "{said:?}");
    let size = json!({"type": "TTY_INFO", "tty_info": {"window_size": {"rows": 40, "columns": 120}}});
    input.say(&json!({"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control": size}}));
    input.say(&json!({"type": "PROCESS_IO", "process_io": {"type": "CONTROL", "control":
        {"type": "HEARTBEAT", "heartbeat": {"interval": {"nanoseconds": 1_000_000_000_i64}}}}}));
    input.data("sleep 0.3; stty size; echo do''ne\n");
    assert!(output.hear("done").contains("40 120"));
    input.data("exit 7\n");
    output.rest().unwrap();
    assert!(input.end().starts_with("HTTP/1.1 200"));

    // One that has no input, one that is not there, and a stream that does not begin as it should.
    let input = Feed::to(&world, &json!({"value": world.container(&framework, "host")}));
    assert!(input.end().starts_with("HTTP/1.1 400"));
    let input = Feed::to(&world, &json!({"value": "nobody"}));
    assert!(input.end().starts_with("HTTP/1.1 404"));
    let mut input = Feed::open(&world);
    input.data("x");
    assert!(input.end().starts_with("HTTP/1.1 400"));
}

#[test]
fn much_input_comes_back_as_much_output() {
    let world = World::new(|_| {});
    let host = host(&world);
    let lines: Vec<String> = (0..1024).map(|it| format!("{it:>1023}\n")).collect();
    for (name, terminal) in [("pipes", None), ("terminal", Some((24, 80)))] {
        let id = json!({"value": name, "parent": host});
        let command = if terminal.is_some() { "stty -echo -onlcr; echo ready; cat" } else { "echo ready; cat" };
        let mut output = Output::session(&world, &id, &json!({ "value": command }), terminal);
        output.hear("ready");
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut input = Feed::to(&world, &id);
                for it in lines.chunks(16) {
                    input.data(&it.concat());
                }
                // What ends a terminal's input is typed.
                input.data(if terminal.is_some() { "\u{4}" } else { "" });
                assert!(input.end().starts_with("HTTP/1.1 200"), "{name}");
            });
            String::from_utf8(output.rest().unwrap()).unwrap()
        });
        assert!(said.trim_start() == lines.concat().trim_start(), "{name}: {} bytes", said.len());
    }
}

#[test]
fn a_task_that_does_not_take_its_input_can_be_ended() {
    let world = World::new(|_| {});
    let id = run(&world, &terminal_task("deaf", "sleep 1000"));
    let mut input = Feed::to(&world, &id);
    input.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let record = json!({"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": {"type": "PROCESS_IO", "process_io":
        {"type": "DATA", "data": {"type": "STDIN", "data": "Cg=="}}}});
    let record = record.to_string().replace("Cg==", &"YWJjZGVmZ2hpagpr".repeat(2000));
    let piece = format!("{:x}\r\n{}\n{record}\r\n", record.len().to_string().len() + 1 + record.len(), record.len());
    // Until the socket pushes back.
    let mut written = 0;
    while input.0.write_all(piece.as_bytes()).is_ok() {
        written += piece.len();
        assert!(written < 256 << 20, "all of it is kept somewhere");
    }
    world.master.kill(&framework(true), "deaf");
    assert_eq!(world.master.states("deaf").pop().unwrap().state(), TaskState::TaskKilled);
}

#[test]
fn who_reads_slowly_gets_all_that_a_session_says() {
    let world = World::new(|_| {});
    let id = json!({"value": "much", "parent": host(&world)});
    let mut output = Output::session(&world, &id, &json!({"value": "head -c 5000000 /dev/zero; echo -n end"}), None);
    std::thread::sleep(Duration::from_secs(3));
    let said = output.rest().unwrap();
    assert_eq!(said.len(), 5_000_003);
    assert!(said.ends_with(b"end"));
}

#[test]
fn a_session_is_over_with_its_first_process_though_its_last_words_are_still_to_be_read() {
    // With process ids of their own as well: no process can be born in those of a container that is over.
    for isolation in [None, Some("namespaces/pid")] {
        let world = World::new(|config| config.isolation.extend(isolation.map(str::to_owned)));
        let id = json!({"value": "much", "parent": host(&world)});
        // More than all buffers on the way hold, so that the session waits for its reader.
        let mut output = Output::session(&world, &id, &json!({"value": "yes & sleep 3; exit 7"}), None);
        let wait = json!({"type": "WAIT_NESTED_CONTAINER", "wait_nested_container": {"container_id": id}}).to_string();
        let agent = ureq::Agent::config_builder().timeout_global(Some(support::PATIENCE)).build().new_agent();
        let request = agent.post(format!("http://{}/api/v1", world.http)).header("Content-Type", "application/json");
        let waited = request.send(wait).unwrap().body_mut().read_to_string().unwrap();
        let waited: Value = serde_json::from_str(&waited).unwrap();
        assert_eq!(waited["wait_nested_container"]["exit_status"], 7 << 8, "{isolation:?}");
        let said = output.rest().unwrap();
        assert!(said.len() > 1 << 20 && said.starts_with(b"y\ny\n"), "{isolation:?}: {}", said.len());
    }
}

#[test]
fn who_types_to_a_session_that_ended_at_once_is_not_refused() {
    let world = World::new(|_| {});
    let parent = host(&world);
    let id = json!({"value": "quick", "parent": parent});
    let mut output = Output::session(&world, &id, &json!({"value": "echo done"}), None);
    assert_eq!(output.rest().unwrap(), b"done\n");
    let answer = Feed::to(&world, &id).end();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = Feed::to(&world, &json!({"value": "nobody", "parent": parent})).end();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn calls_of_no_type_and_streams_of_calls_that_have_none_are_refused_as_mesos_refuses_them() {
    let world = World::new(|_| {});
    for nothing in [json!({}), json!({"type": "NOPE"})] {
        let (status, text) = world.post("/api/v1", &nothing);
        assert_eq!((status, text.as_str()), (400, "Failed to validate agent::Call: Expecting 'type' to be present"));
    }
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    for kind in ["application/json", "application/recordio"] {
        let call = r#"{"type":"GET_HEALTH"}"#;
        let call = if kind == "application/json" { call.to_owned() } else { format!("{}\n{call}", call.len()) };
        let request = agent.post(format!("http://{}/api/v1", world.http)).header("Content-Type", kind);
        let answer = request.header("Message-Content-Type", "application/json").send(call).unwrap();
        assert_eq!(answer.status().as_u16(), 415, "{kind}");
    }
}

#[test]
fn who_reads_a_task_too_slowly_is_cut_off_visibly_and_the_task_is_not_held_up() {
    const SAID: usize = 64 << 20;
    let world = World::new(|config| config.log_rotate_bytes = 0);
    let id = run(&world, &task("loud", &format!("while [ ! -e go ]; do sleep 0.1; done; head -c {SAID} /dev/zero; sleep 1000")));
    let mut output = Output::of(&world, &id, "application/x-protobuf");
    let sandbox = world.sandbox(&framework(true), "loud");
    let log = sandbox.join("stdout");
    let before = std::fs::metadata(&log).unwrap().len();
    std::fs::write(sandbox.join("go"), "").unwrap();
    let begun = Instant::now();
    while std::fs::metadata(&log).unwrap().len() < before + SAID as u64 {
        assert!(begun.elapsed() < support::PATIENCE, "the task waits for its reader");
        std::thread::sleep(Duration::from_millis(10));
    }
    output.rest().expect_err("some of it is missing");
}

#[test]
fn who_detaches_from_a_terminal_does_not_end_its_input() {
    let world = World::new(|_| {});
    let id = run(&world, &terminal_task("shell", "read line; echo \"got <$line>\"; sleep 1000"));
    let mut output = Output::of(&world, &id, "application/json");
    let mut input = Feed::to(&world, &id);
    input.data("");
    assert!(input.end().starts_with("HTTP/1.1 200"));
    let mut input = Feed::to(&world, &id);
    input.data("typed\n");
    output.hear("got <typed>");
    assert!(input.end().starts_with("HTTP/1.1 200"));
}

#[test]
fn who_hears_nothing_hears_that_it_is_connected() {
    let world = World::new(|config| config.http_heartbeat_interval = Duration::from_millis(400));
    let host = host(&world);
    let id = json!({"value": "quiet", "parent": host});
    let mut session = Output::session(&world, &id, &json!({"value": "sleep 2; echo said"}), None);
    let mut attached = Output::of(&world, &host, "application/x-protobuf");
    for output in [&mut session, &mut attached] {
        for _ in 0..3 {
            let control = output.record().unwrap().unwrap().control.unwrap();
            assert_eq!(control.r#type(), process_io::control::Type::Heartbeat);
            assert_eq!(control.heartbeat.unwrap().interval.unwrap().nanoseconds, 200_000_000);
        }
    }
    assert_eq!(session.rest().unwrap(), b"said\n");
}
