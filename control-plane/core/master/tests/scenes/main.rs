//! Scenes with the master: what happens to it, and what it asks of the world.

mod accounting;
mod features;
mod launching;
mod lifecycle;
mod nonsense;
mod operating;
mod rights;
mod sim;
mod world;
