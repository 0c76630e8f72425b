//! The request target as Scope read it: path segments split before they are decoded, `+` for a blank, and parameters of which the first wins.

use std::time::Duration;

/// Parameters of a request, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// From the text behind the `?`. Pairs that are not well-formed are left out.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pieces = text.unwrap_or_default().split('&').filter(|piece| !piece.is_empty());
        let pairs = pieces.filter_map(|piece| {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((decode(key)?, decode(value)?))
        });
        Query(pairs.collect())
    }

    /// From pairs that came another way.
    pub(crate) fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Query(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Whether there is no parameter at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of `key`.
    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of `key`, in order.
    pub(crate) fn every<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether `key` is `true` in its first occurrence.
    pub(crate) fn is_true(&self, key: &str) -> bool {
        self.first(key) == Some("true")
    }
}

/// The last `COUNT` segments of a raw path, decoded; `None` when one cannot be.
pub(crate) fn last_segments<const COUNT: usize>(path: &str) -> Option<[String; COUNT]> {
    let mut segments = [const { String::new() }; COUNT];
    let mut raw = path.rsplit('/');
    for segment in segments.iter_mut().rev() {
        *segment = decode(raw.next()?)?;
    }
    Some(segments)
}

/// Undoes the encoding of query components: `%2F` is a slash, `+` a blank. `None` for a broken escape or bytes that are no text.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (hex(rest.next()?)? << 4) | hex(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A span of time as Go writes it: `1s`, `500ms`, `1m30s`, `-1h`, `1.5s`, `0`. `None` for anything else; negative spans become zero.
pub(crate) fn parse_go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let unit_length = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_length);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        seconds += number * scale;
        rest = behind;
    }
    // Go's longest span is 292 years; longer ones are an error there.
    let span = Duration::try_from_secs_f64(seconds).ok().filter(|span| span.as_nanos() <= i64::MAX as u128)?;
    Some(if negative { Duration::ZERO } else { span })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_equal_parameters_counts() {
        let query = Query::parse(Some("system=all&system=system&x=a+b%26c"));
        assert_eq!(query.first("system"), Some("all"));
        assert_eq!(query.first("x"), Some("a b&c"));
        assert_eq!(query.first("y"), None);
    }

    #[test]
    fn a_bare_question_mark_is_no_parameter_and_a_bare_name_is_one() {
        assert!(Query::parse(None).is_empty());
        assert!(Query::parse(Some("")).is_empty());
        assert!(Query::parse(Some("&")).is_empty());
        assert_eq!(Query::parse(Some("sparse")).first("sparse"), Some(""));
    }

    #[test]
    fn segments_are_split_before_they_are_decoded() {
        assert_eq!(
            last_segments("/api/topology/processes-by-name/%2Fusr%2Fbin%2Fcurl+x"),
            Some(["processes-by-name".to_owned(), "/usr/bin/curl x".to_owned()])
        );
        assert_eq!(last_segments::<1>("/api/topology/web-1;%3Chost%3E"), Some(["web-1;<host>".to_owned()]));
        assert_eq!(last_segments::<1>("/a/%2"), None);
        assert_eq!(last_segments::<1>("/a/%ff"), None);
        assert_eq!(last_segments::<1>("/a/%+1"), None);
    }

    #[test]
    fn spans_are_read_as_go_reads_them() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, span) in [
            ("1s", ms(1_000)),
            ("500ms", ms(500)),
            ("1m30s", ms(90_000)),
            ("1.5s", ms(1_500)),
            (".5s", ms(500)),
            ("0", ms(0)),
            ("-1s", ms(0)),
            ("+2s", ms(2_000)),
            ("1h0m0s", ms(3_600_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1x", None),
            (".s", None),
            ("1s2", None),
            ("1 s", None),
            ("999999999h", None),
            ("-", None),
        ] {
            assert_eq!(parse_go_duration(text), span, "{text:?}");
        }
    }
}
