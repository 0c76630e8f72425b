//! Which views there are, what options they offer, and what the options of a request mean.

use topology::{Filter, StoppedFilter, SystemFilter, View, ViewKey, ViewStats};

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
const STORAGE: Group = Group { id: "storage", default: "hide", options: &[("show", "Show storage"), ("hide", "Hide storage")] };
const SNAPSHOT: Group = Group { id: "snapshot", default: "hide", options: &[("show", "Show snapshots"), ("hide", "Hide snapshots")] };

const OF_PROCESSES: &[Group] = &[UNCONNECTED];
const OF_CONTAINERS: &[Group] = &[SYSTEM, STOPPED, UNCONTAINED];
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

/// Pictures whose numbers the list shows, in the order of [`View::ALL`].
pub(crate) fn keys_of_list(query: &Query) -> Vec<ViewKey> {
    let filter = filter(query);
    View::ALL.into_iter().map(|view| ViewKey { view, filter: filter.of_view(view) }).collect()
}

/// The list of views; `stats` are those of [`keys_of_list`].
pub(crate) fn encode_list(stats: &[ViewStats]) -> Vec<u8> {
    let stats_of = |view: View| {
        let at = View::ALL.iter().position(|known| *known == view);
        at.and_then(|at| stats.get(at)).copied().unwrap_or_default()
    };
    let mut json = JsonWriter::new();
    json.array(&TOP, |json, entry| write_entry(json, entry, &stats_of));
    json.into_bytes()
}

fn write_entry(json: &mut JsonWriter, entry: &Entry, stats_of: &dyn Fn(View) -> ViewStats) {
    json.object(|json| {
        json.key("name").string(entry.name);
        json.key("rank").integer(entry.rank);
        json.key("hide_if_empty").bool(entry.hide_if_empty);
        json.key("options");
        if entry.options.is_empty() {
            json.null();
        } else {
            json.array(entry.options, write_group);
        }
        json.key("url").string(&format!("/api/topology/{}", entry.view.id()));
        if !entry.children.is_empty() {
            json.key("sub_topologies").array(entry.children, |json, child| write_entry(json, child, stats_of));
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

fn write_group(json: &mut JsonWriter, group: &Group) {
    json.object(|json| {
        json.key("id").string(group.id);
        json.key("defaultValue").string(group.default);
        json.key("options").array(group.options, |json, (value, label)| {
            json.object(|json| {
                json.key("value").string(value);
                json.key("label").string(label);
            });
        });
    });
}

/// The picture that a request asks for.
pub(crate) fn key(view: View, query: &Query) -> ViewKey {
    ViewKey { view, filter: filter(query).of_view(view) }
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
