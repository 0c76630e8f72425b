//! Where a link meets what it does not own: rights, other links, limits of servers, and what clients rely on beyond data.

use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use zk::testing::{Ensemble, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Error, Options};
use zksync::{LinkState, Mode, PerSide, Rule, Side};
use zksync_service::align::{Wanted, align};
use zksync_service::definition::Definition;
use zksync_service::prepare::{Preparation, Trial, prepare};
use zksync_service::store::Store;
use zksync_service::verify::Known;

use crate::common::{World, create, ensembles, until};
use crate::operator::Operator;

async fn connect(to: &str) -> Client {
    Client::connect(&Options::new(to)).await.expect("the servers of a test answer")
}

async fn found(definition: &Definition, trial: Trial) -> Preparation {
    let config = definition.config().expect("a definition that makes sense");
    prepare(definition, &config, &Known::default(), trial).await.expect("the servers of a test answer")
}

fn below(a: &str, b: &str) -> Vec<Rule> {
    vec![Rule { a: a.to_owned(), b: b.to_owned(), include: Vec::new(), exclude: Vec::new() }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_side_cannot_be_opened_is_told_by_the_plan_and_by_the_link() {
    let Some((a, b)) = ensembles(1) else { return };
    let owner = Client::connect(&Options::new(a.connect_string()).with_digest("owner:pw")).await.unwrap();
    owner.create("/__zksync", b"", &Acl::creator(), CreateKind::Persistent).await.unwrap();
    create(&owner, "/app", b"1").await;
    let readable = vec![Acl { permissions: 1, scheme: "world".into(), id: "anyone".into() }, Acl::creator().remove(0)];
    owner.create("/mine", b"1", &readable, CreateKind::Persistent).await.unwrap();
    let mut definition = Definition::between("why", &a.connect_string(), &b.connect_string());
    definition.mappings = below("/mine", "/mine");
    let planned = found(&definition, Trial::Nothing).await;
    let told = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    assert!(told(&planned.blockers, "below /__zksync on A, cannot be made"), "{:?}", planned.blockers);
    // Only the way back writes there: that is a matter of migrations.
    let refused = "nothing can be created below /mine on A";
    assert!(told(&planned.warnings, refused) && !told(&planned.blockers, refused), "{planned:?}");
    definition.mode = Mode::Both;
    assert!(told(&found(&definition, Trial::Nothing).await.blockers, refused));

    definition.mode = Mode::AToB;
    definition.mappings = below("/app", "/app");
    let world = World::start(definition).await;
    let reason = || world.handle.status().reason.clone().unwrap_or_default();
    until("the reason", || reason().starts_with("A: ") && reason().contains("/__zksync")).await;
    assert_eq!(world.handle.status().state, LinkState::Starting);
    owner.set_acl("/__zksync", &Acl::open(), None).await.unwrap();
    until("it goes on by itself", || world.handle.status().state == LinkState::Live).await;
    assert_eq!(world.handle.status().reason, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ours_cannot_be_removed_by_others_and_what_is_above_the_roots_is_as_on_the_other_side() {
    let Some((a, b)) = ensembles(1) else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "sync:pw").unwrap();
    let mut definition = Definition::between("ours", &a.connect_string(), &b.connect_string());
    (definition.a.digest_file, definition.b.digest_file) = (Some(secret.path().to_owned()), Some(secret.path().to_owned()));
    definition.mappings = below("/x/y/app", "/z/x/y/app");
    let (stranger_a, stranger_b) = (connect(&a.connect_string()).await, connect(&b.connect_string()).await);
    // As an earlier version left it.
    stranger_a.create_all("/__zksync/links/ours/j").await.unwrap();
    let owner = Client::connect(&Options::new(a.connect_string()).with_digest("sync:pw")).await.unwrap();
    let mut listed = Acl::creator();
    listed.push(Acl { permissions: 1, scheme: "world".into(), id: "anyone".into() });
    owner.create("/x", b"", &listed, CreateKind::Persistent).await.unwrap();
    owner.create_all("/x/y/app").await.unwrap();
    create(&owner, "/x/y/app/n", b"1").await;
    let world = World::start(definition).await;
    until("it is copied", || world.handle.status().counters.created.b >= 2).await;
    let mover = Client::connect(&Options::new(b.connect_string()).with_digest("sync:pw")).await.unwrap();
    for (path, like) in [("/z", "/"), ("/z/x", "/x"), ("/z/x/y", "/x/y")] {
        assert_eq!(mover.acl(path).await.unwrap(), owner.acl(like).await.unwrap(), "{path}");
    }
    for (name, stranger) in [("A", &stranger_a), ("B", &stranger_b)] {
        for path in ["/__zksync/links/ours/epoch", "/__zksync/links/ours/hb", "/__zksync/links/ours/j/0", "/__zksync/registry/ours"] {
            // The entry of the registry is below what links share: it may be removed, and is made again.
            if path.contains("registry") {
                assert!(stranger.get(path).await.is_ok(), "{path} on {name}: others see what they would share");
                continue;
            }
            assert_eq!(stranger.delete(path, None).await.unwrap_err(), Error::NoAuth, "{path} on {name}");
        }
        assert_eq!(stranger.delete("/__zksync/links/ours", None).await.unwrap_err(), Error::NotEmpty, "{name}");
        assert_eq!(stranger.set("/__zksync/registry", b"x", None).await.unwrap_err(), Error::NoAuth, "{name}");
        stranger.create_all("/__zksync/links/theirs").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_other_control_planes_that_share_a_subtree_are_found_on_the_ensembles() {
    let Some((a, b)) = ensembles(1) else { return };
    let c = Ensemble::start(1, &ServerOptions::default());
    let (to_a, to_b, to_c) = (a.connect_string(), b.connect_string(), c.connect_string());
    create(&connect(&to_a).await, "/app", b"1").await;
    let first = World::start(Definition { mappings: below("/app", "/app"), ..Definition::between("one", &to_a, &to_b) }).await;
    until("the first is live", || first.handle.status().state == LinkState::Live).await;
    let refused = async |definition: Definition, text: &str| {
        let planned = found(&definition, Trial::Nothing).await;
        assert!(planned.blockers.iter().any(|line| line.contains(text)), "{:?}", planned.blockers);
        let world = World::with_leader(definition, 2).await;
        until(text, || world.handle.status().reason.as_ref().is_some_and(|reason| reason.contains(text))).await;
        assert_eq!(world.handle.status().state, LinkState::Starting);
        assert_eq!(world.handle.status().counters.transactions, PerSide::default());
    };
    refused(Definition { mappings: below("/app", "/copy"), ..Definition::between("two", &to_a, &to_c) }, "the link \"one\"").await;
    refused(Definition { mappings: below("/c", "/app/below"), ..Definition::between("three", &to_c, &to_b) }, "the link \"one\"").await;
    refused(
        Definition { mappings: below("/other", "/other"), ..Definition::between("one", &to_a, &to_c) },
        "another ensemble on its other side",
    )
    .await;
    // By another name.
    let same = to_a.replace("127.0.0.1", "localhost");
    refused(Definition { mappings: below("/m", "/n"), ..Definition::between("four", &to_a, &same) }, "the same ensemble").await;
    // The first has not been touched by all this; what shares nothing is let in, and so is the same link when another one runs it.
    assert_eq!(first.handle.status().state, LinkState::Live);
    let beside = Definition { mappings: below("/beside", "/beside"), ..Definition::between("five", &to_a, &to_c) };
    create(&connect(&to_a).await, "/beside", b"1").await;
    let beside = World::with_leader(beside, 3).await;
    until("what shares nothing is live", || beside.handle.status().state == LinkState::Live).await;
    let again = World::with_leader(first.definition.clone(), 4).await;
    until("the same link goes on elsewhere", || again.handle.status().state == LinkState::Live).await;
    create(&connect(&to_a).await, "/app/more", b"1").await;
    until("and not here", || first.handle.status().state == LinkState::Fenced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_are_numbers_and_counters_of_ephemerals_are_aligned() {
    let Some((a, b)) = ensembles(1) else { return };
    let mut definition = Definition::between("kafka", &a.connect_string(), &b.connect_string());
    definition.versions = vec!["/brokers/seqid".to_owned()];
    let world = World::start(definition).await;
    for path in ["/brokers", "/brokers/seqid", "/election"] {
        create(&world.a, path, b"").await;
    }
    for _ in 0..700 {
        world.a.set("/brokers/seqid", b"", None).await.unwrap();
    }
    for _ in 0..5 {
        world.a.create("/election/c-", b"", &Acl::open(), CreateKind::EphemeralSequential).await.unwrap();
    }
    world.until_equal().await;
    let clients = PerSide { a: connect(&world.definition.a.connect).await, b: connect(&world.definition.b.connect).await };
    let config = world.definition.config().unwrap();
    let wanted = Wanted { kinds: &[], versions: &world.definition.versions };
    let aligned = align(&config, wanted, 10, &clients, Side::B, None).await.unwrap();
    assert_eq!((aligned.versions, aligned.problems.len()), (1, 0), "{aligned:?}");
    let version = async |client: &Client| client.stat("/brokers/seqid").await.unwrap().unwrap().version;
    let of_a = version(&clients.a).await;
    assert_eq!((of_a, version(&clients.b).await), (700, 700));
    let next = clients.b.create("/election/c-", b"", &Acl::open(), CreateKind::EphemeralSequential).await.unwrap();
    assert!(next.as_str() > "/election/c-0000000004", "{next}");
    // Again it changes nothing, and the other way round it follows what B has given since.
    assert_eq!(align(&config, wanted, 0, &clients, Side::B, None).await.unwrap().versions, 0);
    clients.b.set("/brokers/seqid", b"", None).await.unwrap();
    assert_eq!(align(&config, wanted, 0, &clients, Side::A, None).await.unwrap().versions, 1);
    assert_eq!(version(&clients.a).await, 701);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn znodes_beyond_the_usual_limit_are_copied_where_both_ensembles_take_them() {
    if !on_test_machine() {
        return;
    }
    let large = ServerOptions { properties: vec!["jute.maxbuffer=4194304".to_owned()], ..ServerOptions::default() };
    let (a, b, small) = (Ensemble::start(1, &large), Ensemble::start(1, &large), Ensemble::start(1, &ServerOptions::default()));
    let old = connect(&a.connect_string()).await;
    let data = vec![7; 2_500_000];
    create(&old, "/large", &data).await;
    let mut definition = Definition::between("large", &a.connect_string(), &b.connect_string());
    let told = |found: &Preparation, text: &str| found.blockers.iter().any(|line| line.contains(text));
    let usual = found(&definition, Trial::Nothing).await;
    assert!(told(&usual, "/large has 2500000 bytes, and node_bytes_max is 1047000"), "{:?}", usual.blockers);
    definition.node_bytes_max = 3_000_000;
    let mut to_small = definition.clone();
    to_small.b.connect = small.connect_string();
    let refused = found(&to_small, Trial::Written).await;
    assert!(told(&refused, "its jute.maxbuffer is too small"), "{:?}", refused.blockers);
    let taken = found(&definition, Trial::Written).await;
    assert!(taken.blockers.is_empty(), "{:?}", taken.blockers);
    let world = World::start(definition).await;
    world.until_equal().await;
    assert_eq!(world.b.get("/large").await.unwrap().0, data);
}

#[derive(clap::Parser)]
struct Shell {
    #[command(flatten)]
    zk: zksync_service::cli::ZkFlags,
    #[command(flatten)]
    access: access::AccessFlags,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_can_be_repeated_with_the_same_plan_and_with_no_other() {
    let Some((a, b)) = ensembles(1) else { return };
    let directory = tempfile::tempdir().unwrap();
    let operator = Operator::with(Store::open(directory.path()).unwrap(), 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut running = JoinSet::new();
    let router = operator.router.clone();
    running.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let plan = directory.path().join("plan.json");
    let zk = async |words: &[&str]| {
        let flags = ["zk", "--url", &url].into_iter().chain(words.iter().copied()).map(str::to_owned);
        let shell = Shell::try_parse_from(flags.collect::<Vec<_>>()).unwrap();
        let run = move || {
            let mut out = Vec::new();
            let done = zksync_service::cli::run(&shell.zk, &shell.access, &mut out);
            done.map(|fine| (fine, String::from_utf8(out).unwrap())).map_err(|error| format!("{error:#}"))
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let mut definition = Definition::between("s", &a.connect_string(), &b.connect_string());
    let write = |definition: &Definition| std::fs::write(&plan, serde_json::to_vec(definition).unwrap()).unwrap();
    write(&definition);
    let file = plan.to_str().unwrap().to_owned();
    let (_, told) = zk(&["start", &file, "--sync-only"]).await.unwrap();
    assert!(told.contains("s has begun"), "{told}");
    let (_, told) = zk(&["start", &file]).await.unwrap();
    assert!(told.contains("there already, as the plan has it"), "{told}");
    let (_, told) = zk(&["start", &file]).await.unwrap();
    assert!(told.contains("its migration is under way already"), "{told}");
    zk(&["rollback", "s", "--wait"]).await.unwrap();
    let (_, told) = zk(&["start", &file]).await.unwrap();
    assert!(told.contains("s has begun") && !told.contains("under way"), "{told}");
    operator.until_phase("s", "catch_up").await;
    definition.mode = Mode::Both;
    write(&definition);
    let refused = zk(&["start", &file]).await.unwrap_err();
    assert!(refused.contains("differs from the plan in mode"), "{refused}");
}
