//! Against real servers: what the wrapper promises beyond the library.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use zk::testing::{Ensemble, OldServer, Proxy, ServerOptions, on_test_machine, releases};
use zk::{Acl, Candidate, Client, CreateKind, Error, MultiError, Op, OpDone, Options, Read, Session, TreeEvent, WatchMode};

async fn create(client: &Client, path: &str, data: &[u8]) {
    client.create(path, data, &Acl::open(), CreateKind::Persistent).await.expect("creating a znode");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 30 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_reads_and_errors_are_as_they_are_called() {
    if !on_test_machine() {
        return;
    }
    let ensemble = Ensemble::start(1, &ServerOptions::default());
    let client = Client::connect(&Options::new(ensemble.connect_string()).with_digest("me:secret")).await.unwrap();
    create(&client, "/a", b"1").await;
    let private = Acl::creator();
    let done = client
        .multi(&[
            Op::Check { path: "/a".into(), version: 0 },
            Op::Create { path: "/a/b".into(), data: b"2".to_vec(), acl: private, kind: CreateKind::Persistent },
            Op::Set { path: "/a".into(), data: b"3".to_vec(), version: Some(0) },
        ])
        .await
        .unwrap();
    let OpDone::Set(set) = &done[2] else { panic!("{done:?}") };
    // Servers do not tell the stat of what a transaction creates, but its number is that of everything else in it.
    assert_eq!(client.get("/a/b").await.unwrap().1.czxid, set.mzxid, "one transaction has one number");
    let stale = client
        .multi(&[Op::Delete { path: "/a/b".into(), version: None }, Op::Set { path: "/a".into(), data: vec![], version: Some(0) }])
        .await;
    assert_eq!(stale.unwrap_err(), MultiError::Operation { index: 1, error: Error::BadVersion });

    let read = |path: &str| Read { path: path.to_owned(), children: true, acl: true };
    let nodes = client.read(&[read("/a"), read("/none"), read("/a/b")]).await.unwrap();
    assert_eq!(nodes[0].as_ref().unwrap().children.as_deref(), Some(["b".to_owned()].as_slice()));
    assert_eq!(nodes[1].as_ref().unwrap_err(), &Error::NoNode);
    let acl = nodes[2].as_ref().unwrap().acl.clone().unwrap();
    assert_eq!((acl[0].scheme.as_str(), acl[0].permissions), ("digest", 31));
    assert!(acl[0].id.starts_with("me:"), "{acl:?}");
    let stranger = Client::connect(&Options::new(ensemble.connect_string())).await.unwrap();
    assert_eq!(stranger.read(&[read("/a/b")]).await.unwrap()[0].as_ref().unwrap_err(), &Error::NoAuth);
    assert_eq!(client.delete("/a", None).await.unwrap_err(), Error::NotEmpty);
    let numbered = client.create("/a/n-", b"", &Acl::open(), CreateKind::PersistentSequential).await.unwrap();
    assert_eq!(numbered, "/a/n-0000000001");
}

/// How many connections a server has, the one that asks included; none when it has no room for this one.
fn connections(address: std::net::SocketAddr) -> Option<usize> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.write_all(b"mntr").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.starts_with("zk_num_alive_connections"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_access_control_lists_are_read_over_connections_that_go_when_they_are_not_needed() {
    if !on_test_machine() {
        return;
    }
    // The second has room for two besides the session, and then none for a question.
    for (limit, expected) in [(60, Some(8)), (3, None)] {
        let config = vec![format!("maxClientCnxns={limit}")];
        let ensemble = Ensemble::start(1, &ServerOptions { config, ..ServerOptions::default() });
        let address = ensemble.servers[0].address();
        let client = Client::connect(&Options::new(ensemble.connect_string()).with_digest("me:secret")).await.unwrap();
        create(&client, "/a", b"").await;
        let path = |n: usize| format!("/a/{n:03}");
        for n in 0..200 {
            let acl = if n % 3 == 0 { Acl::creator() } else { Acl::open() };
            client.create(&path(n), b"", &acl, CreateKind::Persistent).await.unwrap();
        }
        let reads: Vec<Read> = (0..201).map(|n| Read { path: path(n), children: false, acl: true }).collect();
        let nodes = client.read(&reads).await.unwrap();
        for (n, node) in nodes[..200].iter().enumerate() {
            let acl = node.as_ref().unwrap().acl.clone().unwrap();
            assert_eq!(acl[0].scheme, if n % 3 == 0 { "digest" } else { "world" }, "{n}: {acl:?}");
        }
        assert_eq!(nodes[200].as_ref().unwrap_err(), &Error::NoNode);
        assert_eq!(connections(address), expected);
        // As if the others' server had not heard of a change yet: this session's own is asked.
        let stat = client.get(&path(0)).await.unwrap().1;
        let newer = zk::Stat { aversion: stat.aversion + 1, ..stat };
        let acls = client.acls(&(0..100).map(|_| (path(0), newer)).collect::<Vec<_>>()).await.unwrap();
        assert!(acls.iter().all(|acl| acl.as_ref().unwrap()[0].scheme == "digest"));
        until("they go", || connections(address) == Some(2)).await;
    }
}

/// The library alone goes silent here: its watch is not registered again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_of_changes_after_every_cut_of_the_connection() {
    if !on_test_machine() {
        return;
    }
    let ensemble = Ensemble::start(1, &ServerOptions::default());
    let proxy = Proxy::to(ensemble.servers[0].address()).await;
    let direct = Client::connect(&Options::new(ensemble.connect_string())).await.unwrap();
    create(&direct, "/t", b"").await;
    for mode in [WatchMode::Auto, WatchMode::OneByOne] {
        let root = format!("/t/{}", if mode == WatchMode::Auto { "recursive" } else { "single" });
        create(&direct, &root, b"").await;
        let watching = Client::connect(&Options::new(proxy.address().to_string())).await.unwrap();
        let events: Arc<Mutex<Vec<TreeEvent>>> = Arc::default();
        let told = events.clone();
        let watch = watching.watch_tree(&root, mode, move |event| told.lock().unwrap().push(event)).await.unwrap();
        assert_eq!(watch.recursive, mode == WatchMode::Auto);
        for round in 0..3 {
            let path = format!("{root}/{round}");
            create(&direct, &path, b"").await;
            create(&direct, &format!("{path}/deep"), b"").await;
            for wanted in [path.clone(), format!("{path}/deep")] {
                until(&wanted, || events.lock().unwrap().contains(&TreeEvent::Changed(wanted.clone()))).await;
            }
            events.lock().unwrap().clear();
            direct.set(&format!("{path}/deep"), b"x", None).await.unwrap();
            until("the change of data", || events.lock().unwrap().contains(&TreeEvent::Changed(format!("{path}/deep")))).await;
            direct.delete(&format!("{path}/deep"), None).await.unwrap();
            until("the end", || events.lock().unwrap().iter().filter(|it| **it == TreeEvent::Changed(format!("{path}/deep"))).count() >= 2)
                .await;
            proxy.cut();
            until("the gap", || events.lock().unwrap().contains(&TreeEvent::Gap)).await;
        }
    }
}

/// As on servers that cannot watch a tree as one: what we may not look into costs its own events, and those of nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_keeps_nothing_beside_it_from_being_watched() {
    if !on_test_machine() {
        return;
    }
    let ensemble = Ensemble::start(1, &ServerOptions::default());
    let owner = Client::connect(&Options::new(ensemble.connect_string()).with_digest("me:secret")).await.unwrap();
    let private = |path: &str| Op::Create { path: path.into(), data: vec![], acl: Acl::creator(), kind: CreateKind::Persistent };
    let open = |path: &str| Op::Create { path: path.into(), data: vec![], acl: Acl::open(), kind: CreateKind::Persistent };
    owner.multi(&[open("/t"), open("/t/a"), private("/t/m"), open("/t/z"), open("/t/m/below")]).await.unwrap();
    let stranger = Client::connect(&Options::new(ensemble.connect_string())).await.unwrap();
    let events: Arc<Mutex<Vec<TreeEvent>>> = Arc::default();
    let told = events.clone();
    let watch = stranger.watch_tree("/t", WatchMode::OneByOne, move |event| told.lock().unwrap().push(event)).await.unwrap();
    assert!(!watch.recursive);
    let heard = async |path: &str| {
        until(path, || events.lock().unwrap().contains(&TreeEvent::Changed(path.to_owned()))).await;
    };
    for path in ["/t/a", "/t/z"] {
        owner.set(path, b"1", None).await.unwrap();
        heard(path).await;
    }
    // The same of what comes later, on both sides of what may not be read; that is told, so that somebody finds out that it may not be.
    owner.multi(&[open("/t/b"), private("/t/n"), open("/t/y"), open("/t/y/below")]).await.unwrap();
    for path in ["/t/b", "/t/n", "/t/y", "/t/y/below"] {
        heard(path).await;
    }
    for path in ["/t/b", "/t/y", "/t/y/below"] {
        events.lock().unwrap().clear();
        owner.set(path, b"1", None).await.unwrap();
        heard(path).await;
    }
    // What may be read again is watched again, though no server tells that it may.
    owner.set("/t/m", b"1", None).await.unwrap();
    owner.set_acl("/t/m", &Acl::open(), None).await.unwrap();
    heard("/t/m/below").await;
    for path in ["/t/m", "/t/m/below"] {
        events.lock().unwrap().clear();
        owner.set(path, b"2", None).await.unwrap();
        heard(path).await;
        let count = events.lock().unwrap().iter().filter(|it| **it == TreeEvent::Changed(path.to_owned())).count();
        assert_eq!(count, 1, "{path} is told once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_followed_by_a_fresh_one() {
    if !on_test_machine() {
        return;
    }
    let ensemble = Ensemble::start(1, &ServerOptions::default());
    let proxy = Proxy::to(ensemble.servers[0].address()).await;
    let options = Options::new(proxy.address().to_string()).with_session_timeout(Duration::from_secs(2));
    let session = Session::open(options);
    let first = session.client().await;
    first.create("/mine", b"", &Acl::open(), CreateKind::Ephemeral).await.unwrap();
    proxy.down();
    until("the end of the session", || matches!(*session.state().borrow(), zk::SessionState::Connecting(_))).await;
    proxy.fair(Duration::ZERO);
    let second = session.client().await;
    assert_ne!(first.session_id(), second.session_id());
    assert!(matches!(first.get("/").await, Err(Error::Ended(_))));
    assert_eq!(second.stat("/mine").await.unwrap(), None, "what the old session owned is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_passes_on_when_the_leader_of_the_quorum_dies_and_when_a_candidate_goes() {
    if !on_test_machine() {
        return;
    }
    let mut ensemble = Ensemble::start(3, &ServerOptions::default());
    let options = Options::new(ensemble.connect_string()).with_session_timeout(Duration::from_secs(6));
    let clients = [Client::connect(&options).await.unwrap(), Client::connect(&options).await.unwrap()];
    let first = Candidate::stand(&clients[0], "/app/election", "one").await.unwrap();
    let second = Candidate::stand(&clients[1], "/app/election", "two").await.unwrap();
    let lead = first.elected().await.unwrap();
    assert_eq!(Candidate::leader(&clients[1], "/app/election").await.unwrap().as_deref(), Some("one"));

    let leader = ensemble.leader();
    ensemble.servers[leader].kill();
    ensemble.servers[leader].start();
    ensemble.servers[leader].wait();
    // A connection may have gone, the sessions have not.
    let mut resigned = clients[0].delete(&lead.path, None).await;
    while matches!(resigned, Err(Error::Unknown(_))) {
        resigned = clients[0].delete(&lead.path, None).await;
    }
    let lead = tokio::time::timeout(Duration::from_secs(20), second.elected()).await.unwrap().unwrap();
    assert_eq!(Candidate::leader(&clients[1], "/app/election").await.unwrap().as_deref(), Some("two"));
    lead.resign().await.unwrap();
}

/// What every user of this crate needs, on a server of whatever age.
async fn works(address: &str, release: &str, recursive: bool) {
    let client = Client::connect(&Options::new(address)).await.expect("the servers of a test answer");
    create(&client, "/t", b"").await;
    let events: Arc<Mutex<Vec<TreeEvent>>> = Arc::default();
    let told = events.clone();
    let watch = client
        .watch_tree("/t", WatchMode::Auto, move |event| told.lock().expect("nobody panicked").push(event))
        .await
        .expect("the servers of a test answer");
    assert_eq!(watch.recursive, recursive, "{release}");
    client
        .multi(&[
            Op::Create { path: "/t/a".into(), data: b"1".to_vec(), acl: Acl::open(), kind: CreateKind::Persistent },
            Op::Create { path: "/t/a/b".into(), data: b"2".to_vec(), acl: Acl::open(), kind: CreateKind::Persistent },
        ])
        .await
        .expect("the servers of a test answer");
    for wanted in ["/t/a", "/t/a/b"] {
        until(&format!("{wanted} on {release}"), || {
            events.lock().expect("nobody panicked").contains(&TreeEvent::Changed(wanted.to_owned()))
        })
        .await;
    }
    events.lock().expect("nobody panicked").clear();
    client.set("/t/a/b", b"3", None).await.expect("the servers of a test answer");
    until(&format!("the change on {release}"), || {
        events.lock().expect("nobody panicked").contains(&TreeEvent::Changed("/t/a/b".to_owned()))
    })
    .await;
    let read = |path: &str| Read { path: path.to_owned(), children: true, acl: true };
    let nodes = client.read(&[read("/t/a"), read("/none"), read("/t/a/b")]).await.expect("the servers of a test answer");
    assert_eq!(
        nodes[0].as_ref().expect("the servers of a test answer").children.as_deref(),
        Some(["b".to_owned()].as_slice()),
        "{release}"
    );
    assert_eq!(nodes[1].as_ref().expect_err("what is not there is refused"), &Error::NoNode, "{release}");
    assert_eq!(
        (
            nodes[2].as_ref().expect("the servers of a test answer").data.as_slice(),
            nodes[2].as_ref().expect("the servers of a test answer").acl.is_some()
        ),
        (b"3".as_slice(), true),
        "{release}"
    );
    client.create("/t/box", b"", &Acl::open(), CreateKind::Container).await.expect("the servers of a test answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_newer_operations_is_used_by_the_older_ones() {
    if !on_test_machine() {
        return;
    }
    let ensemble = Ensemble::start(1, &ServerOptions::default());
    let old = OldServer::before(ensemble.servers[0].address()).await;
    works(&old.address().to_string(), "before 3.6", false).await;
    assert_eq!(old.refused(), 1, "it is asked once in a session: each time it hangs up");
}

/// With `ORCHESTRATOR_ZOOKEEPER_RELEASES` alone: other releases are no packages of the system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_release_that_is_here_works() {
    if !on_test_machine() {
        return;
    }
    for release in releases() {
        let version = release.version.clone();
        let ensemble = Ensemble::start(1, &ServerOptions { release: Some(release), ..ServerOptions::default() });
        works(&ensemble.connect_string(), &version, !version.starts_with("3.5")).await;
    }
}
