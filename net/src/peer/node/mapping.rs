//! Port mapping: asks the gateway to pass calls on to us, by PCP or NAT-PMP (RFC 6887, 6886), or else by UPnP.
//!
//! Nothing waits for it, and nothing depends on it: without a mapping we call others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crab_nat::{GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, TimeoutConfig};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchOptions};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Shared, stopping};
use crate::platform;

/// How long a mapping is asked for; it is renewed at half of what is given.
const LEASE: Duration = Duration::from_secs(3600);
/// The shortest time between two renewals, whatever the gateway gives.
const SHORTEST: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(600);
/// The removal, at the end.
const LAST_WORD: Duration = Duration::from_secs(3);
/// What the gateway shows its owner.
const DESCRIPTION: &str = "Swarmseal";
/// A gateway answers at once if it speaks the protocol.
const PATIENCE: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 4, max_retry_timeout: None };

/// Which gateway to ask for a port mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMappingConfig {
    /// Who is asked by PCP and NAT-PMP, at port 5351. None: the system's default gateway, where it can be told.
    pub gateway: Option<Ipv4Addr>,
    /// Where a gateway that speaks UPnP is searched for.
    pub upnp: SocketAddr,
}

impl PortMappingConfig {
    /// One gateway and no other.
    pub fn of(gateway: Ipv4Addr) -> Self {
        PortMappingConfig { gateway: Some(gateway), upnp: (gateway, 1900).into() }
    }
}

impl Default for PortMappingConfig {
    /// The default gateway, and whatever answers on the local network.
    fn default() -> Self {
        PortMappingConfig { gateway: None, upnp: (Ipv4Addr::new(239, 255, 255, 250), 1900).into() }
    }
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Mapping(#[from] crab_nat::MappingFailure),
    #[error("no gateway with UPnP: {0}")]
    Search(#[from] igd_next::SearchError),
    #[error("{0}")]
    AddPort(#[from] AddPortError),
    #[error("{0}")]
    AnyPort(#[from] AddAnyPortError),
}

/// A mapping that we have.
enum Held {
    Nat(PortMapping),
    Upnp { gateway: Gateway<Tokio>, local: SocketAddr, port: u16, lease: Duration },
}

/// Asks for a mapping and renews it until the node stops; then removes it. `listen`: where the node listens.
pub(super) async fn keep(
    config: PortMappingConfig,
    listen: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) {
    let Some(port) = NonZeroU16::new(listen.port()) else { return };
    let stop = stopping(stop);
    tokio::pin!(stop);
    let (mut held, mut failed) = (None, false);
    loop {
        let asked = tokio::select! {
            asked = ask(&config, listen.ip(), port, &mut held) => asked,
            () = &mut stop => break,
        };
        let wait = match asked {
            Ok((external, lease)) => {
                if shared.port() != external || failed {
                    tracing::info!(port = external, "the gateway passes calls on");
                }
                shared.set_port(external);
                failed = false;
                (lease / 2).max(SHORTEST)
            }
            Err(error) => {
                // Once: most networks have no such gateway.
                if !std::mem::replace(&mut failed, true) {
                    tracing::info!(%error, "no port mapping");
                }
                shared.set_port(port.get());
                RETRY
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = &mut stop => break,
        }
    }
    if let Some(held) = held {
        let removed = timeout(shared.within(LAST_WORD), held.remove()).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::debug!("the port mapping stays until its lease ends");
        }
    }
}

/// Renews a mapping, or makes one; its external port and how long it lasts.
async fn ask(
    config: &PortMappingConfig,
    own: IpAddr,
    port: NonZeroU16,
    held: &mut Option<Held>,
) -> Result<(u16, Duration), Error> {
    if let Some(mapping) = held {
        match mapping.renew().await {
            Ok(()) => return Ok(mapping.terms()),
            Err(error) => tracing::debug!(%error, "the port mapping could not be renewed"),
        }
        *held = None;
    }
    let made = match config.gateway.or_else(platform::default_gateway) {
        Some(gateway) => match by_nat(gateway, own, port).await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(%gateway, %error, "neither PCP nor NAT-PMP");
                by_upnp(config.upnp, own, port).await?
            }
        },
        None => by_upnp(config.upnp, own, port).await?,
    };
    Ok(held.insert(made).terms())
}

async fn by_nat(gateway: Ipv4Addr, own: IpAddr, port: NonZeroU16) -> Result<Held, Error> {
    let client = own_address(own, (gateway, crab_nat::GATEWAY_PORT).into()).await?;
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LEASE.as_secs() as u32),
        timeout_config: Some(PATIENCE),
    };
    let gateway = GatewayAddress::IpV4(gateway);
    Ok(Held::Nat(PortMapping::new(gateway, client, InternetProtocol::Tcp, port, options).await?))
}

async fn by_upnp(search: SocketAddr, own: IpAddr, port: NonZeroU16) -> Result<Held, Error> {
    let mut options = SearchOptions::default();
    options.broadcast_address = search;
    if own.is_ipv4() {
        options.bind_addr = (own, 0).into();
    }
    if !search.ip().is_multicast() {
        // One that was named is trusted wherever it is; those that are found must not lead us to loopback.
        options.allowed_gateway_ips.push(search.ip());
    }
    let gateway = search_gateway(options).await?;
    let local = SocketAddr::new(own_address(own, gateway.addr).await?, port.get());
    let (port, lease) = add(&gateway, port.get(), local).await?;
    Ok(Held::Upnp { gateway, local, port, lease })
}

/// Maps a port, or any other where another machine has it; which, and for how long.
async fn add(gateway: &Gateway<Tokio>, port: u16, local: SocketAddr) -> Result<(u16, Duration), Error> {
    let added = add_for(gateway, port, local, LEASE.as_secs() as u32).await;
    match added {
        // It is removed at the end, and looked after until then.
        Err(
            Error::AddPort(AddPortError::OnlyPermanentLeasesSupported)
            | Error::AnyPort(AddAnyPortError::OnlyPermanentLeasesSupported),
        ) => Ok((add_for(gateway, port, local, 0).await?, LEASE)),
        added => Ok((added?, LEASE)),
    }
}

async fn add_for(gateway: &Gateway<Tokio>, port: u16, local: SocketAddr, lease: u32) -> Result<u16, Error> {
    match gateway.add_port(PortMappingProtocol::TCP, port, local, lease, DESCRIPTION).await {
        Ok(()) => Ok(port),
        Err(AddPortError::PortInUse) => {
            Ok(gateway.add_any_port(PortMappingProtocol::TCP, local, lease, DESCRIPTION).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The address by which a gateway knows us.
async fn own_address(own: IpAddr, gateway: SocketAddr) -> io::Result<IpAddr> {
    if own.is_ipv4() && !own.is_unspecified() {
        return Ok(own);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    // Nothing is sent: the system says which of our addresses it would use.
    socket.connect(gateway).await?;
    Ok(socket.local_addr()?.ip())
}

impl Held {
    fn terms(&self) -> (u16, Duration) {
        match self {
            Held::Nat(mapping) => {
                (mapping.external_port().get(), Duration::from_secs(mapping.lifetime().into()))
            }
            Held::Upnp { port, lease, .. } => (*port, *lease),
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
        match self {
            Held::Nat(mapping) => mapping.renew().await?,
            Held::Upnp { gateway, local, port, lease } => {
                (*port, *lease) = add(gateway, *port, *local).await?;
            }
        }
        Ok(())
    }

    async fn remove(self) -> Result<(), ()> {
        match self {
            Held::Nat(mapping) => mapping.try_drop().await.map_err(drop),
            Held::Upnp { gateway, port, .. } => {
                gateway.remove_port(PortMappingProtocol::TCP, port).await.map_err(drop)
            }
        }
    }
}
