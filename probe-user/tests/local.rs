//! The real binary without a control plane: once, as a document and as tables, and on a terminal.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_orchestrator-probe");

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

fn once(arguments: &[&str]) -> Output {
    Command::new(PROBE).args(["--once", "--for", "1500ms", "--no-docker"]).args(arguments).output().unwrap()
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A connection that is open while the probe looks.
struct Connection {
    port: u16,
    both: (std::net::TcpStream, std::net::TcpStream),
    _listener: TcpListener,
}

impl Connection {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        Connection { port: address.port(), both: (client, server), _listener: listener }
    }
}

#[test]
fn one_document_has_this_process_and_its_connection_on_the_lowest_rung_too() {
    let connection = Connection::open();
    for capture in ["auto", "proc"] {
        let output = once(&["--output", "json", "--capture", capture]);
        let document = document(&output);
        let own = u64::from(std::process::id());
        let processes = document["processes"].as_array().unwrap();
        let process = processes.iter().find(|it| it["pid"] == own).unwrap();
        assert!(process["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{process}");
        assert!(process["cpuPercent"].is_number(), "{process}");
        let flows = document["flows"].as_array().unwrap().iter().filter(|it| it["serverPort"] == connection.port && it["pid"] == own);
        let mut directions = flows.map(|it| it["direction"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        directions.sort();
        assert_eq!(directions, ["client", "server"], "{capture}");
        assert!(document["host"]["cpuCount"].as_u64().is_some_and(|count| count > 0));
        let rung = document["capture"]["rung"].as_u64().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(rung > 1, said.contains(&format!("(rung {rung})")), "a lower rung is said so, and only that: {said:?}");
    }
}

#[test]
fn what_an_open_connection_moves_is_told_while_it_is_open() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut connection = Connection::open();
    let port = connection.port;
    let (document, moved) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            document(
                &Command::new(PROBE)
                    .args(["--once", "--for", "4s", "--no-docker", "--output", "json", "--capture", "ebpf"])
                    .output()
                    .unwrap(),
            )
        });
        let (client, server) = &mut connection.both;
        let mut moved = 0;
        while !looking.is_finished() {
            client.write_all(&[7; 10_000]).unwrap();
            server.read_exact(&mut [0; 10_000]).unwrap();
            moved += 10_000;
            std::thread::sleep(Duration::from_millis(10));
        }
        (looking.join().unwrap(), moved)
    });
    let flows = document["flows"].as_array().unwrap().iter();
    let sent =
        flows.filter(|it| it["serverPort"] == port && it["direction"] == "client").filter_map(|it| it["bytesSent"].as_u64()).sum::<u64>();
    assert!((10_000..=moved).contains(&sent), "{sent} of {moved}");
}

/// Docker gives every container a cgroup namespace of its own, in which the host's hierarchy has no root.
#[test]
fn a_look_from_a_cgroup_namespace_of_its_own_sees_as_much() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 "))).unwrap();
    let cgroup = std::path::Path::new(root).join(format!("probe-test-apart-{}", std::process::id()));
    std::fs::create_dir_all(&cgroup).unwrap();
    let look = |way: &str| {
        let line =
            format!("echo $$ > {}/cgroup.procs && exec {way} {PROBE} --once --for 500ms --no-docker --output json", cgroup.display());
        let document = document(&Command::new("sh").args(["-c", &line]).output().unwrap());
        document["capture"]["rung"].clone()
    };
    assert_eq!(look("unshare --cgroup"), look(""));
    let _ = std::fs::remove_dir(&cgroup);
}

#[test]
fn lines_of_the_log_are_written_if_somebody_asks_for_them() {
    let said = |arguments: &[&str]| {
        let output = once(&[&["--output", "json", "--capture", "proc"], arguments].concat());
        document(&output);
        String::from_utf8_lossy(&output.stderr).contains("INFO")
    };
    assert!(!said(&[]));
    // It is the built-in value, and all the same a wish.
    assert!(said(&["--log-filter", "info"]));
}

#[test]
fn a_log_that_finds_the_disk_full_ends_nothing() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(PROBE);
    command.args(["--once", "--for", "500ms", "--no-docker", "--output", "json", "--log-filter", "debug", "--capture", "netlink"]);
    let output = command.stderr(full()).output().unwrap();
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["processes"].as_array().is_some_and(|them| !them.is_empty()));
    // What was asked for and cannot be written is a failure.
    let status = command.stdout(full()).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success());
}

#[test]
fn nobody_is_asked_and_nothing_is_bound() {
    let control_plane = TcpListener::bind("127.0.0.1:0").unwrap();
    control_plane.set_nonblocking(true).unwrap();
    // Held: a probe that would bind it fails.
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", control_plane.local_addr().unwrap());
    let output = once(&[
        "--output",
        "json",
        "--control-plane",
        &url,
        "--admin-address",
        &admin.local_addr().unwrap().to_string(),
        "--capture",
        "proc",
    ]);
    document(&output);
    let kind = control_plane.accept().map_err(|error| error.kind()).err();
    assert_eq!(kind, Some(std::io::ErrorKind::WouldBlock), "somebody has connected");
}

#[test]
fn tables_have_no_colours_in_a_pipe() {
    let output = once(&["--output", "table", "--capture", "proc"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("PROCESSES (") && text.contains("CPUs"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(PROBE)
        .args(["--once", "--for", "100ms", "--output", "json", "--capture", "proc", "--no-docker"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn whoever_has_no_privilege_sees_what_there_is_and_is_told() {
    if !nix::unistd::Uid::effective().is_root() {
        // Then every other test here is this one.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("probe");
    std::fs::copy(PROBE, &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]).arg(&program);
    let output = command.args(["--once", "--for", "1s", "--output", "json"]).current_dir("/").output().unwrap();
    let document = document(&output);
    // New kernels let everybody listen to the life of processes; sockets of others have no owner there.
    let rung = document["capture"]["rung"].as_u64().unwrap();
    assert!(rung >= 5, "{}", document["capture"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("(rung {rung}): ")) && said.contains("rights"), "{said}");
    assert!(document["processes"].as_array().unwrap().iter().any(|it| it["pid"] == 1));
}

#[test]
fn a_runtime_that_is_there_and_does_not_answer_is_a_blind_spot() {
    let directory = tempfile::tempdir().unwrap();
    let sockets = ["docker.sock", "containerd.sock"].map(|name| directory.path().join(name).to_str().unwrap().to_owned());
    // Nobody serves them any more.
    sockets.iter().for_each(|socket| drop(std::os::unix::net::UnixListener::bind(socket).unwrap()));
    let mut command = Command::new(PROBE);
    command.args(["--once", "--for", "500ms", "--output", "json", "--capture", "proc"]);
    command.args(["--docker-socket", &sockets[0], "--cri-socket", &format!("{},/does/not/exist", sockets[1])]);
    let begun = Instant::now();
    let document = document(&command.output().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody is waited for: {:?}", begun.elapsed());
    let told: Vec<&str> = document["capture"]["blindSpots"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for socket in &sockets {
        assert!(told.iter().any(|it| it.contains(socket) && it.contains("does not answer")), "{told:?}");
    }
    assert!(!told.iter().any(|it| it.contains("/does/not/exist")), "{told:?}");
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for arguments in [&["--output", "json"][..], &["--once", "--output", "xml"], &["--once", "--for", "soon"], &["--once", "top"]] {
        let output = Command::new(PROBE).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn top_without_a_terminal_points_to_once() {
    let output = Command::new(PROBE).arg("top").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--once --output table"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a terminal would show: letters and the places that they are put at. Colours do not matter.
struct Picture {
    lines: Vec<Vec<char>>,
    at: (usize, usize),
    /// A command that has not come to its end.
    command: Option<String>,
    /// The screen of before is shown.
    given_back: bool,
}

impl Picture {
    fn new(columns: u16, rows: u16) -> Self {
        Picture { lines: vec![vec![' '; columns.into()]; rows.into()], at: (0, 0), command: None, given_back: false }
    }

    fn take(&mut self, text: &str) {
        for letter in text.chars() {
            match &mut self.command {
                Some(command) => {
                    command.push(letter);
                    // "[" begins it, and the first letter behind ends it.
                    if command.len() > 1 && letter.is_ascii_alphabetic() {
                        let command = self.command.take().unwrap();
                        self.obey(&command);
                    }
                }
                None if letter == '\u{1b}' => self.command = Some(String::new()),
                None => {
                    let (row, column) = self.at;
                    if let Some(cell) = self.lines.get_mut(row).and_then(|line| line.get_mut(column)) {
                        *cell = letter;
                    }
                    self.at.1 += 1;
                }
            }
        }
    }

    fn obey(&mut self, command: &str) {
        if let Some(place) = command.strip_prefix('[').and_then(|rest| rest.strip_suffix('H')) {
            let (row, column) = place.split_once(';').unwrap_or(("1", "1"));
            self.at = (row.parse::<usize>().unwrap() - 1, column.parse::<usize>().unwrap() - 1);
        }
        self.given_back |= command == "[?1049l";
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| line.iter().collect::<String>() + "\n").collect()
    }
}

/// `top` on a terminal of its own.
struct Top {
    child: Child,
    keyboard: File,
    output: mpsc::Receiver<Vec<u8>>,
    picture: Picture,
    /// Half a letter.
    rest: Vec<u8>,
}

impl Top {
    fn start(columns: u16, rows: u16) -> Self {
        let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let slave = File::from(pty.slave);
        let child = Command::new(PROBE)
            .args(["top", "--capture", "proc", "--no-docker"])
            .env("TERM", "xterm-256color")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let keyboard = File::from(pty.master);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Top { child, keyboard, output, picture: Picture::new(columns, rows), rest: Vec::new() }
    }

    /// Waits until the screen is as asked.
    #[track_caller]
    fn until_it(&mut self, what: &str, asked: impl Fn(&Picture) -> bool) {
        let begun = Instant::now();
        while !asked(&self.picture) {
            assert!(begun.elapsed() < PATIENCE, "not so: {what}\n{}", self.picture.text());
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.rest.extend_from_slice(&bytes);
                let whole = std::str::from_utf8(&self.rest).map_or_else(|error| error.valid_up_to(), str::len);
                let text = String::from_utf8(self.rest.drain(..whole).collect()).unwrap();
                self.picture.take(&text);
            }
        }
    }

    /// Waits until this is on the screen.
    #[track_caller]
    fn until(&mut self, text: &str) {
        self.until_it(text, |picture| picture.text().contains(text));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn ends(mut self) {
        let begun = Instant::now();
        self.until_it("the screen of before", |picture| picture.given_back);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status:?}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn top_shows_processes_and_answers_to_keys_until_q() {
    let mut top = Top::start(120, 30);
    top.until("rung 6  ");
    top.until("CPU▼");
    top.press("2");
    top.until("PEER");
    top.press("h");
    top.until("this help");
    top.press("x1s");
    top.until("MEMORY▼");
    top.press("/nothing is called so");
    top.until("/nothing is called so_");
    top.press("\r");
    top.until_it("nothing is found", |picture| picture.text().lines().nth(3).is_some_and(|line| line.trim().is_empty()));
    top.press("q");
    top.ends();
}

#[test]
fn top_gives_the_terminal_back_when_it_is_told_to_end() {
    for end in [Some(nix::sys::signal::Signal::SIGTERM), Some(nix::sys::signal::Signal::SIGINT), None] {
        let mut top = Top::start(80, 24);
        top.until("rung 6  ");
        match end {
            Some(signal) => top.signal(signal),
            None => top.press("\u{3}"),
        }
        top.ends();
    }
}

#[test]
fn top_draws_on_a_tiny_terminal() {
    let mut top = Top::start(10, 2);
    top.until("PID");
    top.press("2h");
    top.until("Help");
    top.press("x3/x\r");
    std::thread::sleep(Duration::from_millis(1_500));
    top.press("q");
    top.ends();
}
