/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

/// Most parameters that are looked at.
const PARAMS_MAX: usize = 1_000;

impl Params {
    pub(crate) fn parse(query: &str) -> Params {
        let decoded = |text: &str| super::percent_decoded(&text.replace('+', " ")).unwrap_or_default();
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(key), decoded(value))
        };
        Params { pairs: query.split('&').filter(|part| !part.is_empty()).take(PARAMS_MAX).map(pair).collect() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Only `true`, in any case, is true; some clients send `False`.
    pub(crate) fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, |value| value.eq_ignore_ascii_case("true"))
    }
}
