//! Where what is ours stands.

use zksync::RESERVED;

/// Paths of a link's own znodes.
#[derive(Clone, Debug)]
pub struct Reserved {
    root: String,
}

impl Reserved {
    /// Those of the link `id`.
    pub fn of(id: &str) -> Reserved {
        Reserved { root: format!("{RESERVED}/links/{id}") }
    }

    /// Above all of them.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whose version fences.
    pub fn epoch(&self) -> String {
        format!("{}/epoch", self.root)
    }

    /// What stands there while `leader` leads.
    pub(super) fn epoch_of(leader: u64) -> String {
        format!("{leader:016x}")
    }

    /// Above the slots.
    pub fn slots(&self) -> String {
        format!("{}/j", self.root)
    }

    /// Where it is decided who leads; on B alone.
    pub fn election(&self) -> String {
        format!("{}/election", self.root)
    }

    /// Where a transaction tells what it did.
    pub fn slot(&self, sequence: u64) -> String {
        format!("{}/j/{}", self.root, sequence % zksync::SLOTS)
    }

    /// Where it stands what both sides agree on.
    pub fn base(&self) -> String {
        format!("{}/base", self.root)
    }

    /// What is written to compare clocks.
    pub fn heartbeat(&self) -> String {
        format!("{}/hb", self.root)
    }
}
