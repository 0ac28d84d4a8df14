//! A license's keys, opened eight at a time: that costs a backend with lanes hardly more than one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use swarmseal_core::{DecryptionKey, OpenedKey, Params, SecretKey};

/// Pieces whose keys are opened together.
const TOGETHER: u32 = 8;
/// Groups of opened keys that are kept: pieces that are checked as they come, come in any order.
const KEPT: usize = 1024;

/// The keys of eight neighbouring pieces, where the license has good ones.
type Group = Arc<OnceLock<Vec<Option<OpenedKey>>>>;

/// The keys that were opened last.
#[derive(Default)]
pub(super) struct OpenedKeys {
    recent: Mutex<VecDeque<(u32, Group)>>,
}

impl OpenedKeys {
    /// K^−1 of one piece out of `license`: W bytes a piece. None if it has no valid key for it. `piece`: counted among those that
    /// have keys, the sealed ones.
    ///
    /// Whoever comes first opens the piece's neighbours as well; others who ask for one of them meanwhile wait.
    pub(super) fn get(
        &self,
        params: &Params,
        secret: &SecretKey,
        license: &[u8],
        piece: u32,
    ) -> Option<OpenedKey> {
        let group = self.group(piece / TOGETHER);
        let keys = group.get_or_init(|| open(params, secret, license, piece / TOGETHER * TOGETHER));
        keys.get((piece % TOGETHER) as usize)?.clone()
    }

    fn group(&self, number: u32) -> Group {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, group)) = recent.iter().rev().find(|(at, _)| *at == number) {
            return Arc::clone(group);
        }
        let group = Group::default();
        recent.push_back((number, Arc::clone(&group)));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        group
    }
}

impl std::fmt::Debug for OpenedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenedKeys(..)")
    }
}

fn open(params: &Params, secret: &SecretKey, license: &[u8], first: u32) -> Vec<Option<OpenedKey>> {
    let width = params.group().bytes();
    let encoded = license.chunks_exact(width).skip(first as usize).take(TOGETHER as usize);
    let keys: Vec<Option<DecryptionKey>> =
        encoded.map(|key| DecryptionKey::from_bytes(params, key).ok()).collect();
    let (places, good): (Vec<usize>, Vec<DecryptionKey>) =
        keys.iter().enumerate().filter_map(|(i, key)| Some((i, key.clone()?))).unzip();
    let mut opened = vec![None; keys.len()];
    DecryptionKey::open_batch(params, secret, &good, |i, key| opened[places[i]] = Some(key));
    opened
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{Exponents, Group, MasterKey, Profile, SubscriberId, TsKeys};

    use super::*;

    #[test]
    fn every_piece_gets_its_key_and_a_bad_entry_harms_no_other() {
        let group = Group::ffdhe2048(swarmseal_accel::detect());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
        let width = params.group().bytes();
        let secret = SecretKey::generate(&params, &mut UnwrapErr(SysRng));
        let r = TsKeys::derive(&params, &MasterKey::from_bytes([1; 32]), &SubscriberId([2; 32]), 0);
        let (pieces, bad) = (KEPT as u32 * TOGETHER + 88, 11);
        let mut license = vec![0; pieces as usize * width];
        let entries: Vec<DecryptionKey> =
            (0..pieces).map(|piece| DecryptionKey::derive(&params, &r.key(piece % 20))).collect();
        for (piece, out) in license.chunks_exact_mut(width).enumerate() {
            entries[piece].to_bytes(&params, out).unwrap();
        }
        license[bad * width..][..width].fill(0);
        let keys = OpenedKeys::default();
        let encoded = |key: &OpenedKey| {
            let mut bytes = vec![0; width];
            key.to_bytes(&params, &mut bytes).unwrap();
            bytes
        };
        let expected: Vec<Vec<u8>> =
            entries[..20].iter().map(|entry| encoded(&entry.open(&params, &secret))).collect();
        // More groups than are kept, the last of them short of keys, and back to the first.
        for piece in (0..pieces).chain([0, 9, bad as u32]) {
            let key = keys.get(&params, &secret, &license, piece);
            let wanted = (piece != bad as u32).then(|| expected[piece as usize % 20].clone());
            assert_eq!(key.map(|key| encoded(&key)), wanted, "{piece}");
        }
        assert!(keys.get(&params, &secret, &license, pieces).is_none());
        assert!(keys.recent.lock().unwrap().len() <= KEPT);
    }
}
