use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use super::*;
use crate::observation::BootNanos;
use crate::processes::ProcessKey;
use crate::procfs::Arguments;

/// Inode of the socket.
fn every() -> Every {
    Every { interval: LOOK_INTERVAL, pace: Pace::default() }
}

fn inode(socket: &impl std::os::fd::AsFd) -> u32 {
    u32::try_from(nix::sys::stat::fstat(socket.as_fd()).unwrap().st_ino).unwrap()
}

fn own_sockets() -> Vec<Connection> {
    let procfs = Procfs::new("/proc", Arguments::Show);
    let namespaces = sockets::namespaces(&procfs, &[std::process::id()]);
    let (dump, _) = dump(&procfs, &namespaces).unwrap();
    assert!(dump.unread.is_empty() && dump.left_out == 0);
    connections(&dump.namespaces)
}

#[test]
fn the_kernel_tells_which_sockets_are_connected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let server = listener.accept().unwrap().0;
    let waiting = UnixStream::connect(&path).unwrap();
    let pair = UnixStream::pair().unwrap();
    let name = format!("orchestrator-datagrams-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let datagrams = UnixDatagram::bind_addr(&address).unwrap();
    let senders = [UnixDatagram::unbound().unwrap(), UnixDatagram::unbound().unwrap()];
    senders.iter().for_each(|it| it.connect_addr(&address).unwrap());

    let found = own_sockets();
    let of = |client: u32| found.iter().find(|it| it.client == client).map(|it| (it.server, shown(&it.name).to_string()));
    assert_eq!(of(inode(&client)), Some((inode(&server), path.to_str().unwrap().to_owned())));
    assert!(senders.iter().all(|it| of(inode(it)) == Some((inode(&datagrams), format!("@{name}")))));
    let others = [inode(&waiting), inode(&pair.0), inode(&pair.1)];
    assert!(found.iter().all(|it| !others.contains(&it.client) && !others.contains(&it.server)));
}

#[test]
fn names_of_hostile_processes_can_be_shown() {
    assert_eq!(&*shown(b"/run/a.sock"), "/run/a.sock");
    assert_eq!(&*shown(b"\0a\0b\n\xff"), "@a\u{fffd}b \u{fffd}");
    let hostile = shown(&[0x1b; message::NAME_MAX]);
    assert_eq!((hostile.chars().count(), hostile.chars().any(char::is_control)), (message::NAME_MAX, false));
    assert_eq!(&*shown(b"\0"), "@");
}

#[test]
fn a_namespace_that_cannot_be_entered_keeps_its_connections_until_it_is_gone() {
    let procfs = || Procfs::new("/proc", Arguments::Show);
    let looker = |connections| Looker { procfs: Arc::new(procfs()), holders: Holders::default(), connections, shut_out: 0 };
    let foreign = Connection { client: 1, server: 2, name: (*b"/run/a").into(), namespace: 4_711 };
    let mut gone = looker(vec![foreign]);
    gone.look().0.unwrap();
    assert!(gone.connections.iter().all(|it| it.namespace != 4_711), "no process is in it any more");

    let (procfs, ended) = (procfs(), sockets::Namespace { inode: 4_711, pids: vec![u32::MAX] });
    let mut both = sockets::namespaces(&procfs, &[std::process::id()]);
    both.push(ended.clone());
    let (looked, _) = dump(&procfs, &both).unwrap();
    assert_eq!((looked.unread.into_iter().collect::<Vec<_>>(), looked.namespaces.len()), (vec![4_711], 1));
    assert_eq!(dump(&procfs, &[ended]).unwrap_err().kind(), io::ErrorKind::NotFound, "nothing can be read");
}

#[test]
fn connections_are_counted_by_their_processes() {
    let holders = Holders::of([(1, 100), (2, 200), (3, 100), (4, 200), (5, 100)]);
    let connection = |client, server, name: &[u8]| Connection { client, server, name: name.into(), namespace: 1 };
    let own = connection(1, 5, b"/own");
    let unheld = connection(9, 2, b"/a");
    let found = count(&[connection(1, 2, b"/a"), connection(3, 4, b"/a"), connection(3, 4, b"\0a"), own, unheld], &holders);
    let key = |pid| ProcessKey { pid, start_time: BootNanos(0) };
    let flow = |path: &str| UnixFlowKey { client: key(100), server: key(200), path: path.into() };
    assert_eq!(found, [(flow("/a"), 2), (flow("@a"), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_forgiven_but_lasting_blindness_is_told_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("proc");
    let (sender, mut inputs) = mpsc::channel(8);
    let begun = tokio::time::Instant::now();
    let looking = look_for_ever(Arc::new(Procfs::new(&root, Arguments::Show)), every(), sender);
    let told = async {
        let blind = inputs.recv().await.unwrap();
        assert!(matches!(&blind, Input::BlindSpot { cause: CAUSE, sentence: Some(it) } if it.contains("No such file")), "{blind:?}");
        assert_eq!(begun.elapsed(), LOOK_INTERVAL * (FAILURES_MAX - 1));
        let nothing = inputs.recv().await.unwrap();
        assert!(matches!(&nothing, Input::UnixFlows(look) if look.open.is_empty()), "{nothing:?}");
        std::fs::create_dir(&root).unwrap();
        assert!(matches!(inputs.recv().await.unwrap(), Input::BlindSpot { cause: CAUSE, sentence: None }));
        assert!(begun.elapsed() >= RETRY_INTERVAL);
        assert!(matches!(inputs.recv().await.unwrap(), Input::UnixFlows(_)));
    };
    tokio::select! {
        _ = looking => panic!("it ended"),
        () = told => {}
    }
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_cannot_be_entered_are_a_blind_spot() {
    let root = tempfile::tempdir().unwrap();
    let own = sockets::own_namespace().unwrap();
    for (pid, namespace) in [(20, own), (30, 4_711)] {
        let directory = root.path().join(format!("{pid}/ns"));
        std::fs::create_dir_all(&directory).unwrap();
        std::os::unix::fs::symlink(format!("net:[{namespace}]"), directory.join("net")).unwrap();
    }
    let (sender, mut inputs) = mpsc::channel(8);
    let looking = look_for_ever(Arc::new(Procfs::new(root.path(), Arguments::Show)), every(), sender);
    let told = async {
        for _ in 1..FAILURES_MAX {
            assert!(matches!(inputs.recv().await.unwrap(), Input::UnixFlows(_)));
        }
        let blind = inputs.recv().await.unwrap();
        assert!(matches!(&blind, Input::BlindSpot { cause: CAUSE, sentence: Some(it) } if it.contains("CAP_SYS_ADMIN")), "{blind:?}");
        assert!(matches!(inputs.recv().await.unwrap(), Input::UnixFlows(_)));
        std::fs::remove_dir_all(root.path().join("30")).unwrap();
        assert!(matches!(inputs.recv().await.unwrap(), Input::BlindSpot { cause: CAUSE, sentence: None }));
    };
    tokio::select! {
        _ = looking => panic!("it ended"),
        () = told => {}
    }
}

#[test]
fn sockets_of_packets_are_connected_as_well() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, connect, listen, socket};
    use std::os::fd::AsRawFd as _;

    let name = format!("orchestrator-packets-{}", std::process::id());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let packets = || socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let (listener, client) = (packets(), packets());
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    connect(client.as_raw_fd(), &address).unwrap();
    let server = accept(listener.as_raw_fd()).unwrap();
    let link = std::fs::read_link(format!("/proc/self/fd/{server}")).unwrap();
    let server_inode = parse::link_inode(link.to_str().unwrap(), "socket").unwrap();
    let found = own_sockets().into_iter().find(|it| it.client == inode(&client)).unwrap();
    assert_eq!((u64::from(found.server), &*shown(&found.name)), (server_inode, &*format!("@{name}")));
}
