//! What a keeper is told, and where it keeps what it tells.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::absence::Patience;

/// What a keeper runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments, the program as a path or to be found in PATH.
    pub arguments: Vec<String>,
    /// The name it is called by, where that is not its path.
    pub called: Option<String>,
    /// All of its environment.
    pub environment: Vec<(String, String)>,
    /// Where it begins, seen from inside.
    pub directory: PathBuf,
    /// Who it runs as; `None`: as the agent.
    pub user: Option<User>,
    /// Where its output goes.
    pub stdout: PathBuf,
    /// Where its errors go.
    pub stderr: PathBuf,
    /// A directory above both that only the agent changes: below it no link is followed.
    #[serde(default)]
    pub sandboxes: Option<PathBuf>,
    /// Logs are rotated at this size; 0: never.
    pub log_rotate_bytes: u64,
    /// Rotated logs that are kept.
    pub log_rotate_keep: u32,
    /// Files that its pid is written to: `cgroup.procs` of its cgroups.
    pub cgroup_files: Vec<PathBuf>,
    /// The cgroup that tells all of its processes, where there is one: a `cgroup.procs`.
    pub members_file: Option<PathBuf>,
    /// The root file system, where it is not the host's.
    pub root: Option<PathBuf>,
    /// What is mounted for it.
    pub mounts: Vec<Mount>,
    /// Whether it has its own process ids.
    pub pid_namespace: bool,
    /// Whether it has its own System V and POSIX IPC, `/dev/shm` included.
    #[serde(default)]
    pub ipc_namespace: bool,
    /// Bytes that fit into a `/dev/shm` of its own; `None`: as the kernel has it.
    #[serde(default)]
    pub shm_bytes: Option<u64>,
    /// Namespaces that it enters: files of `/proc/<pid>/ns`.
    pub enter_namespaces: Vec<PathBuf>,
    /// Host name of its own.
    pub hostname: Option<String>,
    /// Resource, soft and hard limit; `u64::MAX` is none.
    pub rlimits: Vec<(i32, u64, u64)>,
    /// Score that the kernel adds when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Capabilities that are taken away: their numbers. `None`: none is.
    pub bounding_capabilities: Option<Vec<u8>>,
    /// Capabilities that it has, whoever it runs as: their numbers. `None`: those of its user.
    #[serde(default)]
    pub effective_capabilities: Option<Vec<u8>>,
    /// Whether programs that are somebody else's by their set-user-ID bit are so in it.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Whether it has an input that others may write to.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub tty: Option<(u16, u16)>,
    /// How long the agent may be away before it is ended; `None`: for ever.
    #[serde(default)]
    pub patience: Option<Patience>,
}

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What, on the host.
    pub source: PathBuf,
    /// Where, as the container sees it.
    pub target: PathBuf,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// The files of a keeper's directory.
#[derive(Clone, Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Of this directory.
    pub fn of(directory: &Path) -> Self {
        Files(directory.to_owned())
    }

    /// What to run.
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// Held while the keeper lives.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Who it is.
    pub fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// How it ended.
    pub fn status(&self) -> PathBuf {
        self.0.join("status")
    }

    /// Why it did not begin.
    pub fn error(&self) -> PathBuf {
        self.0.join("error")
    }

    /// Nobody waits for it any more: a keeper that starts now ends at once.
    pub fn abandoned(&self) -> PathBuf {
        self.0.join("abandoned")
    }

    /// Where it is attached to.
    pub fn socket(&self) -> PathBuf {
        self.0.join("io.sock")
    }
}
