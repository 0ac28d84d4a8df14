//! What is published comes out again, byte for byte, for whoever has a license, and for nobody else.

// A list of one range is what is meant.
#![allow(clippy::single_range_in_vec_init)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha1::{Digest, Sha1};
use swarmseal::atomic_file::Existing;
use swarmseal::player::{BadPiece, Error, Fault, PieceReader, PlayFiles, Player, PolicyState, Session};
use swarmseal::publish::{self, CacheError, Options, PackageCache, Packager, publish};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::identity::{Device, SigningKey, SubscriberKeys};
use swarmseal::wire::keyfile::SeedFile;
use swarmseal::wire::license::{License, Policy};
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal::wire::selection::{Kind, Runs, Selection};
use swarmseal::wire::{bencode, content};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Exponents, Group, Kernels, MasterKey, Params, Profile, TorrentId, TsKeys,
    WitnessExponents, WitnessFactor, encrypt_piece, witness_hash,
};
use zeroize::Zeroizing;

const NOW: u64 = 1_800_000_000;
const EPOCH: u64 = 1;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn params(group: &str) -> Arc<Params> {
    let profile = if group.starts_with("ffdhe") { Profile::Sealed } else { Profile::Paper };
    let group = Group::by_name(group, Kernels::portable()).unwrap();
    Arc::new(Params::new(profile, group, Exponents::Short).unwrap())
}

fn license_key() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

fn publisher_key() -> [u8; 32] {
    SigningKey::from_bytes(&[78; 32]).public()
}

/// Stored ciphertext, in memory: epoch and bytes.
#[derive(Clone)]
struct Stored(HashMap<u32, (u64, Vec<u8>)>);

impl PieceReader for Stored {
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> io::Result<Option<u64>> {
        Ok(self.0.get(&index).map(|(epoch, bytes)| {
            piece.copy_from_slice(bytes);
            *epoch
        }))
    }
}

/// A tracker, a seed and one subscriber of a torrent, all in one place.
struct Setting {
    metainfo: Metainfo,
    device: Device,
    keys: SubscriberKeys,
    stored: Stored,
    decryption_keys: Vec<u8>,
    state: tempfile::TempDir,
}

impl Setting {
    /// Every piece's number.
    fn all(&self) -> Vec<u32> {
        (0..self.metainfo.info.piece_count).collect()
    }

    /// `packaged` makes the packaged pieces of the torrent.
    fn new(metainfo: Metainfo, mut packaged: impl FnMut(u32, &mut [u8])) -> Self {
        let info = &metainfo.info;
        let params = info.seal.params.clone();
        let device = Device::generate(&mut rng());
        let keys = device.subscriber_keys(&params, &info.seal.torrent_id);
        let ts_keys = TsKeys::derive(&params, &MasterKey::from_bytes([8; 32]), &keys.id, EPOCH);
        let width = params.group().bytes();
        let mut decryption_keys = Vec::new();
        let mut stored = HashMap::new();
        for index in 0..info.piece_count {
            let r = ts_keys.key(index);
            let mut piece = vec![0; info.piece_length as usize];
            packaged(index, &mut piece);
            if info.seal.is_clear(index) {
                stored.insert(index, (0, piece));
                continue;
            }
            encrypt_piece(&params, &EncryptionKey::derive(&params, &keys.public_key, &r), &mut piece)
                .unwrap();
            stored.insert(index, (EPOCH, piece));
            let mut key = vec![0; width];
            DecryptionKey::derive(&params, &r).to_bytes(&params, &mut key).unwrap();
            decryption_keys.extend(key);
        }
        Setting {
            device,
            keys,
            stored: Stored(stored),
            decryption_keys,
            state: tempfile::tempdir().unwrap(),
            metainfo,
        }
    }

    fn license(&self, policy: Policy) -> License {
        License {
            torrent_id: self.metainfo.info.seal.torrent_id,
            info_hash: self.metainfo.info_hash,
            subscriber: self.keys.id,
            epoch: EPOCH,
            issued: None,
            played: 0,
            policy,
            keys: Zeroizing::new(self.decryption_keys.clone()),
        }
    }

    fn play_files(&self) -> PlayFiles {
        let state = self.state.path();
        PlayFiles { record: state.join("plays"), journal: state.join("plays.journal") }
    }

    fn sealed(&self, license: &License) -> Vec<u8> {
        license.seal(&license_key(), &self.keys.identity.device_public(), &mut rng()).unwrap()
    }

    fn player_with(&self, license: &License) -> Result<Arc<Player>, Error> {
        Player::new(self.metainfo.clone(), &self.keys, &license_key().public(), &self.sealed(license))
    }

    fn player(&self) -> Arc<Player> {
        self.player_with(&self.license(Policy::default())).unwrap()
    }

    fn policy_state(&self) -> PolicyState {
        PolicyState::load(self.play_files(), &self.device, &self.keys.id).unwrap()
    }

    fn session(&self) -> Session {
        self.player().begin_play(&mut self.policy_state(), NOW).unwrap()
    }

    fn extract(&self, to: &Path, existing: Existing) -> Result<usize, Error> {
        let session = self.session();
        let content = session.content(&self.stored)?;
        session.extract(&self.stored, &content, to, existing, &mut |_, _| {}).map(|paths| paths.len())
    }
}

/// Bytes that do not repeat from block to block.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

const FILES: [(&str, usize); 5] =
    [("a.txt", 5), ("empty", 0), ("film/one.mp4", 90_000), ("film/two.mp4", 33_333), ("z/y/x", 1)];

fn write_files(root: &Path) {
    for (seed, (path, len)) in FILES.iter().enumerate() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(seed as u64, *len)).unwrap();
    }
}

fn assert_files(root: &Path) {
    for (seed, (path, len)) in FILES.iter().enumerate() {
        assert!(fs::read(root.join(path)).unwrap() == noise(seed as u64, *len), "{path}");
    }
}

fn options(source: &Path, group: &str, piece_length: Option<u32>) -> Options {
    Options {
        source: source.into(),
        name: Some("A film".into()),
        authority: None,
        publisher_key: publisher_key(),
        params: params(group),
        piece_length,
        runs: None,
    }
}

fn published(group: &str, piece_length: Option<u32>) -> (tempfile::TempDir, Metainfo, SeedFile) {
    let source = tempfile::tempdir().unwrap();
    write_files(source.path());
    let (metainfo, seed, _) =
        publish(&options(source.path(), group, piece_length), &mut rng(), &|_| {}).unwrap();
    (source, metainfo, seed)
}

fn setting(group: &str, piece_length: Option<u32>) -> Setting {
    let (source, metainfo, seed) = published(group, piece_length);
    let packager = Packager::open(source.path(), &seed, &metainfo).unwrap();
    Setting::new(metainfo.clone(), |index, piece| packager.read_checked(index, &metainfo, piece).unwrap())
}

/// A torrent of any plaintext stream, as only a malicious publisher makes it.
fn setting_of_stream(mut stream: Vec<u8>) -> Setting {
    let (params, piece_length) = (params("ffdhe2048"), 16 << 10);
    let secret = PackageSecret::from_bytes([1; 32]);
    let seal = Seal::new(publisher_key(), [2; 32], params.clone());
    let payload = params.payload_bytes(piece_length);
    stream.resize(stream.len().next_multiple_of(payload), 0);
    let pieces: Vec<Vec<u8>> = (0..)
        .zip(stream.chunks(payload))
        .map(|(index, chunk)| {
            let mut piece = chunk.to_vec();
            piece.resize(piece_length, 0);
            package::pack(&params, &secret, &seal.torrent_id, index, &mut piece).unwrap();
            piece
        })
        .collect();
    let info = Info {
        name: "A trap".into(),
        piece_length: piece_length as u32,
        piece_count: pieces.len() as u32,
        pieces: pieces.iter().map(|piece| Sha1::digest(piece).into()).collect(),
        private: true,
        seal: Seal { witness: vec![[0; 32]; pieces.len()].into(), ..seal },
    };
    let metainfo = Metainfo::new(None, info).unwrap();
    Setting::new(metainfo, |index, piece| piece.copy_from_slice(&pieces[index as usize]))
}

fn stream_of_list(list: &[u8]) -> Vec<u8> {
    [&(list.len() as u64).to_le_bytes()[..], list, &[7; 100]].concat()
}

#[test]
fn a_directory_comes_out_byte_for_byte() {
    for (group, piece_length, pieces) in [
        ("ffdhe2048", Some(16 << 10), 8),
        ("ffdhe2048", None, 1),
        ("ffdhe3072", Some(48 << 10), 3),
        ("ffdhe4096", Some(64 << 10), 2),
        ("modp768", Some(48 << 10), 3),
    ] {
        let setting = setting(group, piece_length);
        assert_eq!(setting.metainfo.info.piece_count, pieces, "{group}");
        assert_eq!(setting.player().verify(&setting.stored, &setting.all(), &mut |_| {}), []);
        let out = tempfile::tempdir().unwrap();
        let target = out.path().join("new/dir");
        assert_eq!(setting.extract(&target, Existing::Keep).unwrap(), FILES.len());
        assert_files(&target);
    }
}

/// The files of [`FILES`] with these bytes clear, of 123,339 in all.
fn mixed(clear: &[std::ops::Range<u64>], group: &str, piece_length: u32) -> (tempfile::TempDir, Setting) {
    let source = tempfile::tempdir().unwrap();
    write_files(source.path());
    let runs = Runs::of_clear(clear, FILES.iter().map(|(_, len)| *len as u64).sum()).unwrap();
    let options = Options { runs, ..options(source.path(), group, Some(piece_length)) };
    let (metainfo, seed, _) = publish(&options, &mut rng(), &|_| {}).unwrap();
    let seed = SeedFile::from_key_file(&seed.to_key_file()).unwrap();
    let packager = Packager::open(source.path(), &seed, &metainfo).unwrap();
    let setting = Setting::new(metainfo.clone(), |index, piece| {
        packager.read_checked(index, &metainfo, piece).unwrap();
    });
    (source, setting)
}

#[test]
fn what_is_partly_clear_comes_out_byte_for_byte() {
    let mut small: Vec<_> = (0..600).map(|i| i * 200 + 7..i * 200 + 150).collect();
    small.push(122_000..123_339);
    for (group, piece_length, clear, sealed_and_clear) in [
        ("ffdhe2048", 16 << 10, vec![5_000..100_000], (2, 6)),
        ("ffdhe2048", 16 << 10, vec![0..123_339], (1, 8)),
        ("ffdhe2048", 16 << 10, small, (3, 6)),
        ("ffdhe3072", 48 << 10, vec![1..60_000, 70_000..90_000], (1, 2)),
        ("modp768", 48 << 10, vec![1..60_000], (2, 2)),
    ] {
        let (_source, setting) = mixed(&clear, group, piece_length);
        let selection = setting.metainfo.info.seal.selection.clone().unwrap();
        assert_eq!((selection.sealed_count(), selection.clear_count()), sealed_and_clear, "{clear:?}");
        assert_eq!(setting.player().verify(&setting.stored, &setting.all(), &mut |_| {}), []);
        let out = tempfile::tempdir().unwrap();
        assert_eq!(setting.extract(out.path(), Existing::Keep).unwrap(), FILES.len());
        assert_files(out.path());

        // Any range, first thing: nobody has asked for the list of files.
        let session = setting.session();
        let whole: Vec<u8> = (0..).zip(FILES).flat_map(|(seed, (_, len))| noise(seed, len)).collect();
        let start = setting.session().content(&setting.stored).unwrap().span(0).unwrap().start;
        for (from, to) in
            [(0, 1), (4_999, 5_001), (99_000, 101_000), (7, 123_339), (123_338, 123_339), (9, 9)]
        {
            let mut part = Vec::new();
            let range = start + from..start + to;
            let sink = &mut |bytes: &[u8]| {
                part.extend_from_slice(bytes);
                Ok(())
            };
            session.read(&setting.stored, range.clone(), sink).unwrap();
            // No other piece was needed.
            let needed = session.pieces_of(&setting.stored, range.clone()).unwrap();
            let mut some = setting.stored.clone();
            some.0.retain(|index, _| needed.contains(index));
            session.read(&some, range, &mut |_| Ok(())).unwrap();
            assert!(part == whole[from as usize..to as usize], "{from}..{to} of {clear:?}");
        }
        let behind = session.read(&setting.stored, 0..start + 123_340, &mut |_| Ok(()));
        assert!(matches!(behind, Err(Error::WrongLength { .. })));
    }
}

#[test]
fn a_clear_piece_is_the_files_own_bytes_and_a_bad_one_is_found() {
    let (source, mut setting) = mixed(&[5..90_005], "ffdhe2048", 16 << 10);
    let selection = setting.metainfo.info.seal.selection.clone().unwrap();
    let film = fs::read(source.path().join("film/one.mp4")).unwrap();
    let clear: Vec<u32> = (0..selection.count()).filter(|&piece| selection.is_clear(piece)).collect();
    for (index, bytes) in clear.iter().zip(film.chunks(16 << 10)) {
        assert!(setting.stored.0[index].1.starts_with(bytes));
    }
    let last = setting.stored.0[clear.last().unwrap()].1.clone();
    assert!(last[90_000 % (16 << 10)..].iter().all(|&byte| byte == 0));

    setting.stored.0.get_mut(&clear[1]).unwrap().1[9] ^= 1;
    let bad = setting.player().verify(&setting.stored, &setting.all(), &mut |_| {});
    assert_eq!(bad, [BadPiece { index: clear[1], fault: Fault::Corrupt }]);
    let out = tempfile::tempdir().unwrap();
    let stopped = setting.extract(out.path(), Existing::Keep);
    assert!(matches!(stopped, Err(Error::CorruptPiece { index }) if index == clear[1]));
    setting.stored.0.remove(&clear[1]);
    assert!(matches!(setting.extract(out.path(), Existing::Replace), Err(Error::MissingPiece { .. })));

    // A file that changed is noticed before it leaves the seed.
    let options = Options {
        runs: Runs::of_clear(&[5..90_005], 123_339).unwrap(),
        ..options(source.path(), "ffdhe2048", Some(16 << 10))
    };
    let (metainfo, seed, _) = publish(&options, &mut rng(), &|_| {}).unwrap();
    let packager = Packager::open(source.path(), &seed, &metainfo).unwrap();
    let mut piece = vec![0; 16 << 10];
    packager.read_packaged(clear[1], &mut piece).unwrap();
    let keys = vec![0; 256];
    let hashes = packager.cipher_hashes(clear[1], &keys, |_| panic!("nothing is to be done")).unwrap();
    assert_eq!(hashes, [metainfo.info.pieces[clear[1] as usize]]);
    let mut changed = film.clone();
    changed[20_000] ^= 1;
    fs::write(source.path().join("film/one.mp4"), changed).unwrap();
    let refused = packager.read_packaged(clear[1], &mut piece);
    assert!(matches!(refused, Err(publish::Error::ContentChanged { index }) if index == clear[1]));
}

#[test]
fn a_manifest_that_does_not_fit_the_selection_is_refused() {
    let (source, setting) = mixed(&[5_000..100_000], "ffdhe2048", 16 << 10);
    let options = |runs| Options { runs, ..options(source.path(), "ffdhe2048", Some(16 << 10)) };
    // Whatever is not worth a clear piece is sealed.
    let little = Runs::of_clear(&[5_000..15_000], 123_339).unwrap();
    let (metainfo, ..) = publish(&options(little), &mut rng(), &|_| {}).unwrap();
    assert_eq!(metainfo.info.seal.selection, None);
    let short = Runs::of_clear(&[5_000..100_000], 123_338).unwrap();
    let refused = publish(&options(short), &mut rng(), &|_| {});
    assert!(matches!(refused, Err(publish::Error::Content(content::Error::Selection(_)))));

    // Another order of the same numbers of pieces, over the same hashes.
    let mut info = setting.metainfo.info.clone();
    let kinds: Vec<Kind> =
        (0..info.piece_count).map(|piece| info.seal.selection.as_ref().unwrap().kind(piece)).collect();
    let mut other = kinds.clone();
    let last_sealed = kinds.iter().rposition(|&kind| kind == Kind::Sealed).unwrap();
    let clear = kinds.iter().position(|&kind| kind == Kind::Clear).unwrap();
    other.swap(last_sealed, clear);
    assert_ne!(other, kinds);
    info.seal.selection = Some(Arc::new(Selection::new(&other).unwrap()));
    let seal = &info.seal;
    let (secret, torrent_id) = (PackageSecret::from_bytes([1; 32]), seal.torrent_id);
    let head = {
        let mut head = vec![0; 16 << 10];
        let manifest = content::Manifest::new(
            publish::list_files(source.path()).unwrap().1,
            Runs::of_clear(&[5_000..100_000], 123_339).unwrap(),
        );
        let header = manifest.unwrap().header();
        head[..header.len()].copy_from_slice(&header);
        package::pack(&seal.params, &secret, &torrent_id, 0, &mut head).unwrap();
        head
    };
    info.pieces[0] = Sha1::digest(&head).into();
    let metainfo = Metainfo::new(None, info).unwrap();
    let trap = Setting::new(metainfo, |_, piece| piece.copy_from_slice(&head));
    let refused = trap.session().content(&trap.stored).unwrap_err();
    assert!(refused.to_string().contains("not the one that the runs"), "{refused}");
}

#[test]
fn the_default_piece_length_at_3072_bits_is_no_power_of_two() {
    let (_source, metainfo, _) = published("ffdhe3072", None);
    assert_eq!(metainfo.info.piece_length, 288 << 10);
    assert!(!metainfo.info.piece_length.is_power_of_two());
}

#[test]
fn a_single_file_goes_to_a_pipe_and_any_range_is_read() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("film.mp4");
    let bytes = noise(9, 50_000);
    fs::write(&path, &bytes).unwrap();
    let (metainfo, seed, _) =
        publish(&options(&path, "ffdhe2048", Some(16 << 10)), &mut rng(), &|_| {}).unwrap();
    let packager = Packager::open(&path, &seed, &metainfo).unwrap();
    let setting = Setting::new(metainfo, |index, piece| packager.read_packaged(index, piece).unwrap());
    let session = setting.session();
    let content = session.content(&setting.stored).unwrap();
    assert_eq!(content.files()[0].mime, "video/mp4");
    let mut out = Vec::new();
    let index = content.single_file().unwrap();
    session.write_file(&setting.stored, &content, index, &mut out).unwrap();
    assert!(out == bytes);

    let span = content.span(0).unwrap();
    for (from, to) in [(0, 0), (0, 1), (16_000, 16_500), (1, 49_999), (49_999, 50_000)] {
        let mut part = Vec::new();
        session
            .read(&setting.stored, span.start + from..span.start + to, &mut |bytes| {
                part.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert!(part == bytes[from as usize..to as usize], "{from}..{to}");
    }
    let behind = session.read(&setting.stored, 0..1 << 40, &mut |_| Ok(()));
    assert!(matches!(behind, Err(Error::WrongLength { .. })));
    assert!(matches!(content.span(1), Err(Error::NoSuchFile { index: 1, count: 1 })));
    let full =
        session.read(&setting.stored, span, &mut |_| Err(Error::Output(io::ErrorKind::BrokenPipe.into())));
    assert!(matches!(full, Err(Error::Output(_))));
}

#[test]
fn several_files_do_not_go_to_a_pipe() {
    let setting = setting("ffdhe2048", None);
    let content = setting.session().content(&setting.stored).unwrap();
    assert!(matches!(content.single_file(), Err(Error::NotSingleFile { count: 5 })));
}

#[test]
fn a_missing_or_bad_piece_stops_with_its_number() {
    let mut setting = setting("ffdhe2048", Some(16 << 10));
    let whole = setting.stored.clone();
    let out = tempfile::tempdir().unwrap();

    setting.stored.0.remove(&3);
    setting.stored.0.get_mut(&5).unwrap().1[100] ^= 1;
    setting.stored.0.get_mut(&6).unwrap().0 = 9;
    let bad = setting.player().verify(&setting.stored, &setting.all(), &mut |_| {});
    let expected = [(3, Fault::Missing), (5, Fault::Corrupt), (6, Fault::OtherEpoch)]
        .map(|(index, fault)| BadPiece { index, fault });
    assert_eq!(bad, expected);

    let stopped = setting.extract(out.path(), Existing::Keep);
    assert!(matches!(stopped, Err(Error::MissingPiece { index: 3 })), "{stopped:?}");
    // What was whole stays; nothing is there in part, not even under another name.
    assert_eq!(fs::read(out.path().join("a.txt")).unwrap(), noise(0, 5));
    assert_eq!(fs::read_dir(out.path().join("film")).unwrap().count(), 0);

    setting.stored.0.insert(3, whole.0[&3].clone());
    let stopped = setting.extract(out.path(), Existing::Replace);
    assert!(matches!(stopped, Err(Error::CorruptPiece { index: 5 })));
    setting.stored.0.insert(5, whole.0[&5].clone());
    let stopped = setting.extract(out.path(), Existing::Replace);
    assert!(matches!(stopped, Err(Error::WrongEpoch { index: 6, stored: 9, .. })));
    setting.stored = whole;
    setting.extract(out.path(), Existing::Replace).unwrap();
    assert_files(out.path());
}

#[test]
fn a_disk_error_names_its_piece() {
    struct Broken;
    impl PieceReader for Broken {
        fn read_piece(&self, _: u32, _: &mut [u8]) -> io::Result<Option<u64>> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    let setting = setting("ffdhe2048", None);
    assert!(matches!(setting.session().content(&Broken), Err(Error::PieceIo { index: 0, .. })));
    let bad = setting.player().verify(&Broken, &setting.all(), &mut |_| {});
    assert_eq!(bad, [BadPiece { index: 0, fault: Fault::Unreadable }]);
}

#[test]
fn licenses_that_do_not_fit_are_told_apart() {
    let setting = setting("ffdhe2048", None);
    let license = setting.license(Policy::default());
    let refused = |license: &License| setting.player_with(license).unwrap_err();

    let envelope = setting.sealed(&license);
    let player = |keys: &SubscriberKeys, envelope: &[u8]| {
        Player::new(setting.metainfo.clone(), keys, &license_key().public(), envelope).unwrap_err()
    };
    let Seal { params, torrent_id, .. } = &setting.metainfo.info.seal;
    let other_device = Device::generate(&mut rng()).subscriber_keys(params, torrent_id);
    assert!(matches!(player(&other_device, &envelope), Error::WrongKey(_)));
    let other_torrent = setting.device.subscriber_keys(params, &TorrentId([0; 32]));
    assert!(matches!(player(&other_torrent, &envelope), Error::WrongKey(_)));
    // Decrypts it, and is another subscriber.
    let other_subscriber = SubscriberKeys { id: other_device.id, ..setting.keys.clone() };
    assert!(matches!(player(&other_subscriber, &envelope), Error::WrongKey(_)));

    let mut wrong = license.clone();
    wrong.torrent_id = TorrentId([0; 32]);
    assert!(matches!(refused(&wrong), Error::WrongTorrent));
    let mut wrong = license.clone();
    wrong.info_hash[0] ^= 1;
    assert!(matches!(refused(&wrong), Error::WrongTorrent));
    let mut wrong = license.clone();
    wrong.keys.pop();
    assert!(matches!(refused(&wrong), Error::MalformedLicense(_)));
    let mut zero = license.clone();
    zero.keys.fill(0);
    let session = setting.player_with(&zero).unwrap().begin_play(&mut setting.policy_state(), NOW).unwrap();
    assert!(matches!(session.content(&setting.stored), Err(Error::MalformedLicense(_))));

    let forged = license
        .seal(&SigningKey::from_bytes(&[1; 32]), &setting.keys.identity.device_public(), &mut rng())
        .unwrap();
    assert!(matches!(player(&setting.keys, &forged), Error::TamperedLicense));
    let mut flipped = envelope.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(player(&setting.keys, &flipped), Error::TamperedLicense));
    let mut newer = envelope.clone();
    newer["swarmseal license".len()] = 2;
    assert!(matches!(player(&setting.keys, &newer), Error::NewerLicense { found: 2 }));
    assert!(matches!(player(&setting.keys, b"no"), Error::MalformedLicense(_)));
}

#[test]
fn the_policy_is_enforced_and_plays_are_counted() {
    let setting = setting("ffdhe2048", None);
    let begin = |policy: Policy, now: u64| {
        let player = setting.player_with(&setting.license(policy)).unwrap();
        player.begin_play(&mut setting.policy_state(), now).map(drop)
    };
    let policy = Policy::default;
    let none = begin(Policy { not_before: Some(NOW + 5), ..policy() }, NOW);
    assert!(matches!(none, Err(Error::NotYet { .. })));
    let none = begin(Policy { expires: Some(NOW), ..policy() }, NOW);
    assert!(matches!(none, Err(Error::Expired { since: NOW })));
    let none = begin(Policy { offline_grace: Some(5), ..policy() }, NOW);
    assert!(matches!(none, Err(Error::OfflineTooLong { grace: 5, since: None })));
    begin(Policy { plays: Some(2), ..policy() }, NOW).unwrap();
    begin(Policy { plays: Some(2), ..policy() }, NOW).unwrap();
    let none = begin(Policy { plays: Some(2), ..policy() }, NOW);
    assert!(matches!(none, Err(Error::NoPlaysLeft { allowed: 2 })));
    // A clock that is set back gives nothing back.
    let none = begin(Policy { expires: Some(NOW), ..policy() }, NOW - 10_000);
    assert!(matches!(none, Err(Error::Expired { since: NOW })));
    begin(policy(), NOW - 10_000).unwrap();
    fs::write(setting.state.path().join("plays"), b"d5:playsi0ee").unwrap();
    let edited = PolicyState::load(setting.play_files(), &setting.device, &setting.keys.id);
    assert!(matches!(edited, Err(Error::TamperedPolicyState { .. })));
}

#[test]
fn existing_files_stay_unless_forced() {
    let setting = setting("ffdhe2048", None);
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("film")).unwrap();
    fs::write(out.path().join("film/two.mp4"), b"mine").unwrap();
    let refused = setting.extract(out.path(), Existing::Keep);
    assert!(matches!(refused, Err(Error::Exists { path }) if path.ends_with("two.mp4")));
    // It is noticed before anything is written.
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    assert_eq!(fs::read(out.path().join("film/two.mp4")).unwrap(), b"mine");
    setting.extract(out.path(), Existing::Replace).unwrap();
    assert_files(out.path());
}

#[cfg(unix)]
#[test]
fn a_link_in_the_destination_leads_nowhere() {
    let setting = setting("ffdhe2048", None);
    let (out, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), out.path().join("film")).unwrap();
    let refused = setting.extract(out.path(), Existing::Replace);
    assert!(matches!(refused, Err(Error::NotADirectory { path }) if path.ends_with("film")));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_malicious_publisher_writes_nothing_outside_the_directory() {
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        mime: &'a str,
        path: Vec<&'a str>,
        size: u64,
    }
    let stream = |paths: &[&[&str]], size| {
        let entries: Vec<_> =
            paths.iter().map(|path| Entry { mime: "", path: path.to_vec(), size }).collect();
        stream_of_list(&bencode::to_bytes(&entries))
    };
    let refused = |stream| {
        let (setting, out) = (setting_of_stream(stream), tempfile::tempdir().unwrap());
        let target = out.path().join("out");
        let error = setting.extract(&target, Existing::Replace).unwrap_err();
        assert!(fs::read_dir(out.path()).unwrap().next().is_none(), "something was written");
        error
    };
    for path in
        [&["..", "evil"][..], &["/etc/evil"], &["a", "..", "..", "evil"], &["a//b"], &["", "evil"], &["."]]
    {
        let error = refused(stream(&[path], 5));
        assert!(matches!(error, Error::Content(content::Error::UnsafePath { .. })), "{path:?}: {error}");
    }
    for paths in [[&["a"][..], &["a"][..]], [&["a"], &["a", "b"]]] {
        let error = refused(stream(&paths, 5));
        assert!(matches!(error, Error::Content(content::Error::DuplicatePath { .. })));
    }
    assert!(matches!(refused(stream(&[&["a"]], 1 << 40)), Error::WrongLength { .. }));
    assert!(matches!(refused(stream(&[&["a"], &["b"]], u64::MAX)), Error::Content(content::Error::TooLarge)));
    assert!(matches!(refused(stream_of_list(b"le")), Error::Content(content::Error::Empty)));
    assert!(matches!(refused(stream_of_list(b"garbage")), Error::Content(content::Error::Bencode(_))));
    assert!(matches!(refused(vec![0xff; 100]), Error::Content(content::Error::TooLong { .. })));
    let long = [&(1u64 << 20).to_le_bytes()[..], b"le"].concat();
    assert!(matches!(refused(long), Error::WrongLength { .. }));
    // More pieces than the files fill.
    let padded = [stream(&[&["a"]], 5), vec![0; 20_000]].concat();
    assert!(matches!(refused(padded), Error::WrongLength { expected: 1, found: 2 }));
}

#[test]
fn a_seed_notices_files_that_changed() {
    let (source, metainfo, seed) = published("ffdhe2048", Some(16 << 10));
    let packager = Packager::open(source.path(), &seed, &metainfo).unwrap();
    let mut piece = vec![0; 16 << 10];
    packager.read_checked(2, &metainfo, &mut piece).unwrap();
    for index in [8, u32::MAX] {
        let none = packager.read_packaged(index, &mut piece);
        assert!(matches!(none, Err(publish::Error::NoSuchPiece { .. })));
    }

    let film = source.path().join("film/one.mp4");
    let mut bytes = fs::read(&film).unwrap();
    bytes[40_000] ^= 1;
    fs::write(&film, &bytes).unwrap();
    let changed = packager.read_checked(2, &metainfo, &mut piece);
    assert!(matches!(changed, Err(publish::Error::ContentChanged { index: 2 })));
    packager.read_checked(0, &metainfo, &mut piece).unwrap();
    bytes.pop();
    fs::write(&film, &bytes).unwrap();
    let changed = packager.read_packaged(2, &mut piece);
    assert!(matches!(changed, Err(publish::Error::SizeChanged { .. })));
    assert!(matches!(
        Packager::open(source.path(), &seed, &metainfo),
        Err(publish::Error::SizeChanged { .. })
    ));

    let (_other, other_metainfo, _) = published("ffdhe2048", None);
    let wrong = Packager::open(source.path(), &seed, &other_metainfo);
    assert!(matches!(wrong, Err(publish::Error::WrongTorrent)));
}

/// Every packaged piece.
fn packaged(packager: &Packager, metainfo: &Metainfo) -> Vec<Vec<u8>> {
    let one = |index| {
        let mut piece = vec![0; metainfo.info.piece_length as usize];
        packager.read_packaged(index, &mut piece).map(|()| piece).unwrap()
    };
    (0..metainfo.info.piece_count).map(one).collect()
}

fn cached(
    source: &Path,
    seed: &SeedFile,
    metainfo: &Metainfo,
    cache: &Path,
    most: u64,
) -> Result<Packager, CacheError> {
    let cache = PackageCache::open(cache, metainfo, most)?;
    Ok(Packager::open(source, seed, metainfo).unwrap().with_cache(cache))
}

const ANY_ROOM: u64 = 1 << 40;

fn cache_file(cache: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn kept_packages_serve_again_and_never_what_was_not_published() {
    let (source, metainfo, seed) = published("ffdhe2048", Some(16 << 10));
    let expected = packaged(&Packager::open(source.path(), &seed, &metainfo).unwrap(), &metainfo);
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("new/packages");
    let count = metainfo.info.piece_count;
    let stop = AtomicBool::new(false);

    let packager = cached(source.path(), &seed, &metainfo, &cache, ANY_ROOM).unwrap();
    assert!(matches!(cached(source.path(), &seed, &metainfo, &cache, ANY_ROOM), Err(CacheError::Busy(_))));
    assert_eq!(packager.fill_cache(&stop), count);
    drop(packager);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(cache_file(&cache)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    // The content is gone from the disk but for its length, and the pieces are still right.
    let film = source.path().join("film/one.mp4");
    let content = fs::read(&film).unwrap();
    fs::write(&film, vec![0; content.len()]).unwrap();
    let packager = cached(source.path(), &seed, &metainfo, &cache, ANY_ROOM).unwrap();
    assert_eq!(packaged(&packager, &metainfo), expected);
    drop(packager);

    // A damaged piece would have to be made of what has changed: it is refused, and the others stay.
    let file = cache_file(&cache);
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[4096 + 2 * (16 << 10) + 77] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let packager = cached(source.path(), &seed, &metainfo, &cache, ANY_ROOM).unwrap();
    let mut piece = vec![0; 16 << 10];
    let changed = packager.read_packaged(2, &mut piece);
    assert!(matches!(changed, Err(publish::Error::ContentChanged { index: 2 })));
    assert_eq!(packager.fill_cache(&stop), count - 1);
    drop(packager);

    // With the content there, it is made anew.
    fs::write(&film, &content).unwrap();
    let packager = cached(source.path(), &seed, &metainfo, &cache, ANY_ROOM).unwrap();
    assert_eq!(packaged(&packager, &metainfo), expected);
    drop(packager);
    assert_eq!(fs::read(&file).unwrap(), whole);
}

#[test]
fn a_seed_stopped_at_any_byte_of_its_packages_goes_on() {
    let (source, metainfo, seed) = published("ffdhe2048", Some(16 << 10));
    let expected = packaged(&Packager::open(source.path(), &seed, &metainfo).unwrap(), &metainfo);
    let dir = tempfile::tempdir().unwrap();
    let open = || cached(source.path(), &seed, &metainfo, dir.path(), ANY_ROOM).unwrap();
    open().fill_cache(&AtomicBool::new(false));
    let file = cache_file(dir.path());
    let whole = fs::read(&file).unwrap();
    for len in [0, 1, 8, 12, 51, 52, 4095, 4096, 4097, 20_479, 20_480, 20_481, whole.len() - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        // Half of the pieces are asked for out of turn, and leave holes.
        let packager = open();
        let mut piece = vec![0; 16 << 10];
        for index in (0..metainfo.info.piece_count).rev().step_by(2) {
            packager.read_packaged(index, &mut piece).unwrap();
            assert_eq!(piece, expected[index as usize], "{len} {index}");
        }
        drop(packager);
        assert_eq!(packaged(&open(), &metainfo), expected, "{len}");
        assert_eq!(fs::read(&file).unwrap(), whole, "{len}");
    }
}

#[test]
fn packages_have_bounds_and_foreign_and_newer_files_are_refused() {
    let (source, metainfo, seed) = published("ffdhe2048", Some(16 << 10));
    let dir = tempfile::tempdir().unwrap();
    let open = |most| cached(source.path(), &seed, &metainfo, dir.path(), most);
    assert_eq!(open(40 << 10).unwrap().fill_cache(&AtomicBool::new(false)), 2);
    let file = cache_file(dir.path());
    assert_eq!(fs::metadata(&file).unwrap().len(), 4096 + (32 << 10));
    assert_eq!(open(40 << 10).unwrap().fill_cache(&AtomicBool::new(true)), 0);

    let good = fs::read(&file).unwrap();
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let error = open(ANY_ROOM).map(drop).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), bytes, "a file that is refused stays as it is");
        error
    };
    let newer = refused(&|bytes| bytes[11] = 2);
    assert!(matches!(newer, CacheError::NewerVersion { found: 2, newest: 1, .. }), "{newer}");
    for (place, why) in [(0, "magic"), (15, "piece length"), (19, "pieces"), (30, "torrent"), (4000, "zeros")]
    {
        let error = refused(&|bytes| bytes[place] ^= 1);
        assert!(matches!(error, CacheError::Foreign(_)), "{why}: {error}");
    }
    let other = refused(&|bytes| *bytes = b"a letter".to_vec());
    assert!(matches!(other, CacheError::Foreign(_)), "{other}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(open(ANY_ROOM).map(drop), Err(CacheError::Io { .. })));
}

#[test]
fn the_witness_opens_what_the_torrent_has_hashes_of() {
    for (group, piece_length, clear) in [
        ("ffdhe2048", 16 << 10, vec![5_000..100_000]),
        ("ffdhe2048", 16 << 10, vec![]),
        ("ffdhe3072", 48 << 10, vec![]),
        ("modp768", 48 << 10, vec![1..60_000]),
    ] {
        let source = tempfile::tempdir().unwrap();
        write_files(source.path());
        let runs = Runs::of_clear(&clear, FILES.iter().map(|(_, len)| *len as u64).sum()).unwrap();
        let options = Options { runs, ..options(source.path(), group, Some(piece_length)) };
        let (metainfo, seed, secret) = publish(&options, &mut rng(), &|_| {}).unwrap();
        let (params, seal) = (&metainfo.info.seal.params, &metainfo.info.seal);
        let packager = Packager::open(source.path(), &seed, &metainfo).unwrap();
        let exponents = WitnessExponents::derive(params, &secret, &seal.torrent_id);
        let mut piece = vec![0; piece_length as usize];
        for index in 0..metainfo.info.piece_count {
            packager.read_packaged(index, &mut piece).unwrap();
            assert_eq!(metainfo.info.pieces[index as usize], <[u8; 20]>::from(Sha1::digest(&piece)));
            let factor = WitnessFactor::derive(params, &exponents.exponent(index));
            let hash = witness_hash(params, &factor, &mut piece).unwrap();
            assert_eq!(seal.witness_hash(index), (!seal.is_clear(index)).then_some(&hash), "{group} {index}");
        }
        // Another publication of the same files has another witness.
        let (again, _, other) = publish(&options, &mut rng(), &|_| {}).unwrap();
        assert_ne!(other.as_bytes(), secret.as_bytes());
        assert_ne!(again.info.seal.witness_hash(0), seal.witness_hash(0));
    }
}

#[test]
fn options_that_cannot_be_are_refused_before_the_work() {
    let source = tempfile::tempdir().unwrap();
    write_files(source.path());
    let refused = |options: Options| {
        let nothing = |_| panic!("pieces were hashed");
        publish(&options, &mut rng(), &nothing).map(drop).unwrap_err()
    };
    let good = options(source.path(), "ffdhe2048", None);
    for piece_length in [0, 1, 1 << 13, 1 << 30] {
        let bad = Options { piece_length: Some(piece_length), ..good.clone() };
        assert!(matches!(refused(bad), publish::Error::Metainfo(_)), "{piece_length}");
    }
    // Of another publisher.
    let origins = vec!["https://tracker.example".parse().unwrap()];
    let (license_key, tracker_key) = (license_key().public(), license_key().public());
    let authority = Authority { license_key, origins, serial: 1, tracker_key };
    let foreign = SignedAuthority::sign(authority, &SigningKey::from_bytes(&[99; 32])).unwrap();
    let bad = Options { authority: Some(foreign), ..good.clone() };
    assert!(matches!(refused(bad), publish::Error::Metainfo(_)));
    let bad = Options { source: source.path().join("none"), ..good };
    assert!(matches!(refused(bad), publish::Error::Io { .. }));
}
