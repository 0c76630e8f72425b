//! What the map was: its records at any moment of the last hours, in files that survive anything.
//!
//! Owns how the records of the probes are written down as they change, how they are read back, and how a map of a past moment is made of
//! them. Must never know a clock (`now` is an argument), a runtime or a network. Files are at its edge alone, in the store; everything else
//! works on bytes.
//!
//! Events of the live map go into the [`Recorder`], which finds out what they change. The [`Store`] writes that down, once a second, behind
//! the keyframe with which each segment begins. A [`Player`] reads the records of a moment from the segment that it is in, and hands them to
//! a topology core of its own: whatever can be asked of the live map can be asked of that one.

mod code;
mod player;
mod recorder;
mod records;
mod segment;
mod store;
mod survey;
mod world;

pub use code::DecodeError;
pub use player::{PlayError, Player};
pub use recorder::{Event, Recorder};
pub use store::{Catalogue, Copied, Copy, Gap, Opened, Segment, Settings, Store, Tended, compact_file};
pub use survey::{Spent, survey};
pub use world::World;
