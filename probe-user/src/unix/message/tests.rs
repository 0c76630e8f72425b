use proptest::prelude::*;

use super::*;

/// Recorded on Linux 6.18, in an empty network namespace: a listener at `./a.sock`, a connection to it, another that nobody has accepted, a datagram socket with an
/// abstract name that is no text, another that sends to it, and a socket of packets with a long name.
const DUMP: &str = concat!(
    "440000001400020000000000ee37000001010a001c1a31006fae0100000000000d0000002e2f612e736f636b000000000c0001001ae098000000e00f",
    "0500060000000000a40000001400020000000000ee37000001050700211a310070ae0100000000007000000078787878787878787878787878787878",
    "787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878",
    "78787878787878787878787878787878787878787878787878787878787878000c0001001de098000000e00f05000600000000003000000014000200",
    "00000000ee37000001020100221a310071ae01000000000008000200201a31000500060000000000300000001400020000000000ee37000001010100",
    "1d1a310072ae010000000000080002001e1a310005000600000000004c0000001400020000000000ee370000010101001e1a310073ae010000000000",
    "0d0000002e2f612e736f636b000000000c0001001ae098000000e00f080002001d1a31000500060000000000300000001400020000000000ee370000",
    "010101001f1a310074ae010000000000080002000000000005000600000000003c0000001400020000000000ee37000001020100201a310075ae0100",
    "0000000013000000006f7263686573747261746f72ff0a000500060000000000",
);

const DONE: &str = "140000000300020000000000ee37000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn parsed(bytes: &[u8]) -> io::Result<(Progress, Vec<UnixSocket>)> {
    let mut sockets = Vec::new();
    let progress = parse(bytes, |it| sockets.push(it))?;
    Ok((progress, sockets))
}

/// One socket with these attributes.
fn message(attributes: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(HEADER_LEN + MESSAGE_LEN + attributes.len()).unwrap().to_ne_bytes().to_vec();
    message.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&[0; 10]);
    message.extend_from_slice(&[1, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

#[test]
fn a_dump_of_the_kernel_is_understood() {
    let (progress, sockets) = parsed(&bytes(DUMP)).unwrap();
    assert_eq!(progress, Progress::More);
    let socket = |kind, inode, peer, name: &[u8], file| UnixSocket { kind, listens: false, inode, peer, name: name.into(), file };
    let file = Some((10_018_842, 0x0fe0_0000));
    let expected = [
        UnixSocket { listens: true, ..socket(Kind::Stream, 3_217_948, 0, b"./a.sock", file) },
        socket(Kind::Packets, 3_217_953, 0, &[b'x'; 107], Some((10_018_845, 0x0fe0_0000))),
        socket(Kind::Datagram, 3_217_954, 3_217_952, b"", None),
        socket(Kind::Stream, 3_217_949, 3_217_950, b"", None),
        socket(Kind::Stream, 3_217_950, 3_217_949, b"./a.sock", file),
        socket(Kind::Stream, 3_217_951, 0, b"", None),
        socket(Kind::Datagram, 3_217_952, 0, b"\0orchestrator\xff\n", None),
    ];
    assert_eq!(sockets, expected);
    assert_eq!(parsed(&bytes(DONE)).unwrap(), (Progress::Done, Vec::new()));
    assert_eq!(parsed(&bytes(&format!("{DUMP}{DONE}"))).unwrap(), (Progress::Done, sockets));
}

#[test]
fn a_refusal_is_told_as_the_error_that_it_is() {
    let mut refusal = bytes("2400000002000000010000000000000000000000280000001400010301000000000000");
    refusal[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
    refusal.resize(36, 0);
    assert_eq!(parsed(&refusal).unwrap_err().kind(), io::ErrorKind::NotFound);
    // A code that cannot be turned round.
    refusal[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
    assert!(parsed(&refusal).is_err());
}

#[test]
fn lengths_that_lie_are_refused() {
    let whole = bytes(DUMP);
    for length in [0_u32, 1, 15, 0x45, 0xffff_ffff] {
        let mut bytes = whole[..0x44].to_vec();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(parsed(&bytes).unwrap_err().kind(), io::ErrorKind::InvalidData, "{length}");
    }
    // A peer of two bytes, a file of four, a name of 109, an attribute beyond the end.
    let mut long = vec![113, 0, 0, 0];
    long.extend_from_slice(&[b'n'; 109]);
    for attributes in [&[6, 0, 2, 0, 9, 9, 0, 0][..], &[8, 0, 1, 0, 9, 9, 9, 9], &long, &[12, 0, 2, 0, 9, 9, 9, 9]] {
        assert_eq!(parsed(&message(attributes)).unwrap_err().kind(), io::ErrorKind::InvalidData, "{attributes:?}");
    }
    assert!(parsed(&message(&[8, 0, 2, 0, 9, 0, 0, 0])).unwrap().1[0].peer == 9);
    // A path that fills its room has no zero.
    long[0] = 112;
    assert_eq!(parsed(&message(&long[..112])).unwrap().1[0].name.len(), NAME_MAX);
    // What later kernels may add says nothing; a kind that there is not yet is no socket of ours.
    assert_eq!(parsed(&message(&[8, 0, 99, 0, 9, 0, 0, 0])).unwrap().1[0].peer, 0);
    let mut other_kind = message(&[]);
    other_kind[HEADER_LEN + 1] = 3;
    assert_eq!(parsed(&other_kind).unwrap().1, []);
}

#[test]
fn the_request_has_the_layout_of_the_kernels_headers() {
    let expected = "28000000140001030000000000000000010000 00ffffffff0000000007000000ffffffffffffffff".replace(' ', "");
    assert_eq!(request(), bytes(&expected));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(parsed(&bytes));
    }

    #[test]
    fn arbitrary_attributes_never_panic(attributes in proptest::collection::vec(any::<u8>(), 0..256)) {
        drop(parsed(&message(&attributes)));
    }

    #[test]
    fn a_dump_with_wrong_bytes_never_panics(at in 0_usize..512, byte in any::<u8>(), end in 0_usize..512) {
        let mut bytes = bytes(DUMP);
        bytes[at] = byte;
        drop(parsed(&bytes[..end]));
        drop(parsed(&bytes));
    }
}
