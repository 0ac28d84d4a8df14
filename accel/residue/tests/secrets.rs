//! Every type that holds a secret: its memory is overwritten when it is dropped, and its `Debug` shows nothing of it. Then the paths
//! that secrets take between files, licenses and keys.

use std::fmt::Debug;
use std::fs;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::LazyLock;

use getrandom::SysRng;
use rand_core::{TryCryptoRng, TryRng, UnwrapErr};
use swarmseal::atomic_file::Existing;
use swarmseal::wire::identity::{Device, Identity, SigningKey, SubscriberKeys};
use swarmseal::wire::keyfile::words::Words;
use swarmseal::wire::keyfile::{
    KeyFile, Passphrase, PublisherKey, SealedMaster, SealedPublisher, SealedVoucherKey, SealedWitness,
    SeedFile,
};
use swarmseal::wire::license::{License, Policy};
use swarmseal::wire::voucher::{VoucherCode, VoucherKey};
use swarmseal::wire::{api, channel, content};
use swarmseal_core::kernels::Exponent;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, DeviceRoot, EncryptionKey, Exponents, FixedBase, Group, MasterKey, Params, Profile,
    SecretKey, SubscriberId, SubscriberTables, TorrentId, TsKey, TsKeys, WitnessExponent, WitnessExponents,
    WitnessFactor, WitnessKey, WitnessSecret, WitnessTable, check_witness, encrypt_piece, witness_hash,
};
use swarmseal_residue::{NEEDLE, Watch, needle_in, residues};
use zeroize::Zeroizing;

#[global_allocator]
static WATCH: Watch = Watch;

const TORRENT: TorrentId = TorrentId([7; 32]);
/// Any secret of 32 bytes.
const SECRET: [u8; 32] = *b"\xc3 secret that is 32 bytes long\x9e ";

/// The characters of a voucher's code.
const VOUCHER: &str = "W4XHKFMSQ49VSQWA21M7PPHK";

static PARAMS: LazyLock<Params> = LazyLock::new(|| {
    Params::new(Profile::Sealed, Group::ffdhe2048(swarmseal_accel::detect()), Exponents::Short).unwrap()
});

/// The numbers of the first words of [`SECRET`], 11 bits each, as [`Words`] has them in memory.
static NUMBERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bits = u128::from_be_bytes(*SECRET.first_chunk().unwrap());
    (1..=8).flat_map(|word| ((bits >> (128 - 11 * word)) as u16 & 0x7ff).to_ne_bytes()).collect()
});

/// A generator that always gives the same: what is made with it is made again.
struct Fixed(u64);

impl TryRng for Fixed {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|word| word as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        Ok(self.0 ^ self.0 >> 29)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn secret_key() -> SecretKey {
    SecretKey::generate(&PARAMS, &mut Fixed(3))
}

fn ts_keys() -> TsKeys<'static> {
    TsKeys::derive(&PARAMS, &MasterKey::from_bytes(SECRET), &SubscriberId([9; 32]), 1)
}

fn ts_key() -> TsKey {
    ts_keys().key(5)
}

fn witness_exponents() -> WitnessExponents<'static> {
    WitnessExponents::derive(&PARAMS, &WitnessSecret::from_bytes(SECRET), &TORRENT)
}

fn witness_exponent() -> WitnessExponent {
    witness_exponents().exponent(5)
}

fn identity() -> Identity {
    Identity::from_secrets(&SECRET, &SECRET)
}

fn device() -> Device {
    Device::from_bytes(&SECRET)
}

fn subscriber_keys() -> SubscriberKeys {
    let (secret, identity) = (secret_key(), identity());
    let public_key = secret.public_key(&PARAMS);
    let id = identity.subscriber(&PARAMS, &TORRENT, &public_key);
    SubscriberKeys { identity, secret, public_key, id }
}

fn seed_file() -> SeedFile {
    let entry = content::FileEntry { path: vec!["film".into()], size: 5, mime: "video/mp4".into() };
    let files = content::FileList::new(vec![entry]).unwrap();
    SeedFile {
        torrent_id: TORRENT,
        package_secret: PackageSecret::from_bytes(SECRET),
        signing_key: SigningKey::from_bytes(&SECRET),
        passkey: None,
        manifest: content::Manifest::new(files, None).unwrap(),
        content: None,
        metainfo: None,
    }
}

fn license() -> License {
    License {
        torrent_id: TORRENT,
        info_hash: [2; 20],
        subscriber: SubscriberId([9; 32]),
        epoch: 1,
        issued: None,
        played: 0,
        policy: Policy::default(),
        keys: Zeroizing::new(SECRET.repeat(16)),
    }
}

/// Nothing that `Debug` says of a value has the bytes in any usual shape.
fn shows_nothing(name: &str, value: &impl Debug, needle: &[u8]) {
    let few = &needle[..6];
    let listed = format!("{few:?}");
    let hex = hex::encode(few);
    let words = needle.first_chunk().map(|bytes| u64::from_le_bytes(*bytes).to_string());
    let text = str::from_utf8(needle).map(str::to_owned).ok();
    for said in [format!("{value:?}"), format!("{value:#?}").replace(['\n', ' '], "")] {
        let shapes = [
            Some(listed[1..listed.len() - 1].to_owned()),
            Some(hex.clone()),
            Some(hex.to_uppercase()),
            words.clone(),
            text.clone(),
        ];
        for shape in shapes.into_iter().flatten() {
            let said = said.replace(' ', "");
            assert!(!said.contains(&shape.replace(' ', "")), "{name} shows its secret: {said}");
        }
    }
}

/// The secrets of a value that `make` makes, in its own memory or given, are overwritten when it is dropped.
fn leaves_nothing<T: Debug>(name: &str, needle: Option<&[u8]>, make: impl Fn() -> T) {
    let found = needle_in(&*black_box(Box::new(make())));
    let needle = needle.or(found.as_ref().map(<[u8; NEEDLE]>::as_slice));
    let needle = needle.unwrap_or_else(|| panic!("{name} has no secret in its own memory: say which"));
    shows_nothing(name, &make(), needle);
    // The search finds it where nothing is overwritten.
    let kept = residues(&[needle], || drop(black_box(Box::new(ManuallyDrop::new(make())))));
    let copied = residues(&[needle], || drop(black_box(needle.to_vec())));
    assert!(kept > 0 || found.is_none_or(|found| found != needle), "{name}: the search is blind");
    assert!(copied > 0, "{name}: the search is blind");
    let left = residues(&[needle], || drop(black_box(Box::new(make()))));
    assert_eq!(left, 0, "{name} was dropped and its secret was not overwritten");
}

/// Every type that holds a secret. Those that are only `shown` are overwritten by nobody: see [`NOT_OVERWRITTEN`].
macro_rules! secrets {
    (overwritten { $($name:ident $([$needle:expr])? = $make:expr;)+ } shown { $($shown:ident = $value:expr;)+ }) => {
        const OVERWRITTEN: &[&str] = &[$(stringify!($name)),+];
        const NOT_OVERWRITTEN: &[&str] = &[$(stringify!($shown)),+];

        #[test]
        fn what_is_dropped_is_overwritten_and_debug_shows_nothing() {
            $(
                let needle: Option<&[u8]> = None $(.or(Some($needle)))?;
                leaves_nothing(stringify!($name), needle, || $make);
            )+
            $(shows_nothing(stringify!($shown), &$value, &SECRET[..NEEDLE]);)+
        }
    };
}

secrets! {
    overwritten {
    SecretKey = secret_key();
    MasterKey = MasterKey::from_bytes(SECRET);
    TsKeys = ts_keys();
    TsKey = ts_key();
    Exponent = Exponent::from_be(&SECRET);
    EncryptionKey = EncryptionKey::derive(&PARAMS, &secret_key().public_key(&PARAMS), &ts_key());
    OpenedKey = DecryptionKey::derive(&PARAMS, &ts_key()).open(&PARAMS, &secret_key());
    DecryptionKey = DecryptionKey::derive(&PARAMS, &ts_key());
    WitnessSecret = WitnessSecret::from_bytes(SECRET);
    WitnessExponents = witness_exponents();
    WitnessExponent = witness_exponent();
    WitnessFactor = WitnessFactor::derive(&PARAMS, &witness_exponent());
    WitnessKey = WitnessKey::derive(&PARAMS, &witness_exponent(), (&secret_key().public_key(&PARAMS), &ts_key()));
    PackageSecret = PackageSecret::from_bytes(SECRET);
    SigningKey[&SECRET] = SigningKey::from_bytes(&SECRET);
    // Of the X25519 key the bytes that are not clamped.
    Identity[&SECRET[8..]] = identity();
    SubscriberKeys[&SECRET[8..]] = subscriber_keys();
    Device[&SECRET] = device();
    DeviceRoot[&SECRET] = DeviceRoot::from_bytes(SECRET);
    DerivedSecret = DeviceRoot::from_bytes(SECRET).identity_key(&TORRENT);
    Words[&NUMBERS] = Words::of(&SECRET);
    PublisherKey[&SECRET] = PublisherKey::from_bytes(&SECRET);
    SeedFile[&SECRET] = seed_file();
    KeyFile[b"5ec2e7 of sixteen bytes"] = KeyFile::new("test").with_text("a", "5ec2e7 of sixteen bytes");
    Passphrase[b"correct horse battery"] = Passphrase::new(Zeroizing::new("correct horse battery\n".into())).unwrap();
    VoucherKey[&SECRET] = VoucherKey::from_bytes(&SECRET);
    VoucherCode[VOUCHER.as_bytes()] = VoucherCode::parse(VOUCHER).unwrap();
    License[&SECRET] = license();
    }
    shown {
    // They travel in URLs and headers, whose buffers are other crates'; a new one replaces one that is lost.
    Passkey = api::Passkey::new(*SECRET.first_chunk().unwrap());
    Token = api::Token::new(SECRET);
    Endpoint = channel::Endpoint { address: ([127, 0, 0, 1], 9).into(), token: channel::Token(SECRET) };
    }
}

/// Types that hold a secret without being in the table: with the reason.
const ELSEWHERE: &[(&str, &str)] = &[
    ("Kdf", "private; TsKeys holds one"),
    ("Shared", "private; Passphrase holds it"),
    ("Hasher", "private; a piece to be published, overwritten by its type"),
    ("Typed", "private; a code on the command line, overwritten by its type"),
    ("Secret32", "private; a field of a request, overwritten by its type"),
    ("$name", "the macro of EncryptionKey, ReKey, OpenedKey, DecryptionKey and WitnessKey"),
    ("Choices", "RC4's exponent, which hides a stream's shape and no secret"),
    ("Called", "RC4's keys"),
    ("AdminClient", "a bearer token, for as long as the client lives; a test of its own looks at Debug"),
    ("Key", "a row of the trace verb's table: a key that somebody leaked"),
    ("Observed", "the same on the client's side"),
    ("PolicyState", "keys derived from Device; private; overwritten by their type"),
];

/// Structs of a source file that say they hold what must be overwritten.
fn secret_types(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut current, mut derived) = (None, false);
    for line in source.lines() {
        let code = line.trim_start();
        if code.starts_with("#[cfg(test)]") {
            break;
        }
        derived |= code.starts_with("#[derive(") && code.contains("ZeroizeOnDrop");
        let declared =
            code.split_once("struct ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        let variants =
            code.split_once("enum ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        if let Some((_, rest)) = declared.or(variants) {
            current = rest.split(['(', ' ', '<', '{', ';']).next().map(str::to_owned);
        }
        let holds = derived && declared.is_some()
            || code.contains("Zeroizing<") && !code.contains("fn ") && !code.starts_with("//");
        if let Some(name) = current.clone().filter(|_| holds) {
            found.push(name);
        }
        if declared.is_some() {
            derived = false;
        }
        if line.starts_with('}') || code.starts_with("impl") || code.contains("fn ") {
            current = None;
        }
    }
    found.dedup();
    found
}

#[test]
fn every_type_with_a_secret_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut directories =
        vec![root.join("core-nostd/src"), root.join("net/src"), root.join("accel/capi/src")];
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let Ok(source) = fs::read_to_string(&path) else { continue };
            for name in secret_types(&source) {
                let known = OVERWRITTEN.contains(&&*name)
                    || NOT_OVERWRITTEN.contains(&&*name)
                    || ELSEWHERE.iter().any(|(other, _)| *other == name);
                if !known {
                    missing.push(format!("{name} in {}", path.display()));
                }
                seen.push(name);
            }
        }
    }
    for (name, _) in ELSEWHERE {
        assert!(seen.iter().any(|it| it == name), "{name} is excused and not there");
    }
    assert!(missing.is_empty(), "neither in the table nor excused: {missing:#?}");
}

#[test]
fn key_files_leave_nothing_between_disk_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let digits = hex::encode(SECRET);
    let needles: [&[u8]; 3] = [&SECRET, &SECRET[8..], digits.as_bytes()];
    let left = residues(&needles, || {
        identity().to_key_file().write(&path, Existing::Keep).unwrap();
        let read = Identity::from_key_file(&KeyFile::read(&path, Identity::KIND).unwrap()).unwrap();
        assert_eq!(read.public(), identity().public());
    });
    assert_eq!(left, 0);
    let left = residues(&needles, || {
        device().to_key_file().write(&path, Existing::Replace).unwrap();
        let read = Device::from_key_file(&KeyFile::read(&path, Device::KIND).unwrap()).unwrap();
        drop(black_box(read.subscriber_keys(&PARAMS, &TORRENT)));
        let publisher = PublisherKey::from_bytes(&SECRET);
        let read = KeyFile::parse(publisher.to_key_file().to_text().as_bytes()).unwrap();
        assert_eq!(PublisherKey::from_key_file(&read).unwrap().public(), publisher.public());
    });
    assert_eq!(left, 0);
}

#[test]
fn words_leave_nothing_between_paper_and_key() {
    let text: Vec<&str> = Words::of(&SECRET).iter().collect();
    let text = Zeroizing::new(text.join(" "));
    let left = residues(&[&SECRET, &NUMBERS, text.as_bytes()], || {
        let mut words = Words::default();
        words.add(&text).unwrap();
        assert_eq!(*words.secret().unwrap(), SECRET);
        drop(black_box(Words::of(&SECRET)));
    });
    assert_eq!(left, 0);
}

#[test]
fn voucher_codes_leave_nothing_between_order_and_text() {
    let key = VoucherKey::from_bytes(&SECRET);
    let code = key.code("1", 0, 0, &[2; 32]);
    let text = code.to_text();
    let left = residues(&[code.as_str().as_bytes(), text.as_bytes(), &SECRET], || {
        let made = VoucherKey::from_bytes(&SECRET).code("1", 0, 0, &[2; 32]);
        let read = VoucherCode::parse(&made.to_text()).unwrap();
        assert_eq!(read.checked(&[2; 32]), Ok(made));
        assert!(VoucherCode::parse(&text).unwrap().checked(&[3; 32]).is_err());
    });
    assert_eq!(left, 0);
}

#[test]
fn keys_leave_nothing_when_they_are_sealed_and_opened() {
    let passphrase = || Passphrase::new(Zeroizing::new("correct horse battery".into())).unwrap();
    let left = residues(&[&SECRET, b"correct horse battery"], || {
        let sealed = SealedMaster::seal(3, &SECRET, &passphrase(), &mut UnwrapErr(SysRng)).unwrap();
        let text = sealed.to_key_file().to_text();
        let read = SealedMaster::from_key_file(&KeyFile::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(*read.open(&passphrase()).unwrap(), SECRET);
        let sealed = SealedWitness::seal(TORRENT, &SECRET, &passphrase(), &mut UnwrapErr(SysRng)).unwrap();
        let text = sealed.to_key_file().to_text();
        let read = SealedWitness::from_key_file(&KeyFile::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(*read.open(&passphrase()).unwrap(), SECRET);
        let sealed = SealedVoucherKey::seal(&SECRET, &passphrase(), &mut UnwrapErr(SysRng)).unwrap();
        assert_eq!(*sealed.open(&passphrase()).unwrap(), SECRET);
        let key = PublisherKey::from_bytes(&SECRET);
        let sealed = SealedPublisher::seal(&key, &passphrase(), &mut UnwrapErr(SysRng)).unwrap();
        assert_eq!(sealed.open(&passphrase()).unwrap().public(), key.public());
    });
    assert_eq!(left, 0);
}

#[test]
fn the_witness_leaves_neither_keys_nor_packages() {
    let (params, count) = (&*PARAMS, 9);
    let mut packaged = vec![0x5a; 8 * params.group().bytes()];
    package::pack(params, &PackageSecret::from_bytes([1; 32]), &TORRENT, 0, &mut packaged).unwrap();
    let public = secret_key().public_key(params);
    let (r, w) = (ts_keys().key(0), witness_exponents().exponent(0));
    let needle = |value: &dyn Fn() -> Option<[u8; NEEDLE]>| value().expect("in its own memory");
    let exponent = needle(&|| needle_in(&w));
    let factor = needle(&|| needle_in(&WitnessFactor::derive(params, &w)));
    let key = needle(&|| needle_in(&WitnessKey::derive(params, &w, (&public, &r))));
    let left = residues(&[&packaged, &exponent, &factor, &key], || {
        let (mut words, mut words_g) =
            (vec![0; SubscriberTables::words(params)], vec![0; FixedBase::words(params)]);
        let tables = SubscriberTables::new(params, &public, &mut words).unwrap();
        let table = WitnessTable::new(params, &mut words_g).unwrap();
        let exponents: Vec<_> = (0..count).map(|piece| witness_exponents().exponent(piece)).collect();
        let r: Vec<_> = (0..count).map(|piece| ts_keys().key(piece)).collect();
        let mut factors = Vec::with_capacity(count as usize);
        WitnessFactor::derive_batch(params, &table, &exponents, |_, factor| factors.push(factor));
        let mut keys = Vec::with_capacity(count as usize);
        WitnessKey::derive_batch(params, (&table, &exponents), (&tables, &r), |_, key| keys.push(key));

        let mut witnessed = packaged.clone();
        let hash = witness_hash(params, &factors[0], &mut witnessed).unwrap();
        let mut piece = packaged.clone();
        encrypt_piece(params, &EncryptionKey::derive(params, &public, &r[0]), &mut piece).unwrap();
        check_witness(params, &keys[0], &hash, &piece, &mut vec![0; piece.len()]).unwrap();
    });
    assert_eq!(left, 0);
}

#[test]
fn licenses_leave_nothing_when_they_are_issued_and_opened() {
    let issuer = SigningKey::from_bytes(&[3; 32]);
    let left = residues(&[&SECRET], || {
        let envelope = license().seal(&issuer, &identity().device_public(), &mut UnwrapErr(SysRng)).unwrap();
        let opened = License::open(&envelope, &identity(), &issuer.public()).unwrap();
        assert_eq!(opened.keys.len(), 512);
    });
    assert_eq!(left, 0);
}
