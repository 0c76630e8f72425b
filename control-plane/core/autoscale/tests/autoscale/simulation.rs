//! An app under a load that comes and goes: instances take time to come up, samples get lost, and people interfere.

use std::time::Duration;

use autoscale::{Action, Autoscaler, Facts, Policy, Sample, Signal, Target};

use crate::at;

/// A generator that is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

const STEP: u64 = 15;
const CAPACITY: f64 = 50.0;

struct World {
    random: Random,
    policy: Policy,
    scaler: Autoscaler,
    instances: u32,
    /// When each began to run.
    running: Vec<u64>,
    last_scaled: u64,
    changes: Vec<(u64, u32, u32)>,
}

impl World {
    fn new(seed: u64) -> World {
        let policy = Policy { targets: vec![Target { signal: Signal::ConnectionsPerSecond, value: CAPACITY }], ..Policy::new(1, 40) };
        World {
            random: Random(seed),
            policy,
            scaler: Autoscaler::new(at(0)),
            instances: 2,
            running: vec![0, 0],
            last_scaled: 0,
            changes: Vec::new(),
        }
    }

    /// One look: so many connections a second come in, and of each instance in `lost` nothing is seen.
    fn step(&mut self, now: u64, load: f64, lost: u64) {
        let each = load / f64::from(u32::try_from(self.running.len().max(1)).unwrap());
        let samples: Vec<Sample> = self
            .running
            .iter()
            .map(|since| {
                let noise = 0.97 + self.random.below(60) as f64 / 1_000.0;
                let seen = self.random.below(100) >= lost;
                let values = seen.then_some((Signal::ConnectionsPerSecond, each * noise)).into_iter().collect();
                Sample { age: Duration::from_secs(now - since), values }
            })
            .collect();
        let complete = samples.iter().all(|it| !it.values.is_empty()) && samples.len() == self.instances as usize;
        let deploying = self.running.len() < self.instances as usize;
        let facts = Facts { instances: self.instances, last_scaled: at(self.last_scaled), deploying, failing: false, samples };
        let decision = self.scaler.decide(at(now), &self.policy, &facts);
        if let Action::Scale(to) = decision.action {
            assert!(!deploying, "it interfered with a deployment");
            assert!(to > self.instances || complete, "it shrank on missing data at {now}: {}", decision.reason);
            self.scaler.scaled(at(now));
            self.changes.push((now, self.instances, to));
            self.last_scaled = now;
            self.instances = to;
            self.running.truncate(to as usize);
        }
        // What is wanted comes up one look later, or two.
        if self.running.len() < self.instances as usize && self.random.below(2) == 0 {
            self.running.resize(self.instances as usize, now);
        }
    }
}

#[test]
fn it_follows_a_load_that_comes_and_goes() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        let peak = 100.0 + world.random.below(1_500) as f64;
        let mut now = 0;
        while now < 3_600 {
            now += STEP;
            world.step(now, peak, 0);
        }
        // The tolerance, and what is noise.
        let needed = (peak / CAPACITY).clamp(1.0, 40.0);
        let instances = f64::from(world.instances);
        assert!(
            instances * 1.15 >= needed && instances <= 1.15 * needed + 1.0,
            "seed {seed}: {instances} instances for {needed}: {:?}",
            world.changes
        );
        let settled = world.changes.len();
        while now < 7_200 {
            now += STEP;
            world.step(now, peak, 0);
        }
        assert!(world.changes.len() - settled <= 1, "seed {seed}: it does not come to rest: {:?}", world.changes);
        while now < 10_800 {
            now += STEP;
            world.step(now, 1.0, 0);
        }
        assert_eq!(world.instances, 1, "seed {seed}: {:?}", world.changes);
    }
}

#[test]
fn missing_samples_never_take_an_instance_away() {
    for seed in 0..200 {
        let mut world = World::new(seed);
        for step in 1..400 {
            let now = step * STEP;
            let load = if step / 50 % 2 == 0 { 600.0 } else { 40.0 };
            let lost = if step / 30 % 2 == 0 { 0 } else { 40 };
            // The assertion is in the step.
            world.step(now, load, lost);
            assert!((1..=40).contains(&world.instances));
        }
        assert!(world.changes.iter().any(|(_, from, to)| to > from), "seed {seed} saw nothing happen");
    }
}

#[test]
fn a_story_told_twice_is_the_same() {
    let tell = |seed| {
        let mut world = World::new(seed);
        (1..300).for_each(|step| world.step(step * STEP, f64::from(u32::try_from(step % 97).unwrap()) * 10.0, 5));
        world.changes
    };
    assert_eq!(tell(7), tell(7));
}
