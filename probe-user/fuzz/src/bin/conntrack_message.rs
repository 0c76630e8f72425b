//! Messages of connection tracking: no bytes make the parser panic, or go on for longer than there are bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::conntrack::message;

fuzz_target!(|bytes: &[u8]| {
    assert!(message::parse(bytes).count() <= bytes.len());
});
