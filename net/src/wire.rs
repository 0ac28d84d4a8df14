//! Bytes in and out: formats and messages, with no sockets and no clock. Everything that parses is bounded.

pub mod bencode;
pub mod handshake;
pub mod identity;
pub mod message;
pub mod seal;
