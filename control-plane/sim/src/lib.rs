//! A seeded world: hosts on which things happen, the pure middle of a probe on each, a network that delays and breaks, and the topology core
//! behind the conversion that the control plane really uses. No thread, no socket, no clock: one number decides everything that happens.
//!
//! Owns what happens and what is true; must never repeat a rule of the probe or of the map. What it asks is the promise of the whole: when the
//! faults end, the map shows what is true, and nothing else.

mod node;
mod random;
mod world;

pub use world::{Faults, World};
