//! The scheduler in a made-up cluster: told step by step, and left alone with chance.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod simulation;
mod transcripts;
mod world;
