use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const JAR: &str = "/usr/share/java/zookeeper.jar";
const LOGGING_API_JAR: &str = "/usr/share/java/slf4j-api.jar";
const LOGGING_JAR: &str = "/usr/share/java/slf4j-simple.jar";
/// What encrypted ports need, of `/usr/share/java`.
const NETTY_JARS: [&str; 8] =
    ["handler", "common", "buffer", "transport", "codec", "resolver", "transport-native-unix-common", "transport-native-epoll"];
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
/// Names the directory of other releases than the one that is installed.
const RELEASES: &str = "ORCHESTRATOR_ZOOKEEPER_RELEASES";
/// A server that is not up by then will not be.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Whether servers can be started here.
pub fn available() -> bool {
    Path::new(JAR).exists()
        && Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}

/// Whether a test that needs servers can run. Installs the packages where it may; where CI is set, their absence is a failure.
///
/// # Panics
/// When there are no servers and CI is set.
pub fn on_test_machine() -> bool {
    if available() {
        return true;
    }
    let mut install = Command::new("apt-get");
    install.args(["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "zookeeper", "default-jre-headless"]);
    let _ = install.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(available() || std::env::var_os("CI").is_none(), "no ZooKeeper: apt-get install zookeeper default-jre-headless");
    available()
}

/// A release of ZooKeeper that is not installed: a directory with its jars, and with a file `main` that names the class to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number, such as 3.5.9.
    pub version: String,
    directory: PathBuf,
    main: String,
}

/// Other releases that can be started here: those in the directory that `ORCHESTRATOR_ZOOKEEPER_RELEASES` names, which
/// `control-plane/zk/tests/releases.sh` fills.
///
/// # Panics
/// When that directory is named and has none.
pub fn releases() -> Vec<Release> {
    let Some(root) = std::env::var_os(RELEASES).map(PathBuf::from) else { return Vec::new() };
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{RELEASES}={}: {error}", root.display()));
    let mut found: Vec<Release> = entries
        .filter_map(|entry| {
            let directory = entry.ok()?.path();
            let main = std::fs::read_to_string(directory.join("main")).ok()?.trim().to_owned();
            Some(Release { version: directory.file_name()?.to_str()?.to_owned(), directory, main })
        })
        .collect();
    assert!(!found.is_empty(), "{RELEASES}={}: no release in it", root.display());
    found.sort_by(|one, other| one.version.cmp(&other.version));
    found
}

/// An encrypted port besides the plain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// PEM file with the server's private key and certificate.
    pub key_store: PathBuf,
    /// PEM file with the certificates of those who sign clients' certificates.
    pub trust_store: PathBuf,
    /// Clients must show a certificate.
    pub ask_clients: bool,
}

/// What differs from a server's defaults.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Lines of the configuration file besides those that every server needs.
    pub config: Vec<String>,
    /// System properties of the virtual machine, `name=value`.
    pub properties: Vec<String>,
    /// Largest heap.
    pub heap: &'static str,
    /// Whether code is compiled for speed: slower to start.
    pub optimized: bool,
    /// Another release than the one that is installed.
    pub release: Option<Release>,
    /// An encrypted port besides the plain one.
    pub secure: Option<Secure>,
    /// Where it listens for clients.
    pub address: IpAddr,
    /// What starts it instead of itself, such as `ip netns exec NAME`.
    pub within: Vec<String>,
    /// Variables of its environment besides ours.
    pub environment: Vec<(String, String)>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            config: vec!["tickTime=500".to_owned()],
            properties: vec!["zookeeper.extendedTypesEnabled=true".to_owned()],
            heap: "256m",
            optimized: false,
            release: None,
            secure: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            within: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    options: ServerOptions,
    client_port: u16,
    secure_port: Option<u16>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server that is an ensemble of its own, with its files below `directory`.
    pub fn alone(directory: &Path, options: ServerOptions) -> Server {
        let mut server = Server::prepare(directory, free_ports(1)[0], options, "");
        server.start();
        server.wait();
        server
    }

    fn prepare(directory: &Path, client_port: u16, options: ServerOptions, members: &str) -> Server {
        std::fs::create_dir_all(directory.join("data")).expect("making the server's directory");
        let mut config = format!(
            "dataDir={}\nclientPort={client_port}\nclientPortAddress={}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
             maxClientCnxns=0\ninitLimit=20\nsyncLimit=10\nautopurge.purgeInterval=0\n{members}",
            directory.join("data").display(),
            options.address
        );
        for line in &options.config {
            config.push_str(line);
            config.push('\n');
        }
        let secure_port = options.secure.as_ref().map(|secure| {
            let port = free_ports(1)[0];
            let ask = if secure.ask_clients { "need" } else { "none" };
            let (key, trust) = (secure.key_store.display(), secure.trust_store.display());
            config.push_str(&format!(
                "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.keyStore.location={key}\nssl.keyStore.type=PEM\n\
                 ssl.trustStore.location={trust}\nssl.trustStore.type=PEM\nssl.clientAuth={ask}\nssl.hostnameVerification=false\n"
            ));
            port
        });
        std::fs::write(directory.join("zoo.cfg"), config).expect("writing the server's configuration");
        Server { directory: directory.to_owned(), options, client_port, secure_port, child: None }
    }

    /// Where clients connect: `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.options.address, self.client_port)
    }

    /// Where clients connect by TLS, if they can.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Starts it, or starts it again with the data that it has.
    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.join("log")).expect("opening the server's log");
        let mut words = self.options.within.iter().map(String::as_str).chain(["java"]);
        let mut command = Command::new(words.next().unwrap_or("java"));
        command.args(words).envs(self.options.environment.iter().cloned());
        command.args(["-XX:+UseSerialGC", "-Xshare:auto", &format!("-Xmx{}", self.options.heap)]);
        if !self.options.optimized {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.args(self.options.properties.iter().map(|property| format!("-D{property}")));
        let (classes, main) = match &self.options.release {
            // Some are packed without what their log stands on; where a release has its own, it comes first.
            Some(release) => (format!("{}/*:{LOGGING_API_JAR}", release.directory.display()), release.main.as_str()),
            None => (format!("{JAR}:{LOGGING_API_JAR}:{LOGGING_JAR}"), MAIN),
        };
        let classes = match &self.options.secure {
            Some(_) => NETTY_JARS.iter().fold(classes, |classes, jar| format!("{classes}:/usr/share/java/netty-{jar}.jar")),
            None => classes,
        };
        if self.options.secure.is_some() {
            command.arg("-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory");
        }
        command.arg("-cp").arg(classes).arg(main);
        command.arg(self.directory.join("zoo.cfg")).stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("starting java"));
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// When it does not within a minute; the message has its log.
    pub fn wait(&self) {
        let begun = Instant::now();
        while !four_letters(self.address(), "srvr").is_some_and(|answer| answer.contains("Mode:")) {
            if begun.elapsed() > START_PATIENCE {
                let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                panic!("the server at {} does not serve:\n{log}", self.address());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process, while there is one.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How many connections it has, the one that asks included; none when it does not serve.
    pub fn connections(&self) -> Option<usize> {
        let answer = four_letters(self.address(), "mntr")?;
        let line = answer.lines().find(|line| line.starts_with("zk_num_alive_connections"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// `leader`, `follower`, `standalone`, or nothing when it does not serve.
    pub fn mode(&self) -> Option<String> {
        let answer = four_letters(self.address(), "srvr")?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(|mode| mode.trim().to_owned())
    }

    /// Ends it without a warning, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops its processor, as a long garbage collection or a stuck disk does.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let pid = i32::try_from(child.id()).expect("a pid fits");
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Copies what it has stored, as a backup does. It must not run.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn back_up(&self, to: &Path) {
        copy_all(&self.directory.join("data/version-2"), to);
    }

    /// Has stored what a backup has, and nothing else. It must not run.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn restore(&self, from: &Path) {
        self.wipe();
        copy_all(from, &self.directory.join("data/version-2"));
    }

    /// Forgets everything that it has stored, as a disk that was replaced does. It must not run.
    pub fn wipe(&self) {
        let _ = std::fs::remove_dir_all(self.directory.join("data/version-2"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Servers that agree. Killed when dropped; their files go, too.
#[derive(Debug)]
pub struct Ensemble {
    /// In the order of their numbers.
    pub servers: Vec<Server>,
    _directory: tempfile::TempDir,
}

impl Ensemble {
    /// Starts `count` servers and waits until they serve.
    pub fn start(count: usize, options: &ServerOptions) -> Ensemble {
        let directory = tempfile::tempdir().expect("making a directory");
        if count == 1 {
            let server = Server::alone(&directory.path().join("1"), options.clone());
            return Ensemble { servers: vec![server], _directory: directory };
        }
        let ports = free_ports(count * 3);
        let members: String =
            (0..count).map(|n| format!("server.{}=127.0.0.1:{}:{}\n", n + 1, ports[count + 2 * n], ports[count + 2 * n + 1])).collect();
        let mut servers = Vec::new();
        for (n, port) in ports.iter().enumerate().take(count) {
            let own = directory.path().join((n + 1).to_string());
            let server = Server::prepare(&own, *port, options.clone(), &members);
            std::fs::write(own.join("data/myid"), (n + 1).to_string()).expect("writing the server's number");
            servers.push(server);
        }
        servers.iter_mut().for_each(Server::start);
        servers.iter().for_each(Server::wait);
        Ensemble { servers, _directory: directory }
    }

    /// `host:port,…` of all servers.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(|server| server.address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// The server that leads, once one does.
    ///
    /// # Panics
    /// When none does within a minute.
    pub fn leader(&self) -> usize {
        let begun = Instant::now();
        loop {
            let leads = |server: &Server| matches!(server.mode().as_deref(), Some("leader" | "standalone"));
            if let Some(place) = self.servers.iter().position(leads) {
                return place;
            }
            assert!(begun.elapsed() < START_PATIENCE, "no server leads");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The answer to one of the commands of four letters (`srvr`, `mntr`, `cons`, `ruok`); nothing when there is none.
pub fn four_letters(address: SocketAddr, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(command.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("making a directory");
    for entry in std::fs::read_dir(from).expect("reading a directory") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copying a file");
    }
}

/// Ports that nobody listens on right now. All are held at once, so that no two are the same.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("a bound address").port()).collect()
}
