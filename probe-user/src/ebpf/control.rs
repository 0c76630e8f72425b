//! What the probe tells the programs that run: that it lives.

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use probe_common::Control;

use super::{CaptureError, running::missing, sys};

/// Control maps of all objects.
pub(super) struct Controls {
    maps: Vec<MapData>,
    /// How long the programs stay awake without a word; `None`: they end with the probe, so they need not look at the clock.
    awake_for: Option<Duration>,
    /// See [`Control::settled_ends`].
    settled_ends: u64,
}

impl Controls {
    /// `settled_ends` is where the first object's own map stands.
    pub(super) fn new(awake_for: Option<Duration>) -> Self {
        Controls { maps: Vec::new(), awake_for, settled_ends: 0 }
    }

    /// Takes the control map of an object, and wakes its programs up.
    pub(super) fn take(&mut self, object: &mut Ebpf) -> Result<(), CaptureError> {
        let Some(Map::Array(map)) = object.take_map("CONTROL") else { return Err(missing("CONTROL")) };
        if self.maps.is_empty() {
            self.settled_ends = sys::lookup::<u32, Control>(map.fd().as_fd(), &0)?.unwrap_or_default().settled_ends;
        }
        self.maps.push(map);
        self.tell(self.settled_ends);
        Ok(())
    }

    /// Connection ends that earlier probes have told, and taken out of the table.
    pub(super) fn settled_ends(&self) -> u64 {
        self.settled_ends
    }

    /// Says that the probe lives, and how many connection ends it has taken out of the table.
    pub(super) fn tell(&mut self, settled_ends: u64) {
        self.settled_ends = settled_ends;
        let awake_until_ns = self
            .awake_for
            .map_or(u64::MAX, |awake_for| sys::monotonic_ns().saturating_add(u64::try_from(awake_for.as_nanos()).unwrap_or(u64::MAX)));
        for map in &self.maps {
            if let Err(error) = sys::update(map.fd().as_fd(), &0_u32, &Control { awake_until_ns, settled_ends }) {
                tracing::error!(%error, "kernel programs cannot be told that the probe lives");
            }
        }
    }
}
