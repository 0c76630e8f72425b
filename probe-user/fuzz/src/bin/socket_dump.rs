//! Dumps of sockets by netlink (`inet_diag`, `unix_diag`) and events of the process connector: no bytes make the parsers panic, or find more than
//! there is room for in the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::fallback::connector;
use orchestrator_probe::observation::Protocol;
use orchestrator_probe::{sockets, unix};

fuzz_target!(|bytes: &[u8]| {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert!(sockets::sockets_in(bytes, protocol).is_ok_and(|it| it.len() <= bytes.len() / 16) || sockets::sockets_in(bytes, protocol).is_err());
    }
    let mut found = 0;
    let _ = unix::message::parse(bytes, |socket| {
        found += 1;
        assert!(socket.name.len() <= bytes.len());
    });
    assert!(found <= bytes.len() / 16);
    let _ = connector::event(bytes);
});
