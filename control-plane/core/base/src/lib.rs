//! Nouns that every core shares: moments and spans of time, bounded collections, fast look-up tables.
//!
//! Owns no behaviour of any service. Must never know a clock, a socket, a file or a random source: time comes in as [`Timestamp`].

mod dense;
mod time;

pub use dense::{DenseMap, DenseSet};
pub use time::Timestamp;
