//! Which views there are, what options they offer, and what the options of a request mean.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::control::v1 as wire;
use scope_report::{Choice, Options};
use topology::{Filter, StoppedFilter, SystemFilter, View, ViewKey, ViewStats};

use super::labels::{self, LabelFilter};
use crate::http::json::JsonWriter;
use crate::http::query::Query;

/// A view in the list of views.
struct Entry {
    view: View,
    name: &'static str,
    rank: u64,
    hide_if_empty: bool,
    options: &'static [Group],
    children: &'static [Entry],
}

/// A group of options, of which one is chosen.
struct Group {
    id: &'static str,
    default: &'static str,
    options: &'static [(&'static str, &'static str)],
}

const fn child(view: View, name: &'static str, hide_if_empty: bool, options: &'static [Group]) -> Entry {
    Entry { view, name, rank: 0, hide_if_empty, options, children: &[] }
}

const UNCONNECTED: Group =
    Group { id: "unconnected", default: "hide", options: &[("show", "Show unconnected"), ("hide", "Hide unconnected")] };
const SYSTEM: Group = Group {
    id: "system",
    default: "application",
    options: &[("all", "All"), ("system", "System containers"), ("application", "Application containers")],
};
const STOPPED: Group = Group {
    id: "stopped",
    default: "running",
    options: &[("stopped", "Stopped containers"), ("running", "Running containers"), ("both", "Both")],
};
const UNCONTAINED: Group = Group { id: "pseudo", default: "hide", options: &[("show", "Show uncontained"), ("hide", "Hide uncontained")] };
const UNMANAGED: Group = Group { id: "pseudo", default: "hide", options: &[("show", "Show unmanaged"), ("hide", "Hide unmanaged")] };
const UNTASKED: Group =
    Group { id: "pseudo", default: "hide", options: &[("show", "Show what is no task"), ("hide", "Hide what is no task")] };
const STORAGE: Group = Group { id: "storage", default: "hide", options: &[("show", "Show storage"), ("hide", "Hide storage")] };
const SNAPSHOT: Group = Group { id: "snapshot", default: "hide", options: &[("show", "Show snapshots"), ("hide", "Hide snapshots")] };

const OF_PROCESSES: &[Group] = &[UNCONNECTED];
const OF_CONTAINERS: &[Group] = &[SYSTEM, STOPPED, UNCONTAINED];
const OF_TASKS: &[Group] = &[STOPPED, UNTASKED];
const OF_PODS: &[Group] = &[SNAPSHOT, STORAGE, UNMANAGED];
const OF_ORCHESTRATORS: &[Group] = &[UNMANAGED];

/// Top-level views, sorted by name. All are listed even when empty: hiding is the client's part.
const TOP: [Entry; 6] = [
    Entry {
        view: View::Containers,
        name: "Containers",
        rank: 2,
        hide_if_empty: false,
        options: OF_CONTAINERS,
        children: &[
            child(View::ContainersByHostname, "by DNS name", false, OF_CONTAINERS),
            child(View::ContainersByImage, "by image", false, OF_CONTAINERS),
            // Scope's clients count on six views at the top.
            child(View::Tasks, "Mesos tasks", true, OF_TASKS),
        ],
    },
    Entry {
        view: View::Hosts,
        name: "Hosts",
        rank: 4,
        hide_if_empty: false,
        options: &[],
        children: &[child(View::Weave, "Weave Net", false, &[])],
    },
    Entry {
        view: View::Pods,
        name: "Pods",
        rank: 3,
        hide_if_empty: true,
        options: OF_PODS,
        children: &[
            child(View::KubeControllers, "Controllers", true, OF_ORCHESTRATORS),
            child(View::Services, "Services", true, OF_ORCHESTRATORS),
        ],
    },
    Entry {
        view: View::Processes,
        name: "Processes",
        rank: 1,
        hide_if_empty: true,
        options: OF_PROCESSES,
        children: &[child(View::ProcessesByName, "by name", true, OF_PROCESSES)],
    },
    Entry { view: View::SwarmServices, name: "Services", rank: 3, hide_if_empty: true, options: OF_ORCHESTRATORS, children: &[] },
    Entry {
        view: View::EcsTasks,
        name: "Tasks",
        rank: 3,
        hide_if_empty: true,
        options: OF_ORCHESTRATORS,
        children: &[child(View::EcsServices, "Services", true, OF_ORCHESTRATORS)],
    },
];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    /// The picture of the map.
    pub(crate) key: ViewKey,
    /// Whether there is any parameter at all: without, nothing is filtered.
    has_parameters: bool,
    hide_snapshots: bool,
    /// Every group of options, those that the view does not have included: old probes' nodes know which they have.
    filter: Filter,
    /// Names in `namespace`, whether they exist or not.
    namespaces: BTreeSet<Arc<str>>,
    /// Value of `system` that may be that of a filter by a label.
    label_filter: Option<String>,
}

impl Wanted {
    /// What `query` asks of `view`.
    pub(crate) fn new(view: View, query: &Query) -> Self {
        let filter = filter(query);
        let namespaces = query.first("namespace").filter(|_| has_namespaces(view)).unwrap_or_default();
        Wanted {
            key: ViewKey { view, filter: filter.of_view(view) },
            has_parameters: !query.is_empty(),
            hide_snapshots: query.first("snapshot").map_or(!query.is_empty(), |value| value == "hide"),
            filter,
            label_filter: query.first("system").filter(|value| value.starts_with("containerLabelFilter")).map(str::to_owned),
            namespaces: namespaces.split(',').filter(|name| !name.is_empty()).map(Arc::from).collect(),
        }
    }

    /// The filter by a label that is asked for, if there is such a one.
    pub(crate) fn label_filter<'a>(&self, filters: &'a [LabelFilter]) -> Option<&'a LabelFilter> {
        labels::chosen(filters, self.key.view, self.label_filter.as_deref()?)
    }

    /// Whether more is asked for than the map itself can leave out.
    pub(crate) fn is_cut(&self) -> bool {
        self.names_namespaces() || self.label_filter.is_some()
    }

    /// Whether it names namespaces, of which some may exist.
    pub(crate) fn names_namespaces(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// The namespaces that are asked for, if any of them exists: a value that a group does not know is no filter.
    pub(crate) fn namespaces(&self, existing: &Namespaces) -> Option<BTreeSet<Arc<str>>> {
        let found: BTreeSet<Arc<str>> = self.namespaces.iter().filter(|&name| existing.offers(self.key.view, name)).cloned().collect();
        Some(found).filter(|found| !found.is_empty())
    }

    /// The same for what old probes reported.
    pub(crate) fn options(&self, namespaces: Option<BTreeSet<Arc<str>>>) -> Options {
        let choice = Choice { filter: self.filter, hide_snapshots: self.hide_snapshots, namespaces };
        Options {
            choice: self.has_parameters.then_some(choice),
            hide_command_arguments: self.filter.hide_command_arguments,
            hide_environment: self.filter.hide_environment,
        }
    }
}

/// Views that look at `namespace`. Scope listed it for two more, and ignored it there.
fn has_namespaces(view: View) -> bool {
    matches!(view, View::Containers | View::Pods | View::KubeControllers | View::Services | View::SwarmServices)
}

/// What `namespace` may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Of Kubernetes.
    pub(crate) kubernetes: BTreeSet<Arc<str>>,
    /// Stacks of Docker Swarm.
    pub(crate) stacks: BTreeSet<Arc<str>>,
}

impl Namespaces {
    /// Whether a view has this value among its options.
    fn offers(&self, view: View, name: &Arc<str>) -> bool {
        (self.kubernetes.contains(name) && view != View::SwarmServices)
            || (self.stacks.contains(name) && matches!(view, View::Containers | View::SwarmServices))
    }
}

/// The list of views; `stats` are in the order of [`View::ALL`].
pub(crate) fn encode_list(stats: &[ViewStats], namespaces: &Namespaces, labels: &[LabelFilter]) -> Vec<u8> {
    let stats_of = |view: View| {
        let at = View::ALL.iter().position(|known| *known == view);
        at.and_then(|at| stats.get(at)).copied().unwrap_or_default()
    };
    let mut json = JsonWriter::new();
    json.array(&TOP, |json, entry| write_entry(json, entry, (&groups_of(entry.view, namespaces), labels), &stats_of));
    json.into_bytes()
}

/// A group of namespaces: its label for none of them, and their names.
type NamespaceGroup<'a> = (&'static str, &'a BTreeSet<Arc<str>>);

/// The groups of namespaces that a view at the top, and those below it, have besides their own options.
fn groups_of(view: View, namespaces: &Namespaces) -> Vec<NamespaceGroup<'_>> {
    let kubernetes = matches!(view, View::Containers | View::Pods).then_some(("All Namespaces", &namespaces.kubernetes));
    let stacks = matches!(view, View::Containers | View::SwarmServices).then_some(("All Stacks", &namespaces.stacks));
    kubernetes.into_iter().chain(stacks).filter(|(_, names)| !names.is_empty()).collect()
}

fn write_entry(
    json: &mut JsonWriter,
    entry: &Entry,
    (groups, labels): (&[NamespaceGroup<'_>], &[LabelFilter]),
    stats_of: &dyn Fn(View) -> ViewStats,
) {
    // A task is in no namespace.
    let groups = if entry.view == View::Tasks { &[] } else { groups };
    json.object(|json| {
        json.key("name").string(entry.name);
        json.key("rank").integer(entry.rank);
        json.key("hide_if_empty").bool(entry.hide_if_empty);
        json.key("options");
        if entry.options.is_empty() {
            json.null();
        } else {
            let own = entry.options.iter().map(Either::Options);
            json.array(own.chain(groups.iter().map(Either::Namespaces)), |json, group| match group {
                Either::Options(group) => write_group(json, group, labels),
                Either::Namespaces(group) => write_namespaces(json, group),
            });
        }
        json.key("url").string(&format!("/api/topology/{}", entry.view.id()));
        if !entry.children.is_empty() {
            json.key("sub_topologies").array(entry.children, |json, child| write_entry(json, child, (groups, labels), stats_of));
        }
        let stats = stats_of(entry.view);
        json.key("stats").object(|json| {
            json.key("node_count").integer(stats.node_count);
            json.key("nonpseudo_node_count").integer(stats.nonpseudo_node_count);
            json.key("edge_count").integer(stats.edge_count);
            json.key("filtered_nodes").integer(stats.filtered_nodes);
        });
    });
}

/// The same for the gRPC API: those at the top, each followed by those below it.
pub(crate) fn listed(stats: &[ViewStats], namespaces: &Namespaces, labels: &[LabelFilter]) -> Vec<wire::View> {
    let of = |entry: &Entry, parent: Option<&Entry>| {
        let at = View::ALL.iter().position(|known| *known == entry.view);
        let stats = at.and_then(|at| stats.get(at)).copied().unwrap_or_default();
        let groups = if entry.view == View::Tasks { Vec::new() } else { groups_of(parent.unwrap_or(entry).view, namespaces) };
        let option = |value: &str, label: &str| wire::Option { value: value.to_owned(), label: label.to_owned() };
        let own = entry.options.iter().map(|group| wire::OptionGroup {
            id: group.id.to_owned(),
            default_value: group.default.to_owned(),
            options: values_of(group, labels).iter().map(|(value, label)| option(value, label)).collect(),
            ..wire::OptionGroup::default()
        });
        let names = groups.iter().filter(|_| !entry.options.is_empty()).map(|(none_label, names)| wire::OptionGroup {
            id: "namespace".to_owned(),
            options: names.iter().map(|name| option(name, name)).collect(),
            takes_several: true,
            none_label: (*none_label).to_owned(),
            ..wire::OptionGroup::default()
        });
        wire::View {
            id: entry.view.id().to_owned(),
            name: entry.name.to_owned(),
            parent_id: parent.map_or("", |parent| parent.view.id()).to_owned(),
            rank: u32::try_from(entry.rank).unwrap_or(u32::MAX),
            hide_if_empty: entry.hide_if_empty,
            option_groups: own.chain(names).collect(),
            statistics: Some(wire::Statistics {
                node_count: stats.node_count,
                nonpseudo_node_count: stats.nonpseudo_node_count,
                edge_count: stats.edge_count,
                filtered_nodes: stats.filtered_nodes,
            }),
        }
    };
    let with_children = TOP.iter().flat_map(|top| std::iter::once((top, None)).chain(top.children.iter().map(move |it| (it, Some(top)))));
    with_children.map(|(entry, parent)| of(entry, parent)).collect()
}

enum Either<'a> {
    Options(&'a Group),
    Namespaces(&'a NamespaceGroup<'a>),
}

/// Of these, any number may be chosen.
fn write_namespaces(json: &mut JsonWriter, (none_label, names): &NamespaceGroup<'_>) {
    json.object(|json| {
        json.key("id").string("namespace");
        json.key("defaultValue").string("");
        json.key("options").array(names.iter(), |json, name| {
            json.object(|json| {
                json.key("value").string(name);
                json.key("label").string(name);
            });
        });
        json.key("selectType").string("union");
        json.key("noneLabel").string(none_label);
    });
}

/// The values of a group with their labels; an operator's filters by label are among those of `system`.
fn values_of(group: &Group, labels: &[LabelFilter]) -> Vec<(String, String)> {
    let own = group.options.iter().map(|(value, label)| ((*value).to_owned(), (*label).to_owned()));
    let added = labels::with_ids(labels).filter(|_| group.id == SYSTEM.id).map(|(id, filter)| (id, filter.title.clone()));
    own.chain(added).collect()
}

fn write_group(json: &mut JsonWriter, group: &Group, labels: &[LabelFilter]) {
    json.object(|json| {
        json.key("id").string(group.id);
        json.key("defaultValue").string(group.default);
        json.key("options").array(&values_of(group, labels), |json, (value, label)| {
            json.object(|json| {
                json.key("value").string(value);
                json.key("label").string(label);
            });
        });
    });
}

/// Without any parameter nothing is filtered. With any, every group that is not named has its default, and a value that a group does not
/// know lets everything through.
fn filter(query: &Query) -> Filter {
    if query.is_empty() {
        return Filter::NONE;
    }
    let default = Filter::DEFAULT;
    Filter {
        system: match query.first("system") {
            None => default.system,
            Some("system") => Some(SystemFilter::System),
            Some("application") => Some(SystemFilter::Application),
            Some(_) => None,
        },
        stopped: match query.first("stopped") {
            None => default.stopped,
            Some("stopped") => Some(StoppedFilter::Stopped),
            Some("running") => Some(StoppedFilter::Running),
            Some(_) => None,
        },
        hide_pseudo: query.first("pseudo").map_or(default.hide_pseudo, |value| value == "hide"),
        hide_unconnected: query.first("unconnected").map_or(default.hide_unconnected, |value| value == "hide"),
        hide_storage: query.first("storage").map_or(default.hide_storage, |value| value == "hide"),
        hide_command_arguments: query.is_true("hideCommandLineArguments"),
        hide_environment: query.is_true("hideEnvironmentVariables"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Filter) {
        assert_eq!(filter(&Query::parse(Some(query))), expected, "{query}");
    }

    #[test]
    fn no_parameter_means_no_filter_and_any_parameter_means_all_defaults() {
        check("", Filter::NONE);
        check("timestamp=", Filter::DEFAULT);
        check("t=5s", Filter::DEFAULT);
        check("timestamp=not-a-time", Filter::DEFAULT);
        check("hideCommandLineArguments=true", Filter { hide_command_arguments: true, ..Filter::DEFAULT });
        check("hideEnvironmentVariables=yes", Filter::DEFAULT);
    }

    #[test]
    fn an_unknown_or_empty_value_is_no_filter_for_its_group() {
        check("system=show", Filter { system: None, ..Filter::DEFAULT });
        check("stopped=", Filter { stopped: None, ..Filter::DEFAULT });
        check("stopped=both&system=all", Filter { stopped: None, system: None, ..Filter::DEFAULT });
        check("storage=show", Filter { hide_storage: false, ..Filter::DEFAULT });
        check("storage=", Filter { hide_storage: false, ..Filter::DEFAULT });
        check("storage=hide", Filter::DEFAULT);
        check("pseudo=x&unconnected=", Filter { hide_pseudo: false, hide_unconnected: false, ..Filter::DEFAULT });
    }

    #[test]
    fn only_the_first_occurrence_counts() {
        check("system=system&system=all", Filter { system: Some(SystemFilter::System), ..Filter::DEFAULT });
    }

    #[test]
    fn every_view_is_listed_once() {
        let mut listed: Vec<View> =
            TOP.iter().flat_map(|entry| std::iter::once(entry.view).chain(entry.children.iter().map(|it| it.view))).collect();
        listed.sort();
        let mut all = View::ALL.to_vec();
        all.sort();
        assert_eq!(listed, all);
        assert!(TOP.is_sorted_by_key(|entry| entry.name));
    }
}
