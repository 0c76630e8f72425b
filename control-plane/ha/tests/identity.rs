//! Against real servers: what control planes with an identity store is theirs alone, and who leads is for everybody to see.
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ha::{Addresses, Change, Election, Ensemble, Member, Records, Standing, StoreError};
use tokio::sync::watch;
use zk::testing::{Ensemble as Servers, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Error, Options};

const TIMEOUT: Duration = Duration::from_secs(4);
const PATH: &str = "/mesos/test";
const ROOT: &str = "/mesos/test/log_replicas/orchestrator";

fn stand(connect: &str, identity: &str, number: u16) -> (Election, watch::Receiver<Standing>) {
    let member = Member {
        id: format!("member-{number}"),
        host_name: format!("m{number}.example"),
        master: ([127, 0, 0, 1], 5050 + number).into(),
        addresses: Addresses::default(),
    };
    let ensemble: Ensemble = format!("zk://{identity}{connect}{PATH}").parse().expect("an address of an ensemble");
    let (election, run) = Election::stand(ensemble, member, TIMEOUT);
    tokio::spawn(run);
    let standing = election.standing();
    (election, standing)
}

async fn until(standing: &watch::Receiver<Standing>, what: &str, holds: impl Fn(&Standing) -> bool) -> Standing {
    let mut standing = standing.clone();
    let found = tokio::time::timeout(Duration::from_secs(30), standing.wait_for(|it| holds(it))).await;
    let found = found.map(|found| found.expect("the election goes on").clone());
    found.unwrap_or_else(|_| panic!("not within 30 s: {what}; {:?}", standing.borrow()))
}

async fn client(connect: &str, identity: Option<&str>) -> Client {
    let options = Options::new(connect).with_session_timeout(TIMEOUT);
    let options = match identity {
        Some(identity) => options.with_digest(identity),
        None => options,
    };
    Client::connect(&options).await.expect("the servers of a test answer")
}

/// Every znode at and below `path`, as whoever may read all of them sees it.
async fn tree(client: &Client, path: &str) -> Vec<String> {
    let (mut found, mut waiting) = (Vec::new(), vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        let names = client.children(&path).await.expect("it may be read");
        waiting.extend(names.into_iter().map(|name| format!("{path}/{name}")));
        found.push(path);
    }
    found
}

fn changes() -> Vec<Change> {
    let put = |key: &str, value: Vec<u8>| Change::Put { key: key.to_owned(), value };
    // One as it is, and one in parts.
    vec![put("app", b"DB_PASSWORD=secret".to_vec()), put("large", vec![7; 300_000])]
}

/// What `stranger` may do with any of ours; empty when that is nothing.
async fn what_may_be_done(stranger: &Client, paths: &[String]) -> Vec<String> {
    let mut done = Vec::new();
    for path in paths {
        for (what, outcome) in [
            ("read", stranger.get(path).await.map(drop)),
            ("list", stranger.children(path).await.map(drop)),
            ("set", stranger.set(path, b"99", None).await.map(drop)),
            ("give away", stranger.set_acl(path, &Acl::open(), None).await.map(drop)),
            ("create", stranger.create(&format!("{path}/x"), b"", &Acl::open(), CreateKind::Persistent).await.map(drop)),
        ] {
            if outcome != Err(Error::NoAuth) {
                done.push(format!("{what} {path}: {outcome:?}"));
            }
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_for_its_identity_alone_and_who_leads_is_for_everybody() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let connect = servers.connect_string();
    let (_election, standing) = stand(&connect, "boss:secret@", 1);
    let term = until(&standing, "it leads", Standing::leads).await.term.unwrap();
    let (mut records, _) = Records::load(&term, "marathon").await.unwrap();
    records.write(&changes()).await.unwrap();

    let (ours, nobody, other) =
        (client(&connect, Some("boss:secret")).await, client(&connect, None).await, client(&connect, Some("o:x")).await);
    let paths = tree(&ours, ROOT).await;
    assert!(paths.len() > 8 && paths.contains(&format!("{ROOT}/epoch")), "{paths:?}");
    for stranger in [&nobody, &other] {
        assert_eq!(what_may_be_done(stranger, &paths).await, Vec::<String>::new());
        // As clients of Mesos look for the leader.
        let names = stranger.children(PATH).await.unwrap();
        let candidate = names.iter().find(|name| name.starts_with("json.info_")).unwrap();
        let (info, _) = stranger.get(&format!("{PATH}/{candidate}")).await.unwrap();
        assert_eq!(Member::decode(&info).unwrap().id, "member-1");
        // Whoever could do this would lead, or end our lead.
        let forged = stranger.create(&format!("{PATH}/json.info_"), &info, &Acl::open(), CreateKind::EphemeralSequential).await;
        assert_eq!(forged, Err(Error::NoAuth));
        assert_eq!(stranger.set(&format!("{PATH}/{candidate}"), b"{}", None).await.unwrap_err(), Error::NoAuth);
        assert_eq!(stranger.delete(&format!("{PATH}/{candidate}"), None).await.unwrap_err(), Error::NoAuth);
    }
    records.write(&[Change::Delete { key: "large".to_owned() }]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_open_is_closed_by_the_next_who_leads() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let connect = servers.connect_string();
    // As every version before left it, whatever identity it had.
    let (before, standing) = stand(&connect, "", 1);
    let term = until(&standing, "it leads", Standing::leads).await.term.unwrap();
    let (mut records, _) = Records::load(&term, "marathon").await.unwrap();
    records.write(&changes()).await.unwrap();
    let nobody = client(&connect, None).await;
    let paths = tree(&nobody, ROOT).await;
    // Somebody else was let in on purpose.
    let backup = Acl { permissions: 1, scheme: "digest".to_owned(), id: "backup:x1nq8J5GOJVPY6zgzhtTtA9izLc=".to_owned() };
    nobody.set_acl(&format!("{ROOT}/store"), &[Acl::open(), vec![backup.clone()]].concat(), None).await.unwrap();

    let (_election, standing) = stand(&connect, "boss:secret@", 2);
    before.withdraw();
    let term = until(&standing, "the next one leads", Standing::leads).await.term.unwrap();
    let (_, values) = Records::load(&term, "marathon").await.unwrap();
    assert_eq!(values, BTreeMap::from([("app".to_owned(), b"DB_PASSWORD=secret".to_vec()), ("large".to_owned(), vec![7; 300_000])]));
    let begun = Instant::now();
    loop {
        let open = what_may_be_done(&nobody, &paths).await;
        if open.is_empty() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{open:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let forged = nobody.create(&format!("{PATH}/json.info_"), b"{}", &Acl::open(), CreateKind::EphemeralSequential).await;
    assert_eq!(forged, Err(Error::NoAuth), "nobody else stands for election any more");
    nobody.children(PATH).await.unwrap();
    let ours = client(&connect, Some("boss:secret")).await;
    assert!(ours.acl(&format!("{ROOT}/store")).await.unwrap().contains(&backup));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_another_identity_says_so_and_keeps_nobody_from_leading() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let connect = servers.connect_string();
    // Where everybody may stand for election, and only some may lead.
    let ours = client(&connect, Some("boss:secret")).await;
    ours.create_all(ROOT).await.unwrap();
    ours.create(&format!("{ROOT}/epoch"), b"", &Acl::creator(), CreateKind::Persistent).await.unwrap();
    let (_other, other) = stand(&connect, "other:x@", 1);
    let told = until(&other, "it is told", |it| it.trouble.is_some()).await.trouble.unwrap();
    assert!(told.contains("of another identity") && told.contains("--zk-access-file"), "{told}");
    let (_election, standing) = stand(&connect, "boss:secret@", 2);
    let term = until(&standing, "who may lead leads", Standing::leads).await.term.unwrap();
    assert!(matches!(Records::load(&term, "marathon").await, Ok((_, values)) if values.is_empty()));

    // Where nobody else may stand any more.
    let (_nobody, nobody) = stand(&connect, "", 3);
    let told = until(&nobody, "it is told", |it| it.trouble.is_some()).await.trouble.unwrap();
    assert!(told.contains("shows none"), "{told}");
    assert!(!term.is_over());
    // Records of somebody else below what is ours.
    let path = format!("{ROOT}/store/registry");
    ours.create(&path, b"", &Acl::creator(), CreateKind::Persistent).await.unwrap();
    let theirs = Acl { permissions: 31, scheme: "digest".to_owned(), id: "backup:x1nq8J5GOJVPY6zgzhtTtA9izLc=".to_owned() };
    ours.set_acl(&path, &[theirs], None).await.unwrap();
    let refused = Records::load(&term, "registry").await.unwrap_err();
    assert!(matches!(refused, StoreError::NotOurs), "{refused}");
}
