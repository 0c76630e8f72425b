//! Containers, their volumes and mapped ports.

use super::{Constraint, Labels};

/// The container of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Which containerizer runs it.
    pub kind: ContainerKind,
    /// The image, when there is one.
    pub docker: Option<Docker>,
    /// What is mounted.
    pub volumes: Vec<Volume>,
    /// Ports, outside the host network.
    pub port_mappings: Vec<PortMapping>,
    /// Settings of the kernel.
    pub linux_info: Option<LinuxInfo>,
}

/// Which containerizer runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// Docker.
    Docker,
    /// Mesos's own.
    Mesos,
}

impl ContainerKind {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            ContainerKind::Docker => "DOCKER",
            ContainerKind::Mesos => "MESOS",
        }
    }
}

/// An image and how Docker runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// Name of the image.
    pub image: String,
    /// Whether it is pulled even if it is there.
    pub force_pull_image: bool,
    /// Whether the container may do everything.
    pub privileged: bool,
    /// Further words for `docker run`.
    pub parameters: Vec<(String, String)>,
    /// Key of the secret with the registry's credentials.
    pub pull_secret: Option<String>,
    /// Principal and secret, of old definitions.
    pub credential: Option<(String, Option<String>)>,
}

/// Settings of the kernel for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxInfo {
    /// System calls: profile, unconfined.
    pub seccomp: Option<(Option<String>, bool)>,
    /// Shared memory: private or of the parent, size in MiB.
    pub ipc: Option<(IpcMode, Option<u32>)>,
}

/// Whose shared memory a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpcMode {
    /// Its own.
    Private,
    /// Its parent's.
    ShareParent,
}

/// What is mounted into a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Where.
    pub container_path: String,
    /// Whether it may be written.
    pub read_only: bool,
    /// What.
    pub kind: VolumeKind,
}

/// Where what is mounted comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeKind {
    /// A directory of the agent's.
    Host(String),
    /// A persistent volume.
    Persistent(PersistentVolume),
    /// A volume of a storage provider.
    External(ExternalVolume),
    /// A secret as a file.
    Secret(String),
}

/// A volume on an agent's disk that outlives tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentVolume {
    /// Kind of disk.
    pub disk: DiskKind,
    /// MiB.
    pub size: u64,
    /// MiB at most, for a whole disk.
    pub max_size: Option<u64>,
    /// Profile of the disk.
    pub profile: Option<String>,
    /// Which disks do.
    pub constraints: Vec<Constraint>,
}

/// Kind of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// The agent's own.
    Root,
    /// A directory of an additional disk.
    Path,
    /// A whole additional disk.
    Mount,
}

impl DiskKind {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            DiskKind::Root => "root",
            DiskKind::Path => "path",
            DiskKind::Mount => "mount",
        }
    }
}

/// A volume of a storage provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalVolume {
    /// Name of the volume.
    pub name: String,
    /// `dvdi` or `csi`.
    pub provider: String,
    /// GiB.
    pub size: Option<u64>,
    /// Passed on (`dvdi`).
    pub options: Labels,
    /// The provider's own words (`csi`), as JSON text.
    pub csi: Option<String>,
    /// Whether several instances may mount it.
    pub shared: bool,
}

/// A port of a container outside the host network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMapping {
    /// In the container; 0: the same as the host port.
    pub container_port: u16,
    /// On the agent; 0: any; none: not mapped.
    pub host_port: Option<u16>,
    /// What others know it by; 0: assigned.
    pub service_port: u16,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Name.
    pub name: Option<String>,
    /// For tools.
    pub labels: Labels,
    /// Networks that it is on; empty for all.
    pub network_names: Vec<String>,
}
