use std::fmt;
use std::sync::Arc;

use mesos_proto::v1;
use v1::resource::disk_info::source::Type;

/// What makes disk space special: where it lies, and the volume that was made of it. Shared rather than copied.
#[derive(Clone, Debug)]
pub struct Disk(Arc<v1::resource::DiskInfo>);

impl Disk {
    /// From the wire.
    pub fn new(info: v1::resource::DiskInfo) -> Self {
        Disk(Arc::new(info))
    }

    /// As the wire has it.
    pub fn info(&self) -> &v1::resource::DiskInfo {
        &self.0
    }

    /// The id of the persistent volume, if this is one.
    pub fn persistence_id(&self) -> Option<&str> {
        self.0.persistence.as_ref().map(|it| it.id.as_str())
    }

    /// Where it lies, if not on the agent's own disk.
    pub fn source_type(&self) -> Option<Type> {
        self.0.source.as_ref().map(|source| Type::try_from(source.r#type).unwrap_or(Type::Unknown))
    }

    /// Whether it is offered and used whole or not at all.
    pub fn is_indivisible(&self) -> bool {
        self.0.persistence.is_some()
            || match self.source_type() {
                Some(Type::Mount | Type::Block) => true,
                Some(Type::Raw) => self.0.source.as_ref().is_some_and(|source| source.id.is_some()),
                _ => false,
            }
    }

    /// The same place without the volume; `None` when nothing special is left.
    pub fn without_volume(&self) -> Option<Disk> {
        self.0
            .source
            .as_ref()
            .map(|source| Disk::new(v1::resource::DiskInfo { source: Some(source.clone()), persistence: None, volume: None }))
    }
}

/// How a volume is to be mounted, and who made it, say nothing about which disk space it is.
impl PartialEq for Disk {
    fn eq(&self, other: &Disk) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.source == other.0.source && self.persistence_id() == other.persistence_id())
    }
}

impl Eq for Disk {}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(source), Some(kind)) = (&self.0.source, self.source_type()) {
            f.write_str(kind.as_str_name())?;
            if source.id.is_some() || source.profile.is_some() {
                let text = |it: &Option<String>| it.clone().unwrap_or_default();
                write!(f, "({},{},{})", text(&source.vendor), text(&source.id), text(&source.profile))?;
            } else {
                let root = match kind {
                    Type::Mount => source.mount.as_ref().and_then(|it| it.root.as_ref()),
                    Type::Path => source.path.as_ref().and_then(|it| it.root.as_ref()),
                    _ => None,
                };
                if let Some(root) = root {
                    write!(f, ":{root}")?;
                }
            }
        }
        if let Some(id) = self.persistence_id() {
            write!(f, "{}{id}", if self.0.source.is_some() { "," } else { "" })?;
        }
        if let Some(volume) = &self.0.volume {
            match &volume.host_path {
                Some(host) => {
                    let mode = if volume.mode == v1::volume::Mode::Ro as i32 { "ro" } else { "rw" };
                    write!(f, ":{host}:{}:{mode}", volume.container_path)?;
                }
                None => write!(f, ":{}", volume.container_path)?,
            }
        }
        Ok(())
    }
}
