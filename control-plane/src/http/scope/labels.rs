//! Filters by a label of containers, which an operator adds to the options of the views of containers: Weave Scope's
//! `--app.container-label-filter` and `--app.container-label-filter-exclude`.

use topology::{NodeSummary, View};

use super::graphs::MetricsGraph;

/// A filter by a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    /// For people.
    pub title: String,
    /// The label.
    pub key: String,
    /// What it has to be, or not to be.
    pub value: String,
    /// Whether containers with that label are left out, instead of all others.
    pub exclude: bool,
}

impl LabelFilter {
    /// Whether it keeps a node. What stands for something outside is not its concern; a group of containers has no label of its own.
    pub(crate) fn keeps(&self, node: &NodeSummary) -> bool {
        let mut labels = node.tables.iter().filter(|table| table.id == "docker_label_").flat_map(|table| &table.rows);
        let has = labels.any(|(key, value)| **key == *self.key && **value == *self.value);
        node.pseudo || has != self.exclude
    }
}

/// Each filter with its value of the option `system`. Scope numbered both kinds by themselves, and called each by the other's name.
pub(crate) fn with_ids(filters: &[LabelFilter]) -> impl Iterator<Item = (String, &LabelFilter)> {
    let number = move |at: usize| filters[..at].iter().filter(|other| other.exclude == filters[at].exclude).count();
    filters.iter().enumerate().map(move |(at, filter)| {
        let kind = if filter.exclude { "" } else { "Exclude" };
        (format!("containerLabelFilter{kind}{}", number(at)), filter)
    })
}

/// The filter that a value of the option `system` means.
pub(crate) fn chosen<'a>(filters: &'a [LabelFilter], view: View, value: &str) -> Option<&'a LabelFilter> {
    if !matches!(view, View::Containers | View::ContainersByHostname | View::ContainersByImage) {
        return None;
    }
    with_ids(filters).find(|(id, _)| id == value).map(|(_, filter)| filter)
}

/// Reads Scope's flags, separated by blanks. A title may have blanks in it: a flag begins with `--app.`.
///
/// # Errors
/// When one of them is not known, or is not what it has to be.
pub fn parse_flags(text: &str) -> Result<(Vec<LabelFilter>, MetricsGraph), String> {
    let (mut filters, mut graph) = (Vec::new(), MetricsGraph::default());
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.match_indices(" --app.").map(|(at, _)| at).next().unwrap_or(rest.len());
        let (flag, behind) = rest.split_at(end);
        rest = behind.trim_start();
        let flag = flag.trim_end();
        let (name, value) = flag.split_once('=').ok_or_else(|| format!("{flag:?} is not of the form --app.name=value"))?;
        let exclude = match name {
            "--app.container-label-filter" => false,
            "--app.container-label-filter-exclude" => true,
            "--app.metrics-graph" => {
                graph = MetricsGraph::at(value);
                continue;
            }
            _ => {
                return Err(format!(
                    "{name:?} is no flag of Scope's that is known here; there are --app.container-label-filter, -exclude and --app.metrics-graph"
                ));
            }
        };
        let parts = value.split_once(':').and_then(|(title, label)| Some((title, label.split_once('=')?)));
        let Some((title, (key, value))) = parts.filter(|(title, (key, _))| !title.is_empty() && !key.is_empty()) else {
            return Err(format!("{value:?} is not of the form title:key=value"));
        };
        filters.push(LabelFilter { title: title.to_owned(), key: key.to_owned(), value: value.to_owned(), exclude });
    }
    Ok((filters, graph))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_scope_wrote_them() {
        let text = "--app.container-label-filter=My team:team=web  --app.container-label-filter-exclude=No tests:kind=test=1 --app.metrics-graph=/g?q=:query";
        let (read, graph) = parse_flags(text).unwrap();
        assert_eq!(graph, MetricsGraph::at("/g?q=:query"));
        let filter = |title: &str, key: &str, value: &str, exclude| LabelFilter {
            title: title.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            exclude,
        };
        assert_eq!(read, [filter("My team", "team", "web", false), filter("No tests", "kind", "test=1", true)]);
        let ids: Vec<String> = with_ids(&read).map(|(id, _)| id).collect();
        assert_eq!(ids, ["containerLabelFilterExclude0", "containerLabelFilter0"]);
        assert_eq!(chosen(&read, View::Containers, "containerLabelFilter0"), Some(&read[1]));
        assert_eq!((chosen(&read, View::Hosts, "containerLabelFilter0"), chosen(&read, View::Containers, "all")), (None, None));
        for wrong in [
            "--app.window=15s",
            "--app.container-label-filter=team=web",
            "--app.container-label-filter",
            "web",
            "--app.container-label-filter=:a=b",
        ] {
            assert!(parse_flags(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_flags(" "), Ok((Vec::new(), MetricsGraph::default())));
    }
}
