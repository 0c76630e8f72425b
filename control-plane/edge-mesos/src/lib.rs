//! Everything between a Mesos client and the master.
//!
//! Around the pure core (`master`) stand here: the loop that owns it ([`driver`]), the registry that outlives it ([`RegistryStore`]), the HTTP
//! APIs of a Mesos master ([`router`]) and the streams of agents ([`AgentService`]). Clients that know nothing of us are to find every detail as
//! they are used to: paths, checks and their order, codes, texts, framing.
//!
//! Must never know the map, nor decide anything about agents, frameworks and tasks: the core does.
//!
//! Reads never touch the core. Whoever wants to know something is handed a version of the master's state, which costs the loop next to nothing,
//! and renders it elsewhere.

mod acl;
mod agents;
mod clock;
pub mod driver;
mod files;
mod flags;
mod guards;
mod http;
mod json;
mod leadership;
mod pieces;
mod store;
#[cfg(test)]
mod testing;
mod view;
mod whitelist;

pub use acl::Acls;
pub use agents::AgentService;
pub use clock::Clock;
pub use driver::{FrameworkStream, MasterHandle, Stopped};
pub use files::Files;
pub use flags::{FlagError, Flags};
pub use http::{AgentAddress, Context, Credentials, Limits, router};
pub use leadership::{Leader, Leadership};
pub use store::{DiskRegistry, MemoryRegistry, RegistryStore, StoreError};
pub use view::metrics::prometheus_page;
pub use whitelist::{watch_whitelist, whitelist_file};

/// A random UUID as text.
pub fn new_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
