//! Messages of DNS: no bytes make the parser panic, and what it accepts is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::dns::message::{ADDRESSES_MAX, Message, NAME_MAX, parse};

fuzz_target!(|bytes: &[u8]| {
    for whole in [true, false] {
        if let Ok(Message::Answer(answer)) = parse(bytes, whole) {
            assert!(!answer.name.is_empty() && answer.name.len() <= NAME_MAX);
            assert!(answer.name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
            assert!(!answer.addresses.is_empty() && answer.addresses.len() <= ADDRESSES_MAX);
        }
    }
});
