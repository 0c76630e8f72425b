//! Reports of Weave Scope's probes: their wire format, their merge, and the views that follow from them.
//!
//! Owns what a report of the retired project is, in MessagePack and JSON, how the reports of a window become one, and how Scope drew its
//! views from that: see the decision on old probes. Must never know where a report came from, what time it is (`now` is an argument), or that
//! there is a network at all. What views look like is the topology core's business; this crate speaks its words.
//!
//! Everything here is read from strangers: every list, depth and size has a limit, and nothing panics.
mod decode;
mod encode;
mod merge;
mod model;
mod ours;
mod render;
mod text;
mod time;
mod upgrade;
mod window;

pub use decode::{Compression, DecodeError, Format, Limits, Weighed, decode, decode_weighed};
pub use encode::{to_json, to_msgpack};
pub use model::{
    ColumnTemplate, Control, Dns, Kind, Latest, MetadataTemplate, Metric, MetricTemplate, Node, PluginSpec, Report, Sample, Sampling,
    TableTemplate, Topology,
};
pub use ours::{Ours, translate};
pub use render::{Choice, Drawing, Item, Joints, Options, Outline, Overlay};
pub use text::Text;
pub use time::Time;
pub use window::{Added, Parts, Window, WindowLimits};
