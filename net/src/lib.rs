//! Paid content through BitTorrent: tracker, seed, peer and player of the Swarmseal scheme.
#![forbid(unsafe_code)]

pub mod atomic_file;
pub mod backend;
pub mod cli;
mod date;
mod log;
pub mod peer;
mod platform;
pub mod player;
pub mod publish;
pub mod tracker;
pub mod tracker_client;
pub mod wire;

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
