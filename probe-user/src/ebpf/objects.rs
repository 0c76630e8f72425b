//! The compiled kernel programs, inside this binary. The build script says whether they were there.

/// The objects of the tiers.
#[derive(Clone, Copy)]
pub(super) struct Objects {
    /// Connections.
    pub(super) sockets: &'static [u8],
    /// Processes and cgroups.
    pub(super) processes: &'static [u8],
    /// Answers of DNS servers.
    pub(super) dns: &'static [u8],
}

/// `None` in a probe that was built without them.
#[cfg(kernel_programs)]
pub(super) const EMBEDDED: Option<Objects> = Some(Objects {
    sockets: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.o")),
    processes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/processes.o")),
    dns: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dns.o")),
});

/// See above.
#[cfg(not(kernel_programs))]
pub(super) const EMBEDDED: Option<Objects> = None;
