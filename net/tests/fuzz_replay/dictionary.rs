//! Words for a fuzzer's dictionary: what stands in a target's seeds, and what it would hardly find by itself.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Magic numbers, and words that no seed has.
const MORE: &[(&str, &[&[u8]])] = &[
    ("handshake", &[b"\x13BitTorrent protocol"]),
    ("udp_tracker", &[b"\x00\x00\x04\x17\x27\x10\x19\x80"]),
    ("bencode", &[b"i-1e", b"i0e", b"le", b"de", b"0:", b"1:v"]),
    ("metainfo", &[b"1:vi1e", b"1:vi2e", b"5:paper", b"6:sealed", b"8:ffdhe2048", b"8:modp2048"]),
    ("announce_query", &[b"event=stopped", b"compact=0", b"no_peer_id=1", b"ipv6=", b"%00", b"%ff"]),
    ("announce_reply", &[b"14:failure reason", b"6:peers6", b"5:peers", b"2:id20:"]),
    ("lsd_packet", &[b"BT-SEARCH * HTTP/1.1\r\n", b"Infohash: ", b"cookie: ", b"\r\n\r\n\r\n"]),
    (
        "media",
        &[
            b"mvex",
            b"sidx",
            b"co64",
            b"stss",
            b"stz2",
            b"saio",
            b"senc",
            b"tfhd",
            b"trun",
            b"hvc1",
            b"avc3",
            b"\0\0\0\x01",
        ],
    ),
    ("keyfile", &[b"swarmseal key file v2: ", b"# ", b": "]),
];

/// What a word consists of.
fn is_letter(byte: &u8) -> bool {
    byte.is_ascii_alphabetic() || b"_-".contains(byte)
}

/// The dictionary of a target with these seeds, as libFuzzer reads it; none where there are no words to speak of.
pub(crate) fn of(target: &str, seeds: &[&[u8]]) -> Option<String> {
    let mut words: BTreeSet<Vec<u8>> = BTreeSet::new();
    for word in seeds.iter().flat_map(|seed| seed.split(|byte| !is_letter(byte))) {
        // Digits of a key are no words. Random bytes have words of two or three letters, and seldom longer ones.
        let word_like = (4..=24).contains(&word.len()) && !word.iter().all(u8::is_ascii_hexdigit);
        if word_like && word.iter().filter(|byte| byte.is_ascii_lowercase()).count() > word.len() / 2 {
            words.insert(word.to_vec());
        }
    }
    let more = MORE.iter().filter(|(name, _)| *name == target).flat_map(|(_, words)| words.iter());
    words.extend(more.map(|word| word.to_vec()));
    let mut text = "# Written by make_seeds (net/tests/fuzz_replay.rs).\n".to_owned();
    for word in &words {
        text.push('"');
        for &byte in word {
            if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' || byte == b' ' {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
        text.push_str("\"\n");
    }
    (words.len() > 2).then_some(text)
}

#[test]
fn words_are_what_fuzzers_read() {
    let text = of("handshake", &[b"d4:infod6:lengthi5e4:name2:\x01\"ee", b"announce\0abcdef"]).unwrap();
    let words: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        words,
        ["\"\\x13BitTorrent protocol\"", "\"announce\"", "\"infod\"", "\"lengthi\"", "\"name\""]
    );
    assert_eq!(of("kernels", &[&[0; 40]]), None);
}
