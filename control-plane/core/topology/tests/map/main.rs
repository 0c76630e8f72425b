//! The map as its driver uses it: reports in, pictures out.

mod joining;
mod life;
mod panels;
mod random;
mod views;
mod world;
