//! Against real ensembles, which the tests start and end themselves.

mod common;
mod links;
mod migration;
