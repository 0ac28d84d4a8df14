//! The laws of the scheme, on random keys and pieces: T turns one ciphertext into the other, in any number of steps, and
//! PDec undoes them all.

mod stream;

use std::sync::OnceLock;

use proptest::prelude::*;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, DeviceRoot, EncryptionKey, Error, Exponents, Group, Kernels, KeyCommitment, MasterKey,
    OpenedKey, Params, Profile, Proof, PublicKey, ReKey, SecretKey, SubscriberId, SubscriberTables,
    TorrentId, TsKey, TsKeys, check_piece, decrypt_piece, decrypt_piece_with, encrypt_piece,
    have_one_multiplier, re_encrypt_piece,
};

use self::stream::Stream;

/// Every profile with every group that it takes, short and full exponents.
fn all_params() -> &'static [Params] {
    static ALL: OnceLock<Vec<Params>> = OnceLock::new();
    ALL.get_or_init(|| {
        Group::names()
            .flat_map(|name| {
                let group = Group::by_name(name, Kernels::portable()).unwrap();
                [Profile::Paper, Profile::Sealed].into_iter().flat_map(move |profile| {
                    let group = group.clone();
                    [Exponents::Short, Exponents::Full]
                        .into_iter()
                        .filter_map(move |exponents| Params::new(profile, group.clone(), exponents).ok())
                })
            })
            .collect()
    })
}

struct Subscriber {
    secret: SecretKey,
    public: PublicKey,
    id: SubscriberId,
    r: TsKey,
}

const TORRENT: TorrentId = TorrentId([7; 32]);

fn subscriber(params: &Params, seed: u64, piece: u32) -> Subscriber {
    let secret = SecretKey::generate(params, &mut Stream::new(seed));
    let public = secret.public_key(params);
    let id = SubscriberId::of(&TORRENT, &[1; 32], &KeyCommitment::of(params, &[2; 32], &public));
    let r = TsKeys::derive(params, &MasterKey::from_bytes([9; 32]), &id, 1).key(piece);
    Subscriber { secret, public, id, r }
}

/// A packaged piece of `blocks` blocks, and its payload.
fn packaged(params: &Params, seed: u64, blocks: usize, index: u32) -> (Vec<u8>, Vec<u8>) {
    let mut piece = vec![0; blocks * params.group().bytes()];
    let payload = params.payload_bytes(piece.len());
    Stream::new(seed).fill_bytes(&mut piece[..payload]);
    let plain = piece[..payload].to_vec();
    package::pack(params, &PackageSecret::from_bytes([3; 32]), &TORRENT, index, &mut piece).unwrap();
    (piece, plain)
}

fn rekey(params: &Params, from: &Subscriber, to: &Subscriber) -> ReKey {
    ReKey::derive(params, (&from.public, &from.r), (&to.public, &to.r))
}

fn encrypted(params: &Params, piece: &[u8], to: &Subscriber) -> Vec<u8> {
    let mut out = piece.to_vec();
    encrypt_piece(params, &EncryptionKey::derive(params, &to.public, &to.r), &mut out).unwrap();
    out
}

#[test]
fn sealed_takes_rfc_7919_groups_only() {
    let sealed: Vec<_> = all_params()
        .iter()
        .filter(|params| params.profile() == Profile::Sealed)
        .map(|params| params.group().name().unwrap())
        .collect();
    assert_eq!(sealed, ["ffdhe2048", "ffdhe2048", "ffdhe3072", "ffdhe3072", "ffdhe4096", "ffdhe4096"]);
    let group = Group::modp1536(Kernels::portable());
    assert_eq!(Params::new(Profile::Sealed, group, Exponents::Full).unwrap_err(), Error::GroupNotSealed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn t_of_one_ciphertext_is_the_other_and_pdec_opens_it(seed: u64, blocks in 3usize..6, index: u32) {
        for params in all_params() {
            let (j, k) = (subscriber(params, seed, index), subscriber(params, seed ^ 1, index));
            let (piece, plain) = packaged(params, seed, blocks, index);
            let mut moved = encrypted(params, &piece, &j);
            prop_assert_ne!(&moved, &piece);
            re_encrypt_piece(params, &rekey(params, &j, &k), &mut moved).unwrap();
            prop_assert_eq!(&moved, &encrypted(params, &piece, &k));
            check_piece(params, &moved).unwrap();
            let mut by_tracker = moved.clone();
            decrypt_piece_with(params, &OpenedKey::derive(params, &k.public, &k.r), &mut by_tracker).unwrap();
            prop_assert_eq!(by_tracker, &piece[..]);
            decrypt_piece(params, &k.secret, &DecryptionKey::derive(params, &k.r), &mut moved).unwrap();
            prop_assert_eq!(&moved, &piece);
            let len = package::unpack(params, &mut moved).unwrap();
            prop_assert_eq!(&moved[..len], &plain[..]);
        }
    }

    #[test]
    fn a_chain_of_t_ends_where_the_direct_way_ends(seed: u64, length in 2usize..9) {
        for params in all_params().iter().filter(|params| params.group().bits() <= 2048) {
            let peers: Vec<_> = (0..length as u64).map(|i| subscriber(params, seed.wrapping_add(i), 0)).collect();
            let (piece, _) = packaged(params, seed, 3, 0);
            let mut moved = encrypted(params, &piece, &peers[0]);
            for pair in peers.windows(2) {
                re_encrypt_piece(params, &rekey(params, &pair[0], &pair[1]), &mut moved).unwrap();
            }
            prop_assert_eq!(&moved, &encrypted(params, &piece, &peers[length - 1]));
            // And back to the first in one step.
            re_encrypt_piece(params, &rekey(params, &peers[length - 1], &peers[0]), &mut moved).unwrap();
            prop_assert_eq!(moved, encrypted(params, &piece, &peers[0]));
        }
    }

    #[test]
    fn tables_give_what_plain_exponentiation_gives(seed: u64) {
        for params in all_params() {
            let (j, k) = (subscriber(params, seed, 5), subscriber(params, seed ^ 1, 5));
            let width = params.group().bytes();
            let (mut words_j, mut words_k) = (vec![0; SubscriberTables::words(params)], vec![0; SubscriberTables::words(params)]);
            let tables_j = SubscriberTables::new(params, &j.public, &mut words_j).unwrap();
            let tables_k = SubscriberTables::new(params, &k.public, &mut words_k).unwrap();
            let (mut plain, mut tabled) = (vec![0; width], vec![0; width]);
            rekey(params, &j, &k).to_bytes(params, &mut plain).unwrap();
            ReKey::derive_with(params, (&tables_j, &j.r), (&tables_k, &k.r)).to_bytes(params, &mut tabled).unwrap();
            prop_assert_eq!(&plain, &tabled);
            EncryptionKey::derive(params, &j.public, &j.r).to_bytes(params, &mut plain).unwrap();
            EncryptionKey::derive_with(params, &tables_j, &j.r).to_bytes(params, &mut tabled).unwrap();
            prop_assert_eq!(&plain, &tabled);
            let mut words = vec![0; swarmseal_core::FixedBase::words(params)];
            let table = DecryptionKey::table(params, &mut words).unwrap();
            DecryptionKey::derive(params, &j.r).to_bytes(params, &mut plain).unwrap();
            DecryptionKey::derive_with(params, &table, &j.r).to_bytes(params, &mut tabled).unwrap();
            prop_assert_eq!(&plain, &tabled);
        }
    }

    #[test]
    fn batches_give_what_single_calls_give(seed: u64, count in 0_usize..19) {
        // Under `sealed` exponents are short; the small groups of `paper` have full ones.
        for params in all_params().iter().filter(|params| params.group().bits() <= 2048) {
            let (j, k) = (subscriber(params, seed, 0), subscriber(params, seed ^ 1, 0));
            let master = MasterKey::from_bytes([seed as u8; 32]);
            let keys = |of: &Subscriber| -> Vec<TsKey> {
                let keys = TsKeys::derive(params, &master, &of.id, 0);
                (0..count as u32).map(|piece| keys.key(piece)).collect()
            };
            let (r_j, r_k) = (keys(&j), keys(&k));
            let (mut words_j, mut words_k) = (vec![0; SubscriberTables::words(params)], vec![0; SubscriberTables::words(params)]);
            let tables_j = SubscriberTables::new(params, &j.public, &mut words_j).unwrap();
            let tables_k = SubscriberTables::new(params, &k.public, &mut words_k).unwrap();
            let mut words = vec![0; swarmseal_core::FixedBase::words(params)];
            let table = DecryptionKey::table(params, &mut words).unwrap();
            let encoded = |write: &dyn Fn(&mut [u8]) -> Result<(), Error>| {
                let mut bytes = vec![0; params.group().bytes()];
                write(&mut bytes).unwrap();
                bytes
            };
            let mut seen = 0;
            ReKey::derive_batch(params, (&tables_j, &r_j), (&tables_k, &r_k), |i, key| {
                let single = ReKey::derive(params, (&j.public, &r_j[i]), (&k.public, &r_k[i]));
                assert_eq!(encoded(&|out| key.to_bytes(params, out)), encoded(&|out| single.to_bytes(params, out)));
                assert_eq!(i, seen);
                seen += 1;
            });
            EncryptionKey::derive_batch(params, &tables_j, &r_j, |i, key| {
                let single = EncryptionKey::derive(params, &j.public, &r_j[i]);
                assert_eq!(encoded(&|out| key.to_bytes(params, out)), encoded(&|out| single.to_bytes(params, out)));
                seen += 1;
            });
            let mut entries = Vec::new();
            DecryptionKey::derive_batch(params, &table, &r_j, |_, key| entries.push(key));
            DecryptionKey::open_batch(params, &j.secret, &entries, |i, opened| {
                let single = DecryptionKey::derive(params, &r_j[i]).open(params, &j.secret);
                assert_eq!(encoded(&|out| opened.to_bytes(params, out)), encoded(&|out| single.to_bytes(params, out)));
                seen += 1;
            });
            prop_assert_eq!(seen, 3 * count);
        }
    }

    #[test]
    fn public_keys_in_a_batch_are_judged_one_by_one(seed: u64, count in 0_usize..40, bad in 0_usize..40) {
        let params = &all_params()[0];
        let width = params.group().bytes();
        let keys: Vec<PublicKey> = (0..3).map(|i| subscriber(params, seed ^ i, 0).public).collect();
        let mut bytes = vec![0; count * width];
        for (i, encoding) in bytes.chunks_exact_mut(width).enumerate() {
            keys[i % 3].to_bytes(params, encoding).unwrap();
            if i == bad {
                encoding.fill(0);
                encoding[width - 1] = 1;
            }
        }
        PublicKey::from_checked_bytes_batch(params, &bytes, |i, key| {
            assert_eq!(key, if i == bad { Err(Error::BadPublicKey) } else { Ok(keys[i % 3].clone()) });
        }).unwrap();
        let mut seen = 0;
        PublicKey::from_bytes_batch(params, &bytes, |i, key| {
            assert_eq!(i, seen);
            assert_eq!(key, if i == bad { Err(Error::BadPublicKey) } else { Ok(keys[i % 3].clone()) });
            seen += 1;
        }).unwrap();
        prop_assert_eq!(seen, count);
        bytes.push(0);
        prop_assert!(PublicKey::from_bytes_batch(params, &bytes, |_, _| ()).is_err());
    }

    #[test]
    fn keys_and_proofs_survive_their_encodings(seed: u64) {
        for params in all_params().iter().filter(|params| params.group().bits() <= 2048) {
            let j = subscriber(params, seed, 0);
            let mut bytes = vec![0; params.group().bytes()];
            j.secret.to_bytes(params, &mut bytes).unwrap();
            prop_assert_eq!(&SecretKey::from_bytes(params, &bytes).unwrap().public_key(params), &j.public);
            j.public.to_bytes(params, &mut bytes).unwrap();
            prop_assert_eq!(&PublicKey::from_bytes(params, &bytes).unwrap(), &j.public);
            let statement: [&[u8]; 2] = [b"torrent", b"nonce"];
            let proof = Proof::prove(params, &j.secret, &j.public, &statement, &mut Stream::new(seed));
            let mut bytes = vec![0; Proof::encoded_len(params)];
            proof.to_bytes(params, &mut bytes).unwrap();
            let proof = Proof::from_bytes(params, &bytes).unwrap();
            prop_assert_eq!(proof.verify(params, &j.public, &statement), Ok(()));
            prop_assert_eq!(proof.verify(params, &j.public, &[b"torrentn", b"once"]), Err(Error::BadProof));
            let stranger = subscriber(params, !seed, 0);
            prop_assert_eq!(proof.verify(params, &stranger.public, &statement), Err(Error::BadProof));
            let at = (seed % bytes.len() as u64) as usize;
            bytes[at] ^= 1;
            let forged = Proof::from_bytes(params, &bytes).unwrap();
            prop_assert_eq!(forged.verify(params, &j.public, &statement), Err(Error::BadProof));
        }
    }

    #[test]
    fn ts_keys_depend_on_every_input(seed: u64) {
        let params = &all_params()[0];
        let [j, k] = [seed, seed ^ 1].map(|seed| subscriber(params, seed, 0).id);
        let key = |master: u8, id: SubscriberId, epoch: u64, piece: u32| {
            let r = TsKeys::derive(params, &MasterKey::from_bytes([master; 32]), &id, epoch).key(piece);
            let mut out = vec![0; params.group().bytes()];
            DecryptionKey::derive(params, &r).to_bytes(params, &mut out).unwrap();
            out
        };
        let keys = [key(1, j, 1, 1), key(2, j, 1, 1), key(1, k, 1, 1), key(1, j, 2, 1), key(1, j, 1, 2)];
        for (i, other) in keys.iter().enumerate() {
            prop_assert!(!keys[..i].contains(other));
        }
    }
}

#[test]
fn ids_depend_on_every_input() {
    let params = &all_params()[0];
    let [y, y_other] = [1, 2].map(|seed| subscriber(params, seed, 0).public);
    let id = |publisher: u8, random: u8, identity: u8, device: u8, y: &PublicKey| {
        let torrent = TorrentId::of(&[publisher; 32], &[random; 32]);
        SubscriberId::of(&torrent, &[identity; 32], &KeyCommitment::of(params, &[device; 32], y))
    };
    let torrent = TorrentId::of(&[0; 32], &[0; 32]);
    let ids = [
        id(0, 0, 0, 0, &y),
        id(1, 0, 0, 0, &y),
        id(0, 1, 0, 0, &y),
        id(0, 0, 1, 0, &y),
        id(0, 0, 0, 1, &y),
        id(0, 0, 0, 0, &y_other),
        SubscriberId::of_seed(&torrent, &[0; 32]),
        SubscriberId::of_seed(&torrent, &[1; 32]),
        SubscriberId::of_seed(&TorrentId::of(&[0; 32], &[1; 32]), &[0; 32]),
    ];
    for (i, id) in ids.iter().enumerate() {
        assert!(!ids[..i].contains(id), "{i}");
    }
}

#[test]
fn what_a_device_root_gives_depends_on_every_input() {
    let torrents = [1, 2].map(|random| TorrentId::of(&[0; 32], &[random; 32]));
    let roots = [1, 2].map(|byte| DeviceRoot::from_bytes([byte; 32]));
    let mut found = Vec::new();
    for root in &roots {
        for torrent in &torrents {
            found.push(*root.identity_key(torrent).as_bytes());
            found.push(*root.device_key(torrent).as_bytes());
        }
        // A publisher's key of the same bytes as a torrent's id gives another key.
        found.extend(torrents.map(|torrent| *root.seat_key(&torrent.0).as_bytes()));
    }
    for (i, secret) in found.iter().enumerate() {
        assert!(!found[..i].contains(secret), "{i}");
    }

    // s is one for both kinds of exponents, which concern r alone.
    let mut secrets = Vec::new();
    for params in all_params().iter().filter(|params| params.exponents() == Exponents::Full) {
        let mut bytes = vec![0; params.group().bytes()];
        for (root, torrent) in [(0, 0), (0, 1), (1, 0)] {
            roots[root].secret_key(params, &torrents[torrent]).to_bytes(params, &mut bytes).unwrap();
            SecretKey::from_bytes(params, &bytes).unwrap();
            let significant: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).take(24).collect();
            assert!(!secrets.contains(&significant), "{} {}", params.profile(), params.group().bits());
            secrets.push(significant);
        }
        let short = Params::new(params.profile(), params.group().clone(), Exponents::Short).unwrap();
        let mut same = vec![0; bytes.len()];
        roots[1].secret_key(&short, &torrents[0]).to_bytes(&short, &mut same).unwrap();
        assert_eq!(same, bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_flipped_bit_destroys_a_package(seed: u64, blocks in 3usize..6, flip: prop::sample::Index) {
        let params = all_params().iter().find(|params| params.profile() == Profile::Sealed).unwrap();
        let (piece, plain) = packaged(params, seed, blocks, 0);
        let mut flipped = piece.clone();
        let bit = flip.index(piece.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        let len = package::unpack(params, &mut flipped).unwrap();
        // Of every 64 bytes of the payload, hardly one survives.
        let survivors = flipped[..len].iter().zip(&plain).filter(|(a, b)| a == b).count();
        prop_assert!(survivors < len / 8, "{survivors} of {len} bytes survive");
    }

    #[test]
    fn unpacking_undoes_packing_at_every_size(seed: u64, blocks in 1usize..9, index: u32) {
        for params in all_params().iter().filter(|params| params.group().bits() <= 1024 || params.group().name() == Some("ffdhe2048")) {
            let (mut piece, plain) = packaged(params, seed, blocks, index);
            let len = package::unpack(params, &mut piece).unwrap();
            prop_assert_eq!(&piece[..len], &plain[..]);
        }
    }
}

#[test]
fn zero_stays_zero_and_lengths_are_checked() {
    for params in all_params() {
        let j = subscriber(params, 1, 0);
        let key = EncryptionKey::derive(params, &j.public, &j.r);
        let width = params.group().bytes();
        let mut zeros = vec![0; 2 * width];
        encrypt_piece(params, &key, &mut zeros).unwrap();
        assert_eq!(zeros, vec![0; 2 * width]);
        let sealed = params.profile() == Profile::Sealed;
        assert_eq!(check_piece(params, &zeros).is_err(), sealed);
        let wrong = Error::BadLength { expected: width, found: 2 * width - 1 };
        assert_eq!(encrypt_piece(params, &key, &mut zeros[1..]), Err(wrong));
        assert_eq!(check_piece(params, &zeros[1..]), Err(wrong));
        assert_eq!(package::unpack(params, &mut zeros[1..]), Err(wrong));
        assert_eq!(check_piece(params, &vec![0xff; width]), Err(Error::BadBlock { block: 0 }));
    }
}

#[test]
fn blocks_beyond_p_come_out_reduced() {
    for params in all_params() {
        let j = subscriber(params, 2, 0);
        let key = EncryptionKey::derive(params, &j.public, &j.r);
        let width = params.group().bytes();
        let mut p = vec![0; width];
        params.group().modulus_be(&mut p).unwrap();
        if params.profile() == Profile::Sealed {
            p.reverse();
        }
        // p itself is zero mod p.
        encrypt_piece(params, &key, &mut p).unwrap();
        assert_eq!(p, vec![0; width]);
        let mut ones = vec![0xff; width];
        encrypt_piece(params, &key, &mut ones).unwrap();
        check_piece(params, &ones).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn ciphertext_and_content_give_the_key(seed: u64, index in 0_u32..5, flip: u8) {
        for params in all_params().iter().filter(|params| params.profile() == Profile::Sealed) {
            let width = params.group().bytes();
            let block = |piece: &[u8], at: usize| piece[at * width..][..width].to_vec();
            let (plain, _) = packaged(params, seed, 4, index);
            let j = subscriber(params, seed, index);
            let mut piece = encrypted(params, &plain, &j);
            let encoded = |key: &EncryptionKey| {
                let mut bytes = vec![0; width];
                key.to_bytes(params, &mut bytes).unwrap();
                bytes
            };
            let expected = encoded(&EncryptionKey::derive(params, &j.public, &j.r));
            let agree = |plain: &[u8], piece: &[u8], a: usize, b: usize| {
                let (m, c) = ([block(plain, a), block(plain, b)], [block(piece, a), block(piece, b)]);
                have_one_multiplier(params, [&m[0], &m[1]], [&c[0], &c[1]])
            };
            for at in 0..4 {
                let key = EncryptionKey::observe(params, &block(&plain, at), &block(&piece, at)).unwrap();
                prop_assert_eq!(encoded(&key), expected.clone());
                prop_assert_eq!(agree(&plain, &piece, at, (at + 1) % 4), Ok(true));
            }
            // Another piece of the same content, and a block that was changed.
            let (other, _) = packaged(params, seed, 4, index + 1);
            prop_assert_eq!(agree(&other, &piece, 0, 1), Ok(false));
            piece[2 * width + 7] ^= flip | 1;
            prop_assert_eq!((agree(&plain, &piece, 0, 1), agree(&plain, &piece, 1, 2)), (Ok(true), Ok(false)));
            // What is no element, or no block.
            let zero = vec![0; width];
            let refused = EncryptionKey::observe(params, &zero, &block(&piece, 0));
            prop_assert_eq!(refused.unwrap_err(), Error::NotAnElement);
            let refused = EncryptionKey::observe(params, &block(&plain, 0), &vec![0xFF; width]);
            prop_assert_eq!(refused.unwrap_err(), Error::NotAnElement);
            let short = EncryptionKey::observe(params, &plain[..7], &block(&piece, 0));
            prop_assert_eq!(short.unwrap_err(), Error::BadLength { expected: width, found: 7 });
        }
    }

    #[test]
    fn keys_of_several_subscribers_are_those_of_each(seed: u64, count in 0_usize..20) {
        let params = &all_params()[0];
        let all: Vec<Subscriber> = (0..count as u64).map(|n| subscriber(params, seed ^ n, 3)).collect();
        let parties: Vec<_> = all.iter().map(|j| (&j.public, j.r.clone())).collect();
        let encoded = |key: &EncryptionKey| {
            let mut bytes = vec![0; params.group().bytes()];
            key.to_bytes(params, &mut bytes).unwrap();
            bytes
        };
        let mut seen = 0;
        EncryptionKey::derive_each(params, &parties, |i, key| {
            let single = EncryptionKey::derive(params, &all[i].public, &all[i].r);
            assert_eq!((i, encoded(&key)), (seen, encoded(&single)));
            seen += 1;
        });
        prop_assert_eq!(seen, count);
    }
}
