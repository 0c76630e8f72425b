//! HAProxy in front of Marathon's apps, as marathon-lb puts it there.
//!
//! Owns the meaning of `HAPROXY_*` labels, the configuration ([`render`], a pure function of what `/v2/apps` says), and the care for a real
//! HAProxy: it is started, given new configurations without a connection being lost, and watched. Marathon is known by its REST API alone,
//! so that any Marathon will do. See the decision on load balancers.

mod apps;
mod config;
mod haproxy;
mod labels;
mod pages;
mod run;

pub use apps::{Backend, Mode, Refused, Server, read_apps};
pub use config::{Options, render};
pub use run::{LbArgs, run};
