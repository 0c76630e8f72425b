//! The probe.

pub mod observation;
