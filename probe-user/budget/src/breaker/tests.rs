use proptest::prelude::*;

use super::*;

const EVERY: Duration = Duration::from_secs(5);
const MINUTE: u64 = 12;
const MB: u64 = 1_000_000;

fn budget() -> Budget {
    Budget { cpu_percent: Some(5.0), memory_bytes: Some(100 * MB) }
}

/// A probe whose optional work costs half as much when it is done half as often, on a machine with a clock that the test moves.
struct Probe {
    breaker: Breaker,
    reading: Reading,
    changes: Vec<Change>,
}

/// What it costs in percent of a CPU: whatever happens, and with nothing left out; and what is resident.
#[derive(Clone, Copy, Debug)]
struct Load {
    fixed: f64,
    optional: f64,
    resident: u64,
}

impl Load {
    fn cpu(fixed: f64, optional: f64) -> Self {
        Load { fixed, optional, resident: 40 * MB }
    }
}

impl Probe {
    fn new(budget: Budget) -> Self {
        let awake = Duration::from_secs(1_000);
        Probe { breaker: Breaker::new(budget), reading: Reading { awake, ..Reading::default() }, changes: Vec::new() }
    }

    fn percent(&self, load: Load) -> f64 {
        load.fixed + load.optional / f64::from(self.breaker.step().factor())
    }

    /// Goes on for so many readings; the mean of what it used, in percent.
    fn run(&mut self, load: Load, readings: u64) -> f64 {
        let before = self.reading;
        for _ in 0..readings {
            self.reading.cpu += EVERY.mul_f64(self.percent(load) / 100.0);
            self.reading.awake += EVERY;
            self.reading.resident_bytes = load.resident;
            self.changes.extend(self.breaker.take(self.reading));
        }
        let (cpu, time) = (self.reading.cpu - before.cpu, self.reading.awake - before.awake);
        cpu.as_secs_f64() / time.as_secs_f64() * 100.0
    }

    fn step(&self) -> u8 {
        self.breaker.step().number()
    }
}

#[test]
fn within_the_budget_nothing_is_left_out() {
    let mut probe = Probe::new(budget());
    probe.run(Load::cpu(1.0, 3.9), 60 * MINUTE);
    assert_eq!((probe.step(), probe.changes.len()), (0, 0));
}

#[test]
fn more_and_more_is_left_out_until_the_budget_is_kept_and_it_stays_so() {
    let mut probe = Probe::new(budget());
    probe.run(Load::cpu(1.0, 20.0), 5 * MINUTE);
    // 1 + 20 / 8 is within it.
    assert_eq!(probe.step(), 3);
    assert!(matches!(probe.changes[0].cause, Cause::Cpu { used, budget } if (20.9..21.1).contains(&used) && budget == 5.0));
    let settled = probe.changes.len();
    let used = probe.run(Load::cpu(1.0, 20.0), 120 * MINUTE);
    assert!(used < 5.0, "{used}");
    assert_eq!(probe.changes.len(), settled, "no step down that has to be taken back: {:?}", probe.changes);
}

#[test]
fn when_the_load_goes_everything_is_told_again_step_by_step() {
    let mut probe = Probe::new(budget());
    probe.run(Load::cpu(2.0, 60.0), 10 * MINUTE);
    assert_eq!(probe.step(), 4);
    probe.run(Load::cpu(0.2, 0.5), 1);
    assert_eq!(probe.step(), 4, "one good reading is no calm");
    // A full window, then the patience, for each of four steps.
    probe.run(Load::cpu(0.2, 0.5), 7 * MINUTE);
    assert_eq!(probe.step(), 0);
    assert!(probe.changes.iter().skip(4).all(|it| it.cause == Cause::Calm && it.to < it.from));
}

#[test]
fn a_load_that_comes_and_goes_makes_it_wait_longer_each_time() {
    let mut probe = Probe::new(budget());
    for _ in 0..30 {
        probe.run(Load::cpu(0.0, 9.0), MINUTE);
        probe.run(Load::cpu(0.0, 0.5), 3 * MINUTE);
    }
    // Two hours of it: with the first patience alone there would be 60 changes.
    assert!(probe.changes.len() < 35, "{}", probe.changes.len());
}

#[test]
fn memory_that_stays_over_its_budget_counts_and_a_peak_does_not() {
    let mut probe = Probe::new(budget());
    let at = |resident| Load { resident, ..Load::cpu(0.5, 0.5) };
    for _ in 0..20 {
        probe.run(at(150 * MB), 2);
        probe.run(at(60 * MB), 2);
    }
    assert_eq!(probe.step(), 0);
    probe.run(at(120 * MB), 2 * MINUTE);
    assert!(matches!(probe.changes[0].cause, Cause::Memory { used, .. } if used == 120 * MB), "{:?}", probe.changes);
    let high = probe.step();
    assert!(high >= 2);
    probe.run(at(95 * MB), 30 * MINUTE);
    assert_eq!(probe.step(), high, "just below is no calm");
    probe.run(at(50 * MB), 60 * MINUTE);
    assert_eq!(probe.step(), 0);
}

#[test]
fn who_stands_on_the_last_step_stays_there_and_says_it_once() {
    let mut probe = Probe::new(budget());
    probe.run(Load::cpu(30.0, 30.0), 60 * MINUTE);
    assert_eq!((probe.step(), probe.changes.len()), (4, 4));
}

#[test]
fn a_probe_that_stood_still_is_not_judged_by_that() {
    let mut probe = Probe::new(budget());
    probe.run(Load::cpu(1.0, 2.0), 2 * MINUTE);
    // Ten minutes stopped, then a burst that would be 20 % of one window and is nothing on average.
    probe.reading.awake += Duration::from_secs(600);
    probe.reading.cpu += Duration::from_secs(6);
    assert_eq!(probe.breaker.take(probe.reading), None);
    probe.run(Load::cpu(1.0, 2.0), 2 * MINUTE);
    assert_eq!(probe.step(), 0);
    // Clocks and counters that go backwards begin anew.
    probe.reading.awake -= Duration::from_secs(300);
    assert_eq!(probe.breaker.take(probe.reading), None);
    probe.reading.cpu = Duration::ZERO;
    probe.reading.awake += EVERY;
    assert_eq!(probe.breaker.take(probe.reading), None);
    probe.run(Load::cpu(1.0, 2.0), 2 * MINUTE);
    assert_eq!(probe.step(), 0);
}

#[test]
fn without_a_budget_there_is_no_end_and_another_budget_begins_anew() {
    let mut probe = Probe::new(Budget::default());
    probe.run(Load::cpu(90.0, 90.0), 10 * MINUTE);
    assert_eq!(probe.step(), 0);
    assert_eq!(probe.breaker.set_budget(budget()), None);
    probe.run(Load::cpu(90.0, 90.0), 10 * MINUTE);
    assert_eq!(probe.step(), 4);
    assert_eq!(probe.breaker.set_budget(budget()), None, "the same again changes nothing");
    let change = probe.breaker.set_budget(Budget { cpu_percent: Some(500.0), ..budget() });
    assert_eq!(change, Some(Change { from: Step::LAST, to: Step::FIRST, cause: Cause::NewBudget }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Loads that change every few minutes, and readings that come late.
    #[test]
    fn whatever_comes_the_budget_is_kept_where_it_can_be(
        loads in proptest::collection::vec((0.0..4.0_f64, 0.0..40.0_f64, 10..400_u64, 0..4_u64), 1..12),
    ) {
        let mut probe = Probe::new(budget());
        for (fixed, optional, readings, gap) in loads {
            // Above this it cannot be kept.
            let load = Load::cpu(fixed, optional);
            let kept = fixed + optional / 16.0 <= 5.0;
            let before = probe.changes.len();
            // Until the window holds nothing of the load before, whose calm may still lower.
            probe.run(load, 7);
            let settled = probe.changes.len();
            // Four steps of a window each.
            probe.run(load, 4 * 7);
            let steps = probe.step();
            let used = probe.run(load, readings);
            if kept && probe.step() >= steps {
                prop_assert!(used <= 5.0 + 1e-6, "{used} at {steps} with {load:?}");
            }
            for change in &probe.changes[before..] {
                prop_assert!(change.from.number().abs_diff(change.to.number()) == 1);
            }
            // Whoever lowers under a load that stays the same never has to take it back.
            let tail = &probe.changes[settled..];
            let lowered = tail.iter().position(|it| it.cause == Cause::Calm);
            if let Some(lowered) = lowered {
                prop_assert!(tail[lowered..].iter().all(|it| it.cause == Cause::Calm), "{tail:?}");
            }
            probe.reading.awake += Duration::from_secs(gap * 20);
        }
    }
}
