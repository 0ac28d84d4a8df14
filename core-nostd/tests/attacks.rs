//! What breaks the paper's encoding, or a scheme with one part left out, and does not break a sealed piece: each attack is carried out
//! on both. The attacker's arithmetic is crypto-bigint's. The lattice attack is in `attacks/` beside this folder.

mod stream;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U4096};
use rand_core::Rng;
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    DecryptionKey, EncryptionKey, Error, Exponents, Group, Kernels, KeyCommitment, MasterKey, OpenedKey,
    Params, Profile, PublicKey, ReKey, SecretKey, SubscriberId, TorrentId, TsKey, TsKeys, decrypt_piece,
    decrypt_piece_with, encrypt_piece, re_encrypt_piece,
};

use self::stream::Stream;

const TORRENT: TorrentId = TorrentId([7; 32]);
const MASTER: [u8; 32] = [9; 32];
const BLOCKS: usize = 8;

/// A torrent under attack, with what its attacker computes with.
struct Target {
    params: Params,
    modulus: Odd<U4096>,
    monty: FixedMontyParams<{ U4096::LIMBS }>,
    width: usize,
}

/// A subscriber: s, y and W bytes of each.
struct Subscriber {
    secret: SecretKey,
    public: PublicKey,
    s: U4096,
}

impl Target {
    fn new(profile: Profile) -> Self {
        let name = if profile == Profile::Paper { "modp1024" } else { "ffdhe2048" };
        let group = Group::by_name(name, Kernels::portable()).unwrap();
        let params = Params::new(profile, group, Exponents::Short).unwrap();
        let width = params.group().bytes();
        let mut p = vec![0; width];
        params.group().modulus_be(&mut p).unwrap();
        let modulus = Odd::new(from_be(&p)).into_option().unwrap();
        Target { modulus, monty: FixedMontyParams::new_vartime(modulus), params, width }
    }

    fn subscriber(&self, seed: u64) -> Subscriber {
        let secret = SecretKey::generate(&self.params, &mut Stream::new(seed));
        let mut s = vec![0; self.width];
        secret.to_bytes(&self.params, &mut s).unwrap();
        Subscriber { public: secret.public_key(&self.params), s: from_be(&s), secret }
    }

    /// A packaged piece of that content.
    fn packaged(&self, content: &[u8], index: u32) -> Vec<u8> {
        let mut piece = vec![0; BLOCKS * self.width];
        let payload = self.params.payload_bytes(piece.len());
        piece[..payload].copy_from_slice(&content[..payload]);
        let secret = PackageSecret::from_bytes([3; 32]);
        package::pack(&self.params, &secret, &TORRENT, index, &mut piece).unwrap();
        piece
    }

    /// A packaged piece of noise.
    fn noise(&self, index: u32) -> Vec<u8> {
        self.packaged(&noise(100 + u64::from(index), BLOCKS * self.width), index)
    }

    /// r of a piece.
    fn ts_key(&self, y: &PublicKey, index: u32) -> TsKey {
        let id = SubscriberId::of(&TORRENT, &[1; 32], &KeyCommitment::of(&self.params, &[2; 32], y));
        TsKeys::derive(&self.params, &MasterKey::from_bytes(MASTER), &id, 1).key(index)
    }

    /// The encryption key of a piece, as the tracker makes it.
    fn key(&self, y: &PublicKey, index: u32) -> U4096 {
        let r = self.ts_key(y, index);
        let mut bytes = vec![0; self.width];
        EncryptionKey::derive(&self.params, y, &r).to_bytes(&self.params, &mut bytes).unwrap();
        from_be(&bytes)
    }

    /// The license's entry for a piece: g^-r.
    fn entry(&self, y: &PublicKey, index: u32) -> DecryptionKey {
        DecryptionKey::derive(&self.params, &self.ts_key(y, index))
    }

    /// Every block by a number.
    fn times(&self, piece: &[u8], factor: &U4096) -> Vec<u8> {
        let mut piece = piece.to_vec();
        let key = ReKey::from_bytes(&self.params, &self.be(factor)).unwrap();
        re_encrypt_piece(&self.params, &key, &mut piece).unwrap();
        piece
    }

    fn encrypted(&self, piece: &[u8], y: &PublicKey, index: u32) -> Vec<u8> {
        let mut out = piece.to_vec();
        let key = EncryptionKey::from_bytes(&self.params, &self.be(&self.key(y, index))).unwrap();
        encrypt_piece(&self.params, &key, &mut out).unwrap();
        out
    }

    fn be(&self, value: &U4096) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        bytes[bytes.len() - self.width..].to_vec()
    }

    fn block(&self, piece: &[u8], at: usize) -> U4096 {
        let mut bytes = piece[at * self.width..][..self.width].to_vec();
        if self.params.profile() == Profile::Sealed {
            bytes.reverse();
        }
        from_be(&bytes)
    }

    fn blocks(&self, piece: &[u8]) -> Vec<U4096> {
        (0..piece.len() / self.width).map(|at| self.block(piece, at)).collect()
    }

    /// What the group operation acts on, where the first block of a piece's plaintext is all that is known.
    fn guessed_block(&self, content: &[u8]) -> U4096 {
        let mut block = content.to_vec();
        match self.params.profile() {
            Profile::Paper => block.truncate(self.width - 1),
            Profile::Sealed => {
                block.truncate(self.width);
                block.reverse();
            }
        }
        from_be(&block)
    }

    fn product(&self, a: &U4096, b: &U4096) -> U4096 {
        let form =
            |value: &U4096| FixedMontyForm::new(&value.rem_vartime(self.modulus.as_nz_ref()), &self.monty);
        (form(a) * form(b)).retrieve()
    }

    fn inverse(&self, a: &U4096) -> U4096 {
        a.invert_odd_mod_vartime(&self.modulus).into_option().unwrap()
    }

    fn quotient(&self, a: &U4096, b: &U4096) -> U4096 {
        self.product(a, &self.inverse(b))
    }

    fn power(&self, base: &U4096, exponent: &U4096) -> U4096 {
        FixedMontyForm::new(base, &self.monty).pow(exponent).retrieve()
    }

    /// q = (p - 1) / 2, the order of g.
    fn order(&self) -> Odd<U4096> {
        Odd::new(self.modulus.as_ref().shr_vartime(1)).into_option().unwrap()
    }

    /// Whether a number is a square mod p: the Legendre symbol, by Euler.
    fn is_square(&self, a: &U4096) -> bool {
        self.power(a, self.order().as_ref()) == U4096::ONE
    }

    /// Whether that key opens the ciphertext to the packaged piece.
    fn opens(&self, key: &U4096, ciphertext: &[u8], packaged: &[u8]) -> bool {
        self.times(ciphertext, &self.inverse(key)) == packaged
    }
}

fn from_be(bytes: &[u8]) -> U4096 {
    let mut wide = [0; 512];
    wide[512 - bytes.len()..].copy_from_slice(bytes);
    U4096::from_be_slice(&wide)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Stream::new(seed).fill_bytes(&mut out);
    out
}

fn both() -> [Target; 2] {
    [Profile::Paper, Profile::Sealed].map(Target::new)
}

fn is_paper(target: &Target) -> bool {
    target.params.profile() == Profile::Paper
}

#[test]
fn one_known_block_opens_a_paper_piece() {
    for target in both() {
        let content = noise(1, BLOCKS * target.width);
        let packaged = target.packaged(&content, 0);
        let j = target.subscriber(1);
        let ciphertext = target.encrypted(&packaged, &j.public, 0);
        let key = target.quotient(&target.block(&ciphertext, 0), &target.guessed_block(&content));
        assert_eq!(target.opens(&key, &ciphertext, &packaged), is_paper(&target));
    }
}

#[test]
fn zero_and_one_blocks_and_equal_blocks_show_under_paper() {
    for target in both() {
        let mut content = vec![0; BLOCKS * target.width];
        let payload = target.width - 1;
        // Block 0 is zero, block 1 is one, blocks 2 and 3 are equal.
        content[2 * payload - 1] = 1;
        content[2 * payload..4 * payload].fill(5);
        let packaged = target.packaged(&content, 0);
        let j = target.subscriber(1);
        let ciphertext = target.encrypted(&packaged, &j.public, 0);
        let blocks = target.blocks(&ciphertext);
        let any_zero = blocks.contains(&U4096::ZERO);
        let equal = (1..BLOCKS).any(|at| blocks[..at].contains(&blocks[at]) && blocks[at] != U4096::ZERO);
        let key_in_clear =
            blocks.iter().any(|block| *block != U4096::ZERO && target.opens(block, &ciphertext, &packaged));
        assert_eq!([any_zero, equal, key_in_clear], [is_paper(&target); 3]);
    }
}

#[test]
fn legendre_symbols_tell_two_films_apart_under_paper() {
    for target in both() {
        let films = [noise(1, BLOCKS * target.width), noise(2, BLOCKS * target.width)];
        let j = target.subscriber(1);
        let shows = |blocks: &[U4096]| blocks.iter().map(|block| target.is_square(block)).collect::<Vec<_>>();
        // What an eavesdropper who has both films expects: K is a square, so c is one where m is.
        let expected = films.each_ref().map(|film| {
            let payload = if is_paper(&target) { target.width - 1 } else { target.width };
            let first = film.chunks_exact(payload).take(BLOCKS - 1);
            shows(&first.map(|block| target.guessed_block(block)).collect::<Vec<_>>())
        });
        assert_ne!(expected[0], expected[1]);
        let told = (0..2).all(|which| {
            let ciphertext = target.encrypted(&target.packaged(&films[which], 0), &j.public, 0);
            shows(&target.blocks(&ciphertext)[..BLOCKS - 1]) == expected[which]
        });
        assert_eq!(told, is_paper(&target));
    }
}

#[test]
fn public_keys_of_one_and_minus_one_would_be_answered_with_plaintext() {
    for target in both() {
        let packaged = target.noise(0);
        let minus_one = target.modulus.as_ref().wrapping_sub(&U4096::ONE);
        for y in [U4096::ONE, minus_one] {
            // A tracker that did not look: K = y^r, whatever r is.
            let r = from_be(&noise(4, 40));
            let key = target.power(&y, &r);
            let ciphertext = target.times(&packaged, &key);
            let negated = target.times(&ciphertext, &minus_one);
            assert!(ciphertext == packaged || negated == packaged);
            // Ours looks, under every profile.
            let refused = PublicKey::from_bytes(&target.params, &target.be(&y));
            assert_eq!(refused.unwrap_err(), Error::BadPublicKey);
        }
    }
}

#[test]
fn subscribing_twice_gives_the_key_where_r_does_not_depend_on_y() {
    for target in both() {
        let packaged = target.noise(0);
        let [first, second] = [1, 2].map(|seed| target.subscriber(seed));
        let order = target.order();
        let difference = second.s.sub_mod(&first.s, order.as_nz_ref());
        let exponent = difference.invert_odd_mod_vartime(&order).into_option().unwrap();
        // (c'/c)^(1/(s'-s)) = g^r, and g^(rs) opens c.
        let attack = |keys: [U4096; 2]| {
            let [a, b] = keys.map(|key| target.times(&packaged, &key));
            let ratio = target.quotient(&target.block(&b, 0), &target.block(&a, 0));
            let g_r = target.power(&ratio, &exponent);
            target.opens(&target.power(&g_r, &first.s), &a, &packaged)
        };
        let mut g = vec![0; target.width];
        target.params.group().generator_be(&mut g).unwrap();
        // Flawed: one r for whoever has that account.
        let g_r = target.power(&from_be(&g), &from_be(&noise(5, 40)));
        assert!(attack([target.power(&g_r, &first.s), target.power(&g_r, &second.s)]));
        assert!(!attack([target.key(&first.public, 0), target.key(&second.public, 0)]));
    }
}

#[test]
fn spliced_blocks_pass_unseen_into_a_paper_piece_and_destroy_a_sealed_one() {
    for target in both() {
        let content = noise(1, BLOCKS * target.width);
        let j = target.subscriber(1);
        let packaged = target.packaged(&content, 0);
        let mut ciphertext = target.encrypted(&packaged, &j.public, 0);
        // Two blocks exchanged by whoever hands it on.
        let (front, back) = ciphertext.split_at_mut(5 * target.width);
        front[2 * target.width..3 * target.width].swap_with_slice(&mut back[..target.width]);
        decrypt_piece(&target.params, &j.secret, &target.entry(&j.public, 0), &mut ciphertext).unwrap();
        // Either way the player's hash finds it.
        assert_ne!(ciphertext, packaged);
        let payload = package::unpack(&target.params, &mut ciphertext).unwrap();
        let unit = target.width - 1;
        let kept = (0..payload / unit)
            .filter(|at| ciphertext[at * unit..][..unit] == content[at * unit..][..unit])
            .count();
        assert_eq!(kept, if is_paper(&target) { BLOCKS - 2 } else { 0 });
    }
}

#[test]
fn a_tracker_without_tickets_would_hand_out_absent_peers_keys() {
    // True of both: a licensed j who gets ρ to an absent k has k's key. So the tracker makes none without k's signed word, which names
    // its uploader; `net/tests/tracker.rs` tries to do without it.
    for target in both() {
        let packaged = target.noise(0);
        let [j, k] = [1, 2].map(|seed| target.subscriber(seed));
        let rho = target.quotient(&target.key(&k.public, 0), &target.key(&j.public, 0));
        let harvested = target.product(&target.key(&j.public, 0), &rho);
        let theirs = target.encrypted(&packaged, &k.public, 0);
        assert!(target.opens(&harvested, &theirs, &packaged));
        // Whoever has no license learns nothing by it: the ratio alone opens neither piece.
        let ours = target.encrypted(&packaged, &j.public, 0);
        for guess in [rho, target.inverse(&rho), target.power(&rho, &j.s)] {
            assert!(!target.opens(&guess, &theirs, &packaged) && !target.opens(&guess, &ours, &packaged));
        }
    }
}

#[test]
fn alternative_1_one_r_for_all_pieces_makes_one_known_piece_open_the_others() {
    for target in both() {
        let j = target.subscriber(1);
        let (known, other) = (target.noise(0), target.noise(1));
        let attack = |keys: [U4096; 2]| {
            let [a, b] = [target.times(&known, &keys[0]), target.times(&other, &keys[1])];
            let key = target.quotient(&target.block(&a, 0), &target.block(&known, 0));
            target.opens(&key, &b, &other)
        };
        let of_first = target.key(&j.public, 0);
        assert!(attack([of_first, of_first]));
        assert!(!attack([of_first, target.key(&j.public, 1)]));
    }
}

#[test]
fn alternative_2_one_r_for_all_peers_makes_one_license_serve_everybody() {
    for target in both() {
        let packaged = target.noise(0);
        let [j, k] = [1, 2].map(|seed| target.subscriber(seed));
        let opened_by = |entry: &DecryptionKey, mut ciphertext: Vec<u8>| {
            decrypt_piece(&target.params, &k.secret, entry, &mut ciphertext).unwrap();
            ciphertext == packaged
        };
        let shared = target.entry(&j.public, 0);
        // Flawed: k's piece has the r of j's. Its key is the inverse of what j's entry gives k.
        let opened: OpenedKey = shared.open(&target.params, &k.secret);
        let mut inverse = vec![0; target.width];
        opened.to_bytes(&target.params, &mut inverse).unwrap();
        let theirs = target.times(&packaged, &target.inverse(&from_be(&inverse)));
        assert!(opened_by(&shared, theirs));
        assert!(!opened_by(&shared, target.encrypted(&packaged, &k.public, 0)));
        assert!(opened_by(&target.entry(&k.public, 0), target.encrypted(&packaged, &k.public, 0)));
    }
}

#[test]
fn alternative_3_keys_of_r_and_y_alone_pass_from_hand_to_hand() {
    for target in both() {
        let packaged = target.noise(0);
        let [j, k] = [1, 2].map(|seed| target.subscriber(seed));
        let order = target.order();
        let inverse = j.s.invert_odd_mod_vartime(&order).into_option().unwrap();
        let (s_k, exponent) = (FixedMontyParams::new_vartime(order), inverse);
        // s_k / s_j mod q
        let exponent = (FixedMontyForm::new(&k.s, &s_k) * FixedMontyForm::new(&exponent, &s_k)).retrieve();
        // j's key, raised by two who put their secrets together.
        let attack = |of_j: U4096, of_k: U4096| {
            target.opens(&target.power(&of_j, &exponent), &target.times(&packaged, &of_k), &packaged)
        };
        let mut g = vec![0; target.width];
        target.params.group().generator_be(&mut g).unwrap();
        let g_r = target.power(&from_be(&g), &from_be(&noise(5, 40)));
        assert!(attack(target.power(&g_r, &j.s), target.power(&g_r, &k.s)));
        assert!(!attack(target.key(&j.public, 0), target.key(&k.public, 0)));
    }
}

#[test]
fn the_attacker_s_arithmetic_is_right() {
    for target in both() {
        let packaged = target.noise(0);
        let j = target.subscriber(1);
        let ciphertext = target.encrypted(&packaged, &j.public, 0);
        assert!(target.opens(&target.key(&j.public, 0), &ciphertext, &packaged));
        let mut g = vec![0; target.width];
        target.params.group().generator_be(&mut g).unwrap();
        let mut y = vec![0; target.width];
        j.public.to_bytes(&target.params, &mut y).unwrap();
        assert_eq!(target.power(&from_be(&g), &j.s), from_be(&y));
        let mut opened = ciphertext;
        let key = target.entry(&j.public, 0).open(&target.params, &j.secret);
        decrypt_piece_with(&target.params, &key, &mut opened).unwrap();
        assert_eq!(opened, packaged);
    }
}
