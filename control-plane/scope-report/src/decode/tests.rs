use std::io::Write as _;

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::encode::{to_json, to_msgpack};

const LIMITS: Limits = Limits { bytes: 1 << 20, memory: 1 << 20 };

fn read(body: &[u8], format: Format) -> Result<Report, DecodeError> {
    decode(body, format, Compression::None, LIMITS)
}

fn json(text: &str) -> Report {
    read(text.as_bytes(), Format::Json).unwrap()
}

/// A map of one entry whose key is a short text.
fn map(key: &str, value: &[u8]) -> Vec<u8> {
    [&[0x81, 0xa0 | u8::try_from(key.len()).unwrap()], key.as_bytes(), value].concat()
}

/// A text of the old kind, with a length of two bytes however short it is.
fn raw16(bytes: &[u8]) -> Vec<u8> {
    [&[0xda], u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

#[test]
fn times_and_texts_are_raw_strings_in_the_msgpack_of_probes() {
    let at = Time::from_rfc3339("2017-06-01T12:34:56.000000789Z").unwrap();
    let entry = [&[0x82][..], b"\xa9timestamp", &raw16(&at.to_go_binary()), b"\xa5value", &raw16(b"a\xff\xfeb")].concat();
    let node = [&[0x83][..], b"\xa2id\xa1x", b"\xa8topology\xa7process", b"\xa6latest", &map("cmdline", &entry)].concat();
    let report = read(&map("Process", &map("nodes", &map("x", &node))), Format::Msgpack).unwrap();
    let node = &report.table(Kind::Process).nodes["x"];
    assert_eq!(node.latest["cmdline"].at, at);
    // Command lines may be anything; what is no text is shown as such.
    assert_eq!(&*node.latest["cmdline"].value, "a\u{fffd}\u{fffd}b");
}

#[test]
fn new_kinds_of_strings_are_taken_as_well() {
    // `str8` and `bin8`, which probes never write.
    let node = [&[0x81][..], b"\xd9\x02id", b"\xc4\x01y"].concat();
    let report = read(&map("Host", &map("nodes", &map("y", &node))), Format::Msgpack).unwrap();
    assert_eq!(report.table(Kind::Host).nodes["y"].id.as_deref(), Some("y"));
}

#[test]
fn null_is_as_good_as_nothing_and_unknown_keys_are_skipped() {
    let report = json(
        r#"{"TS":null,"Host":null,"Plugins":null,"Sampling":null,"Window":null,"Shortcut":null,"ID":null,"DNS":null,"What":[{"a":1}],
        "Process":{"nodes":{"a;1":{"id":"a;1","topology":"process","latest":null,"sets":{"x":null},"adjacency":null,"metrics":{"m":null},
        "parents":null,"children":null,"edges":{"x":[]}},"b;1":null},"controls":null,"metadata_templates":{"t":null}}}"#,
    );
    let process = report.table(Kind::Process);
    assert_eq!((process.nodes.len(), process.nodes["b;1"].id.clone()), (2, None));
    assert!(report.at.is_zero() && !report.shortcut);
}

#[test]
fn fields_of_old_probes_become_facts() {
    let report = json(
        r#"{"Container":{"nodes":{"c":{"id":"c","topology":"container","counters":{"lives":9},"latestControls":{
        "stop":{"timestamp":"2017-01-01T00:00:00Z","value":{"dead":false}},
        "attach":{"timestamp":"2017-01-02T00:00:00Z","value":{"dead":false}},
        "start":{"timestamp":"2017-01-03T00:00:00Z","value":{"dead":true}}}}}},
        "nodes":{"1.2.3.4":{"forward":["a.example"]}}}"#,
    );
    let node = &report.table(Kind::Container).nodes["c"];
    assert_eq!(node.value("active_controls").map(|it| &**it), Some("attach;stop"));
    assert_eq!(node.latest["active_controls"].at, Time::from_rfc3339("2017-01-02T00:00:00Z").unwrap());
    assert_eq!(node.value("count_lives").map(|it| &**it), Some("9"));
    assert!(report.dns["1.2.3.4"].forward.contains("a.example"));
}

#[test]
fn numbers_may_be_whole() {
    let report =
        json(r#"{"Host":{"nodes":{"h":{"metrics":{"m":{"samples":[{"date":"2017-01-01T00:00:00Z","value":3}],"min":0,"max":100}}}}}}"#);
    assert_eq!(report.table(Kind::Host).nodes["h"].metrics["m"].samples[0].value, 3.0);
}

#[test]
fn texts_and_numbers_may_be_written_as_each_other() {
    let report = json(
        r#"{"Plugins":{},"Host":{"nodes":{"h":{"latest":{"a":{"value":5},"b":{"value":true},"c":{"value":-1.5},"d":{"value":2.0}},
        "sets":{"s":[1,"2",false]},"metrics":{"m":{"samples":[{"date":"2017-01-01T00:00:00Z","value":"1.5"}],"min":"0","max":"1e2"}}}},
        "controls":{"c":{"rank":"7"},"d":{"rank":8.0}},"metadata_templates":{"t":{"priority":"3","truncate":"12"}}}}"#,
    );
    let table = report.table(Kind::Host);
    let node = &table.nodes["h"];
    let facts: Vec<&str> = node.latest.values().map(|latest| &*latest.value).collect();
    assert_eq!(facts, ["5", "true", "-1.5", "2.0"]);
    assert_eq!(node.sets["s"].iter().map(|it| &**it).collect::<Vec<_>>(), ["1", "2", "false"]);
    let metric = &node.metrics["m"];
    assert_eq!((metric.samples[0].value, metric.min, metric.max), (1.5, 0.0, 100.0));
    assert_eq!((table.controls["c"].rank, table.controls["d"].rank), (7, 8));
    assert_eq!((table.metadata_templates["t"].priority, table.metadata_templates["t"].truncate), (3.0, 12));
    assert!(report.plugins.is_empty());
    for wrong in [r#"{"Host":{"controls":{"c":{"rank":"high"}}}}"#, r#"{"Host":{"controls":{"c":{"rank":1.5}}}}"#] {
        assert!(matches!(read(wrong.as_bytes(), Format::Json), Err(DecodeError::Malformed(_))), "{wrong}");
    }
}

#[test]
fn null_is_an_empty_report_and_letters_that_are_none_are_replaced_in_json_too() {
    assert_eq!(json("null"), Report::default());
    let report = read(b"{\"Host\":{\"nodes\":{\"h\":{\"latest\":{\"os\":{\"value\":\"a\xff\"}}}}}}", Format::Json).unwrap();
    assert_eq!(&*report.table(Kind::Host).nodes["h"].latest["os"].value, "a\u{fffd}");
}

#[test]
fn what_a_node_has_none_of_is_written_as_scope_writes_it() {
    let mut report = Report::default();
    report.table_mut(Kind::Endpoint).nodes.insert("e".into(), Arc::new(Node { id: Some("e".into()), ..Node::default() }));
    let text = String::from_utf8(to_json(&report)).unwrap();
    assert!(text.contains(r#""e":{"id":"e","sets":null,"parents":null,"children":null}"#), "{text}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_unpacks_to_too_much_is_refused_before_it_is_there() {
    let bomb = gzip(&vec![b' '; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    let error = decode(&bomb, Format::Json, Compression::Gzip, LIMITS).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge(_)) && error.is_limit());
    // One stream after the other is one body.
    let two = [gzip(b"{\"ID\":"), gzip(b"\"x\"}")].concat();
    assert_eq!(decode(&two, Format::Json, Compression::Gzip, LIMITS).unwrap().id.as_deref(), Some("x"));
    assert!(matches!(decode(b"{}", Format::Json, Compression::Gzip, LIMITS), Err(DecodeError::Gzip(_))));
}

#[test]
fn depth_lengths_and_memory_are_limited() {
    let deep = [map("x", &[]), vec![0x91; 100_000]].concat();
    assert!(matches!(read(&deep, Format::Msgpack), Err(DecodeError::Malformed(_))));
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(matches!(read(deep.as_bytes(), Format::Json), Err(DecodeError::Malformed(_))));
    // Children in children: as deep as a report can be by its own form.
    let nested = format!("{{\"Host\":{{\"nodes\":{{\"h\":{}", "{\"children\":[".repeat(10_000));
    assert!(matches!(read(nested.as_bytes(), Format::Json), Err(DecodeError::Malformed(_))));
    for lie in [
        &[0xdf, 0xff, 0xff, 0xff, 0xff][..],
        &map("Host", &[0xdf, 0xff, 0xff, 0xff, 0xff]),
        &map("Plugins", &[0xdd, 0xff, 0xff, 0xff, 0xff]),
        &map("ID", &[0xdb, 0xff, 0xff, 0xff, 0xff]),
    ] {
        assert!(matches!(read(lie, Format::Msgpack), Err(DecodeError::Malformed(_))));
    }
    let many: Vec<String> = (0..20_000).map(|it| format!("\"{it}\"")).collect();
    let many = format!("{{\"Host\":{{\"nodes\":{{\"h\":{{\"adjacency\":[{}]}}}}}}}}", many.join(","));
    let error = read(many.as_bytes(), Format::Json).unwrap_err();
    assert!(matches!(error, DecodeError::TooHeavy(0x10_0000)) && error.is_limit(), "{error}");
    // The next one is counted anew.
    json("{}");
}

/// A list of as many items of one byte, as MessagePack has it.
fn list(count: u16, item: u8) -> Vec<u8> {
    [&[0xdc], count.to_be_bytes().as_slice(), &vec![item; usize::from(count)]].concat()
}

#[test]
fn what_is_written_in_a_byte_and_takes_many_is_weighed() {
    const NIL: u8 = 0xc0;
    let node = |key: &str, value: &[u8]| map("Host", &map("nodes", &map("h", &map(key, value))));
    let samples = node("metrics", &map("m", &map("samples", &list(60_000, NIL))));
    let children = node("children", &list(6_000, NIL));
    let plugins = map("Plugins", &list(6_000, NIL));
    // Of a map, the first entry takes as much as eleven.
    let small: Vec<u8> =
        (0..3_000_u32).flat_map(|at| [&[0xa4][..], format!("{at:04}").as_bytes(), b"\x81\xa6latest\x81\xa1k\xc0"].concat()).collect();
    let maps = map("Host", &map("nodes", &[&[0xde], 3_000_u16.to_be_bytes().as_slice(), &small].concat()));
    for body in [samples, children, plugins, maps] {
        assert!(matches!(read(&body, Format::Msgpack), Err(DecodeError::TooHeavy(_))));
        let ample = Limits { memory: 16 << 20, ..LIMITS };
        let weighed = decode_weighed(&body, Format::Msgpack, Compression::None, ample).unwrap();
        assert!(weighed.weight > 1 << 20 && weighed.weight < 6 << 20, "{}", weighed.weight);
    }
}

#[test]
fn a_report_that_makes_sense_weighs_a_few_times_its_length() {
    let latest: Vec<String> =
        (0..30).map(|at| format!(r#""docker_label_key_{at}":{{"timestamp":"2017-01-01T00:00:00Z","value":"some text {at}"}}"#)).collect();
    let nodes: Vec<String> =
        (0..100).map(|at| format!(r#""c{at}":{{"id":"c{at}","topology":"container","latest":{{{}}}}}"#, latest.join(","))).collect();
    let text = format!(r#"{{"Container":{{"nodes":{{{}}}}}}}"#, nodes.join(","));
    let ample = Limits { memory: 16 << 20, ..LIMITS };
    let weighed = decode_weighed(text.as_bytes(), Format::Json, Compression::None, ample).unwrap();
    assert!(weighed.weight > text.len() && weighed.weight < 4 * text.len(), "{} of {}", weighed.weight, text.len());
}

/// Any report, small.
pub(crate) fn any_report() -> impl Strategy<Value = Report> {
    let text = || prop_oneof!["[a-c]{1,2}", "web-1;<host>", "web-1;[1-3]", ";10\\.0\\.0\\.[1-3];80", any::<String>()].prop_map(Text::from);
    let time = || (0_i64..4_000_000_000, 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| Time::new(seconds, nanos));
    let set = move || proptest::collection::btree_set(text(), 1..3);
    let latest = move || (time(), text()).prop_map(|(at, value)| Latest { at, value });
    // Quarters, which every way of reading decimals gets right.
    let value = || (-4_000_000..4_000_000_i32).prop_map(|quarters| f64::from(quarters) / 4.0);
    let metric = move || {
        (proptest::collection::vec((time(), value()), 0..3), value(), value()).prop_map(|(mut samples, min, max)| {
            samples.sort_by_key(|sample| sample.0);
            samples.dedup_by_key(|sample| sample.0);
            Metric { samples: samples.into_iter().map(|(at, value)| Sample { at, value }).collect(), min, max }
        })
    };
    let key =
        || prop_oneof!["pid", "name", "host_node_id", "docker_container_id", "docker_image_id", "copy_of", "conn_count", "kubernetes_ip"];
    let node = move |kind: Kind| {
        (
            proptest::option::weighted(0.9, Just(Text::from(kind.name()))),
            proptest::collection::btree_map(key().prop_map(Text::from), latest(), 0..5),
            proptest::collection::btree_map(text(), set(), 0..2),
            proptest::collection::btree_set(text(), 0..3),
            proptest::collection::btree_map(text(), metric(), 0..2),
            proptest::collection::btree_map(prop_oneof!["host", "container", "pod"].prop_map(Text::from), set(), 0..2),
        )
            .prop_map(|(topology, latest, sets, adjacency, metrics, parents)| Node {
                id: None,
                topology,
                latest,
                sets,
                adjacency,
                metrics,
                parents,
                children: BTreeMap::new(),
            })
    };
    let table = move |kind: Kind| proptest::collection::btree_map(text(), node(kind).prop_map(Arc::new), 0..4);
    let kinds = [Kind::Endpoint, Kind::Process, Kind::Container, Kind::ContainerImage, Kind::Pod, Kind::Service, Kind::Host, Kind::Overlay];
    let tables = kinds.map(|kind| table(kind).prop_map(move |nodes| (kind, nodes)).boxed()).to_vec();
    (tables, any::<bool>(), time(), proptest::collection::btree_map(text(), (set(), set()), 0..2)).prop_map(
        |(tables, shortcut, at, dns)| {
            let mut report = Report { shortcut, at, ..Report::default() };
            for (kind, nodes) in tables {
                report.table_mut(kind).nodes = nodes;
            }
            report.dns = dns.into_iter().map(|(address, (forward, reverse))| (address, Dns { forward, reverse })).collect();
            report
        },
    )
}

/// What is written says what a table's nodes are called, even when nobody said so before.
fn with_names(mut report: Report) -> Report {
    for kind in Kind::ALL {
        let (one, many) = kind.labels();
        let table = report.table_mut(kind);
        let some = |text: &str| Some(Text::from(text)).filter(|text| !text.is_empty());
        table.shape = some(kind.shape());
        table.tag = some(kind.tag());
        (table.label, table.label_plural) = (some(one), some(many));
    }
    report
}

proptest! {
    #[test]
    fn every_report_comes_back_in_both_formats(report in any_report()) {
        let report = with_names(report);
        prop_assert_eq!(&read(&to_msgpack(&report), Format::Msgpack).unwrap(), &report);
        prop_assert_eq!(&read(&to_json(&report), Format::Json).unwrap(), &report);
    }

    #[test]
    fn any_bytes_are_a_report_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (format, compression) in [
            (Format::Msgpack, Compression::None), (Format::Msgpack, Compression::Gzip),
            (Format::Json, Compression::None), (Format::Json, Compression::Gzip),
        ] {
            let _ = decode(&bytes, format, compression, LIMITS);
        }
    }

    #[test]
    fn a_report_with_wrong_bytes_in_it_is_another_one_or_an_error(report in any_report(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = to_msgpack(&report);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes, Format::Msgpack);
        let _ = read(&bytes[..at], Format::Msgpack);
    }
}
