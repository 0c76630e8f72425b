use std::io::Read as _;

use proptest::prelude::*;

use super::*;

fn write(sink: &mut Sink, is_first: &mut bool, items: &[&Arc<String>]) {
    for item in items {
        if !std::mem::take(is_first) {
            sink.bytes().push(b',');
        }
        sink.bytes().extend_from_slice(item.as_bytes());
    }
}

fn document(lists: &[Vec<Arc<String>>], runs: Runs) -> (Pieces, Runs) {
    let mut sink = Sink::with(runs);
    for list in lists {
        sink.bytes().push(b'[');
        sink.items(&mut true, list.iter(), write);
        sink.bytes().push(b']');
    }
    sink.finish()
}

fn expected(lists: &[Vec<Arc<String>>]) -> String {
    let list = |it: &Vec<Arc<String>>| format!("[{}]", it.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(","));
    lists.iter().map(list).collect()
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // One member: the decoder of several would take a second one for granted.
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    decoder.read_to_end(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty());
    text
}

/// One change to the lists.
#[derive(Clone, Debug)]
enum Change {
    Add(usize, String),
    Remove(usize),
    Replace(usize, String),
}

fn change() -> impl Strategy<Value = Change> {
    let text = "[a-z]{0,40}";
    prop_oneof![
        (any::<usize>(), text).prop_map(|(at, text)| Change::Add(at, text)),
        any::<usize>().prop_map(Change::Remove),
        (any::<usize>(), text).prop_map(|(at, text)| Change::Replace(at, text)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever changes between two looks, the document is what it would be without anything kept, plain and compressed.
    #[test]
    fn what_is_kept_is_never_stale(rounds in prop::collection::vec(prop::collection::vec(change(), 0..20), 1..12)) {
        let mut lists: Vec<Vec<Arc<String>>> =
            [0_usize, 1, 3, 700].map(|many| (0..many).map(|it| Arc::new(format!("{{\"item\":{it}}}"))).collect()).into();
        let mut runs = Runs::default();
        for round in rounds {
            for change in round {
                let list = match &change { Change::Add(at, _) | Change::Remove(at) | Change::Replace(at, _) => at % lists.len() };
                let list = &mut lists[list];
                match change {
                    Change::Add(at, text) => { let at = at % (list.len() + 1); list.insert(at, Arc::new(text)); }
                    Change::Remove(at) if !list.is_empty() => { let at = at % list.len(); list.remove(at); }
                    Change::Replace(at, text) if !list.is_empty() => { let at = at % list.len(); list[at] = Arc::new(text); }
                    Change::Remove(_) | Change::Replace(..) => {}
                }
            }
            let (pieces, next) = document(&lists, runs);
            runs = next;
            let expected = expected(&lists);
            prop_assert_eq!(pieces.len(), expected.len());
            prop_assert_eq!(&String::from_utf8(pieces.to_vec()).unwrap(), &expected);
            prop_assert_eq!(&String::from_utf8(unzipped(&pieces.gzip())).unwrap(), &expected);
        }
    }
}

#[test]
fn a_change_costs_the_runs_around_it() {
    let mut list: Vec<Arc<String>> = (0..10_000).map(|it| Arc::new(format!("{{\"item\":{it}}}"))).collect();
    let (before, runs) = document(&[list.clone()], Runs::default());
    let count = runs.runs.len();
    assert!((100..1_000).contains(&count), "{count} runs");
    list.remove(5_000);
    list.insert(2_500, Arc::new("{}".to_owned()));
    list[7_500] = Arc::new("{}".to_owned());
    let (after, runs) = document(&[list], runs);
    let known: std::collections::HashSet<*const Piece> = before.0.iter().map(Arc::as_ptr).collect();
    // What is between the runs is written each time: the brackets.
    let written = after.0.iter().filter(|it| !known.contains(&Arc::as_ptr(it))).count();
    assert!(written <= 2 + 3 * 3, "{written} pieces of {} were written again", after.0.len());
    assert!(runs.runs.len().abs_diff(count) < 8, "what is gone is not kept");
}

#[test]
fn what_does_not_compress_is_whole() {
    let mut seed = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_le_bytes()[7]
    })
    .take(300_000)
    .collect();
    for bytes in [noise, vec![], b"a".to_vec()] {
        assert_eq!(unzipped(&Pieces::from(bytes.clone()).gzip()), bytes);
    }
}
