use super::*;
use crate::procfs::Arguments;

#[test]
fn the_host_s_namespace_is_entered_only_when_it_is_another() {
    let root = tempfile::tempdir().unwrap();
    let namespace = || Config::of_host(&Procfs::new(root.path(), Arguments::Show)).namespace;
    assert_eq!(namespace(), None, "nobody knows which it is");
    let host = root.path().join("1/ns/net");
    std::fs::create_dir_all(host.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(std::fs::read_link("/proc/self/ns/net").unwrap(), &host).unwrap();
    assert_eq!(namespace(), None);
    std::fs::remove_file(&host).unwrap();
    std::os::unix::fs::symlink("net:[1]", &host).unwrap();
    assert_eq!(namespace(), Some(host));
}

#[test]
fn an_answer_comes_from_the_server_and_goes_to_the_client_as_the_server_sees_it() {
    let at = |text: &str| -> std::net::SocketAddr { text.parse().unwrap() };
    let tuple = |source: &str, destination: &str| message::Tuple {
        source: (at(source).ip(), at(source).port()),
        destination: (at(destination).ip(), at(destination).port()),
    };
    let entry = Entry {
        id: 1,
        zone: 2,
        status: message::IPS_DST_NAT,
        protocol: crate::observation::Protocol::Tcp,
        original: tuple("10.0.0.1:5000", "10.96.0.10:80"),
        reply: tuple("10.1.0.1:8080", "192.0.2.1:6000"),
    };
    let Translated { client, server, translated_client, translated_server, .. } = translated(&entry, 1, false);
    assert_eq!((client.1, server.1, translated_client.1, translated_server.1), (5_000, 80, 6_000, 8_080));
}

#[tokio::test]
async fn that_nobody_looks_is_told_until_somebody_does() {
    let (inputs, mut told) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let ended = async {
        tokio::task::yield_now().await;
        stop.cancel();
    };
    tokio::join!(leave(inputs, stop.clone()), ended);
    let first = told.try_recv().unwrap();
    assert!(matches!(&first, Input::BlindSpot { cause: CAUSE, sentence: Some(it) } if it.contains("--no-conntrack")), "{first:?}");
    assert!(matches!(told.try_recv().unwrap(), Input::BlindSpot { cause: CAUSE, sentence: None }));
}
