//! Load programs that benchmarks and tests start as processes of their own, so that what is counted belongs to somebody else.
//! Both end when their standard input does, and so never outlive whoever started them.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// How many threads accept, and how many connect.
const THREADS: u64 = 4;

/// What to be.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Accept connections: read each to its end, then answer and close.
    Serve(Serve),
    /// Open connections.
    Connect(Connect),
    /// Answer HTTP requests, as plainly as can be.
    Http(Http),
}

/// Options of the accepting side.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long)]
    bind: SocketAddr,
    /// Bytes to answer with.
    #[arg(long, default_value_t = 0)]
    reply: usize,
    /// Keep every connection open, and neither read nor answer.
    #[arg(long, conflicts_with = "reply")]
    park: bool,
}

/// Options of the HTTP server.
#[derive(Debug, Args)]
pub(crate) struct Http {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long)]
    bind: SocketAddr,
    /// Close each connection after one answer.
    #[arg(long)]
    close: bool,
}

/// Options of the connecting side.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Whom to connect to.
    #[arg(long)]
    to: SocketAddr,
    /// How many connections in all.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many a second; 0 for as fast as it goes, one after another.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Bytes to send on each; the reply is read to its end.
    #[arg(long, default_value_t = 0)]
    send: usize,
    /// Keep each connection open for so many milliseconds before it is closed.
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
    /// Stop after so many milliseconds, whatever the count; 0 for no such limit.
    #[arg(long, default_value_t = 0)]
    for_ms: u64,
    /// Keep every connection open until the end.
    #[arg(long, conflicts_with_all = ["send", "hold_ms"])]
    park: bool,
    /// Stay until standard input ends, after the last connection.
    #[arg(long)]
    stay: bool,
}

impl Role {
    pub(crate) fn run(self) -> Result<()> {
        raise_limit_of_descriptors();
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Connect(connect) => connect.run(),
            Self::Http(http) => http.run(),
        }
    }
}

impl Serve {
    fn run(&self) -> Result<()> {
        let listener = TcpListener::bind(self.bind).with_context(|| format!("cannot listen on {}", self.bind))?;
        println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
        std::io::stdout().flush()?;
        for _ in 0..THREADS {
            let listener = listener.try_clone()?;
            let (reply, park) = (vec![b'r'; self.reply], self.park);
            std::thread::spawn(move || {
                let mut parked = Vec::new();
                for stream in listener.incoming().flatten() {
                    if park { parked.push(stream) } else { answer(stream, &reply) }
                }
            });
        }
        wait_for_end_of_input();
        Ok(())
    }
}

impl Http {
    fn run(&self) -> Result<()> {
        let listener = TcpListener::bind(self.bind).with_context(|| format!("cannot listen on {}", self.bind))?;
        println!("{}", json!({ "listening": listener.local_addr()?.to_string() }));
        std::io::stdout().flush()?;
        let close = self.close;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve_http(stream, close));
            }
        });
        wait_for_end_of_input();
        Ok(())
    }
}

/// Answers requests without bodies until the peer is done. What the peer does to it is the peer's matter.
fn serve_http(mut stream: TcpStream, close: bool) {
    const KEEP: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello there!";
    const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 12\r\n\r\nHello there!";
    let _ = stream.set_nodelay(true);
    let mut request = Vec::new();
    let mut buffer = [0; 4 << 10];
    loop {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 && request.len() < 64 << 10 => request.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
        request.clear();
        if stream.write_all(if close { CLOSE } else { KEEP }).is_err() || close {
            return;
        }
    }
}

/// Serves one connection. What the peer does to it is the peer's matter.
fn answer(mut stream: TcpStream, reply: &[u8]) {
    let mut buffer = [0; 16 << 10];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    let _ = stream.write_all(reply);
}

/// What a connecting thread did.
#[derive(Debug, Default)]
struct Tally {
    connected: u64,
    failed: u64,
    sent: u64,
    received: u64,
    last_error: Option<String>,
    /// Connections that stay open.
    parked: Vec<TcpStream>,
}

impl Connect {
    fn run(&self) -> Result<()> {
        let begun = Instant::now();
        let threads = if self.rate == 0 { 1 } else { THREADS };
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || self.connect_share(thread, threads, begun))).collect();
            handles.into_iter().map(|handle| handle.join().unwrap_or_default()).collect()
        });
        let total = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        let report = json!({
            "connected": total(|tally| tally.connected),
            "failed": total(|tally| tally.failed),
            "sent": total(|tally| tally.sent),
            "received": total(|tally| tally.received),
            "seconds": begun.elapsed().as_secs_f64(),
            "lastError": tallies.iter().find_map(|tally| tally.last_error.clone()),
        });
        println!("{report}");
        std::io::stdout().flush()?;
        if self.stay {
            wait_for_end_of_input();
        }
        Ok(())
    }

    /// Every `threads`-th connection, each at its time.
    fn connect_share(&self, thread: u64, threads: u64, begun: Instant) -> Tally {
        let mut tally = Tally::default();
        let end = (self.for_ms > 0).then(|| begun + Duration::from_millis(self.for_ms));
        for index in (thread..self.count).step_by(usize::try_from(threads).unwrap_or(1)) {
            if let Some(nanos) = (index * 1_000_000_000).checked_div(self.rate) {
                std::thread::sleep((begun + Duration::from_nanos(nanos)).saturating_duration_since(Instant::now()));
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
            match self.connect_once(&mut tally.parked) {
                Ok(received) => {
                    tally.connected += 1;
                    tally.sent += u64::try_from(self.send).unwrap_or(u64::MAX);
                    tally.received += received;
                }
                Err(error) => {
                    tally.failed += 1;
                    tally.last_error = Some(error.to_string());
                }
            }
        }
        tally
    }

    fn connect_once(&self, parked: &mut Vec<TcpStream>) -> std::io::Result<u64> {
        let mut stream = TcpStream::connect(self.to)?;
        if self.park {
            parked.push(stream);
            return Ok(0);
        }
        if self.hold_ms > 0 {
            std::thread::sleep(Duration::from_millis(self.hold_ms));
        }
        if self.send > 0 {
            stream.write_all(&vec![b's'; self.send])?;
            stream.shutdown(Shutdown::Write)?;
            return std::io::copy(&mut stream, &mut std::io::sink());
        }
        Ok(0)
    }
}

/// As many open connections as the system allows this process.
fn raise_limit_of_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, connections will fail and be counted as failed.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn wait_for_end_of_input() {
    // Whatever way the input ends, it is over.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// The monotonic clock that all processes of a machine share, in nanoseconds.
pub(crate) fn monotonic_nanos() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0))
}

/// A load program that was started; ends when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: std::io::BufReader<std::process::ChildStdout>,
}

impl Process {
    /// Starts a command whose standard input ends with this value.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let output = std::io::BufReader::new(child.stdout.take().context("the output was piped")?);
        Ok(Self { child, output })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints, as JSON.
    pub fn report(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read what the load program prints")?;
        if line.is_empty() {
            bail!("the load program ended without a report ({:?})", self.child.try_wait()?);
        }
        serde_json::from_str(&line).with_context(|| format!("the load program printed {line:?}"))
    }

    /// Where a serving process listens.
    pub fn listening(&mut self) -> Result<SocketAddr> {
        let report = self.report()?;
        report["listening"].as_str().context("no address in the report")?.parse().context("no address in the report")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().context("cannot wait for the load program")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may be gone already; all that matters is that it does not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
