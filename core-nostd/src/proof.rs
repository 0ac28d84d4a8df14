//! Proofs of possession: that whoever registers y knows s (Schnorr, "Efficient identification and signatures for smart
//! cards", 1989, made non-interactive by Fiat and Shamir's transform).

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::element::Element;
use crate::exponent::{Exponent, MAX_WIDE};
use crate::kdf::Kdf;
use crate::number::{Number, bit_length_vartime};
use crate::{Error, Group, MAX_BYTES, Params, PublicKey, SecretKey};

/// (c, z): a 256-bit challenge and a response mod q. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    challenge: [u8; 32],
    response: [u8; MAX_BYTES],
}

impl Proof {
    /// Bytes of an encoded proof: 32 + W.
    pub fn encoded_len(params: &Params) -> usize {
        32 + params.group().bytes()
    }

    /// Proves knowledge of s over a statement: everything that is registered with y, and the verifier's nonce.
    ///
    /// The nonce is uniform in 1 … q−1: a short one would leak a short s.
    pub fn prove(
        params: &Params,
        secret: &SecretKey,
        y: &PublicKey,
        statement: &[&[u8]],
        rng: &mut impl CryptoRng,
    ) -> Self {
        let mut wide = [0; MAX_WIDE];
        let wide = &mut wide[..params.group().bytes() + 16];
        rng.fill_bytes(wide);
        let proof = Self::prove_with_nonce(params, secret, y, statement, wide);
        wide.zeroize();
        proof
    }

    /// [`Proof::prove`] with the nonce's W+16 random bytes given: for test vectors. A nonce used twice reveals s.
    #[doc(hidden)]
    pub fn prove_with_nonce(
        params: &Params,
        secret: &SecretKey,
        y: &PublicKey,
        statement: &[&[u8]],
        wide: &[u8],
    ) -> Self {
        let group = params.group();
        let nonce = Exponent::uniform(group, wide);
        let commitment = group.pow(group.generator(), &nonce);
        let challenge = challenge(group, y, &commitment, statement);
        let c = crate::bytes::number_from_be(&challenge);
        // z = k + c s mod q; mul_mod_order takes any s below R.
        let mut s: Number = crate::number::ZERO;
        s.copy_from_slice(secret.exponent().limbs());
        let mut k: Number = crate::number::ZERO;
        k.copy_from_slice(nonce.limbs());
        let c = group.reduce_below_order(&c);
        let mut z = group.mul_mod_order(&s, &c);
        group.order().add(&mut z, &k);
        let mut response = [0; MAX_BYTES];
        Exponent::from_limbs(z, group.bits() - 1).to_be(&mut response[..group.bytes()]);
        s.zeroize();
        k.zeroize();
        Proof { challenge, response }
    }

    /// Checks it. Errors: [`Error::BadProof`].
    pub fn verify(&self, params: &Params, y: &PublicKey, statement: &[&[u8]]) -> Result<(), Error> {
        let group = params.group();
        let z = crate::bytes::number_from_be(&self.response[..group.bytes()]);
        if group.order().exceeds(&z) == 0 {
            return Err(Error::BadProof);
        }
        let z = Exponent::from_limbs(z, bit_length_vartime(&z));
        let c = Exponent::from_be(&self.challenge);
        // t' = g^z (y^−1)^c
        let commitment = group.mul(&group.pow(group.generator(), &z), &group.pow(y.inverse(), &c));
        let expected = challenge(group, y, &commitment, statement);
        if expected.ct_eq(&self.challenge).into() { Ok(()) } else { Err(Error::BadProof) }
    }

    /// Writes c ‖ z. Errors: [`Error::BadLength`].
    pub fn to_bytes(&self, params: &Params, out: &mut [u8]) -> Result<(), Error> {
        let expected = Self::encoded_len(params);
        if out.len() != expected {
            return Err(Error::BadLength { expected, found: out.len() });
        }
        out[..32].copy_from_slice(&self.challenge);
        out[32..].copy_from_slice(&self.response[..params.group().bytes()]);
        Ok(())
    }

    /// Reads c ‖ z. Errors: [`Error::BadLength`].
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        let expected = Self::encoded_len(params);
        if bytes.len() != expected {
            return Err(Error::BadLength { expected, found: bytes.len() });
        }
        let mut proof = Proof { challenge: [0; 32], response: [0; MAX_BYTES] };
        proof.challenge.copy_from_slice(&bytes[..32]);
        proof.response[..expected - 32].copy_from_slice(&bytes[32..]);
        Ok(proof)
    }
}

fn challenge(group: &Group, y: &PublicKey, commitment: &Element, statement: &[&[u8]]) -> [u8; 32] {
    let mut kdf = Kdf::new("swarmseal v1 schnorr proof");
    let mut element = [0; MAX_BYTES];
    let element = &mut element[..group.bytes()];
    let length = "the buffer has W bytes";
    group.modulus_be(element).expect(length);
    kdf = kdf.field(element);
    group.generator_be(element).expect(length);
    kdf = kdf.field(element);
    y.write(element);
    kdf = kdf.field(element);
    commitment.to_be(group, element).expect(length);
    kdf = kdf.field(element);
    statement.iter().fold(kdf, |kdf, field| kdf.field(field)).finish()
}
