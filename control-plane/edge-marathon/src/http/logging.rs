//! `/logging`: how much each logger tells, changed as it runs.
//!
//! Marathon's loggers are classes of Java; ours are modules. `ROOT` is everything, and a name below `mesosphere` is this Marathon as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use super::answer::{Answer, ApiError, judge, ok, parse, unprocessable};
use super::{Call, Context};
use crate::json::Reading;

/// Takes over how much each logger is to tell, by its name; those that are not named tell what was configured.
pub type SetLevels = Arc<dyn Fn(&BTreeMap<String, &'static str>) + Send + Sync>;

/// Loggers whose levels can be set at a time.
const LOGGERS_MAX: usize = 100;
/// Bytes of a logger's name.
const NAME_MAX: usize = 200;

const LEVELS: [(&str, &str); 5] = [("trace", "trace"), ("debug", "debug"), ("info", "info"), ("warn", "warn"), ("error", "error")];

#[derive(Default)]
pub(super) struct Loggers {
    set: Option<SetLevels>,
    /// Of those that are not named.
    configured: String,
    levels: Mutex<Levels>,
}

#[derive(Default)]
struct Levels {
    /// With the number of the change that set it.
    by_name: BTreeMap<String, (&'static str, u64)>,
    changes: u64,
}

impl Loggers {
    pub(super) fn with(configured: &str, set: SetLevels) -> Loggers {
        Loggers { set: Some(set), configured: configured.to_uppercase(), ..Loggers::default() }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Levels) -> Option<T>) -> Option<T> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut levels)?;
        if let Some(set) = &self.set {
            set(&levels.by_name.iter().map(|(name, (level, _))| (name.clone(), *level)).collect());
        }
        Some(changed)
    }
}

pub(super) fn route(context: &Context, call: &Call) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => ok(|json| {
            let levels = context.loggers().levels.lock().unwrap_or_else(PoisonError::into_inner);
            json.object(|json| {
                if !levels.by_name.contains_key("ROOT") {
                    json.text_field("ROOT", &context.loggers().configured);
                }
                levels.by_name.iter().for_each(|(name, (level, _))| json.text_field(name, &level.to_uppercase()));
            });
        }),
        Method::POST => post(context, call),
        _ => Err(ApiError::no_method()),
    }
}

fn post(context: &Context, call: &Call) -> Answer {
    let (value, reading) = (parse(call)?, Reading::default());
    let form = reading.object(&value, "");
    let asked = form.map(|form| {
        if !form.has("level") {
            form.wrong("level", "error.path.missing");
        }
        let logger = form.required_string("logger");
        let is_name = logger.len() <= NAME_MAX
            && logger.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b':' | b'$' | b'-'));
        if !is_name {
            form.wrong("logger", "error.pattern");
        }
        (form.word("level", &LEVELS), logger, form.integer("durationSeconds", 1, 86_400 * 365))
    });
    judge(reading)?;
    let Some((Some(level), logger, seconds)) = asked else { return Err(unprocessable("Object is not valid")) };
    let number = context.loggers().change(|levels| {
        if !levels.by_name.contains_key(&logger) && levels.by_name.len() >= LOGGERS_MAX {
            return None;
        }
        levels.changes += 1;
        levels.by_name.insert(logger.clone(), (level, levels.changes));
        Some(levels.changes)
    });
    let Some(number) = number else {
        return Err(unprocessable(format!("The levels of {LOGGERS_MAX} loggers are set already")));
    };
    if let Some(seconds) = seconds {
        let (context, logger) = (context.clone(), logger.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = context.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
            }
            // Unless somebody has set it again meanwhile.
            context.loggers().change(|levels| match levels.by_name.get(&logger) {
                Some((_, set_by)) if *set_by == number => levels.by_name.remove(&logger),
                _ => None,
            });
        });
    }
    ok(|json| {
        json.object(|json| {
            json.text_field("level", level);
            json.text_field("logger", &logger);
            if let Some(seconds) = seconds {
                json.integer_field("durationSeconds", seconds);
            }
        });
    })
}
