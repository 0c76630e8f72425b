//! Against real servers: one leads, and only what the leader writes is there.
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ha::{Addresses, Change, Election, Ensemble, Member, Records, Standing, StoreError, Term};
use tokio::sync::watch;
use zk::testing::{Ensemble as Servers, Proxy, ServerOptions, on_test_machine};
use zk::{Client, Options};

const TIMEOUT: Duration = Duration::from_secs(4);

fn member(number: u16) -> Member {
    Member {
        id: format!("member-{number}"),
        host_name: format!("m{number}.example"),
        master: ([127, 0, 0, 1], 5050 + number).into(),
        addresses: Addresses { http: format!("127.0.0.1:{}", 4040 + number), ..Addresses::default() },
    }
}

fn stand(connect: &str, number: u16) -> (Election, watch::Receiver<Standing>) {
    let ensemble: Ensemble = format!("zk://{connect}/mesos/test").parse().expect("an address of an ensemble");
    let (election, run) = Election::stand(ensemble, member(number), TIMEOUT);
    tokio::spawn(run);
    let standing = election.standing();
    (election, standing)
}

#[track_caller]
fn until(standing: &watch::Receiver<Standing>, what: &str, holds: impl Fn(&Standing) -> bool) -> impl Future<Output = Standing> {
    let (mut standing, what) = (standing.clone(), what.to_owned());
    async move {
        let found = tokio::time::timeout(Duration::from_secs(30), standing.wait_for(|it| holds(it))).await;
        let found = found.map(|found| found.expect("the election goes on").clone());
        found.unwrap_or_else(|_| panic!("not within 30 s: {what}; {:?}", standing.borrow()))
    }
}

async fn term(connect: &str) -> (Election, Term) {
    let (election, standing) = stand(connect, 1);
    let term = until(&standing, "a term", Standing::leads).await.term.expect("leaders have one");
    (election, term)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_next_one_follows_when_it_goes() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let proxy = Proxy::to(servers.connect_string().parse().unwrap()).await;
    // The first is behind a network that will fail.
    let (_first, one) = stand(&proxy.address().to_string(), 1);
    let leading = until(&one, "the first leads", Standing::leads).await;
    let (second, two) = stand(&servers.connect_string(), 2);
    until(&two, "the second stands", |it| it.leader.is_some()).await;
    let (_third, three) = stand(&servers.connect_string(), 3);
    for other in [&two, &three] {
        let following = until(other, "they know the leader", |it| it.leader.is_some()).await;
        assert_eq!(following.leader, Some(member(1)));
        assert!(!following.leads());
    }
    // What a tool that knows Mesos finds.
    let client = Client::connect(&Options::new(servers.connect_string())).await.unwrap();
    let mut names = client.children("/mesos/test").await.unwrap();
    names.retain(|name| name.starts_with("json.info_"));
    assert_eq!(names.len(), 3);

    let (mut records, _) = Records::load(leading.term.as_ref().unwrap(), "registry").await.unwrap();
    records.write(&[Change::Put { key: "a".into(), value: b"by the first".to_vec() }]).await.unwrap();
    proxy.blackhole();
    let cut = Instant::now();
    let gave_up = until(&one, "the first gives up", |it| !it.leads());
    let took_over = until(&two, "the second leads", Standing::leads);
    let (gone, next) = tokio::join!(async { (gave_up.await, cut.elapsed()) }, async { (took_over.await, cut.elapsed()) });
    assert!(gone.1 < next.1, "the first stops acting, after {:?}, before the second begins, after {:?}", gone.1, next.1);
    assert!(next.1 < TIMEOUT + Duration::from_secs(5), "{:?}", next.1);
    let old = leading.term.unwrap();
    assert!(old.is_over());
    let new = next.0.term.unwrap();
    assert!(new.number() > old.number());
    let (mut later, values) = Records::load(&new, "registry").await.unwrap();
    assert_eq!(values, BTreeMap::from([("a".to_owned(), b"by the first".to_vec())]));
    later.write(&[Change::Put { key: "a".into(), value: b"by the second".to_vec() }]).await.unwrap();

    // It comes back: it follows, and what it still wants to write is refused.
    proxy.fair(Duration::ZERO);
    assert!(matches!(records.write(&[Change::Delete { key: "a".into() }]).await, Err(StoreError::Deposed)));
    assert_eq!(until(&one, "the first follows", |it| it.leader.is_some()).await.leader, Some(member(2)));

    // Who leaves in order keeps nobody waiting.
    let left = Instant::now();
    second.withdraw();
    let last = until(&three, "the third leads", Standing::leads).await;
    assert!(left.elapsed() < TIMEOUT, "{:?}", left.elapsed());
    let (_, values) = Records::load(&last.term.unwrap(), "registry").await.unwrap();
    assert_eq!(values["a"], b"by the second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidature_that_somebody_removes_is_renewed() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let (_election, standing) = stand(&servers.connect_string(), 1);
    let first = until(&standing, "it leads", Standing::leads).await.term.unwrap();
    let client = Client::connect(&Options::new(servers.connect_string())).await.unwrap();
    client.delete("/mesos/test/json.info_0000000000", None).await.unwrap();
    let second = until(&standing, "it leads again", |it| it.term.as_ref().is_some_and(|term| term.number() > first.number())).await;
    assert!(first.is_over() && !second.term.unwrap().is_over());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_and_changes_of_any_size_are_there_as_a_whole() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions { optimized: true, heap: "512m", ..ServerOptions::default() });
    let (_election, term) = term(&servers.connect_string()).await;
    let (mut records, values) = Records::load(&term, "registry").await.unwrap();
    assert!(values.is_empty());
    let mut expected = BTreeMap::new();
    let mut changes = Vec::new();
    let put = |expected: &mut BTreeMap<String, Vec<u8>>, changes: &mut Vec<Change>, key: &str, value: Vec<u8>| {
        expected.insert(key.to_owned(), value.clone());
        changes.push(Change::Put { key: key.to_owned(), value });
    };
    put(&mut expected, &mut changes, "../a b/ü%", b"odd names".to_vec());
    put(&mut expected, &mut changes, "", Vec::new());
    put(&mut expected, &mut changes, "large", (0..3_000_000_u32).flat_map(u32::to_be_bytes).take(3_000_000).collect());
    records.write(&changes).await.unwrap();
    // More than any transaction takes: 20,000 agents in one go.
    changes.clear();
    for number in 0..20_000 {
        put(&mut expected, &mut changes, &format!("agent/{number}"), vec![7; 120]);
    }
    let begun = Instant::now();
    records.write(&changes).await.unwrap();
    println!("20,000 records in one change: {:?}", begun.elapsed());
    let begun = Instant::now();
    let (mut again, values) = Records::load(&term, "registry").await.unwrap();
    println!("{} records read: {:?}", values.len(), begun.elapsed());
    assert!(values == expected);

    // The large one shrinks, and leaves nothing behind.
    again.write(&[Change::Put { key: "large".into(), value: b"small".to_vec() }, Change::Delete { key: String::new() }]).await.unwrap();
    again.write(&[Change::Delete { key: "never was".into() }]).await.unwrap();
    let deletes: Vec<Change> = (0..20_000).map(|number| Change::Delete { key: format!("agent/{number}") }).collect();
    again.write(&deletes).await.unwrap();
    let (_, values) = Records::load(&term, "registry").await.unwrap();
    assert_eq!(values, BTreeMap::from([("../a b/ü%".into(), b"odd names".to_vec()), ("large".into(), b"small".to_vec())]));
    let client = Client::connect(&Options::new(servers.connect_string())).await.unwrap();
    let mut znodes = 0;
    for shard in client.children("/mesos/test/log_replicas/orchestrator/store/registry").await.unwrap() {
        let shard = format!("/mesos/test/log_replicas/orchestrator/store/registry/{shard}");
        for name in client.children(&shard).await.unwrap() {
            znodes += 1 + client.children(&format!("{shard}/{name}")).await.unwrap().len();
        }
    }
    assert_eq!(znodes, 2);
}

/// The network breaks in the middle of changes, over and over. Each change is there as a whole or not at all, and one that was promised is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_or_not_wherever_the_connection_breaks() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions { optimized: true, heap: "512m", ..ServerOptions::default() });
    let proxy = Proxy::to(servers.connect_string().parse().unwrap()).await;
    let (_election, standing) = stand(&proxy.address().to_string(), 1);
    let mut term = until(&standing, "a term", Standing::leads).await.term.unwrap();
    let (mut records, mut expected) = Records::load(&term, "test").await.unwrap();
    let (mut kept, mut unknown) = (0, 0);
    for round in 0_u32..60 {
        // From one record to several transactions with a large value.
        let (count, bytes) = [(1, 10), (40, 2_000), (300, 5_000), (2, 1_200_000)][round as usize % 4];
        let changes: Vec<Change> = (0..count)
            .map(|number| Change::Put { key: format!("record/{number}"), value: round.to_be_bytes().repeat(bytes / 4) })
            .collect();
        let mut after = expected.clone();
        for change in &changes {
            let Change::Put { key, value } = change else { unreachable!() };
            after.insert(key.clone(), value.clone());
        }
        let breaks = async {
            tokio::time::sleep(Duration::from_millis(u64::from(round * 7 % 60))).await;
            proxy.cut();
        };
        let (written, ()) = tokio::join!(records.write(&changes), breaks);
        match &written {
            Ok(()) => {
                kept += 1;
                expected = after.clone();
            }
            Err(error) => {
                println!("round {round}: {error}");
                unknown += 1;
            }
        }
        let begun = Instant::now();
        let found = loop {
            if term.is_over() {
                term = until(&standing, "another term", Standing::leads).await.term.unwrap();
            }
            match Records::load(&term, "test").await {
                Ok((loaded, values)) => {
                    records = loaded;
                    break values;
                }
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
            }
        };
        assert!(found == expected || written.is_err() && found == after, "round {round}");
        expected = found;
    }
    println!("{kept} changes made, {unknown} in doubt");
    assert!(kept > 20, "a connection that comes back at once costs no change");
}

/// The writer dies in the middle of changes, over and over, and the next one takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_writer_left_half_done_is_finished_or_was_never_begun() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions { optimized: true, heap: "512m", ..ServerOptions::default() });
    let (_election, term) = term(&servers.connect_string()).await;
    let mut expected = BTreeMap::new();
    let (mut old, mut new) = (0, 0);
    for round in 0_u32..80 {
        let (mut records, values) = Records::load(&term, "test").await.unwrap();
        assert!(values == expected, "round {round}: what was found is found again");
        let (count, bytes) = [(3, 10), (400, 3_000), (2, 700_000)][round as usize % 3];
        // Every other round takes away what the one before has put.
        let changes: Vec<Change> = (0..count)
            .map(|number| match round % 2 {
                0 => Change::Put { key: format!("record/{number}"), value: round.to_be_bytes().repeat(bytes / 4) },
                _ => Change::Delete { key: format!("record/{number}") },
            })
            .collect();
        let mut after = expected.clone();
        for change in &changes {
            match change {
                Change::Put { key, value } => drop(after.insert(key.clone(), value.clone())),
                Change::Delete { key } => drop(after.remove(key)),
            }
        }
        let dies_after = Duration::from_micros(u64::from(round) * 613 % 40_000);
        let done = tokio::time::timeout(dies_after, records.write(&changes)).await;
        // What it had sent may still arrive.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (_, found) = Records::load(&term, "test").await.unwrap();
        if found == after {
            new += 1;
        } else {
            assert!(done.is_err() && found == expected, "round {round}: half a change");
            old += 1;
        }
        expected = found;
    }
    println!("{old} changes never begun, {new} made");
    assert!(old > 5 && new > 5);
}

#[tokio::test]
async fn an_ensemble_that_does_not_answer_is_a_trouble_that_is_told() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_election, standing) = stand(&silent.local_addr().unwrap().to_string(), 1);
    let told = until(&standing, "it is told", |it| it.trouble.is_some()).await;
    assert!(told.trouble.unwrap().starts_with("no server of zk://127.0.0.1:"));
    assert_eq!(told.leader, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_the_lead_is_told_who_has_it_then() {
    if !on_test_machine() {
        return;
    }
    let servers = Servers::start(1, &ServerOptions::default());
    let (first, one) = stand(&servers.connect_string(), 1);
    let term = until(&one, "it leads", Standing::leads).await.term.unwrap();
    assert_eq!(one.borrow().others, 0);
    let (second, two) = stand(&servers.connect_string(), 2);
    until(&one, "it knows that another one could", |it| it.others == 1).await;
    first.withdrawal().cancel();
    let told = until(&one, "it knows who leads", |it| it.leader.as_ref().is_some_and(|leader| leader.id == "member-2")).await;
    assert!(term.is_over() && !told.leads());
    until(&two, "that one leads", Standing::leads).await;
    // It goes on looking.
    let (_third, _) = stand(&servers.connect_string(), 3);
    until(&two, "it has somebody behind it", |it| it.others == 1).await;
    second.withdraw();
    until(&one, "it knows the next one, too", |it| it.leader.as_ref().is_some_and(|leader| leader.id == "member-3")).await;
}
