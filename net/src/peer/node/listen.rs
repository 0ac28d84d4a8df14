//! The listening socket, of both address families where the system has both, and addresses as everything else knows them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use crate::platform;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Listens. `[::]` takes IPv4 as well; on a system without IPv6 it is `0.0.0.0`. To be called inside a tokio runtime. Errors:
/// the address cannot be had.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    match open(addr) {
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            tracing::debug!(%error, "no IPv6 here");
            open((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        opened => opened,
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if addr.is_ipv6() {
        // Systems differ in what they do where they are not told.
        SockRef::from(&socket).set_only_v6(addr.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    platform::reuse_address(&socket)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// An IPv4 address as such, also where a socket of both families shows it inside an IPv6 one.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        // With the scope that a link-local address needs.
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        let canonical = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:7"), "192.0.2.1:7");
        assert_eq!(canonical("[fe80::1%3]:7"), "[fe80::1%3]:7");
        assert_eq!(canonical("192.0.2.1:7"), "192.0.2.1:7");
    }

    #[tokio::test]
    async fn a_port_in_use_is_no_lack_of_ipv6() {
        let first = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen((Ipv6Addr::UNSPECIFIED, port).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
