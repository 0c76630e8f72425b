//! Files of a cgroup, and tables of mounts: whatever the bytes are, the outcome is a value, and no share is nonsense.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::cgroupfs::files::{self, File};
use orchestrator_probe::cgroupfs::{Mounts, Usage};

fuzz_target!(|bytes: &[u8]| {
    let mut usage = Usage::default();
    for file in File::ALL {
        file.apply(bytes, |device| device.0 == 253, &mut usage);
    }
    if let Some(pressure) = usage.pressure {
        for share in [pressure.cpu_percent, pressure.memory_percent, pressure.io_percent] {
            assert!((0.0..=100.0).contains(&share));
        }
    }
    assert!(files::cpu_max(bytes).is_none_or(|it| it.is_finite() && it > 0.0));
    assert!(files::cfs_quota(bytes, bytes).is_none_or(|it| it.is_finite() && it > 0.0));
    let _ = (usage.own_memory_bytes(), files::memory_max(bytes), Mounts::parse(bytes, Path::new("/")));
});
