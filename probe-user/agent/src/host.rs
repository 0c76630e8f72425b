//! What this host has to offer.

use std::path::Path;

use mesos_proto::v1::resource::{ReservationInfo, reservation_info};
use mesos_proto::v1::{Attribute, Resource, value};

use crate::config::Config;
use crate::words::scalar_resource;

/// Why the resources or attributes of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not in Mesos's notation.
    #[error("the resources {0:?} are malformed: {1}")]
    Resources(String, String),
    /// The same.
    #[error("the attributes {0:?} are malformed: {1}")]
    Attributes(String, String),
}

/// Resources as configured, with what is not named there as the host has it.
///
/// # Errors
/// When the configuration is malformed.
pub fn resources(config: &Config) -> Result<Vec<Resource>, HostError> {
    let failed = |problem: String| HostError::Resources(config.resources.clone(), problem);
    let text = fetched(&config.resources).map_err(failed)?;
    let given = match text.trim() {
        "" => Vec::new(),
        list if list.starts_with('[') => from_json(list, &config.default_role).map_err(failed)?,
        list => mesos::parse_resources(list, &config.default_role).map_err(|error| failed(error.to_string()))?,
    };
    if let Some(problem) = mesos::resources_error(&given) {
        return Err(failed(problem));
    }
    if given.iter().any(|it| it.name == "gpus" && it.scalar.is_some_and(|it| it.value.fract() != 0.0)) {
        return Err(failed("The `gpus` resource must be an unsigned integer".to_owned()));
    }
    let scalars = [("cpus", cpus()), ("mem", memory()), ("disk", disk(&config.work_dir))];
    let ports = Resource {
        name: "ports".to_owned(),
        r#type: value::Type::Ranges as i32,
        ranges: Some(value::Ranges { range: vec![value::Range { begin: 31_000, end: 32_000 }] }),
        ..Resource::default()
    };
    let mut detected: Vec<Resource> = scalars.into_iter().map(|(name, amount)| scalar_resource(name, amount)).collect();
    detected.push(ports);
    detected.retain(|it| given.iter().all(|given| given.name != it.name));
    detected.iter_mut().for_each(|it| belong(it, &config.default_role));
    Ok(given.into_iter().chain(detected).collect())
}

/// A list of `mesos.v1.Resource`, or of Mesos's older form with a role and one reservation.
fn from_json(text: &str, default_role: &str) -> Result<Vec<Resource>, String> {
    let list: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut resources = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let mut resource: Resource = mesos_proto::json::from_value(value).map_err(|error| format!("resource {at}: {error}"))?;
        if resource.role.is_none() && resource.reservations.is_empty() {
            belong(&mut resource, default_role);
        }
        if let Some(problem) = mesos::resource_error(&resource) {
            return Err(format!("resource {at}: {problem}"));
        }
        resources.push(resource);
    }
    Ok(mesos::Resources::from_proto(&resources).to_proto(mesos::Format::Refined))
}

/// Reserves for a role what is nobody's.
fn belong(resource: &mut Resource, role: &str) {
    if role != "*" {
        resource.reservations = vec![ReservationInfo {
            r#type: Some(reservation_info::Type::Static as i32),
            role: Some(role.to_owned()),
            ..ReservationInfo::default()
        }];
    }
}

/// The value of a flag, which may be in a file: `file:///etc/mesos/resources`.
fn fetched(text: &str) -> Result<String, String> {
    match text.trim().strip_prefix("file://") {
        Some(path) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        None => Ok(text.to_owned()),
    }
}

/// Attributes as configured.
///
/// # Errors
/// When the configuration is malformed.
pub fn attributes(config: &Config) -> Result<Vec<Attribute>, HostError> {
    let failed = |problem: String| HostError::Attributes(config.attributes.clone(), problem);
    match fetched(&config.attributes).map_err(failed)?.trim() {
        "" => Ok(Vec::new()),
        text => mesos::parse_attributes(text).map_err(|error| failed(error.to_string())),
    }
}

/// Processors that are online.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
pub fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |it| it.get() as f64)
}

/// Megabytes: all but one gigabyte, or half of what is less than two.
#[expect(clippy::cast_precision_loss, reason = "whole megabytes")]
fn memory() -> f64 {
    match memory_total() {
        None => 1024.0,
        Some(bytes) => {
            let megabytes = bytes / (1 << 20);
            (if megabytes >= 2048 { megabytes - 1024 } else { megabytes / 2 }) as f64
        }
    }
}

/// Bytes of memory, by `/proc/meminfo`.
pub fn memory_total() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Bytes that nobody uses.
pub fn memory_free() -> Option<u64> {
    meminfo("MemFree:")
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix(name))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Load of the last 1, 5 and 15 minutes.
pub fn load() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut words = text.split(' ').map(str::parse);
    Some([words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?])
}

/// Megabytes: all but five gigabytes, or half of what is less than ten.
#[expect(clippy::cast_precision_loss, reason = "whole megabytes")]
fn disk(path: &Path) -> f64 {
    match FileSystem::at(path) {
        None => 10_240.0,
        Some(it) => {
            let megabytes = it.bytes() / (1 << 20);
            (if megabytes >= 10_240 { megabytes - 5_120 } else { megabytes / 2 }) as f64
        }
    }
}

/// The file system at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    block_bytes: u64,
    blocks: u64,
    blocks_free: u64,
}

impl FileSystem {
    /// The one that a path is on, or will be.
    pub fn at(path: &Path) -> Option<Self> {
        let existing = path.ancestors().find(|it| it.exists())?;
        let it = nix::sys::statvfs::statvfs(existing).ok()?;
        Some(FileSystem { block_bytes: it.fragment_size(), blocks: it.blocks(), blocks_free: it.blocks_free() })
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes)
    }

    /// The part that is used, 0 to 1. What is kept back for the superuser is not, as in Mesos: else a disk with five in a hundred kept back would
    /// seem fuller than it is, and sandboxes be deleted long before their time.
    #[expect(clippy::cast_precision_loss, reason = "a part of one")]
    pub fn used_part(&self) -> f64 {
        self.blocks.saturating_sub(self.blocks_free) as f64 / self.blocks.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(resources: &str) -> Config {
        let mut config = Config::in_directories("/tmp".into(), "/tmp".into());
        resources.clone_into(&mut config.resources);
        config
    }

    #[test]
    fn what_is_not_configured_is_detected() {
        let found = resources(&config("cpus:1.5;gpus:2")).unwrap();
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["cpus", "gpus", "mem", "disk", "ports"]);
        assert_eq!(crate::words::scalar(&found, "cpus"), 1.5);
        assert!(crate::words::scalar(&found, "mem") > 100.0 && crate::words::scalar(&found, "disk") > 100.0);
        assert_eq!(crate::words::ranges(&found, "ports"), [(31_000, 32_000)]);
    }

    #[test]
    fn resources_may_be_json_and_in_a_file() {
        let json = r#"[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}, "role": "old"},
            {"name": "disk", "type": "SCALAR", "scalar": {"value": 10}, "reservations": [{"type": "STATIC", "role": "db"}],
             "disk": {"source": {"type": "MOUNT", "mount": {"root": "/mnt/a"}}}}]"#;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resources.json");
        std::fs::write(&path, json).unwrap();
        let found = resources(&config(&format!("file://{}", path.display()))).unwrap();
        assert_eq!(found, resources(&config(json)).unwrap());
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["cpus", "mem", "disk", "ports"]);
        let of = |at: usize| found[at].reservations.iter().filter_map(|it| it.role.as_deref()).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![], vec!["old"], vec!["db"]));
        let root = found[2].disk.as_ref().and_then(|it| it.source.as_ref()?.mount.as_ref()?.root.as_deref());
        assert_eq!(root, Some("/mnt/a"));
        let reserved = Config { default_role: "web".to_owned(), ..config(json) };
        assert_eq!(resources(&reserved).unwrap()[0].reservations[0].role.as_deref(), Some("web"));
        for wrong in ["[{\"name\": \"cpus\"}]", "[1]", "[", "file:///no/such/file"] {
            resources(&config(wrong)).unwrap_err();
        }
    }

    #[test]
    fn blocks_that_are_kept_back_are_not_used() {
        let nearly_empty = FileSystem { block_bytes: 4096, blocks: 1000, blocks_free: 900 };
        assert_eq!((nearly_empty.bytes(), nearly_empty.used_part()), (4_096_000, 0.1));
        assert_eq!(FileSystem { blocks: 0, blocks_free: 0, ..nearly_empty }.used_part(), 0.0);

        let root = Path::new("/");
        let (found, kernels) = (FileSystem::at(root).unwrap(), nix::sys::statvfs::statvfs(root).unwrap());
        let used = (kernels.blocks() - kernels.blocks_free()) as f64 / kernels.blocks() as f64;
        // Others write meanwhile.
        assert!((found.used_part() - used).abs() < 0.01, "{found:?} {kernels:?}");
        assert_eq!(FileSystem::at(Path::new("/no/such/path")).map(|it| it.blocks), Some(found.blocks));
    }

    #[test]
    fn malformed_resources_and_attributes_say_so() {
        for wrong in ["cpus", "cpus:-1", "cpus:1;cpus", "gpus:1.5", "[{]", "ports:[5-1]"] {
            resources(&config(wrong)).unwrap_err();
        }
        let mut config = config("");
        config.attributes = "rack".to_owned();
        attributes(&config).unwrap_err();
        config.attributes = "rack:r1;level:3".to_owned();
        assert_eq!(attributes(&config).unwrap().len(), 2);
    }
}
