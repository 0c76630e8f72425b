use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;
use topology::{NodeId, NodeSummary, PublishedNode, Shape};

use super::*;

/// A picture of nodes with such labels.
fn picture(labels: impl IntoIterator<Item = String>) -> Arc<ViewSnapshot> {
    let mut picture = ViewSnapshot::default();
    for (n, label) in labels.into_iter().enumerate() {
        let id = NodeId::from(format!("node-{n:06}").as_str());
        let summary = NodeSummary { label: label.into(), ..NodeSummary::blank(id.clone(), Shape::Square) };
        picture.nodes.insert(id, PublishedNode::new(summary));
    }
    Arc::new(picture)
}

fn text(picture: &Arc<ViewSnapshot>) -> Vec<u8> {
    let mut pieces = Pieces::of_reset(picture.clone());
    std::iter::from_fn(|| pieces.next_piece(PIECE)).flatten().collect()
}

/// As a client does it (RFC 7692, 7.2.2).
fn unpacked(message: &Packed) -> Vec<u8> {
    let mut inflate = Decompress::new(false);
    let mut out = Vec::new();
    let mut bytes: Vec<u8> = message.frames.iter().flatten().copied().collect();
    bytes.extend(TAIL);
    while usize::try_from(inflate.total_in()).unwrap() < bytes.len() {
        out.reserve(1 << 16);
        let read = usize::try_from(inflate.total_in()).unwrap();
        inflate.decompress_vec(&bytes[read..], &mut out, FlushDecompress::Sync).unwrap();
    }
    loop {
        out.reserve(1 << 16);
        let had = out.len();
        let _ = inflate.decompress_vec(&[], &mut out, FlushDecompress::Sync);
        if out.len() == had {
            return out;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_client_reads_what_was_written(count in 0_usize..2_000, seed in any::<u64>()) {
        // Labels that hardly compress, so that there are many frames.
        let labels = (0..count as u64).map(|n| format!("{:x}", seed.wrapping_mul(n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let picture = picture(labels);
        let message = Packed::of(Pieces::of_reset(picture.clone()));
        prop_assert!(message.frames.iter().all(|frame| frame.len() <= FRAME + TAIL.len()));
        prop_assert!(message.len() > 0);
        prop_assert!(unpacked(&message) == text(&picture));
    }
}

#[tokio::test]
async fn those_who_come_for_the_same_share_it() {
    let cache = PackedCache::default();
    let (old, new) = (picture(["a".to_owned()]), picture(["b".to_owned()]));
    let made = Arc::new(AtomicUsize::new(0));
    let ask = |from: Option<&Arc<ViewSnapshot>>, to: &Arc<ViewSnapshot>| {
        let (made, shown) = (made.clone(), to.clone());
        let text = move || {
            made.fetch_add(1, Ordering::Relaxed);
            Pieces::of_reset(shown)
        };
        let (from, to, cache) = (from.cloned(), to.clone(), &cache);
        async move { cache.message(from.as_ref(), &to, text).await.unwrap() }
    };
    let (first, second) = futures::join!(ask(None, &old), ask(None, &old));
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(made.load(Ordering::Relaxed), 1);
    let third = ask(Some(&old), &new).await;
    assert_eq!(made.load(Ordering::Relaxed), 2);
    assert_eq!(unpacked(&third), text(&new));
    assert!(Arc::ptr_eq(&third, &ask(Some(&old), &new).await));
}

#[tokio::test]
async fn nothing_is_kept_for_a_picture_that_is_gone() {
    let cache = PackedCache::default();
    for n in 0..3 {
        let picture = picture([n.to_string()]);
        let text = picture.clone();
        cache.message(None, &picture, move || Pieces::of_reset(text)).await.unwrap();
    }
    assert_eq!(cache.entries.lock().unwrap().len(), 1, "the last is let go of by the next");
}

#[test]
fn offers_of_browsers_and_libraries_are_taken() {
    let answer = |offers: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        }
        negotiate(&headers).is_some()
    };
    assert!(answer(&["permessage-deflate; client_max_window_bits"]), "Chromium, Python's websockets");
    assert!(answer(&["permessage-deflate"]), "Firefox");
    assert!(answer(&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"]), "gorilla");
    assert!(answer(&["x-webkit-deflate-frame", "permessage-deflate;client_max_window_bits=\"10\""]));
    assert!(answer(&["permessage-deflate; server_max_window_bits=10, permessage-deflate"]), "the second offer");
    assert!(!answer(&[]));
    assert!(!answer(&["permessage-bzip2"]));
    assert!(!answer(&["permessage-deflate; server_max_window_bits=10"]), "the window is 15 bits here");
    assert!(!answer(&["permessage-deflate; client_max_window_bits=99"]));
    assert!(!answer(&["permessage-deflate; server_no_context_takeover=1"]));
    assert!(!answer(&["permessage-deflate; what_is_this"]));
}
