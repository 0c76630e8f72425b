//! Marathon's JSON: read with its errors, written with its omissions.

pub(crate) mod app;
pub(crate) mod autoscale;
pub(crate) mod checks;
pub(crate) mod container;
pub(crate) mod pieces;
pub(crate) mod pod;
pub(crate) mod reader;
pub(crate) mod writer;

pub(crate) use reader::{Reader, Reading};
pub(crate) use writer::Json;
