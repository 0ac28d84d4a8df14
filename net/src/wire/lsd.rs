//! Local service discovery (BEP 14): who fetches a torrent says so to its local network, in one datagram.
//!
//! ```text
//! BT-SEARCH * HTTP/1.1
//! Host: 239.192.152.143:6771
//! Port: 6881
//! Infohash: 40 hexadecimal digits, once or more
//! cookie: whatever tells its sender that the packet is its own
//! ```

use std::fmt::Write as _;

/// Bytes of the longest packet that is read or written: one that no network cuts up.
pub const MAX_PACKET: usize = 1400;
/// Info-hashes in one packet.
pub const MAX_INFO_HASHES: usize = 20;
/// Bytes of a cookie that is read.
const MAX_COOKIE: usize = 64;

const START: &str = "BT-SEARCH * HTTP/1.1";

/// What the packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Where its sender takes connections, at the address that the packet comes from.
    pub port: u16,
    /// What it fetches or has; the first [`MAX_INFO_HASHES`] are written and read.
    pub info_hashes: Vec<[u8; 20]>,
    /// The sender's name for itself, in printable ASCII.
    pub cookie: Option<String>,
}

impl Search {
    /// The packet. `host`: the group that it goes to.
    pub fn to_bytes(&self, host: std::net::SocketAddr) -> Vec<u8> {
        let mut out = format!("{START}\r\nHost: {host}\r\nPort: {}\r\n", self.port);
        for info_hash in self.info_hashes.iter().take(MAX_INFO_HASHES) {
            let _ = write!(out, "Infohash: {}\r\n", hex::encode(info_hash));
        }
        if let Some(cookie) = &self.cookie {
            let _ = write!(out, "cookie: {cookie}\r\n");
        }
        out.push_str("\r\n\r\n");
        out.into_bytes()
    }

    /// Reads a packet. None: it is none, or has no port or no info-hash. Info-hashes that are none are left out.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes.get(..bytes.len().min(MAX_PACKET))?).ok()?;
        let mut lines = text.split("\r\n");
        if lines.next()? != START {
            return None;
        }
        let mut search = Search { port: 0, info_hashes: Vec::new(), cookie: None };
        for (name, value) in lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'))
        {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "port" => search.port = value.parse().ok()?,
                "infohash" if search.info_hashes.len() < MAX_INFO_HASHES => {
                    let mut info_hash = [0; 20];
                    if hex::decode_to_slice(value, &mut info_hash).is_ok() {
                        search.info_hashes.push(info_hash);
                    }
                }
                "cookie" if is_cookie(value) => search.cookie = Some(value.to_owned()),
                _ => {}
            }
        }
        (search.port != 0 && !search.info_hashes.is_empty()).then_some(search)
    }
}

fn is_cookie(text: &str) -> bool {
    (1..=MAX_COOKIE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_those_of_bep_14() {
        let search = Search { port: 6881, info_hashes: vec![[0xab; 20]], cookie: Some("me".to_owned()) };
        let bytes = search.to_bytes("239.192.152.143:6771".parse().unwrap());
        let expected = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {}\r\ncookie: me\r\n\r\n\r\n",
            "ab".repeat(20)
        );
        assert_eq!(str::from_utf8(&bytes).unwrap(), expected);
        assert_eq!(Search::from_bytes(&bytes), Some(search));
    }

    #[test]
    fn what_others_write_is_read() {
        let hash = "0123456789ABCDEF0123456789ABCDEF01234567";
        let text =
            format!("BT-SEARCH * HTTP/1.1\r\nhost:x\r\nPORT:7\r\nInfohash:{hash}\r\nInfohash: {hash}\r\n");
        let search = Search::from_bytes(text.as_bytes()).unwrap();
        assert_eq!((search.port, search.info_hashes.len(), search.cookie), (7, 2, None));
        for bad in [
            text.replace("BT-SEARCH", "M-SEARCH"),
            text.replace("PORT:7", "PORT:70000"),
            text.replace("PORT:7", "PORT:0"),
            text.replace(hash, "0123"),
        ] {
            assert_eq!(Search::from_bytes(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_full_packet_has_its_size() {
        let cookie = Some("x".repeat(MAX_COOKIE));
        let full = Search { port: 65_535, info_hashes: vec![[7; 20]; MAX_INFO_HASHES], cookie };
        let bytes = full.to_bytes("[ff15::efc0:988f]:6771".parse().unwrap());
        assert!(bytes.len() <= MAX_PACKET, "{}", bytes.len());
        assert_eq!(Search::from_bytes(&bytes), Some(full));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Search::from_bytes(&bytes);
        }
    }
}
