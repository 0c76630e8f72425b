//! Flags that keep clients from the master: `--firewall_rules`, which disables endpoints, and `--rate_limits`, which limits scheduler calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use master::Rate;
use serde_json::Value;

use crate::flags::{FlagError, Flags};
use crate::http::route;

fn parse(flags: &Flags, name: &'static str) -> Result<Option<Value>, FlagError> {
    let parsed = flags.get(name).map(serde_json::from_str).transpose();
    parsed.map_err(|error: serde_json::Error| FlagError { name: name.to_owned(), problem: error.to_string() })
}

/// Endpoints that nobody may use, each with what of the path follows it; nothing follows: whatever does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Firewall(BTreeSet<(String, String)>);

impl Firewall {
    /// `{"disabled_endpoints": {"paths": ["/files/browse", …]}}`
    ///
    /// # Errors
    /// When the flag says something else.
    pub(crate) fn from_flags(flags: &Flags) -> Result<Self, FlagError> {
        let Some(rules) = parse(flags, "firewall_rules")? else { return Ok(Firewall::default()) };
        let failed = |problem: &str| FlagError { name: "firewall_rules".to_owned(), problem: problem.to_owned() };
        let object = rules.as_object().ok_or_else(|| failed("not an object"))?;
        if let Some(unknown) = object.keys().find(|it| *it != "disabled_endpoints") {
            return Err(failed(&format!("there is no rule {unknown:?}; there is \"disabled_endpoints\"")));
        }
        let Some(endpoints) = object.get("disabled_endpoints") else { return Ok(Firewall::default()) };
        let paths = endpoints["paths"].as_array().ok_or_else(|| failed("\"disabled_endpoints\" has no list \"paths\""))?;
        let mut disabled = BTreeSet::new();
        for path in paths {
            let path = path.as_str().ok_or_else(|| failed("a path is not a text"))?;
            // What a master does not serve may stand in a list that agents have, too.
            disabled.extend(route::resolve(path).map(|it| (it.endpoint, it.rest)));
        }
        Ok(Firewall(disabled))
    }

    /// Whether an endpoint is one of them, by the name that it has whatever the spelling. (In Mesos `/master/state` and `/state` are two: whoever
    /// disables one leaves the other open.)
    pub(crate) fn disables(&self, endpoint: &str, rest: &str) -> bool {
        let below = |above: &str| above.is_empty() || rest.strip_prefix(above).is_some_and(|it| it.is_empty() || it.starts_with('/'));
        self.0.iter().any(|(disabled, above)| disabled == endpoint && below(above))
    }
}

/// Limits of scheduler calls, by principal, and that of all others together: Mesos's `RateLimits` as JSON. `capacity`, how many calls may wait in
/// Mesos, is how many may come at once here: nothing waits.
///
/// # Errors
/// When the flag is no such thing.
pub(crate) fn rate_limits(flags: &Flags) -> Result<(BTreeMap<String, Rate>, Option<Rate>), FlagError> {
    let Some(value) = parse(flags, "rate_limits")? else { return Ok((BTreeMap::new(), None)) };
    let failed = |problem: &str| FlagError { name: "rate_limits".to_owned(), problem: problem.to_owned() };
    let rate = |of: &Value, qps: &str, capacity: &str| {
        if of[qps].is_null() {
            return Ok(None);
        }
        let qps = of[qps].as_f64().filter(|it| it.is_finite() && *it > 0.0).ok_or_else(|| failed("a qps is no number above 0"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0, and cut at the largest number")]
        let permits = match &of[capacity] {
            Value::Null => qps.ceil() as u32,
            it => it.as_u64().and_then(|it| u32::try_from(it).ok()).ok_or_else(|| failed("a capacity is no whole number"))?,
        };
        let permits = permits.max(1);
        let per = Duration::try_from_secs_f64(f64::from(permits) / qps).map_err(|_| failed("a qps is too small"))?;
        Ok(Some(Rate { permits, per }))
    };
    let mut limits = BTreeMap::new();
    for limit in value["limits"].as_array().ok_or_else(|| failed("there is no list \"limits\""))? {
        let principal = limit["principal"].as_str().ok_or_else(|| failed("a limit has no principal"))?;
        // Without a rate a principal is not limited, and not one of the others either.
        let own = rate(limit, "qps", "capacity")?.unwrap_or(Rate { permits: u32::MAX, per: Duration::from_secs(1) });
        if limits.insert(principal.to_owned(), own).is_some() {
            return Err(failed(&format!("{principal:?} has two limits")));
        }
    }
    Ok((limits, rate(&value, "aggregate_default_qps", "aggregate_default_capacity")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(word: &str) -> Flags {
        Flags::default().with([word]).unwrap()
    }

    #[test]
    fn endpoints_are_disabled_however_they_are_spelled() {
        let text = r#"firewall_rules={"disabled_endpoints":{"paths":["/files/browse/","/state","/quota/a","/monitor/statistics"]}}"#;
        let firewall = Firewall::from_flags(&flags(text)).unwrap();
        let disables = |path: &str| route::resolve(path).is_some_and(|it| firewall.disables(&it.endpoint, &it.rest));
        for path in ["/files/browse", "/files/%62rowse", "//files/browse/x", "/files/browse.json", "/master/state", "/state/", "/quota/a/b"]
        {
            assert!(disables(path), "{path}");
        }
        for path in ["/files/read", "/state-summary", "/quota", "/quota/ab", "/help"] {
            assert!(!disables(path), "{path}");
        }
        assert!(!Firewall::default().disables("/master/state", ""));
    }

    #[test]
    fn mistakes_name_the_flag() {
        for word in
            ["firewall_rules=[]", "firewall_rules=x", r#"firewall_rules={"x":1}"#, r#"firewall_rules={"disabled_endpoints":{"paths":[1]}}"#]
        {
            assert!(Firewall::from_flags(&flags(word)).unwrap_err().to_string().starts_with("--firewall_rules"), "{word}");
        }
        for word in ["rate_limits=1", r#"rate_limits={"limits":[{"qps":1}]}"#, r#"rate_limits={"limits":[{"principal":"a","qps":-1}]}"#] {
            assert!(rate_limits(&flags(word)).unwrap_err().to_string().starts_with("--rate_limits"), "{word}");
        }
    }

    #[test]
    fn limits_are_those_of_mesos() {
        let text = r#"rate_limits={"limits":[{"principal":"a","qps":10,"capacity":2},{"principal":"b"},{"principal":"c","qps":0.5}],"aggregate_default_qps":3}"#;
        let (limits, others) = rate_limits(&flags(text)).unwrap();
        assert_eq!(limits["a"], Rate { permits: 2, per: Duration::from_millis(200) });
        assert_eq!(limits["b"].permits, u32::MAX);
        assert_eq!(limits["c"], Rate { permits: 1, per: Duration::from_secs(2) });
        assert_eq!(others, Some(Rate { permits: 3, per: Duration::from_secs(1) }));
        assert_eq!(rate_limits(&Flags::default()).unwrap(), (BTreeMap::new(), None));
    }
}
