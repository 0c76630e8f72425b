//! The map as its driver uses it: reports in, pictures out.
#![expect(clippy::unwrap_used, reason = "a test may panic, also in the functions that its tests share")]

mod controls;
mod converging;
mod joining;
mod kubernetes;
mod life;
mod names;
mod panels;
mod pictures;
mod random;
mod searching;
mod tasks;
mod translated;
mod views;
mod world;
