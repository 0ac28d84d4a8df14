//! Flags about how others find and reach a peer, and what follows from them for where it listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::ArgAction;

use crate::peer::{DhtConfig, LsdConfig, PortMappingConfig};

/// Flags of everything that listens for peers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MappingArgs {
    /// Ask the gateway to pass calls on, by PCP, NAT-PMP or UPnP: on or off. On loopback only where --gateway names one
    #[arg(long, env = "SWARMSEAL_PORT_MAPPING", value_name = "MODE", default_value = "on", action = ArgAction::Set, value_parser = on_or_off)]
    port_mapping: bool,
    /// The gateway to ask [default: the system's own, or what answers on the local network]
    #[arg(long, env = "SWARMSEAL_GATEWAY", value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
}

/// Flags of `get`, for torrents that are neither sealed nor private.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DiscoveryArgs {
    /// A public ordinary torrent's: find peers on the local network (BEP 14): on or off
    #[arg(long, env = "SWARMSEAL_LSD", value_name = "MODE", default_value = "on", action = ArgAction::Set, value_parser = on_or_off)]
    lsd: bool,
    /// A public ordinary torrent's: find peers in the DHT (BEP 5): on or off
    #[arg(long, env = "SWARMSEAL_DHT", value_name = "MODE", default_value = "on", action = ArgAction::Set, value_parser = on_or_off)]
    dht: bool,
    /// A node of the DHT to ask first, HOST:PORT. Can be repeated [default: the usual public ones, but not on loopback]
    #[arg(long, env = "SWARMSEAL_DHT_BOOTSTRAP", value_name = "NODE", value_delimiter = ',')]
    dht_bootstrap: Vec<String>,
}

impl MappingArgs {
    /// What to ask for, for a node that listens there.
    pub(crate) fn port_mapping(&self, listen: SocketAddr) -> Option<PortMappingConfig> {
        let any_ipv4 = listen.is_ipv4() || listen.ip().is_unspecified();
        match self.gateway {
            _ if !self.port_mapping || !any_ipv4 => None,
            Some(gateway) => Some(PortMappingConfig::of(gateway)),
            None => (!listen.ip().is_loopback()).then(PortMappingConfig::default),
        }
    }
}

impl DiscoveryArgs {
    /// Whether a node was named.
    pub(crate) fn names_nodes(&self) -> bool {
        !self.dht_bootstrap.is_empty()
    }

    /// The local networks to search, for a node that listens there: packets leave by that address alone.
    pub(crate) fn lsd(&self, listen: SocketAddr) -> Option<LsdConfig> {
        let of = |interface| LsdConfig { groups: vec![LsdConfig::GROUP_V4], interface };
        match listen.ip() {
            _ if !self.lsd => None,
            IpAddr::V4(interface) => Some(of(interface)),
            IpAddr::V6(address) => address.is_unspecified().then(LsdConfig::default),
        }
    }

    /// The part in the DHT, for a node that listens there.
    pub(crate) fn dht(&self, listen: SocketAddr) -> Option<DhtConfig> {
        let bind = match listen.ip() {
            _ if !self.dht => return None,
            IpAddr::V4(address) => address,
            IpAddr::V6(address) if address.is_unspecified() => Ipv4Addr::UNSPECIFIED,
            IpAddr::V6(_) => return None,
        };
        match &self.dht_bootstrap[..] {
            [] if bind.is_loopback() => None,
            [] => Some(DhtConfig { bind, ..DhtConfig::default() }),
            nodes => Some(DhtConfig { bind, bootstrap: nodes.to_vec() }),
        }
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected `on` or `off`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        mapping: MappingArgs,
        #[command(flatten)]
        discovery: DiscoveryArgs,
    }

    fn chosen(
        listen: &str,
        flags: &[&str],
    ) -> (Option<PortMappingConfig>, Option<LsdConfig>, Option<DhtConfig>) {
        let All { mapping, discovery } = All::try_parse_from([&["x"], flags].concat()).unwrap();
        let listen = listen.parse().unwrap();
        (mapping.port_mapping(listen), discovery.lsd(listen), discovery.dht(listen))
    }

    #[test]
    fn everything_is_on_for_who_listens_anywhere() {
        let all = chosen("[::]:6881", &[]);
        assert_eq!(
            all,
            (Some(PortMappingConfig::default()), Some(LsdConfig::default()), Some(DhtConfig::default()))
        );
        let off = ["--port-mapping", "off", "--lsd", "off", "--dht", "off"];
        assert_eq!(chosen("[::]:6881", &off), (None, None, None));
    }

    #[test]
    fn what_listens_on_loopback_stays_there() {
        let (mapping, lsd, dht) = chosen("127.0.0.1:6881", &[]);
        assert_eq!((mapping, dht), (None, None));
        assert_eq!(lsd.unwrap().interface, Ipv4Addr::LOCALHOST);
        assert_eq!(chosen("[::1]:6881", &["--gateway", "127.0.0.9"]), (None, None, None));
        let flags = ["--gateway", "127.0.0.9", "--dht-bootstrap", "127.0.0.1:7"];
        let (mapping, _, dht) = chosen("127.0.0.1:6881", &flags);
        assert_eq!(mapping, Some(PortMappingConfig::of(Ipv4Addr::new(127, 0, 0, 9))));
        let bootstrap = vec!["127.0.0.1:7".to_owned()];
        assert_eq!(dht, Some(DhtConfig { bootstrap, bind: Ipv4Addr::LOCALHOST }));
    }

    #[test]
    fn one_address_is_not_left_for_others() {
        let (_, lsd, dht) = chosen("192.0.2.1:6881", &[]);
        assert_eq!(
            (lsd.unwrap().interface, dht.unwrap().bind),
            (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 1))
        );
        assert_eq!(chosen("[2001:db8::1]:6881", &[]), (None, None, None));
    }
}
