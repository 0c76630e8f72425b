use std::net::IpAddr;

use proptest::prelude::*;
use prost::Message as _;

use super::fields::shown;
use super::flows::flow_key;
use super::*;

const NOW: Timestamp = Timestamp::from_unix_millis(1_000_000_000);

fn delta() -> wire::Report {
    wire::Report { sequence: 1, kind: wire::report::Kind::Delta.into(), ..wire::Report::default() }
}

fn key() -> wire::FlowKey {
    wire::FlowKey {
        direction: wire::flow_key::Direction::Client.into(),
        protocol: wire::flow_key::Protocol::Tcp.into(),
        origin: wire::flow_key::Origin::Event.into(),
        client_address: vec![10, 0, 0, 1],
        server_address: vec![10, 0, 0, 2],
        server_port: 80,
        ..wire::FlowKey::default()
    }
}

#[test]
fn moments_a_little_ahead_are_believed_and_those_far_ahead_are_now() {
    let mut converter = Converter::new(NOW);
    let ahead = |seconds| (NOW + Duration::from_secs(seconds)).unix_nanos();
    assert_eq!(converter.time(ahead(299)), NOW + Duration::from_secs(299));
    assert_eq!(converter.repairs.times_clamped, 0);
    assert_eq!(converter.time(ahead(301)), NOW);
    assert_eq!(converter.time(u64::MAX), NOW);
    assert_eq!(converter.optional_time(0), None);
    assert_eq!(converter.repairs.times_clamped, 2);
}

#[test]
fn texts_are_cut_between_characters() {
    let mut converter = Converter::new(NOW);
    assert_eq!(&*converter.text("äöü".to_owned(), 3), "ä");
    assert_eq!(&*converter.text("abc".to_owned(), 3), "abc");
    assert_eq!(converter.repairs.texts_cut, 1);
}

#[test]
fn a_translated_flow_needs_a_whole_address_and_a_port() {
    let translated = wire::FlowKey { original_server_address: vec![1, 2, 3, 4], original_server_port: 443, ..key() };
    assert_eq!(flow_key(&translated).unwrap().original_server, Some(("1.2.3.4".parse().unwrap(), 443)));
    assert!(flow_key(&wire::FlowKey { original_server_port: 65_536, ..translated.clone() }).is_err());
    assert!(flow_key(&wire::FlowKey { original_server_address: vec![1], ..translated }).is_err());
    assert_eq!(flow_key(&key()).unwrap().original_server, None);
}

#[test]
fn numbers_that_are_none_are_refused() {
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let metrics = wire::HostMetrics { load1: value, ..wire::HostMetrics::default() };
        let fault = report(wire::Report { host_metrics: vec![metrics], ..delta() }, "h", NOW).unwrap_err();
        assert_eq!(fault, Fault::Malformed(format!("host_metrics[0].load1 is {value}")));
    }
    let metrics = wire::HostMetrics { cpu_percent: 100.4, ..wire::HostMetrics::default() };
    let converted = report(wire::Report { host_metrics: vec![metrics], ..delta() }, "h", NOW).unwrap();
    assert!((converted.report.host_metrics[0].cpu_percent - 100.0).abs() < f64::EPSILON);
}

#[test]
fn a_published_port_has_an_address_and_an_exposed_one_has_none() {
    let mut converter = Converter::new(NOW);
    let exposed = wire::PortMapping { container_port: 80, protocol: "tcp".to_owned(), ..wire::PortMapping::default() };
    assert_eq!(converter.port_mapping(exposed.clone()).unwrap().host, None);
    let published = wire::PortMapping { host_address: "::ffff:0.0.0.0".to_owned(), host_port: 8080, ..exposed.clone() };
    assert_eq!(converter.port_mapping(published).unwrap().host, Some(("0.0.0.0".parse().unwrap(), 8080)));
    assert!(converter.port_mapping(wire::PortMapping { host_address: "nowhere".to_owned(), ..exposed }).is_err());
}

#[test]
fn a_peers_text_in_a_message_is_short_and_harmless() {
    assert_eq!(shown("\n\u{1b}[31m"), r#""\n\u{1b}[31m""#);
    assert!(shown(&"x".repeat(1_000)).len() < 50);
}

#[test]
fn the_collector_of_a_cluster_may_name_load_balancers() {
    let object = wire::KubernetesObject {
        kind: wire::kubernetes_object::Kind::Service.into(),
        uid: "u".to_owned(),
        public_addresses: vec!["lb.example.com".to_owned(), "192.0.2.1".to_owned()],
        ..wire::KubernetesObject::default()
    };
    let converted = report(wire::Report { kubernetes: vec![object], ..delta() }, "h", NOW).unwrap();
    assert_eq!(converted.report.kubernetes[0].public_addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(converted.repairs.names_left_out, 1);
}

proptest! {
    #[test]
    fn whatever_decodes_is_converted_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(decoded) = wire::Report::decode(&bytes[..]) {
            let _ = report(decoded, "h", NOW);
        }
        if let Ok(decoded) = wire::Hello::decode(&bytes[..]) {
            let _ = hello(decoded);
        }
    }
}
