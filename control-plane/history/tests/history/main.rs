//! The history as its driver uses it: events of a live map in, maps of the past out.
#![expect(clippy::unwrap_used, reason = "a test may panic, also in the functions that its tests share")]

mod copying;
mod damage;
mod keeping;
mod replay;
mod world;
