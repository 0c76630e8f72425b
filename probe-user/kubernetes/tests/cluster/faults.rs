//! Servers that fail, and go on failing.

use std::time::Duration;

use probe_kubernetes::{CollectorConfig, Kind, KindState};
use serde_json::json;

use crate::following::{Told, config, small_cluster};
use crate::make::{bare, pod};
use crate::server::{Call, Fault, Server};

#[tokio::test]
async fn errors_of_the_server_delay_a_kind_and_no_other() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::List, [Fault::Refuse(500), Fault::RefuseInHtml(502), Fault::Refuse(429), Fault::Refuse(408)]);
    server.fail(Kind::Service, Call::Watch, [Fault::Refuse(500), Fault::RefuseInHtml(503), Fault::Refuse(400)]);
    let mut told = Told::by(config(&server)).await;
    told.until("nodes come without pods", |picture| picture.objects.contains_key("nodes-shop-first")).await;
    told.until_as(&server).await;
    let report = told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    assert_eq!((report.kinds[&Kind::Pod].errors, report.kinds[&Kind::Service].errors, report.kinds[&Kind::Node].errors), (4, 3, 0));
    assert_eq!(report.kinds[&Kind::Pod].last_error.as_deref(), Some("408 Request Timeout: refused for a test"));
    assert_eq!(server.calls(Kind::Service, Call::List).len(), 1, "a refused watch is resumed");
}

#[tokio::test]
async fn a_list_that_breaks_off_between_pages_tells_nobody_as_gone() {
    let server = small_cluster().await;
    for n in 0..1200 {
        server.put(Kind::Pod, pod("shop", &format!("many-{n}"), json!({})));
    }
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    // Between the first and the second page of the new list the token expires, and the server fails.
    server.fail(Kind::Pod, Call::Watch, [Fault::Refuse(410)]);
    server.fail(Kind::Pod, Call::List, [Fault::Refuse(410), Fault::Refuse(500)]);
    server.delete(Kind::Pod, "shop", "a");
    server.end_watches();
    let report = told.until_status("it was listed again", |report| report.kinds[&Kind::Pod].restarts == 1).await;
    assert!(report.kinds[&Kind::Pod].errors >= 3, "{report:#?}");
    told.until_as(&server).await;
    assert_eq!(told.picture.ever_gone, ["pods-shop-a"]);
}

#[tokio::test]
async fn half_an_event_is_no_event_and_loses_none() {
    let server = small_cluster().await;
    let half = format!(
        "{}\n{}",
        json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "1001"}}}),
        r#"{"type":"ADDED","object":{"metadata":{"na"#
    );
    server.fail(Kind::Pod, Call::Watch, [Fault::SayAndBreak(half.clone()), Fault::SayAndEnd(half)]);
    let mut told = Told::by(config(&server)).await;
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    server.delete(Kind::Pod, "shop", "a");
    told.until_as(&server).await;
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 1);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_means_a_new_list() {
    let server = small_cluster().await;
    let nonsense = [
        r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","uid":"x","resourceVersion":"2"},"spec":"text"}}"#,
        r#"{"type":"SOMETHING","object":{}}"#,
        r#"{"type":"ADDED","object":{"metadata":{"name":"a","uid":"x"}}}"#,
        "no JSON at all",
        "[]",
    ];
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    server.fail(Kind::Pod, Call::Watch, nonsense.map(|line| Fault::SayAndEnd(format!("{line}\n"))));
    server.end_watches();
    told.until_status("it was listed again each time", |report| report.kinds[&Kind::Pod].restarts == 5).await;
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    told.until_as(&server).await;
    assert!(told.picture.ever_gone.is_empty());
}

#[tokio::test]
async fn an_error_event_that_is_not_gone_resumes() {
    let server = small_cluster().await;
    let error = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "message": "etcd leader changed", "code": 500}});
    server.fail(Kind::Pod, Call::Watch, [Fault::SayAndEnd(format!("{error}\n"))]);
    let mut told = Told::by(config(&server)).await;
    let report = told.until_status("it was told", |report| report.kinds[&Kind::Pod].errors == 1).await;
    assert_eq!(report.kinds[&Kind::Pod].last_error.as_deref(), Some("500: etcd leader changed"));
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    told.until_as(&server).await;
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 1);
}

#[tokio::test]
async fn a_watch_that_is_refused_again_and_again_is_begun_anew_with_a_list() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::Watch, (0..5).map(|_| Fault::Refuse(504)));
    let mut told = Told::by(config(&server)).await;
    told.until_status("it was listed again", |report| report.kinds[&Kind::Pod].restarts == 1).await;
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    told.until_as(&server).await;
}

#[tokio::test]
async fn forbidden_and_absent_kinds_do_not_keep_the_others_waiting() {
    let server = small_cluster().await;
    let mut expected = server.objects();
    expected.retain(|uid, _| !uid.starts_with("persistentvolumes-") && !uid.starts_with("cronjobs-"));
    server.refuse(Kind::PersistentVolume, Some(403));
    server.refuse(Kind::CronJob, Some(404));
    let mut told = Told::by(config(&server)).await;
    told.until("all the others are there", |picture| picture.synced && picture.objects == expected).await;
    let report = told.cluster.status();
    assert_eq!(report.kinds[&Kind::PersistentVolume].state, KindState::Forbidden);
    assert_eq!(report.kinds[&Kind::CronJob].state, KindState::Absent);
    assert!(!report.kinds[&Kind::CronJob].synced);
    assert_eq!(report.kinds[&Kind::PersistentVolume].last_error.as_deref(), Some("403 Forbidden: refused for a test"));

    // Asked again from time to time: when it is allowed, it comes.
    server.refuse(Kind::PersistentVolume, None);
    server.refuse(Kind::CronJob, None);
    told.until_as(&server).await;
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;

    // Forbidden later: what is known stays.
    server.refuse(Kind::PersistentVolume, Some(403));
    server.end_watches();
    told.until_status("it is forbidden", |report| report.kinds[&Kind::PersistentVolume].state == KindState::Forbidden).await;
    server.put(Kind::Node, bare(Kind::Node, "shop", "second"));
    told.until_as(&server).await;
    assert!(told.picture.ever_gone.is_empty());
    let calls = server.calls(Kind::PersistentVolume, Call::List);
    assert!(calls.windows(2).all(|two| two[1].duration_since(two[0]) >= Duration::from_millis(140)), "slowly: {calls:?}");
}

#[tokio::test]
async fn kinds_that_fail_for_ever_are_given_up_as_long_as_others_come() {
    let server = small_cluster().await;
    let mut expected = server.objects();
    expected.retain(|uid, _| !uid.starts_with("jobs-"));
    for kind in Kind::ALL {
        server.refuse(kind, Some(500));
    }
    let mut told = Told::by(config(&server)).await;
    told.until_status("all fail", |report| report.kinds.values().all(|kind| kind.errors >= 2)).await;
    assert_eq!(told.cluster.give_up_failing(), [], "a server that is down says nothing of the cluster");
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Job) {
        server.refuse(kind, None);
    }
    let others = |report: &probe_kubernetes::StatusReport| {
        report.kinds.iter().all(|(kind, status)| *kind == Kind::Job || status.state == KindState::Watching)
    };
    assert!(!told.until_status("all others are watched", others).await.synced);
    let given_up = told.cluster.give_up_failing();
    assert_eq!(given_up.iter().map(|scope| scope.kind).collect::<Vec<_>>(), [Kind::Job]);
    assert_eq!(told.cluster.give_up_failing(), []);
    told.until("the others are told", |picture| picture.synced && picture.objects == expected).await;
    assert_eq!(told.cluster.status().kinds[&Kind::Job].state, KindState::Retrying, "it is a blind spot");
    // When it can be listed after all, it comes.
    server.refuse(Kind::Job, None);
    told.until_as(&server).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_asked_again() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::List, [Fault::Hang]);
    server.fail(Kind::Service, Call::Watch, [Fault::Hang]);
    let mut told = Told::by(config(&server)).await;
    told.until("nodes come without pods", |picture| picture.objects.contains_key("nodes-shop-first")).await;
    assert!(!told.picture.synced);
    told.until_as(&server).await;
    let report = told
        .until_status("both were given up", |report| [Kind::Pod, Kind::Service].iter().all(|kind| report.kinds[kind].errors == 1))
        .await;
    assert_eq!(report.kinds[&Kind::Pod].last_error.as_deref(), Some("no answer within 700ms"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::List, [Fault::Endless]);
    server.fail(Kind::Node, Call::Watch, [Fault::Endless]);
    let mut told = Told::by(CollectorConfig { message_bytes: 1 << 20, ..config(&server) }).await;
    told.until_as(&server).await;
    let report =
        told.until_status("both were cut off", |report| [Kind::Pod, Kind::Node].iter().all(|kind| report.kinds[kind].errors == 1)).await;
    for kind in [Kind::Pod, Kind::Node] {
        assert_eq!(report.kinds[&kind].last_error.as_deref(), Some("a message of more than 1048576 bytes"));
    }
}

#[tokio::test]
async fn watches_that_end_at_once_are_opened_ever_more_slowly() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::Watch, (0..8).map(|_| Fault::SayAndEnd(String::new())));
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    server.put(Kind::Pod, pod("shop", "d", json!({})));
    told.until_as(&server).await;
    let calls = server.calls(Kind::Pod, Call::Watch);
    let waits = calls.windows(2).map(|two| two[1].duration_since(two[0]).as_millis()).collect::<Vec<_>>();
    assert_eq!(waits.len(), 8);
    // 5, 10, 20, 40, 80, 100, 100, 100 ms, less up to half.
    let least = [2, 5, 10, 20, 40, 50, 50, 50];
    assert!(waits.iter().zip(least).all(|(&wait, least)| wait >= least), "{waits:?}");
    assert_eq!(server.calls(Kind::Pod, Call::List).len(), 1);
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_what_is_known() {
    let mut server = small_cluster().await;
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    server.stop().await;
    server.end_watches();
    let report = told.until_status("all are retried", |report| report.kinds.values().all(|kind| kind.state == KindState::Retrying)).await;
    assert!(report.synced);
    assert!(told.picture.ever_gone.is_empty());
    assert_eq!(told.picture.objects, server.objects());
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let mut server = Server::start().await;
    let address = server.url();
    server.stop().await;
    let mut told = Told::by(config(&server)).await;
    told.until_status("nobody is there", |report| report.kinds.values().all(|kind| kind.state == KindState::Retrying)).await;
    let server = Server::start_at(address.trim_start_matches("http://")).await;
    server.put(Kind::Node, bare(Kind::Node, "", "n"));
    told.until_as(&server).await;
}

#[tokio::test]
async fn a_watch_that_says_nothing_for_ever_is_given_up() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::Watch, [Fault::Silent]);
    let mut config = config(&server);
    config.patience.watch = Duration::from_secs(1);
    let mut told = Told::by(config).await;
    told.until("the picture is whole", |picture| picture.synced).await;
    server.put(Kind::Pod, pod("shop", "late", json!({})));
    let begun = std::time::Instant::now();
    told.until_as(&server).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let report = told.cluster.status();
    assert_eq!(report.kinds[&Kind::Pod].last_error.as_deref(), Some("no answer within 1.7s"));
}

#[tokio::test]
async fn slow_bytes_are_waited_for_and_half_a_list_tells_nobody_as_gone() {
    let server = small_cluster().await;
    server.fail(Kind::Pod, Call::List, [Fault::Slowly(7)]);
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    assert_eq!(told.cluster.status().kinds[&Kind::Pod].errors, 0);
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
    server.fail(Kind::Pod, Call::Watch, [Fault::Refuse(410)]);
    server.fail(Kind::Pod, Call::List, [Fault::Half, Fault::SayAndEnd("{\"items\": 7, nonsense".to_owned())]);
    server.end_watches();
    let report = told.until_status("it was listed again", |report| report.kinds[&Kind::Pod].restarts == 1).await;
    assert!(report.kinds[&Kind::Pod].errors >= 3, "{report:#?}");
    told.until_as(&server).await;
    assert!(told.picture.ever_gone.is_empty());
}

#[tokio::test]
async fn an_object_of_megabytes_is_read_down_to_what_is_kept() {
    let server = small_cluster().await;
    let mut huge = pod("shop", "huge", json!({"app": "web"}));
    huge["metadata"]["annotations"]["blob"] = json!("x".repeat(8 << 20));
    huge["spec"]["containers"] = (0..20_000).map(|n| json!({"name": n.to_string(), "image": "nginx"})).collect();
    server.put(Kind::Pod, huge);
    let mut told = Told::by(config(&server)).await;
    told.until_as(&server).await;
    assert!(told.picture.objects["pods-shop-huge"].labels.contains_key("app"));
}

#[tokio::test]
async fn a_token_that_was_changed_is_read_again_when_the_old_one_is_refused() {
    let server = small_cluster().await;
    server.accept_only(&["first"]);
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "first").expect("written");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server.url()}}],
        "users": [{"name": "me", "user": {"tokenFile": token.path()}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    });
    std::fs::write(file.path(), text.to_string()).expect("written");
    let access = probe_kubernetes::Access::Kubeconfig { path: Some(file.path().to_owned()), context: None };
    let mut told = Told::by(CollectorConfig { access, ..config(&server) }).await;
    told.until_as(&server).await;
    // The token is taken back before a new one is there.
    server.accept_only(&["second"]);
    server.end_watches();
    told.until_status("nobody knows us", |report| report.kinds[&Kind::Pod].state == KindState::Retrying).await;
    server.put(Kind::Pod, pod("shop", "late", json!({})));
    server.delete(Kind::Pod, "shop", "a");
    std::fs::write(token.path(), "second").expect("written");
    told.until_as(&server).await;
    assert_eq!(told.picture.ever_gone, ["pods-shop-a"], "what is known stays meanwhile");
    told.until_status("all are watched", |report| report.kinds.values().all(|kind| kind.state == KindState::Watching)).await;
}
