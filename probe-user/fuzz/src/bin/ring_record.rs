//! Records of the kernel programs' rings: no bytes make the decoder panic, and one record tells no more than a few things.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::ebpf;

fuzz_target!(|bytes: &[u8]| {
    assert!(ebpf::observations_of(bytes).len() <= 2);
    // The kinds are small numbers behind the time: with any of them the rest of the bytes is a record.
    if let Some((kind, rest)) = bytes.split_first() {
        let mut record = rest.to_vec();
        if let Some(place) = record.get_mut(8..12) {
            place.copy_from_slice(&u32::from(kind % 32).to_ne_bytes());
        }
        assert!(ebpf::observations_of(&record).len() <= 2);
    }
});
