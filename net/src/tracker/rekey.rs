//! The tracker's arithmetic: re-keys, encryption keys, witness keys and licenses' decryption keys. All of it takes its time, so all of it
//! belongs on `spawn_blocking`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarmseal_core::{
    DecryptionKey, EncryptionKey, Error, Exponents, FixedBase, MasterKey, Params, PublicKey, ReKey,
    SubscriberId, SubscriberTables, TorrentId, TsKey, TsKeys, WitnessExponent, WitnessExponents, WitnessKey,
    WitnessSecret, WitnessTable, Word,
};
use zeroize::Zeroizing;

/// A subscriber with the powers of y and y^−1 that make keys cheap.
pub(super) struct Tables {
    id: SubscriberId,
    words: Box<[Word]>,
}

impl Tables {
    fn new(params: &Params, id: SubscriberId, y: &[u8]) -> Result<Self, Error> {
        let public = PublicKey::from_bytes(params, y)?;
        let mut words = vec![0; SubscriberTables::words(params)].into_boxed_slice();
        SubscriberTables::new(params, &public, &mut words)?;
        Ok(Tables { id, words })
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words)
    }
}

/// The tables of the subscribers that were in use last, up to a number of bytes.
pub(super) struct TableCache {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<SubscriberId, (Arc<Tables>, u64)>,
    bytes: usize,
    uses: u64,
}

impl TableCache {
    /// `limit` in bytes.
    pub(super) fn new(limit: usize) -> Self {
        TableCache { limit, kept: Mutex::default() }
    }

    /// The tables of a subscriber, made if they are not kept. Errors: those of [`PublicKey::from_bytes`].
    pub(super) fn tables(&self, params: &Params, id: &SubscriberId, y: &[u8]) -> Result<Arc<Tables>, Error> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = lock().find(id) {
            return Ok(tables);
        }
        // Outside the lock: two calls that meet here both make them, and the later ones are kept.
        let tables = Arc::new(Tables::new(params, *id, y)?);
        lock().keep(*id, Arc::clone(&tables), self.limit);
        Ok(tables)
    }

    /// Whether a subscriber's tables are kept.
    pub(super) fn has(&self, id: &SubscriberId) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).by_id.contains_key(id)
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

impl Kept {
    fn find(&mut self, id: &SubscriberId) -> Option<Arc<Tables>> {
        self.uses += 1;
        let (tables, used) = self.by_id.get_mut(id)?;
        *used = self.uses;
        Some(Arc::clone(tables))
    }

    fn keep(&mut self, id: SubscriberId, tables: Arc<Tables>, limit: usize) {
        self.uses += 1;
        self.bytes += tables.bytes();
        if let Some((old, _)) = self.by_id.insert(id, (tables, self.uses)) {
            self.bytes -= old.bytes();
        }
        // A few thousand entries are looked through, for less than making one costs.
        while self.bytes > limit {
            let Some(oldest) = self.by_id.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else {
                break;
            };
            if let Some((old, _)) = self.by_id.remove(&oldest) {
                self.bytes -= old.bytes();
            }
        }
    }
}

/// Tables of powers of generators that are kept: there are six kinds of sealed torrents, and any number of groups under `paper`.
const MAX_WITNESS_TABLES: usize = 8;

/// Powers of the generators of the groups that were in use last, one table for each group and kind of exponent.
#[derive(Default)]
pub(super) struct WitnessTables(Mutex<VecDeque<(Base, Arc<[Word]>)>>);

/// What a table of powers is of: modulus and generator, W bytes each, and the kind of exponent.
type Base = (Vec<u8>, Exponents);

impl WitnessTables {
    /// The words of a [`WitnessTable`] of these parameters, made if they are not kept.
    fn words(&self, params: &Params) -> Result<Arc<[Word]>, Error> {
        let width = params.group().bytes();
        let mut numbers = vec![0; 2 * width];
        params.group().modulus_be(&mut numbers[..width])?;
        params.group().generator_be(&mut numbers[width..])?;
        let base = (numbers, params.exponents());
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |mut kept: MutexGuard<'_, VecDeque<(Base, Arc<[Word]>)>>| {
            let at = kept.iter().position(|(known, _)| *known == base)?;
            let found = kept.remove(at)?;
            let words = Arc::clone(&found.1);
            kept.push_front(found);
            Some(words)
        };
        if let Some(words) = find(lock()) {
            return Ok(words);
        }
        // Outside the lock: two calls that meet here both make it, which takes milliseconds and is seldom.
        let mut words = vec![0; FixedBase::words(params)];
        WitnessTable::new(params, &mut words)?;
        let (words, mut kept) = (Arc::from(words), lock());
        kept.truncate(MAX_WITNESS_TABLES - 1);
        kept.push_front((base, Arc::clone(&words)));
        Ok(words)
    }
}

/// The witness of a torrent.
pub(super) struct Witness<'a> {
    pub(super) tables: &'a WitnessTables,
    pub(super) secret: &'a WitnessSecret,
    pub(super) torrent: &'a TorrentId,
}

/// A party of a re-key: its tables and the master key of its epoch.
pub(super) struct Party<'a> {
    pub(super) tables: &'a Tables,
    pub(super) master: &'a MasterKey,
    pub(super) epoch: u64,
}

impl Party<'_> {
    fn ts_keys<'p>(&self, params: &'p Params) -> TsKeys<'p> {
        TsKeys::derive(params, self.master, &self.tables.id, self.epoch)
    }
}

/// ρ from j to k for each piece, W bytes each in the order given.
pub(super) fn rekeys(
    params: &Params,
    uploader: &Party<'_>,
    downloader: &Party<'_>,
    pieces: &[u32],
) -> Result<Vec<u8>, Error> {
    let (r_j, r_k) = (uploader.ts_keys(params), downloader.ts_keys(params));
    let j = SubscriberTables::from_words(params, &uploader.tables.words)?;
    let k = SubscriberTables::from_words(params, &downloader.tables.words)?;
    let mut keys = Encoded::new(params, pieces.len());
    for pieces in pieces.chunks(BATCH) {
        let (r_j, r_k) = (of_pieces(&r_j, pieces), of_pieces(&r_k, pieces));
        ReKey::derive_batch(params, (&j, &r_j), (&k, &r_k), |_, key| {
            keys.push(|out| key.to_bytes(params, out))
        });
    }
    keys.finish()
}

/// K_ik for each piece, for an original seed.
pub(super) fn encryption_keys(
    params: &Params,
    downloader: &Party<'_>,
    pieces: &[u32],
) -> Result<Vec<u8>, Error> {
    let r = downloader.ts_keys(params);
    let k = SubscriberTables::from_words(params, &downloader.tables.words)?;
    let mut keys = Encoded::new(params, pieces.len());
    for pieces in pieces.chunks(BATCH) {
        EncryptionKey::derive_batch(params, &k, &of_pieces(&r, pieces), |_, key| {
            keys.push(|out| key.to_bytes(params, out));
        });
    }
    keys.finish()
}

/// u = V / K of a subscriber for each piece, W bytes each in the order given.
pub(super) fn witness_keys(
    params: &Params,
    witness: &Witness<'_>,
    subscriber: &Party<'_>,
    pieces: &[u32],
) -> Result<Vec<u8>, Error> {
    let w = WitnessExponents::derive(params, witness.secret, witness.torrent);
    let r = subscriber.ts_keys(params);
    let words = witness.tables.words(params)?;
    let table = WitnessTable::from_words(params, &words)?;
    let k = SubscriberTables::from_words(params, &subscriber.tables.words)?;
    let mut keys = Encoded::new(params, pieces.len());
    for pieces in pieces.chunks(BATCH) {
        let w: Vec<WitnessExponent> = pieces.iter().map(|&piece| w.exponent(piece)).collect();
        WitnessKey::derive_batch(params, (&table, &w), (&k, &of_pieces(&r, pieces)), |_, key| {
            keys.push(|out| key.to_bytes(params, out));
        });
    }
    keys.finish()
}

/// (g^−1)^r for each of the sealed pieces of a torrent, for a license.
pub(super) fn decryption_keys(
    params: &Params,
    master: &MasterKey,
    epoch: u64,
    subscriber: &SubscriberId,
    pieces: &[u32],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let r = TsKeys::derive(params, master, subscriber, epoch);
    let mut words = vec![0; FixedBase::words(params)];
    let table = DecryptionKey::table(params, &mut words)?;
    let mut keys = Encoded::new(params, pieces.len());
    for pieces in pieces.chunks(BATCH) {
        DecryptionKey::derive_batch(params, &table, &of_pieces(&r, pieces), |_, key| {
            keys.push(|out| key.to_bytes(params, out));
        });
    }
    keys.finish().map(Zeroizing::new)
}

/// Pieces whose keys are in memory at once: several of what a backend takes at a time.
const BATCH: usize = 64;

fn of_pieces(keys: &TsKeys<'_>, pieces: &[u32]) -> Vec<TsKey> {
    pieces.iter().map(|&piece| keys.key(piece)).collect()
}

/// Keys of W bytes, one after the other.
struct Encoded {
    bytes: Vec<u8>,
    width: usize,
    written: usize,
    result: Result<(), Error>,
}

impl Encoded {
    fn new(params: &Params, count: usize) -> Self {
        let width = params.group().bytes();
        Encoded { bytes: vec![0; count * width], width, written: 0, result: Ok(()) }
    }

    /// The next key.
    fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Result<(), Error>) {
        let out = &mut self.bytes[self.written..][..self.width];
        self.written += self.width;
        self.result = self.result.and_then(|()| write(out));
    }

    fn finish(self) -> Result<Vec<u8>, Error> {
        self.result.map(|()| self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{
        Exponents, Group, Kernels, KeyCommitment, Profile, SecretKey, TorrentId, WitnessFactor,
        check_witness, decrypt_piece, encrypt_piece, re_encrypt_piece, witness_hash,
    };

    use super::*;

    const TORRENT: TorrentId = TorrentId([5; 32]);

    fn params() -> Params {
        Params::new(Profile::Sealed, Group::ffdhe2048(Kernels::portable()), Exponents::Short).unwrap()
    }

    fn subscriber(params: &Params) -> (SecretKey, SubscriberId, Vec<u8>) {
        let secret = SecretKey::generate(params, &mut UnwrapErr(SysRng));
        let public = secret.public_key(params);
        let mut y = vec![0; params.group().bytes()];
        public.to_bytes(params, &mut y).unwrap();
        let keys = KeyCommitment::of(params, &[1; 32], &public);
        (secret, SubscriberId::of(&TORRENT, &[2; 32], &keys), y)
    }

    #[test]
    fn the_three_kinds_of_keys_fit_together() {
        let params = params();
        let width = params.group().bytes();
        let cache = TableCache::new(1 << 20);
        let (first, second) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let (_, j, y_j) = subscriber(&params);
        let (s_k, k, y_k) = subscriber(&params);
        let (tables_j, tables_k) =
            (cache.tables(&params, &j, &y_j).unwrap(), cache.tables(&params, &k, &y_k).unwrap());
        let uploader = Party { tables: &tables_j, master: &first, epoch: 1 };
        let downloader = Party { tables: &tables_k, master: &second, epoch: 2 };
        let pieces = [3, 0];

        let k_ij = encryption_keys(&params, &uploader, &pieces).unwrap();
        let rho = rekeys(&params, &uploader, &downloader, &pieces).unwrap();
        let license = decryption_keys(&params, &second, 2, &k, &[0, 1, 2, 3]).unwrap();
        assert_eq!((k_ij.len(), rho.len(), license.len()), (2 * width, 2 * width, 4 * width));
        for (at, piece) in pieces.into_iter().enumerate() {
            let plain: Vec<u8> = (0..2 * width).map(|i| (i % 100) as u8 + 1).collect();
            let mut block = plain.clone();
            let part = |keys: &[u8], at: usize| keys[at * width..(at + 1) * width].to_vec();
            encrypt_piece(
                &params,
                &EncryptionKey::from_bytes(&params, &part(&k_ij, at)).unwrap(),
                &mut block,
            )
            .unwrap();
            re_encrypt_piece(&params, &ReKey::from_bytes(&params, &part(&rho, at)).unwrap(), &mut block)
                .unwrap();
            assert_ne!(block, plain);
            let key = DecryptionKey::from_bytes(&params, &part(&license, piece as usize)).unwrap();
            decrypt_piece(&params, &s_k, &key, &mut block).unwrap();
            assert_eq!(block, plain);
        }
    }

    #[test]
    fn a_witness_key_checks_the_subscriber_s_piece() {
        let params = params();
        let width = params.group().bytes();
        let (tables, master) = (TableCache::new(1 << 20), MasterKey::from_bytes([1; 32]));
        let (_, id, y) = subscriber(&params);
        let subscriber = tables.tables(&params, &id, &y).unwrap();
        let party = Party { tables: &subscriber, master: &master, epoch: 3 };
        let secret = WitnessSecret::from_bytes([6; 32]);
        let kept = WitnessTables::default();
        let witness = Witness { tables: &kept, secret: &secret, torrent: &TORRENT };
        // More than go together, and not in order.
        let pieces: Vec<u32> = (0..BATCH as u32 + 3).rev().collect();
        let keys = witness_keys(&params, &witness, &party, &pieces).unwrap();
        let encryption = encryption_keys(&params, &party, &pieces).unwrap();
        let exponents = WitnessExponents::derive(&params, &secret, &TORRENT);
        let mut scratch = vec![0; 2 * width];
        for at in [0, 5, BATCH, BATCH + 2] {
            let plain: Vec<u8> = (0..2 * width).map(|i| (i % 100) as u8 + 1).collect();
            let factor = WitnessFactor::derive(&params, &exponents.exponent(pieces[at]));
            let hash = witness_hash(&params, &factor, &mut plain.clone()).unwrap();
            let part = |keys: &[u8]| keys[at * width..(at + 1) * width].to_vec();
            let mut piece = plain;
            let k = EncryptionKey::from_bytes(&params, &part(&encryption)).unwrap();
            encrypt_piece(&params, &k, &mut piece).unwrap();
            let key = WitnessKey::from_bytes(&params, &part(&keys)).unwrap();
            assert_eq!(check_witness(&params, &key, &hash, &piece, &mut scratch), Ok(()), "{at}");
            piece[7] ^= 1;
            assert!(check_witness(&params, &key, &hash, &piece, &mut scratch).is_err());
        }
    }

    #[test]
    fn tables_of_generators_are_shared_and_bounded() {
        let kept = WitnessTables::default();
        let short = params();
        let full =
            Params::new(Profile::Sealed, Group::ffdhe2048(Kernels::portable()), Exponents::Full).unwrap();
        for n in 1..=2 * MAX_WITNESS_TABLES as u8 {
            let other = (vec![n], Exponents::Short);
            kept.0.lock().unwrap().push_front((other, Arc::from([])));
        }
        let first = kept.words(&short).unwrap();
        assert_eq!(kept.0.lock().unwrap().len(), MAX_WITNESS_TABLES);
        assert_ne!(first.len(), kept.words(&full).unwrap().len());
        assert!(Arc::ptr_eq(&first, &kept.words(&params()).unwrap()));
        // The one that was used last goes last.
        assert_eq!(kept.0.lock().unwrap()[0].0.1, Exponents::Short);
    }

    #[test]
    fn the_cache_keeps_what_was_used_last() {
        let params = params();
        let subscribers: Vec<_> = (0..3).map(|_| subscriber(&params)).collect();
        let one = Tables::new(&params, subscribers[0].1, &subscribers[0].2).unwrap().bytes();
        let cache = TableCache::new(2 * one);
        let tables = |n: usize| cache.tables(&params, &subscribers[n].1, &subscribers[n].2).unwrap();
        let (first, second) = (tables(0), tables(1));
        assert!(Arc::ptr_eq(&first, &tables(0)));
        tables(2);
        assert_eq!(cache.bytes(), 2 * one);
        assert!(Arc::ptr_eq(&first, &tables(0)));
        assert!(cache.has(&subscribers[0].1) && !cache.has(&subscribers[1].1));
        assert!(!Arc::ptr_eq(&second, &tables(1)));
    }

    #[test]
    fn a_bad_public_key_makes_no_tables() {
        let params = params();
        let mut y = vec![0; params.group().bytes()];
        y[255] = 1;
        assert!(TableCache::new(1 << 20).tables(&params, &SubscriberId([0; 32]), &y).is_err());
    }
}
