//! What can be read of the master: its state, written down in the words of the two APIs. Everything here is a function of a version of the state;
//! nothing here is asked of the core.

pub(crate) mod classic;
pub(crate) mod metrics;
pub(crate) mod operator;
mod resources;
pub(crate) mod sight;
mod state;
mod summary;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Timestamp;
use mesos_proto::v1;

use crate::driver::View;
use crate::leadership::Leader;

/// What is known beside the core's state.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// This master.
    pub(crate) info: Arc<v1::MasterInfo>,
    /// Who leads.
    pub(crate) leader: Option<Leader>,
    /// When this process began.
    pub(crate) started_at: Timestamp,
    /// When this master began to lead.
    pub(crate) elected_at: Option<Timestamp>,
    /// The flags, all of them.
    pub(crate) flags: Arc<BTreeMap<String, String>>,
    /// As told to clients; digits and dots alone, because some read every part as a number.
    pub(crate) build: Build,
}

/// What is running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Build {
    /// The version of Mesos that this speaks.
    pub(crate) version: &'static str,
    /// Our own.
    pub(crate) product: &'static str,
}

impl Build {
    /// The only one there is.
    pub(crate) const THIS: Build = Build { version: "1.11.0", product: env!("CARGO_PKG_VERSION") };
}

/// State and surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) view: Arc<View>,
    pub(crate) about: About,
    /// Who looks.
    pub(crate) viewer: sight::Viewer,
}
