//! Answers of CRI runtimes: no bytes make the conversion panic, and what it tells is within its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_probe::containers::{ContainerFacts, Source};
use orchestrator_probe::cri::facts::{self, Telling};
use orchestrator_probe::mask::Masks;
use prost::Message;
use proto::cri::v1::{ContainerStatusResponse, ImageStatusResponse, PodSandboxStatusResponse};

/// A record with labels, variables, ports and addresses at their limits.
const RECORD_MAX: usize = 256 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let telling = Telling { source: Source::Cri(0), runtime: "containerd".to_owned(), environment: true, masks: Masks::default() };
    let check = |facts: &ContainerFacts| {
        assert!(facts.record.encoded_len() <= RECORD_MAX);
        assert!(facts.record.id.bytes().all(|byte| byte.is_ascii_graphic()));
    };
    let pod = PodSandboxStatusResponse::decode(bytes).ok().and_then(|answer| facts::pod(answer, &telling));
    if let Some((_, Some((own, _)))) = &pod {
        check(own);
    }
    if let Ok(answer) = ContainerStatusResponse::decode(bytes) {
        facts::pod_of(&answer);
        if let Some((told, _)) = facts::container(answer, pod.as_ref().map(|(pod, _)| pod), &telling) {
            check(&told);
        }
    }
    if let Ok(answer) = ImageStatusResponse::decode(bytes) {
        facts::image(answer, &telling.masks);
    }
});
