//! What a request asks for: a page, a file, a part of it. Everything here is untrusted.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::Range;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use http_range_header::{RangeUnsatisfiableError, parse_range_header_with_max_ranges};
use subtle::ConstantTimeEq;

/// Ranges of one request that are looked at.
const MAX_RANGES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// What stands behind the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Index,
    Style,
    /// By its number.
    File(usize),
}

/// What a path leads to. Nothing, where its token is another.
pub(super) fn route(path: &str, token: &str) -> Option<Route> {
    let (given, rest) = path.strip_prefix('/')?.split_once('/')?;
    if !bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
        return None;
    }
    match rest {
        "" => Some(Route::Index),
        "style.css" => Some(Route::Style),
        rest => {
            // What the file is called is for the player alone, which shows it.
            let (number, _) = rest.split_once('/').unwrap_or((rest, ""));
            let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse().ok().filter(|_| plain).map(Route::File)
        }
    }
}

/// Whether a Host header names the server by its own address, or as localhost.
pub(super) fn is_host(host: Option<&HeaderValue>, address: SocketAddr) -> bool {
    let named = host.and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
    let Some(named) = named else { return false };
    if named.as_str().contains('@') || named.port_u16().unwrap_or(80) != address.port() {
        return false;
    }
    let name = named.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip == address.ip())
}

/// Which part of a file is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: nothing less was asked for, or nothing that we understand.
    Whole,
    /// One range, not empty and within the file.
    Of(Range<u64>),
    /// One that begins behind its end.
    Unsatisfiable,
}

/// RFC 9110, 14.2: several ranges are answered with the whole, as one that is not understood.
pub(super) fn part(headers: &HeaderMap, tag: &str, size: u64) -> Part {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    // RFC 9110, 13.1.5: of what has changed since, the whole is sent. A date says nothing here.
    if headers.get(header::IF_RANGE).is_some_and(|known| known.as_bytes() != tag.as_bytes()) {
        return Part::Whole;
    }
    range.to_str().map_or(Part::Whole, |range| of_range(range, size))
}

fn of_range(range: &str, size: u64) -> Part {
    let Ok(parsed) = parse_range_header_with_max_ranges(range, MAX_RANGES) else { return Part::Whole };
    if parsed.len() != 1 {
        return Part::Whole;
    }
    // An empty file has no range; the library would call a suffix of it one.
    match parsed.validate(size) {
        Ok(ranges) => match &ranges[..] {
            [range] if range.start() <= range.end() && *range.end() < size => {
                Part::Of(*range.start()..range.end() + 1)
            }
            _ => Part::Unsatisfiable,
        },
        Err(RangeUnsatisfiableError::Unsatisfiable) => Part::Unsatisfiable,
        Err(_) => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TAG: &str = "\"tag-0\"";

    fn headers(of: &[(header::HeaderName, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (range, size, expected) in [
            ("bytes=0-0", 10, Part::Of(0..1)),
            ("bytes=0-", 10, Part::Of(0..10)),
            ("bytes=9-", 10, Part::Of(9..10)),
            ("bytes=3-5", 10, Part::Of(3..6)),
            ("bytes=3-500", 10, Part::Of(3..10)),
            ("bytes=-3", 10, Part::Of(7..10)),
            ("bytes=-300", 10, Part::Of(0..10)),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=10-11", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=-5", 0, Part::Unsatisfiable),
            ("bytes=5-3", 10, Part::Whole),
            ("bytes=0-1,4-5", 10, Part::Whole),
            ("bytes=x", 10, Part::Whole),
            ("bytes=", 10, Part::Whole),
            ("items=0-1", 10, Part::Whole),
            ("", 10, Part::Whole),
            ("bytes=99999999999999999999999-", 10, Part::Unsatisfiable),
        ] {
            assert_eq!(part(&headers(&[(header::RANGE, range)]), TAG, size), expected, "{range} of {size}");
        }
        assert_eq!(part(&headers(&[]), TAG, 10), Part::Whole);
        let mut twice = headers(&[(header::RANGE, "bytes=0-1")]);
        twice.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(part(&twice, TAG, 10), Part::Whole);
    }

    #[test]
    fn a_range_holds_only_of_what_is_known() {
        for (known, expected) in [
            (TAG, Part::Of(0..2)),
            ("\"other\"", Part::Whole),
            ("W/\"tag-0\"", Part::Whole),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Part::Whole),
        ] {
            let headers = headers(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, known)]);
            assert_eq!(part(&headers, TAG, 10), expected, "{known}");
        }
    }

    #[test]
    fn paths_lead_somewhere_with_the_token_alone() {
        for (path, expected) in [
            ("/t0/", Some(Route::Index)),
            ("/t0/style.css", Some(Route::Style)),
            ("/t0/0/film.mp4", Some(Route::File(0))),
            ("/t0/12", Some(Route::File(12))),
            ("/t0/7/../../etc", Some(Route::File(7))),
            ("/t0", None),
            ("/", None),
            ("", None),
            ("/t1/", None),
            ("/t00/", None),
            ("//t0/", None),
            ("/t0/+1/", None),
            ("/t0/x", None),
            ("/t0//", None),
            ("/t0/99999999999999999999999", None),
        ] {
            assert_eq!(route(path, "t0"), expected, "{path}");
        }
    }

    #[test]
    fn other_names_for_this_machine_are_refused() {
        let (v4, v6) = ("127.0.0.1:7000".parse().unwrap(), "[::1]:7000".parse().unwrap());
        let is = |host: &str, address| is_host(Some(&HeaderValue::from_str(host).unwrap()), address);
        assert!(is("127.0.0.1:7000", v4) && is("localhost:7000", v4) && is("LOCALHOST:7000", v6));
        assert!(is("[::1]:7000", v6) && is("[0:0::1]:7000", v6));
        for host in [
            "attacker.example:7000",
            "127.0.0.1",
            "127.0.0.1:7001",
            "[::1]:7000",
            "",
            "127.0.0.1.example:7000",
            "a@127.0.0.1:7000",
            "localhost.:7000",
        ] {
            assert!(!is(host, v4), "{host}");
        }
        assert!(!is_host(None, v4));
        assert!(is("127.0.0.1", "127.0.0.1:80".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn any_range_is_within_the_file(range in "(bytes=)?[-0-9, ]{0,12}", size in 0u64..40) {
            if let Part::Of(range) = of_range(&range, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn any_bytes_are_answered(range in "\\PC{0,40}", path in "\\PC{0,40}", size: u64) {
            if let Part::Of(range) = of_range(&range, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            prop_assert_eq!(route(&path, "0123456789abcdef"), None);
        }

        #[test]
        fn a_range_is_what_was_asked_for(a in 0u64..50, b in 0u64..50, size in 1u64..50) {
            let asked = of_range(&format!("bytes={a}-{b}"), size);
            let expected = if a > b {
                Part::Whole
            } else if a >= size {
                Part::Unsatisfiable
            } else {
                Part::Of(a..size.min(b + 1))
            };
            prop_assert_eq!(asked, expected);
        }
    }
}
