//! The initial file system of a machine: busybox, the programs with their libraries, the modules that networks need, and a script.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernels::{self, Fetched};
use super::{Hierarchy, Programs, must};
use crate::{Checkout, machine};

/// Begins a line that the script writes for [`super::boot`].
pub(crate) const MARK: &str = "@@";

/// Module trees that tests may ask for.
const MODULES: [&str; 6] = [
    "kernel/net",
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/net/dummy.ko",
    "kernel/lib",
    "kernel/drivers/block/null_blk",
    "kernel/fs/configfs",
];

/// How long the probe looks before it says which hooks serve.
const LOOK: &str = "2s";

/// Builds the file system; its file.
pub(crate) fn build(
    checkout: &Checkout,
    kernel: &Fetched,
    hierarchy: Hierarchy,
    programs: &Programs,
    filters: &[String],
) -> Result<PathBuf> {
    let directory = kernels::directory(checkout).join(kernel.series);
    let root = directory.join("image");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for place in ["bin", "sbin", "proc", "sys", "dev", "tmp", "run", "etc", "root", "var/lib", "usr/bin", "usr/sbin"] {
        fs::create_dir_all(root.join(place))?;
    }
    let busybox = machine::program("busybox").context("no busybox")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let ip = machine::program("ip").context("no ip")?;
    let mut libraries = BTreeSet::new();
    install(&ip, &root.join("sbin/ip"), &mut libraries)?;
    // Tests start the probe by the path that it was built at.
    install(&programs.probe, &inside(&root, &programs.probe), &mut libraries)?;
    for (_, program) in &programs.tests {
        install(program, &inside(&root, program), &mut libraries)?;
    }
    // A test reads the kernel programs as they were compiled.
    for entry in fs::read_dir(checkout.target().join("bpf")).context("no kernel programs")? {
        let object = entry?.path();
        copy(&object, &inside(&root, &object))?;
    }
    for library in libraries {
        copy(&library, &inside(&root, &library))?;
    }
    // Tests run where their package is.
    fs::create_dir_all(inside(&root, &checkout.root().join("probe-user")))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    install_modules(kernel, &root)?;
    let script = root.join("init");
    fs::write(&script, script_of(checkout, hierarchy, programs, filters))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let image = directory.join(format!("{}.cpio.gz", hierarchy.name()));
    pack(&busybox, &root, &image)?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}

/// A path of this machine inside the file system.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

/// Copies a program without its debug information, and notes the libraries that it asks for.
fn install(program: &Path, to: &Path, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
    fs::create_dir_all(to.parent().context("a program has a directory")?)?;
    must(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(program))?;
    let listed = must(Command::new("ldd").arg(program))?;
    libraries.extend(libraries_of(&listed));
    Ok(())
}

/// The files that `ldd` names.
fn libraries_of(listed: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let named = listed.lines().filter_map(|line| {
        let line = line.trim();
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        place.split_once(" (").map(|(path, _)| path)
    });
    named.filter(|path| path.starts_with('/')).map(PathBuf::from)
}

fn install_modules(kernel: &Fetched, root: &Path) -> Result<()> {
    let place = root.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&place)?;
    for name in MODULES {
        // Some releases keep modules compressed.
        let candidates = [name.to_owned(), format!("{name}.xz"), format!("{name}.zst")];
        let Some(from) = candidates.iter().map(|name| kernel.modules.join(name)).find(|from| from.exists()) else { continue };
        let to = place.join(from.strip_prefix(&kernel.modules).unwrap_or(&from));
        fs::create_dir_all(to.parent().context("a module has a directory")?)?;
        must(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
    }
    must(Command::new("find").arg(&place).args(["-name", "*.xz", "-exec", "unxz", "{}", "+"]))?;
    for name in ["modules.builtin", "modules.order"] {
        if kernel.modules.join(name).exists() {
            fs::copy(kernel.modules.join(name), place.join(name))?;
        }
    }
    // The kernel asks for a module through this path.
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    must(Command::new(machine::program("busybox").context("no busybox")?).arg("depmod").arg("-b").arg(root).arg(&kernel.release)).map(drop)
}

/// What the machine does.
fn script_of(checkout: &Checkout, hierarchy: Hierarchy, programs: &Programs, filters: &[String]) -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root CI=true ORCHESTRATOR_TEST_SLOWNESS=6\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs devtmpfs /dev\n\
         mount -t tmpfs tmpfs /tmp\n\
         mount -t tmpfs tmpfs /run\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t tracefs tracefs /sys/kernel/tracing\n",
    );
    script.push_str(match hierarchy {
        Hierarchy::V2 => {
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
             for controller in cpu memory pids io; do echo +$controller > /sys/fs/cgroup/cgroup.subtree_control; done\n"
        }
        Hierarchy::Hybrid => {
            "mount -t tmpfs tmpfs /sys/fs/cgroup\n\
             for controller in cpu,cpuacct memory pids blkio cpuset freezer devices; do\n\
             mkdir /sys/fs/cgroup/$controller\n\
             mount -t cgroup -o $controller cgroup /sys/fs/cgroup/$controller\n\
             done\n\
             mkdir /sys/fs/cgroup/unified\n\
             mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified\n"
        }
    });
    // Writing to a string cannot fail.
    let _ = write!(
        script,
        "ip link set lo up\n\
         cd {package}\n\
         echo\n\
         echo '{MARK} booted'\n\
         {probe} load --duration {LOOK} 2>&1 | sed -n -e 's/^rung /{MARK} &/p' -e 's/^hook /{MARK} &/p' -e 's/^cost /{MARK} &/p'\n",
        package = checkout.root().join("probe-user").display(),
        probe = programs.probe.display(),
    );
    let filters: String = filters.iter().fold(String::new(), |mut all, filter| {
        let _ = write!(all, " '{}'", filter.replace('\'', ""));
        all
    });
    for (name, program) in &programs.tests {
        let _ = write!(
            script,
            "echo '{MARK} begin {name}'\n\
             {program} --test-threads=1{filters} 2>&1\n\
             echo \"{MARK} end {name} $?\"\n",
            program = program.display()
        );
    }
    script.push_str("sync\npoweroff -f\n");
    script
}

/// Packs a directory in the form that the kernel unpacks.
fn pack(busybox: &Path, root: &Path, to: &Path) -> Result<()> {
    let output = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut find = Command::new("find").arg(".").current_dir(root).stdout(Stdio::piped()).spawn().context("cannot start find")?;
    let names = find.stdout.take().context("find has an output")?;
    let mut archive = Command::new(busybox);
    archive.args(["cpio", "-o", "-H", "newc"]).current_dir(root).stdin(names).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut archive = archive.spawn().context("cannot start cpio")?;
    let bytes = archive.stdout.take().context("cpio has an output")?;
    let packed = Command::new("gzip").arg("-1").stdin(bytes).stdout(output).status().context("cannot start gzip")?;
    let (archived, listed) = (archive.wait()?, find.wait()?);
    if !(packed.success() && archived.success() && listed.success()) {
        bail!("packing {} failed", to.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_names_with_a_place() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let libraries: Vec<PathBuf> = libraries_of(listed).collect();
        assert_eq!(libraries, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
    }
}
