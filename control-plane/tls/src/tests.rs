use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A CA, and who it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn files(&self, directory: &Path, client_ca: bool) -> Files {
        let (certificate, key) = self.sign(&["localhost", "127.0.0.1"]);
        let at = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Files { certificate: at("tls.crt", &certificate), key: at("tls.key", &key), client_ca: client_ca.then(|| at("ca.crt", &self.pem)) }
    }

    fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|&it| it.to_owned()).collect::<Vec<_>>()).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// What a client that trusts `ca` gets from a greeting server, or why not.
async fn greeted(tls: &Tls, door: Door, ca: &Path) -> io::Result<String> {
    let (client, server) = pair().await;
    let greet = async {
        let mut stream = tls.accept(door, server).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await
    };
    let ask = async {
        let config = client_trusting(ca).unwrap();
        let mut stream = TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), client).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    let (served, answer) = tokio::join!(greet, ask);
    served.and(answer)
}

#[tokio::test]
async fn a_client_that_trusts_the_ca_is_served_and_another_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls = Tls::load(ours.files(directory.path(), false)).unwrap();
    let (right, wrong) = (directory.path().join("right.pem"), directory.path().join("wrong.pem"));
    std::fs::write(&right, &ours.pem).unwrap();
    std::fs::write(&wrong, &theirs.pem).unwrap();
    assert_eq!(greeted(&tls, Door::Http, &right).await.unwrap(), "hello");
    assert!(greeted(&tls, Door::Http, &wrong).await.is_err());
    assert!(!tls.guards_replicas());
}

#[tokio::test]
async fn with_a_ca_for_clients_probes_need_a_certificate_and_browsers_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.files(directory.path(), true);
    let ca = files.client_ca.clone().unwrap();
    let tls = Tls::load(files).unwrap();
    assert_eq!(greeted(&tls, Door::Http, &ca).await.unwrap(), "hello");
    assert!(greeted(&tls, Door::Grpc, &ca).await.is_err(), "no certificate was shown");
    let (client, server) = pair().await;
    let (served, carried) = tokio::join!(tls.accept(Door::Replicas, server), tls.connect_replica("127.0.0.1", client));
    let (mut served, mut carried) = (served.unwrap(), carried.unwrap());
    carried.write_all(b"H").await.unwrap();
    assert_eq!(served.look_ahead(4).await.unwrap(), 1);
    assert_eq!(served.ahead(), b"H");
    assert_eq!(served.read_u8().await.unwrap(), b'H');
    assert!(served.ahead().is_empty());
}

/// What comes of carrying a connection from a control plane with one certificate to another's, which is called by its address.
async fn carried(ours: &[&str], theirs: &[&str], host: &str) -> io::Result<()> {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let authority = Authority::new();
    let [here, there] = [(ours, &directories[0]), (theirs, &directories[1])].map(|(names, directory)| {
        let (certificate, key) = authority.sign(names);
        let at = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files =
            Files { certificate: at("tls.crt", &certificate), key: at("tls.key", &key), client_ca: Some(at("ca.crt", &authority.pem)) };
        Tls::load(files).unwrap()
    });
    let (client, server) = pair().await;
    let (served, carried) = tokio::join!(there.accept(Door::Replicas, server), here.connect_replica(host, client));
    served.and(carried).map(drop)
}

#[tokio::test]
async fn replicas_that_share_a_certificate_know_each_other_at_any_address() {
    let service = ["orchestrator-control.orchestrator.svc", "mesos-master.orchestrator.svc"];
    assert!(carried(&service, &service, "10.1.2.3").await.is_ok());
    assert!(carried(&service, &["10.1.2.3"], "10.1.2.3").await.is_ok(), "the address that was called is in the certificate");
    assert!(carried(&["one.example"], &["two.example"], "two.example").await.is_ok());
    let probe = carried(&service, &["orchestrator-probe.orchestrator-node.svc"], "10.1.2.3").await;
    assert!(probe.is_err(), "a probe is signed by the same CA, and is no control plane");
    assert!(carried(&["one.example"], &["two.example"], "three.example").await.is_err());
    assert!(carried(&["10.1.2.4"], &["10.1.2.4"], "10.1.2.3").await.is_err(), "an address in ours is ours alone");
}

#[tokio::test]
async fn what_was_looked_at_is_read_all_the_same() {
    let (mut client, server) = pair().await;
    let mut stream = Stream::from(server);
    client.write_all(b"GET /health").await.unwrap();
    while stream.ahead().len() < 5 {
        assert!(stream.look_ahead(3).await.unwrap() > 0);
    }
    client.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "GET /health");
    assert_eq!(stream.look_ahead(1).await.unwrap(), 0);
}

#[tokio::test]
async fn renewed_files_are_used_and_broken_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (Authority::new(), Authority::new());
    let tls = Tls::load(before.files(directory.path(), false)).unwrap();
    let ca = directory.path().join("after.pem");
    std::fs::write(&ca, &after.pem).unwrap();
    assert!(greeted(&tls, Door::Http, &ca).await.is_err());
    assert!(!tls.look(), "nothing has changed");

    let later = SystemTime::now() + Duration::from_secs(5);
    let touch =
        |name: &str, at: SystemTime| std::fs::File::options().write(true).open(directory.path().join(name)).unwrap().set_modified(at);
    std::fs::write(directory.path().join("tls.crt"), "not a certificate").unwrap();
    touch("tls.crt", later).unwrap();
    assert!(!tls.look());

    after.files(directory.path(), false);
    touch("tls.crt", later + Duration::from_secs(5)).unwrap();
    assert!(tls.look());
    assert_eq!(greeted(&tls, Door::Http, &ca).await.unwrap(), "hello");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let tls = Arc::new(Tls::load(Authority::new().files(directory.path(), false)).unwrap());
    let (mut client, server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(tls.accept(Door::Http, server).await.is_err());
    let (client, server) = pair().await;
    drop(client);
    assert!(tls.accept(Door::Http, server).await.is_err());
}

#[test]
fn a_mistake_in_the_files_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.files(directory.path(), true);
    let missing = Files { certificate: directory.path().join("none.crt"), ..files.clone() };
    assert!(Tls::load(missing).unwrap_err().to_string().contains("none.crt"));
    std::fs::write(directory.path().join("empty.crt"), "").unwrap();
    let empty = Files { certificate: directory.path().join("empty.crt"), ..files.clone() };
    assert!(Tls::load(empty).unwrap_err().to_string().ends_with("no certificate is in it"));
    std::fs::write(directory.path().join("other.key"), authority.sign(&["x"]).1).unwrap();
    let other = Files { key: directory.path().join("other.key"), ..files };
    let error = Tls::load(other).unwrap_err();
    assert!(matches!(error, Unusable::Pair { .. }), "{error}");
}
