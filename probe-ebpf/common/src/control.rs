//! What the probe tells running programs.

/// The one entry of each object's control map. It outlives the probe where the programs do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The programs return at once from this instant on, by the clock that stands still in suspension (`CLOCK_MONOTONIC`). A living probe moves
    /// it on; what is left behind by one that was removed costs nothing.
    pub awake_until_ns: u64,
    /// Connection ends that are among `counter::ENDS_SEEN` and no longer in the edge table, because a probe has taken them out after it had
    /// told them. Wraps.
    pub settled_ends: u64,
}

const _: () = assert!(size_of::<Control>() == 16);
