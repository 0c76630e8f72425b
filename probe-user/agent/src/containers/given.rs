//! What a container is given, from the words of its framework: its limits, and the directories of the host that it sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesos_proto::v1::{ContainerInfo, Resource};

use crate::cgroups::Limits;
use crate::words::scalar;

/// What a container may use, from its resources.
pub(crate) fn limits(resources: &[Resource], limits: &BTreeMap<String, mesos_proto::v1::value::Scalar>) -> Limits {
    let limit = |name: &str| limits.get(name).map(|it| it.value);
    Limits { cpus: scalar(resources, "cpus"), cpus_limit: limit("cpus"), mem: scalar(resources, "mem"), mem_limit: limit("mem") }
}

/// Volumes of a container that are directories of the host: host, inside, read-only.
///
/// # Errors
/// When one is of a kind that is not made here.
pub(crate) fn volumes(
    info: Option<&ContainerInfo>,
    sandbox: &Path,
    parent_sandbox: Option<&Path>,
) -> Result<Vec<(PathBuf, String, bool)>, String> {
    use mesos_proto::v1::volume::{Mode, source};

    let mut found = Vec::new();
    for volume in info.map(|it| it.volumes.as_slice()).unwrap_or_default() {
        let read_only = volume.mode() == Mode::Ro;
        let inside_sandbox =
            |it: &str| crate::sandbox::below(sandbox, it).ok_or_else(|| format!("Volume path '{it}' leads out of the sandbox"));
        let host = match (&volume.host_path, &volume.source) {
            (Some(path), _) if path.starts_with('/') => PathBuf::from(path),
            (Some(path), _) => inside_sandbox(path)?,
            (None, Some(source)) => match source.r#type() {
                source::Type::HostPath => PathBuf::from(source.host_path.as_ref().map(|it| it.path.clone()).unwrap_or_default()),
                source::Type::SandboxPath => {
                    let it = source.sandbox_path.clone().unwrap_or_default();
                    let base = match it.r#type() {
                        source::sandbox_path::Type::Parent => {
                            parent_sandbox.ok_or_else(|| "A volume of the parent's sandbox needs a parent".to_owned())?
                        }
                        _ => sandbox,
                    };
                    crate::sandbox::below(base, &it.path).ok_or_else(|| format!("Volume path '{}' leads out of the sandbox", it.path))?
                }
                source::Type::DockerVolume => continue,
                other => return Err(format!("Volumes of type {} are not supported", other.as_str_name())),
            },
            (None, None) if volume.image.is_some() => return Err("Volumes from images are not supported".to_owned()),
            (None, None) => inside_sandbox(&volume.container_path)?,
        };
        found.push((host, volume.container_path.clone(), read_only));
    }
    Ok(found)
}
