//! A peer's pieces on disk: `pieces.bin`, where piece i lies at i·P, and `pieces.idx`, which says what is there.
//!
//! ```text
//! pieces.idx   "SSPIECES" ‖ version (4) ‖ piece length (4) ‖ pieces (4) ‖ torrent id (32)     big-endian
//!              then records of 53 bytes, appended: kind (1) ‖ piece (4) ‖ epoch (8)
//!              ‖ BLAKE3 of the stored bytes (32) ‖ first 8 bytes of the record's BLAKE3
//! kind         1: stored (0: discarded) + 2: in pieces-aside.bin + 4: in pieces-clear.bin
//! ```
//!
//! A piece is checked before it is stored, and written before its record. Whatever stops the program, a torn record is dropped at the
//! next start, and every recorded piece is hashed again.
//!
//! A piece that moves to another epoch is written aside, which is to say into the one of the two files in which it is not, and its
//! record switches. So while a subscription moves, it takes twice the room. A piece that is not encrypted has epoch 0 and never
//! moves; it lies in a file of its own, so that the other two may be emptied.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use swarmseal_core::TorrentId;

use crate::platform::{read_at, write_at};

const MAGIC: &[u8; 8] = b"SSPIECES";
/// The epoch of a piece that is not encrypted.
pub(super) const NOT_ENCRYPTED: u64 = 0;

const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 4 + 32;
const RECORD_LEN: usize = 1 + 4 + 8 + 32 + 8;
const STORED: u8 = 1;
const ASIDE: u8 = 2;
const CLEAR: u8 = 4;
const DISCARDED: u8 = 0;
/// Of the files, the one for pieces that are not encrypted.
const CLEAR_FILE: usize = 2;
/// Pieces of the index to read again before one that is not as recorded counts as damaged.
const READS: u32 = 3;

/// What is known of a stored piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPiece {
    /// The epoch that it is encrypted for; 0 where it is not encrypted.
    pub epoch: u64,
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
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
    /// A piece that is not what was stored.
    #[error("piece {0} is damaged on the disk")]
    Damaged(u32),
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
    files: [File; 3],
    /// Held by who writes pieces. The kernel lets one in at a time anyway, and the others spin.
    writing: Mutex<()>,
    /// Shared from a piece's first byte to its record; alone, a file is emptied in which nothing is left.
    settled: RwLock<()>,
    paths: [PathBuf; 3],
    index_path: PathBuf,
    index: Mutex<Index>,
}

#[derive(Debug)]
struct Index {
    file: File,
    pieces: Vec<Option<Place>>,
    /// How many pieces of each epoch are in each file.
    held: BTreeMap<(usize, u64), u32>,
}

/// Where a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    stored: StoredPiece,
    /// Which of the files.
    file: usize,
}

impl Store {
    /// Opens or creates the store in `dir`. Reads and hashes every recorded piece: this takes a while, so call it where
    /// blocking is allowed.
    pub fn open(dir: &Path, shape: Shape) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let (paths, index_path) = (data_paths(dir), dir.join("pieces.idx"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let open = |path: &PathBuf| options.open(path).map_err(|source| failed(path, source));
        let data = open(&paths[0])?;
        lock(&data, &paths[0])?;
        let files = [data, open(&paths[1])?, open(&paths[2])?];
        let mut file = open(&index_path)?;
        let pieces = read_index(&mut file, &index_path, &shape)?;
        let index = Mutex::new(Index::new(file, pieces));
        let (writing, settled) = (Mutex::default(), RwLock::default());
        let store = Store { shape, files, writing, settled, paths, index_path, index };
        store.drop_damaged()?;
        store.reclaim()?;
        Ok(store)
    }

    /// Lets nobody open the store in `dir` while the answer lives; `None` where there is no store. Errors: [`StoreError::Busy`] where it is
    /// open.
    pub fn keep_closed(dir: &Path) -> Result<Option<File>, StoreError> {
        let path = &data_paths(dir)[0];
        let data = if_there(OpenOptions::new().read(true).write(true).open(path), path)?;
        data.iter().try_for_each(|data| lock(data, path))?;
        Ok(data)
    }

    /// What it was opened for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is known of a piece, or `None` where it is missing.
    pub fn piece(&self, piece: u32) -> Option<StoredPiece> {
        self.place(piece).map(|place| place.stored)
    }

    /// All pieces.
    pub fn pieces(&self) -> Vec<Option<StoredPiece>> {
        self.index().pieces.iter().map(|place| place.as_ref().map(|place| place.stored)).collect()
    }

    /// How many pieces are stored.
    pub fn count(&self) -> u32 {
        self.index().pieces.iter().flatten().count() as u32
    }

    /// Writes a piece, then its record. `data`: the piece's whole length.
    pub fn put(&self, piece: u32, data: &[u8], stored: StoredPiece) -> Result<(), StoreError> {
        self.check(piece, data.len())?;
        let _unsettled = self.settled.read().unwrap_or_else(PoisonError::into_inner);
        let file = self.file_for(piece, stored.epoch);
        self.write(file, piece, data)?;
        let mut index = self.index();
        index.append(&self.index_path, kind(file), piece, &stored)?;
        index.set(piece, Some(Place { stored, file }));
        Ok(())
    }

    /// Puts what was made of a stored piece in its place, unless that is no longer `from`; whether it was.
    pub fn replace(
        &self,
        piece: u32,
        from: &StoredPiece,
        data: &[u8],
        stored: StoredPiece,
    ) -> Result<bool, StoreError> {
        self.check(piece, data.len())?;
        let _unsettled = self.settled.read().unwrap_or_else(PoisonError::into_inner);
        let movable = |place: &Place| place.stored == *from && place.file != CLEAR_FILE;
        let Some(before) = self.place(piece).filter(movable) else { return Ok(false) };
        let file = 1 - before.file;
        self.write(file, piece, data)?;
        let mut index = self.index();
        if index.pieces[piece as usize].as_ref() != Some(&before) {
            return Ok(false);
        }
        index.append(&self.index_path, kind(file), piece, &stored)?;
        index.set(piece, Some(Place { stored, file }));
        Ok(true)
    }

    /// Reads a piece into `out`, which has the piece's length.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        self.check(piece, out.len())?;
        let place = self.place(piece).ok_or(StoreError::Missing(piece))?;
        self.read_place(piece, &place, out)
    }

    /// Reads a piece that may move meanwhile, and checks it; what it is. Errors: [`StoreError::Damaged`] too.
    pub fn read_stored(&self, piece: u32, out: &mut [u8]) -> Result<StoredPiece, StoreError> {
        self.check(piece, out.len())?;
        let mut place = self.place(piece).ok_or(StoreError::Missing(piece))?;
        for _ in 0..READS {
            let read = self.read_place(piece, &place, out);
            if read.is_ok() && *blake3::hash(out).as_bytes() == place.stored.hash {
                return Ok(place.stored);
            }
            let now = self.place(piece).ok_or(StoreError::Missing(piece))?;
            if now == place {
                read?;
                break;
            }
            place = now;
        }
        Err(StoreError::Damaged(piece))
    }

    /// Empties what nothing is left in, once everything is on the disk that took its place.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        let _settled = self.settled.write().unwrap_or_else(PoisonError::into_inner);
        let held = self.index().held.clone();
        for (at, (file, path)) in self.files.iter().zip(&self.paths).enumerate() {
            let length = file.metadata().map_err(|source| failed(path, source))?.len();
            // Where no piece is recorded at all, what was lost may be the index.
            if length > 0 && !held.is_empty() && !held.keys().any(|(file, _)| *file == at) {
                self.sync()?;
                file.set_len(0).map_err(|source| failed(path, source))?;
            }
        }
        Ok(())
    }

    /// Forgets a piece, so that it is fetched again.
    pub fn discard(&self, piece: u32) -> Result<(), StoreError> {
        let mut index = self.index();
        let Some(Some(place)) = index.pieces.get(piece as usize).copied() else { return Ok(()) };
        index.append(&self.index_path, DISCARDED, piece, &place.stored)?;
        index.set(piece, None);
        Ok(())
    }

    /// Makes everything written so far survive a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        for (file, path) in self.files.iter().zip(&self.paths) {
            file.sync_data().map_err(|source| failed(path, source))?;
        }
        self.index().file.sync_data().map_err(|source| failed(&self.index_path, source))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn place(&self, piece: u32) -> Option<Place> {
        self.index().pieces.get(piece as usize).copied().flatten()
    }

    /// Where a piece goes that came from somebody: with others of its epoch, so that the other file may be emptied.
    fn file_for(&self, piece: u32, epoch: u64) -> usize {
        if epoch == NOT_ENCRYPTED {
            return CLEAR_FILE;
        }
        let index = self.index();
        match &index.pieces[piece as usize] {
            Some(there) if there.stored.epoch != epoch && there.file != CLEAR_FILE => 1 - there.file,
            _ => match index.held.keys().find(|(_, other)| *other == epoch) {
                Some((file, _)) => *file,
                // The first of its epoch.
                None => usize::from(index.held.keys().any(|(file, _)| *file == 0)),
            },
        }
    }

    fn write(&self, file: usize, piece: u32, data: &[u8]) -> Result<(), StoreError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        write_at(&self.files[file], data, self.offset(piece))
            .map_err(|source| failed(&self.paths[file], source))
    }

    fn read_place(&self, piece: u32, place: &Place, out: &mut [u8]) -> Result<(), StoreError> {
        read_at(&self.files[place.file], out, self.offset(piece))
            .map_err(|source| failed(&self.paths[place.file], source))
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

impl Index {
    fn new(file: File, pieces: Vec<Option<Place>>) -> Self {
        let mut held = BTreeMap::new();
        for place in pieces.iter().flatten() {
            *held.entry((place.file, place.stored.epoch)).or_insert(0) += 1;
        }
        Index { file, pieces, held }
    }

    fn set(&mut self, piece: u32, place: Option<Place>) {
        let key = |place: &Place| (place.file, place.stored.epoch);
        if let Some(place) = &place {
            *self.held.entry(key(place)).or_insert(0) += 1;
        }
        if let Some(before) = std::mem::replace(&mut self.pieces[piece as usize], place)
            && let Entry::Occupied(mut count) = self.held.entry(key(&before))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn append(&mut self, path: &Path, kind: u8, piece: u32, stored: &StoredPiece) -> Result<(), StoreError> {
        let failed = |source| failed(path, source);
        let end = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.file.write_all(&record(kind, piece, stored)).map_err(|source| {
            // A torn record would hide those that follow it.
            let _ = self.file.set_len(end);
            failed(source)
        })
    }
}

/// The kind of a piece's record in one of the files.
fn kind(file: usize) -> u8 {
    match file {
        0 => STORED,
        CLEAR_FILE => STORED | CLEAR,
        _ => STORED | ASIDE,
    }
}

/// Makes a store's first file this process's own.
fn lock(data: &File, path: &Path) -> Result<(), StoreError> {
    data.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::Busy(path.to_owned()),
        TryLockError::Error(source) => failed(path, source),
    })
}

fn data_paths(dir: &Path) -> [PathBuf; 3] {
    ["pieces.bin", "pieces-aside.bin", "pieces-clear.bin"].map(|name| dir.join(name))
}

/// A store for a player: as it was at one moment, but for pieces that move meanwhile, for another process may go on fetching
/// into it.
#[derive(Debug)]
pub struct StoreReader {
    /// Opened once they are there.
    files: [OnceLock<File>; 3],
    paths: [PathBuf; 3],
    index_path: PathBuf,
    shape: Shape,
    pieces: RwLock<Vec<Option<Place>>>,
}

impl StoreReader {
    /// Reads the index of the store in `dir`; where there is none, no piece is stored. Nothing is hashed or changed.
    pub fn open(dir: &Path, shape: &Shape) -> Result<Self, StoreError> {
        let (paths, index_path) = (data_paths(dir), dir.join("pieces.idx"));
        let pieces = RwLock::new(read_pieces(&index_path, shape)?);
        let reader = StoreReader { files: Default::default(), paths, index_path, shape: *shape, pieces };
        (0..3).try_for_each(|file| reader.file(file).map(drop))?;
        Ok(reader)
    }

    /// Looks again what is stored: another process may have gone on. Nothing is hashed.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let pieces = read_pieces(&self.index_path, &self.shape)?;
        *self.pieces.write().unwrap_or_else(PoisonError::into_inner) = pieces;
        Ok(())
    }

    /// How many records the index has of a piece: it grows with every copy that is stored, and with every one that is discarded.
    pub fn records(&self, piece: u32) -> Result<u64, StoreError> {
        let index = if_there(std::fs::read(&self.index_path), &self.index_path)?.unwrap_or_default();
        let mut count = 0;
        parse_records(&index, &self.index_path, &self.shape, |of, _, _| count += u64::from(of == piece))?;
        Ok(count)
    }

    /// One of the files, if it is there by now.
    fn file(&self, file: usize) -> Result<Option<&File>, StoreError> {
        let (opened, path) = (&self.files[file], &self.paths[file]);
        if opened.get().is_none()
            && let Some(file) = if_there(File::open(path), path)?
        {
            // Another thread may have been first.
            let _ = opened.set(file);
        }
        Ok(opened.get())
    }

    /// What is known of a piece, or `None` where it is missing.
    pub fn piece(&self, piece: u32) -> Option<StoredPiece> {
        self.place(piece).map(|place| place.stored)
    }

    /// The epochs of the pieces that are there and encrypted.
    pub fn epochs(&self) -> BTreeSet<u64> {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let epochs = pieces.iter().flatten().map(|place| place.stored.epoch);
        epochs.filter(|&epoch| epoch != NOT_ENCRYPTED).collect()
    }

    /// Reads a piece into `out`, which has the piece's length. One that is damaged is read all the same.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        self.read_stored(piece, out).map(drop)
    }

    /// The same, and what it is: it may have moved since it was looked for.
    pub fn read_stored(&self, piece: u32, out: &mut [u8]) -> Result<StoredPiece, StoreError> {
        let mut place = self.place(piece).ok_or(StoreError::Missing(piece))?;
        let mut reads = 0;
        loop {
            reads += 1;
            let read = self.read_place(piece, &place, out);
            if reads == READS || (read.is_ok() && *blake3::hash(out).as_bytes() == place.stored.hash) {
                return read.map(|()| place.stored);
            }
            self.refresh()?;
            let now = self.place(piece).ok_or(StoreError::Missing(piece))?;
            if now == place {
                return read.map(|()| place.stored);
            }
            place = now;
        }
    }

    fn read_place(&self, piece: u32, place: &Place, out: &mut [u8]) -> Result<(), StoreError> {
        let file = self.file(place.file)?.ok_or(StoreError::Missing(piece))?;
        let offset = u64::from(piece) * u64::from(self.shape.piece_len);
        read_at(file, out, offset).map_err(|source| failed(&self.paths[place.file], source))
    }

    fn place(&self, piece: u32) -> Option<Place> {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        pieces.get(piece as usize).copied().flatten()
    }
}

fn read_pieces(index_path: &Path, shape: &Shape) -> Result<Vec<Option<Place>>, StoreError> {
    let index = if_there(std::fs::read(index_path), index_path)?;
    Ok(parse_index(&index.unwrap_or_default(), index_path, shape)?.0)
}

/// The pieces of an index, which is made or mended.
fn read_index(file: &mut File, path: &Path, shape: &Shape) -> Result<Vec<Option<Place>>, StoreError> {
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
fn parse_index(bytes: &[u8], path: &Path, shape: &Shape) -> Result<(Vec<Option<Place>>, usize), StoreError> {
    let mut pieces: Vec<Option<Place>> = vec![None; shape.piece_count as usize];
    let good = parse_records(bytes, path, shape, |piece, kind, stored| {
        let file = if kind & CLEAR != 0 { CLEAR_FILE } else { usize::from(kind & ASIDE != 0) };
        let place = Place { stored, file };
        pieces[piece as usize] = (kind & STORED != 0).then_some(place);
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
    // A start that was cut short leaves less than a header.
    if bytes.len() < HEADER_LEN && header(shape).starts_with(bytes) {
        return Ok(0);
    }
    if bytes.len() < HEADER_LEN || !bytes.starts_with(MAGIC) {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let found = number(&bytes[8..12]) as u32;
    if found > VERSION {
        return Err(StoreError::NewerVersion { path: path.to_owned(), found, newest: VERSION });
    }
    if bytes[..HEADER_LEN] != header(shape) {
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
    StoredPiece { epoch: number(&body[5..13]), hash }
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
        store.put(piece, &data, StoredPiece { epoch: 3, hash }).unwrap();
    }

    #[test]
    fn pieces_survive_and_discarded_ones_stay_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        put(&store, 1);
        put(&store, 4);
        store.discard(4).unwrap();
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

    fn stored(byte: u8, epoch: u64) -> ([u8; 64], StoredPiece) {
        let data = [byte; 64];
        let hash = *blake3::hash(&data).as_bytes();
        (data, StoredPiece { epoch, hash })
    }

    #[test]
    fn a_piece_that_moves_is_there_before_and_after_whenever_the_program_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        (0..4).for_each(|piece| put(&store, piece));
        let before = store.piece(2).unwrap();
        let reader = StoreReader::open(dir.path(), &SHAPE).unwrap();
        let index = dir.path().join("pieces.idx");
        let old = std::fs::read(&index).unwrap();
        let (moved, as_moved) = stored(70, 4);
        assert!(store.replace(2, &before, &moved, as_moved).unwrap());
        // Not again, for it is another now.
        assert!(!store.replace(2, &before, &moved, as_moved).unwrap());
        assert_eq!(store.piece(2), Some(as_moved));
        let mut out = [0; 64];
        assert_eq!((store.read_stored(2, &mut out).unwrap(), out), (as_moved, moved));
        // Whoever read the index before finds what it says: nothing was overwritten.
        assert_eq!((reader.read_stored(2, &mut out).unwrap(), out), (before, [2; 64]));
        drop(store);
        let new = std::fs::read(&index).unwrap();
        for len in old.len()..=new.len() {
            std::fs::write(&index, &new[..len]).unwrap();
            let store = Store::open(dir.path(), SHAPE).unwrap();
            assert_eq!(store.count(), 4, "{len}");
            let expected = if len == new.len() { (as_moved, moved) } else { (before, [2; 64]) };
            assert_eq!((store.read_stored(2, &mut out).unwrap(), out), expected, "{len}");
            // What a kill left aside is no piece.
            std::fs::write(dir.path().join("pieces-aside.bin"), [&[0; 128][..], &moved[..]].concat())
                .unwrap();
        }
    }

    #[test]
    fn what_every_piece_has_left_is_emptied_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        let lengths = || {
            ["pieces.bin", "pieces-aside.bin"]
                .map(|name| std::fs::metadata(dir.path().join(name)).unwrap().len())
        };
        let shift = |epoch: u64| {
            for piece in 0..4 {
                let before = store.piece(piece).unwrap();
                let (data, moved) = stored(10 * epoch as u8 + piece as u8, epoch);
                assert!(store.replace(piece, &before, &data, moved).unwrap());
            }
        };
        (0..4).for_each(|piece| put(&store, piece));
        let reader = StoreReader::open(dir.path(), &SHAPE).unwrap();
        shift(4);
        // What comes now goes along with its epoch.
        let (data, fresh) = stored(99, 4);
        store.put(4, &data, fresh).unwrap();
        store.reclaim().unwrap();
        assert_eq!(lengths(), [0, 5 * 64]);
        let mut out = [0; 64];
        assert_eq!(reader.read_stored(1, &mut out).unwrap().epoch, 4, "it looks at the index again");
        assert_eq!((out, reader.epochs()), ([41; 64], BTreeSet::from([4])));
        store.discard(4).unwrap();
        shift(5);
        store.reclaim().unwrap();
        assert_eq!(lengths(), [4 * 64, 0]);
        drop(store);
        let store = Store::open(dir.path(), SHAPE).unwrap();
        assert_eq!((store.count(), store.piece(3).unwrap().epoch), (4, 5));
    }

    #[test]
    fn what_is_not_encrypted_stays_where_it_is_while_the_rest_moves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), SHAPE).unwrap();
        let lengths = || {
            ["pieces.bin", "pieces-aside.bin", "pieces-clear.bin"]
                .map(|name| std::fs::metadata(dir.path().join(name)).unwrap().len())
        };
        let (data, clear) = stored(77, NOT_ENCRYPTED);
        [1, 3].iter().for_each(|&piece| store.put(piece, &data, clear).unwrap());
        [0, 2].iter().for_each(|&piece| put(&store, piece));
        assert_eq!(lengths(), [3 * 64, 0, 4 * 64]);
        for epoch in [4, 5] {
            for piece in [0, 2] {
                let before = store.piece(piece).unwrap();
                let (data, moved) = stored(epoch as u8, epoch);
                assert!(store.replace(piece, &before, &data, moved).unwrap());
            }
            let (data, moved) = stored(epoch as u8, epoch);
            assert!(!store.replace(1, &clear, &data, moved).unwrap());
            store.reclaim().unwrap();
            let expected = if epoch == 4 { [0, 3 * 64, 4 * 64] } else { [3 * 64, 0, 4 * 64] };
            assert_eq!(lengths(), expected);
        }
        let reader = StoreReader::open(dir.path(), &SHAPE).unwrap();
        assert_eq!(reader.epochs(), BTreeSet::from([5]));
        drop(store);
        let store = Store::open(dir.path(), SHAPE).unwrap();
        let mut out = [0; 64];
        for piece in [1, 3] {
            assert_eq!((store.read_stored(piece, &mut out).unwrap(), out), (clear, [77; 64]));
            assert_eq!((reader.read_stored(piece, &mut out).unwrap(), out), (clear, [77; 64]));
        }
        assert_eq!(store.count(), 4);
        store.discard(3).unwrap();
        assert_eq!(store.count(), 3);
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
        bytes[11] = 4;
        std::fs::write(&index, &bytes).unwrap();
        assert!(matches!(Store::open(dir.path(), SHAPE), Err(StoreError::NewerVersion { found: 4, .. })));
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
