//! Paid content through BitTorrent: tracker, seed, peer and player of the Swarmseal scheme.
#![forbid(unsafe_code)]

pub mod peer;
pub mod wire;
