//! What holds whatever is seen.

use std::time::Duration;

use autoscale::{Action, Autoscaler, Facts, Limits, Policy, Rule, Sample, Signal, Target};
use base::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::at;

fn signals() -> impl Strategy<Value = Signal> {
    (0..Signal::ALL.len()).prop_map(|at| Signal::ALL[at].0)
}

fn rules() -> impl Strategy<Value = Rule> {
    (0_u64..200, 0_u64..200, proptest::option::of(1_u32..5), proptest::option::of(1.1_f64..4.0)).prop_map(
        |(cooldown, stabilization, max_step, max_factor)| Rule {
            cooldown: Duration::from_secs(cooldown),
            stabilization: Duration::from_secs(stabilization),
            max_step,
            max_factor,
        },
    )
}

fn policies() -> impl Strategy<Value = Policy> {
    let targets = btree_map(signals(), 0.01_f64..1_000.0, 1..4)
        .prop_map(|targets| targets.into_iter().map(|(signal, value)| Target { signal, value }).collect::<Vec<_>>());
    (1_u32..20, 0_u32..40, targets, 0.0_f64..0.5, rules(), rules(), any::<bool>()).prop_map(
        |(min, more, targets, tolerance, up, down, dry_run)| Policy {
            targets,
            tolerance,
            up,
            down,
            dry_run,
            ..Policy::new(min, min + more)
        },
    )
}

fn samples() -> impl Strategy<Value = Sample> {
    let value = prop_oneof![9 => 0.0_f64..10_000.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(-5.0)];
    (0_u64..100, btree_map(signals(), value, 0..9)).prop_map(|(age, values)| Sample { age: Duration::from_secs(age), values })
}

fn known() -> impl Strategy<Value = Facts> {
    (0_u32..60, prop::bool::weighted(0.1), prop::bool::weighted(0.1), vec(samples(), 0..30)).prop_map(
        |(instances, deploying, failing, samples)| Facts { instances, last_scaled: Timestamp::EPOCH, deploying, failing, samples },
    )
}

fn blind(policy: &Policy, facts: &Facts) -> bool {
    let old = |it: &&Sample| it.age >= policy.warm_up;
    let seen = |signal| facts.samples.iter().filter(old).filter(|it| it.values.get(&signal).is_some_and(|it| it.is_finite())).count();
    policy.targets.iter().any(|target| seen(target.signal) < facts.instances as usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_ever_done_that_may_not_be(policy in policies(), story in vec((known(), 1_u64..60), 1..20)) {
        prop_assert!(policy.problems(Limits::DEFAULT).is_empty());
        let mut scaler = Autoscaler::new(at(0));
        let (mut now, mut last_scaled) = (0, None::<u64>);
        for (facts, later) in story {
            now += later;
            let decision = scaler.decide(at(now), &policy, &facts);
            prop_assert!(!decision.reason.is_empty());
            let Action::Scale(to) = decision.action else { continue };
            scaler.scaled(at(now));
            let current = facts.instances;
            prop_assert!(to != current && current > 0 && !facts.deploying && !policy.dry_run);
            prop_assert!((policy.min..=policy.max).contains(&to), "{to} is beyond the bounds");
            let within = (policy.min..=policy.max).contains(&current);
            if within {
                let rule = if to > current { policy.up } else { policy.down };
                prop_assert!(to > current || !blind(&policy, &facts), "it shrank blindly");
                prop_assert!(to < current || !facts.failing);
                prop_assert!(last_scaled.is_none_or(|at| now - at >= rule.cooldown.as_secs()), "too early");
                prop_assert!(rule.max_step.is_none_or(|step| to.abs_diff(current) <= step));
            }
            last_scaled = Some(now);
        }
    }

    #[test]
    fn more_load_never_means_fewer_instances(
        policy in policies(), current in 1_u32..40, loads in vec(0.0_f64..1_000.0, 1..40), more in 1.0_f64..10.0,
    ) {
        let signal = policy.targets[0].signal;
        let policy = Policy { targets: vec![policy.targets[0]], ..policy };
        let facts = |factor: f64| {
            let values: Vec<_> = loads.iter().map(|load| Some(load * factor)).collect();
            crate::facts(current, signal, &values)
        };
        let desired = |factor| Autoscaler::new(at(0)).decide(at(10_000), &policy, &facts(factor)).desired;
        prop_assert!(desired(more) >= desired(1.0));
    }
}
