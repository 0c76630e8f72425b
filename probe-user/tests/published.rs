//! The whole probe beside a real Docker daemon: published ports and masqueraded containers, as the host's own rules translate them.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking")]

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::probe::v1::translation::Source;
use proto::probe::v1::{Flow, FlowKey, Translation};
use support::{ControlPlane, Known, is_root, missing};

mod support;

const CLIENT: i32 = 1;
const SERVER: i32 = 2;

/// Beside the host: a network of its own, from which the host's published ports are reached, and which sees containers masqueraded.
struct Outside {
    name: String,
    number: u32,
}

impl Outside {
    fn new() -> Self {
        let this = Outside { name: format!("out{}", std::process::id()), number: 2 + std::process::id() % 200 };
        let (name, host, own) = (&this.name, this.host(), this.own());
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add {host}/24 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {own}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {host}"),
        ] {
            run("ip", &command.split(' ').collect::<Vec<_>>());
        }
        this
    }

    /// The host as it is reached from there.
    fn host(&self) -> String {
        format!("10.{}.250.1", self.number)
    }

    fn own(&self) -> String {
        format!("10.{}.250.2", self.number)
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/var/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            entered.join().unwrap()
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.name]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

struct Container {
    id: String,
    address: String,
    published: u16,
}

impl Container {
    /// A web server on port 8080, published on all addresses.
    fn start() -> Self {
        let archive = Command::new("tar").args(["-C", "/", "-c", "bin/busybox"]).output().unwrap();
        let mut import = Command::new("docker")
            .args(["import", "-", "probe-test-published:v1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(&archive.stdout).unwrap();
        assert!(import.wait().unwrap().success(), "busybox-static has to be installed");
        let serve = ["run", "--detach", "--publish", "8080", "probe-test-published:v1", "/bin/busybox", "httpd", "-f", "-p", "8080"];
        let id = run("docker", &serve);
        let address = run("docker", &["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &id]);
        let ports = run("docker", &["port", &id, "8080/tcp"]);
        let published = ports.lines().next().and_then(|line| line.rsplit_once(':')).and_then(|(_, port)| port.parse().ok()).unwrap();
        Container { id, address, published }
    }

    fn talk_to(&self, address: &str, port: u16) {
        run("docker", &["exec", &self.id, "/bin/busybox", "nc", "-w", "2", address, &port.to_string()]);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.id]).stdout(Stdio::null()).status();
    }
}

struct Probe(Child);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Probe {
    fn start(control_plane: &ControlPlane, more: &[&str]) -> Self {
        let arguments = ["--control-plane", &control_plane.url(), "--admin-address", "off", "--probe-id", "test", "--host-name", "here"];
        Probe(Command::new(env!("CARGO_BIN_EXE_orchestrator-probe")).args(arguments).args(more).env_clear().spawn().unwrap())
    }
}

#[tokio::test]
async fn published_ports_and_masqueraded_containers_are_resolved() {
    if !is_root() || !has_docker() {
        return missing("root or Docker");
    }
    let (outside, container) = (Outside::new(), Container::start());
    until_it_serves(&container);
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--capture", "ebpf"]);
    control_plane.wait_for("the programs", |known| known.capture.rung == 1 && known.snapshots > 0).await;

    let (address, port, id) = (container.address.clone(), container.published, container.id.clone());
    let (host, own_address) = (outside.host(), outside.own());

    // From the host itself, to one of its own addresses.
    drop((0..3).map(|_| TcpStream::connect((host.as_str(), port)).unwrap()).collect::<Vec<_>>());
    let expected = format!("3 to {address}:8080");
    let server = host.clone();
    control_plane
        .wait_for("the container behind the host's port", move |known| {
            ways(known, CLIENT, &host_to(&server, &server, port)) == [expected.clone()]
        })
        .await;

    // From outside.
    outside.within(|| drop((0..2).map(|_| TcpStream::connect((outside.host(), port)).unwrap()).collect::<Vec<_>>()));
    let (client, server, expected) = (own_address.clone(), host.clone(), format!("2 to {address}:8080"));
    control_plane
        .wait_for("the container behind the port", move |known| ways(known, CLIENT, &host_to(&client, &server, port)) == [expected.clone()])
        .await;
    let (client, server, expected) = (own_address.clone(), address.clone(), format!("2 to {address}:8080 for {host}:{port}"));
    control_plane
        .wait_for("the port that was meant, on the container's own end", move |known| {
            let end = host_to(&client, &server, 8_080);
            ways(known, SERVER, &end) == [expected.clone()] && find(known, SERVER, &end).is_some_and(|(key, _)| key.container_id == id)
        })
        .await;

    // From the container to the world.
    let listener = outside.within(|| TcpListener::bind(("0.0.0.0", 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || drop(listener.accept()));
    container.talk_to(&own_address, port);
    let (client, server, expected) = (address.clone(), own_address.clone(), format!("1 to {own_address}:{port} as {host}"));
    control_plane
        .wait_for("the container as the world sees it", move |known| {
            ways(known, CLIENT, &host_to(&client, &server, port)) == [expected.clone()]
        })
        .await;
    let (client, server, expected) = (host.clone(), own_address.clone(), format!("1 to {own_address}:{port} as {host} of {address}"));
    control_plane
        .wait_for("the container behind the host", move |known| ways(known, SERVER, &host_to(&client, &server, port)) == [expected.clone()])
        .await;
}

#[tokio::test]
async fn who_does_not_want_it_is_not_told() {
    if !is_root() || !has_docker() {
        return missing("root or Docker");
    }
    let container = Container::start();
    until_it_serves(&container);
    let outside = Outside::new();
    let control_plane = ControlPlane::start().await;
    let _probe = Probe::start(&control_plane, &["--capture", "ebpf", "--no-conntrack"]);
    control_plane.wait_for("the programs", |known| known.capture.rung == 1 && known.snapshots > 0).await;
    let (host, port) = (outside.host(), container.published);
    drop(TcpStream::connect((host.as_str(), port)).unwrap());
    let end = host_to(&host, &host, port);
    let seen = end;
    control_plane.wait_for("the connection", move |known| find(known, CLIENT, &seen).is_some()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(ways(&control_plane.known(), CLIENT, &end).is_empty());
}

/// Addresses and port of a flow.
type End = (IpAddr, IpAddr, u16);

fn host_to(client: &str, server: &str, port: u16) -> End {
    (client.parse().unwrap(), server.parse().unwrap(), port)
}

fn find<'a>(known: &'a Known, direction: i32, end: &End) -> Option<(&'a FlowKey, &'a Flow)> {
    let flows = known.flows.values().filter_map(|flow| Some((flow.key.as_ref()?, flow)));
    flows.into_iter().find(|(key, _)| {
        let addresses = (address(&key.client_address), address(&key.server_address));
        key.direction == direction && addresses == (Some(end.0), Some(end.1)) && key.server_port == u32::from(end.2)
    })
}

fn ways(known: &Known, direction: i32, end: &End) -> Vec<String> {
    find(known, direction, end).map(|(_, flow)| flow.translations.iter().map(told).collect()).unwrap_or_default()
}

/// A translation, for people.
fn told(translation: &Translation) -> String {
    let shown = |bytes: &[u8]| address(bytes).map_or_else(|| "?".to_owned(), |it| it.to_string());
    let mut told = format!("{} to {}:{}", translation.connections, shown(&translation.server_address), translation.server_port);
    for (word, address) in [("as", &translation.client_address), ("of", &translation.original_client_address)] {
        if !address.is_empty() {
            told += &format!(" {word} {}", shown(address));
        }
    }
    if !translation.original_server_address.is_empty() {
        told += &format!(" for {}:{}", shown(&translation.original_server_address), translation.original_server_port);
    }
    assert_eq!(translation.source(), Source::Conntrack);
    told
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn until_it_serves(container: &Container) {
    let begun = Instant::now();
    while TcpStream::connect((container.address.as_str(), 8_080)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the container does not serve");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_docker() -> bool {
    Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
