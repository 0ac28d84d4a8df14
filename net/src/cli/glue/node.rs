//! Flags of everything that fetches: where to listen, how fast, with how many.

use std::net::SocketAddr;
use std::time::Duration;

use super::{MappingArgs, obfuscation};
use crate::peer::{NodeConfig, Obfuscation};

/// How a subscriber's node reaches others.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Address to listen on; port 0 takes any, and [::] takes IPv4 as well
    #[arg(long, env = "SWARMSEAL_LISTEN", value_name = "ADDRESS", default_value = "[::]:6881")]
    pub(crate) listen: SocketAddr,
    /// Bytes a second to send at most, with K, M or G [default: no limit]
    #[arg(long, env = "SWARMSEAL_UPLOAD_LIMIT", value_name = "RATE", value_parser = super::size)]
    upload_limit: Option<u64>,
    /// Bytes a second to receive at most, with K, M or G [default: no limit]
    #[arg(long, env = "SWARMSEAL_DOWNLOAD_LIMIT", value_name = "RATE", value_parser = super::size)]
    download_limit: Option<u64>,
    #[command(flatten)]
    bounds: BoundArgs,
    /// Hide BitTorrent from filters: off, allow (also obfuscated, where a peer wants it) or require (nothing else). No security
    #[arg(long, env = "SWARMSEAL_OBFUSCATION", value_name = "MODE", default_value = "allow", value_parser = obfuscation)]
    obfuscation: Obfuscation,
    #[command(flatten)]
    mapping: MappingArgs,
}

impl NodeArgs {
    /// A node whose peers come from trackers alone.
    pub(crate) fn config(&self) -> NodeConfig {
        NodeConfig {
            listen: self.listen,
            obfuscation: self.obfuscation,
            port_mapping: self.mapping.port_mapping(self.listen),
            upload_limit: self.upload_limit,
            download_limit: self.download_limit,
            ..self.bounds.config()
        }
    }
}

/// What all others together, and each address, may have of a node: the flags of everything that listens for peers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BoundArgs {
    /// Connections at most; 0: any number
    ///
    /// When another comes, the node parts from the connection that has been least use.
    #[arg(long, env = "SWARMSEAL_MAX_PEERS", value_name = "COUNT", default_value_t = 50)]
    max_peers: usize,
    /// Connections with one IP address (IPv6: /64) at most; 0: any number
    ///
    /// 127.0.0.1 and ::1 may have all.
    #[arg(long, env = "SWARMSEAL_MAX_PEERS_PER_ADDRESS", value_name = "COUNT", default_value_t = 8)]
    max_peers_per_address: usize,
    /// Incoming handshakes under way at most; 0: any number
    ///
    /// When another comes, one of the addresses with most loses one.
    #[arg(long, env = "SWARMSEAL_MAX_HANDSHAKES", value_name = "COUNT", default_value_t = 32)]
    max_handshakes: usize,
    /// Incoming handshakes of one IP address at most; 0: any number
    ///
    /// 127.0.0.1 and ::1 may have all.
    #[arg(long, env = "SWARMSEAL_MAX_HANDSHAKES_PER_ADDRESS", value_name = "COUNT", default_value_t = 4)]
    max_handshakes_per_address: usize,
    /// How long an incoming handshake may take; 0: any time
    #[arg(long, env = "SWARMSEAL_HANDSHAKE_TIME", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    handshake_time: u64,
    /// Refuse an address after this many bad pieces; 0: never
    ///
    /// It is refused for the rest of the run. Bad signatures and bad tickets count as well. 127.0.0.1 and ::1 are never refused.
    #[arg(long, env = "SWARMSEAL_BAD_PIECES", value_name = "COUNT", default_value_t = 3)]
    bad_pieces: u32,
    /// Refuse no address below this percentage of bad pieces; 0: any
    #[arg(long, env = "SWARMSEAL_BAD_PERCENT", value_name = "PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=100))]
    bad_percent: u32,
}

impl BoundArgs {
    /// A node with these bounds.
    pub(crate) fn config(&self) -> NodeConfig {
        NodeConfig {
            max_connections: self.max_peers,
            max_per_address: self.max_peers_per_address,
            max_handshakes: self.max_handshakes,
            max_handshakes_per_address: self.max_handshakes_per_address,
            handshake_time: Duration::from_secs(self.handshake_time),
            bad_pieces: self.bad_pieces,
            bad_percent: self.bad_percent,
            ..NodeConfig::default()
        }
    }
}
