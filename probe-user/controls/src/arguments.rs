//! Arguments of controls: texts, as clients send them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest number of rows or columns.
const SIZE_MAX: u16 = 5_000;

/// A terminal's size, and which terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of its pipe.
    pub pipe: u64,
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

impl Size {
    /// Reads `pipeID`, `height` and `width`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(arguments: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |key: &str| arguments.get(key).map(String::as_str).ok_or_else(|| format!("Missing argument: {key}"));
        let number = |key: &str| {
            let text = text(key)?;
            let number = text.parse::<u16>().ok().filter(|number| (1..=SIZE_MAX).contains(number));
            number.ok_or_else(|| format!("Bad parameter: {key} ({text:?}) is not a number between 1 and {SIZE_MAX}"))
        };
        let pipe = text("pipeID")?;
        let pipe = pipe_number(pipe).ok_or_else(|| format!("Bad parameter: pipeID ({pipe:?}) is no pipe's"))?;
        Ok(Size { pipe, height: number("height")?, width: number("width")? })
    }
}

/// The number of a pipe's id: `pipe-12` is 12.
pub fn pipe_number(id: &str) -> Option<u64> {
    let digits = id.strip_prefix("pipe-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Which logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogArguments {
    /// Wait for what is written from now on; else end with what there is.
    pub follow: bool,
    /// Only the last lines; `None` for all.
    pub tail: Option<u32>,
    /// Only what was written since: Unix seconds.
    pub since: Option<i64>,
    /// Put the time before each line.
    pub timestamps: bool,
}

impl LogArguments {
    /// Reads `follow` (`true` unless said otherwise), `tail` (a number, or `all`), `since` (Unix seconds, or a span such as `10m`) and
    /// `timestamps` (as `timestamps` says here unless said otherwise). By default the last `tail` lines.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(arguments: &BTreeMap<String, String>, tail: Option<u32>, timestamps: bool) -> Result<Self, String> {
        let bad = |key: &str, text: &str, what: &str| format!("Bad parameter: {key} ({text:?}) is {what}");
        let truth = |key: &str, otherwise: bool| match arguments.get(key).map(String::as_str) {
            None | Some("") => Ok(otherwise),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(bad(key, other, "neither true nor false")),
        };
        let tail = match arguments.get("tail").map(String::as_str) {
            None | Some("") => tail,
            Some("all") => None,
            Some(text) => Some(text.parse().map_err(|_| bad("tail", text, "neither a number nor all"))?),
        };
        let since = match arguments.get("since").map(String::as_str) {
            None | Some("") => None,
            Some(text) => Some(parse_since(text).ok_or_else(|| bad("since", text, "neither Unix seconds nor a span such as 10m"))?),
        };
        Ok(LogArguments { follow: truth("follow", true)?, tail, since, timestamps: truth("timestamps", timestamps)? })
    }
}

fn parse_since(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return (seconds >= 0).then_some(seconds);
    }
    let unit = text.chars().last()?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(now.saturating_sub(Duration::from_secs(number.checked_mul(seconds)?)).as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_size_is_read_as_scope_sends_it() {
        let size = Size::parse(&arguments(&[("pipeID", "pipe-123"), ("height", "24"), ("width", "80")]));
        assert_eq!(size, Ok(Size { pipe: 123, height: 24, width: 80 }));
        for wrong in [
            &[("pipeID", "pipe-1"), ("height", "24")][..],
            &[("pipeID", "pipe-"), ("height", "24"), ("width", "80")],
            &[("pipeID", "pipe-+1"), ("height", "24"), ("width", "80")],
            &[("pipeID", "pipe-1"), ("height", "0"), ("width", "80")],
            &[("pipeID", "pipe-1"), ("height", "24"), ("width", "99999999999")],
        ] {
            assert!(Size::parse(&arguments(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn logs_are_followed_from_their_last_lines_unless_said_otherwise() {
        let parse = |pairs: &[(&str, &str)]| LogArguments::parse(&arguments(pairs), Some(1_000), false);
        let usual = LogArguments { follow: true, tail: Some(1_000), since: None, timestamps: false };
        assert_eq!(parse(&[]), Ok(usual));
        let chosen = LogArguments { follow: false, tail: None, since: Some(1_700_000_000), timestamps: true };
        assert_eq!(parse(&[("follow", "false"), ("tail", "all"), ("since", "1700000000"), ("timestamps", "true")]), Ok(chosen));
        for wrong in [("follow", "maybe"), ("tail", "-1"), ("since", "yesterday"), ("since", "-5"), ("since", "m"), ("since", "5µ")] {
            assert!(parse(&[wrong]).is_err(), "{wrong:?}");
        }
        let recent = parse(&[("since", "10m")]).unwrap().since.unwrap();
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        assert!((now - recent - 600).abs() < 5);
    }
}
