use proptest::prelude::*;

use super::*;
use crate::wire::authority::Authority;
use crate::wire::identity::SigningKey;

fn kernels() -> &'static Kernels {
    Kernels::portable()
}

fn info(profile: Profile, group: &str, piece_length: u32, pieces: usize) -> Info {
    let group = Group::by_name(group, kernels()).unwrap();
    Info {
        name: "A film".into(),
        piece_length,
        piece_count: pieces as u32,
        pieces: (0..pieces).map(|i| [i as u8; 20]).collect(),
        private: true,
        seal: Seal {
            witness: hashes(pieces),
            ..Seal::new(
                SigningKey::from_bytes(&[4; 32]).public(),
                [7; 32],
                Arc::new(Params::new(profile, group, Exponents::Short).unwrap()),
            )
        },
    }
}

/// Witness hashes that differ.
fn hashes(count: usize) -> Arc<[[u8; 32]]> {
    (0..count).map(|i| [0x40 + i as u8; 32]).collect()
}

/// Signed by the publisher with this seed for its key.
fn authority(publisher: u8) -> SignedAuthority {
    let authority = Authority {
        license_key: SigningKey::from_bytes(&[3; 32]).public(),
        origins: vec!["http://tracker.example".parse().unwrap()],
        serial: 5,
        tracker_key: SigningKey::from_bytes(&[5; 32]).public(),
    };
    SignedAuthority::sign(authority, &SigningKey::from_bytes(&[publisher; 32])).unwrap()
}

fn sample() -> Metainfo {
    Metainfo::new(Some(authority(4)), info(Profile::Sealed, "ffdhe2048", 262_144, 3)).unwrap()
}

/// Of three pieces, the middle one clear.
fn mixed() -> Metainfo {
    let mut info = info(Profile::Sealed, "ffdhe2048", 262_144, 3);
    info.seal.selection = Some(Arc::new(Selection::from_bytes(&[0b1010_0000], 3).unwrap()));
    info.seal.witness = hashes(2);
    Metainfo::new(Some(authority(4)), info).unwrap()
}

/// The sample file with one stretch of bytes replaced by another, wherever it first stands.
fn with(from: &str, to: &str) -> Result<Metainfo, Error> {
    edited(&sample(), from, to.as_bytes())
}

fn edited(file: &Metainfo, from: &str, to: &[u8]) -> Result<Metainfo, Error> {
    let bytes = file.to_bytes();
    let from = from.as_bytes();
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the sample has it");
    let edited = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    Metainfo::from_bytes(&edited, kernels())
}

#[test]
fn files_round_trip() {
    for (profile, group, piece_length) in [
        (Profile::Sealed, "ffdhe2048", 1 << 18),
        (Profile::Sealed, "ffdhe3072", 49_152 * 5),
        (Profile::Sealed, "ffdhe4096", 1 << 20),
        (Profile::Paper, "modp1024", 1 << 16),
    ] {
        let made = Metainfo::new(Some(authority(4)), info(profile, group, piece_length, 5)).unwrap();
        let read = Metainfo::from_bytes(&made.to_bytes(), kernels()).unwrap();
        assert_eq!(read.to_bytes(), made.to_bytes());
        assert_eq!(read.info_hash, made.info_hash);
        assert_eq!(read.authority, made.authority);
        assert_eq!(read.info.pieces, made.info.pieces);
        assert_eq!(read.info.seal.witness, made.info.seal.witness);
        assert_eq!(read.info.length(), 5 * u64::from(piece_length));
        assert_eq!(read.info.seal.params.group().name(), Some(group));
        assert_eq!(read.info.seal.params.profile(), profile);
    }
}

#[test]
fn a_group_in_full_is_read_under_paper_and_refused_under_sealed() {
    // 2^64 − 8489 is a safe prime; 4 generates its subgroup of order q.
    let p = (u64::MAX - 8488).to_be_bytes();
    let mut g = [0; 8];
    g[7] = 4;
    let Ok(group) = Group::from_parts(kernels(), &p, &g) else {
        panic!("the toy group is refused");
    };
    let mut info = info(Profile::Paper, "modp1024", 1 << 16, 1);
    info.seal.params = Arc::new(Params::new(Profile::Paper, group, Exponents::Full).unwrap());
    let made = Metainfo::new(None, info).unwrap();
    let read = Metainfo::from_bytes(&made.to_bytes(), kernels()).unwrap();
    assert_eq!(read.info.seal.params.group().bits(), 64);
    assert_eq!(read.info_hash, made.info_hash);

    let text = made.to_bytes();
    let at = text.windows(7).position(|window| window == b"5:paper").unwrap();
    let sealed = [&text[..at], b"6:sealed", &text[at + 7..]].concat();
    assert_eq!(
        Metainfo::from_bytes(&sealed, kernels()).unwrap_err(),
        Error::Group(swarmseal_core::Error::GroupNotSealed)
    );
}

#[test]
fn the_info_hash_is_of_the_raw_bytes() {
    let plain = sample();
    let extended = with("7:privatei1e", "7:privatei1e6:source3:abc").unwrap();
    assert_ne!(extended.info_hash, plain.info_hash);
    let again = Metainfo::from_bytes(&extended.to_bytes(), kernels()).unwrap();
    assert_eq!(again.info_hash, extended.info_hash);
}

#[test]
fn newer_versions_and_unknown_names_are_refused_by_name() {
    assert_eq!(with("1:vi1e", "1:vi2e").unwrap_err(), Error::NewerVersion { found: 2 });
    let unknown = |what, name: &str| Error::Unknown { what, name: name.into() };
    assert_eq!(with("6:sealed", "6:wrappe").unwrap_err(), unknown("profile", "wrappe"));
    assert_eq!(with("9:ffdhe2048", "9:ffdhe2049").unwrap_err(), unknown("group", "ffdhe2049"));
    assert_eq!(with("5:short", "5:brief").unwrap_err(), unknown("exponents", "brief"));
    assert_eq!(
        with("9:ffdhe2048", "8:modp1024").unwrap_err(),
        Error::Group(swarmseal_core::Error::GroupNotSealed)
    );
    // A newer file may change everything else as well.
    assert_eq!(
        Metainfo::from_bytes(b"d8:announce8:http://t4:infod9:swarmseald1:vi9eeee", kernels()).unwrap_err(),
        Error::NewerVersion { found: 9 }
    );
}

#[test]
fn values_that_cannot_be_are_refused() {
    let bad = |from, to| match with(from, to) {
        Err(Error::Bad { what, .. }) => what,
        other => panic!("{from} → {to}: {other:?}"),
    };
    assert_eq!(bad("7:privatei1e", "7:privatei0e"), "private");
    assert_eq!(bad("6:lengthi786432e", "6:lengthi786431e"), "length");
    assert_eq!(bad("12:piece lengthi262144e", "12:piece lengthi262145e"), "length");
    assert_eq!(bad("6:A film", "6:../../"), "name");
    assert_eq!(bad("6:A film", "2:.."), "name");
    assert_eq!(bad("1:vi1e", "1:vi0e"), "swarmseal.v");
    assert_eq!(with("9:swarmseal", "9:swarmsead").unwrap_err(), Error::NotSealed);
    assert!(matches!(with("6:random32:", "6:random31:"), Err(Error::Bencode(_))));
    assert_eq!(Metainfo::from_bytes(b"d8:announce8:http://te", kernels()).unwrap_err(), Error::NoInfo);
    assert!(matches!(
        Metainfo::from_bytes(&vec![b'd'; MAX_FILE + 1], kernels()),
        Err(Error::Bencode(bencode::Error::TooLong { .. }))
    ));
}

#[test]
fn keys_that_verify_nothing_or_anything_are_refused() {
    let unsigned = Metainfo::new(None, sample().info).unwrap();
    let head = b"13:publisher key32:";
    let file = unsigned.to_bytes();
    let at = file.windows(head.len()).position(|window| window == head).unwrap() + head.len();
    let under =
        |key: &[u8; 32]| Metainfo::from_bytes(&[&file[..at], key, &file[at + 32..]].concat(), kernels());
    let other = under(&SigningKey::from_bytes(&[9; 32]).public()).unwrap();
    assert_ne!(other.info.seal.torrent_id, sample().info.seal.torrent_id);
    // The neutral element and a point of order 4 verify what nobody signed; and no point has y = 2.
    let (mut neutral, order_4, mut nowhere) = ([0; 32], [0; 32], [0; 32]);
    (neutral[0], nowhere[0]) = (1, 2);
    for key in [&neutral, &order_4, &nowhere] {
        let refused = under(key).unwrap_err();
        assert!(matches!(refused, Error::Bad { what: "swarmseal.publisher key", .. }), "{refused}");
    }
}

#[test]
fn an_authority_is_the_publisher_s_and_no_part_of_the_info_hash() {
    let unsigned = Metainfo::new(None, sample().info).unwrap();
    assert_eq!(unsigned.info_hash, sample().info_hash);
    let read = Metainfo::from_bytes(&unsigned.to_bytes(), kernels()).unwrap();
    assert_eq!(read.authority, None);
    assert_eq!(read.with_authority(authority(4)).unwrap().to_bytes(), sample().to_bytes());
    let stranger = unsigned.clone().with_authority(authority(5)).unwrap_err();
    assert_eq!(stranger, Error::Authority(authority::Error::BadSignature));
    // The genuine info beside somebody else's authority; and one that was changed.
    let bytes = sample().to_bytes();
    let (own, foreign) = (authority(4), authority(5));
    let at = bytes.windows(own.as_bytes().len()).position(|window| window == own.as_bytes()).unwrap();
    let mut forged = bytes.clone();
    forged[at..at + own.as_bytes().len()].copy_from_slice(foreign.as_bytes());
    let refused = Metainfo::from_bytes(&forged, kernels()).unwrap_err();
    assert_eq!(refused, Error::Authority(authority::Error::BadSignature));
    // What stands under `announce` changes nothing.
    let moved = with("http://tracker.example/", "http://elsewhere.exampl").unwrap();
    assert_eq!(moved.to_bytes(), bytes);
    assert!(bytes.starts_with(b"d8:announce31:http://tracker.example/announce4:info"));
}

#[test]
fn the_torrent_id_is_of_publisher_key_and_random_bytes() {
    let made = sample().info.seal;
    assert_eq!(made.torrent_id, TorrentId::of(&made.publisher_key, &made.random));
    let read = Metainfo::from_bytes(&sample().to_bytes(), kernels()).unwrap().info.seal;
    assert_eq!((read.torrent_id, read.publisher_key), (made.torrent_id, made.publisher_key));
    let mut info = sample().info;
    info.seal.torrent_id = TorrentId([7; 32]);
    let refused = Metainfo::new(None, info).unwrap_err();
    assert!(matches!(refused, Error::Bad { what: "torrent id", .. }));
}

#[test]
fn piece_lengths_fit_blocks_and_requests() {
    let made =
        |group, piece_length| Metainfo::new(None, info(Profile::Sealed, group, piece_length, 1)).map(drop);
    assert_eq!(made("ffdhe3072", 49_152), Ok(()));
    for (group, length) in
        [("ffdhe3072", 1 << 18), ("ffdhe2048", 8192), ("ffdhe2048", 0), ("ffdhe2048", 64 << 20)]
    {
        assert!(
            matches!(made(group, length), Err(Error::Bad { what: "piece length", .. })),
            "{group} {length}"
        );
    }
}

#[test]
fn a_selection_has_one_form() {
    let made = mixed();
    let read = Metainfo::from_bytes(&made.to_bytes(), kernels()).unwrap();
    assert_eq!((read.info_hash, read.to_bytes()), (made.info_hash, made.to_bytes()));
    assert_eq!([0, 1, 2, 3].map(|piece| read.info.seal.is_clear(piece)), [false, true, false, false]);
    assert_eq!((read.info.sealed_count(), sample().info.sealed_count()), (2, 3));
    assert!(!sample().to_bytes().windows(9).any(|window| window == b"selection"));
    for bits in [&b"1:\xe0"[..], b"1:\x20", b"1:\xa1", b"2:\xa0\0", b"0:"] {
        let mut to = b"9:selection".to_vec();
        to.extend_from_slice(bits);
        let file = made.to_bytes();
        let from = [&b"9:selection1:"[..], &[0xa0]].concat();
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        let file = [&file[..at], &to, &file[at + from.len()..]].concat();
        let refused = Metainfo::from_bytes(&file, kernels()).unwrap_err();
        assert!(matches!(refused, Error::Selection(_)), "{bits:?}: {refused}");
    }
    let mut info = info(Profile::Sealed, "ffdhe2048", 262_144, 4);
    info.seal.selection = made.info.seal.selection.clone();
    let refused = Metainfo::new(None, info).unwrap_err();
    assert!(matches!(refused, Error::Bad { what: "swarmseal.selection", .. }));
}

#[test]
fn each_sealed_piece_has_its_witness_hash() {
    let of = |file: Metainfo| {
        let read = Metainfo::from_bytes(&file.to_bytes(), kernels()).unwrap();
        [0, 1, 2, 3, u32::MAX].map(|piece| read.info.seal.witness_hash(piece).map(|hash| hash[0]))
    };
    assert_eq!(of(sample()), [Some(0x40), Some(0x41), Some(0x42), None, None]);
    assert_eq!(of(mixed()), [Some(0x40), None, Some(0x41), None, None]);

    for (good, other) in [(sample(), 2), (sample(), 4), (mixed(), 1), (mixed(), 3)] {
        let length = |count: usize| format!("7:witness{}:", 32 * count).into_bytes();
        let mut info = good.info.clone();
        info.seal.witness = hashes(other);
        let refused = Metainfo::new(None, info).unwrap_err();
        let bad = Error::Bad { what: "swarmseal.witness", expected: "32 bytes for each sealed piece" };
        assert_eq!(refused, bad);
        let from = [length(good.info.seal.witness.len()), good.info.seal.witness.concat()].concat();
        let file = good.to_bytes();
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        for to in [length(other), b"7:witness95:".to_vec()] {
            let filling = if to == length(other) { 32 * other } else { 95 };
            let file = [&file[..at], &to, &vec![7; filling], &file[at + from.len()..]].concat();
            assert_eq!(Metainfo::from_bytes(&file, kernels()).unwrap_err(), bad);
        }
        let without = [&file[..at], &file[at + from.len()..]].concat();
        assert!(matches!(Metainfo::from_bytes(&without, kernels()), Err(Error::Bencode(_))));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Metainfo::from_bytes(&bytes, kernels());
    }

    #[test]
    fn a_flipped_byte_is_read_or_refused(at in 0usize..680, to: u8, some_clear: bool) {
        let mut bytes = if some_clear { mixed() } else { sample() }.to_bytes();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(read) = Metainfo::from_bytes(&bytes, kernels()) {
            // All but what stands under `announce` is written as it was read.
            let again = Metainfo::from_bytes(&read.to_bytes(), kernels()).unwrap();
            prop_assert_eq!((again.info_hash, again.authority), (read.info_hash, read.authority));
        }
    }
}
