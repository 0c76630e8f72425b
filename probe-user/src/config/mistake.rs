//! What is wrong in a configuration, and where it was said.

use std::fmt;
use std::path::PathBuf;

use super::ENVIRONMENT_PREFIX;

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) source: Origin,
    pub(super) problem: String,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Environment,
    File(PathBuf),
    BuiltIn,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Origin::Flag => write!(f, "--{}", self.key)?,
            Origin::Environment => f.write_str(&variable(&self.key))?,
            Origin::File(path) => write!(f, "{} in {}", self.key, path.display())?,
            Origin::BuiltIn => f.write_str(&self.key)?,
        }
        if let Some(value) = &self.value {
            write!(f, " is {value:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('-', "_").to_uppercase())
}
