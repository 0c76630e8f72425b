//! The scheduler in a made-up cluster: told step by step, and left alone with chance.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests fail by panicking, and have small numbers")]

mod reservations;
mod simulation;
mod transcripts;
mod world;
