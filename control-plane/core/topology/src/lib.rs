//! The live map: probes' reports in, incrementally maintained views out.
//!
//! Owns the merge of reports into hosts, processes, containers and flows; the joining of the two ends of a connection; the views of Weave
//! Scope and their filters; expiry. Must never know where a report came from (gRPC, Scope's own format), how a view is written (JSON), what
//! time it is (`now` is an argument), or that there is a network at all.
//!
//! Cost follows change: a report touches what it names, and a picture that somebody watches is mended, not drawn again.

mod apply;
mod bridge;
mod delta;
mod details;
mod export;
mod flows;
mod index;
mod kubernetes;
mod listeners;
mod listing;
mod names;
mod networks;
mod node;
mod picture;
mod projection;
mod query;
mod report;
mod search;
mod settle;
mod state_words;
mod summary;
mod tables;
mod tasks;
mod text;
mod told;
mod topology;
mod traffic;
mod unix;
mod view;

pub use bridge::{End, Link, LinkEnds};
pub use delta::Delta;
pub use export::{ContainerExport, HostExport, ObjectExport, ProcessExport};
pub use node::{
    ChildGroup, Column, Connection, Control, Details, Grid, GridColumn, GridRow, MetadataRow, MetricRow, NodeId, NodeSummary, Parent,
    PublishedNode, Shape, Table, Word,
};
pub use query::{FlowEntry, FlowPage, FlowQuery, HostStatus, ListenerEntry, ListenerPage, ListenerQuery, ProbeCounts, ProbeStatus};
pub use report::{
    Application, BlockDevice, Capture, Cloud, Container, ContainerMetrics, ContainerState, Direction, Disk, Endpoint, Flow, FlowCounters,
    FlowKey, Host, HostMetrics, Image, KubernetesKind, KubernetesObject, Listener, Losses, Network, NetworkInterface, Origin, PortMapping,
    Pressure, ProbeHello, ProbeId, Process, ProcessKey, ProcessMetrics, Protocol, Report, ReportKind, ResolvedAddress, ResolvedName,
    Translation, TranslationSource, UnixFlow,
};
pub use search::{Found, Match, Query, QueryError, SearchCursor, SearchHit, SearchPage, SearchQuery, SearchTooLong};
pub use state_words::{CONTAINER_STATE, ageless};
pub use summary::bytes_text;
pub use text::tag_of;
pub use topology::{Config, Effect, Input, Limits, ReportRefusal, StreamEnd, StreamId, Topology};
pub use traffic::{TrafficFlow, TrafficPlace};
pub use view::{Filter, StoppedFilter, SystemFilter, View, ViewKey, ViewSnapshot, ViewStats};
