use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A metadata service: answers by path, and remembers what it was asked, in order.
#[derive(Clone)]
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What a request has to be for an answer: first line, headers in lower case.
type Respond = fn(&str, &[&str]) -> Vec<u8>;

impl Service {
    async fn start(respond: Respond) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Service { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = service.asked.clone();
        spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let asked = asked.clone();
                spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let lines: Vec<&str> = head.trim_end().split("\r\n").collect();
                    asked.lock().unwrap().push(lines[0].to_owned());
                    let answer = respond(lines[0], &lines[1..]);
                    let _ = stream.write_all(&answer).await;
                    if answer.is_empty() {
                        // Hangs with the connection open.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        service
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no supervisor")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

fn ok(body: &str) -> Vec<u8> {
    with_headers(body, "")
}

fn with_headers(body: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn refuse(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

async fn check(provider: Provider, respond: Respond, expected: Expect) {
    let service = Service::start(respond).await;
    let cloud = ask(service.address, provider).await.unwrap();
    let Cloud { provider, region, zone, instance_id, instance_type } = cloud;
    expected.assert_eq(&format!("{provider} {region} {zone} {instance_id} {instance_type}\n{}\n", service.asked().join("\n")));
}

#[tokio::test]
async fn aws_is_asked_with_a_token() {
    let respond: Respond = |line, headers| match line {
        "PUT /latest/api/token HTTP/1.1" if headers.contains(&"x-aws-ec2-metadata-token-ttl-seconds: 60") => ok("AQAEA=="),
        "GET /latest/dynamic/instance-identity/document HTTP/1.1" if headers.contains(&"x-aws-ec2-metadata-token: AQAEA==") => {
            ok(r#"{"accountId":"123","architecture":"x86_64","availabilityZone":"eu-west-1b","billingProducts":null,
                "instanceId":"i-0abc","instanceType":"m5.large","region":"eu-west-1","version":"2017-09-30"}"#)
        }
        _ => refuse(401),
    };
    check(
        Provider::Aws,
        respond,
        expect![[r#"
            aws eu-west-1 eu-west-1b i-0abc m5.large
            PUT /latest/api/token HTTP/1.1
            GET /latest/dynamic/instance-identity/document HTTP/1.1
        "#]],
    )
    .await;
}

#[tokio::test]
async fn gcp_is_asked_word_by_word_and_has_to_vouch_for_itself() {
    let respond: Respond = |line, headers| {
        if !headers.contains(&"metadata-flavor: Google") {
            return refuse(403);
        }
        let google = |body| with_headers(body, "Metadata-Flavor: Google\r\n");
        match line {
            "GET /computeMetadata/v1/instance/id HTTP/1.1" => google("4520031799277581759"),
            "GET /computeMetadata/v1/instance/zone HTTP/1.1" => google("projects/123456/zones/europe-west1-b"),
            "GET /computeMetadata/v1/instance/machine-type HTTP/1.1" => google("projects/123456/machineTypes/n1-standard-1"),
            _ => refuse(404),
        }
    };
    check(
        Provider::Gcp,
        respond,
        expect![[r#"
            gcp europe-west1 europe-west1-b 4520031799277581759 n1-standard-1
            GET /computeMetadata/v1/instance/id HTTP/1.1
            GET /computeMetadata/v1/instance/zone HTTP/1.1
            GET /computeMetadata/v1/instance/machine-type HTTP/1.1
        "#]],
    )
    .await;
    let somebody_else = Service::start(|_, _| ok("x")).await;
    assert!(matches!(ask(somebody_else.address, Provider::Gcp).await, Err(AskError::NotUnderstood("who answers"))));
}

#[tokio::test]
async fn azure_is_asked_for_its_compute_part() {
    let respond: Respond = |line, headers| match line {
        "GET /metadata/instance/compute?api-version=2021-02-01&format=json HTTP/1.1" if headers.contains(&"metadata: true") => {
            ok(r#"{"azEnvironment":"AzurePublicCloud","location":"westeurope","name":"vm","osProfile":{"adminUsername":"a"},
                "vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6","vmSize":"Standard_D2s_v3","zone":"1"}"#)
        }
        _ => refuse(400),
    };
    check(
        Provider::Azure,
        respond,
        expect![[r#"
            azure westeurope 1 02aab8a4-74ef-476e-8182-f6d2ba4166a6 Standard_D2s_v3
            GET /metadata/instance/compute?api-version=2021-02-01&format=json HTTP/1.1
        "#]],
    )
    .await;
}

#[tokio::test]
async fn openstack_may_know_no_type() {
    let respond: Respond = |line, _| match line {
        "GET /openstack/latest/meta_data.json HTTP/1.1" => {
            ok(r#"{"uuid":"d8e02d56-2648-49a3-bf97-6be8f1204f38","availability_zone":"nova","admin_pass":"secret","keys":[]}"#)
        }
        _ => refuse(404),
    };
    check(
        Provider::Openstack,
        respond,
        expect![[r#"
            openstack  nova d8e02d56-2648-49a3-bf97-6be8f1204f38 
            GET /openstack/latest/meta_data.json HTTP/1.1
            GET /latest/meta-data/instance-type HTTP/1.1
        "#]],
    )
    .await;
}

#[tokio::test]
async fn digitalocean_hetzner_and_oracle_are_asked_word_by_word() {
    let respond: Respond = |line, headers| match line {
        "GET /metadata/v1/id HTTP/1.1" => ok("2756294"),
        "GET /metadata/v1/region HTTP/1.1" => ok("nyc3"),
        "GET /hetzner/v1/metadata/instance-id HTTP/1.1" => ok("42"),
        "GET /hetzner/v1/metadata/region HTTP/1.1" => ok("eu-central\n"),
        "GET /hetzner/v1/metadata/availability-zone HTTP/1.1" => ok("fsn1-dc14"),
        _ if !headers.contains(&"authorization: Bearer Oracle") => refuse(404),
        "GET /opc/v2/instance/id HTTP/1.1" => ok("ocid1.instance.oc1.phx.abc"),
        "GET /opc/v2/instance/canonicalRegionName HTTP/1.1" => ok("us-phoenix-1"),
        "GET /opc/v2/instance/availabilityDomain HTTP/1.1" => ok("EMIr:PHX-AD-1"),
        "GET /opc/v2/instance/shape HTTP/1.1" => ok("VM.Standard.E4.Flex"),
        _ => refuse(404),
    };
    let digital_ocean = expect![[r#"
        digitalocean nyc3  2756294 
        GET /metadata/v1/id HTTP/1.1
        GET /metadata/v1/region HTTP/1.1
    "#]];
    check(Provider::DigitalOcean, respond, digital_ocean).await;
    let hetzner = expect![[r#"
        hetzner eu-central fsn1-dc14 42 
        GET /hetzner/v1/metadata/instance-id HTTP/1.1
        GET /hetzner/v1/metadata/region HTTP/1.1
        GET /hetzner/v1/metadata/availability-zone HTTP/1.1
    "#]];
    check(Provider::Hetzner, respond, hetzner).await;
    let oracle = expect![[r#"
        oracle us-phoenix-1 EMIr:PHX-AD-1 ocid1.instance.oc1.phx.abc VM.Standard.E4.Flex
        GET /opc/v2/instance/id HTTP/1.1
        GET /opc/v2/instance/canonicalRegionName HTTP/1.1
        GET /opc/v2/instance/availabilityDomain HTTP/1.1
        GET /opc/v2/instance/shape HTTP/1.1
    "#]];
    check(Provider::Oracle, respond, oracle).await;
}

/// What goes wrong, by how the service behaves.
#[tokio::test]
async fn a_service_that_misbehaves_is_an_error_within_a_second() {
    let all: [(&str, Respond); 8] = [
        ("no answer in 1s", |_, _| Vec::new()),
        ("status 302", |_, _| b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("status 500", |_, _| refuse(500)),
        ("not HTTP", |_, _| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("an answer too large or broken off", |_, _| {
            let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n".to_vec();
            answer.resize(answer.len() + 10_000_000, b'a');
            answer
        }),
        ("not HTTP", |_, _| {
            let mut answer = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
            answer.resize(10_000_000, b'a');
            answer
        }),
        ("the answer is not understood", |_, _| ok("<html><body>Please log in</body></html>")),
        ("the answer is not understood", |_, _| ok("{\"uuid\": [[[")),
    ];
    for (expected, respond) in all {
        let service = Service::start(respond).await;
        let begun = std::time::Instant::now();
        let error = ask(service.address, Provider::Openstack).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(begun.elapsed() < Duration::from_secs(4), "{expected}: {:?}", begun.elapsed());
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(ask(nobody, Provider::Aws).await.unwrap_err().to_string(), "cannot be reached");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    static ASKED: Mutex<Option<SocketAddr>> = Mutex::new(None);
    let elsewhere = Service::start(|_, _| ok("{\"uuid\":\"elsewhere\"}")).await;
    *ASKED.lock().unwrap() = Some(elsewhere.address);
    let service = Service::start(|_, _| {
        let target = ASKED.lock().unwrap().unwrap();
        format!("HTTP/1.1 307 Elsewhere\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    assert!(matches!(ask(service.address, Provider::Openstack).await, Err(AskError::Status(307))));
    assert!(elsewhere.asked().is_empty());
}

fn config(address: SocketAddr, words: &[(&str, &str)]) -> (Config, tempfile::TempDir) {
    let firmware = tempfile::tempdir().unwrap();
    for (file, text) in words {
        std::fs::write(firmware.path().join(file), format!("{text}\n")).unwrap();
    }
    let config = Config { first_pause: Duration::from_millis(5), ..Config::new(Some(address), Some(firmware.path().to_owned())) };
    (config, firmware)
}

/// Runs until something is found, or for a while.
async fn found(config: Config, patience: Duration) -> Option<Cloud> {
    let (sender, mut receiver) = watch::channel(None);
    let stopping = CancellationToken::new();
    let _stop = stopping.clone().drop_guard();
    spawn(run(config, sender, stopping));
    let found = tokio::time::timeout(patience, receiver.wait_for(Option::is_some)).await;
    found.ok()?.ok()?.clone()
}

#[tokio::test]
async fn a_service_that_is_late_is_asked_again_and_one_that_stays_away_is_given_up() {
    let service = Service::start(|_, _| refuse(503)).await;
    let (config_of, _firmware) = config(service.address, &[("sys_vendor", "DigitalOcean")]);
    let cloud = found(config_of, Duration::from_secs(20)).await.unwrap();
    assert_eq!(cloud, Cloud { provider: "digitalocean".to_owned(), ..Cloud::default() });
    assert_eq!(service.asked().len(), 4);
}

#[tokio::test]
async fn a_bare_machine_makes_no_connection() {
    let service = Service::start(|_, _| ok("1")).await;
    for words in [&[][..], &[("sys_vendor", "Dell Inc."), ("product_name", "PowerEdge R640"), ("chassis_asset_tag", "123")]] {
        let (config, _firmware) = config(service.address, words);
        assert_eq!(found(config, Duration::from_millis(300)).await, None);
    }
    assert!(service.asked().is_empty());
}

#[test]
fn providers_are_known_by_the_firmware() {
    let provider = |words: &[(&str, &str)]| {
        let words: HashMap<String, String> = words.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        Provider::of(|file| words.get(file).cloned())
    };
    assert_eq!(provider(&[("sys_vendor", "Amazon EC2"), ("product_name", "m5.large")]), Some(Provider::Aws));
    assert_eq!(provider(&[("sys_vendor", "Xen"), ("bios_version", "4.11.amazon")]), Some(Provider::Aws));
    assert_eq!(provider(&[("sys_vendor", "Google"), ("product_name", "Google Compute Engine")]), Some(Provider::Gcp));
    assert_eq!(provider(&[("sys_vendor", "Google"), ("product_name", "Eve")]), None, "a notebook");
    let azure = ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77");
    assert_eq!(provider(&[("sys_vendor", "Microsoft Corporation"), azure]), Some(Provider::Azure));
    assert_eq!(provider(&[("sys_vendor", "Microsoft Corporation"), ("product_name", "Virtual Machine")]), None, "any Hyper-V");
    assert_eq!(provider(&[("sys_vendor", "OpenStack Foundation"), ("product_name", "OpenStack Nova")]), Some(Provider::Openstack));
    assert_eq!(provider(&[("sys_vendor", "QEMU"), ("chassis_asset_tag", "OracleCloud.com")]), Some(Provider::Oracle));
    assert_eq!(provider(&[("sys_vendor", "Hetzner"), ("product_name", "vServer")]), Some(Provider::Hetzner));
    assert_eq!(provider(&[("sys_vendor", "QEMU"), ("product_name", "Standard PC")]), None);
}

proptest! {
    #[test]
    fn arbitrary_answers_are_words_or_nothing(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for provider in [Provider::Aws, Provider::Gcp, Provider::Azure, Provider::Openstack, Provider::DigitalOcean, Provider::Hetzner, Provider::Oracle] {
            let mut cloud = Cloud::default();
            provider.questions().iter().for_each(|question| (question.take)(&body, &mut cloud));
            for word in [&cloud.region, &cloud.zone, &cloud.instance_id, &cloud.instance_type] {
                prop_assert!(word.len() <= 128 && !word.contains(['<', ' ', '\n']));
            }
        }
        providers::token(&body);
    }
}
