//! Processes that the kernel ends because memory ran out.

use std::path::PathBuf;

use orchestrator_probe::observation::Observation;

use crate::harness::{self, Child, Watch, config, needs_root};

/// A cgroup of the memory controller with a limit, in whichever hierarchy has it.
struct Limited {
    directory: PathBuf,
}

impl Limited {
    fn new(bytes: u64) -> Self {
        let name = format!("kernel-test-memory-{}", std::process::id());
        let v1 = PathBuf::from("/sys/fs/cgroup/memory");
        let (directory, limit) = if v1.join("memory.limit_in_bytes").exists() {
            (v1.join(name), "memory.limit_in_bytes")
        } else {
            let root = harness::cgroup_root();
            std::fs::write(root.join("cgroup.subtree_control"), "+memory").expect("the memory controller");
            (root.join(name), "memory.max")
        };
        std::fs::create_dir(&directory).expect("a cgroup");
        std::fs::write(directory.join(limit), bytes.to_string()).expect("a limit");
        Limited { directory }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}

#[test]
fn a_process_that_is_ended_because_memory_ran_out_is_named_before_its_exit() {
    needs_root!();
    let mut watch = Watch::start(&config());
    let cgroup = Limited::new(32 << 20);
    let (pid, start_time) = Child::devour_in(&cgroup.directory);
    watch
        .until("its end", |watch| watch.seen.iter().any(|it| matches!(it, Observation::ProcessExited { pid: ended, .. } if *ended == pid)));
    let story: Vec<_> = watch
        .seen
        .iter()
        .filter_map(|it| match it {
            Observation::OomKilled { pid: killed, start_time, .. } if *killed == pid => Some(("killed", *start_time, 0)),
            Observation::ProcessExited { pid: ended, start_time, status, .. } if *ended == pid => Some(("ended", *start_time, *status)),
            _ => None,
        })
        .collect();
    // SIGKILL.
    assert_eq!(story, [("killed", Some(start_time), 0), ("ended", Some(start_time), 9)]);
    let own = std::process::id();
    assert!(!watch.seen.iter().any(|it| matches!(it, Observation::OomKilled { pid, .. } if *pid == own)));
}
