//! The fuzz targets without a fuzzer: every file of the corpus, all that it is cut short to, and each of its bytes
//! changed, within bounds, go through the target's function.

use std::fs;
use std::path::PathBuf;

#[path = "fuzz_replay/dictionary.rs"]
mod dictionary;
#[path = "fuzz_replay/seeds.rs"]
mod seeds;
// Public, for not every item in it serves here.
pub mod mp4;
// Public, for not every item in it serves here.
#[path = "../../fuzz/src/targets.rs"]
pub mod targets;

/// The function of each target, and how many variants of a seed it gets: fewer where it computes powers.
macro_rules! targets {
    ($($name:ident $variants:literal)+) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];
        $(#[test]
        fn $name() {
            replay(stringify!($name), targets::$name, $variants);
        })+
    };
}

targets! {
    bencode 2000
    metainfo 400
    plain_metainfo 500
    license_envelope 200
    content_list 1000
    selection 1000
    media 1000
    keyfile 500
    words 300
    subscription 500
    authority 200
    identify 300
    voucher_code 1000
    announce_query 1000
    announce_reply 1000
    api_bodies 500
    handshake 2000
    obfuscated_handshake 300
    peer_messages 1000
    seal_messages 1000
    ticket 2000
    udp_tracker 1000
    lsd_packet 1000
    player_channel 1000
    group_elements 60
    package 300
    transform 60
    piece_index 300
    play_record 500
    kernels 8
    strangers 300
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}

fn replay(name: &str, target: fn(&[u8]), variants: usize) {
    let dir = corpus(name);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut seeds: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{} has no seeds", dir.display());
    for path in seeds {
        let seed = fs::read(&path).unwrap();
        target(&seed);
        let step = seed.len().div_ceil(variants).max(1);
        for len in (0..seed.len()).step_by(step) {
            target(&seed[..len]);
        }
        for at in (0..seed.len()).step_by(step) {
            let mut changed = seed.clone();
            // A low bit, a high bit, all bits: which one goes round.
            changed[at] ^= [0x01, 0x80, 0xff][at / step % 3];
            target(&changed);
        }
        target(&[&seed[..], b"e"].concat());
    }
}

#[test]
fn every_target_has_a_binary() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut binaries: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    binaries.sort();
    let mut names = NAMES.to_vec();
    names.sort();
    assert_eq!(binaries, names);
}

#[test]
#[ignore = "rewrites the corpus and the dictionaries"]
fn make_seeds() {
    let seeds = seeds::all();
    for &name in NAMES {
        assert!(seeds.iter().any(|seed| seed.target == name), "{name}");
    }
    let dictionaries = corpus("../dictionaries");
    fs::create_dir_all(&dictionaries).unwrap();
    for &name in NAMES {
        let of: Vec<&[u8]> =
            seeds.iter().filter(|seed| seed.target == name).map(|seed| &seed.bytes[..]).collect();
        if let Some(text) = dictionary::of(name, &of) {
            fs::write(dictionaries.join(name).with_extension("dict"), text).unwrap();
        }
    }
    for seed in seeds {
        assert!(seed.bytes.len() < 8192, "{} {}", seed.target, seed.name);
        fs::create_dir_all(corpus(seed.target)).unwrap();
        fs::write(corpus(seed.target).join(seed.name), seed.bytes).unwrap();
    }
}
