//! What the path of a cgroup says of the container that it belongs to. Pure: names alone, no runtime is asked.

use std::borrow::Cow;

use crate::procfs::parse::{cut, printable};

/// Longest name that is taken from a path.
const NAME_MAX: usize = 256;

/// A container, as the path of a cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its full id of 64 hexadecimal digits, if it has one; else the path of its own cgroup is what makes it itself.
    pub id: Option<&'a str>,
    /// Name for people; the beginning of the id when the path has no better.
    pub name: String,
    /// "docker", "containerd", "cri-o", "podman", "lxc", "systemd-nspawn", or "cgroup" when the shape is clear and the runtime is not.
    pub runtime: &'static str,
    /// Path of its own cgroup: what is below it is inside the container.
    pub root: &'a str,
}

/// Prefixes of scopes and cgroups that end in a full id.
const PREFIXES: [(&str, &str); 5] =
    [("docker-", "docker"), ("cri-containerd-", "containerd"), ("crio-", "cri-o"), ("libpod-", "podman"), ("nerdctl-", "containerd")];

/// Parents whose children are named by a full id alone.
const PARENTS: [(&str, &str); 7] = [
    ("docker", "docker"),
    ("actions_job", "docker"),
    ("libpod_parent", "podman"),
    ("k8s.io", "containerd"),
    ("default", "containerd"),
    ("moby", "docker"),
    ("crio", "cri-o"),
];

/// The cgroup in which a Mesos agent has its containers, unless it is told otherwise.
const MESOS: &str = "mesos";

/// The container that a path names; of several, the innermost.
///
/// Known are the paths of Docker, containerd, CRI-O and Podman, each by systemd (`docker-<id>.scope`) and by cgroupfs (`/docker/<id>`), of the
/// kubelet (`/kubepods/…/pod<uid>/<id>`), of Amazon ECS (`/ecs/<task>/<id>`), of LXC, LXD and Incus (`lxc.payload.<name>`, `/lxc/<name>`), of
/// systemd-nspawn (`/machine.slice/machine-<name>.scope`), and of BuildKit, Garden, Nomad and Mesos. Services and slices of systemd, monitors of
/// containers (`libpod-conmon-…`, `lxc.monitor.…`) and virtual machines are none.
pub fn named(path: &str) -> Option<Named<'_>> {
    named_below(path, MESOS)
}

/// The same where a Mesos agent has its containers in the cgroup `agents_root`, such as "mesos" or "node/tasks".
pub fn named_below<'a>(path: &'a str, agents_root: &str) -> Option<Named<'a>> {
    let mut end = path.len();
    while let Some(slash) = path[..end].rfind('/') {
        let (above, segment) = (&path[..slash], &path[slash + 1..end]);
        if let Some((id, name, runtime)) = of_segment(above, segment, agents_root) {
            return Some(Named { id, name, runtime, root: &path[..end] });
        }
        end = slash;
    }
    None
}

type Found<'a> = (Option<&'a str>, String, &'static str);

fn of_segment<'a>(above: &str, segment: &'a str, agents_root: &str) -> Option<Found<'a>> {
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    // A monitor has a cgroup that is named after its container, and is not inside it.
    if ["crio-conmon-", "libpod-conmon-", "lxc.monitor"].iter().any(|monitor| bare.starts_with(monitor)) {
        return None;
    }
    of_id(above, bare).or_else(|| of_name(above, segment, bare, agents_root))
}

fn of_id<'a>(above: &str, bare: &'a str) -> Option<Found<'a>> {
    let found = |id: &'a str, runtime| is_container_id(id).then(|| (Some(id), id[..12].to_owned(), runtime));
    // runc with a path for systemd on a host without: `<slice>:<prefix>:<id>`.
    if let Some((before, id)) = bare.rsplit_once(':') {
        let prefix = before.rsplit(':').next().unwrap_or_default();
        let runtime = PREFIXES.iter().find(|(it, _)| it.trim_end_matches('-') == prefix).map(|(_, runtime)| *runtime)?;
        return found(id, runtime);
    }
    if let Some((id, runtime)) = PREFIXES.iter().find_map(|(prefix, runtime)| Some((bare.strip_prefix(prefix)?, runtime))) {
        return found(id, runtime);
    }
    let parents = || above.rsplit('/');
    let runtime = match parents().next().and_then(|parent| PARENTS.iter().find(|(it, _)| *it == parent)) {
        Some((_, runtime)) => runtime,
        None if parents().nth(1) == Some("ecs") => "docker",
        None => "cgroup",
    };
    found(bare, runtime)
}

fn of_name(above: &str, segment: &str, bare: &str, agents_root: &str) -> Option<Found<'static>> {
    let parent = above.rsplit('/').next().unwrap_or_default();
    let found = |name: &str, runtime| (!name.is_empty()).then(|| (None, name_for_people(name), runtime));
    if let Some(name) = bare.strip_prefix("lxc.payload.") {
        return found(name, "lxc");
    }
    match parent {
        "lxc.payload" | "lxc" => return found(bare, "lxc"),
        // 25 letters and digits each, and UUIDs or random names of that kind.
        "buildkit" | "garden" => return found(&format!("{parent} {bare}"), "cgroup"),
        _ if is_uuid(bare) && [MESOS, agents_root].iter().any(|root| is_below(above, root)) => return found(bare, "cgroup"),
        "machine.slice" => return machine(segment, bare),
        _ => {}
    }
    // Nomad: `<allocation>.<task>.scope` somewhere below its slice.
    let (allocation, task) = bare.split_once('.')?;
    let below_nomad = || above.split('/').any(|it| it == "nomad" || it == "nomad.slice");
    if is_uuid(allocation) && below_nomad() { found(task, "cgroup") } else { None }
}

/// Whether `above` ends in the whole segments of `root`.
fn is_below(above: &str, root: &str) -> bool {
    !root.is_empty() && above.strip_suffix(root).is_some_and(|before| before.ends_with('/'))
}

/// A unit of machine.slice. systemd-machined names scopes `machine-<name>.scope`, the service of an image is `systemd-nspawn@<name>.service`.
fn machine(segment: &str, bare: &str) -> Option<Found<'static>> {
    if let Some(name) = segment.strip_prefix("systemd-nspawn@").and_then(|it| it.strip_suffix(".service")) {
        return Some((None, name_for_people(&unescaped(name)), "systemd-nspawn"));
    }
    if bare.len() == segment.len() {
        return None;
    }
    let name = unescaped(bare.strip_prefix("machine-")?);
    // libvirt's machines: `qemu-<number>-<name>` is a virtual one, `lxc-<number>-<name>` a container.
    let of_libvirt = |driver: &str| {
        let (number, name) = name.strip_prefix(driver)?.split_once('-')?;
        number.bytes().all(|it| it.is_ascii_digit()).then(|| name.to_owned())
    };
    if of_libvirt("qemu-").is_some() || name.is_empty() {
        return None;
    }
    Some(match of_libvirt("lxc-") {
        Some(name) => (None, name_for_people(&name), "lxc"),
        None => (None, name_for_people(&name), "systemd-nspawn"),
    })
}

/// Undoes systemd's escapes of unit names: `\x2d` is a hyphen.
fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.strip_prefix(b"x").and_then(|it| it.get(..2)).and_then(|it| std::str::from_utf8(it).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn name_for_people(name: &str) -> String {
    cut(printable(name.as_bytes()), NAME_MAX)
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { byte.is_ascii_hexdigit() })
}

/// An id for a container that has none: the same for the same path on the same host, and never that of another host. As long as a full id.
pub fn derived_id(host: &str, root: &str) -> String {
    use std::fmt::Write as _;
    let mut id = String::with_capacity(64);
    for lane in 0..4_u64 {
        // FNV-1a with four beginnings: spread is what counts here, not resistance.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ (lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for byte in host.bytes().chain([0]).chain(root.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        // Writing to a string cannot fail.
        let _ = write!(id, "{:016x}", hash ^ (hash >> 29));
    }
    id
}

#[cfg(test)]
mod tests;
