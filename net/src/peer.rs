//! Peers and original seeds: a pure state machine for each torrent (`state`) and the node that drives it (`node`).

mod buffers;
mod cipher_hashes;
mod clear;
mod file_store;
mod journal;
mod node;
mod plain;
mod rate_limit;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod state;
mod statements;
mod store;
mod tracker;

pub use cipher_hashes::PieceCheck;
pub use clear::ClearPieces;
pub use file_store::FileStore;
pub use node::{
    AddError, DhtConfig, LsdConfig, Member, Node, NodeConfig, Obfuscation, PortMappingConfig, Role, Stats,
    Torrent, TorrentConfig,
};
pub use plain::PlainSource;
pub use statements::{Owner, Stated, StatementLog, read_statements, statements_by_entry};
pub use store::{Shape, Store, StoreError, StoreReader, StoredPiece, stored_pieces};
pub use tracker::{
    Announce, AnnounceEvent, AnnounceReply, BoxFuture, CipherHashes, KeyError, OrdinaryClient, Personal,
    Tracker,
};
