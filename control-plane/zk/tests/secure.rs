//! Against real servers: encryption and proof of who we are.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use zk::testing::{Ensemble, Secure, ServerOptions, on_test_machine};
use zk::{Acl, Client, CreateKind, Error, Options, Tls};

/// Certificates of a test: of a server that is called `localhost`, of a client, and of a stranger.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Certificates {
        let directory = tempfile::tempdir().expect("the servers of a test answer");
        for (authority, names) in [("ours", ["server", "client"]), ("theirs", ["stranger", "unused"])] {
            let mut params = CertificateParams::new(Vec::new()).expect("the servers of a test answer");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, authority);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("the servers of a test answer"))
                .expect("the servers of a test answer");
            std::fs::write(directory.path().join(authority), issuer.pem()).expect("the servers of a test answer");
            for name in names {
                let key = KeyPair::generate().expect("the servers of a test answer");
                let certificate = CertificateParams::new(vec!["localhost".to_owned()])
                    .expect("the servers of a test answer")
                    .signed_by(&key, &issuer)
                    .expect("the servers of a test answer");
                std::fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).expect("the servers of a test answer");
                std::fs::write(directory.path().join(format!("{name}.crt")), certificate.pem()).expect("the servers of a test answer");
                let both = format!("{}{}", key.serialize_pem(), certificate.pem());
                std::fs::write(directory.path().join(format!("{name}.pem")), both).expect("the servers of a test answer");
            }
        }
        Certificates { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, ask_clients: bool) -> ServerOptions {
        let secure = Secure { key_store: self.at("server.pem"), trust_store: self.at("ours"), ask_clients };
        ServerOptions { secure: Some(secure), ..ServerOptions::default() }
    }

    fn tls(&self, authority: &str, client: Option<&str>) -> Tls {
        Tls {
            ca_file: self.at(authority),
            certificate_file: client.map(|name| self.at(&format!("{name}.crt"))),
            key_file: client.map(|name| self.at(&format!("{name}.key"))),
            check_name: true,
        }
    }
}

async fn connect(address: &str, tls: Tls) -> Result<Client, Error> {
    Client::connect(&Options::new(address).with_session_timeout(Duration::from_secs(4)).with_tls(tls)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_certificates_is_reached_by_who_has_one_and_only_by_its_name() {
    if !on_test_machine() {
        return;
    }
    let certificates = Certificates::make();
    let ensemble = Ensemble::start(1, &certificates.server(true));
    let port = ensemble.servers[0].secure_address().unwrap().port();
    let (by_name, by_address) = (format!("localhost:{port}"), format!("127.0.0.1:{port}"));

    let client = connect(&format!("{by_name}/app"), certificates.tls("ours", Some("client"))).await.unwrap();
    assert!(client.is_encrypted());
    let plain = Client::connect(&Options::new(ensemble.connect_string())).await.unwrap();
    plain.create("/app", b"", &Acl::open(), CreateKind::Persistent).await.unwrap();
    let large = vec![7; 900_000];
    client.create("/x", &large, &Acl::open(), CreateKind::Persistent).await.unwrap();
    assert_eq!(plain.get("/app/x").await.unwrap().0, large, "the chroot holds, and all of it has come through");

    // Whoever signed the server's certificate must be known.
    let refused = connect(&by_name, certificates.tls("theirs", Some("client"))).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    // Its name must be the one that was asked for, unless that is told to be no matter.
    let refused = connect(&by_address, certificates.tls("ours", Some("client"))).await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("not valid for name"), "{refused}");
    let any_name = Tls { check_name: false, ..certificates.tls("ours", Some("client")) };
    connect(&by_address, any_name).await.unwrap().get("/").await.unwrap();
    let refused = connect(&by_address, Tls { check_name: false, ..certificates.tls("theirs", Some("client")) }).await.unwrap_err();
    assert!(refused.to_string().contains("UnknownIssuer"), "a name that does not matter makes no issuer known: {refused}");
    // The server must know who signed ours.
    for ours in [None, Some("stranger")] {
        let refused = connect(&by_name, certificates.tls("ours", ours)).await;
        assert!(refused.is_err(), "{ours:?}");
    }
    // A file that is not there is told at once.
    let refused = connect(&by_name, certificates.tls("nowhere", None)).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("nowhere")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_to_be_somebody_may_do_what_is_his() {
    if !on_test_machine() {
        return;
    }
    let certificates = Certificates::make();
    let jaas = certificates.at("jaas.conf");
    let server = "Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_mover=\"s3cret\" user_other=\"0ther\"; };";
    std::fs::write(&jaas, server).unwrap();
    let mut options = certificates.server(false);
    options.properties.push(format!("java.security.auth.login.config={}", jaas.display()));
    options.properties.push("zookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider".to_owned());
    let ensemble = Ensemble::start(1, &options);
    let secure = format!("localhost:{}", ensemble.servers[0].secure_address().unwrap().port());
    let plain = Options::new(ensemble.connect_string()).with_session_timeout(Duration::from_secs(4));
    let encrypted = Options::new(secure).with_session_timeout(Duration::from_secs(4)).with_tls(certificates.tls("ours", None));
    for (n, options) in [plain, encrypted].into_iter().enumerate() {
        let mover = Client::connect(&options.clone().with_sasl("mover", "s3cret")).await.unwrap();
        let path = format!("/mine{n}");
        mover.create(&path, b"1", &Acl::creator(), CreateKind::Persistent).await.unwrap();
        let acl = mover.acl(&path).await.unwrap();
        assert_eq!((acl[0].scheme.as_str(), acl[0].id.as_str()), ("sasl", "mover"));
        let other = Client::connect(&options.clone().with_sasl("other", "0ther")).await.unwrap();
        assert_eq!(other.get(&path).await.unwrap_err(), Error::NoAuth);
        let nobody = Client::connect(&options).await.unwrap();
        assert_eq!(nobody.get(&path).await.unwrap_err(), Error::NoAuth);
        let refused = Client::connect(&options.with_sasl("mover", "wrong")).await;
        assert!(refused.is_err(), "a wrong password opens no session");
    }
}
