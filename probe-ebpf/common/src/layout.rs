//! Fingerprints of layouts: whether a map that another build of the programs has made can be read by this one.

use crate::{Control, EdgeKey, EdgeValue, Owner};

/// 64-bit FNV-1a, which can run at compile time and is the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Of nothing.
    pub const EMPTY: Fingerprint = Fingerprint(0xcbf2_9ce4_8422_2325);

    /// With more bytes.
    pub const fn with(self, bytes: &[u8]) -> Self {
        let mut hash = self.0;
        let mut index = 0;
        while index < bytes.len() {
            hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
            index += 1;
        }
        Fingerprint(hash)
    }
}

/// Gives a structure the constant `LAYOUT`: names, places and sizes of its members, all of which must be named.
macro_rules! layout {
    ($type:ident { $($member:ident),+ $(,)? }) => {
        impl $type {
            /// Fingerprint of the layout: equal in two builds that read each other's maps.
            pub const LAYOUT: Fingerprint = Fingerprint::EMPTY
                $(.with(stringify!($member).as_bytes())
                  .with(&(core::mem::offset_of!($type, $member) as u64).to_le_bytes()))+
                .with(&(size_of::<$type>() as u64).to_le_bytes());

            /// Does not compile when a member is missing above.
            #[allow(dead_code, reason = "looked at by the compiler alone")]
            fn all_members_are_named(self) {
                let $type { $($member: _),+ } = self;
            }
        }
    };
}

layout!(Control { awake_until_ns, settled_ends });
layout!(EdgeKey { client, server, cgroup_id, netns, start_ns, tgid, server_port, protocol, direction });
layout!(EdgeValue {
    opened,
    closed,
    failed,
    retransmits,
    bytes_sent,
    bytes_received,
    rtt_us_sum,
    rtt_count,
    rtt_us_max,
    tick,
    chosen_port,
    last_ns,
});
layout!(Owner {
    cgroup_id,
    netns,
    start_ns,
    born_ns,
    counted_sent,
    counted_received,
    counted_retransmits,
    received_at_fin_wait2,
    original_server,
    local,
    tick,
    reserved,
    tgid,
    original_port,
    flags,
});
