//! An ordinary torrent's files, where their user wants them.
//!
//! A file that is not whole yet has `.part` behind its name. What is there is not written down: every piece is hashed when the store
//! is opened, so nothing can be believed that the disk does not have.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::{Digest, Sha1};

use super::store::{StoreError, failed};
use crate::atomic_file::make_parents;
use crate::platform::{read_at, write_at};
use crate::wire::layout::Layout;
use crate::wire::plain::{PlainFile, PlainMetainfo};

/// Files that are open at a time, for reading and for writing apart.
const OPEN: usize = 64;

/// The files of one torrent.
#[derive(Debug)]
pub struct FileStore {
    layout: Layout,
    hashes: Arc<[[u8; 20]]>,
    files: Vec<StoredFile>,
    have: Mutex<Vec<bool>>,
    open: Mutex<OpenFiles>,
}

#[derive(Debug)]
struct StoredFile {
    /// Where it ends up.
    path: PathBuf,
    range: Range<u64>,
    padding: bool,
    /// Pieces of it that are missing.
    missing: AtomicU32,
}

/// What of a piece is in one file.
struct Part {
    file: usize,
    /// Which of the piece's bytes.
    bytes: Range<usize>,
    /// Where they begin in the file.
    offset: u64,
}

/// Handles by file and by whether they can write; the one used longest ago is closed first.
#[derive(Debug, Default)]
struct OpenFiles {
    handles: HashMap<(usize, bool), (Arc<File>, u64)>,
    uses: u64,
}

impl FileStore {
    /// The torrent's files below `directory`, which is created. Every piece that may be there is hashed, on all cores: call it where
    /// blocking is allowed. `progress`: pieces hashed so far.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Io`]; a link on the way out of `directory` is one.
    pub fn open(
        directory: &Path,
        torrent: &PlainMetainfo,
        progress: &(dyn Fn(u32) + Sync),
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
        let place = |file: &PlainFile| {
            let path = if file.padding {
                PathBuf::new()
            } else {
                make_parents(directory, &file.path).map_err(|(path, source)| failed(&path, source))?
            };
            let (range, padding) = (file.range.clone(), file.padding);
            Ok(StoredFile { path, range, padding, missing: AtomicU32::new(0) })
        };
        let files: Vec<StoredFile> = torrent.files.iter().map(place).collect::<Result<_, StoreError>>()?;
        let store = FileStore {
            layout: torrent.layout,
            hashes: torrent.pieces.clone(),
            files,
            have: Mutex::new(vec![false; torrent.layout.piece_count() as usize]),
            open: Mutex::default(),
        };
        let have = store.check(progress);
        for file in &store.files {
            let missing = store.pieces_of(file).filter(|&piece| !have[piece as usize]).count();
            file.missing.store(missing as u32, Ordering::Relaxed);
        }
        *store.have() = have;
        for index in 0..store.files.len() {
            store.finish_if_whole(index)?;
        }
        Ok(store)
    }

    /// How the torrent is cut.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// For each piece, whether it is there.
    pub fn pieces(&self) -> Vec<bool> {
        self.have().clone()
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.have().iter().all(|&have| have)
    }

    /// Writes a piece if it is the torrent's; whether it was. `data`: the piece's whole length.
    pub fn put(&self, piece: u32, data: &[u8]) -> Result<bool, StoreError> {
        if data.len() != self.layout.len_of(piece) as usize || !self.is_right(piece, data) {
            return Ok(false);
        }
        for part in self.parts(piece).filter(|part| !self.files[part.file].padding) {
            let path = &self.files[part.file].path;
            let handle = self.handle(part.file, true).map_err(|source| failed(path, source))?;
            write_at(&handle, &data[part.bytes], part.offset).map_err(|source| failed(path, source))?;
        }
        let fresh = !std::mem::replace(&mut self.have()[piece as usize], true);
        for part in self.parts(piece).filter(|_| fresh) {
            self.files[part.file].missing.fetch_sub(1, Ordering::AcqRel);
            self.finish_if_whole(part.file)?;
        }
        Ok(true)
    }

    /// Reads a piece that is there into `out`, which has the piece's length.
    pub fn read(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        let there = self.have().get(piece as usize).copied().unwrap_or(false);
        if !there || out.len() != self.layout.len_of(piece) as usize {
            return Err(StoreError::Missing(piece));
        }
        self.read_files(piece, out)
    }

    /// Makes everything written so far survive a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        let handles: Vec<(usize, Arc<File>)> = {
            let open = self.open_files();
            let written = open.handles.iter().filter(|((_, writes), _)| *writes);
            written.map(|((index, _), (file, _))| (*index, file.clone())).collect()
        };
        handles.iter().try_for_each(|(index, file)| {
            file.sync_data().map_err(|source| failed(&self.files[*index].path, source))
        })
    }

    fn have(&self) -> MutexGuard<'_, Vec<bool>> {
        self.have.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_files(&self) -> MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_right(&self, piece: u32, data: &[u8]) -> bool {
        let digest: [u8; 20] = Sha1::digest(data).into();
        self.hashes.get(piece as usize) == Some(&digest)
    }

    /// Where a piece's bytes are, file by file; nothing of files that have none.
    fn parts(&self, piece: u32) -> impl Iterator<Item = Part> + '_ {
        let range = self.layout.range(piece);
        let first = self.files.partition_point(|file| file.range.end <= range.start);
        let files = self.files.iter().enumerate().skip(first);
        let start = range.start;
        files.take_while(move |(_, file)| file.range.start < range.end).filter_map(move |(index, file)| {
            let here = range.start.max(file.range.start)..range.end.min(file.range.end);
            (!here.is_empty()).then(|| Part {
                file: index,
                bytes: (here.start - start) as usize..(here.end - start) as usize,
                offset: here.start - file.range.start,
            })
        })
    }

    fn pieces_of(&self, file: &StoredFile) -> Range<u32> {
        let piece_len = u64::from(self.layout.piece_len());
        if file.range.is_empty() {
            return 0..0;
        }
        (file.range.start / piece_len) as u32..file.range.end.div_ceil(piece_len) as u32
    }

    fn read_files(&self, piece: u32, out: &mut [u8]) -> Result<(), StoreError> {
        for part in self.parts(piece) {
            let (file, bytes) = (&self.files[part.file], &mut out[part.bytes]);
            if file.padding {
                bytes.fill(0);
            } else {
                let handle = self.handle(part.file, false).map_err(|source| failed(&file.path, source))?;
                read_at(&handle, bytes, part.offset).map_err(|source| failed(&file.path, source))?;
            }
        }
        Ok(())
    }

    /// Which pieces are on the disk.
    fn check(&self, progress: &(dyn Fn(u32) + Sync)) -> Vec<bool> {
        let count = self.layout.piece_count();
        let (next, done) = (AtomicU32::new(0), AtomicU32::new(0));
        let found = Mutex::new(vec![false; count as usize]);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut buffer = vec![0; self.layout.piece_len() as usize];
                    loop {
                        let piece = next.fetch_add(1, Ordering::Relaxed);
                        if piece >= count {
                            break;
                        }
                        let data = &mut buffer[..self.layout.len_of(piece) as usize];
                        // What cannot be read is fetched: writing it will say what is wrong.
                        let there = self.read_files(piece, data).is_ok() && self.is_right(piece, data);
                        found.lock().unwrap_or_else(PoisonError::into_inner)[piece as usize] = there;
                        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file's handle. For writing, the file is created in its full length; for reading, whichever of its two names is there.
    fn handle(&self, index: usize, writes: bool) -> io::Result<Arc<File>> {
        let mut open = self.open_files();
        open.uses += 1;
        let uses = open.uses;
        if let Some((handle, used)) = open.handles.get_mut(&(index, writes)) {
            *used = uses;
            return Ok(handle.clone());
        }
        let file = &self.files[index];
        let handle = if writes { open_to_write(file)? } else { open_to_read(file)? };
        if open.handles.len() >= OPEN
            && let Some(&oldest) = open.handles.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key)
        {
            open.handles.remove(&oldest);
        }
        let handle = Arc::new(handle);
        open.handles.insert((index, writes), (handle.clone(), uses));
        Ok(handle)
    }

    /// Gives a file its name once nothing of it is missing.
    fn finish_if_whole(&self, index: usize) -> Result<(), StoreError> {
        let file = &self.files[index];
        if file.padding || file.missing.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let io = |source| failed(&file.path, source);
        if file.range.is_empty() {
            let created = OpenOptions::new().write(true).create(true).truncate(false).open(&file.path);
            return created.map(drop).map_err(io);
        }
        match fs::rename(part(&file.path), &file.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(io),
        }
    }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn open_to_read(file: &StoredFile) -> io::Result<File> {
    match File::open(&file.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(part(&file.path)),
        opened => opened,
    }
}

fn open_to_write(file: &StoredFile) -> io::Result<File> {
    let whole = OpenOptions::new().read(true).write(true).open(&file.path);
    let handle = match whole {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(part(&file.path))?
        }
        opened => opened?,
    };
    let length = file.range.end - file.range.start;
    if handle.metadata()?.len() != length {
        handle.set_len(length)?;
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::content::{FileEntry, FileList};
    use crate::wire::plain::PlainTorrent;

    const PIECE: usize = 64;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 13) as u8).collect()
    }

    /// Files of these lengths, with a piece of 64 bytes.
    fn torrent(lengths: &[u64]) -> (PlainMetainfo, Vec<u8>) {
        let entry = |(i, &size): (usize, &u64)| FileEntry {
            mime: String::new(),
            path: vec![format!("d{}", i % 2), format!("f{i}")],
            size,
        };
        let list = FileList::new(lengths.iter().enumerate().map(entry).collect()).unwrap();
        let bytes = content(lengths.iter().sum::<u64>() as usize);
        let pieces: Vec<[u8; 20]> = bytes.chunks(PIECE).map(|piece| Sha1::digest(piece).into()).collect();
        let file = PlainTorrent {
            name: "t",
            files: Some(&list),
            length: bytes.len() as u64,
            piece_len: PIECE as u32,
            pieces: &pieces,
            announce: None,
            private: false,
        };
        (PlainMetainfo::from_bytes(&file.to_bytes()).unwrap(), bytes)
    }

    fn open(dir: &Path, torrent: &PlainMetainfo) -> FileStore {
        FileStore::open(dir, torrent, &|_| {}).unwrap()
    }

    #[test]
    fn files_get_their_names_when_they_are_whole() {
        let lengths = [10, 100, 0, 5, 64, 130];
        let (torrent, bytes) = torrent(&lengths);
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &torrent);
        assert!(dir.path().join("t/d0/f2").exists(), "an empty file is whole");
        let put = |store: &FileStore, piece: u32| {
            let range = torrent.layout.range(piece);
            assert!(store.put(piece, &bytes[range.start as usize..range.end as usize]).unwrap());
        };
        for piece in [4, 0, 1, 2] {
            put(&store, piece);
        }
        assert!(dir.path().join("t/d1/f1").exists() && dir.path().join("t/d1/f5.part").exists());
        drop(store);
        // Another start: the same is there, whatever the names.
        let store = open(dir.path(), &torrent);
        assert_eq!(store.pieces(), [true, true, true, false, true]);
        let mut out = vec![0; PIECE];
        store.read(1, &mut out).unwrap();
        assert_eq!(out, bytes[64..128]);
        assert!(matches!(store.read(3, &mut out), Err(StoreError::Missing(3))));
        put(&store, 3);
        put(&store, 3);
        assert!(store.is_complete());
        store.sync().unwrap();
        let mut all = Vec::new();
        for file in &torrent.files {
            all.extend(fs::read(dir.path().join(file.path.iter().collect::<PathBuf>())).unwrap());
        }
        assert_eq!(all, bytes);
        assert!(!dir.path().join("t/d1/f5.part").exists());
    }

    #[test]
    fn a_wrong_piece_is_not_written() {
        let (torrent, bytes) = torrent(&[100]);
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &torrent);
        let mut wrong = bytes[..PIECE].to_vec();
        wrong[9] ^= 1;
        assert!(!store.put(0, &wrong).unwrap());
        assert!(!store.put(0, &bytes[..PIECE - 1]).unwrap());
        assert!(!store.put(7, &[]).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("t/d0")).unwrap().count(), 0);
    }

    #[test]
    fn more_files_than_can_be_open() {
        let (torrent, bytes) = torrent(&[10; 3 * OPEN]);
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &torrent);
        for (piece, data) in (0..).zip(bytes.chunks(PIECE)) {
            assert!(store.put(piece, data).unwrap());
        }
        assert!(store.open_files().handles.len() <= OPEN);
        assert!(open(dir.path(), &torrent).is_complete());
    }

    #[test]
    fn damage_is_found_at_the_next_start() {
        let (torrent, bytes) = torrent(&[100, 100]);
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &torrent);
        (0..).zip(bytes.chunks(PIECE)).for_each(|(piece, data)| assert!(store.put(piece, data).unwrap()));
        drop(store);
        let path = dir.path().join("t/d1/f1");
        let mut file = fs::read(&path).unwrap();
        file[99] ^= 1;
        fs::write(&path, &file[..]).unwrap();
        let store = open(dir.path(), &torrent);
        assert_eq!(store.pieces(), [true, true, true, false]);
        assert!(store.put(3, &bytes[192..]).unwrap());
        assert_eq!(fs::read(&path).unwrap(), bytes[100..]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_nowhere() {
        let (torrent, _) = torrent(&[100]);
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("t")).unwrap();
        assert!(FileStore::open(dir.path(), &torrent, &|_| {}).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
