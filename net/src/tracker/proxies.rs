//! Who is at the other end: the connection's address, or what proxies that are trusted say.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use super::config::ProxyHeader;

/// The client of a request. Proxies append whom they speak for, so a list is read from its end, and only as far as each hop
/// is trusted: what stands before that may be made up. An entry that is no address ends it, too.
pub(super) fn client(
    trusted: &[IpAddr],
    header: ProxyHeader,
    connected: SocketAddr,
    headers: &HeaderMap,
) -> IpAddr {
    let mut client = connected.ip().to_canonical();
    if !trusted.contains(&client) {
        return client;
    }
    let name = match header {
        ProxyHeader::XForwardedFor => "x-forwarded-for",
        ProxyHeader::Forwarded => "forwarded",
    };
    for value in headers.get_all(name).iter().rev() {
        let Ok(value) = value.to_str() else { return client };
        for entry in value.rsplit(',') {
            let Some(address) = address(header, entry.trim()) else { return client };
            client = address.to_canonical();
            if !trusted.contains(&client) {
                return client;
            }
        }
    }
    client
}

/// The address in one entry; some proxies add a port.
fn address(header: ProxyHeader, entry: &str) -> Option<IpAddr> {
    match header {
        ProxyHeader::XForwardedFor => {
            let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
            bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        }
        ProxyHeader::Forwarded => {
            let element = rfc7239::parse(entry).next()?.ok()?;
            element.forwarded_for?.ip().copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Who it is, for a connection from 10.0.0.1 with these headers.
    fn seen(trusted: &[&str], header: ProxyHeader, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpAddr> = trusted.iter().map(|text| ip(text)).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(&trusted, header, SocketAddr::from(([10, 0, 0, 1], 5)), &map).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        use ProxyHeader::XForwardedFor as X;
        let spoofed = [("x-forwarded-for", "6.6.6.6, 1.2.3.4")];
        assert_eq!(seen(&[], X, &spoofed), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.2"], X, &spoofed), "10.0.0.1");
        // What the client had written stands before what the proxy appended.
        assert_eq!(seen(&["10.0.0.1"], X, &spoofed), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.1"], X, &[]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.1"], X, &[("x-forwarded-for", "1.2.3.4:5678")]), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.1"], X, &[("x-forwarded-for", "[2001:db8::1]:5")]), "2001:db8::1");
        assert_eq!(seen(&["10.0.0.1"], X, &[("x-forwarded-for", "2001:db8::1")]), "2001:db8::1");
    }

    #[test]
    fn a_chain_is_followed_as_far_as_it_is_trusted() {
        use ProxyHeader::XForwardedFor as X;
        let chain = [("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.3, 10.0.0.2")];
        assert_eq!(seen(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], X, &chain), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.1", "10.0.0.2"], X, &chain), "10.0.0.3");
        // Several lines are one list.
        let lines = [("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(seen(&["10.0.0.1", "10.0.0.2"], X, &lines), "1.2.3.4");
        // A trusted address that somebody wrote down further left is not reached.
        let planted = [("x-forwarded-for", "5.5.5.5, 10.0.0.2, 1.2.3.4")];
        assert_eq!(seen(&["10.0.0.1", "10.0.0.2"], X, &planted), "1.2.3.4");
        // An entry that says nothing ends the walk at the last proxy that is known.
        for nothing in ["unknown", "", "1.2.3", "a,b", "1.2.3.4, unknown"] {
            assert_eq!(seen(&["10.0.0.1"], X, &[("x-forwarded-for", nothing)]), "10.0.0.1", "{nothing}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_named_and_only_there() {
        use ProxyHeader::{Forwarded as F, XForwardedFor as X};
        let both = [("forwarded", "for=1.2.3.4;proto=https"), ("x-forwarded-for", "6.6.6.6")];
        assert_eq!(seen(&["10.0.0.1"], F, &both), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.1"], X, &both), "6.6.6.6");
        assert_eq!(seen(&[], F, &both), "10.0.0.1");
        let v6 = [("forwarded", "for=6.6.6.6, For=\"[2001:db8::7]:4711\"")];
        assert_eq!(seen(&["10.0.0.1"], F, &v6), "2001:db8::7");
        let chain = [("forwarded", "for=6.6.6.6, for=1.2.3.4, for=10.0.0.2;by=10.0.0.1")];
        assert_eq!(seen(&["10.0.0.1", "10.0.0.2"], F, &chain), "1.2.3.4");
        // A quote that the client opened swallows nothing of what the proxy appended.
        let quoted = [("forwarded", "for=\"6.6.6.6, for=1.2.3.4")];
        assert_eq!(seen(&["10.0.0.1"], F, &quoted), "1.2.3.4");
        for nothing in ["for=unknown", "for=_hidden", "by=1.2.3.4", "for=", "=", "nonsense"] {
            assert_eq!(seen(&["10.0.0.1"], F, &[("forwarded", nothing)]), "10.0.0.1", "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn who_is_not_trusted_is_what_it_is(value in "[ -~]{0,60}", forwarded: bool) {
            let header = if forwarded { ProxyHeader::Forwarded } else { ProxyHeader::XForwardedFor };
            let name = if forwarded { "forwarded" } else { "x-forwarded-for" };
            prop_assert_eq!(seen(&["10.0.0.9"], header, &[(name, &value)]), "10.0.0.1");
            // And whatever a trusted one sends does not panic.
            let _ = seen(&["10.0.0.1", "1.2.3.4"], header, &[(name, &value)]);
        }
    }
}
