//! Which views there are, what filters they know, and what a published one holds.

use imbl::OrdMap;

use crate::node::{NodeId, PublishedNode};

/// A named kind of picture, as in Scope's `/api/topology/<view>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// `processes`
    Processes,
    /// `processes-by-name`
    ProcessesByName,
    /// `containers`
    Containers,
    /// `containers-by-hostname`
    ContainersByHostname,
    /// `containers-by-image`
    ContainersByImage,
    /// `pods`
    Pods,
    /// `kube-controllers`
    KubeControllers,
    /// `services`
    Services,
    /// `ecs-tasks`
    EcsTasks,
    /// `ecs-services`
    EcsServices,
    /// `swarm-services`
    SwarmServices,
    /// `tasks`, those of Mesos; Scope had no such view
    Tasks,
    /// `hosts`
    Hosts,
    /// `weave`
    Weave,
}

impl View {
    /// All of them.
    pub const ALL: [View; 14] = [
        View::Processes,
        View::ProcessesByName,
        View::Containers,
        View::ContainersByHostname,
        View::ContainersByImage,
        View::Pods,
        View::KubeControllers,
        View::Services,
        View::EcsTasks,
        View::EcsServices,
        View::SwarmServices,
        View::Tasks,
        View::Hosts,
        View::Weave,
    ];

    /// Last segment of its URL.
    pub fn id(self) -> &'static str {
        match self {
            View::Processes => "processes",
            View::ProcessesByName => "processes-by-name",
            View::Containers => "containers",
            View::ContainersByHostname => "containers-by-hostname",
            View::ContainersByImage => "containers-by-image",
            View::Pods => "pods",
            View::KubeControllers => "kube-controllers",
            View::Services => "services",
            View::EcsTasks => "ecs-tasks",
            View::EcsServices => "ecs-services",
            View::SwarmServices => "swarm-services",
            View::Tasks => "tasks",
            View::Hosts => "hosts",
            View::Weave => "weave",
        }
    }

    /// The view whose URL ends in `id`.
    pub fn from_id(id: &str) -> Option<View> {
        View::ALL.into_iter().find(|view| view.id() == id)
    }
}

/// Filters of a request. [`Filter::NONE`] is what a request without any parameter gets; [`Filter::DEFAULT`] is what one gets that names no
/// option but has some other parameter. Groups that a view does not have are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// `system` of the container views.
    pub system: Option<SystemFilter>,
    /// `stopped` of the container views and of the tasks.
    pub stopped: Option<StoppedFilter>,
    /// `pseudo=hide`.
    pub hide_pseudo: bool,
    /// `unconnected=hide` of the process views.
    pub hide_unconnected: bool,
    /// `storage=hide` of the pods view: volumes, claims and storage classes.
    pub hide_storage: bool,
    /// `hideCommandLineArguments=true`.
    pub hide_command_arguments: bool,
    /// `hideEnvironmentVariables=true`.
    pub hide_environment: bool,
}

impl Filter {
    /// Nothing is filtered.
    pub const NONE: Filter = Filter {
        system: None,
        stopped: None,
        hide_pseudo: false,
        hide_unconnected: false,
        hide_storage: false,
        hide_command_arguments: false,
        hide_environment: false,
    };

    /// Every group has its default value.
    pub const DEFAULT: Filter = Filter {
        system: Some(SystemFilter::Application),
        stopped: Some(StoppedFilter::Running),
        hide_pseudo: true,
        hide_unconnected: true,
        hide_storage: true,
        hide_command_arguments: false,
        hide_environment: false,
    };

    /// The same filter with the groups that `view` does not have set to nothing, so that equal pictures have equal keys.
    #[must_use]
    pub fn of_view(self, view: View) -> Filter {
        let containers = matches!(view, View::Containers | View::ContainersByHostname | View::ContainersByImage);
        let processes = matches!(view, View::Processes | View::ProcessesByName);
        let pseudo = !processes && !matches!(view, View::Hosts | View::Weave);
        Filter {
            system: self.system.filter(|_| containers),
            stopped: self.stopped.filter(|_| containers || view == View::Tasks),
            hide_pseudo: self.hide_pseudo && pseudo,
            hide_unconnected: self.hide_unconnected && processes,
            hide_storage: self.hide_storage && view == View::Pods,
            hide_command_arguments: self.hide_command_arguments && (containers || processes),
            hide_environment: self.hide_environment && containers,
        }
    }
}

/// `system=`; `all` is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemFilter {
    /// Only system containers.
    System,
    /// Only the others.
    Application,
}

/// `stopped=`; `both` is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoppedFilter {
    /// Only those that do not run.
    Stopped,
    /// Only those that run, restart or are paused.
    Running,
}

/// One picture: a view through a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewKey {
    /// Which view.
    pub view: View,
    /// Through which filter.
    pub filter: Filter,
}

/// A picture at one moment. Cloning it costs nothing, and two of them share what is equal, so that their difference costs what changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewSnapshot {
    /// Its nodes by id.
    pub nodes: OrdMap<NodeId, PublishedNode>,
    /// Its numbers.
    pub stats: ViewStats,
    /// Grows with every change of the picture.
    pub version: u64,
    /// Grows only when a node or an edge came or went, or the state of a container or an object is another; metrics and texts leave it alone.
    pub structure_version: u64,
}

/// Numbers of a picture, as in `GET /api/topology`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// Nodes left after filtering.
    pub node_count: u64,
    /// Those that are no pseudo nodes.
    pub nonpseudo_node_count: u64,
    /// Sum of the lengths of all adjacency lists.
    pub edge_count: u64,
    /// Nodes removed by filters.
    pub filtered_nodes: u64,
}
