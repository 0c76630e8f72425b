//! A cluster as the collector sees it: objects read from the API's JSON, relations kept through any order of events, and lists and watches
//! against a server that speaks the real protocol and fails in all its ways.

mod controls;
mod endpoints;
mod faults;
mod following;
mod index;
mod lease;
mod load;
mod make;
mod objects;
mod picture;
mod server;
mod terminals;
