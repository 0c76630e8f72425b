//! What holds for every sequence of inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use controls::{
    Allowance, CallEffect, CallId, CallInput, CallLimits, Calls, Cause, End, Grant, LinkId, PipeEffect, PipeInput, PipeLimits, PipeRefusal,
    Pipes,
};
use proptest::prelude::*;

const CALLS: CallLimits = CallLimits { per_probe: 3, total: 7 };

#[derive(Clone, Debug)]
enum CallStep {
    Link(u8),
    Unlink(u8),
    Call(u8, u8),
    Answer(u8, u8),
    Wait(u8),
}

fn call_step() -> impl Strategy<Value = CallStep> {
    prop_oneof![
        (0..4_u8).prop_map(CallStep::Link),
        any::<u8>().prop_map(CallStep::Unlink),
        (0..5_u8, 1..20_u8).prop_map(|(probe, patience)| CallStep::Call(probe, patience)),
        (any::<u8>(), any::<u8>()).prop_map(|(link, call)| CallStep::Answer(link, call)),
        (0..10_u8).prop_map(CallStep::Wait),
    ]
}

proptest! {
    /// Every call that was made is settled exactly once, no later than its deadline, and at once when its probe is gone.
    #[test]
    fn every_call_is_settled_once(steps in proptest::collection::vec(call_step(), 0..200)) {
        let mut calls = Calls::new(CALLS);
        let mut now = Timestamp::EPOCH;
        let mut made = 0_u64;
        let mut links: Vec<(Arc<str>, LinkId)> = Vec::new();
        let mut unsettled: BTreeMap<CallId, (LinkId, Timestamp)> = BTreeMap::new();
        let mut settled: BTreeSet<CallId> = BTreeSet::new();
        for step in steps {
            let mut out = Vec::new();
            let mut asked = None;
            let input = match step {
                CallStep::Link(probe) => {
                    let link = LinkId(links.len() as u64 + 1);
                    links.push((probe.to_string().into(), link));
                    CallInput::Linked { probe: probe.to_string().into(), link }
                }
                CallStep::Unlink(link) if !links.is_empty() => {
                    let (probe, link) = links[usize::from(link) % links.len()].clone();
                    CallInput::Unlinked { probe, link }
                }
                CallStep::Call(probe, patience) => {
                    made += 1;
                    let patience = Duration::from_secs(patience.into());
                    asked = Some((CallId(made), now + patience));
                    CallInput::Called { call: CallId(made), probe: probe.to_string().into(), patience }
                }
                CallStep::Answer(link, call) if !links.is_empty() && made > 0 => {
                    let link = links[usize::from(link) % links.len()].1;
                    CallInput::Answered { link, call: CallId(u64::from(call) % made + 1) }
                }
                CallStep::Wait(seconds) => {
                    now = now + Duration::from_secs(seconds.into());
                    CallInput::Tick
                }
                CallStep::Unlink(_) | CallStep::Answer(..) => continue,
            };
            calls.step(now, input.clone(), &mut out);
            for effect in out {
                match effect {
                    CallEffect::Send { call, link } => {
                        let (asked, deadline) = asked.expect("only a call is sent");
                        prop_assert_eq!(asked, call);
                        unsettled.insert(call, (link, deadline));
                    }
                    CallEffect::Deliver { call } | CallEffect::Fail { call, .. } => {
                        prop_assert!(settled.insert(call), "{call:?} is settled twice");
                        unsettled.remove(&call);
                    }
                    CallEffect::Stray { .. } | CallEffect::Displaced { .. } => {}
                }
            }
            if let CallInput::Unlinked { link, .. } = input {
                prop_assert!(unsettled.values().all(|(of, _)| *of != link), "calls of a link that has ended still wait");
            }
            if matches!(input, CallInput::Tick) {
                prop_assert!(unsettled.values().all(|(_, deadline)| *deadline > now), "a call waits beyond its deadline");
            }
            prop_assert_eq!(calls.waiting(), unsettled.len());
            prop_assert!(unsettled.len() <= CALLS.total);
            prop_assert_eq!(unsettled.len() + settled.len(), usize::try_from(made).unwrap());
        }
    }

    /// A receiver that is told nothing but what the sender sent holds no more than the window, and everything arrives in the end.
    #[test]
    fn nothing_is_lost_and_no_more_than_the_window_is_held(
        window in 1..500_u64,
        sizes in proptest::collection::vec(1..400_u64, 1..100),
        reads in proptest::collection::vec(0..300_u64, 1..200),
    ) {
        let total: u64 = sizes.iter().sum();
        let mut sizes: VecDeque<u64> = sizes.into();
        let (mut grant, mut allowance) = (Grant::new(window), Allowance::default());
        allowance.raise(grant.limit());
        let (mut arrived, mut stalled) = (0, 0);
        let mut reads = reads.into_iter().chain(std::iter::repeat(window));
        while arrived < total {
            while let Some(size) = sizes.front_mut() {
                let sent = (*size).min(allowance.room());
                if sent == 0 {
                    break;
                }
                allowance.spend(sent);
                prop_assert_eq!(grant.received(sent), Ok(()));
                *size -= sent;
                if *size == 0 {
                    sizes.pop_front();
                }
            }
            prop_assert!(grant.held() <= window);
            let read = reads.next().unwrap().min(grant.held());
            arrived += read;
            if let Some(limit) = grant.taken(read) {
                allowance.raise(limit);
            }
            stalled = if read == 0 { stalled + 1 } else { 0 };
            prop_assert!(stalled < 1_000, "it does not go on");
        }
        prop_assert_eq!(arrived, total);
    }
}

#[derive(Clone, Debug)]
enum PipeStep {
    Attach(u8, bool),
    Detach(u8, bool),
    Close(u8),
    Wait(u16),
}

fn pipe_step() -> impl Strategy<Value = PipeStep> {
    prop_oneof![
        (0..6_u8, any::<bool>()).prop_map(|(pipe, client)| PipeStep::Attach(pipe, client)),
        (0..6_u8, any::<bool>()).prop_map(|(pipe, client)| PipeStep::Detach(pipe, client)),
        (0..6_u8).prop_map(PipeStep::Close),
        (0..400_u16).prop_map(PipeStep::Wait),
    ]
}

proptest! {
    /// A pipe that was said to be closed is closed until it is forgotten; one with both ends connected is never closed for idleness; and the
    /// tables keep their limits.
    #[test]
    fn pipes_follow_the_rules(steps in proptest::collection::vec(pipe_step(), 0..200)) {
        let limits = PipeLimits { closed: 3, ..PipeLimits::scope(4) };
        let mut pipes = Pipes::new(limits);
        let mut now = Timestamp::EPOCH;
        let mut attached: BTreeMap<(Arc<str>, End), usize> = BTreeMap::new();
        let end_of = |client: bool| if client { End::Client } else { End::Probe };
        for step in steps {
            let mut out = Vec::new();
            match &step {
                PipeStep::Attach(pipe, client) => {
                    let (pipe, end): (Arc<str>, End) = (pipe.to_string().into(), end_of(*client));
                    let (knew, could) = (pipes.knows(&pipe), pipes.may_connect(&pipe));
                    pipes.step(now, PipeInput::Attach { pipe: pipe.clone(), end }, &mut out);
                    match out.as_slice() {
                        [PipeEffect::Attached { is_new }] => {
                            prop_assert!(could);
                            prop_assert_eq!(*is_new, !knew);
                            *attached.entry((pipe, end)).or_default() += 1;
                        }
                        [PipeEffect::Refused(PipeRefusal::Closed)] => prop_assert!(!could),
                        [PipeEffect::Refused(PipeRefusal::TooMany)] => prop_assert_eq!(pipes.open_count(), limits.open),
                        other => prop_assert!(false, "{:?}", other),
                    }
                    continue;
                }
                PipeStep::Detach(pipe, client) => {
                    let key: (Arc<str>, End) = (pipe.to_string().into(), end_of(*client));
                    let Some(count) = attached.get_mut(&key).filter(|count| **count > 0) else { continue };
                    *count -= 1;
                    pipes.step(now, PipeInput::Detach { pipe: key.0, end: key.1 }, &mut out);
                    prop_assert_eq!(&out, &[]);
                }
                PipeStep::Close(pipe) => {
                    let pipe: Arc<str> = pipe.to_string().into();
                    let was_open = pipes.knows(&pipe) && pipes.may_connect(&pipe);
                    pipes.step(now, PipeInput::Close { pipe: pipe.clone(), cause: Cause::Asked }, &mut out);
                    prop_assert_eq!(out.len(), usize::from(was_open));
                }
                PipeStep::Wait(seconds) => {
                    now = now + Duration::from_secs((*seconds).into());
                    pipes.step(now, PipeInput::Tick, &mut out);
                    for effect in &out {
                        let PipeEffect::Closed { pipe, cause: Cause::Idle } = effect else {
                            prop_assert!(false, "{effect:?}");
                            continue;
                        };
                        let at = |end| attached.get(&(pipe.clone(), end)).copied().unwrap_or_default();
                        prop_assert!(at(End::Client) == 0 || at(End::Probe) == 0, "{pipe} had both ends");
                    }
                }
            }
            for effect in out {
                if let PipeEffect::Closed { pipe, .. } = effect {
                    attached.retain(|(of, _), _| *of != pipe);
                }
            }
            prop_assert!(pipes.open_count() <= limits.open && pipes.closed_count() <= limits.closed);
        }
    }
}
