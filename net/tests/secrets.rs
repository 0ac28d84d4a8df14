//! Where secrets are, and where they are not: in a run of everything, no log of any level says one, and no file that holds one can be
//! read by others.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::path::{Path, PathBuf};

use swarmseal::wire::identity::{Device, SubscriberKeys};
use swarmseal::wire::keyfile::KeyFile;
use swarmseal::wire::metainfo::{Metainfo, Seal};
use swarmseal::wire::subscription::SubscriptionFile;
use swarmseal_core::Kernels;

use self::world::{Running, World};

/// A secret as it stands in a file.
struct Secret {
    /// Where it was found.
    place: String,
    /// A part of it that is long enough to be nothing else.
    bytes: Vec<u8>,
}

/// Fields of key files that are no secrets. Whatever is added to one counts as a secret until it stands here.
const PUBLIC: [&str; 10] =
    ["torrent", "epoch", "files", "content", "metainfo", "check", "clear", "runs", "origin", "tracker key"];

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn secret(name: &str, path: &Path, digits: &str) -> Secret {
    let digits = digits.trim_start_matches('0');
    let bytes = hex::decode(&digits[digits.len() % 2..]).unwrap();
    assert!(bytes.len() >= 12, "{name} of {} is too short to be looked for", path.display());
    Secret { place: format!("{name} of {}", path.display()), bytes: bytes[..12].to_vec() }
}

/// The key files' secrets, and the files that hold nothing but 64 hexadecimal digits.
fn secrets_in(path: &Path) -> Vec<Secret> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let secret = |name: &str, digits: &str| secret(name, path, digits);
    if text.starts_with("swarmseal key file") {
        let fields = text.lines().filter_map(|line| line.split_once(": "));
        fields
            .skip(1)
            .filter(|(name, _)| !PUBLIC.contains(name))
            .map(|(name, hex)| secret(name, hex))
            .collect()
    } else if text.trim().len() == 64 && hex::decode(text.trim()).is_ok() {
        vec![secret("all", text.trim())]
    } else {
        Vec::new()
    }
}

/// What a device makes of its root in a torrent, and what it announces with there.
fn secrets_of_subscription(data: &Path, dir: &Path, seal: &Seal) -> Vec<Secret> {
    let path = data.join("device.key");
    let device = Device::from_key_file(&KeyFile::read(&path, Device::KIND).unwrap()).unwrap();
    let SubscriberKeys { identity, secret: s, .. } = device.subscriber_keys(&seal.params, &seal.torrent_id);
    let mut bytes = vec![0; seal.params.group().bytes()];
    s.to_bytes(&seal.params, &mut bytes).unwrap();
    let subscription = dir.join("subscription");
    let file = SubscriptionFile::from_bytes(&fs::read(&subscription).unwrap()).unwrap();
    vec![
        secret("signing", &path, &hex::encode(*identity.signing_key().to_bytes())),
        secret("device", &path, &hex::encode(*identity.device_secret())),
        secret("s", &path, &hex::encode(bytes)),
        secret("passkey", &subscription, &hex::encode(file.passkey.as_bytes())),
    ]
}

/// The bytes as a log could show them.
fn shapes(bytes: &[u8]) -> [String; 5] {
    use std::fmt::Write;
    let listed = format!("{bytes:?}");
    let hex = hex::encode(bytes);
    let escaped = bytes.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02X}");
        all
    });
    // Without the brackets, for more may follow.
    [hex.to_uppercase(), hex, listed[1..listed.len() - 1].to_owned(), escaped, base64(bytes)]
}

/// Of whole groups of three bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.as_chunks::<3>().0.iter();
    let digits = groups.flat_map(|&[a, b, c]| {
        let group = u32::from_be_bytes([0, a, b, c]);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(group >> shift) as usize & 63]))
    });
    digits.collect()
}

#[test]
fn no_log_says_a_secret_and_nobody_else_reads_a_file_with_one() {
    let mut world = World::logged(300_000);
    let (torrent, url, token) = (world.torrent(), world.url(), world.token());
    let admin = ["--admin-token-file", &token];
    let seed = world.seed(&[]);
    world.fetch("alice");
    let codes = [world.voucher(&[]), world.voucher(&["--plays", "3"])];
    world.play("alice", &["--voucher", &codes[0]], 0);
    world.assert_opened("alice");
    // A personal torrent, a new passkey, keys in another place, a peer that fetches from a peer, another epoch.
    let (personal, keys, backup) =
        (world.file("alice.torrent"), world.file("alice.key"), world.file("backup"));
    world.expect("alice", &["subscribe", &torrent, "--personal", "--output", &personal], 0);
    world.expect("alice", &["passkey", &torrent], 0);
    world.expect("alice", &["key", "export", &keys], 0);
    world.expect("alice", &["inspect", &keys], 0);
    let alice = world.get("alice", &[]);
    alice.event("complete");
    world.fetch("bob");
    world.play("bob", &["--voucher", &codes[1]], 0);
    let shop = world.file("shop.token");
    let operator: [&[&str]; 4] = [
        &["token", "create", "shop", "--role", "publisher", "--output", &shop],
        &["epochs", &torrent, "--begin"],
        &["backup", &backup],
        &["audit"],
    ];
    for verb in operator {
        world.expect("publisher", &[verb, &admin, &["--tracker", &url]].concat(), 0);
    }
    let server = Running::start(&world.path("alice"), &["play", &torrent, "--serve"]);
    let address = server.event("serving")["url"].as_str().unwrap().to_owned();
    let path_token = address.split('/').find(|part| part.len() >= 32).unwrap().to_owned();
    drop((server, alice, seed));
    world.tracker.take().unwrap().kill();

    let mut secrets: Vec<Secret> = Vec::new();
    let files = files_below(world.dir.path());
    files.iter().for_each(|path| secrets.extend(secrets_in(path)));
    let metainfo = Metainfo::from_bytes(&fs::read(&torrent).unwrap(), Kernels::portable()).unwrap();
    for who in ["alice", "bob"] {
        let (data, dir) = (world.path(who), world.torrent_dir(who));
        secrets.extend(secrets_of_subscription(&data, &dir, &metainfo.info.seal));
    }
    // Two devices' roots and four secrets each, the publisher's, the seed's three, the tracker's six, a copy of alice's root, a token.
    assert!(secrets.len() >= 22, "{}", secrets.len());
    let witness = secrets.iter().filter(|secret| secret.place.contains("witnesses")).count();
    assert_eq!(witness, 1);
    assert!(secrets.iter().any(|secret| secret.place.ends_with("voucher.key")));
    let logs = world.logs();
    assert!(logs.len() >= 18, "{}", logs.len());
    assert!(logs.iter().any(|(_, log)| log.contains("TRACE")));
    for (name, log) in &logs {
        for secret in &secrets {
            for shape in shapes(&secret.bytes) {
                assert!(!log.contains(&shape), "{name} has {} as {shape}", secret.place);
            }
        }
        let canonical = codes.each_ref().map(|code| code.replace('-', ""));
        for word in codes.iter().chain(&canonical).chain([&path_token]) {
            assert!(!log.contains(word.as_str()), "{name} has {word}");
        }
    }
    #[cfg(unix)]
    for path in &files {
        use std::os::unix::fs::PermissionsExt;
        let (bytes, mode) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().permissions().mode());
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        for secret in &secrets {
            let [_, hex, _, escaped, _] = shapes(&secret.bytes);
            if holds(&secret.bytes) || holds(hex.as_bytes()) || holds(escaped.as_bytes()) {
                assert_eq!(mode & 0o777, 0o600, "{} holds {}", path.display(), secret.place);
            }
        }
    }
}

#[test]
fn the_search_would_find_each_shape() {
    let bytes = *b"twelve bytes";
    let [upper, hex, listed, escaped, base64] = shapes(&bytes);
    assert_eq!((&hex[..8], &upper[..10]), ("7477656c", "7477656C76"));
    assert_eq!((&listed[..12], &escaped[..6]), ("116, 119, 10", "%74%77"));
    assert_eq!(base64, "dHdlbHZlIGJ5dGVz");
}
