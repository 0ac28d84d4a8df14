//! A peer's pieces on disk: `pieces.bin`, where piece i lies at i·P, and `pieces.idx`, which says what is there.
//!
//! ```text
//! pieces.idx   "SSPIECES" ‖ version (4) ‖ piece length (4) ‖ pieces (4) ‖ torrent id (32)     big-endian
//!              then records of 85 bytes, appended: kind (1: stored, 0: discarded) ‖ piece (4) ‖ epoch (8)
//!              ‖ BLAKE3 of the ciphertext (32) ‖ sender's subscriber id (32) ‖ first 8 bytes of the record's BLAKE3
//! ```
//!
//! A piece is written before its record. Whatever stops the program, a torn record is dropped at the next start, and
//! every recorded piece is hashed again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use swarmseal_core::{SubscriberId, TorrentId};

use crate::platform::{read_at, write_at};

const MAGIC: &[u8; 8] = b"SSPIECES";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 4 + 32;
const RECORD_LEN: usize = 1 + 4 + 8 + 32 + 32 + 8;
const STORED: u8 = 1;
const DISCARDED: u8 = 0;

/// What is known of a stored piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPiece {
    /// The epoch that it is encrypted for; 0 in a plain torrent.
    pub epoch: u64,
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// Who sent it; `None` in a plain torrent.
    pub sender: Option<SubscriberId>,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("no space left for {0}: free some and start again; nothing that was stored is lost")]
    Full(PathBuf),
    /// Another input or output error.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It was written by a newer program.
    #[error("{path} has version {found}; this program reads up to version {newest}")]
    NewerVersion {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest that is read.
        newest: u32,
    },
    /// It belongs to another torrent or subscriber, or is another kind of file.
    #[error("{0} is not this subscription's")]
    Foreign(PathBuf),
    /// Another process uses it.
    #[error("{0} is in use by another process")]
    Busy(PathBuf),
    /// A piece that is not there.
    #[error("piece {0} is not stored")]
    Missing(u32),
}

/// The shape of a torrent, which a store keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The torrent; zeros where it is plain.
    pub torrent_id: TorrentId,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// How many there are.
    pub piece_count: u32,
}

/// The store of one torrent. Only one at a time can be open on a directory.
#[derive(Debug)]
pub struct Store {
    shape: Shape,
    data: File,
    /// Held by who writes pieces. The kernel lets one in at a time anyway, and the others spin.
    writing: Mutex<()>,
    data_path: PathBuf,
    index_path: PathBuf,
    index: Mutex<Index>,
}

#[derive(Debug)]
struct Index {
    file: File,
    pieces: Vec<Option<StoredPiece>>,
}

impl Store {
    /// Opens or creates the store in `dir`. Reads and hashes every recorded piece: this takes a while, so call it where
    /// blocking is allowed.
    pub fn open(dir: &Path, shape: Shape) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let (data_path, index_path) = (dir.join("pieces.bin"), dir.join("pieces.idx"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let data = options.open(&data_path).map_err(|source| failed(&data_path, source))?;
        match data.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(data_path)),
            Err(TryLockError::Error(source)) => return Err(failed(&data_path, source)),
        }
        let mut file = options.open(&index_path).map_err(|source| failed(&index_path, source))?;
        let pieces = read_index(&mut file, &index_path, &shape)?;
        let index = Mutex::new(Index { file, pieces });
        let store = Store { shape, data, writing: Mutex::default(), data_path, index_path, index };
        store.drop_damaged()?;
        Ok(store)
    }

    /// Every piece that was ever stored, as [`stored_pieces`].
    pub fn history(&self) -> Result<Vec<(u32, StoredPiece)>, StoreError> {
        history(&self.index_path, &self.shape)
    }

    /// What it was opened for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is known of a piece, or `None` where it is missing.
    pub fn piece(&self, piece: u32) -> Option<StoredPiece> {
        self.index().pieces.get(piece as usize).copied().flatten()
    }

    /// All pieces.
    pub fn pieces(&self) -> Vec<Option<StoredPiece>> {
        self.index().pieces.clone()
    }

    /// How many pieces are stored.
    pub fn count(&self) -> u32 {
        self.index().pieces.iter().flatten().count() as u32
    }

    /// Writes a piece, then its record. `data`: the piece's whole length.
    pub fn put(&self, piece: u32, data: &[u8], stored: StoredPiece) -> Result<(), StoreError> {
        self.check(piece, data.len())?;
        {
            let _alone = self.writing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            write_at(&self.data, data, self.offset(piece))
                .map_err(|source| failed(&self.data_path, source))?;
        }
        self.append(&record(STORED, piece, &stored))?;
        self.index().pieces[piece as usize] = Some(stored);
        Ok(())
    }

    /// Reads a piece into `out`, which has the piece's length.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        self.check(piece, out.len())?;
        if self.piece(piece).is_none() {
            return Err(StoreError::Missing(piece));
        }
        read_at(&self.data, out, self.offset(piece)).map_err(|source| failed(&self.data_path, source))
    }

    /// Forgets a piece, so that it is fetched again; what was known of it, for blame.
    pub fn discard(&self, piece: u32) -> Result<Option<StoredPiece>, StoreError> {
        let Some(stored) = self.piece(piece) else { return Ok(None) };
        self.append(&record(DISCARDED, piece, &stored))?;
        self.index().pieces[piece as usize] = None;
        Ok(Some(stored))
    }

    /// Makes everything written so far survive a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.data.sync_data().map_err(|source| failed(&self.data_path, source))?;
        self.index().file.sync_data().map_err(|source| failed(&self.index_path, source))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn offset(&self, piece: u32) -> u64 {
        u64::from(piece) * u64::from(self.shape.piece_len)
    }

    fn check(&self, piece: u32, len: usize) -> Result<(), StoreError> {
        if piece >= self.shape.piece_count || len != self.shape.piece_len as usize {
            return Err(StoreError::Missing(piece));
        }
        Ok(())
    }

    fn append(&self, record: &[u8; RECORD_LEN]) -> Result<(), StoreError> {
        let mut index = self.index();
        let end = index.file.seek(SeekFrom::End(0)).map_err(|source| failed(&self.index_path, source))?;
        let written = index.file.write_all(record);
        if let Err(source) = written {
            // A torn record would hide those that follow it.
            let _ = index.file.set_len(end);
            return Err(failed(&self.index_path, source));
        }
        Ok(())
    }

    fn drop_damaged(&self) -> Result<(), StoreError> {
        let mut buffer = vec![0; self.shape.piece_len as usize];
        for (piece, stored) in (0..).zip(self.pieces()) {
            let Some(stored) = stored else { continue };
            let whole = self.read(piece, &mut buffer).is_ok();
            if !whole || blake3::hash(&buffer) != stored.hash {
                tracing::warn!(piece, "a stored piece is damaged and will be fetched again");
                self.discard(piece)?;
            }
        }
        Ok(())
    }
}

/// Every piece that was ever stored in `dir`, the oldest first; what was discarded since is among them, for blame.
pub fn stored_pieces(dir: &Path, shape: &Shape) -> Result<Vec<(u32, StoredPiece)>, StoreError> {
    history(&dir.join("pieces.idx"), shape)
}

fn history(path: &Path, shape: &Shape) -> Result<Vec<(u32, StoredPiece)>, StoreError> {
    let bytes = if_there(std::fs::read(path), path)?.unwrap_or_default();
    let mut stored = Vec::new();
    parse_records(&bytes, path, shape, |piece, kind, record| {
        if kind == STORED {
            stored.push((piece, record));
        }
    })?;
    Ok(stored)
}

/// A store as it was at one moment, for a player: another process may go on fetching into it.
#[derive(Debug)]
pub struct StoreReader {
    data: Option<File>,
    data_path: PathBuf,
    pieces: Vec<Option<StoredPiece>>,
    piece_len: u32,
}

impl StoreReader {
    /// Reads the index of the store in `dir`; where there is none, no piece is stored. Nothing is hashed or changed.
    pub fn open(dir: &Path, shape: &Shape) -> Result<Self, StoreError> {
        let (data_path, index_path) = (dir.join("pieces.bin"), dir.join("pieces.idx"));
        let index = if_there(std::fs::read(&index_path), &index_path)?;
        let (pieces, _) = parse_index(&index.unwrap_or_default(), &index_path, shape)?;
        let data = if_there(File::open(&data_path), &data_path)?;
        Ok(StoreReader { data, data_path, pieces, piece_len: shape.piece_len })
    }

    /// What is known of a piece, or `None` where it is missing.
    pub fn piece(&self, piece: u32) -> Option<StoredPiece> {
        self.pieces.get(piece as usize).copied().flatten()
    }

    /// Reads a piece into `out`, which has the piece's length.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        let Some(data) = self.data.as_ref().filter(|_| self.piece(piece).is_some()) else {
            return Err(StoreError::Missing(piece));
        };
        let offset = u64::from(piece) * u64::from(self.piece_len);
        read_at(data, out, offset).map_err(|source| failed(&self.data_path, source))
    }
}

fn read_index(file: &mut File, path: &Path, shape: &Shape) -> Result<Vec<Option<StoredPiece>>, StoreError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| failed(path, source))?;
    let (pieces, good) = parse_index(&bytes, path, shape)?;
    if good == 0 {
        let header = header(shape);
        file.rewind().and_then(|()| file.write_all(&header)).map_err(|source| failed(path, source))?;
    } else if good < bytes.len() {
        file.set_len(good as u64).map_err(|source| failed(path, source))?;
    }
    Ok(pieces)
}

/// None for a file that is not there.
pub(super) fn if_there<T>(opened: io::Result<T>, path: &Path) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// The pieces that an index records, and how many of its bytes are sound: 0 where not even the header is whole.
fn parse_index(
    bytes: &[u8],
    path: &Path,
    shape: &Shape,
) -> Result<(Vec<Option<StoredPiece>>, usize), StoreError> {
    let mut pieces = vec![None; shape.piece_count as usize];
    let good = parse_records(bytes, path, shape, |piece, kind, stored| {
        pieces[piece as usize] = (kind == STORED).then_some(stored);
    })?;
    Ok((pieces, good))
}

/// Hands out every record of an index; how many of its bytes are sound, as [`parse_index`].
fn parse_records(
    bytes: &[u8],
    path: &Path,
    shape: &Shape,
    mut record: impl FnMut(u32, u8, StoredPiece),
) -> Result<usize, StoreError> {
    let header = header(shape);
    // A start that was cut short leaves less than a header.
    if bytes.len() < HEADER_LEN && header.starts_with(bytes) {
        return Ok(0);
    }
    if bytes.len() < HEADER_LEN || !bytes.starts_with(MAGIC) {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let found = number(&bytes[8..12]) as u32;
    if found > VERSION {
        return Err(StoreError::NewerVersion { path: path.to_owned(), found, newest: VERSION });
    }
    if bytes[..HEADER_LEN] != header {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let mut good = HEADER_LEN;
    for bytes in bytes[HEADER_LEN..].chunks_exact(RECORD_LEN) {
        let (body, check) = bytes.split_at(RECORD_LEN - 8);
        let piece = number(&body[1..5]) as u32;
        if blake3::hash(body).as_bytes()[..8] != *check || piece >= shape.piece_count {
            break;
        }
        record(piece, body[0], stored_piece(body));
        good += RECORD_LEN;
    }
    Ok(good)
}

fn stored_piece(body: &[u8]) -> StoredPiece {
    let mut hash = [0; 32];
    hash.copy_from_slice(&body[13..45]);
    let mut sender = [0; 32];
    sender.copy_from_slice(&body[45..77]);
    StoredPiece {
        epoch: number(&body[5..13]),
        hash,
        sender: (sender != [0; 32]).then_some(SubscriberId(sender)),
    }
}

fn header(shape: &Shape) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_be_bytes());
    out[12..16].copy_from_slice(&shape.piece_len.to_be_bytes());
    out[16..20].copy_from_slice(&shape.piece_count.to_be_bytes());
    out[20..].copy_from_slice(&shape.torrent_id.0);
    out
}

fn record(kind: u8, piece: u32, stored: &StoredPiece) -> [u8; RECORD_LEN] {
    let mut out = [0; RECORD_LEN];
    out[0] = kind;
    out[1..5].copy_from_slice(&piece.to_be_bytes());
    out[5..13].copy_from_slice(&stored.epoch.to_be_bytes());
    out[13..45].copy_from_slice(&stored.hash);
    out[45..77].copy_from_slice(&stored.sender.map_or([0; 32], |sender| sender.0));
    let check = blake3::hash(&out[..RECORD_LEN - 8]);
    out[RECORD_LEN - 8..].copy_from_slice(&check.as_bytes()[..8]);
    out
}

fn number(big_endian: &[u8]) -> u64 {
    big_endian.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

pub(super) fn failed(path: &Path, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(path.to_owned()),
        _ => StoreError::Io { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { torrent_id: TorrentId([7; 32]), piece_len: 64, piece_count: 5 };

    fn put(store: &Store, piece: u32) {
        let data = [piece as u8; 64];
        let hash = *blake3::hash(&data).as_bytes();
        store.put(piece, &data, StoredPiece { epoch: 3, hash, sender: Some(SubscriberId([9; 32])) }).unwrap();
    }

    #[test]
    fn pieces_survive_and_discarded_ones_stay_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        put(&store, 1);
        put(&store, 4);
        assert_eq!(store.discard(4).unwrap().unwrap().sender, Some(SubscriberId([9; 32])));
        assert!(matches!(Store::open(dir.path(), SHAPE), Err(StoreError::Busy(_))));
        drop(store);
        let store = Store::open(dir.path(), SHAPE).unwrap();
        assert_eq!(store.count(), 1);
        assert_eq!(store.piece(1).unwrap().epoch, 3);
        let mut out = [0; 64];
        store.read(1, &mut out).unwrap();
        assert_eq!(out, [1; 64]);
        assert!(matches!(store.read(4, &mut out), Err(StoreError::Missing(4))));
        assert!(matches!(store.read(5, &mut out), Err(StoreError::Missing(5))));
    }

    #[test]
    fn a_kill_at_any_byte_of_the_index_loses_whole_records_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        put(&store, 0);
        put(&store, 2);
        drop(store);
        let index = dir.path().join("pieces.idx");
        let whole = std::fs::read(&index).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&index, &whole[..len]).unwrap();
            let store = Store::open(dir.path(), SHAPE).unwrap();
            assert_eq!(store.count() as usize, len.saturating_sub(HEADER_LEN) / RECORD_LEN, "{len}");
            put(&store, 3);
            drop(store);
            assert!(Store::open(dir.path(), SHAPE).unwrap().piece(3).is_some(), "{len}");
        }
    }

    #[test]
    fn damaged_pieces_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        put(&store, 0);
        put(&store, 2);
        drop(store);
        let data = dir.path().join("pieces.bin");
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&data, &bytes).unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        assert!(store.piece(0).is_none() && store.piece(2).is_some());
        drop(store);
        std::fs::write(&data, &bytes[..100]).unwrap();
        assert_eq!(Store::open(dir.path(), SHAPE).unwrap().count(), 0);
    }

    #[test]
    fn newer_and_foreign_indexes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), SHAPE).unwrap());
        let other = Shape { torrent_id: TorrentId([8; 32]), ..SHAPE };
        assert!(matches!(Store::open(dir.path(), other), Err(StoreError::Foreign(_))));
        let index = dir.path().join("pieces.idx");
        let mut bytes = std::fs::read(&index).unwrap();
        bytes[11] = 2;
        std::fs::write(&index, &bytes).unwrap();
        assert!(matches!(Store::open(dir.path(), SHAPE), Err(StoreError::NewerVersion { found: 2, .. })));
        std::fs::write(&index, b"what").unwrap();
        assert!(matches!(Store::open(dir.path(), SHAPE), Err(StoreError::Foreign(_))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let error = failed(Path::new("x"), io::Error::from_raw_os_error(28));
        assert!(matches!(error, StoreError::Full(_)), "{error}");
    }
}
