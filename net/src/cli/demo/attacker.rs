//! The attacker: everything that leaves the peers, every attack that the paper's readers think of, and no license.
//!
//! An attack proposes multipliers for a ciphertext piece; a piece counts as opened if the product has the SHA-1 that the
//! .torrent publishes. The same code runs on `sealed`, where nothing may open, and on `paper`, where one known block must.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U4096};
use sha1::{Digest, Sha1};
use swarmseal_core::{DecryptionKey, Error, Params, Profile, ReKey, SecretKey, re_encrypt_piece};

/// All that the attacker has for one piece.
pub(super) struct PieceEvidence<'a> {
    /// SHA-1 of the packaged piece, from the .torrent.
    pub hash: [u8; 20],
    /// The attacker's own ciphertext.
    pub own: &'a [u8],
    /// Every other peer's ciphertext.
    pub others: Vec<Vec<u8>>,
    /// Every re-key of this piece that passed anywhere, W bytes each.
    pub rekeys: Vec<Vec<u8>>,
    /// g^{−r} of this piece from every license that leaked, W bytes each.
    pub leaked_keys: Vec<Vec<u8>>,
    /// The first plaintext bytes of the piece, known from elsewhere: at least one block.
    pub known_plaintext: Vec<u8>,
}

/// What does not depend on the piece.
pub(super) struct Attacker<'a> {
    params: &'a Params,
    secret: &'a SecretKey,
    ring: Ring,
    /// Encoded public keys of everybody, the attacker's first.
    public_keys: Vec<Vec<u8>>,
}

/// A named way to come by multipliers.
pub(super) type Attack = fn(&Attacker<'_>, &PieceEvidence<'_>) -> Vec<Guess>;

/// A ciphertext and what to multiply it by.
pub(super) struct Guess {
    ciphertext: Vec<u8>,
    multiplier: U4096,
}

/// The attacks, by the names of the report.
pub(super) const ATTACKS: [(&str, Attack); 4] = [
    ("own secret without a license", own_secret),
    ("another's license", others_license),
    ("ratios of ciphertexts and re-keys", ratios),
    ("one known block", known_block),
];

impl<'a> Attacker<'a> {
    /// `public_keys`: everybody's, W bytes each.
    pub(super) fn new(
        params: &'a Params,
        secret: &'a SecretKey,
        public_keys: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        Ok(Attacker { params, secret, ring: Ring::new(params)?, public_keys })
    }

    /// Whether the attack opens the piece.
    pub(super) fn opens(&self, attack: Attack, evidence: &PieceEvidence<'_>) -> bool {
        attack(self, evidence).into_iter().any(|guess| self.is_opened_by(guess, &evidence.hash))
    }

    fn is_opened_by(&self, guess: Guess, hash: &[u8; 20]) -> bool {
        let mut piece = guess.ciphertext;
        let Ok(key) = ReKey::from_bytes(self.params, &self.ring.encode(&guess.multiplier)) else {
            return false;
        };
        re_encrypt_piece(self.params, &key, &mut piece).is_ok() && Sha1::digest(&piece)[..] == hash[..]
    }

    /// (encoded element)^s by the attacker's own secret: PDec's key opening, on whatever stands in for g^{−r}.
    fn raised(&self, element: &U4096) -> Option<U4096> {
        let key = DecryptionKey::from_bytes(self.params, &self.ring.encode(element)).ok()?;
        let mut one = vec![0; self.params.group().bytes()];
        let unit = match self.params.profile() {
            Profile::Sealed => 0,
            Profile::Paper => one.len() - 1,
        };
        one[unit] = 1;
        swarmseal_core::decrypt_piece(self.params, self.secret, &key, &mut one).ok()?;
        Some(self.block(&one))
    }

    /// The first block of a piece.
    fn block(&self, piece: &[u8]) -> U4096 {
        let bytes = &piece[..self.params.group().bytes()];
        match self.params.profile() {
            Profile::Sealed => self.ring.decode(bytes.iter().rev().copied()),
            Profile::Paper => self.ring.decode(bytes.iter().copied()),
        }
    }
}

/// The attacker's secret with every public value in the place of the missing g^{−r}.
fn own_secret(attacker: &Attacker<'_>, evidence: &PieceEvidence<'_>) -> Vec<Guess> {
    let ring = &attacker.ring;
    let public =
        attacker.public_keys.iter().chain(&evidence.rekeys).map(|bytes| ring.decode(bytes.iter().copied()));
    public
        .flat_map(|value| [Some(value), ring.inverse(&value)])
        .flatten()
        .flat_map(|value| [Some(value), attacker.raised(&value)])
        .flatten()
        .chain([U4096::ONE])
        .map(|multiplier| Guess { ciphertext: evidence.own.to_vec(), multiplier })
        .collect()
}

/// Another subscriber's g^{−r}, with the attacker's own secret, on the attacker's ciphertext and on everybody's.
fn others_license(attacker: &Attacker<'_>, evidence: &PieceEvidence<'_>) -> Vec<Guess> {
    let keys: Vec<U4096> =
        evidence.leaked_keys.iter().map(|key| attacker.ring.decode(key.iter().copied())).collect();
    let multipliers: Vec<U4096> =
        keys.iter().flat_map(|key| [Some(*key), attacker.raised(key)]).flatten().collect();
    std::iter::once(evidence.own)
        .chain(evidence.others.iter().map(Vec::as_slice))
        .flat_map(|ciphertext| {
            multipliers.iter().map(|&multiplier| Guess { ciphertext: ciphertext.to_vec(), multiplier })
        })
        .collect()
}

/// Quotients of ciphertexts and products of re-keys, alone and raised to the attacker's secret.
fn ratios(attacker: &Attacker<'_>, evidence: &PieceEvidence<'_>) -> Vec<Guess> {
    let ring = &attacker.ring;
    let own = attacker.block(evidence.own);
    let mut known: Vec<U4096> =
        evidence.rekeys.iter().map(|bytes| ring.decode(bytes.iter().copied())).collect();
    for other in &evidence.others {
        let other = attacker.block(other);
        known.extend(ring.quotient(&own, &other));
        known.extend(ring.quotient(&other, &own));
    }
    // As if the first block were 1: what a zero or one block gives away under `paper`.
    known.extend(ring.inverse(&own));
    let pairs: Vec<U4096> = known.windows(2).map(|pair| ring.product(&pair[0], &pair[1])).collect();
    known
        .iter()
        .chain(&pairs)
        .flat_map(|value| [Some(*value), attacker.raised(value)])
        .flatten()
        .map(|multiplier| Guess { ciphertext: evidence.own.to_vec(), multiplier })
        .collect()
}

/// K = c / m from one known block m: opens the piece under `paper`, where m is what the group operation acts on.
fn known_block(attacker: &Attacker<'_>, evidence: &PieceEvidence<'_>) -> Vec<Guess> {
    let width = attacker.params.group().bytes();
    let payload = match attacker.params.profile() {
        Profile::Sealed => width,
        Profile::Paper => width - 1,
    };
    let Some(plain) = evidence.known_plaintext.get(..payload) else {
        return Vec::new();
    };
    let mut block = plain.to_vec();
    if attacker.params.profile() == Profile::Paper {
        block.insert(0, 0);
    }
    let known = attacker.block(&block);
    std::iter::once(evidence.own)
        .chain(evidence.others.iter().map(Vec::as_slice))
        .filter_map(|ciphertext| {
            let multiplier = attacker.ring.quotient(&known, &attacker.block(ciphertext))?;
            Some(Guess { ciphertext: ciphertext.to_vec(), multiplier })
        })
        .collect()
}

/// Arithmetic mod p by crypto-bigint, apart from the code under attack.
struct Ring {
    modulus: Odd<U4096>,
    monty: FixedMontyParams<{ U4096::LIMBS }>,
    width: usize,
}

impl Ring {
    fn new(params: &Params) -> Result<Self, Error> {
        let width = params.group().bytes();
        let mut p = vec![0; width];
        params.group().modulus_be(&mut p)?;
        let modulus = Odd::new(widened(p.into_iter())).into_option().ok_or(Error::BadGroup)?;
        Ok(Ring { modulus, monty: FixedMontyParams::new_vartime(modulus), width })
    }

    /// A number from at most 512 big-endian bytes.
    fn decode(&self, bytes: impl DoubleEndedIterator<Item = u8> + ExactSizeIterator) -> U4096 {
        widened(bytes)
    }

    fn encode(&self, value: &U4096) -> Vec<u8> {
        let bytes = value.to_be_bytes();
        bytes[bytes.len() - self.width..].to_vec()
    }

    fn product(&self, a: &U4096, b: &U4096) -> U4096 {
        (FixedMontyForm::new(a, &self.monty) * FixedMontyForm::new(b, &self.monty)).retrieve()
    }

    fn inverse(&self, a: &U4096) -> Option<U4096> {
        a.invert_odd_mod_vartime(&self.modulus).into_option()
    }

    fn quotient(&self, a: &U4096, b: &U4096) -> Option<U4096> {
        Some(self.product(a, &self.inverse(b)?))
    }
}

fn widened(bytes: impl DoubleEndedIterator<Item = u8>) -> U4096 {
    let mut wide = [0; 512];
    for (to, from) in wide.iter_mut().rev().zip(bytes.rev()) {
        *to = from;
    }
    U4096::from_be_slice(&wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{
        EncryptionKey, Exponents, Group, Kernels, MasterKey, SubscriberId, TorrentId, TsKeys, encrypt_piece,
        package,
    };

    /// Whether each attack opens one piece of a torrent whose attacker has what the demo collects.
    fn attack(profile: Profile, group: Group) -> Vec<bool> {
        let params = Params::new(profile, group, Exponents::Short).unwrap();
        let mut rng = UnwrapErr(SysRng);
        let (torrent, master) = (TorrentId([1; 32]), MasterKey::from_bytes([2; 32]));
        let width = params.group().bytes();
        let mut packaged: Vec<u8> = (0..16 * width).map(|i| (i * 7 % 251) as u8).collect();
        let known_plaintext = packaged[..width].to_vec();
        package::pack(&params, &package::PackageSecret::from_bytes([3; 32]), &torrent, 0, &mut packaged)
            .unwrap();
        let secrets: Vec<SecretKey> = (0..3).map(|_| SecretKey::generate(&params, &mut rng)).collect();
        let publics: Vec<_> = secrets.iter().map(|s| s.public_key(&params)).collect();
        let rs: Vec<_> =
            (0..3).map(|i| TsKeys::derive(&params, &master, &SubscriberId([i; 32]), 1).key(0)).collect();
        let ciphertexts: Vec<Vec<u8>> = (0..3)
            .map(|i| {
                let mut piece = packaged.clone();
                encrypt_piece(&params, &EncryptionKey::derive(&params, &publics[i], &rs[i]), &mut piece)
                    .unwrap();
                piece
            })
            .collect();
        let encode = |fill: &dyn Fn(&mut [u8])| {
            let mut bytes = vec![0; width];
            fill(&mut bytes);
            bytes
        };
        let evidence = PieceEvidence {
            hash: Sha1::digest(&packaged).into(),
            own: &ciphertexts[0],
            others: ciphertexts[1..].to_vec(),
            rekeys: vec![encode(&|out| {
                ReKey::derive(&params, (&publics[1], &rs[1]), (&publics[0], &rs[0]))
                    .to_bytes(&params, out)
                    .unwrap();
            })],
            leaked_keys: vec![encode(&|out| {
                DecryptionKey::derive(&params, &rs[1]).to_bytes(&params, out).unwrap();
            })],
            known_plaintext,
        };
        let keys = publics.iter().map(|y| encode(&|out| y.to_bytes(&params, out).unwrap())).collect();
        let attacker = Attacker::new(&params, &secrets[0], keys).unwrap();
        ATTACKS.iter().map(|(_, attack)| attacker.opens(*attack, &evidence)).collect()
    }

    #[test]
    fn nothing_opens_a_sealed_piece() {
        assert_eq!(attack(Profile::Sealed, Group::ffdhe2048(Kernels::portable())), [false; 4]);
    }

    #[test]
    fn a_known_block_opens_a_paper_piece() {
        let opened = attack(Profile::Paper, Group::prime512(Kernels::portable()));
        assert_eq!(opened, [false, false, false, true]);
    }
}
