//! Whose an address is, for bounds on what one party may have; and the address that connections leave from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network of an address: an IPv4 address, or the 2^64 addresses of an IPv6 network (/64), which one party has together. Within
/// 127/8 each address is a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of `address`; an IPv4 address inside an IPv6 one is that IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Network(match address.to_canonical() {
            IpAddr::V6(Ipv6Addr::LOCALHOST) => address,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            v4 => v4,
        })
    }

    /// 127.0.0.1 or ::1, where other programs of the same user are: bounds for each network leave it out.
    pub fn is_this_machine(self) -> bool {
        matches!(self.0, IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST))
    }
}

/// The address that a connection to `remote` is to leave from, for a program that listens on `listen`: the same one, so that
/// others see one address whichever side connects. `None`: the system chooses, because `listen` is unspecified, of the other family, loopback where
/// `remote` is not, or of a link, where an address says nothing without its interface.
pub fn source_address(listen: IpAddr, remote: IpAddr) -> Option<IpAddr> {
    let (listen, remote) = (listen.to_canonical(), remote.to_canonical());
    let of_a_link = matches!(listen, IpAddr::V6(address) if address.is_unicast_link_local());
    let reaches = listen.is_ipv4() == remote.is_ipv4() && (remote.is_loopback() || !listen.is_loopback());
    (reaches && !listen.is_unspecified() && !of_a_link).then_some(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn network(text: &str) -> Network {
        Network::of(ip(text))
    }

    #[test]
    fn an_ipv4_address_and_64_bits_of_ipv6_are_networks() {
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn two_addresses_are_this_machine() {
        for text in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(network(text).is_this_machine(), "{text}");
        }
        for text in ["127.0.0.2", "127.1.0.1", "::2", "::", "192.0.2.1"] {
            assert!(!network(text).is_this_machine(), "{text}");
        }
        assert_ne!(network("127.0.0.2"), network("127.0.0.3"));
    }

    #[test]
    fn connections_leave_from_the_address_that_is_listened_on() {
        let source =
            |listen, remote| source_address(ip(listen), ip(remote)).map(|address| address.to_string());
        assert_eq!(source("192.0.2.1", "198.51.100.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("::ffff:192.0.2.1", "198.51.100.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("192.0.2.1", "127.0.0.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("127.0.0.2", "127.0.0.1").as_deref(), Some("127.0.0.2"));
        assert_eq!(source("2001:db8::1", "2001:db8::2").as_deref(), Some("2001:db8::1"));
        for (listen, remote) in [
            ("0.0.0.0", "192.0.2.1"),
            ("::", "192.0.2.1"),
            ("::", "2001:db8::1"),
            ("192.0.2.1", "2001:db8::1"),
            ("2001:db8::1", "192.0.2.1"),
            ("127.0.0.2", "192.0.2.1"),
            ("::1", "2001:db8::1"),
            ("fe80::1", "fe80::2"),
        ] {
            assert_eq!(source(listen, remote), None, "{listen} {remote}");
        }
    }
}
