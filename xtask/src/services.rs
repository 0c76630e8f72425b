//! Our two programs as child processes: started apart from the terminal's signals, stopped gently first.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::progress::note;
use crate::{http, machine};

/// How long a program may take to stop when asked.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting loop looks.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A running program; stopped when dropped, unless it was let go.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name, for people.
    pub(crate) name: &'static str,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    child: Child,
    through_sudo: bool,
    let_go: bool,
}

impl Service {
    /// Starts a program in a process group of its own, its output appended to `log`.
    pub(crate) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log file")?;
        machine::forget_this_package(&mut command);
        let through_sudo = Path::new(command.get_program()).ends_with("sudo");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name, log: log.to_path_buf(), child, through_sudo, let_go: false })
    }

    /// Its process id; of sudo, when it runs through sudo.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the program itself.
    pub(crate) fn own_pid(&self) -> u32 {
        let mut pid = self.pid();
        while self.through_sudo
            && let Some(child) = first_child(pid)
        {
            pid = child;
        }
        pid
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Leaves it running when this value goes.
    pub(crate) fn let_go(&mut self) {
        self.let_go = true;
    }

    /// Kills it without asking, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<()> {
        signal(self.own_pid(), Signal::SIGKILL, self.through_sudo)?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to stop; kills it when it does not within 10 s. Says so then.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        signal(self.pid(), Signal::SIGTERM, self.through_sudo)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_PATIENCE {
            if self.ended().is_some() {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        note(&format!("{} did not stop within {} s; killing it", self.name, STOP_PATIENCE.as_secs()));
        self.kill()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.let_go
            && let Err(error) = self.stop()
        {
            note(&format!("{} could not be stopped: {error:#}", self.name));
        }
    }
}

fn first_child(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal, as_root: bool) -> Result<()> {
    let raw = i32::try_from(pid).context("a process id is beyond what the kernel gives out")?;
    match kill(Pid::from_raw(raw), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(Errno::EPERM) if as_root => {
            let status =
                Command::new("sudo").args(["--non-interactive", "kill", &format!("-{}", signal.as_str()), &pid.to_string()]).status()?;
            if status.success() { Ok(()) } else { bail!("sudo could not signal process {pid}; stop it with: sudo kill {pid}") }
        }
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}

/// When a process began, in clock ticks since boot: with the pid, what tells it from another that got the same pid later.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// Processor time that a process used, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let ticks: f64 = [14, 15].into_iter().filter_map(|field| stat_field(pid, field)?.parse::<f64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    #[expect(clippy::cast_precision_loss, reason = "ticks a second is 100")]
    let per_second = per_second as f64;
    Some(ticks / per_second)
}

/// Memory of a process that is resident, in MB (10^6 bytes).
pub(crate) fn resident_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// A field of /proc/<pid>/stat, counted from 1 as proc(5) does. The second may hold blanks and brackets, so counting begins behind it.
fn stat_field(pid: u32, field: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = text.rsplit_once(") ")?.1;
    behind_name.split(' ').nth(field.checked_sub(3)?).map(str::to_owned)
}

/// Where the programs are reached from this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// Where the control plane listens; the two below are how this machine gets there.
    listen: IpAddr,
    /// Page and API.
    pub(crate) http: SocketAddr,
    /// Probes.
    pub(crate) grpc: SocketAddr,
    /// The probe's metrics and health, always on loopback.
    pub(crate) admin: SocketAddr,
    /// The APIs of Mesos and Marathon: their ports, 0 for any.
    old: [OldApi; 2],
}

/// An API of a retired program, on the port where its clients look for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldApi {
    /// Whose.
    pub(crate) name: &'static str,
    flag: &'static str,
    /// Where it is; 0 for any.
    pub(crate) port: u16,
}

const OLD_APIS: [OldApi; 2] =
    [OldApi { name: "Mesos", flag: "--mesos-address", port: 5050 }, OldApi { name: "Marathon", flag: "--marathon-address", port: 8080 }];

impl Addresses {
    /// Given ports of an address.
    pub(crate) fn new(listen: IpAddr, http: u16, grpc: u16, admin: u16) -> Self {
        let reach = match listen {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
        Self { listen, http: SocketAddr::from((reach, http)), grpc: SocketAddr::from((reach, grpc)), admin, old: OLD_APIS }
    }

    /// The APIs of Mesos and Marathon that can be served, and those whose port somebody else has.
    pub(crate) fn old_apis(&self) -> (Vec<OldApi>, Vec<OldApi>) {
        self.old.iter().partition(|api| TcpListener::bind((self.listen, api.port)).is_ok())
    }

    /// What the programs bind, each with the flag of `up` that chooses another port.
    pub(crate) fn bound(&self) -> [(SocketAddr, &'static str); 3] {
        let own = |address: SocketAddr| SocketAddr::from((self.listen, address.port()));
        [(own(self.http), "--port"), (own(self.grpc), "--grpc-port"), (self.admin, "--admin-port")]
    }

    /// Ports on 127.0.0.1 that nobody holds at this moment.
    pub(crate) fn free() -> Result<Self> {
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [http, grpc, admin] = listeners;
        let port = |listener: std::io::Result<TcpListener>| Ok::<_, std::io::Error>(listener?.local_addr()?.port());
        let addresses = Self::new(Ipv4Addr::LOCALHOST.into(), port(http)?, port(grpc)?, port(admin)?);
        Ok(Self { old: OLD_APIS.map(|api| OldApi { port: 0, ..api }), ..addresses })
    }

    /// The control plane's command line.
    pub(crate) fn control(&self, binary: &Path, data: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg("--data-dir").arg(data);
        let [(http, _), (grpc, _), _] = self.bound();
        command.args(["--http-address", &http.to_string(), "--grpc-address", &grpc.to_string()]);
        let (served, taken) = self.old_apis();
        for api in served {
            command.args([api.flag, &SocketAddr::from((self.listen, api.port)).to_string()]);
        }
        for api in taken {
            command.args([api.flag, "off"]);
        }
        command
    }

    /// The probe's command line, as root.
    pub(crate) fn probe(&self, binary: &Path) -> Command {
        let mut command = if machine::is_root() {
            Command::new(binary)
        } else {
            let mut command = Command::new("sudo");
            command.arg("--non-interactive").arg(binary);
            command
        };
        command.args(["--control-plane", &format!("http://{}", self.grpc), "--admin-address", &self.admin.to_string()]);
        command
    }
}

/// Whether one of the programs says that it is ready.
pub(crate) fn is_ready(server: SocketAddr) -> bool {
    http::get(server, "/ready").is_ok_and(|reply| reply.status == 200)
}

/// Whether a probe is connected and sees: until then, what is short may be missed.
pub(crate) fn probe_is_seeing(addresses: &Addresses) -> bool {
    let connected = http::get_json(addresses.http, "/api/v1/probes").is_ok_and(|probes| {
        let sees =
            |probe: &Value| probe["connected"] == true && probe["capture"]["description"].as_str().is_some_and(|how| !how.is_empty());
        probes["probes"].as_array().is_some_and(|probes| probes.iter().any(sees))
    });
    connected && is_ready(addresses.admin)
}
