//! Files of `/proc`, `/etc/passwd`, and what rtnetlink says of links: whatever the bytes are, the outcome is a value.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::host::{disks, interfaces};
use orchestrator_probe::procfs::{mountinfo, parse, system};
use orchestrator_probe::users::Users;

fuzz_target!(|bytes: &[u8]| {
    let _ = (parse::stat(bytes), parse::effective_user(bytes), parse::cgroup_path(bytes, "mesos"));
    let _ = (parse::cpu_ticks(bytes), parse::memory(bytes), parse::boot_time(bytes), parse::open_files_limit(bytes));
    let _ = (system::loads(bytes), system::swap_used(bytes), system::process_io(bytes), system::stacked_devices(bytes));
    assert!(system::pressure(bytes).is_none_or(|it| (0.0..=100.0).contains(&it)));
    assert!(system::block_devices(bytes, 4).0.len() <= 4);
    assert!(disks::choose(bytes, 4).0.len() <= 4);
    for mount in mountinfo::parse(bytes) {
        assert!(mountinfo::below(Path::new("/r"), mount.point).starts_with("/r"));
    }
    let _ = interfaces::parse_links(bytes, &mut interfaces::Interfaces::default());
    assert!(interfaces::parse_dev(bytes).finish().0.len() <= interfaces::INTERFACES_MAX);
    let _ = Users::parse(bytes).name(0).len();
});
