//! Scenes with the master: what happens to it, and what it asks of the world.

mod accounting;
mod launching;
mod lifecycle;
mod operating;
mod sim;
mod world;
