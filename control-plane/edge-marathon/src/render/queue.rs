//! What waits for offers, and why.

use base::Timestamp;
use scheduler::mesos::{Attribute, Offer, ResourceValue};
use scheduler::model::spec::Spec;
use scheduler::{QueueItem, Reason};

use crate::json::Json;
use crate::json::app::write_app;
use crate::json::pod::write_pod;

/// `{"queue": [...]}`. The role is told where it is not the default: one client knows no such field.
pub(crate) fn queue(json: &mut Json, items: &[QueueItem], default_role: &str, with_offers: bool, now: Timestamp) {
    json.object(|json| json.array_field("queue", items, |json, it| item(json, it, default_role, with_offers, now)));
}

fn item(json: &mut Json, it: &QueueItem, default_role: &str, with_offers: bool, now: Timestamp) {
    json.object(|json| {
        json.integer_field("count", it.count);
        json.object_field("delay", |json| {
            let left = it.delayed_until.map_or(0, |until| until.since(now).as_secs());
            json.integer_field("timeLeftSeconds", left);
            json.bool_field("overdue", it.delayed_until.is_none());
        });
        json.time_field("since", it.since);
        if it.role != default_role {
            json.text_field("role", &it.role);
        }
        json.object_field("processedOffersSummary", |json| {
            json.integer_field("processedOffersCount", it.processed);
            json.integer_field("unusedOffersCount", it.unused);
            json.time_if("lastUnusedOfferAt", it.last_unused);
            json.time_if("lastUsedOfferAt", it.last_used);
            let mut latest = [0_u64; Reason::ALL.len()];
            for unused in &it.unused_offers {
                if let Some(first) = unused.reasons.first() {
                    latest[*first as usize] += 1;
                }
            }
            summary(json, "rejectSummaryLastOffers", &latest, it.unused_offers.len() as u64);
            summary(json, "rejectSummaryLaunchAttempt", &it.declined, it.processed);
        });
        if with_offers {
            json.array_field("lastUnusedOffers", &it.unused_offers, |json, unused| {
                json.object(|json| {
                    json.key("offer");
                    offer(json, &unused.offer);
                    json.texts_field("reason", unused.reasons.iter().map(|reason| reason.word()));
                    json.time_field("timestamp", unused.at);
                });
            });
        }
        match &it.spec {
            Spec::App(app) => {
                json.key("app");
                write_app(json, app);
            }
            Spec::Pod(pod) => {
                json.key("pod");
                write_pod(json, pod, false);
            }
        }
    });
}

/// Each reason in order; what an earlier one has turned away does not come to a later one.
fn summary(json: &mut Json, key: &str, declined: &[u64; Reason::ALL.len()], processed: u64) {
    let mut left = processed;
    json.array_field(key, Reason::ALL, |json, (reason, word)| {
        let count = declined[reason as usize];
        json.object(|json| {
            json.text_field("reason", word);
            json.integer_field("declined", count);
            json.integer_field("processed", left);
        });
        left = left.saturating_sub(count);
    });
}

fn offer(json: &mut Json, it: &Offer) {
    let thousandths = |json: &mut Json, value: i64| {
        #[expect(clippy::cast_precision_loss, reason = "amounts of resources are far below 2^52 thousandths")]
        json.number_field("scalar", value as f64 / 1_000.0);
    };
    let ranges = |json: &mut Json, ranges: &[(u64, u64)]| {
        json.array_field("ranges", ranges, |json, (begin, end)| {
            json.object(|json| {
                json.integer_field("begin", *begin);
                json.integer_field("end", *end);
            });
        });
    };
    json.object(|json| {
        json.text_field("id", &it.id);
        json.text_field("hostname", &it.hostname);
        json.text_field("agentId", &it.agent_id);
        json.array_field("resources", &it.resources, |json, resource| {
            json.object(|json| {
                json.text_field("name", &resource.name);
                json.text_field("role", resource.role());
                match &resource.value {
                    ResourceValue::Scalar(value) => thousandths(json, *value),
                    ResourceValue::Ranges(all) => ranges(json, all),
                    ResourceValue::Set(names) => json.texts_field("set", names),
                }
            });
        });
        json.array_field("attributes", &it.attributes, |json, (name, value)| {
            json.object(|json| {
                json.text_field("name", name);
                match value {
                    Attribute::Text(text) => json.text_field("text", text),
                    Attribute::Scalar(value) => thousandths(json, *value),
                    Attribute::Ranges(all) => ranges(json, all),
                    Attribute::Set(names) => json.texts_field("set", names),
                }
            });
        });
    });
}
