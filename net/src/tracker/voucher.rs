//! Voucher codes: 100 random bits in Crockford's base 32, in four groups of five. The store keeps their hashes only.

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LEN: usize = 20;

/// The code of these random bytes, as it is given to a buyer.
pub(super) fn code(random: [u8; 16]) -> String {
    let mut bits = u128::from_le_bytes(random);
    let mut code = String::with_capacity(LEN + 3);
    for place in 0..LEN {
        if place > 0 && place % 5 == 0 {
            code.push('-');
        }
        code.push(char::from(DIGITS[(bits % 32) as usize]));
        bits /= 32;
    }
    code
}

/// What the store knows a code by. Case, hyphens and spaces do not matter, and O, I and L are read as the digits that they
/// look like. None where it cannot be a code.
pub(super) fn hash(code: &str) -> Option<[u8; 32]> {
    if code.len() > crate::wire::api::MAX_VOUCHER {
        return None;
    }
    let mut digits = Vec::with_capacity(LEN);
    for letter in code.bytes().filter(|letter| !b"- ".contains(letter)) {
        let digit = match letter.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        if !DIGITS.contains(&digit) {
            return None;
        }
        digits.push(digit);
    }
    if digits.len() != LEN {
        return None;
    }
    Some(blake3::derive_key("swarmseal v1 voucher", &digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_however_it_is_written() {
        let code = code([0x5A; 16]);
        assert_eq!(code.len(), 23);
        let known = hash(&code).unwrap();
        assert_eq!(hash(&code.to_lowercase().replace('-', " ")), Some(known));
        assert_eq!(hash(&super::code([0; 16]).replace('0', "o")), hash(&super::code([0; 16])));
        assert_ne!(hash(&super::code([1; 16])), Some(known));
    }

    #[test]
    fn what_is_no_code_has_no_hash() {
        for text in ["", "12345", "U2345-12345-12345-12345", "00000-00000-00000-000000", &"0".repeat(80)] {
            assert_eq!(hash(text), None, "{text}");
        }
    }
}
