//! Peers and original seeds: a pure state machine for each torrent (`state`) and the node that drives it (`node`).

mod buffers;
mod file_store;
mod journal;
mod node;
mod plain;
mod published;
mod rate_limit;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod state;
mod store;
mod tracker;

pub use file_store::FileStore;
pub use node::{
    AddError, DhtConfig, LsdConfig, Member, Node, NodeConfig, Obfuscation, PortMappingConfig, Role, Stats,
    Torrent, TorrentConfig,
};
pub use plain::PlainSource;
pub use published::{Expected, Published};
pub use store::{Shape, Store, StoreError, StoreReader, StoredPiece};
pub use tracker::{
    Announce, AnnounceEvent, AnnounceReply, BoxFuture, KeyError, OrdinaryClient, Personal, Tracker,
};
