//! A tracker under load: the program as a process of its own on cores of its own, members that ask it, and how long it takes.
//!
//! Askers are threads with one connection each, which wait for their answer as a peer does.

pub mod connection;
pub mod drive;
pub mod members;
pub mod server;
