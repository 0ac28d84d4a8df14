//! Where a tracker or license server is reached: `scheme://host[:port]` (RFC 6454), in one form only, so that it can be signed and
//! compared as text.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Bytes of the longest origin: a DNS name has 253 at most.
pub const MAX_ORIGIN: usize = 272;

/// A text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not an origin: expected http:// or https://, a host, and a port if it is not the default"
)]
pub struct BadOrigin {
    /// The text, cut to its first characters.
    pub given: String,
}

/// An origin: lower case, international names in their ASCII form (IDNA), the default port left out, no path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

impl Origin {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is reached over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Whether it is on this machine: `localhost`, 127/8 or ::1.
    pub fn is_loopback(&self) -> bool {
        match self.url().host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => Ipv4Addr::is_loopback(&address),
            Some(Host::Ipv6(address)) => Ipv6Addr::is_loopback(&address),
            None => false,
        }
    }

    /// The URL of a call. `call`: a path without the slash before it.
    pub fn join(&self, call: &str) -> Url {
        let mut url = self.url();
        url.set_path(call);
        url
    }

    fn url(&self) -> Url {
        Url::parse(&self.0).expect("checked when it was made")
    }
}

impl FromStr for Origin {
    type Err = BadOrigin;

    /// Reads an origin in any form. A path other than `/`, a query, a fragment or a user's name is refused.
    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let bad = || BadOrigin { given: text.chars().take(80).collect() };
        let url = Url::parse(text.trim()).map_err(|_| bad())?;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        if !bare || !matches!(url.scheme(), "http" | "https") {
            return Err(bad());
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let origin = format!("{}://{host}{port}", url.scheme());
        if origin.len() > MAX_ORIGIN { Err(bad()) } else { Ok(Origin(origin)) }
    }
}

impl TryFrom<String> for Origin {
    type Error = BadOrigin;

    fn try_from(text: String) -> Result<Self, BadOrigin> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_origin_has_one_form() {
        for (text, origin) in [
            ("http://127.0.0.1:7000", "http://127.0.0.1:7000"),
            ("HTTPS://Tracker.Example:443/", "https://tracker.example"),
            ("http://tracker.example:80", "http://tracker.example"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[0:0::1]:7000/", "http://[::1]:7000"),
            (" https://tracker.example ", "https://tracker.example"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().as_str(), origin);
        }
        for text in [
            "",
            "tracker.example",
            "udp://tracker.example",
            "https://",
            "https://tracker.example/announce",
            "https://tracker.example/?x",
            "https://tracker.example/#x",
            "https://me@tracker.example",
            "https://:pass@tracker.example",
            "http://127.0.0.1:70000",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert!(format!("https://{}.example", "a.".repeat(200)).parse::<Origin>().is_err());
    }

    #[test]
    fn this_machine_and_encryption_are_told() {
        let origin = |text: &str| text.parse::<Origin>().unwrap();
        for here in ["http://localhost:1", "http://127.0.0.2:1", "http://[::1]"] {
            assert!(origin(here).is_loopback() && !origin(here).is_encrypted(), "{here}");
        }
        for there in ["https://localhost.example", "https://192.0.2.1", "https://[2001:db8::1]:8443"] {
            assert!(!origin(there).is_loopback() && origin(there).is_encrypted(), "{there}");
        }
        assert_eq!(origin("http://[::1]:7").join("seed/keys").as_str(), "http://[::1]:7/seed/keys");
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_again(text in "(https?://)?[a-zA-Z0-9.:@/\\[\\]ü?#-]{0,40}") {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(origin.as_str().parse::<Origin>(), Ok(origin.clone()));
                let _ = origin.is_loopback();
            }
        }
    }
}
