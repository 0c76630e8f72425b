use std::fs::{self, OpenOptions};
use std::path::Path;

use super::*;
use crate::procfs::{Arguments, HANGING_MAX};

const STAT: &str = "20 (a) S 1 20 20 0 -1 4194304 100 0 0 0 7 3 0 0 20 0 5 0 12345 1000000 250 18446744073709551615 1 1 0 0 0";
const PATIENCE: Duration = Duration::from_millis(500);

fn process(root: &Path, pid: u32) -> std::path::PathBuf {
    let directory = root.join(pid.to_string());
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("stat"), STAT).unwrap();
    fs::write(directory.join("status"), "Uid:\t1000\t1001\t1000\t1000\n").unwrap();
    fs::write(directory.join("cgroup"), "0::/user.slice\n").unwrap();
    fs::write(directory.join("cmdline"), format!("/bin/{pid}\0--all\0")).unwrap();
    directory
}

/// One whose command line waits for somebody who never comes.
fn hanging_process(root: &Path, pid: u32) -> std::path::PathBuf {
    let command_line = process(root, pid).join("cmdline");
    fs::remove_file(&command_line).unwrap();
    nix::unistd::mkfifo(&command_line, nix::sys::stat::Mode::S_IRWXU).unwrap();
    command_line
}

/// What comes until everything is answered: pid and command line.
async fn all(describer: &mut Describer) -> Vec<(u32, String)> {
    let mut told = Vec::new();
    while describer.outstanding() > 0 {
        let batch = tokio::time::timeout(Duration::from_secs(20), describer.next()).await.expect("an answer");
        told.extend(batch.into_iter().map(|it| (it.pid, it.command_line)));
    }
    told
}

#[tokio::test]
async fn a_process_that_hangs_keeps_no_other_from_being_read_and_is_told_without_its_command_line() {
    let proc = tempfile::tempdir().unwrap();
    let procfs = Arc::new(Procfs::new(proc.path(), Arguments::Show));
    let mut describer = Describer::with_patience(procfs.clone(), PATIENCE);
    let command_line = hanging_process(proc.path(), 21);
    for pid in [20, 22, 23] {
        process(proc.path(), pid);
    }
    for pid in [20, 21, 22, 23, 24] {
        assert!(describer.ask(pid));
    }
    let told = |pid: u32, text: &str| (pid, text.to_owned());
    let read = all(&mut describer).await;
    assert_eq!(read, [told(20, "/bin/20 --all"), told(21, "a"), told(22, "/bin/22 --all"), told(23, "/bin/23 --all")]);
    assert_eq!(procfs.hanging(), 1);
    // Nobody hangs at it twice.
    describer.ask(21);
    assert_eq!(all(&mut describer).await, [told(21, "a")]);
    assert_eq!(procfs.hanging(), 1);
    // The reader comes back, and the process is as any other.
    drop(OpenOptions::new().write(true).open(&command_line).unwrap());
    while procfs.hanging() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fs::remove_file(&command_line).unwrap();
    process(proc.path(), 21);
    describer.ask(21);
    assert_eq!(all(&mut describer).await, [told(21, "/bin/21 --all")]);
}

#[tokio::test]
async fn where_many_hang_no_command_line_is_read_and_every_process_is_told() {
    let proc = tempfile::tempdir().unwrap();
    let procfs = Arc::new(Procfs::new(proc.path(), Arguments::Show));
    let mut describer = Describer::with_patience(procfs.clone(), Duration::from_millis(200));
    let most = u32::try_from(HANGING_MAX).unwrap();
    let hanging: Vec<_> = (1..=most + 4).map(|pid| hanging_process(proc.path(), pid)).collect();
    process(proc.path(), 100);
    for pid in (1..=most + 4).chain([100]) {
        describer.ask(pid);
    }
    let told = all(&mut describer).await;
    assert_eq!(told.len(), HANGING_MAX + 5);
    assert!(told.iter().all(|(_, command_line)| command_line == "a"), "{told:?}");
    assert_eq!(procfs.hanging(), HANGING_MAX);
    for command_line in &hanging[..HANGING_MAX] {
        drop(OpenOptions::new().write(true).open(command_line).unwrap());
    }
}

#[tokio::test]
async fn more_than_can_wait_is_refused_and_asked_later() {
    let proc = tempfile::tempdir().unwrap();
    let procfs = Arc::new(Procfs::new(proc.path(), Arguments::Show));
    let mut describer = Describer::with_patience(procfs, PATIENCE);
    let command_line = hanging_process(proc.path(), 1);
    let refused = (1..=5_000).filter(|&pid| !describer.ask(pid)).count();
    assert!((5_000 - WAITING_MAX - 1..=5_000 - WAITING_MAX).contains(&refused), "{refused}");
    assert!(describer.awaits(2) && !describer.awaits(4_999));
    assert_eq!(all(&mut describer).await, [(1, "a".to_owned())], "the others are not there");
    drop(OpenOptions::new().write(true).open(command_line).unwrap());
}

#[tokio::test]
async fn a_process_that_hangs_without_its_command_line_too_is_left_out_and_readers_are_counted() {
    let proc = tempfile::tempdir().unwrap();
    let procfs = Arc::new(Procfs::new(proc.path(), Arguments::Show));
    let mut describer = Describer::with_patience(procfs, Duration::from_millis(200));
    let command_line = hanging_process(proc.path(), 21);
    // What is read of every process.
    let cgroup = proc.path().join("21/cgroup");
    fs::remove_file(&cgroup).unwrap();
    nix::unistd::mkfifo(&cgroup, nix::sys::stat::Mode::S_IRWXU).unwrap();
    process(proc.path(), 22);
    for pid in [21, 22] {
        assert!(describer.ask(pid));
    }
    assert_eq!(all(&mut describer).await, [(22, "/bin/22 --all".to_owned())]);
    assert!((1..=2).contains(&describer.desk.book().hung.len()));
    for waiting in [&command_line, &cgroup, &cgroup] {
        drop(OpenOptions::new().read(true).write(true).open(waiting).unwrap());
    }
}
