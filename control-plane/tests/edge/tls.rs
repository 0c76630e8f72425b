//! Encryption and login of a whole process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edge_tls::Files;
use orchestrator_control::config::{Config, Listener, Service, TlsConfig};
use orchestrator_control::store::MemoryStore;
use probe_endpoint::{ControlPlane, Tls};
use proto::agent::v1 as wire;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::ReceiverStream;

use crate::world::{World, config};

/// A CA in a directory: `ca.crt`, and `NAME.crt` and `NAME.key` of whom it has signed.
struct Authority<'a> {
    directory: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(directory: &'a Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(directory.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let at = |end: &str| self.directory.join(format!("{name}.{end}"));
        std::fs::write(at("crt"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        (at("crt"), at("key"))
    }
}

/// A control plane with everything, encrypted, for Ann alone.
fn guarded(directory: &Path, authority: &Authority<'_>) -> Config {
    let (certificate, key) = authority.sign("server");
    let users = directory.join("users");
    std::fs::write(&users, "ann:secret\n").unwrap();
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Config {
        services: vec![Service::Topology, Service::Master, Service::Scheduler],
        mesos_address: any,
        marathon_address: any,
        data_dir: directory.to_owned(),
        tls: Some(TlsConfig {
            files: Files { certificate, key, client_ca: Some(authority.ca()) },
            listeners: vec![Listener::Http, Listener::Grpc, Listener::Mesos, Listener::Marathon],
        }),
        users_file: Some(users),
        ..config()
    }
}

/// The whole answer to a request over TLS.
async fn ask(address: SocketAddr, ca: &Path, target: &str, headers: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(edge_tls::client_trusting(ca).unwrap());
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Who closes without a word of farewell has answered all the same.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn every_listener_speaks_tls_and_the_map_asks_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let world = World::start_with(guarded(directory.path(), &authority), Arc::new(MemoryStore::default())).await;
    let ca = authority.ca();

    let stranger = ask(world.http, &ca, "/api", "").await;
    assert!(stranger.starts_with("HTTP/1.1 401 ") && stranger.contains("Basic realm=\"Restricted\""), "{stranger}");
    let ann = ask(world.http, &ca, "/api", "Authorization: Basic YW5uOnNlY3JldA==\r\n").await;
    assert!(ann.starts_with("HTTP/1.1 200 ") && ann.contains("\"hostname\""), "{ann}");
    let wrong = ask(world.http, &ca, "/metrics", "Authorization: Basic YW5uOndyb25n\r\n").await;
    assert!(wrong.starts_with("HTTP/1.1 401 "), "{wrong}");
    assert!(!ask(world.http, &ca, "/health", "").await.starts_with("HTTP/1.1 401 "));

    // In the clear nothing is answered.
    let mut plain = TcpStream::connect(world.http).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_scheduler_finds_the_master_of_its_own_process() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let world = World::start_with(guarded(directory.path(), &authority), Arc::new(MemoryStore::default())).await;
    let (mesos, ca) = (world.mesos.unwrap(), authority.ca());
    let subscribed = async {
        while !ask(mesos, &ca, "/state", "").await.contains("\"name\":\"marathon\"") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), subscribed).await.expect("the scheduler subscribes over TLS");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn agents_need_a_certificate_of_the_right_ca() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let world = World::start_with(guarded(directory.path(), &authority), Arc::new(MemoryStore::default())).await;
    let url = format!("https://localhost:{}", world.grpc.port());
    let answered = async |tls: Tls| -> Result<(), String> {
        let endpoint = ControlPlane::parse(&url, tls).unwrap().endpoint().unwrap();
        let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
        let (messages, stream) = tokio::sync::mpsc::channel(1);
        messages
            .send(wire::AgentMessage { body: Some(wire::agent_message::Body::Pong(wire::Pong {})), received_through: 0 })
            .await
            .unwrap();
        let opened = AgentServiceClient::new(channel).stream(ReceiverStream::new(stream)).await;
        let answer = opened.map_err(|error| error.to_string())?.into_inner().message().await.map_err(|error| error.to_string())?;
        assert!(matches!(answer.unwrap().body, Some(wire::master_message::Body::Refused(_))));
        Ok(())
    };
    let known = Tls { ca: Some(authority.ca()), identity: Some(authority.sign("node")), server_name: None };
    answered(known.clone()).await.unwrap();
    answered(Tls { identity: None, ..known.clone() }).await.unwrap_err();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::new(elsewhere.path());
    answered(Tls { identity: Some(other.sign("node")), ..known.clone() }).await.unwrap_err();
    answered(Tls { ca: Some(other.ca()), ..known.clone() }).await.unwrap_err();
    answered(Tls { server_name: Some("another.example.com".to_owned()), ..known }).await.unwrap_err();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let mut config = guarded(directory.path(), &authority);
    config.tls.as_mut().unwrap().files.key = directory.path().join("none.key");
    let error = World::try_start(config, Arc::new(MemoryStore::default())).await.err().unwrap();
    assert!(format!("{error:#}").contains("none.key"), "{error:#}");
}
