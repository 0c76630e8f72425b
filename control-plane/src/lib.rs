//! The control plane.

pub mod drivers;
