//! What survives a restart: who we are, and which probes we know. The map itself does not: probes send it again.

mod disk;
mod memory;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use base::Timestamp;
use serde::{Deserialize, Serialize};

pub use disk::DiskStore;
pub use memory::MemoryStore;

/// Where records are kept. Calls block; make them where that is allowed.
pub trait Store: Debug + Send + Sync + 'static {
    /// All known probes, sorted by id.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn probes(&self) -> Result<Vec<KnownProbe>, StoreError>;

    /// Remembers `known` and forgets the probes with the ids `forgotten`, all or nothing.
    ///
    /// # Errors
    /// When the store cannot be written; nothing has changed then.
    fn update_probes(&self, known: &[KnownProbe], forgotten: &[String]) -> Result<(), StoreError>;

    /// The name of this installation: made when the store was, the same ever after.
    fn installation(&self) -> &str;

    /// Where what there was before lies, when it was damaged and this began anew.
    fn set_aside(&self) -> Option<&Path> {
        None
    }

    /// Returns when everything written is safe.
    ///
    /// # Errors
    /// When it cannot be made safe.
    fn flush(&self) -> Result<(), StoreError>;
}

/// A probe that has been heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownProbe {
    /// Its stable identity.
    pub id: String,
    /// Host that it reports on.
    pub host_name: String,
    /// When its first stream opened.
    #[serde(with = "unix_nanos")]
    pub first_seen: Timestamp,
    /// When it was last heard of, give or take a few seconds.
    #[serde(with = "unix_nanos")]
    pub last_seen: Timestamp,
}

/// What can go wrong. Each says which file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator stops the other process, or picks another directory.
    #[error("{path} is in use by another process: stop that one, or give this one a --data-dir of its own")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The operator restores or moves the file away. We never delete it.
    #[error(
        "{path} is damaged or is no store ({detail}): restore it from a copy, or move it away to begin with an empty store \
         (the map comes back from the probes; nothing was changed or deleted)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The operator starts the program that wrote it, or picks another directory.
    #[error(
        "{path} has the format {format}, and this program knows {known}: start the one that wrote it, or give this one a --data-dir of its own"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: String,
        /// The one that is known.
        known: &'static str,
    },
    /// The operator frees space, or gives permissions.
    #[error("{path} cannot be read or written: see to its directory's permissions and free space")]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

mod unix_nanos {
    use base::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.unix_nanos())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(deserializer).map(Timestamp::from_unix_nanos)
    }
}
