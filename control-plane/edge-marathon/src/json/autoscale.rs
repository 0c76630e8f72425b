//! The policy of an app's number of instances as JSON.

use std::time::Duration;

use autoscale::{Action, DAYS, Decision, Limits, Policy, Rule, Signal, Target, Window};
use serde_json::Value;

use super::reader::Reader;
use super::{Json, Reading};

/// Fields of a policy.
const POLICY_FIELDS: [&str; 11] =
    ["min", "max", "targets", "tolerance", "intervalSeconds", "warmUpSeconds", "scaleUp", "scaleDown", "schedule", "dryRun", "enabled"];
/// Fields of `scaleUp` and `scaleDown`.
const RULE_FIELDS: [&str; 4] = ["cooldownSeconds", "stabilizationSeconds", "maxStep", "maxFactor"];
/// Fields of a window of the schedule.
const WINDOW_FIELDS: [&str; 7] = ["name", "days", "from", "to", "utcOffset", "min", "max"];

/// The policy that `value` is; what is wrong with it is noted.
pub(crate) fn read_policy(value: &Value, reading: &Reading) -> Option<Policy> {
    let form = reading.object(value, "")?;
    form.only(&POLICY_FIELDS);
    let min = form.u32("min").unwrap_or(1);
    if !form.has("max") {
        form.wrong("max", "error.path.missing");
    }
    let mut policy = Policy::new(min, form.u32("max").unwrap_or(min));
    policy.targets = form.objects("targets", read_target).unwrap_or_default().into_iter().flatten().collect();
    policy.tolerance = form.number("tolerance", 0.0).unwrap_or(policy.tolerance);
    policy.interval = seconds(&form, "intervalSeconds").unwrap_or(policy.interval);
    policy.warm_up = seconds(&form, "warmUpSeconds").unwrap_or(policy.warm_up);
    policy.up = form.object("scaleUp").map_or(policy.up, |form| read_rule(&form, policy.up));
    policy.down = form.object("scaleDown").map_or(policy.down, |form| read_rule(&form, policy.down));
    policy.schedule = form.objects("schedule", read_window).unwrap_or_default();
    policy.dry_run = form.bool("dryRun").unwrap_or(false);
    policy.enabled = form.bool("enabled").unwrap_or(true);
    for problem in policy.problems(Limits::DEFAULT) {
        reading.meaning(problem.path, problem.message);
    }
    Some(policy)
}

/// The policy that a text is, or everything that is wrong with it in one line.
pub(crate) fn parse_policy(text: &str) -> Result<Policy, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let reading = Reading::default();
    let policy = read_policy(&value, &reading);
    let problems = reading.form.into_inner().into_iter().chain(reading.meaning.into_inner());
    let problems: Vec<String> = problems.map(|it| format!("{}: {}", it.path, it.message)).collect();
    match policy {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => Err(problems.join("; ")),
    }
}

fn seconds(form: &Reader<'_>, key: &str) -> Option<Duration> {
    Some(Duration::from_secs_f64(form.number(key, 0.0)?.min(1e9)))
}

fn read_target(form: Reader<'_>) -> Option<Target> {
    form.only(&["signal", "value"]);
    let words: Vec<(&str, Signal)> = Signal::ALL.iter().map(|(signal, word)| (*word, *signal)).collect();
    for key in ["signal", "value"] {
        if !form.has(key) {
            form.wrong(key, "error.path.missing");
        }
    }
    Some(Target { signal: form.word("signal", &words)?, value: form.number("value", 0.0)? })
}

fn read_rule(form: &Reader<'_>, default: Rule) -> Rule {
    form.only(&RULE_FIELDS);
    Rule {
        cooldown: seconds(form, "cooldownSeconds").unwrap_or(default.cooldown),
        stabilization: seconds(form, "stabilizationSeconds").unwrap_or(default.stabilization),
        max_step: form.u32("maxStep").or(default.max_step),
        max_factor: form.number("maxFactor", 0.0).or(default.max_factor),
    }
}

fn read_window(form: Reader<'_>) -> Window {
    form.only(&WINDOW_FIELDS);
    let mut days = [!form.has("days"); 7];
    for (path, item) in form.items("days").into_iter().flatten() {
        let day = item.as_str().map(str::to_lowercase).and_then(|word| DAYS.iter().position(|day| word.starts_with(day)));
        match day {
            Some(day) => days[day] = true,
            None => form.reading().form(path, "error.unknown.enum.literal"),
        }
    }
    let minute = |key: &str| {
        let text = form.required_string(key);
        // A day that ends at midnight may say so; none begins there.
        let parsed = minute_of(&text, if key == "to" { 24 * 60 } else { 24 * 60 - 1 });
        if parsed.is_none() && !text.is_empty() {
            form.wrong(key, "error.pattern");
        }
        u16::try_from(parsed.unwrap_or(0)).unwrap_or(0)
    };
    let offset = form.string("utcOffset").unwrap_or_default();
    let utc_offset = match offset.as_str() {
        "" | "Z" => Some(0),
        text => text.strip_prefix('-').map(|it| (-1, it)).or(text.strip_prefix('+').map(|it| (1, it))).and_then(|(sign, rest)| {
            let minutes = minute_of(rest, 14 * 60)?;
            i16::try_from(minutes).ok().map(|it| sign * it)
        }),
    };
    if utc_offset.is_none() {
        form.wrong("utcOffset", "error.pattern");
    }
    Window {
        name: form.string("name").unwrap_or_default(),
        days,
        from: minute("from"),
        to: minute("to"),
        utc_offset: utc_offset.unwrap_or(0),
        min: form.u32("min"),
        max: form.u32("max"),
    }
}

/// `HH:MM` as minutes, at most `most`.
fn minute_of(text: &str, most: u32) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |it: &str| (it.len() == 2 && it.bytes().all(|byte| byte.is_ascii_digit())).then(|| it.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= most).then_some(all)
}

/// A policy with everything that it leaves to the defaults.
pub(crate) fn write_policy(json: &mut Json, policy: &Policy) {
    json.object(|json| {
        json.integer_field("min", policy.min);
        json.integer_field("max", policy.max);
        json.array_field("targets", &policy.targets, |json, target| {
            json.object(|json| {
                json.text_field("signal", target.signal.word());
                json.number_field("value", target.value);
            });
        });
        json.number_field("tolerance", policy.tolerance);
        json.number_field("intervalSeconds", policy.interval.as_secs_f64());
        json.number_field("warmUpSeconds", policy.warm_up.as_secs_f64());
        for (key, rule) in [("scaleUp", &policy.up), ("scaleDown", &policy.down)] {
            json.object_field(key, |json| {
                json.number_field("cooldownSeconds", rule.cooldown.as_secs_f64());
                json.number_field("stabilizationSeconds", rule.stabilization.as_secs_f64());
                if let Some(step) = rule.max_step {
                    json.integer_field("maxStep", step);
                }
                if let Some(factor) = rule.max_factor {
                    json.number_field("maxFactor", factor);
                }
            });
        }
        json.array_field("schedule", &policy.schedule, |json, window| {
            json.object(|json| {
                json.text_field("name", &window.name);
                json.texts_field("days", DAYS.iter().zip(window.days).filter(|(_, open)| *open).map(|(day, _)| *day));
                for (key, minute) in [("from", window.from), ("to", window.to)] {
                    json.text_field(key, &format!("{:02}:{:02}", minute / 60, minute % 60));
                }
                let (sign, offset) = (if window.utc_offset < 0 { '-' } else { '+' }, window.utc_offset.unsigned_abs());
                json.text_field("utcOffset", &format!("{sign}{:02}:{:02}", offset / 60, offset % 60));
                for (key, bound) in [("min", window.min), ("max", window.max)] {
                    if let Some(bound) = bound {
                        json.integer_field(key, bound);
                    }
                }
            });
        });
        json.bool_field("dryRun", policy.dry_run);
        json.bool_field("enabled", policy.enabled);
    });
}

/// The fields of a decision: what was done or why not, and everything that it was made from.
pub(crate) fn decision_fields(json: &mut Json, decision: &Decision) {
    let (word, held) = match decision.action {
        Action::Scale(to) if to > decision.current => ("scaleUp", None),
        Action::Scale(_) => ("scaleDown", None),
        Action::Hold(why) => ("hold", Some(why.word())),
    };
    json.time_field("at", decision.at);
    json.text_field("action", word);
    json.text_if("heldBecause", held);
    json.integer_field("currentInstances", decision.current);
    json.integer_field("desiredInstances", decision.desired);
    if let Action::Scale(to) = decision.action {
        json.integer_field("instances", to);
    }
    json.object_field("bounds", |json| {
        json.integer_field("min", decision.bounds.min);
        json.integer_field("max", decision.bounds.max);
        json.text_if("window", decision.bounds.window.as_deref());
    });
    json.array_field("signals", &decision.measured, |json, it| {
        json.object(|json| {
            json.text_field("signal", it.signal.word());
            json.number_field("target", it.target);
            if let Some(average) = it.average {
                json.number_field("average", average);
            }
            json.integer_field("instancesSeen", it.seen);
            json.integer_field("instancesMissing", it.missing);
            if let Some(needed) = it.needed {
                json.integer_field("instancesNeeded", needed);
            }
        });
    });
    json.text_field("reason", &decision.reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_back_as_it_was() {
        let text = r#"{"min": 2, "max": 9, "targets": [{"signal": "connectionsPerSecond", "value": 50}, {"signal": "cpu", "value": 0.6}],
            "tolerance": 0.2, "intervalSeconds": 5, "scaleUp": {"cooldownSeconds": 7, "maxStep": 3}, "scaleDown": {"maxFactor": 1.5},
            "schedule": [{"name": "office", "days": ["mon", "Friday"], "from": "08:00", "to": "24:00", "utcOffset": "-03:30", "min": 4}],
            "dryRun": true}"#;
        let policy = parse_policy(text).unwrap();
        assert_eq!(policy.schedule[0].utc_offset, -210);
        assert_eq!(policy.up.max_step, Some(3));
        assert!(Json::text(|json| write_policy(json, &policy)).contains(r#""to":"24:00""#));
        assert_eq!(parse_policy(&Json::text(|json| write_policy(json, &policy))).unwrap(), policy);
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        for (text, problem) in [
            ("{", "no JSON: EOF while parsing an object at line 1 column 1"),
            ("[]", "/: error.expected.jsobject"),
            (
                r#"{"max": 3, "targets": [{"signal": "cpu", "value": 1, "Value": 2}], "scaleUp": {"cooldown": 3}}"#,
                "/targets(0)/Value: unknown; there are signal, value; \
                 /scaleUp/cooldown: unknown; there are cooldownSeconds, stabilizationSeconds, maxStep, maxFactor",
            ),
            (r#"{"max": 3, "targets": []}"#, "/targets: must not be empty without a schedule"),
            (
                r#"{"max": 3, "targets": [{"signal": "x", "value": 1}]}"#,
                "/targets(0)/signal: error.unknown.enum.literal; /targets: must not be empty without a schedule",
            ),
            (
                r#"{"min": 4, "max": 3, "targets": [{"signal": "cpu", "value": 0}]}"#,
                "/max: must not be less than min; /targets(0)/value: must be more than 0",
            ),
            (
                r#"{"max": 3, "schedule": [{"from": "8", "to": "25:00", "days": []}]}"#,
                "/schedule(0)/from: error.pattern; /schedule(0)/to: error.pattern; /schedule(0)/days: must not be empty",
            ),
        ] {
            assert_eq!(parse_policy(text).unwrap_err(), problem);
        }
    }
}
