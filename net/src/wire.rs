//! Bytes in and out: formats and messages, with no sockets and no clock. Everything that parses is bounded.

pub mod announce;
pub mod api;
pub mod authority;
pub mod bencode;
pub mod channel;
pub mod content;
pub mod dont_have;
pub mod handshake;
pub mod identity;
pub mod keyfile;
pub mod layout;
pub mod license;
pub mod lsd;
pub mod message;
pub mod metainfo;
pub mod mse;
pub mod network;
pub mod origin;
pub mod personal;
pub mod plain;
pub mod seal;
pub mod selection;
pub mod subscription;
pub mod udp_tracker;
pub mod voucher;
