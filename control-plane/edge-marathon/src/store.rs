//! What survives a restart of the scheduler: definitions with their versions, groups, instances, deployments, the framework's id.

mod disk;
mod memory;
mod records;

use std::fmt::Debug;

use scheduler::words::{Loaded, Record};

pub use disk::DiskStore;
pub use memory::MemoryStore;

/// Where records are kept. Calls block; make them where that is allowed.
pub trait Store: Debug + Send + Sync + 'static {
    /// Everything that was written.
    ///
    /// # Errors
    /// When it cannot be read, or is not understood.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Writes all of `records`, in order, or none of them. They are safe when this returns.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    fn write(&self, records: &[Record]) -> Result<(), StoreError>;
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator sees to the disk, or stops whoever else has the file.
    #[error("the scheduler's store cannot be read or written")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The operator restores a copy. Nothing is ever made anew over it.
    #[error("the scheduler's store is damaged: {0}")]
    Damaged(String),
}

/// A record as every store keeps it: a key and a text, or no text when it is removed. Keys sort by kind, then by name.
pub use records::{Entry, decode, encode};
