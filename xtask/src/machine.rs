//! What this machine is and has. Looks, changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The first program of this name on the path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let beyond = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path).chain(beyond).map(|directory| directory.join(name)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// What a command prints, trimmed; `None` when it cannot run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this process is root or can become it.
pub(crate) fn can_become_root() -> bool {
    is_root() || program("sudo").is_some()
}

/// A command that runs as root: as it is for root, through sudo otherwise.
pub(crate) fn as_root(name: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(name);
    }
    let mut command = Command::new("sudo");
    command.arg(name);
    command
}

/// The distribution's name for people, from os-release.
pub(crate) fn distribution() -> String {
    os_release("PRETTY_NAME").unwrap_or_else(|| "an unknown distribution".to_owned())
}

/// Whether packages come from apt.
pub(crate) fn has_apt() -> bool {
    program("apt-get").is_some() && program("dpkg-query").is_some()
}

/// A value of os-release, such as that of `VERSION_CODENAME`.
pub(crate) fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// Whether a Debian package is installed.
pub(crate) fn package_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package])).is_some_and(|status| status == "installed")
}

/// The version of a Debian package that apt would install.
pub(crate) fn package_candidate(package: &str) -> Option<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Kernel release, as `uname -r` says it.
pub(crate) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Whether a file system of this type is mounted, and where.
pub(crate) fn mounted(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (place, its_kind) = (fields.nth(1)?, fields.next()?);
        (its_kind == kind).then(|| PathBuf::from(place))
    })
}

/// Whether the kernel describes its own types.
pub(crate) fn has_kernel_types() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Free memory in MiB.
pub(crate) fn free_memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Free disk space below a directory in MiB.
pub(crate) fn free_disk_mib(directory: &Path) -> u64 {
    nix::sys::statvfs::statvfs(directory).map_or(0, |statistics| statistics.blocks_available() * statistics.fragment_size() / (1 << 20))
}

/// The one-minute load average.
pub(crate) fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next().map(str::to_owned)).unwrap_or_default()
}

/// The major version that a program's `--version` tells, e.g. 20 for `v20.19.1`.
pub(crate) fn major_version(program: &Path) -> Option<u32> {
    let text = output(Command::new(program).arg("--version"))?;
    let digits = text.trim_start_matches(|character: char| !character.is_ascii_digit());
    digits.split('.').next()?.parse().ok()
}

/// The cargo of the toolchain that runs this program.
pub(crate) fn cargo() -> Command {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut command = Command::new(&cargo);
    forget_this_package(&mut command);
    // Left to the path, cargo may find the rustdoc of a distribution's compiler, which understands nothing that this toolchain compiled.
    let rustdoc = cargo.with_file_name("rustdoc");
    if rustdoc.is_absolute() && rustdoc.exists() && std::env::var_os("RUSTDOC").is_none() {
        command.env("RUSTDOC", rustdoc);
    }
    command
}

/// Takes out of a child's environment what `cargo run` says of xtask itself, so that it neither misleads nor rebuilds anything.
pub(crate) fn forget_this_package(command: &mut Command) {
    for (key, _) in std::env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let of_this_package = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_BIN_");
        if of_this_package || name == "CARGO_CRATE_NAME" || name == "CARGO_PRIMARY_PACKAGE" || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
}
