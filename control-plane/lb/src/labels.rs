//! The labels of an app that are meant for the load balancer: for all of its ports (`HAPROXY_VHOST`), or for one (`HAPROXY_0_VHOST`).

use serde_json::Value;

/// Labels of one port of an app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    labels: &'a Value,
    port: usize,
}

impl<'a> Labels<'a> {
    pub(crate) fn new(labels: &'a Value, port: usize) -> Labels<'a> {
        Labels { labels, port }
    }

    /// The text of `HAPROXY_{port}_{name}`, else of `HAPROXY_{name}`. Texts with control characters are none: a line of the configuration must
    /// not end where a label says.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let own = self.labels[format!("HAPROXY_{}_{name}", self.port)].as_str();
        let text = own.or_else(|| self.labels[format!("HAPROXY_{name}")].as_str())?;
        (text.chars().all(|it| !it.is_control()) && text.len() <= 4_096).then_some(text.trim()).filter(|it| !it.is_empty())
    }

    /// A single word that means nothing but itself to HAProxy.
    pub(crate) fn word(&self, name: &str) -> Option<&'a str> {
        self.text(name).filter(|text| is_word(text))
    }

    pub(crate) fn words(&self, name: &str) -> Vec<&'a str> {
        self.text(name).into_iter().flat_map(|text| text.split([',', ' '])).filter(|it| !it.is_empty() && is_word(it)).collect()
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.text(name).map(|text| ["true", "t", "yes", "y", "1"].iter().any(|yes| text.eq_ignore_ascii_case(yes)))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }
}

/// Whether HAProxy reads it as it stands there.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|it| it.is_ascii_graphic() && !matches!(it, '"' | '\'' | '\\' | '#' | '$' | '{' | '}' | '`'))
}
