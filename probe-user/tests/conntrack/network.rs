//! Three network namespaces in a row: clients, a router that translates, servers. Made and removed by each test.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// A port of the servers.
pub(crate) const SERVER_PORT: u16 = 8_080;

/// A port of the service address.
pub(crate) const SERVICE_PORT: u16 = 80;

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// The namespaces, and the addresses in them: nobody else on this machine uses them.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    number: u32,
}

impl Network {
    /// Makes the namespaces, without any translation.
    pub(crate) fn new() -> Self {
        let count = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let this = Network { name: format!("ct{}x{count}", std::process::id()), number: (std::process::id() + count) % 250 };
        for (part, number, interface) in [("c", 1, "to-c"), ("s", 2, "to-s")] {
            if part == "c" {
                ip(&format!("netns add {}", this.namespace("r")));
            }
            let (inner, router) = (this.namespace(part), this.namespace("r"));
            ip(&format!("netns add {inner}"));
            ip(&format!("-n {router} link add {interface} type veth peer name eth0 netns {inner}"));
            let (v4, v6) = (format!("10.{}.{number}", 2 + this.number), format!("fd00:{}:{number}:", this.number));
            for address in [format!("{v4}.1/24"), format!("{v6}:1/64")] {
                ip(&format!("-n {router} addr add {address} dev {interface}"));
            }
            for last in [2, 3] {
                ip(&format!("-n {inner} addr add {v4}.{last}/24 dev eth0"));
                ip(&format!("-n {inner} addr add {v6}:{last}/64 dev eth0 nodad"));
            }
            ip(&format!("-n {router} link set {interface} up"));
            ip(&format!("-n {inner} link set eth0 up"));
            ip(&format!("-n {inner} link set lo up"));
            ip(&format!("-n {inner} route add default via {v4}.1"));
            ip(&format!("-n {inner} -6 route add default via {v6}:1"));
        }
        this.within("r", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        this
    }

    /// The client's address.
    pub(crate) fn client(&self) -> String {
        format!("10.{}.1.2", 2 + self.number)
    }

    /// The router, as the servers see it.
    pub(crate) fn router(&self) -> String {
        format!("10.{}.2.1", 2 + self.number)
    }

    /// Both servers.
    pub(crate) fn servers(&self) -> [String; 2] {
        [2, 3].map(|last| format!("10.{}.2.{last}", 2 + self.number))
    }

    /// Both servers.
    pub(crate) fn servers6(&self) -> [String; 2] {
        [2, 3].map(|last| format!("fd00:{}:2::{last}", self.number))
    }

    /// An address that no host has: the service's.
    pub(crate) fn service(&self) -> String {
        format!("10.{}.96.10", 2 + self.number)
    }

    /// The same.
    pub(crate) fn service6(&self) -> String {
        format!("fd00:{}:96::10", self.number)
    }

    fn namespace(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    /// File of a namespace: `c`, `r` or `s`.
    pub(crate) fn file(&self, part: &str) -> PathBuf {
        format!("/var/run/netns/{}", self.namespace(part)).into()
    }

    /// Does something in a namespace, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, part: &str, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.file(part)).unwrap();
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            entered.join().unwrap()
        })
    }

    /// Translates the service's address to one server after the other, and whatever else `more` says in nft's words.
    pub(crate) fn balance(&self, more: &str) {
        let [first, second] = self.servers();
        let [first6, second6] = self.servers6();
        let rules = format!(
            "table ip nat {{
                chain prerouting {{ type nat hook prerouting priority dstnat;
                    ip daddr {} tcp dport {SERVICE_PORT} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }} : {SERVER_PORT}
                    ip daddr {} udp dport {SERVICE_PORT} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }} : {SERVER_PORT}
                }}
                chain postrouting {{ type nat hook postrouting priority srcnat; {more} }}
            }}
            table ip6 nat {{
                chain prerouting {{ type nat hook prerouting priority dstnat;
                    ip6 daddr {} tcp dport {SERVICE_PORT} dnat to numgen inc mod 2 map {{ 0 : {first6}, 1 : {second6} }} : {SERVER_PORT}
                }}
            }}",
            self.service(),
            self.service(),
            self.service6(),
        );
        self.nft(&rules);
    }

    /// Runs a script of nft in the router.
    pub(crate) fn nft(&self, script: &str) {
        run("ip", &["netns", "exec", &self.namespace("r"), "nft", script]);
    }

    /// A process in a namespace, without which the probe could not ask for anything there.
    pub(crate) fn inhabit(&self, part: &str) -> Inhabitant {
        let child = Command::new("ip").args(["netns", "exec", &self.namespace(part), "sleep", "100"]).spawn().unwrap();
        // It begins here, and goes there.
        let (there, place) = (std::fs::metadata(self.file(part)).unwrap().ino(), format!("/proc/{}/ns/net", child.id()));
        while std::fs::metadata(&place).unwrap().ino() != there {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Inhabitant(child)
    }

    /// Fills the router's table with connections that the kernel does not give up to make room.
    pub(crate) fn fill(&self) {
        let most: u32 = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap().trim().parse().unwrap();
        let socket = self.within("r", || Socket::new(NETLINK_NETFILTER).unwrap());
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        let numbers: Vec<u32> = (0..most).collect();
        for batch in numbers.chunks(200) {
            let messages: Vec<u8> = batch.iter().flat_map(|number| made_up(*number)).collect();
            socket.send(&messages, 0).unwrap();
        }
        let count = || self.within("r", || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap());
        assert_eq!(count().trim().parse(), Ok(most));
    }

    /// Waits until the router tracks something: what was sent is still on its way for a while on a busy machine, and what
    /// comes after [`Network::flush`] would join it in one connection.
    pub(crate) fn until_tracked(&self) {
        let count = || self.within("r", || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap());
        for _ in 0..1_000 {
            if count().trim() != "0" {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("nothing is tracked");
    }

    /// Forgets every tracked connection of the router.
    pub(crate) fn flush(&self) {
        run("ip", &["netns", "exec", &self.namespace("r"), "conntrack", "-F"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for part in ["c", "r", "s"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(part)]).status();
        }
    }
}

/// Lives as long as this.
#[derive(Debug)]
pub(crate) struct Inhabitant(Child);

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The request to track a datagram that was answered: `IPCTNL_MSG_CT_NEW` with both tuples, a timeout and a status.
fn made_up(number: u32) -> Vec<u8> {
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let padding = vec![0; value.len().next_multiple_of(4) - value.len()];
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value, &padding].concat()
    }
    const NESTED: u16 = 0x8000;
    const STATUS_SEEN_REPLY_ASSURED_CONFIRMED: u32 = 0xe;
    let (one, other) = ((0x0a00_0000 + number).to_be_bytes(), [192, 0, 2, 9]);
    let tuple = |kind: u16, source: [u8; 4], destination: [u8; 4]| {
        let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
        let ports = [attribute(1, &[17]), attribute(2, &[0, 9]), attribute(3, &[0, 9])].concat();
        attribute(NESTED | kind, &[attribute(NESTED | 1, &addresses), attribute(NESTED | 2, &ports)].concat())
    };
    let payload = [
        vec![2, 0, 0, 0],
        tuple(1, one, other),
        tuple(2, other, one),
        attribute(7, &600_u32.to_be_bytes()),
        attribute(3, &STATUS_SEEN_REPLY_ASSURED_CONFIRMED.to_be_bytes()),
    ]
    .concat();
    let length = u32::try_from(16 + payload.len()).unwrap();
    [&length.to_ne_bytes()[..], &0x100_u16.to_ne_bytes(), &0x601_u16.to_ne_bytes(), &[0; 8], &payload].concat()
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
