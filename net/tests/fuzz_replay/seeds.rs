//! The seeds of the corpus, from our own encoders.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use swarmseal::peer::simulation::whole_story;
use swarmseal::peer::{Store, StoredPiece};
use swarmseal::wire::announce::{
    self, Announce, AnnounceReply, Event, Peer, Scrape, ScrapeEntry, ScrapeReply,
};
use swarmseal::wire::api::{self, Passkey, Role, SessionToken};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::bencode;
use swarmseal::wire::channel::{self, Endpoint, Notice};
use swarmseal::wire::content::{FileEntry, FileList, Manifest};
use swarmseal::wire::handshake::Handshake;
use swarmseal::wire::keyfile::words::Words;
use swarmseal::wire::keyfile::{
    Passphrase, PublisherKey, SealedMaster, SealedPublisher, SealedVoucherKey, SealedWitness, SeedFile,
};
use swarmseal::wire::license::{License, Policy};
use swarmseal::wire::lsd::Search;
use swarmseal::wire::message::{Block, Message};
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal::wire::mse::{self, Initiator, Progress, Responder};
use swarmseal::wire::plain::PlainTorrent;
use swarmseal::wire::seal::{ExtendedHandshake, Hello, SealMessage};
use swarmseal::wire::selection::{Kind, Runs, Selection};
use swarmseal::wire::subscription::SubscriptionFile;
use swarmseal::wire::udp_tracker::{Request, Response};
use swarmseal::wire::voucher::CheckedCode;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{KeyCommitment, Params, Proof, SubscriberId, Ticket};
use zeroize::Zeroizing;

use crate::mp4;
use crate::targets::{
    ENTROPY, PLAYS_KEY, PUBLISHER, SHAPE, TORRENT, device, identity, license_key, paper, publisher_key,
    sealed, secret, voucher_key,
};

/// A file of the corpus.
pub(crate) struct Seed {
    /// Whose.
    pub(crate) target: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// The kernels' operations: seeds on one of the groups' primes, and on a modulus of words that ripple every carry.
const OPERATIONS: [[&str; 2]; 6] = [
    ["mont-mul", "edges-mont-mul"],
    ["mont-sqr", "edges-mont-sqr"],
    ["blocks", "edges-blocks"],
    ["powers", "edges-powers"],
    ["comb", "edges-comb"],
    ["powers-of-two", "edges-powers-of-two"],
];
const ID: SubscriberId = SubscriberId([9; 32]);

/// A code of [`PUBLISHER`].
fn voucher() -> CheckedCode {
    voucher_key().code("A-1001", 1, 2, &PUBLISHER)
}

/// An ordinary torrent of 50,000 bytes.
fn plain_torrent(files: Option<&FileList>) -> Vec<u8> {
    let torrent = PlainTorrent {
        name: "film",
        files,
        length: 50_000,
        piece_len: 1 << 14,
        pieces: &[[7; 20]; 4],
        announce: Some("http://127.0.0.1:7000/announce"),
        private: true,
    };
    torrent.to_bytes()
}

/// All of them.
pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name, bytes: Vec<u8>| seeds.push(Seed { target, name, bytes });

    for ([prime, edges], operation) in OPERATIONS.into_iter().zip(0..) {
        let ripples = [7, 0xf8, 0xfb, 0xfd, 0xfe, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0xf9];
        add("kernels", prime, [&[operation, 4, 0][..], &ripples, &ripples].concat());
        add("kernels", edges, [&[operation, 132, 0, 0xf9][..], &[0xf9; 8], &ripples].concat());
    }
    add("strangers", "a-download", whole_story());
    for (name, first) in
        [("a-seed", 2), ("a-plain-one", 1), ("some-clear", 8), ("a-super-seed", 18), ("half", 4)]
    {
        let mut story = whole_story();
        story[0] = first;
        add("strangers", name, story);
    }

    let numbers = BTreeMap::from([("info", 1u64), ("v", u64::MAX), ("x", 0)]);
    add("bencode", "numbers", bencode::to_bytes(&numbers));
    add("bencode", "nested", bencode::to_bytes(&vec![vec!["a", "bc"], vec![], vec!["def"]]));
    add("bencode", "deep", [[b'l'; 16], [b'e'; 16]].concat());

    add("metainfo", "sealed", torrent(sealed(kernels()), 1 << 18, 3).to_bytes());
    for (name, bytes) in [
        ("moov-last", mp4::plain(false, false)),
        ("moov-first", mp4::plain(true, true)),
        ("fragments", mp4::fragmented()),
    ] {
        // What is clear is not looked at.
        add("media", name, bytes);
    }

    add("metainfo", "some-clear", mixed_torrent().to_bytes());
    add("metainfo", "paper", torrent(paper(kernels()), 1 << 14, 5).to_bytes());
    add("plain_metainfo", "single", plain_torrent(None));
    let parts = [("a", 20_000), ("b", 0), ("c", 30_000)];
    let entry = |(name, size): (&str, u64)| FileEntry {
        mime: String::new(),
        path: vec!["below".to_owned(), name.to_owned()],
        size,
    };
    let below = FileList::new(parts.map(entry).to_vec()).expect("different names");
    add("plain_metainfo", "several", plain_torrent(Some(&below)));
    let padded = b"d13:announce-listll9:http://b/el9:http://c/ee4:infod5:filesld6:lengthi2e4:pathl1:xeed4:attr1:p6:lengthi3e4:pathl4:.pad1:3eee4:name1:n12:piece lengthi8e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    add("plain_metainfo", "padded", padded.to_vec());

    for (name, pieces) in [("no-pieces", 0), ("two-pieces", 2)] {
        add("license_envelope", name, license(pieces));
    }

    add("content_list", "files", files().to_bytes());
    let full = Manifest::new(files(), None).expect("short");
    add("content_list", "stream", [full.header(), b"content".to_vec()].concat());
    for (name, runs) in [("runs", vec![1, 5, 1]), ("clear-first", vec![0, 7])] {
        let mixed = Manifest::new(files(), Some(Runs::new(runs).expect("alternating"))).expect("seven bytes");
        add("content_list", name, mixed.to_bytes());
        add(
            "content_list",
            if name == "runs" { "runs-stream" } else { "clear-first-stream" },
            mixed.header(),
        );
    }

    for (name, kinds) in [("mixed", "scsccscccs"), ("two", "sc"), ("many", &"sccccccc".repeat(90))] {
        let kinds: Vec<Kind> =
            kinds.chars().map(|it| if it == 's' { Kind::Sealed } else { Kind::Clear }).collect();
        let selection = Selection::new(&kinds).expect("of both");
        let count = selection.count().to_be_bytes();
        add("selection", name, [&count[..], selection.as_bytes()].concat());
    }

    add("keyfile", "device", device().to_key_file().to_text().as_bytes().to_vec());
    add("keyfile", "identity", identity().to_key_file().to_text().as_bytes().to_vec());
    let passphrase = Passphrase::new(Zeroizing::new("horse battery".to_owned())).unwrap();
    let master = SealedMaster::seal(2, &[7; 32], &passphrase, &mut UnwrapErr(SysRng)).unwrap();
    add("keyfile", "sealed-master", master.to_key_file().to_text().as_bytes().to_vec());
    let witness = SealedWitness::seal(TORRENT, &[7; 32], &passphrase, &mut UnwrapErr(SysRng)).unwrap();
    add("keyfile", "sealed-witness", witness.to_key_file().to_text().as_bytes().to_vec());
    let voucher_key = SealedVoucherKey::seal(&[7; 32], &passphrase, &mut UnwrapErr(SysRng)).unwrap();
    add("keyfile", "sealed-voucher-key", voucher_key.to_key_file().to_text().as_bytes().to_vec());
    add("keyfile", "seed", seed_file().to_key_file().to_text().as_bytes().to_vec());
    let publisher = PublisherKey::from_bytes(&[8; 32]);
    add("keyfile", "publisher", publisher.to_key_file().to_text().as_bytes().to_vec());
    let publisher = SealedPublisher::seal(&publisher, &passphrase, &mut UnwrapErr(SysRng)).unwrap();
    add("keyfile", "sealed-publisher", publisher.to_key_file().to_text().as_bytes().to_vec());

    let words: Vec<&str> = Words::of(device().as_bytes()).iter().collect();
    add("words", "words", words.join(" ").into_bytes());
    let short =
        |(at, word): (usize, &&str)| format!("{:>2}. {}\n", at + 1, word[..word.len().min(4)].to_uppercase());
    add("words", "numbered", words.iter().enumerate().map(short).collect::<String>().into_bytes());

    let code = voucher().to_text();
    add("voucher_code", "code", code.as_bytes().to_vec());
    let typed: Vec<String> =
        code.split('-').map(|group| format!("{} {}", &group[..3], &group[3..])).collect();
    add("voucher_code", "typed", format!(" {}\n", typed.join("  ").to_lowercase()).into_bytes());
    add("voucher_code", "message", bencode::to_bytes(&*voucher()));
    add("voucher_code", "order", b"A-1001".to_vec());

    let file = SubscriptionFile { subscriber: ID, passkey: Passkey::new([0xab; 16]), epoch: 3 };
    add("subscription", "file", file.to_bytes());
    let statement = authority().as_bytes().split_last_chunk::<64>().unwrap().0.to_vec();
    add("authority", "statement", statement);
    add("authority", "signed", authority().as_bytes().to_vec());
    add("authority", "file", authority().to_file());
    add("identify", "query", identify().to_query().into_bytes());
    add("identify", "answer", bencode::to_bytes(&identified()));
    add("identify", "unsigned", bencode::to_bytes(&api::Identified { signature: None, ..identified() }));
    add("identify", "token", SessionToken::new([2; 56]).to_text().into_bytes());
    add("identify", "origin", b"HTTPS://B\xc3\xbccher.example:443/".to_vec());

    add("announce_query", "announce", announce().to_query().into_bytes());
    let (info_hashes, passkey) = (vec![*b"abcdefghij\0\x01\x02\xff& =%+/"; 2], None);
    add("announce_query", "scrape", Scrape { info_hashes, passkey }.to_query().into_bytes());

    add("announce_reply", "compact", announce_reply().to_bytes(true));
    add("announce_reply", "dictionaries", announce_reply().to_bytes(false));
    add("announce_reply", "failure", announce::failure("no such torrent"));
    let entry = ScrapeEntry { complete: 1, downloaded: 2, incomplete: 3 };
    let scrape = ScrapeReply { files: BTreeMap::from([([1; 20], entry), ([2; 20], entry)]), now: Some(4) };
    add("announce_reply", "scrape", scrape.to_bytes());

    for (name, bytes) in udp_packets() {
        add("udp_tracker", name, bytes);
    }
    for (name, group) in [("ipv4", "239.192.152.143:6771"), ("ipv6", "[ff15::efc0:988f]:6771")] {
        let cookie = Some("a1b2c3d4".to_owned());
        let search = Search { port: 6881, info_hashes: vec![[1; 20], [0xab; 20]], cookie };
        add("lsd_packet", name, search.to_bytes(group.parse().expect("an address")));
    }

    let token = channel::Token([7; 32]);
    for (name, request) in [
        ("hello", channel::Request::Hello { token }),
        ("urgent", channel::Request::Urgent(vec![3, 4, 5])),
        ("refetch", channel::Request::Refetch { piece: 7, hash: [0xab; 32] }),
    ] {
        add("player_channel", name, request.to_line().into_bytes());
    }
    add("player_channel", "stored", Notice::Stored(5).to_line().into_bytes());
    let endpoint = Endpoint { address: ([127, 0, 0, 1], 4000).into(), token };
    add("player_channel", "file", endpoint.to_text().into_bytes());

    for (name, bytes) in api_bodies() {
        add("api_bodies", name, bytes);
    }

    add("handshake", "extended", Handshake::new([1; 20], [2; 20]).to_bytes().to_vec());
    let plain = Handshake { reserved: [0; 8], info_hash: [1; 20], peer_id: [2; 20] };
    add("handshake", "plain", plain.to_bytes().to_vec());

    for (name, bytes) in obfuscated_handshakes() {
        add("obfuscated_handshake", name, bytes);
    }

    for (name, bytes) in peer_messages() {
        add("peer_messages", name, bytes);
    }
    for (name, bytes) in seal_messages() {
        add("seal_messages", name, bytes);
    }

    add("ticket", "signed", ticket().to_bytes().to_vec());
    add("ticket", "zeros", Ticket { signature: [0; 64], epoch: 0, ..ticket() }.to_bytes().to_vec());

    for (params, names) in [
        (sealed(kernels()), ["secret-2048", "public-2048", "proof-2048"]),
        (paper(kernels()), ["secret-512", "public-512", "proof-512"]),
    ] {
        for (name, bytes) in names.into_iter().zip(group_elements(&params)) {
            add("group_elements", name, bytes);
        }
    }

    for target in ["package", "transform"] {
        for (name, changed, params) in [
            ("packed-2048", "packed-2048-changed", sealed(kernels())),
            ("packed-512", "packed-512-changed", paper(kernels())),
        ] {
            let mut piece: Vec<u8> = (0..1024).map(|i| i as u8).collect();
            package::pack(&params, &PackageSecret::from_bytes([8; 32]), &TORRENT, 9, &mut piece).unwrap();
            if target == "transform" {
                add(target, changed, [&piece[..], &[0, 1, 0x80, 0xff, 3, 1]].concat());
            }
            add(target, name, piece);
        }
        add(target, "not-below-p", vec![0xff; 512]);
        add(target, "odd-length", vec![1; 257]);
    }

    {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        let of = |byte: u8, epoch| {
            let data = [byte; SHAPE.piece_len as usize];
            (data, StoredPiece { epoch, hash: *blake3::hash(&data).as_bytes() })
        };
        let ((before, stored), (after, moved)) = (of(1, 1), of(2, 2));
        store.put(0, &before, stored).unwrap();
        assert!(store.replace(0, &stored, &after, moved).unwrap());
        store.put(1, &after, moved).unwrap();
        add("piece_index", "moved", std::fs::read(dir.path().join("pieces.idx")).unwrap());
    }
    for (name, puts) in [("fresh", 0), ("three-records", 3)] {
        add("piece_index", name, index(puts));
    }
    for (name, bytes) in play_records() {
        add("play_record", name, bytes);
    }
    seeds
}

/// What seals of records and journals are around, and a record's file.
fn play_records() -> Vec<(&'static str, Vec<u8>)> {
    let record = b"d7:contacti1800000000e7:counteri9e5:playsi2e4:seeni1800000001e1:vi2ee".to_vec();
    let place = [b"d7:counteri1e5:place32:".as_slice(), &[7; 32], b"5:playsi0e4:seeni0e1:vi2ee"].concat();
    let entry = |n: u8| [b"d7:counteri4e10:subscriber32:".as_slice(), &[n; 32], b"e"].concat();
    let mac = *blake3::keyed_hash(&PLAYS_KEY, &record).as_bytes();
    let length = record.len().to_string();
    let file =
        [b"d3:mac32:".as_slice(), &mac, b"6:record", length.as_bytes(), b":", &record, b"1:vi2ee"].concat();
    vec![
        ("record", record),
        ("record-with-place", place),
        ("record-of-version-1", b"d5:playsi2e4:seeni1800000000e1:vi1ee".to_vec()),
        ("counters", [b"l".as_slice(), &entry(1), &entry(2), b"e"].concat()),
        ("file", file),
        ("newer-file", b"d3:mac32:012345678901234567890123456789016:record2:de1:vi3ee".to_vec()),
    ]
}

fn kernels() -> &'static swarmseal_core::Kernels {
    swarmseal_accel::detect()
}

fn seal(params: Params) -> Seal {
    Seal::new(publisher_key().public(), [7; 32], Arc::new(params))
}

fn torrent(params: Params, piece_length: u32, pieces: u32) -> Metainfo {
    let info = Info {
        name: "A film".into(),
        piece_length,
        piece_count: pieces,
        pieces: (0..pieces).map(|i| [i as u8; 20]).collect(),
        private: true,
        seal: Seal { witness: (0..pieces).map(|i| [0x40 + i as u8; 32]).collect(), ..seal(params) },
    };
    Metainfo::new(Some(authority()), info).unwrap()
}

/// Of five pieces, two of them clear.
fn mixed_torrent() -> Metainfo {
    let mut info = torrent(sealed(kernels()), 1 << 18, 5).info;
    let selection = Selection::from_bytes(&[0b1010_1000], 5).expect("of both");
    info.seal.witness = info.seal.witness[..selection.sealed_count() as usize].into();
    info.seal.selection = Some(Arc::new(selection));
    Metainfo::new(Some(authority()), info).unwrap()
}

fn license(pieces: usize) -> Vec<u8> {
    let license = License {
        torrent_id: TORRENT,
        info_hash: [2; 20],
        subscriber: ID,
        epoch: 4,
        issued: Some(1_800_000_000),
        played: 2,
        policy: Policy {
            plays: Some(5),
            not_before: Some(1),
            expires: Some(u64::MAX),
            offline_grace: Some(3600),
        },
        keys: Zeroizing::new(vec![6; 256 * pieces]),
    };
    license.seal(&license_key(), &identity().device_public(), &mut UnwrapErr(SysRng)).unwrap()
}

fn files() -> FileList {
    let entry = |mime: &str, path: &[&str], size| FileEntry {
        mime: mime.into(),
        path: path.iter().map(|&name| name.into()).collect(),
        size,
    };
    FileList::new(vec![
        entry("video/mp4", &["film.mp4"], 5),
        entry("text/vtt", &["subtitles", "de.vtt"], 2),
        entry("", &["subtitles", "..é"], 0),
    ])
    .unwrap()
}

fn seed_file() -> SeedFile {
    SeedFile {
        torrent_id: TORRENT,
        package_secret: PackageSecret::from_bytes([8; 32]),
        signing_key: license_key(),
        passkey: Some("0123456789abcdef0123456789abcdef".into()),
        manifest: Manifest::new(files(), None).unwrap(),
        content: Some("/films/a film".into()),
        metainfo: None,
    }
}

fn announce() -> Announce {
    Announce {
        info_hash: *b"abcdefghij\0\x01\x02\xff& =%+/",
        peer_id: [b'-'; 20],
        port: 6881,
        uploaded: 1,
        downloaded: u64::MAX,
        left: 0,
        event: Some(Event::Completed),
        numwant: Some(50),
        compact: true,
        no_peer_id: true,
        authority: Some(1_700_000_000),
        ip: Some("2001:db8::1".parse().unwrap()),
        passkey: Some(Passkey::new([0xab; 16])),
    }
}

fn announce_reply() -> AnnounceReply {
    let peer = |address: &str| Peer { address: address.parse().unwrap(), id: None };
    AnnounceReply {
        interval: 1800,
        min_interval: Some(60),
        complete: 1,
        incomplete: 2,
        peers: vec![peer("192.0.2.1:6881"), peer("[2001:db8::1]:6882"), peer("192.0.2.2:1")],
        warning: Some("soon over".into()),
        now: Some(1_700_000_000),
        epoch: Some(2),
        authority: Some(authority().as_bytes().to_vec()),
    }
}

fn ticket() -> Ticket {
    Ticket {
        torrent_id: TORRENT,
        uploader: ID,
        downloader: SubscriberId([10; 32]),
        epoch: 1,
        expires: 1_700_000_000,
        signature: [11; 64],
    }
}

fn authority() -> SignedAuthority {
    let authority = Authority {
        license_key: license_key().public(),
        origins: vec!["https://tracker.example".parse().unwrap(), "http://127.0.0.1:7000".parse().unwrap()],
        serial: 1_700_000_000,
        tracker_key: license_key().public(),
    };
    SignedAuthority::sign(authority, &publisher_key()).unwrap()
}

fn identify() -> api::Identify {
    let origin = "https://tracker.example".parse().unwrap();
    api::Identify { nonce: [1; 32], origin, publisher_key: Some(publisher_key().public()) }
}

fn identified() -> api::Identified {
    let authority = Some(authority().as_bytes().to_vec());
    api::Identified {
        authority,
        ..api::Identified::sign(&identify(), &license_key(), [2; 32], 1_700_000_000)
    }
}

fn contact() -> api::Contact {
    identified().check(&identify(), &license_key().public()).unwrap()
}

fn api_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let (now, torrent_id) = (1_700_000_000, TORRENT);
    let (params, rng) = (sealed(kernels()), &mut UnwrapErr(SysRng));
    let s = secret(&params, 5);
    let y = s.public_key(&params);
    let subscribe = api::Subscribe::new(&params, TORRENT, (&s, &y), &identity(), contact(), rng).unwrap();
    let session = api::OpenSession::new(&license_key(), Role::Subscriber, ID, TORRENT, contact());
    let passkey = Passkey::new([0xab; 16]);
    let pieces = vec![0, 1, u32::MAX];
    let word = api::LicenseWord {
        torrent_id,
        subscriber: ID,
        server: license_key().public(),
        contact: contact(),
        epoch: Some(2),
        voucher: Some((*voucher()).clone()),
        signature: [0; 64],
    };
    let word = word.signed(&license_key());
    let record = api::PlayRecord { counter: 7, lost: 0, plays: 3 };
    let device = |name: Option<&str>| api::Device {
        enrolled: now,
        name: name.map(str::to_owned),
        plays: 3,
        subscriber: ID,
    };
    let devices = vec![device(Some("laptop")), device(None)];
    vec![
        ("identified", bencode::to_bytes(&identified())),
        ("subscribe", bencode::to_bytes(&subscribe)),
        ("subscribed", bencode::to_bytes(&api::Subscribed { passkey, subscriber: ID, epoch: 1, now })),
        ("passkey-request", bencode::to_bytes(&api::PasskeyRequest { torrent_id, rotate: 1 })),
        ("passkey-reply", bencode::to_bytes(&api::PasskeyReply { passkey, now })),
        ("open-session", bencode::to_bytes(&session)),
        (
            "session-opened",
            bencode::to_bytes(&api::SessionOpened {
                authority: Some(authority().as_bytes().to_vec()),
                token: SessionToken::new([2; 56]),
                expires: now,
                now,
            }),
        ),
        (
            "witness-request",
            bencode::to_bytes(&api::WitnessRequest { torrent_id, epoch: 2, pieces: pieces.clone() }),
        ),
        ("witness-keys", bencode::to_bytes(&api::WitnessKeys { epoch: 2, keys: vec![3; 2 * 256], now })),
        (
            "rekey-request",
            bencode::to_bytes(&api::ReKeyRequest {
                torrent_id,
                epoch: 1,
                ticket: ticket(),
                pieces: pieces.clone(),
            }),
        ),
        (
            "seed-keys-request",
            bencode::to_bytes(&api::SeedKeysRequest { torrent_id, ticket: ticket(), pieces }),
        ),
        ("keys", bencode::to_bytes(&api::Keys { keys: vec![3; 512], now })),
        (
            "license-request",
            bencode::to_bytes(&api::LicenseRequest {
                torrent_id,
                epoch: Some(2),
                voucher: Some((*voucher()).clone()),
                record: Some(record),
            }),
        ),
        (
            "devices-request",
            bencode::to_bytes(&api::DevicesRequest {
                torrent_id,
                name: Some("laptop".into()),
                record: Some(record),
            }),
        ),
        ("revoke-device", bencode::to_bytes(&api::RevokeDevice { torrent_id, subscriber: ID })),
        (
            "devices",
            bencode::to_bytes(&api::Devices {
                changes: 0,
                devices: devices.clone(),
                next: Some(now + 60),
                now,
                places: 2,
            }),
        ),
        ("license-reply", bencode::to_bytes(&api::LicenseReply { license: vec![4; 100], now, server: None })),
        ("license-elsewhere", {
            let server = Some(api::LicenseServer {
                origin: "https://licenses.example".parse().unwrap(),
                identity: license_key().public(),
                device: [5; 32],
            });
            bencode::to_bytes(&api::LicenseReply { license: Vec::new(), now, server })
        }),
        ("license-word", bencode::to_bytes(&word)),
        ("license-order", bencode::to_bytes(&api::LicenseOrder::new(word.clone(), &license_key()))),
        ("license-filled", {
            let filled =
                api::LicenseFilled { license: vec![4; 100], device: [5; 32], signature: [6; 64], now };
            bencode::to_bytes(&filled)
        }),
        ("hashes-request", bencode::to_bytes(&api::HashesRequest { torrent_id, first: 2, wanted: 1 })),
        ("hashes", bencode::to_bytes(&api::Hashes { epoch: 1, hashes: vec![6; 40], now })),
        (
            "work",
            bencode::to_bytes(&api::Work {
                job: Some(api::HashJob { subscriber: ID, epoch: 1, first: 0, keys: vec![7; 64] }),
                now,
            }),
        ),
        (
            "new-hashes",
            bencode::to_bytes(&api::NewHashes {
                torrent_id,
                subscriber: ID,
                epoch: 1,
                first: 0,
                hashes: vec![8; 20],
            }),
        ),
        (
            "personal-request",
            bencode::to_bytes(&api::PersonalRequest { torrent_id, name: [9; 20], hidden: 1 }),
        ),
        ("personal", bencode::to_bytes(&api::Personal { info_hash: [9; 20], subscriber: ID, epoch: 1, now })),
        (
            "personal-keys-request",
            bencode::to_bytes(&api::PersonalKeysRequest {
                torrent_id,
                epoch: 1,
                info_hash: [9; 20],
                pieces: vec![0, 3],
            }),
        ),
        (
            "clients",
            bencode::to_bytes(&api::Clients {
                clients: vec![api::OrdinaryClient {
                    address: "127.0.0.1:7".into(),
                    complete: 1,
                    epoch: 1,
                    info_hash: [9; 20],
                    subscriber: ID,
                }],
                interval: 30,
                now,
            }),
        ),
        (
            "failure",
            bencode::to_bytes(&api::Failure {
                code: "unknown".into(),
                reason: "why".into(),
                now: Some(now),
                devices: Vec::new(),
            }),
        ),
        (
            "failure-places-taken",
            bencode::to_bytes(&api::Failure {
                code: "used-voucher".into(),
                reason: "why".into(),
                now: Some(now),
                devices,
            }),
        ),
    ]
}

fn peer_messages() -> Vec<(&'static str, Vec<u8>)> {
    let stream = |portion: u8, messages: &[Message]| {
        let mut out = BytesMut::from(&[portion][..]);
        messages.iter().for_each(|message| message.encode(&mut out));
        out.to_vec()
    };
    let block = Block { piece: 19, begin: 1 << 14, len: 1 << 14 };
    let extended = |id, payload: Vec<u8>| Message::Extended { id, payload: Bytes::from(payload) };
    let piece = Message::Piece { piece: 3, begin: 0, data: Bytes::from(vec![5; 512]) };
    let bits = Message::Bitfield(Bytes::from_static(&[0xff, 0x01, 0xf0]));
    vec![
        ("opening", stream(0, &[bits, extended(0, extended_handshake().to_bytes()), Message::Unchoke])),
        (
            "requests",
            stream(
                6,
                &[
                    Message::KeepAlive,
                    Message::Interested,
                    Message::Request(block),
                    Message::Cancel(block),
                    Message::Have(19),
                    Message::NotInterested,
                    Message::Choke,
                ],
            ),
        ),
        ("piece", stream(255, &[piece, extended(1, SealMessage::Want(vec![1]).to_bytes())])),
        ("unknown", [&[2, 0, 0, 0, 3, 99, 1, 2][..], &[0, 0, 0, 0]].concat()),
    ]
}

/// What either side hears of a whole handshake, and the bytes that follow.
fn obfuscated_handshakes() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let methods = [
        (mse::RC4, ["called-rc4", "calling-rc4"]),
        (mse::PLAINTEXT, ["called-plaintext", "calling-plaintext"]),
    ];
    for (method, names) in methods {
        for (called, name) in [true, false].into_iter().zip(names) {
            // The other side has paddings.
            let mut theirs = [3; mse::ENTROPY];
            theirs[20..24].copy_from_slice(&[0, 9, 0, 5]);
            let (a_entropy, b_entropy) = if called { (&theirs, &ENTROPY) } else { (&ENTROPY, &theirs) };
            let ours = Handshake::new([1; 20], [2; 20]).to_bytes();
            let mut a = Initiator::new(a_entropy, [1; 20], method, ours);
            let mut b = Responder::new(b_entropy, method);
            let (mut to_a, mut to_b) = (BytesMut::new(), BytesMut::new());
            let mut heard = vec![u8::from(!called)];
            loop {
                let mut said = Vec::new();
                let agreed = a.advance(&mut to_a, &mut said).expect("a sound handshake");
                to_b.extend_from_slice(&said);
                heard.extend(if called { &said[..] } else { &[] });
                if agreed.is_some() {
                    break;
                }
                let mut said = Vec::new();
                while let Progress::Sought(_) = b.advance(&mut to_b, &mut said).expect("a sound handshake") {
                    b.serve([1; 20]).expect("that torrent");
                }
                to_a.extend_from_slice(&said);
                heard.extend(if called { &[] } else { &said[..] });
            }
            heard.extend(b"what follows");
            seeds.push((name, heard));
        }
    }
    seeds
}

fn udp_packets() -> Vec<(&'static str, Vec<u8>)> {
    let (transaction, connection) = (7, 1 << 40);
    let announce = Request::Announce {
        connection,
        transaction,
        announce: announce(),
        key: 5,
        url_data: b"/announce?key=7".repeat(20),
    };
    let announced = Response::Announced { transaction, reply: announce_reply() };
    vec![
        ("connect", Request::Connect { transaction }.to_bytes()),
        ("announce", announce.to_bytes()),
        ("connected", Response::Connected { transaction, connection }.to_bytes(false)),
        ("announced", announced.to_bytes(false)),
        ("announced6", announced.to_bytes(true)),
        ("refused", Response::Refused { transaction, reason: "no such torrent".into() }.to_bytes(false)),
    ]
}

fn extended_handshake() -> ExtendedHandshake {
    let hello = Hello::Subscriber { identity: identity().public(), keys: KeyCommitment([3; 32]) };
    ExtendedHandshake {
        seal_id: Some(1),
        dont_have_id: Some(2),
        client: "Swarmseal 0.1".into(),
        reqq: 250,
        port: Some(6881),
        hello: Some(hello),
    }
}

fn seal_messages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("handshake", extended_handshake().to_bytes()),
        (
            "handshake-of-a-seed",
            ExtendedHandshake { hello: Some(Hello::Seed { key: [4; 32] }), ..extended_handshake() }
                .to_bytes(),
        ),
        ("ticket", SealMessage::Ticket(Box::new(ticket())).to_bytes()),
        ("want", SealMessage::Want(vec![0, 7, u32::MAX]).to_bytes()),
    ]
}

fn group_elements(params: &Params) -> [Vec<u8>; 3] {
    let width = params.group().bytes();
    let s = secret(params, 6);
    let y = s.public_key(params);
    let proof = Proof::prove(params, &s, &y, &[b"statement"], &mut UnwrapErr(SysRng));
    let mut out = [vec![0; width], vec![0; width], vec![0; Proof::encoded_len(params)]];
    s.to_bytes(params, &mut out[0]).unwrap();
    y.to_bytes(params, &mut out[1]).unwrap();
    proof.to_bytes(params, &mut out[2]).unwrap();
    out
}

fn index(puts: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), SHAPE).unwrap();
    let piece = [0; SHAPE.piece_len as usize];
    for epoch in 0..puts {
        let stored = StoredPiece { epoch: epoch.into(), hash: *blake3::hash(&piece).as_bytes() };
        store.put(epoch % 2, &piece, stored).unwrap();
    }
    std::fs::read(dir.path().join("pieces.idx")).unwrap()
}
