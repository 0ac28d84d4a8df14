//! Packaged pieces kept on a seed's disk: each is made once, and not once for every upload and every subscriber.
//!
//! ```text
//! TORRENT-ID.packages   "SSPACKED" ‖ version (4) ‖ piece length (4) ‖ pieces (4) ‖ torrent id (32)     big-endian
//!                       zeros up to 4,096; then piece i at 4,096 + i·P
//! ```
//!
//! A package opens without a key: the file is as secret as the plaintext, and its owner's alone (0600). It does not say
//! which pieces are there. Each is held against the .torrent's SHA-1 when this process first meets it, and made anew where
//! it is wrong, so that a seed may be stopped at any byte. From then on the file is trusted as the plaintext is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sha1::{Digest, Sha1};

use crate::platform::{make_private_dir, private, read_at, write_at};
use crate::wire::metainfo::Metainfo;

const MAGIC: &[u8; 8] = b"SSPACKED";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 4 + 32;
/// Where the first piece begins: pieces lie on whole pages.
const START: u64 = 4096;

/// Something is there, and was not looked at yet.
const UNKNOWN: u8 = 0;
const ABSENT: u8 = 1;
const GOOD: u8 = 2;

/// Why packages cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Input or output failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It was written by a newer program.
    #[error("{} has version {found}; this program reads up to version {newest}", path.display())]
    NewerVersion {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest that is read.
        newest: u32,
    },
    /// It is another kind of file, or another torrent's.
    #[error("{} does not hold the packaged pieces of this torrent", .0.display())]
    Foreign(PathBuf),
    /// Another process uses it.
    #[error("{} is in use by another process", .0.display())]
    Busy(PathBuf),
}

/// The packaged pieces of one torrent. Only one process at a time has them open.
#[derive(Debug)]
pub struct PackageCache {
    file: File,
    path: PathBuf,
    piece_length: u32,
    hashes: Vec<[u8; 20]>,
    /// Of the first pieces, those for which there is room: every piece is asked for as often as any other.
    states: Vec<AtomicU8>,
    /// The disk is full, or failed: what is there still serves.
    closed: AtomicBool,
}

impl PackageCache {
    /// Opens or creates the torrent's file in `directory`, which is made (0700) where it is not there. `most`: bytes of pieces
    /// that are kept at most. No piece is read.
    ///
    /// Errors: [`CacheError::Foreign`], [`CacheError::NewerVersion`], [`CacheError::Busy`], [`CacheError::Io`].
    pub fn open(directory: &Path, metainfo: &Metainfo, most: u64) -> Result<Self, CacheError> {
        let info = &metainfo.info;
        make_private_dir(directory).map_err(failed(directory))?;
        let path = directory.join(format!("{}.packages", info.seal.torrent_id));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let file = options.open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CacheError::Busy(path)),
            Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        let len = file.metadata().map_err(failed(&path))?.len();
        check_header(&file, &path, len, &header(metainfo))?;
        let room = (most / u64::from(info.piece_length)).min(info.piece_count.into());
        let end_of = |index: u64| START + (index + 1) * u64::from(info.piece_length);
        let state = |index| AtomicU8::new(if end_of(index) <= len { UNKNOWN } else { ABSENT });
        Ok(PackageCache {
            file,
            path,
            piece_length: info.piece_length,
            hashes: info.pieces.clone(),
            states: (0..room).map(state).collect(),
            closed: AtomicBool::new(false),
        })
    }

    /// How many pieces there is room for.
    pub fn room(&self) -> u32 {
        self.states.len() as u32
    }

    /// How many pieces are known to be there.
    pub fn count(&self) -> u32 {
        self.states.iter().filter(|state| state.load(Ordering::Relaxed) == GOOD).count() as u32
    }

    /// Fills `piece` with what is kept; false, with anything in it, where that is missing or wrong.
    pub(super) fn read(&self, index: u32, piece: &mut [u8]) -> bool {
        let Some(state) = self.states.get(index as usize) else { return false };
        let known = state.load(Ordering::Acquire);
        if known == ABSENT {
            return false;
        }
        let read = read_at(&self.file, piece, self.offset(index)).is_ok();
        let good = read && (known == GOOD || self.is_right(index, piece));
        state.store(if good { GOOD } else { ABSENT }, Ordering::Release);
        good
    }

    /// Whether a piece that is missing would be kept.
    pub(super) fn has_room(&self, index: u32) -> bool {
        index < self.room() && !self.closed.load(Ordering::Relaxed)
    }

    /// Whether a packaged piece is what was published.
    pub(super) fn is_right(&self, index: u32, piece: &[u8]) -> bool {
        let found: [u8; 20] = Sha1::digest(piece).into();
        self.hashes.get(index as usize) == Some(&found)
    }

    /// Keeps a piece that is right. Where that fails, nothing is kept from then on.
    pub(super) fn keep(&self, index: u32, piece: &[u8]) {
        let Some(state) = self.states.get(index as usize) else { return };
        match write_at(&self.file, piece, self.offset(index)) {
            Ok(()) => state.store(GOOD, Ordering::Release),
            Err(error) => {
                if !self.closed.swap(true, Ordering::Relaxed) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "no more packaged pieces are kept: they are made for each upload");
                }
            }
        }
    }

    fn offset(&self, index: u32) -> u64 {
        START + u64::from(index) * u64::from(self.piece_length)
    }
}

/// Writes the header of a new file, or of one whose making was cut short, and refuses what is none.
fn check_header(file: &File, path: &Path, len: u64, header: &[u8; START as usize]) -> Result<(), CacheError> {
    let mut found = vec![0; len.min(START) as usize];
    read_at(file, &mut found, 0).map_err(failed(path))?;
    if len < START && header.starts_with(&found) {
        return write_at(file, header, 0).map_err(failed(path));
    }
    if found.len() < HEADER_LEN || !found.starts_with(MAGIC) {
        return Err(CacheError::Foreign(path.to_owned()));
    }
    let version = found[8..12].iter().fold(0, |version: u32, &byte| version << 8 | u32::from(byte));
    if version > VERSION {
        return Err(CacheError::NewerVersion { path: path.to_owned(), found: version, newest: VERSION });
    }
    if found == header { Ok(()) } else { Err(CacheError::Foreign(path.to_owned())) }
}

fn header(metainfo: &Metainfo) -> [u8; START as usize] {
    let info = &metainfo.info;
    let mut out = [0; START as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_be_bytes());
    out[12..16].copy_from_slice(&info.piece_length.to_be_bytes());
    out[16..20].copy_from_slice(&info.piece_count.to_be_bytes());
    out[20..HEADER_LEN].copy_from_slice(&info.seal.torrent_id.0);
    out
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    |source| CacheError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use swarmseal_core::{Exponents, Group, Kernels, Params, Profile};

    use super::*;
    use crate::publish::{Options, Packager, publish};
    use crate::wire::identity::SigningKey;

    #[test]
    fn a_disk_that_takes_no_more_costs_no_piece() {
        let source = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("a"), vec![7; 60_000]).unwrap();
        let group = Group::ffdhe2048(Kernels::portable());
        let options = Options {
            source: source.path().into(),
            name: Some("a".into()),
            authority: None,
            publisher_key: SigningKey::from_bytes(&[2; 32]).public(),
            params: Arc::new(Params::new(Profile::Sealed, group, Exponents::Short).unwrap()),
            piece_length: Some(16 << 10),
            runs: None,
        };
        let (metainfo, seed, _) = publish(&options, &mut UnwrapErr(SysRng), &|_| ()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut cache = PackageCache::open(dir.path(), &metainfo, 1 << 30).unwrap();
        let mut piece = vec![0; 16 << 10];
        Packager::open(source.path(), &seed, &metainfo).unwrap().read_packaged(0, &mut piece).unwrap();
        cache.keep(0, &piece);
        // It can be read and not written, as on a full disk.
        cache.file = File::open(&cache.path).unwrap();
        let packager = Packager::open(source.path(), &seed, &metainfo).unwrap().with_cache(cache);
        for _ in 0..2 {
            for index in 0..metainfo.info.piece_count {
                packager.read_packaged(index, &mut piece).unwrap();
                let cache = packager.cache.as_ref().unwrap();
                assert!(cache.is_right(index, &piece), "{index}");
                assert_eq!(cache.count(), 1);
            }
        }
        assert!(!packager.cache.unwrap().has_room(1));
    }
}
