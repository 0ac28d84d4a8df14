//! Flags of everything that fetches: where to listen, how fast, with how many.

use std::net::SocketAddr;

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
    /// Connections at most
    #[arg(long, env = "SWARMSEAL_MAX_PEERS", value_name = "COUNT", default_value_t = 50)]
    max_peers: usize,
    /// Connections with one IP address at most (of IPv6: with one network of 64 bits)
    #[arg(long, env = "SWARMSEAL_MAX_PEERS_PER_ADDRESS", value_name = "COUNT", default_value_t = 8)]
    max_peers_per_address: usize,
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
            max_connections: self.max_peers,
            max_per_address: self.max_peers_per_address,
            obfuscation: self.obfuscation,
            port_mapping: self.mapping.port_mapping(self.listen),
            upload_limit: self.upload_limit,
            download_limit: self.download_limit,
            ..NodeConfig::default()
        }
    }
}
