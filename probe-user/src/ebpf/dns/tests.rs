use proptest::prelude::*;

use super::*;

fn record(copied: u16, message_length: u16, leaving: u16) -> Vec<u8> {
    let mut server = [0; 16];
    server[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 53]);
    let mut bytes = Vec::new();
    bytes.extend(7_u64.to_ne_bytes());
    bytes.extend(kind::DNS_MESSAGE.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(40_u64.to_ne_bytes());
    bytes.extend(server);
    server[15] = 7;
    bytes.extend(server);
    for number in [5_353, message_length, copied, leaving] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend([9; DnsRecord::SHORT]);
    bytes
}

#[test]
fn a_record_is_a_datagram_with_the_bytes_that_were_copied() {
    let bytes = record(20, 20, 1);
    let datagram = datagram(&bytes).unwrap();
    assert_eq!((datagram.at, datagram.hook, datagram.cgroup_id), (BootNanos(7), Hook::Egress, 40));
    assert_eq!((datagram.server, datagram.client), (IpAddr::from([192, 0, 2, 53]), IpAddr::from([192, 0, 2, 7])));
    assert_eq!((datagram.message, datagram.whole), (&[9; 20][..], true));
}

#[test]
fn a_record_that_lies_is_nothing() {
    assert!(datagram(&record(20, 2_000, 0)).is_some_and(|datagram| !datagram.whole && datagram.hook == Hook::Ingress));
    assert!(datagram(&record(513, 513, 0)).is_none(), "more than there is");
    assert!(datagram(&record(20, 20, 0)[..80]).is_none(), "cut");
    let mut other = record(20, 20, 0);
    other[8] ^= 1;
    assert!(datagram(&other).is_none(), "another kind");
}

proptest! {
    #[test]
    fn arbitrary_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700), known: bool) {
        let mut bytes = bytes;
        if known && bytes.len() >= 12 {
            bytes[8..12].copy_from_slice(&kind::DNS_MESSAGE.to_ne_bytes());
        }
        let _ = datagram(&bytes);
    }
}
