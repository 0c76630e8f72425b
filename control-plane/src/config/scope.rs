//! Weave Scope's own command line and environment: who puts our image in the place of Scope's keeps the arguments. What means something here is
//! said in our keys, what does not is ignored with a line each, and what would silently do something else is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::{HTTP_ADDRESS, LOG_FILTER, Origin, SCOPE_FLAGS, WINDOW};

/// Where Scope's app listens unless it is told otherwise.
const ADDRESS: &str = ":4040";
/// Scope's own name and password, which it has until it is given others.
const ADMIN: &str = "admin";
/// Flags besides those that begin with `app.`, `probe.` or `weave.`.
const COMMON: [&str; 9] = ["mode", "debug", "weave", "dry-run", "no-app", "probe-only", "no-probe", "app-only", "service-token"];
/// Flags that are there or not, and have no word behind them.
const BOOLEAN: [&str; 12] = [
    "debug",
    "weave",
    "dry-run",
    "no-app",
    "probe-only",
    "no-probe",
    "app-only",
    "app.basicAuth",
    "app.externalUI",
    "app.log.http",
    "app.log.httpHeaders",
    "app.aws.create.tables",
];
const IS_A_PROBE: &str = "this program takes the place of Weave Scope's app; that of its probe is taken by orchestrator-probe, \
                          and Scope's own probe can go on and report to this program";

/// A name and a password that come in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.user)
    }
}

/// What was said in Scope's words.
#[derive(Clone, Debug, Default)]
pub struct ScopeWords {
    /// Values of our keys, and the flag that each comes from.
    values: Vec<(&'static str, &'static str, String)>,
    /// Flags of the key `scope-flags`, as they stand in it.
    flags: Vec<String>,
    /// Whether it was told to be the app, which then listens where Scope's did.
    is_app: bool,
    login: LoginWords,
    /// Whether it is only to be said if the arguments are right.
    pub dry_run: bool,
    /// What means nothing here, a line each.
    pub ignored: Vec<String>,
}

#[derive(Clone, Default)]
struct LoginWords {
    enabled: bool,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
}

impl fmt::Debug for LoginWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginWords").field("enabled", &self.enabled).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Takes Scope's words out of a command line, whose first word is the program. Without any of them it stays as it is.
///
/// # Errors
/// What cannot be done, for people.
pub(super) fn take(arguments: Vec<OsString>) -> Result<(Vec<OsString>, ScopeWords), String> {
    let mut words = ScopeWords::default();
    if !arguments.iter().skip(1).any(|it| it.to_str().is_some_and(|it| named(it).is_some())) {
        return Ok((arguments, words));
    }
    let mut arguments = arguments.into_iter().peekable();
    let mut ours: Vec<OsString> = arguments.next().into_iter().collect();
    let mut stray = 0;
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        if let Some((name, value)) = named(text) {
            let (name, value) = (name.to_owned(), value.map(str::to_owned));
            let value = match value {
                Some(value) => value,
                None if BOOLEAN.contains(&name.as_str()) => "true".to_owned(),
                // Whether a flag that means nothing here has a word behind it is not known; an address of the app means nothing either.
                None => {
                    let next = arguments.next_if(|next| next.to_str().is_some_and(|next| !next.starts_with('-')));
                    next.and_then(|next| next.into_string().ok()).unwrap_or_default()
                }
            };
            words.hear(&name, value, &mut ours)?;
        } else if text.starts_with('-') {
            // Each of our own flags has a value, either in the word or behind it.
            let has_value = text.contains('=') || matches!(text, "--help" | "-h" | "--version" | "-V");
            ours.push(argument);
            ours.extend(arguments.next_if(|_| !has_value));
        } else if matches!(text, "zk" | "help") {
            ours.push(argument);
            ours.extend(arguments.by_ref());
        } else {
            stray += 1;
        }
    }
    if stray > 0 {
        words.ignored.push("the addresses to which Weave Scope's probe would report mean nothing here".to_owned());
    }
    Ok((ours, words))
}

/// Name and value of a flag of Scope's, which takes one dash or two.
fn named(argument: &str) -> Option<(&str, Option<&str>)> {
    let text = argument.strip_prefix('-')?;
    let text = text.strip_prefix('-').unwrap_or(text);
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let is_known = COMMON.contains(&name) || ["app.", "probe.", "weave."].iter().any(|prefix| name.starts_with(prefix));
    is_known.then_some((name, value))
}

impl ScopeWords {
    fn hear(&mut self, name: &str, value: String, ours: &mut Vec<OsString>) -> Result<(), String> {
        let mut key = |key: &'static str, flag: &'static str| -> Result<(), String> {
            if value.is_empty() {
                return Err(format!("--{flag} needs a value"));
            }
            self.values.push((key, flag, value.clone()));
            Ok(())
        };
        match name {
            "app.http.address" => return key(HTTP_ADDRESS, "app.http.address"),
            "app.window" => return key(WINDOW, "app.window"),
            "app.log.level" => {
                let level = match value.to_lowercase().as_str() {
                    "debug" | "info" => value.to_lowercase(),
                    "warn" | "warning" => "warn".to_owned(),
                    "error" | "fatal" | "panic" => "error".to_owned(),
                    _ => return Err(format!("--app.log.level is {value:?}: there are debug, info, warn, error, fatal and panic")),
                };
                // Where everything is to be said, that stays.
                if !self.values.iter().any(|(_, flag, _)| *flag == "debug") {
                    self.values.push((LOG_FILTER, "app.log.level", level));
                }
            }
            "debug" if is_true(name, &value)? => {
                self.values.retain(|(key, ..)| *key != LOG_FILTER);
                self.values.push((LOG_FILTER, "debug", "debug".to_owned()));
            }
            "app.container-label-filter" | "app.container-label-filter-exclude" | "app.metrics-graph" => {
                if !value.is_empty() {
                    self.flags.push(format!("--{name}={value}"));
                }
            }
            "app.basicAuth" => self.login.enabled = is_true(name, &value)?,
            "app.basicAuth.username" => self.login.user = Some(value),
            "app.basicAuth.password" => self.login.password = Some(value),
            "app.basicAuth.password.filename" => self.login.password_file = Some(value),
            "dry-run" => self.dry_run = is_true(name, &value)?,
            "no-app" | "probe-only" if is_true(name, &value)? => return Err(format!("--{name}: {IS_A_PROBE}")),
            "mode" => match value.as_str() {
                "app" => self.is_app = true,
                "probe" => return Err(format!("--mode=probe: {IS_A_PROBE}")),
                "help" => ours.push("--help".into()),
                "version" => ours.push("--version".into()),
                _ => return Err(format!("--mode is {value:?}: there are app, version and help")),
            },
            "debug" | "no-app" | "probe-only" | "no-probe" | "app-only" => {}
            _ if name.starts_with("probe.") => {
                self.ignored
                    .push(format!("--{name} is ignored: it is for Weave Scope's probe, and orchestrator-probe has flags of its own"));
            }
            // Values may be secrets.
            _ => self.ignored.push(format!("--{name} of Weave Scope means nothing here and is ignored")),
        }
        Ok(())
    }

    /// What it says of our keys, the stronger the later.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, String, Origin)> + '_ {
        let flags = Some(self.flags.join(" ")).filter(|flags| !flags.is_empty());
        let of = |flag: &str| Origin::Scope(format!("--{flag}"));
        let told = self.values.iter().map(move |(key, flag, value)| (*key, value.clone(), of(flag)));
        told.chain(flags.map(|flags| (SCOPE_FLAGS, flags, Origin::Scope("Weave Scope's flags".to_owned()))))
    }

    /// Where it listens when nobody says anything about that.
    pub(super) fn address(&self) -> Option<(&'static str, Origin)> {
        self.is_app.then(|| (ADDRESS, Origin::Scope("--mode=app".to_owned())))
    }

    /// Who comes in. The environment is stronger, as with Scope.
    pub(super) fn login(&self, environment: &BTreeMap<String, String>) -> Result<Option<Login>, (String, String)> {
        let told = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let enabled = match told("ENABLE_BASIC_AUTH").map(|it| it.to_lowercase()).as_deref() {
            Some("true") => true,
            Some("false") => false,
            _ => self.login.enabled,
        };
        if !enabled {
            return Ok(None);
        }
        let user = told("BASIC_AUTH_USERNAME").or_else(|| self.login.user.clone()).unwrap_or_else(|| ADMIN.to_owned());
        let file = told("BASIC_AUTH_PASSWORD_FILENAME").or_else(|| self.login.password_file.clone());
        let password = match (told("BASIC_AUTH_PASSWORD"), file) {
            (Some(password), _) => password,
            (None, Some(file)) => {
                let read = std::fs::read_to_string(&file).map_err(|error| (file, error.to_string()))?;
                read.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => self.login.password.clone().unwrap_or_else(|| ADMIN.to_owned()),
        };
        if user.is_empty() || user.contains(':') || password.is_empty() {
            return Err((user, "a name without a colon and a password are needed".to_owned()));
        }
        Ok(Some(Login { user, password }))
    }
}

/// As Go reads it.
fn is_true(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("--{name} is {value:?}: neither true nor false")),
    }
}
