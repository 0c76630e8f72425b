//! Against real ensembles, which the tests start and end themselves.

mod bounds;
mod common;
mod edges;
mod faults;
mod links;
mod migration;
mod operator;
mod operators;
mod releases;
mod servers;
mod takeover;
