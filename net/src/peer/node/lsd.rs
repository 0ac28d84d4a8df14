//! Local service discovery (BEP 14): tells the local network what we fetch or have, and hears what others do.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::torrent::Input;
use super::{Shared, stopping};
use crate::platform;
use crate::wire::lsd::{MAX_INFO_HASHES, MAX_PACKET, Search};

const INTERVAL: Duration = Duration::from_secs(300);
/// After a socket that fails.
const PAUSE: Duration = Duration::from_secs(1);

/// How to look for peers on the local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LsdConfig {
    /// The groups that are told and heard.
    pub groups: Vec<SocketAddr>,
    /// The address of the interface that IPv4 packets pass through; unspecified: the system chooses.
    pub interface: Ipv4Addr,
}

impl LsdConfig {
    /// BEP 14's group of IPv4.
    pub const GROUP_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 192, 152, 143)), 6771);
    /// BEP 14's group of IPv6.
    pub const GROUP_V6: SocketAddr =
        SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f)), 6771);
}

impl Default for LsdConfig {
    /// Both groups, on the interface of the system's choice.
    fn default() -> Self {
        LsdConfig { groups: vec![Self::GROUP_V4, Self::GROUP_V6], interface: Ipv4Addr::UNSPECIFIED }
    }
}

/// The torrents that the local network is told of.
#[derive(Debug, Default)]
pub(super) struct Lsd(Arc<Joined>);

#[derive(Debug, Default)]
struct Joined {
    torrents: Mutex<Torrents>,
    /// There are fresh ones.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Torrents {
    started: bool,
    inputs: HashMap<[u8; 20], mpsc::WeakSender<Input>>,
    /// Not announced yet.
    fresh: Vec<[u8; 20]>,
}

impl Joined {
    fn torrents(&self) -> MutexGuard<'_, Torrents> {
        self.torrents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lsd {
    /// Announces a torrent, and tells it who else announces it. To be called inside a tokio runtime.
    pub(super) fn join(
        &self,
        config: &LsdConfig,
        cookie: String,
        info_hash: [u8; 20],
        shared: &Arc<Shared>,
        inputs: mpsc::WeakSender<Input>,
        stop: watch::Receiver<bool>,
    ) {
        let mut torrents = self.0.torrents();
        torrents.inputs.insert(info_hash, inputs);
        torrents.fresh.push(info_hash);
        self.0.wake.notify_one();
        if std::mem::replace(&mut torrents.started, true) {
            return;
        }
        let mut groups = Vec::new();
        for &group in &config.groups {
            match open(group, config.interface) {
                Ok((hearing, telling)) => {
                    tokio::spawn(hear(hearing, cookie.clone(), self.0.clone(), stop.clone()));
                    groups.push((telling, group));
                }
                Err(error) => tracing::info!(%group, %error, "no local service discovery"),
            }
        }
        if groups.is_empty() {
            // There may be a network by the time of the next torrent.
            torrents.started = false;
            return;
        }
        let tell = Tell { groups, cookie, shared: shared.clone() };
        tokio::spawn(tell.run(self.0.clone(), stop));
    }
}

/// A socket that hears what goes to a group, shared with other programs, and one to tell it something.
fn open(group: SocketAddr, interface: Ipv4Addr) -> io::Result<(UdpSocket, UdpSocket)> {
    let hearing = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    hearing.set_reuse_address(true)?;
    hearing.set_nonblocking(true)?;
    let telling = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    telling.set_nonblocking(true)?;
    match group.ip() {
        IpAddr::V4(address) => {
            hearing.bind(&platform::group_address(group).into())?;
            hearing.join_multicast_v4(&address, &interface)?;
            telling.set_multicast_if_v4(&interface)?;
            telling.bind(&SocketAddr::from((interface, 0)).into())?;
        }
        IpAddr::V6(address) => {
            hearing.set_only_v6(true)?;
            hearing.bind(&platform::group_address(group).into())?;
            hearing.join_multicast_v6(&address, 0)?;
        }
    }
    Ok((UdpSocket::from_std(hearing.into())?, UdpSocket::from_std(telling.into())?))
}

async fn hear(socket: UdpSocket, cookie: String, joined: Arc<Joined>, stop: watch::Receiver<bool>) {
    let stop = stopping(stop);
    tokio::pin!(stop);
    let mut packet = [0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut packet) => received,
            () = &mut stop => return,
        };
        let Ok((len, from)) = received else {
            // The network is down, most likely.
            sleep(PAUSE).await;
            continue;
        };
        let Some(search) = Search::from_bytes(&packet[..len]) else { continue };
        if search.cookie.as_ref() == Some(&cookie) {
            continue;
        }
        let mut peer = from;
        peer.set_port(search.port);
        for info_hash in search.info_hashes {
            // Of private torrents it knows nothing.
            let inputs = joined.torrents().inputs.get(&info_hash).and_then(mpsc::WeakSender::upgrade);
            if let Some(inputs) = inputs {
                // A torrent that is busy can do without.
                let _ = inputs.try_send(Input::Found(vec![peer]));
            }
        }
    }
}

struct Tell {
    groups: Vec<(UdpSocket, SocketAddr)>,
    cookie: String,
    shared: Arc<Shared>,
}

impl Tell {
    async fn run(self, joined: Arc<Joined>, stop: watch::Receiver<bool>) {
        let stop = stopping(stop);
        tokio::pin!(stop);
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let all = tokio::select! {
                _ = tick.tick() => true,
                () = joined.wake.notified() => false,
                () = &mut stop => return,
            };
            let info_hashes = {
                let mut torrents = joined.torrents();
                torrents.inputs.retain(|_, inputs| inputs.strong_count() > 0);
                let fresh = std::mem::take(&mut torrents.fresh);
                if all { torrents.inputs.keys().copied().collect() } else { fresh }
            };
            for some in info_hashes.chunks(MAX_INFO_HASHES) {
                let search = Search {
                    port: self.shared.port(),
                    info_hashes: some.to_vec(),
                    cookie: Some(self.cookie.clone()),
                };
                for (socket, group) in &self.groups {
                    if let Err(error) = socket.send_to(&search.to_bytes(*group), group).await {
                        tracing::debug!(%group, %error, "the local network was not told");
                    }
                }
            }
        }
    }
}
