use std::os::unix::fs::symlink;

use super::*;
use crate::procfs::Arguments;

/// A `/proc` of our own making.
struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Self {
        Proc(tempfile::tempdir().unwrap())
    }

    fn process(&self, pid: u32, start_ticks: u64, sockets: &[u32]) {
        let directory = self.0.path().join(pid.to_string());
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(directory.join("fd")).unwrap();
        let stat = format!("{pid} (a) S 1 {pid} {pid} 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 5 0 {start_ticks} 1000000 250 0");
        std::fs::write(directory.join("stat"), stat).unwrap();
        for (descriptor, inode) in sockets.iter().enumerate() {
            symlink(format!("socket:[{inode}]"), directory.join("fd").join(descriptor.to_string())).unwrap();
        }
    }

    fn end(&self, pid: u32) {
        std::fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
    }

    fn find(&self, holders: &mut Holders, wanted: &[u32]) -> Vec<Option<u32>> {
        let procfs = Procfs::new(self.0.path(), Arguments::Show);
        let mut pids = procfs.pids().unwrap();
        pids.sort_unstable();
        holders.find(&procfs, &pids, &wanted.iter().copied().collect());
        wanted.iter().map(|inode| holders.get(*inode).map(|it| it.pid)).collect()
    }
}

#[test]
fn of_several_the_one_that_started_first_has_it_but_the_first_process_of_all_only_alone() {
    let (proc, mut holders) = (Proc::new(), Holders::default());
    proc.process(1, 1, &[10, 11]);
    // Pids began anew: the parent has the larger one.
    proc.process(900, 500, &[20, 10]);
    proc.process(30, 600, &[20]);
    assert_eq!(proc.find(&mut holders, &[10, 11, 20, 99]), [Some(900), Some(1), Some(900), None]);
}

#[test]
fn who_ended_or_closed_it_has_it_no_longer() {
    let (proc, mut holders) = (Proc::new(), Holders::default());
    proc.process(20, 500, &[20, 21]);
    proc.process(30, 600, &[20, 21]);
    assert_eq!(proc.find(&mut holders, &[20, 21]), [Some(20), Some(20)]);
    proc.process(20, 500, &[7, 21]);
    assert_eq!(proc.find(&mut holders, &[20, 21]), [Some(30), Some(20)]);
    // Another process with that pid, and the same descriptors.
    proc.end(30);
    proc.process(20, 900, &[20, 21]);
    proc.find(&mut holders, &[20, 21]);
    assert_eq!(holders.get(20), Some(ProcessKey::new(20, crate::observation::BootNanos(9_000_000_000))));
}

#[test]
fn descriptors_are_walked_for_new_sockets_and_once_a_minute() {
    let (proc, mut holders) = (Proc::new(), Holders::default());
    proc.process(1, 1, &[10]);
    assert_eq!(proc.find(&mut holders, &[10]), [Some(1)]);
    // A service was given its socket: nothing tells, but the next walk.
    proc.process(40, 700, &[10]);
    for _ in 1..WALK_EVERY {
        assert_eq!(proc.find(&mut holders, &[10]), [Some(1)]);
    }
    assert_eq!(proc.find(&mut holders, &[10]), [Some(40)]);
    // One that nobody has is sought three times, and lost once.
    for _ in 0..10 {
        proc.find(&mut holders, &[10, 99]);
    }
    assert_eq!((holders.unowned(), holders.looks_since_walk), (1, 7));
    proc.find(&mut holders, &[]);
    assert!(holders.by_inode.is_empty() && holders.unheld.is_empty());
}
