//! `/logging`: how much each logger tells, changed as it runs.
//!
//! Marathon's loggers are classes of Java; ours are modules. `ROOT` is everything, and a name below `mesosphere` is this Marathon as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::{Answer, ApiError, judge, ok, parse, unprocessable};
use super::{Call, Context};
use crate::json::Reading;

/// Takes over how much each logger is to tell, by its name; those that are not named tell what was configured.
pub(crate) type SetLevels = Arc<dyn Fn(&BTreeMap<String, &'static str>) + Send + Sync>;

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
    levels: Mutex<BTreeMap<String, Level>>,
    changed: Notify,
}

#[derive(Clone, Copy)]
struct Level {
    word: &'static str,
    /// When it is as it was again.
    until: Option<Instant>,
}

impl Loggers {
    pub(super) fn with(configured: &str, set: SetLevels) -> Loggers {
        Loggers { set: Some(set), configured: configured.to_uppercase(), ..Loggers::default() }
    }

    fn levels(&self) -> MutexGuard<'_, BTreeMap<String, Level>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_over(&self, levels: &BTreeMap<String, Level>) {
        if let Some(set) = &self.set {
            set(&levels.iter().map(|(name, level)| (name.clone(), level.word)).collect());
        }
        self.changed.notify_one();
    }

    /// Ends levels that were set for a time; never ends itself.
    pub(super) async fn expire(&self) {
        loop {
            let next = self.levels().values().filter_map(|it| it.until).min();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = due => {
                    let (now, mut levels) = (Instant::now(), self.levels());
                    levels.retain(|_, level| level.until.is_none_or(|at| at > now));
                    self.take_over(&levels);
                }
            }
        }
    }
}

pub(super) fn route(context: &Context, call: &Call) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => ok(|json| {
            let levels = context.loggers().levels();
            json.object(|json| {
                if !levels.contains_key("ROOT") {
                    json.text_field("ROOT", &context.loggers().configured);
                }
                levels.iter().for_each(|(name, level)| json.text_field(name, &level.word.to_uppercase()));
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
    {
        let mut levels = context.loggers().levels();
        if !levels.contains_key(&logger) && levels.len() >= LOGGERS_MAX {
            return Err(unprocessable(format!("The levels of {LOGGERS_MAX} loggers are set already")));
        }
        let until = seconds.map(|it| Instant::now() + Duration::from_secs(it));
        levels.insert(logger.clone(), Level { word: level, until });
        context.loggers().take_over(&levels);
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
