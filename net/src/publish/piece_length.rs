//! How long pieces are: long enough that a torrent has few thousand of them, a multiple of what blocks and requests need.

use swarmseal_core::Params;

use crate::wire::metainfo::{MAX_PIECE_LENGTH, REQUEST_LENGTH};

const LEAST: u64 = 256 << 10;
const MOST_PIECES: u64 = 4000;

/// P for a plaintext stream of `length` bytes.
///
/// At least 256 KiB, since each piece costs a hash in the .torrent and a witness key for each peer. From 4,000 such pieces on twice as
/// much as often as needed, which gives 2,000 to 4,000; at most 32 MiB. Always a multiple of W and of 16 KiB: at 3,072 bits that is a
/// multiple of 48 KiB, no power of two.
pub fn piece_length_for(params: &Params, length: u64) -> u32 {
    let step = lcm(params.group().bytes() as u64, REQUEST_LENGTH.into());
    let most = u64::from(MAX_PIECE_LENGTH) / step * step;
    let payload = |piece: u64| params.payload_bytes(piece as usize) as u64;
    let mut piece = LEAST.next_multiple_of(step);
    while piece < most && length.div_ceil(payload(piece)) > MOST_PIECES {
        piece = (piece * 2).min(most);
    }
    piece as u32
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use swarmseal_core::{Exponents, Group, Kernels, Profile};

    fn params(group: &str) -> Params {
        let profile = if group.starts_with("ffdhe") { Profile::Sealed } else { Profile::Paper };
        Params::new(profile, Group::by_name(group, Kernels::portable()).unwrap(), Exponents::Short).unwrap()
    }

    #[test]
    fn usual_sizes() {
        let length = |group, bytes| piece_length_for(&params(group), bytes);
        assert_eq!(length("ffdhe2048", 1), 256 << 10);
        assert_eq!(length("ffdhe2048", 700 << 20), 256 << 10);
        assert_eq!(length("ffdhe2048", 4 << 30), 2 << 20);
        assert_eq!(length("ffdhe2048", 1 << 50), 32 << 20);
        assert_eq!(length("ffdhe3072", 700 << 20), 288 << 10);
        assert_eq!(length("ffdhe3072", 1 << 50), (682 * 48) << 10);
    }

    proptest! {
        #[test]
        fn pieces_fit_blocks_and_requests(
            bytes in 1u64..1 << 36,
            group in prop::sample::select(&["ffdhe2048", "ffdhe3072", "ffdhe4096", "modp768", "modp1536"][..]),
        ) {
            let params = params(group);
            let piece = piece_length_for(&params, bytes);
            prop_assert!(piece.is_multiple_of(params.group().bytes() as u32));
            prop_assert!(piece.is_multiple_of(REQUEST_LENGTH) && (256 << 10..=MAX_PIECE_LENGTH).contains(&piece));
            prop_assert!(bytes.div_ceil(params.payload_bytes(piece as usize) as u64) <= MOST_PIECES);
        }
    }
}
