//! Numbers.
use anyhow::Result;
use crate::{Checkout, flags::BenchFlags};
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name { Capture }
pub(crate) fn run(_: &Checkout, _: &BenchFlags) -> Result<()> { Ok(()) }
