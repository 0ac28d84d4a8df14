//! The witness: what is honest passes, and every kind of corruption is refused.
//!
//! Each kind is tried 1,000 times in each setting, on fresh content; `SWARMSEAL_CORRUPTIONS` is another number.

mod stream;

use rand_core::Rng;
use sha1::{Digest, Sha1};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Error, Exponents, FixedBase, Group, Kernels, KeyCommitment, MasterKey,
    OpenedKey, Params, Profile, PublicKey, ReKey, SecretKey, SubscriberId, SubscriberTables, TorrentId,
    TsKey, TsKeys, WitnessExponent, WitnessExponents, WitnessFactor, WitnessKey, WitnessSecret, WitnessTable,
    check_witness, check_witness_in_place, decrypt_piece, decrypt_piece_with, encrypt_piece,
    re_encrypt_piece, witness_hash,
};

use self::stream::Stream;

const TORRENT: TorrentId = TorrentId([7; 32]);
const OMEGA: [u8; 32] = [8; 32];
/// Blocks of a piece.
const BLOCKS: usize = 4;
/// Pieces, epochs and subscribers with keys of their own.
const PIECES: u32 = 3;
const EPOCHS: u64 = 2;
const SUBSCRIBERS: u64 = 2;

fn params(profile: Profile, group: &str, exponents: Exponents) -> Params {
    Params::new(profile, Group::by_name(group, Kernels::portable()).unwrap(), exponents).unwrap()
}

/// Both profiles, both kinds of exponents, the smallest group that each takes.
fn small() -> [Params; 3] {
    [
        params(Profile::Sealed, "ffdhe2048", Exponents::Short),
        params(Profile::Sealed, "ffdhe2048", Exponents::Full),
        params(Profile::Paper, "prime512", Exponents::Full),
    ]
}

struct Subscriber {
    secret: SecretKey,
    public: PublicKey,
    id: SubscriberId,
}

impl Subscriber {
    fn new(params: &Params, seed: u64) -> Self {
        let secret = SecretKey::generate(params, &mut Stream::new(seed));
        let public = secret.public_key(params);
        let id = SubscriberId::of(&TORRENT, &[1; 32], &KeyCommitment::of(params, &[2; 32], &public));
        Subscriber { secret, public, id }
    }

    fn ts_keys<'p>(&self, params: &'p Params, epoch: u64) -> TsKeys<'p> {
        TsKeys::derive(params, &MasterKey::from_bytes([epoch as u8; 32]), &self.id, epoch)
    }
}

fn exponents(params: &Params) -> WitnessExponents<'_> {
    WitnessExponents::derive(params, &WitnessSecret::from_bytes(OMEGA), &TORRENT)
}

fn encoded(params: &Params, write: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Vec<u8> {
    let mut bytes = vec![0; params.group().bytes()];
    write(&mut bytes).unwrap();
    bytes
}

/// Both ways to check, which must agree.
fn check(params: &Params, key: &WitnessKey, hash: &[u8; 32], piece: &[u8]) -> Result<(), Error> {
    let mut scratch = vec![0; piece.len()];
    let checked = check_witness(params, key, hash, piece, &mut scratch);
    assert_eq!(checked, check_witness_in_place(params, key, hash, &mut piece.to_vec()));
    checked
}

fn below(random: &mut Stream, bound: usize) -> usize {
    random.next_u32() as usize % bound
}

// ---- Corruption ----

/// One of the swarm's keys: whose, of which epoch and of which piece.
#[derive(Clone, Copy, PartialEq)]
struct At {
    subscriber: u64,
    epoch: u64,
    index: u32,
}

impl At {
    fn any(random: &mut Stream) -> Self {
        At {
            subscriber: below(random, SUBSCRIBERS as usize) as u64,
            epoch: 1 + below(random, EPOCHS as usize) as u64,
            index: below(random, PIECES as usize) as u32,
        }
    }

    fn other_subscriber(self) -> Self {
        At { subscriber: (self.subscriber + 1) % SUBSCRIBERS, ..self }
    }

    fn other_epoch(self) -> Self {
        At { epoch: self.epoch % EPOCHS + 1, ..self }
    }

    fn other_piece(self) -> Self {
        At { index: (self.index + 1) % PIECES, ..self }
    }
}

/// A torrent with all keys of its subscribers.
struct World {
    params: Params,
    width: usize,
    factors: Vec<WitnessFactor>,
    keys: Vec<(At, EncryptionKey, WitnessKey)>,
    /// A re-key and its inverse: numbers with which blocks are scaled.
    scale: [ReKey; 2],
    minus_one: ReKey,
}

impl World {
    fn new(params: Params) -> Self {
        let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|seed| Subscriber::new(&params, seed)).collect();
        let exponents: Vec<_> = (0..PIECES).map(|index| exponents(&params).exponent(index)).collect();
        let mut keys = Vec::new();
        for (number, of) in (0..).zip(&subscribers) {
            for epoch in 1..=EPOCHS {
                let ts_keys = of.ts_keys(&params, epoch);
                for (index, w) in (0..).zip(&exponents) {
                    let r = ts_keys.key(index);
                    let encryption = EncryptionKey::derive(&params, &of.public, &r);
                    let witness = WitnessKey::derive(&params, w, (&of.public, &r));
                    keys.push((At { subscriber: number, epoch, index }, encryption, witness));
                }
            }
        }
        let ends = [0, 1].map(|i| (&subscribers[i].public, subscribers[i].ts_keys(&params, 9).key(9)));
        let rekey = |from: usize, to: usize| {
            ReKey::derive(&params, (ends[from].0, &ends[from].1), (ends[to].0, &ends[to].1))
        };
        // p is odd.
        let mut minus_one = encoded(&params, |out| params.group().modulus_be(out));
        *minus_one.last_mut().unwrap() -= 1;
        World {
            width: params.group().bytes(),
            factors: exponents.iter().map(|w| WitnessFactor::derive(&params, w)).collect(),
            keys,
            scale: [rekey(0, 1), rekey(1, 0)],
            minus_one: ReKey::from_bytes(&params, &minus_one).unwrap(),
            params,
        }
    }

    /// A packaged piece of noise.
    fn packaged(&self, random: &mut Stream, index: u32) -> Vec<u8> {
        let mut piece = vec![0; BLOCKS * self.width];
        let payload = self.params.payload_bytes(piece.len());
        random.fill_bytes(&mut piece[..payload]);
        package::pack(&self.params, &PackageSecret::from_bytes([3; 32]), &TORRENT, index, &mut piece)
            .unwrap();
        piece
    }

    fn keys(&self, of: At) -> (&EncryptionKey, &WitnessKey) {
        self.keys
            .iter()
            .find(|(at, ..)| *at == of)
            .map(|(_, encryption, witness)| (encryption, witness))
            .unwrap()
    }

    fn ciphertext(&self, packaged: &[u8], of: At) -> Vec<u8> {
        let mut piece = packaged.to_vec();
        encrypt_piece(&self.params, self.keys(of).0, &mut piece).unwrap();
        piece
    }

    fn hash(&self, packaged: &[u8], index: u32) -> [u8; 32] {
        witness_hash(&self.params, &self.factors[index as usize], &mut packaged.to_vec()).unwrap()
    }

    /// p as it stands in a piece.
    fn p(&self) -> Vec<u8> {
        let mut p = encoded(&self.params, |out| self.params.group().modulus_be(out));
        if self.params.profile() == Profile::Sealed {
            p.reverse();
        }
        p
    }

    fn scale(&self, blocks: &mut [u8], factor: &ReKey) {
        re_encrypt_piece(&self.params, factor, blocks).unwrap();
    }

    /// Numbers in 1 … p−1.
    fn noise(&self, random: &mut Stream, blocks: &mut [u8]) {
        random.fill_bytes(blocks);
        self.scale(blocks, &self.scale[0]);
    }
}

/// What a peer receives, and what it checks that with.
struct Case<'w> {
    world: &'w World,
    at: At,
    /// The piece before encryption.
    packaged: Vec<u8>,
    piece: Vec<u8>,
    key: WitnessKey,
    random: Stream,
}

impl<'w> Case<'w> {
    fn new(world: &'w World, mut random: Stream) -> (Self, [u8; 32]) {
        let at = At::any(&mut random);
        let packaged = world.packaged(&mut random, at.index);
        let (piece, key) = (world.ciphertext(&packaged, at), world.keys(at).1.clone());
        let hash = world.hash(&packaged, at.index);
        (Case { world, at, packaged, piece, key, random }, hash)
    }

    fn below(&mut self, bound: usize) -> usize {
        below(&mut self.random, bound)
    }

    fn block(&mut self, number: usize) -> &mut [u8] {
        &mut self.piece[number * self.world.width..][..self.world.width]
    }

    fn any_block(&mut self) -> &mut [u8] {
        let number = self.below(BLOCKS);
        self.block(number)
    }

    /// Two numbers of different blocks.
    fn two_blocks(&mut self) -> (usize, usize) {
        let first = self.below(BLOCKS);
        (first, (first + 1 + self.below(BLOCKS - 1)) % BLOCKS)
    }

    fn flip_bit(&mut self, bytes: std::ops::Range<usize>) {
        let bit = self.below(bytes.len() * 8);
        self.piece[bytes.start + bit / 8] ^= 1 << (bit % 8);
    }

    /// A block of what another key makes of the same package.
    fn splice(&mut self, from: At) {
        let other = self.world.ciphertext(&self.packaged, from);
        self.splice_from(&other);
    }

    fn splice_from(&mut self, other: &[u8]) {
        let (number, width) = (self.below(BLOCKS), self.world.width);
        self.block(number).copy_from_slice(&other[number * width..][..width]);
    }

    /// All of what another key makes of the same package.
    fn replace(&mut self, with: At) {
        self.piece = self.world.ciphertext(&self.packaged, with);
    }

    /// Another piece of the same subscriber and epoch.
    fn other_piece(&mut self) -> Vec<u8> {
        let at = self.at.other_piece();
        let packaged = self.world.packaged(&mut self.random, at.index);
        self.world.ciphertext(&packaged, at)
    }

    fn key_of(&mut self, at: At) {
        self.key = self.world.keys(at).1.clone();
    }

    fn key_times(&mut self, rekey: &ReKey) {
        self.key = self.key.before(&self.world.params, rekey);
    }
}

type Corruption = fn(&mut Case<'_>);

/// Every kind of corruption. All of them must be refused, whichever step refuses them.
const KINDS: &[(&str, Corruption)] = &[
    ("a bit flipped", |case| case.flip_bit(0..case.piece.len())),
    ("a bit of the first block flipped", |case| case.flip_bit(0..case.world.width)),
    ("a bit of the last block flipped", |case| {
        case.flip_bit((BLOCKS - 1) * case.world.width..BLOCKS * case.world.width);
    }),
    ("a bit of every block flipped", |case| {
        let bit = case.below(case.world.width * 8);
        (0..BLOCKS).for_each(|number| case.block(number)[bit / 8] ^= 1 << (bit % 8));
    }),
    ("a byte replaced", |case| {
        let at = case.below(case.piece.len());
        case.piece[at] = case.piece[at].wrapping_add(1 + case.below(255) as u8);
    }),
    ("a block of noise", |case| {
        let number = case.below(BLOCKS);
        let mut noise = vec![0; case.world.width];
        case.world.noise(&mut case.random, &mut noise);
        case.block(number).copy_from_slice(&noise);
    }),
    ("a piece of noise", |case| case.world.noise(&mut case.random, &mut case.piece)),
    ("two blocks swapped", |case| {
        let ((a, b), width) = (case.two_blocks(), case.world.width);
        (0..width).for_each(|i| case.piece.swap(a * width + i, b * width + i));
    }),
    ("blocks in reverse order", |case| {
        let blocks: Vec<_> = case.piece.chunks(case.world.width).rev().collect();
        case.piece = blocks.concat();
    }),
    ("blocks rotated", |case| {
        let by = 1 + case.below(BLOCKS - 1);
        case.piece.rotate_left(by * case.world.width);
    }),
    ("bytes rotated", |case| {
        let by = 1 + case.below(case.piece.len() - 1);
        case.piece.rotate_left(by);
    }),
    ("a block's bytes in reverse order", |case| case.any_block().reverse()),
    ("a block in the place of another", |case| {
        let (from, to) = case.two_blocks();
        let block = case.block(from).to_vec();
        case.block(to).copy_from_slice(&block);
    }),
    ("a block scaled", |case| {
        let world = case.world;
        world.scale(case.any_block(), &world.scale[0]);
    }),
    ("all blocks scaled", |case| case.world.scale(&mut case.piece, &case.world.scale[0])),
    ("two blocks scaled, their product kept", |case| {
        let (world, (a, b)) = (case.world, case.two_blocks());
        world.scale(case.block(a), &world.scale[0]);
        world.scale(case.block(b), &world.scale[1]);
    }),
    ("a block negated", |case| {
        let world = case.world;
        world.scale(case.any_block(), &world.minus_one);
    }),
    ("all blocks negated", |case| case.world.scale(&mut case.piece, &case.world.minus_one)),
    ("a block of zero", |case| case.any_block().fill(0)),
    ("a block of p", |case| {
        let p = case.world.p();
        case.any_block().copy_from_slice(&p);
    }),
    ("a block of all ones", |case| case.any_block().fill(0xff)),
    ("a block of another piece", |case| {
        let other = case.other_piece();
        case.splice_from(&other);
    }),
    ("a block of another epoch", |case| case.splice(case.at.other_epoch())),
    ("a block of another subscriber", |case| case.splice(case.at.other_subscriber())),
    ("another piece", |case| case.piece = case.other_piece()),
    ("another epoch's ciphertext", |case| case.replace(case.at.other_epoch())),
    ("another subscriber's ciphertext", |case| case.replace(case.at.other_subscriber())),
    ("the same package under another piece's key", |case| case.replace(case.at.other_piece())),
    ("the package itself", |case| case.piece.clone_from(&case.packaged)),
    ("the witness's form", |case| {
        let (params, factor) = (&case.world.params, &case.world.factors[case.at.index as usize]);
        case.piece.clone_from(&case.packaged);
        witness_hash(params, factor, &mut case.piece).unwrap();
    }),
    ("the last block missing", |case| case.piece.truncate((BLOCKS - 1) * case.world.width)),
    ("a block too many", |case| {
        let again = case.any_block().to_vec();
        case.piece.extend(again);
    }),
    ("no whole number of blocks", |case| {
        let length = 1 + case.below(case.world.width - 1);
        case.piece.truncate(case.piece.len() - length);
    }),
    ("nothing", |case| case.piece.clear()),
    ("another piece's key", |case| case.key_of(case.at.other_piece())),
    ("another epoch's key", |case| case.key_of(case.at.other_epoch())),
    ("another subscriber's key", |case| case.key_of(case.at.other_subscriber())),
    ("a key scaled", |case| case.key_times(&case.world.scale[0])),
    ("a key negated", |case| case.key_times(&case.world.minus_one)),
];

fn no_corruption_passes(params: Params) {
    let cases = std::env::var("SWARMSEAL_CORRUPTIONS").map_or(1000, |cases| cases.parse().unwrap());
    let world = World::new(params);
    for (number, (name, corrupt)) in (0..).zip(KINDS) {
        for seed in 0..cases {
            let (mut case, hash) = Case::new(&world, Stream::new(number << 32 | seed));
            let honest = case.piece.clone();
            if seed % 10 == 0 {
                assert_eq!(check(&world.params, &case.key, &hash, &honest), Ok(()));
            }
            corrupt(&mut case);
            let key_bytes = |key: &WitnessKey| encoded(&world.params, |out| key.to_bytes(&world.params, out));
            let changed = case.piece != honest || key_bytes(&case.key) != key_bytes(world.keys(case.at).1);
            assert!(changed, "{name} {seed} changes nothing");
            let refused = check(&world.params, &case.key, &hash, &case.piece);
            assert!(
                matches!(
                    refused,
                    Err(Error::BadBlock { .. } | Error::WitnessMismatch | Error::BadLength { .. })
                ),
                "{name} {seed} passes"
            );
        }
    }
}

macro_rules! settings {
    ($($name:ident = $profile:ident $group:literal $exponents:ident;)*) => {$(
        #[test]
        fn $name() {
            no_corruption_passes(params(Profile::$profile, $group, Exponents::$exponents));
        }
    )*};
}

settings! {
    no_corruption_passes_sealed_2048_short = Sealed "ffdhe2048" Short;
    no_corruption_passes_sealed_2048_full = Sealed "ffdhe2048" Full;
    no_corruption_passes_sealed_3072 = Sealed "ffdhe3072" Short;
    no_corruption_passes_sealed_4096 = Sealed "ffdhe4096" Short;
    no_corruption_passes_paper_512 = Paper "prime512" Full;
    no_corruption_passes_paper_1024 = Paper "modp1024" Full;
    no_corruption_passes_paper_2048 = Paper "ffdhe2048" Full;
}

#[test]
fn blocks_outside_of_the_group_are_refused_by_number() {
    for params in small() {
        let world = World::new(params);
        let sealed = world.params.profile() == Profile::Sealed;
        let (mut case, hash) = Case::new(&world, Stream::new(1));
        let honest = case.piece.clone();
        for block in 0..BLOCKS {
            let bad = |case: &Case<'_>| check(&world.params, &case.key, &hash, &case.piece);
            for bytes in [world.p(), vec![0xff; world.width]] {
                case.block(block).copy_from_slice(&bytes);
                assert_eq!(bad(&case), Err(Error::BadBlock { block }));
            }
            case.block(block).fill(0);
            let zero = if sealed { Error::BadBlock { block } } else { Error::WitnessMismatch };
            assert_eq!(bad(&case), Err(zero));
            case.piece.clone_from(&honest);
        }
    }
}

#[test]
fn what_is_congruent_is_refused_before_it_is_hashed() {
    for params in small() {
        let world = World::new(params);
        let at = At { subscriber: 0, epoch: 1, index: 0 };
        // Ciphertext with a block so small that p can be added to it, and what it is the ciphertext of.
        let mut piece = world.ciphertext(&world.packaged(&mut Stream::new(2), 0), at);
        let block = 2;
        let small = &mut piece[block * world.width..][..world.width];
        small.fill(0);
        let little_endian = world.params.profile() == Profile::Sealed;
        small[if little_endian { 0 } else { world.width - 1 }] = 1;
        let subscriber = Subscriber::new(&world.params, at.subscriber);
        let r = subscriber.ts_keys(&world.params, at.epoch).key(at.index);
        let opened = OpenedKey::derive(&world.params, &subscriber.public, &r);
        let mut packaged = piece.clone();
        decrypt_piece_with(&world.params, &opened, &mut packaged).unwrap();
        let (key, hash) = (world.keys(at).1, world.hash(&packaged, at.index));
        assert_eq!(check(&world.params, key, &hash, &piece), Ok(()));

        // p ends in 64 one bits, so that 1 + p has a carry.
        let mut congruent = encoded(&world.params, |out| world.params.group().modulus_be(out));
        for byte in congruent.iter_mut().rev() {
            let carry;
            (*byte, carry) = byte.overflowing_add(1);
            if !carry {
                break;
            }
        }
        if little_endian {
            congruent.reverse();
        }
        let mut added = piece.clone();
        added[block * world.width..][..world.width].copy_from_slice(&congruent);
        // T makes the same of it,
        let [mut of_piece, mut of_added] = [piece, added.clone()];
        world.scale(&mut of_piece, &world.scale[0]);
        world.scale(&mut of_added, &world.scale[0]);
        assert_eq!(of_piece, of_added);
        // but the check looks at the block first.
        assert_eq!(check(&world.params, key, &hash, &added), Err(Error::BadBlock { block }));
    }
}

#[test]
fn a_zero_block_is_honest_under_paper_and_p_in_its_place_is_not() {
    let world = World::new(params(Profile::Paper, "prime512", Exponents::Full));
    let at = At { subscriber: 0, epoch: 1, index: 0 };
    let mut packaged = world.packaged(&mut Stream::new(3), 0);
    packaged[world.width..2 * world.width].fill(0);
    let (mut piece, hash) = (world.ciphertext(&packaged, at), world.hash(&packaged, 0));
    assert_eq!(check(&world.params, world.keys(at).1, &hash, &piece), Ok(()));
    piece[world.width..2 * world.width].copy_from_slice(&world.p());
    assert_eq!(check(&world.params, world.keys(at).1, &hash, &piece), Err(Error::BadBlock { block: 1 }));
}

#[test]
fn a_lying_tracker_s_scaled_pair_passes_and_is_refused_by_the_player() {
    for params in small() {
        let world = World::new(params);
        let (mut case, hash) = Case::new(&world, Stream::new(4));
        // Its helper sends c/λ; the tracker gives λu to the victim.
        world.scale(&mut case.piece, &world.scale[1]);
        assert_eq!(check(&world.params, &case.key, &hash, &case.piece), Err(Error::WitnessMismatch));
        case.key_times(&world.scale[0]);
        assert_eq!(check(&world.params, &case.key, &hash, &case.piece), Ok(()));
        let victim = Subscriber::new(&world.params, case.at.subscriber);
        let r = victim.ts_keys(&world.params, case.at.epoch).key(case.at.index);
        let entry = DecryptionKey::derive(&world.params, &r);
        let mut opened = case.piece;
        decrypt_piece(&world.params, &victim.secret, &entry, &mut opened).unwrap();
        assert_ne!(Sha1::digest(&opened), Sha1::digest(&case.packaged));
        // The honest piece has the published SHA-1.
        let mut opened = world.ciphertext(&case.packaged, case.at);
        decrypt_piece(&world.params, &victim.secret, &entry, &mut opened).unwrap();
        assert_eq!(Sha1::digest(&opened), Sha1::digest(&case.packaged));
    }
}

// ---- Keys ----

#[test]
fn keys_by_tables_and_in_batches_are_those_of_single_calls() {
    for params in &small() {
        let subscriber = Subscriber::new(params, 5);
        let (ts_keys, exponents) = (subscriber.ts_keys(params, 1), exponents(params));
        let r: Vec<TsKey> = (0..19).map(|piece| ts_keys.key(piece)).collect();
        let w: Vec<WitnessExponent> = (0..19).map(|piece| exponents.exponent(piece)).collect();
        let (mut words, mut words_g) =
            (vec![0; SubscriberTables::words(params)], vec![0; FixedBase::words(params)]);
        let tables = SubscriberTables::new(params, &subscriber.public, &mut words).unwrap();
        WitnessTable::new(params, &mut words_g).unwrap();
        let wrong = Error::BadLength { expected: words_g.len(), found: words_g.len() - 1 };
        assert_eq!(WitnessTable::from_words(params, &words_g[1..]).unwrap_err(), wrong);
        let table = WitnessTable::from_words(params, &words_g).unwrap();

        let key = |key: &WitnessKey| encoded(params, |out| key.to_bytes(params, out));
        let factor = |factor: &WitnessFactor| encoded(params, |out| factor.to_bytes(params, out));
        let single: Vec<_> = w
            .iter()
            .zip(&r)
            .map(|(w, r)| key(&WitnessKey::derive(params, w, (&subscriber.public, r))))
            .collect();
        let factors: Vec<_> = w.iter().map(|w| factor(&WitnessFactor::derive(params, w))).collect();
        for (i, expected) in single.iter().enumerate() {
            assert_eq!(&key(&WitnessKey::derive_with(params, (&table, &w[i]), (&tables, &r[i]))), expected);
            assert_eq!(&key(&WitnessKey::from_bytes(params, expected).unwrap()), expected);
        }
        for count in [0, 1, 7, 8, 9, 19] {
            let (mut keys, mut batch) = (Vec::new(), Vec::new());
            WitnessKey::derive_batch(params, (&table, &w[..count]), (&tables, &r[..count]), |i, u| {
                assert_eq!(i, keys.len());
                keys.push(key(&u));
            });
            assert_eq!(keys, single[..count]);
            WitnessFactor::derive_batch(params, &table, &w[..count], |i, v| {
                assert_eq!(i, batch.len());
                batch.push(factor(&v));
            });
            assert_eq!(batch, factors[..count]);
        }
    }
}

#[test]
fn a_key_through_a_rekey_is_the_direct_one() {
    for params in &small() {
        let [j, k] = [6, 7].map(|seed| Subscriber::new(params, seed));
        let w = exponents(params).exponent(4);
        let r = |of: &Subscriber, epoch| of.ts_keys(params, epoch).key(4);
        let key = |key: &WitnessKey| encoded(params, |out| key.to_bytes(params, out));
        // From an uploader's ciphertext to the downloader's, and from one's own of an epoch to that of the next.
        for ((from, old), (to, new)) in [((&j, 1), (&k, 1)), ((&j, 1), (&j, 2)), ((&j, 1), (&k, 2))] {
            let (r_from, r_to) = (r(from, old), r(to, new));
            let rekey = ReKey::derive(params, (&from.public, &r_from), (&to.public, &r_to));
            let of_new = WitnessKey::derive(params, &w, (&to.public, &r_to));
            let of_old = WitnessKey::derive(params, &w, (&from.public, &r_from));
            assert_eq!(key(&of_new.before(params, &rekey)), key(&of_old));
            assert_ne!(key(&of_new), key(&of_old));
        }
    }
}

#[test]
fn exponents_depend_on_every_input() {
    for params in &small() {
        let factor = |secret: u8, torrent: u8, piece: u32| {
            let secret = WitnessSecret::from_bytes([secret; 32]);
            let w = WitnessExponents::derive(params, &secret, &TorrentId([torrent; 32])).exponent(piece);
            encoded(params, |out| WitnessFactor::derive(params, &w).to_bytes(params, out))
        };
        let factors = [factor(1, 1, 1), factor(2, 1, 1), factor(1, 2, 1), factor(1, 1, 2)];
        for (i, factor) in factors.iter().enumerate() {
            assert!(!factors[..i].contains(factor));
        }
    }
}

#[test]
fn a_witness_key_opens_nothing_and_a_license_makes_it_the_factor() {
    for params in small() {
        let world = World::new(params);
        let (case, _) = Case::new(&world, Stream::new(8));
        let params = &world.params;
        let u = encoded(params, |out| case.key.to_bytes(params, out));
        // A subscriber without a license holds u, its own ciphertext, and the witness's form that both make.
        let mut witnessed = case.piece.clone();
        world.scale(&mut witnessed, &ReKey::from_bytes(params, &u).unwrap());
        for held in [&case.piece, &witnessed] {
            let mut opened = held.clone();
            decrypt_piece_with(params, &OpenedKey::from_bytes(params, &u).unwrap(), &mut opened).unwrap();
            assert_ne!(opened, case.packaged);
        }
        // K and u give V = u K, the witness's key in every epoch.
        let mut factor = encoded(params, |out| world.keys(case.at).0.to_bytes(params, out));
        if params.profile() == Profile::Sealed {
            factor.reverse();
        }
        world.scale(&mut factor, &ReKey::from_bytes(params, &u).unwrap());
        if params.profile() == Profile::Sealed {
            factor.reverse();
        }
        let expected = &world.factors[case.at.index as usize];
        assert_eq!(factor, encoded(params, |out| expected.to_bytes(params, out)));
    }
}

#[test]
fn lengths_are_checked() {
    for params in small() {
        let world = World::new(params);
        let (case, hash) = Case::new(&world, Stream::new(9));
        let mut scratch = vec![0; case.piece.len() - 1];
        let short = Error::BadLength { expected: case.piece.len(), found: scratch.len() };
        assert_eq!(check_witness(&world.params, &case.key, &hash, &case.piece, &mut scratch), Err(short));
        let odd = Error::BadLength { expected: world.width, found: case.piece.len() - 1 };
        assert_eq!(check(&world.params, &case.key, &hash, &case.piece[1..]), Err(odd));
        let factor = &world.factors[0];
        assert_eq!(witness_hash(&world.params, factor, &mut case.packaged.clone()[1..]), Err(odd));
    }
}
