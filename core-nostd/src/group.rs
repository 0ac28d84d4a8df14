//! Groups: a safe prime p = 2q + 1 and a generator of the subgroup of order q.

mod primes;

#[cfg(feature = "generate")]
pub(crate) mod generate;

use crypto_bigint::{Odd, U4096, Word};

use crate::bytes::{ByteOrder, number_from_be, store};
use crate::element::Element;
use crate::exponent::{Exponent, MAX_WIDE};
use crate::fixed_base::BATCH;
use crate::kernels::{Kernels, Power};
use crate::modulus::Modulus;
use crate::number::{LIMBS, Number, WORD_BYTES, ZERO, bit_length_vartime, is_zero};
use crate::{Error, MAX_BYTES, primality};

/// A safe prime p = 2q + 1 of n bits, a generator g of the subgroup of order q, and the arithmetic to use.
/// Paper §2.1, Definition 2.2(1).
///
/// n is a multiple of 64 from 64 to 4,096 and the top bit of p is set. All of it is public.
#[derive(Clone)]
pub struct Group {
    kernels: &'static Kernels,
    name: Option<&'static str>,
    p: Modulus,
    q: Modulus,
    generator: Element,
    generator_inverse: Element,
}

impl Group {
    /// RFC 7919's ffdhe2048, generator 2: the default.
    pub fn ffdhe2048(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::FFDHE2048)
    }

    /// RFC 7919's ffdhe3072, generator 2.
    pub fn ffdhe3072(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::FFDHE3072)
    }

    /// RFC 7919's ffdhe4096, generator 2.
    pub fn ffdhe4096(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::FFDHE4096)
    }

    /// RFC 2409 §6.1, 768 bits. Too small to protect anything: for reproducing the paper.
    pub fn modp768(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::MODP768)
    }

    /// RFC 2409 §6.2, 1,024 bits. For reproducing the paper.
    pub fn modp1024(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::MODP1024)
    }

    /// RFC 3526 §2, 1,536 bits. For reproducing the paper.
    pub fn modp1536(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::MODP1536)
    }

    /// 512 bits, made as RFC 2412 makes its primes (see `SCHEME.md`). Broken in seconds: for reproducing the paper.
    pub fn prime512(kernels: &'static Kernels) -> Self {
        Self::known(kernels, &primes::PRIME512)
    }

    /// The names that [`Group::by_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        primes::ALL.iter().map(|known| known.name)
    }

    /// A group by its name, such as `ffdhe2048`.
    pub fn by_name(name: &str, kernels: &'static Kernels) -> Option<Self> {
        primes::ALL.iter().find(|known| known.name == name).map(|known| Self::known(kernels, known))
    }

    /// A group from elsewhere: p and g as big-endian bytes.
    ///
    /// Errors: [`Error::BadGroup`] unless p is a safe prime (64 Miller–Rabin rounds with bases derived from p) of
    /// 64 … 4,096 bits in steps of 64, and 2 ≤ g ≤ p−2 of order q. Takes seconds at 4,096 bits. The numbers are public.
    pub fn from_parts(kernels: &'static Kernels, p: &[u8], g: &[u8]) -> Result<Self, Error> {
        if p.len() > MAX_BYTES
            || !p.len().is_multiple_of(8)
            || p.first().is_none_or(|top| top & 0x80 == 0)
            || g.len() > p.len()
        {
            return Err(Error::BadGroup);
        }
        let limbs = number_from_be(p);
        if limbs[0] & 3 != 3 {
            return Err(Error::BadGroup);
        }
        let group = Self::assemble(kernels, None, limbs, p.len() / WORD_BYTES, number_from_be(g))
            .ok_or(Error::BadGroup)?;
        let prime = primality::is_probable_prime_vartime(kernels, &group.q)
            && primality::is_probable_prime_vartime(kernels, &group.p);
        if prime && group.is_in_subgroup_vartime(&group.generator) { Ok(group) } else { Err(Error::BadGroup) }
    }

    fn known(kernels: &'static Kernels, known: &primes::Known) -> Self {
        let mut two = ZERO;
        two[0] = 2;
        let limbs = number_from_be(known.prime);
        Self::assemble(kernels, Some(known.name), limbs, known.prime.len() / WORD_BYTES, two)
            .expect("a committed constant that its tests check")
    }

    /// None unless 2 ≤ g ≤ p−2 and g is invertible.
    fn assemble(
        kernels: &'static Kernels,
        name: Option<&'static str>,
        p: Number,
        len: usize,
        g: Number,
    ) -> Option<Self> {
        let q = half(&p, len);
        let mut group = Group {
            kernels,
            name,
            p: Modulus::new(p, len),
            q: Modulus::new(q, len),
            generator: Element(ZERO),
            generator_inverse: Element(ZERO),
        };
        if !group.is_proper_vartime(&g) {
            return None;
        }
        group.generator = group.element(&g);
        group.generator_inverse = group.inverse_vartime(&group.generator)?;
        Some(group)
    }

    /// The name, if it is one of [`Group::names`].
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// n, the bits of p.
    pub fn bits(&self) -> usize {
        self.bytes() * 8
    }

    /// W = n/8: bytes of an element and of a block.
    pub fn bytes(&self) -> usize {
        self.p.len() * WORD_BYTES
    }

    /// The arithmetic in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// p, ready for the kernels.
    pub fn modulus(&self) -> &Modulus {
        &self.p
    }

    /// q = (p−1)/2, the order of the generator.
    pub fn order(&self) -> &Modulus {
        &self.q
    }

    /// Writes p as W big-endian bytes. Errors: [`Error::BadLength`].
    pub fn modulus_be(&self, out: &mut [u8]) -> Result<(), Error> {
        if out.len() != self.bytes() {
            return Err(Error::BadLength { expected: self.bytes(), found: out.len() });
        }
        store(ByteOrder::Big, self.p.limbs(), out);
        Ok(())
    }

    /// Writes g as W big-endian bytes. Errors: [`Error::BadLength`].
    pub fn generator_be(&self, out: &mut [u8]) -> Result<(), Error> {
        self.generator.to_be(self, out)
    }

    pub(crate) fn generator(&self) -> &Element {
        &self.generator
    }

    pub(crate) fn generator_inverse(&self) -> &Element {
        &self.generator_inverse
    }

    /// Bytes of a short exponent: above RFC 7919's 225, 275 and 325 bits; none for other groups.
    pub(crate) fn short_exponent_bytes(&self) -> Option<usize> {
        match self.name {
            Some("ffdhe2048") => Some(32),
            Some("ffdhe3072") => Some(40),
            Some("ffdhe4096") => Some(48),
            _ => None,
        }
    }

    /// A canonical number as an element in Montgomery form. (Any number below R is reduced.)
    pub(crate) fn element(&self, plain: &Number) -> Element {
        let mut out = ZERO;
        (self.kernels.mont_mul)(&self.p, &plain[..self.p.len()], self.p.r2(), &mut out[..self.p.len()]);
        Element(out)
    }

    /// The canonical number of an element.
    pub(crate) fn plain(&self, element: &Element) -> Number {
        let mut one = ZERO;
        one[0] = 1;
        let mut out = ZERO;
        // The factor 1 is below p, the element below R.
        (self.kernels.mont_mul)(
            &self.p,
            &element.0[..self.p.len()],
            &one[..self.p.len()],
            &mut out[..self.p.len()],
        );
        out
    }

    /// a b. Constant-time.
    pub(crate) fn mul(&self, a: &Element, b: &Element) -> Element {
        let n = self.p.len();
        let mut out = ZERO;
        (self.kernels.mont_mul)(&self.p, &a.0[..n], &b.0[..n], &mut out[..n]);
        Element(out)
    }

    /// base^exponent. Constant-time.
    pub(crate) fn pow(&self, base: &Element, exponent: &Exponent) -> Element {
        let n = self.p.len();
        let mut out = ZERO;
        (self.kernels.modpow)(&self.p, &base.0[..n], exponent, &mut out[..n]);
        Element(out)
    }

    /// `each(i, base^exponent)` for at most [`BATCH`] of them. Constant-time.
    pub(crate) fn pow_batch(&self, powers: &[(&Element, &Exponent)], mut each: impl FnMut(usize, Element)) {
        let n = self.p.len();
        let Some((first, _)) = powers.first() else { return };
        let batch: [_; BATCH] = core::array::from_fn(|i| {
            let (base, exponent) = powers.get(i).copied().unwrap_or((first, powers[0].1));
            Power { modulus: &self.p, base: &base.0[..n], exponent }
        });
        let mut words = [0; BATCH * LIMBS];
        let words = &mut words[..powers.len() * n];
        (self.kernels.modpow_batch)(&batch[..powers.len()], words);
        for (i, words) in words.chunks_exact(n).enumerate() {
            each(i, Element::from_words(words));
        }
        zeroize::Zeroize::zeroize(words);
    }

    /// 1.
    pub(crate) fn one(&self) -> Element {
        Element::from_words(self.p.one())
    }

    /// The inverses of several public elements for the price of one and three multiplications each (Montgomery's
    /// trick): `elements` holds them in place. False, and nothing changed, if one has none.
    ///
    /// `products` is scratch as long as `elements`.
    pub(crate) fn invert_batch_vartime(&self, elements: &mut [Element], products: &mut [Element]) -> bool {
        let mut product = self.one();
        for (element, before) in elements.iter().zip(products.iter_mut()) {
            *before = product.clone();
            product = self.mul(&product, element);
        }
        let Some(mut inverse) = self.inverse_vartime(&product) else { return false };
        for (element, before) in elements.iter_mut().zip(products.iter()).rev() {
            let inverted = self.mul(&inverse, before);
            inverse = self.mul(&inverse, element);
            *element = inverted;
        }
        true
    }

    /// a^−1 of a public element.
    pub(crate) fn inverse_vartime(&self, a: &Element) -> Option<Element> {
        let p = Odd::new(U4096::from_words(padded(self.p.limbs()))).into_option()?;
        let inverse = U4096::from_words(self.plain(a)).invert_odd_mod_vartime(&p).into_option()?;
        Some(self.element(&inverse.to_words()))
    }

    /// a^−1 of any element. Constant-time.
    pub(crate) fn inverse(&self, a: &Element) -> Option<Element> {
        let p = Odd::new(U4096::from_words(padded(self.p.limbs()))).into_option()?;
        let mut plain = self.plain(a);
        let mut number = U4096::from_words(plain);
        let inverse = number.invert_odd_mod(&p).into_option();
        let element = inverse.map(|mut inverse| {
            let mut words = inverse.to_words();
            let element = self.element(&words);
            zeroize::Zeroize::zeroize(&mut inverse);
            zeroize::Zeroize::zeroize(&mut words);
            element
        });
        zeroize::Zeroize::zeroize(&mut number);
        zeroize::Zeroize::zeroize(&mut plain);
        element
    }

    /// Whether 2 ≤ a ≤ p−2, for a public canonical number.
    pub(crate) fn is_proper_vartime(&self, a: &Number) -> bool {
        let mut next = *a;
        let carry = crate::number::add_assign(&mut next[..self.p.len()], &one());
        bit_length_vartime(&a[..]) >= 2
            && carry == 0
            && bit_length_vartime(&a[self.p.len()..]) == 0
            && self.p.exceeds(&next) == 1
    }

    /// Whether a public element's Jacobi symbol is +1, which for a safe prime says that its order divides q.
    pub(crate) fn is_in_subgroup_vartime(&self, a: &Element) -> bool {
        let Some(p) = Odd::new(U4096::from_words(padded(self.p.limbs()))).into_option() else {
            return false;
        };
        i8::from(U4096::from_words(self.plain(a)).jacobi_symbol_vartime(&p)) == 1
    }

    /// W+16 (or fewer) big-endian bytes mod q. Constant-time: two Montgomery
    /// multiplications, whose time depends on lengths alone.
    pub(crate) fn reduce_mod_order(&self, wide: &[u8]) -> Number {
        assert!(wide.len() <= MAX_WIDE);
        let n = self.q.len();
        let split = wide.len().saturating_sub(self.bytes());
        let (high, low) = wide.split_at(split);
        // high R + low, where R = 2^n: both parts are below R, and mont_mul takes any first factor below R.
        let mut high = number_from_be(high);
        let mut low = number_from_be(low);
        let mut sum = ZERO;
        (self.kernels.mont_mul)(&self.q, &high[..n], self.q.r2(), &mut sum[..n]); // high R mod q
        let mut part = self.reduce_below_order(&low); // low mod q
        self.q.add(&mut sum, &part);
        zeroize::Zeroize::zeroize(&mut high);
        zeroize::Zeroize::zeroize(&mut low);
        zeroize::Zeroize::zeroize(&mut part);
        sum
    }

    /// A number below R mod q. Constant-time.
    pub(crate) fn reduce_below_order(&self, a: &Number) -> Number {
        let n = self.q.len();
        let mut out = ZERO;
        (self.kernels.mont_mul)(&self.q, &a[..n], self.q.one(), &mut out[..n]);
        out
    }

    /// a b mod q for a < R, b < q. Constant-time.
    pub(crate) fn mul_mod_order(&self, a: &Number, b: &Number) -> Number {
        let n = self.q.len();
        let mut lifted = ZERO;
        let mut out = ZERO;
        (self.kernels.mont_mul)(&self.q, &a[..n], self.q.r2(), &mut lifted[..n]); // a R mod q
        (self.kernels.mont_mul)(&self.q, &lifted[..n], &b[..n], &mut out[..n]);
        zeroize::Zeroize::zeroize(&mut lifted);
        out
    }

    /// The index of the first block that is not below p, or is zero where `nonzero` asks; public data.
    pub(crate) fn first_bad_block_vartime(
        &self,
        order: ByteOrder,
        nonzero: bool,
        piece: &[u8],
    ) -> Option<usize> {
        let mut block = ZERO;
        let top = [self.p.limbs()[self.p.len() - 1]];
        piece.chunks_exact(self.bytes()).position(|bytes| {
            // Nearly always the top word decides: one of p's that are all ones is met once in 2^32 blocks at the most.
            let mut word = [0];
            let high = match order {
                ByteOrder::Little => &bytes[bytes.len() - WORD_BYTES..],
                ByteOrder::Big => &bytes[..WORD_BYTES],
            };
            crate::bytes::load(order, high, &mut word);
            if word[0] != 0 && word < top {
                return false;
            }
            crate::bytes::load(order, bytes, &mut block[..self.p.len()]);
            self.p.exceeds(&block) == 0 || (nonzero && bool::from(is_zero(&block[..self.p.len()])))
        })
    }

    /// Whether every block is in 1 … p−1. Constant-time but for the answer.
    pub(crate) fn all_blocks_proper(&self, order: ByteOrder, piece: &[u8]) -> bool {
        let mut block = ZERO;
        let good = piece.chunks_exact(self.bytes()).fold(subtle::Choice::from(1), |good, bytes| {
            crate::bytes::load(order, bytes, &mut block[..self.p.len()]);
            let below = subtle::Choice::from(self.p.exceeds(&block) as u8);
            good & below & !is_zero(&block[..self.p.len()])
        });
        zeroize::Zeroize::zeroize(&mut block);
        good.into()
    }
}

impl core::fmt::Debug for Group {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Group")
            .field("name", &self.name)
            .field("bits", &self.bits())
            .field("kernels", &self.kernels.name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.p.limbs() == other.p.limbs() && self.generator == other.generator
    }
}

impl Eq for Group {}

/// ⌊a/2⌋ of a number of `len` words.
fn half(a: &Number, len: usize) -> Number {
    let mut out = ZERO;
    for i in 0..len {
        let above = if i + 1 < len { a[i + 1] } else { 0 };
        out[i] = (a[i] >> 1) | (above << (Word::BITS - 1));
    }
    out
}

fn padded(words: &[Word]) -> Number {
    let mut number = ZERO;
    number[..words.len()].copy_from_slice(words);
    number
}

fn one() -> Number {
    let mut one = ZERO;
    one[0] = 1;
    one
}
