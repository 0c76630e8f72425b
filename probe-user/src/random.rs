//! Randomness of the process: session ids and jitter. Not for secrets.

use std::io::Read as _;
use std::time::Duration;

/// A small generator (SplitMix64), seeded by the kernel.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Seeded by the kernel; by the clock where that is refused.
    pub fn from_system() -> Self {
        let mut seed = [0; 8];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut seed));
        let state = if read.is_ok() { u64::from_ne_bytes(seed) } else { crate::clock::Now::read().boot.0 };
        Random { state }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 32 hexadecimal digits.
    pub fn id(&mut self) -> String {
        format!("{:016x}{:016x}", self.next_u64(), self.next_u64())
    }

    /// A pause between half of `pause` and the whole of it, so that many probes do not come back together.
    pub fn jitter(&mut self, pause: Duration) -> Duration {
        let share = u32::try_from(self.next_u64() % 1_000).unwrap_or(0);
        pause / 2 + pause / 2 * share / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_at_least_half_and_at_most_whole() {
        let mut random = Random::from_system();
        let pause = Duration::from_secs(4);
        for _ in 0..1_000 {
            let jittered = random.jitter(pause);
            assert!(jittered >= pause / 2 && jittered <= pause);
        }
    }

    #[test]
    fn two_ids_differ() {
        let mut random = Random::from_system();
        assert_ne!(random.id(), random.id());
        assert_ne!(Random::from_system().id(), Random::from_system().id());
        assert_eq!(random.id().len(), 32);
    }
}
