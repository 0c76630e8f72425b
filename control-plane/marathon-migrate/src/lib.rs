//! Moves what is defined in one Marathon to another, through the REST API: groups, apps and pods with their versions.
//!
//! Owns the picture of a Marathon ([`Snapshot`]), the comparison of two, the plan of a move with everything that speaks against it, and its
//! execution. Nothing is ever started twice by accident: what runs in the old Marathon comes suspended into the new one, unless somebody
//! says otherwise in so many words.

mod compare;
mod plan;
mod run;
mod snapshot;

pub use compare::{Difference, definition, differences};
pub use plan::{Action, Plan, Start, Wish};
pub use run::{MarathonCommand, Outcome, run};
pub use snapshot::{GroupFacts, Item, Snapshot, Source};
