//! Voucher codes: 20 characters that a tracker derives from an order, and 4 that bind them to a publisher.
//!
//! ```text
//! characters  Crockford's base 32: 0123456789ABCDEFGHJKMNPQRSTVWXYZ; bits are taken five at a time, the most significant first
//! code        the first 100 bits of KDF("voucher code", voucher key, order, line, number)
//! check       the first 20 bits of KDF("voucher check", the code's 20 characters, publisher key)
//! MAC         keyed BLAKE3 of the code's 20 characters, under KDF("voucher lookup", voucher key)
//! ```
//!
//! `core-nostd/SCHEME.md` defines the KDF. People see six groups of four characters, joined by dashes. In messages a code is its 24
//! characters without dashes.
//!
//! The check characters tell a typo, a code of another seller and a .torrent with a forged publisher key from a good code, each with a
//! chance of 1 in 2^20 to be missed. They need no secret, so a client checks a code before it sends anything: it sends nothing but a
//! [`CheckedCode`].

use std::fmt;
use std::ops::Deref;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Characters of a code without its check characters: 100 bits.
pub const SECRET_LENGTH: usize = 20;
/// Characters of a code with its 4 check characters, without dashes.
pub const LENGTH: usize = 24;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters between two dashes.
const GROUP: usize = 4;

/// Why a code was refused. No variant has more than the first four characters of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Characters are missing, or there are too many.
    #[error("a voucher code has {LENGTH} letters and digits, and this one has {found}: check the code")]
    Length {
        /// Characters found; dashes and blanks do not count.
        found: usize,
    },
    /// A character stands in no code.
    #[error("character {at} of the voucher code is in no code: check the code")]
    Character {
        /// Which one, from 1; dashes and blanks do not count.
        at: usize,
    },
    /// The check characters do not fit the publisher: a typo, another seller's code, or a forged .torrent.
    #[error("voucher {begins}-… is not for this torrent's seller; check the code or the .torrent")]
    OtherSeller {
        /// Its first four characters.
        begins: String,
    },
}

/// A code as typed or received; its check characters may be wrong. Zeroized on drop. `Debug` does not show it, and comparing
/// two takes the same time wherever they differ.
#[derive(Clone)]
pub struct VoucherCode(Zeroizing<[u8; LENGTH]>);

impl VoucherCode {
    /// Reads a code as people write it: upper or lower case; dashes and blanks do not count; O is read as 0, and I and L as 1. Errors:
    /// [`Error::Length`], [`Error::Character`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut code = Zeroizing::new([0; LENGTH]);
        let mut found = 0;
        for character in text.chars().filter(|&character| counts(character)) {
            let digit = digit(character).ok_or(Error::Character { at: found + 1 })?;
            if let Some(place) = code.get_mut(found) {
                *place = digit;
            }
            found += 1;
        }
        if found == LENGTH { Ok(VoucherCode(code)) } else { Err(Error::Length { found }) }
    }

    /// As people see it: upper case, in groups of four characters joined by dashes.
    pub fn to_text(&self) -> Zeroizing<String> {
        // With room for all: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(LENGTH + LENGTH / GROUP));
        for (at, &digit) in self.0.iter().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(digit));
        }
        text
    }

    /// The 24 characters without dashes.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).expect("digits are ASCII")
    }

    /// Refuses a code whose check characters do not fit a publisher. `publisher`: the Ed25519 public key that the .torrent names.
    /// Errors: [`Error::OtherSeller`].
    pub fn checked(self, publisher: &[u8; 32]) -> Result<CheckedCode, Error> {
        if check(self.secret(), publisher)[..] == self.0[SECRET_LENGTH..] {
            Ok(CheckedCode(self))
        } else {
            Err(Error::OtherSeller { begins: self.as_str()[..GROUP].to_owned() })
        }
    }

    /// The characters that are secret.
    fn secret(&self) -> &[u8] {
        &self.0[..SECRET_LENGTH]
    }
}

/// Whether a character is part of a code; dashes, blanks and a byte order mark are not. Word processors turn hyphens into other dashes.
fn counts(character: char) -> bool {
    !(character.is_whitespace()
        || matches!(character, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{feff}'))
}

fn digit(character: char) -> Option<u8> {
    let digit = match character.to_ascii_uppercase() {
        'O' => b'0',
        'I' | 'L' => b'1',
        other => u8::try_from(other).ok()?,
    };
    DIGITS.contains(&digit).then_some(digit)
}

impl PartialEq for VoucherCode {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for VoucherCode {}

impl fmt::Debug for VoucherCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VoucherCode(..)")
    }
}

impl Serialize for VoucherCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Takes the 24 characters without dashes, in upper case: signatures cover one form of a code.
impl<'de> Deserialize<'de> for VoucherCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Characters;

        impl Visitor<'_> for Characters {
            type Value = VoucherCode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the {LENGTH} characters of a voucher code")
            }

            // Serde's own errors would show the text.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<VoucherCode, E> {
                let code = VoucherCode::parse(text).ok().filter(|code| code.as_str() == text);
                code.ok_or_else(|| {
                    E::custom(format_args!("expected the {LENGTH} characters of a voucher code"))
                })
            }
        }

        deserializer.deserialize_str(Characters)
    }
}

/// A code whose check characters fit a publisher. Clients send no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCode(VoucherCode);

impl Deref for CheckedCode {
    type Target = VoucherCode;

    fn deref(&self) -> &VoucherCode {
        &self.0
    }
}

/// The key that a tracker derives codes and their MACs from: 32 random bytes. Zeroized on drop; `Debug` does not show them.
pub struct VoucherKey {
    key: Zeroizing<[u8; 32]>,
    lookup: Zeroizing<[u8; 32]>,
}

impl VoucherKey {
    /// From 32 bytes of a good random generator.
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        VoucherKey { key: Zeroizing::new(*key), lookup: kdf("swarmseal v1 voucher lookup", &[key]) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.key
    }

    /// The code of one voucher: the same for the same order, line and number. `order`: the shop's reference; `publisher`: the Ed25519
    /// public key of the seller.
    pub fn code(&self, order: &str, line: u32, number: u32, publisher: &[u8; 32]) -> CheckedCode {
        let [line, number] = [line, number].map(|field| u64::from(field).to_le_bytes());
        let bits = kdf("swarmseal v1 voucher code", &[self.key.as_slice(), order.as_bytes(), &line, &number]);
        let mut code = Zeroizing::new([0; LENGTH]);
        let (secret, checks) = code.split_at_mut(SECRET_LENGTH);
        characters(&bits, secret);
        checks.copy_from_slice(&check(secret, publisher));
        CheckedCode(VoucherCode(code))
    }

    /// The MAC that a store keeps of a code. Without the voucher key it tells nothing about the code. The check characters are not part
    /// of it.
    pub fn mac(&self, code: &VoucherCode) -> [u8; 32] {
        *blake3::keyed_hash(&self.lookup, code.secret()).as_bytes()
    }
}

impl fmt::Debug for VoucherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VoucherKey(..)")
    }
}

/// The check characters of a code's 20 characters.
fn check(secret: &[u8], publisher: &[u8; 32]) -> [u8; LENGTH - SECRET_LENGTH] {
    let mut checks = [0; LENGTH - SECRET_LENGTH];
    characters(&kdf("swarmseal v1 voucher check", &[secret, publisher]), &mut checks);
    checks
}

/// As many characters as `out` has room for, 51 at most, of the first bits: five a character, the most significant first.
fn characters(bits: &[u8; 32], out: &mut [u8]) {
    for (at, digit) in out.iter_mut().enumerate() {
        let (byte, shift) = (5 * at / 8, 5 * at % 8);
        let window = u16::from_be_bytes([bits[byte], bits.get(byte + 1).copied().unwrap_or(0)]);
        *digit = DIGITS[usize::from(window >> (11 - shift) & 31)];
    }
}

/// BLAKE3's `derive_key` mode with length-prefixed fields.
fn kdf(context: &'static str, fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    let derived = Zeroizing::new(*hasher.finalize().as_bytes());
    hasher.zeroize();
    derived
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::bencode;

    const PUBLISHER: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn key() -> VoucherKey {
        VoucherKey::from_bytes(&[3; 32])
    }

    fn sampled() -> impl Iterator<Item = CheckedCode> {
        (0..32).map(|number| key().code("sampled", 0, number, &PUBLISHER))
    }

    /// Whether a text is taken for a code of the publisher.
    fn passes(text: &str) -> bool {
        VoucherCode::parse(text).and_then(|code| code.checked(&PUBLISHER)).is_ok()
    }

    #[derive(Deserialize)]
    struct Vector {
        key: String,
        order: String,
        line: u32,
        number: u32,
        publisher: String,
        code: String,
        mac: String,
    }

    #[test]
    fn an_independent_reference_makes_the_same_codes_and_macs() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../core-nostd/vectors/vouchers.json");
        let vectors: Vec<Vector> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(vectors.len() >= 6, "{}", vectors.len());
        let bytes = |hex: &str| <[u8; 32]>::try_from(hex::decode(hex).unwrap()).unwrap();
        for Vector { key, order, line, number, publisher, code, mac } in vectors {
            let (key, publisher) = (VoucherKey::from_bytes(&bytes(&key)), bytes(&publisher));
            let made = key.code(&order, line, number, &publisher);
            assert_eq!(*made.to_text(), code);
            assert_eq!(key.mac(&made), bytes(&mac));
            assert_eq!(VoucherCode::parse(&code).unwrap().checked(&publisher), Ok(made));
        }
    }

    /// Every single wrong character and every swap of neighbours in 100 codes: 1 in 2^20 may pass.
    #[test]
    fn wrong_characters_and_swaps_of_neighbours_are_found() {
        let (mut tried, mut passed) = (0, 0);
        let mut refused = |wrong: &[u8]| {
            tried += 1;
            passed += u32::from(passes(std::str::from_utf8(wrong).unwrap()));
        };
        for code in (0..100).map(|number| key().code("typos", 0, number, &PUBLISHER)) {
            let right = code.as_str().as_bytes();
            assert!(passes(code.as_str()));
            for at in 0..LENGTH {
                for &digit in DIGITS.iter().filter(|&&digit| digit != right[at]) {
                    let mut wrong = right.to_vec();
                    wrong[at] = digit;
                    refused(&wrong);
                }
                if at > 0 && right[at - 1] != right[at] {
                    let mut swapped = right.to_vec();
                    swapped.swap(at - 1, at);
                    refused(&swapped);
                }
                let mut missing = right.to_vec();
                missing.remove(at);
                assert!(!passes(std::str::from_utf8(&missing).unwrap()));
            }
        }
        // 0.07 are expected; one character less to check by would let 2 pass.
        assert!(tried > 75_000 && passed == 0, "{passed} of {tried} pass");
    }

    #[test]
    fn codes_of_another_publisher_are_refused_and_shown_in_part() {
        for code in sampled() {
            let theirs = VoucherCode::parse(code.as_str()).unwrap().checked(&OTHER).unwrap_err();
            let text = theirs.to_string();
            assert!(text.starts_with(&format!("voucher {}-… ", &code.as_str()[..4])), "{text}");
            assert!(!text.contains(&code.as_str()[..6]) && !text.contains(&code.to_text()[..6]), "{text}");
        }
    }

    #[test]
    fn a_code_is_read_however_people_write_it() {
        let code = sampled().next().unwrap();
        let text = code.to_text();
        assert_eq!(text.len(), LENGTH + 5);
        assert!(text.split('-').all(|group| group.len() == 4), "{}", *text);
        let looks_alike = text.replace('0', "o").replace('1', "l");
        for written in [
            code.as_str().to_owned(),
            text.to_lowercase(),
            looks_alike.to_uppercase().replace('L', "I"),
            format!("\u{feff} {}\r\n", text.replace('-', " \u{2013}\u{a0}")),
        ] {
            assert_eq!(VoucherCode::parse(&written).as_ref(), Ok(&*code), "{written}");
        }
        for (wrong, error) in [
            (String::new(), Error::Length { found: 0 }),
            (text[1..].to_owned(), Error::Length { found: 23 }),
            (format!("{}0", *text), Error::Length { found: 25 }),
            (format!("{}-{}u", &text[..4], &text[5..24]), Error::Character { at: 21 }),
            ("ab ß".to_owned(), Error::Character { at: 3 }),
        ] {
            assert_eq!(VoucherCode::parse(&wrong), Err(error), "{wrong}");
        }
    }

    #[test]
    fn codes_differ_in_all_that_they_are_made_of_and_macs_in_the_code_alone() {
        let key = key();
        let other = VoucherKey::from_bytes(&[4; 32]);
        let mut codes = vec![
            key.code("1", 0, 0, &PUBLISHER),
            key.code("2", 0, 0, &PUBLISHER),
            key.code("1", 1, 0, &PUBLISHER),
            key.code("1", 0, 1, &PUBLISHER),
            other.code("1", 0, 0, &PUBLISHER),
        ];
        let theirs = key.code("1", 0, 0, &OTHER);
        assert_eq!(theirs.secret(), codes[0].secret());
        assert_eq!(key.mac(&theirs), key.mac(&codes[0]));
        assert_ne!(other.mac(&theirs), key.mac(&codes[0]));
        codes.sort_by_key(|code| code.as_str().to_owned());
        codes.dedup();
        assert_eq!(codes.len(), 5);
    }

    #[test]
    fn codes_and_keys_stay_out_of_debug_and_errors() {
        let code = sampled().next().unwrap();
        let shown = format!("{code:?} {:?} {:?}", *code, key());
        assert_eq!(shown, "CheckedCode(VoucherCode(..)) VoucherCode(..) VoucherKey(..)");
        // A code in a message of another form is refused without being repeated.
        let dashed = bencode::to_bytes(&code.to_text().as_str());
        let refused = bencode::from_bytes::<VoucherCode>(&dashed, 100).unwrap_err();
        assert!(!refused.to_string().contains(&code.as_str()[..4]), "{refused}");
        let encoded = bencode::to_bytes(&*code);
        assert_eq!(bencode::from_bytes::<VoucherCode>(&encoded, 100), Ok((*code).clone()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = VoucherCode::parse(&text);
        }

        #[test]
        fn any_24_characters_are_a_code_and_come_back(text in "[0-9A-HJKMNP-TV-Z]{24}") {
            let code = VoucherCode::parse(&text).unwrap();
            prop_assert_eq!(code.as_str(), &text);
            prop_assert_eq!(VoucherCode::parse(&code.to_text()), Ok(code));
        }

        #[test]
        fn any_order_gives_a_code_of_its_publisher(order: String, line: u32, number: u32, publisher: [u8; 32]) {
            let code = key().code(&order, line, number, &publisher);
            let read = VoucherCode::parse(&code.to_text()).unwrap();
            prop_assert_eq!(key().mac(&read), key().mac(&code));
            prop_assert_eq!(read.checked(&publisher), Ok(code));
        }
    }
}
