//! Bencode, bounded: `bendy`'s serde behind limits on length and depth.
//!
//! What to know when writing a type for it: dictionary keys are written sorted and must come sorted, without repeats;
//! unknown keys are ignored (a number there must fit `i64`); `[u8; N]` and `Vec<u8>` need `#[serde(with = "serde_bytes")]` to become byte strings; an
//! `Option` needs [`optional`] or [`optional_bytes`], for `bendy` alone would wrap it in a list.

use serde::Serialize;
use serde::de::Deserialize;

/// Lists and dictionaries may nest this deep.
pub const MAX_DEPTH: usize = 16;

/// Why bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are more bytes than this kind of message may have.
    #[error("bencode of {found} bytes: at most {limit} are read")]
    TooLong {
        /// Bytes that came.
        found: usize,
        /// Bytes that are read.
        limit: usize,
    },
    /// It nests deeper than [`MAX_DEPTH`].
    #[error("bencode nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It is no bencode.
    #[error("no bencode: unexpected byte or end at offset {offset}")]
    Syntax {
        /// Offset of the token that is wrong.
        offset: usize,
    },
    /// Bytes follow the value.
    #[error("{count} bytes follow the bencoded value")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// It is bencode, but not of the shape that was expected.
    #[error("unexpected bencode: {0}")]
    Shape(String),
}

/// Reads one value that fills `bytes`, which may be at most `max_len` long.
pub fn from_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8], max_len: usize) -> Result<T, Error> {
    if bytes.len() > max_len {
        return Err(Error::TooLong { found: bytes.len(), limit: max_len });
    }
    let end = skip_value(bytes, 0)?;
    if end != bytes.len() {
        return Err(Error::Trailing { count: bytes.len() - end });
    }
    bendy::serde::Deserializer::from_bytes(bytes)
        .with_forbid_trailing_bytes(true)
        .deserialize()
        .map_err(|error| Error::Shape(error.to_string()))
}

/// Writes a value, keys sorted.
///
/// Panics where `T` writes what bencode has no form for, such as a map whose keys are no strings: a fault of the type,
/// not of its value.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bendy::serde::to_bytes(value).expect("the type has a bencoded form")
}

/// The bytes of the value under `key` in the dictionary that fills `bytes`, or `None` where the key is absent.
///
/// For what is hashed or signed as it stands. Errors: as [`from_bytes`]; [`Error::Shape`] where it is no dictionary.
pub fn dict_entry<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, Error> {
    let end = skip_value(bytes, 0)?;
    if end != bytes.len() {
        return Err(Error::Trailing { count: bytes.len() - end });
    }
    if bytes.first() != Some(&b'd') {
        return Err(Error::Shape("expected a dictionary".into()));
    }
    let mut at = 1;
    while bytes[at] != b'e' {
        let value = skip_value(bytes, at)?;
        let end = skip_value(bytes, value)?;
        let text = &bytes[at..value];
        if text.iter().position(|&byte| byte == b':').is_some_and(|colon| &text[colon + 1..] == key) {
            return Ok(Some(&bytes[value..end]));
        }
        at = end;
    }
    Ok(None)
}

/// The number under `key` in the dictionary that fills `bytes`, whatever else stands there: for versions, which are read
/// before anything that they may have changed. Errors: as [`dict_entry`]; [`Error::Shape`] where it is no number.
pub fn dict_number(bytes: &[u8], key: &[u8]) -> Result<Option<u64>, Error> {
    dict_entry(bytes, key)?.map(|value| from_bytes(value, 32)).transpose()
}

/// Checks one value's syntax without recursion and returns the offset behind it.
fn skip_value(bytes: &[u8], start: usize) -> Result<usize, Error> {
    // For each open container: whether it is a dictionary, and whether a key is due in it.
    let mut open: [(bool, bool); MAX_DEPTH] = [(false, false); MAX_DEPTH];
    let mut depth = 0;
    let mut at = start;
    loop {
        let syntax = Error::Syntax { offset: at };
        let Some(&token) = bytes.get(at) else { return Err(syntax) };
        let key_due = depth > 0 && open[depth - 1] == (true, true);
        match token {
            b'0'..=b'9' => at = skip_string(bytes, at).ok_or(syntax)?,
            b'e' if depth > 0 && (key_due || !open[depth - 1].0) => {
                depth -= 1;
                at += 1;
            }
            _ if key_due => return Err(syntax),
            b'i' => {
                let len = bytes[at..].iter().take(64).position(|&byte| byte == b'e').ok_or(syntax)?;
                at += len + 1;
            }
            b'l' | b'd' => {
                let Some(slot) = open.get_mut(depth) else { return Err(Error::TooDeep) };
                *slot = (token == b'd', token == b'd');
                depth += 1;
                at += 1;
                continue;
            }
            _ => return Err(syntax),
        }
        if depth == 0 {
            return Ok(at);
        }
        // A whole value or key was read inside the container that is now on top.
        let (dict, key) = &mut open[depth - 1];
        *key = *dict && !*key;
    }
}

/// The offset behind the byte string at `at`.
fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let colon = bytes[at..].iter().take(12).position(|&byte| byte == b':')?;
    let len: usize = std::str::from_utf8(&bytes[at..at + colon]).ok()?.parse().ok()?;
    (at + colon + 1).checked_add(len).filter(|&end| end <= bytes.len())
}

/// `#[serde(default, with = "bencode::optional", skip_serializing_if = "Option::is_none")]`: a key that may be absent.
pub mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value without a list around it.
    pub fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(out),
            None => out.serialize_none(),
        }
    }

    /// Reads the value of a key that is present.
    pub fn deserialize<'a, T: Deserialize<'a>, D: Deserializer<'a>>(input: D) -> Result<Option<T>, D::Error> {
        T::deserialize(input).map(Some)
    }
}

/// [`optional`] for byte strings: `Option<[u8; N]>`, `Option<Vec<u8>>`.
pub mod optional_bytes {
    use serde::{Deserializer, Serializer};

    /// Writes the bytes without a list around them.
    pub fn serialize<T: serde_bytes::Serialize, S: Serializer>(
        value: &Option<T>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(out),
            None => out.serialize_none(),
        }
    }

    /// Reads the bytes of a key that is present.
    pub fn deserialize<'a, T: serde_bytes::Deserialize<'a>, D: Deserializer<'a>>(
        input: D,
    ) -> Result<Option<T>, D::Error> {
        T::deserialize(input).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        zeta: u64,
        #[serde(with = "serde_bytes")]
        alpha: [u8; 3],
        #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        #[serde(default, with = "optional_bytes", skip_serializing_if = "Option::is_none")]
        nonce: Option<[u8; 2]>,
    }

    #[test]
    fn keys_are_sorted_and_options_are_bare() {
        let message = Message { zeta: u64::MAX, alpha: *b"abc", limit: Some(7), nonce: Some(*b"xy") };
        let bytes = to_bytes(&message);
        assert_eq!(bytes, b"d5:alpha3:abc5:limiti7e5:nonce2:xy4:zetai18446744073709551615ee");
        assert_eq!(from_bytes::<Message>(&bytes, 100).unwrap(), message);
        let bare = Message { zeta: 0, alpha: *b"abc", limit: None, nonce: None };
        assert_eq!(to_bytes(&bare), b"d5:alpha3:abc4:zetai0ee");
        assert_eq!(from_bytes::<Message>(b"d5:alpha3:abc4:zetai0ee", 100).unwrap(), bare);
    }

    #[test]
    fn unknown_keys_are_ignored_and_wrong_shapes_refused() {
        assert!(from_bytes::<Message>(b"d5:alpha3:abc1:bld1:xi1eee4:zetai0ee", 100).is_ok());
        for bad in [
            &b"d5:alpha2:ab4:zetai0ee"[..],
            b"d5:alpha3:abce",
            b"d4:zetai0e5:alpha3:abce",
            b"d5:alpha3:abc5:alpha3:abc4:zetai0ee",
            b"d5:alpha3:abc4:zetai-1ee",
            b"d5:alpha3:abc4:zetai00ee",
        ] {
            assert!(matches!(from_bytes::<Message>(bad, 100), Err(Error::Shape(_))), "{bad:?}");
        }
    }

    #[test]
    fn limits_hold() {
        assert_eq!(from_bytes::<u64>(b"i1e", 2), Err(Error::TooLong { found: 3, limit: 2 }));
        assert_eq!(from_bytes::<u64>(b"i1ei2e", 9), Err(Error::Trailing { count: 3 }));
        assert_eq!(from_bytes::<u64>(&[b'l'; 1000], 1000), Err(Error::TooDeep));
        for (bad, offset) in
            [(&b""[..], 0), (b"d1:ae", 4), (b"di1ei2ee", 1), (b"l5:abce", 1), (b"e", 0), (b"i1", 0)]
        {
            assert_eq!(from_bytes::<u64>(bad, 9), Err(Error::Syntax { offset }), "{bad:?}");
        }
    }

    #[test]
    fn raw_values_are_found() {
        let bytes = b"d1:ad1:bi1ee1:bl2:cdee";
        assert_eq!(dict_entry(bytes, b"a").unwrap(), Some(&b"d1:bi1ee"[..]));
        assert_eq!(dict_entry(bytes, b"b").unwrap(), Some(&b"l2:cde"[..]));
        assert_eq!(dict_entry(bytes, b"c").unwrap(), None);
        assert!(dict_entry(b"le", b"a").is_err());
        assert!(dict_entry(b"de", b"a").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_bytes::<Message>(&bytes, 150);
            let _ = dict_entry(&bytes, b"info");
        }

        #[test]
        fn bencode_like_bytes_are_read_or_refused(text in "[deli0-9:a-b]{0,60}") {
            let _ = from_bytes::<Message>(text.as_bytes(), 150);
            let _ = dict_entry(text.as_bytes(), b"a");
        }

        #[test]
        fn messages_round_trip(zeta: u64, alpha: [u8; 3], limit: Option<u64>, nonce: Option<[u8; 2]>) {
            let message = Message { zeta, alpha, limit, nonce };
            prop_assert_eq!(from_bytes::<Message>(&to_bytes(&message), 200).unwrap(), message);
        }
    }
}
