//! When the faults end, the map shows what is true. A failure prints its seed: `SIM_SEED=<seed> cargo nextest run -p sim` runs that one alone.
#![expect(clippy::print_stderr, reason = "the seed is the bug report")]

use sim::{Faults, World};

/// Steps of 10 ms: half a minute in which things happen.
const LIVE: usize = 3_000;
/// Two and a half minutes: longer than a probe remembers what ended, and the map's window after that.
const REST: usize = 15_000;

fn converges(seeds: std::ops::Range<u64>, faults: Faults) {
    let chosen: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut edges = 0;
    for seed in chosen.map_or(seeds, |seed| seed..seed + 1) {
        let guard = Seed(seed);
        let mut world = World::new(seed, faults);
        for _ in 0..10 {
            world.live(LIVE / 10);
            assert_eq!(world.check(), Ok(()));
        }
        world.rest(REST);
        assert_eq!(world.check(), Ok(()));
        let truth = world.truth();
        edges += truth.matches(" -> ").count();
        assert_eq!(world.picture(), truth, "the map and the truth differ");
        drop(guard);
    }
    assert!(edges > 10, "worlds in which nobody talks to anybody prove nothing");
}

/// Says which seed it was when a test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SIM_SEED={}", self.0);
        }
    }
}

#[test]
fn without_faults() {
    converges(0..10, Faults { delay: 5, ..Faults::default() });
}

#[test]
fn with_broken_streams() {
    converges(100..130, Faults { broken_streams: 150, delay: 20, ..Faults::default() });
}

#[test]
fn with_killed_control_planes() {
    converges(200..230, Faults { killed_control_planes: 400, broken_streams: 500, delay: 20, ..Faults::default() });
}

#[test]
fn with_killed_probes() {
    converges(300..330, Faults { killed_probes: 400, broken_streams: 500, killed_control_planes: 1_000, delay: 20 });
}
