use std::io::{BufRead as _, BufReader};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Types a line into a shell, and reads what it shows until it ends.
async fn typed(shell: &HostShell, line: &str) -> String {
    let (ours, inside) = terminal().unwrap();
    let mut child = shell.shell(inside).unwrap();
    #[expect(deprecated, reason = "as in the shell itself")]
    let mut stream = Terminal(AsyncFd::new(ours).unwrap());
    stream.write_all(format!("{line}; exit\n").as_bytes()).await.unwrap();
    let mut shown = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut shown)).await;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(read.is_ok(), "{shown}");
    child.wait().await.unwrap();
    shown
}

#[tokio::test]
async fn a_shell_has_the_terminal_and_needs_no_other_program() {
    let shell = HostShell::new("/proc".into());
    // Only who has a session with a terminal can write to it by that name; what is typed is shown, too, with the sum not worked out.
    let shown = typed(&shell, "echo it is $((40 + 2)) > /dev/tty").await;
    assert!(shown.contains("it is 42"), "{shown}");
}

#[tokio::test]
async fn a_shell_is_in_the_namespaces_of_the_hosts_first_process() {
    let in_ci = std::env::var_os("CI").is_some();
    if !nix::unistd::geteuid().is_root() {
        assert!(!in_ci, "this test needs root");
        return;
    }
    let name = "a-host-elsewhere";
    let script = format!("echo {name} > /proc/sys/kernel/hostname && echo ready && exec sleep 600");
    let mut host = std::process::Command::new("unshare");
    host.args(["--uts", "--mount", "--ipc", "--net", "sh", "-c", &script]).stdout(Stdio::piped());
    let mut host = host.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    if ready.trim() != "ready" {
        host.kill().unwrap();
        host.wait().unwrap();
        assert!(!in_ci, "this test needs to make namespaces");
        return;
    }
    let proc_root = std::env::temp_dir().join(format!("probe-host-shell-{}", std::process::id()));
    let namespaces = proc_root.join("1/ns");
    std::fs::create_dir_all(&namespaces).unwrap();
    for (name, _) in NAMESPACES {
        std::os::unix::fs::symlink(format!("/proc/{}/ns/{name}", host.id()), namespaces.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(std::fs::read_link("/proc/self/ns/pid").unwrap(), namespaces.join(PROCESSES)).unwrap();
    let shown = typed(&HostShell::new(proc_root.clone()), "cat /proc/sys/kernel/hostname").await;
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    std::fs::remove_dir_all(&proc_root).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(shown.contains(name), "{shown}");
    assert_ne!(here.trim(), name, "nobody else went there");
}

#[tokio::test]
async fn no_shell_is_opened_where_the_hosts_processes_have_other_ids() {
    let proc_root = std::env::temp_dir().join(format!("probe-other-pids-{}", std::process::id()));
    let namespaces = proc_root.join("1/ns");
    std::fs::create_dir_all(&namespaces).unwrap();
    for (name, _) in NAMESPACES {
        std::os::unix::fs::symlink(std::fs::read_link(Path::new("/proc/self/ns").join(name)).unwrap(), namespaces.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("pid:[1]", namespaces.join(PROCESSES)).unwrap();
    let (_ours, inside) = terminal().unwrap();
    let refused = HostShell::new(proc_root.clone()).shell(inside).map(drop).unwrap_err().to_string();
    std::fs::remove_dir_all(&proc_root).unwrap();
    assert!(refused.contains("process ids of its own") && refused.contains("hostPID"), "{refused}");
}

#[tokio::test]
async fn where_the_hosts_namespaces_cannot_be_found_that_is_said() {
    let proc_root = std::env::temp_dir().join(format!("probe-no-host-{}", std::process::id()));
    let shown = typed(&HostShell::new(proc_root), "true").await;
    assert!(shown.contains("cannot be entered") && shown.contains("where the probe runs"), "{shown}");
}
