//! The plaintext stream over the files on disk, read at any place.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Error;
use crate::wire::content::Manifest;

/// The plaintext stream: the header, then the files one after another. See [`crate::wire::content`].
#[derive(Debug)]
pub struct PlainStream {
    header: Vec<u8>,
    files: Vec<Placed>,
    length: u64,
}

/// A file and where it lies in the stream.
#[derive(Debug)]
struct Placed {
    path: PathBuf,
    start: u64,
    size: u64,
}

impl PlainStream {
    /// The stream of listed files below `root`. Nothing is opened yet.
    pub fn new(root: &Path, manifest: &Manifest) -> Self {
        let header = manifest.header();
        let mut length = header.len() as u64;
        let mut place = |entry: &crate::wire::content::FileEntry| {
            let placed = Placed { path: root.join(entry.relative_path()), start: length, size: entry.size };
            length += entry.size;
            placed
        };
        let files = manifest.files().entries().iter().map(&mut place).collect();
        PlainStream { header, files, length }
    }

    /// Bytes of the stream without the zeros that fill the last piece.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Checks that every file is there with its listed size. Errors: [`Error::SizeChanged`], [`Error::Io`].
    pub fn check_sizes(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| file.open().map(drop))
    }

    /// Reads from `offset`; behind the end come zeros.
    ///
    /// Errors: [`Error::SizeChanged`] where a file no longer has its listed size, [`Error::Io`].
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let end = offset.saturating_add(out.len() as u64);
        // The part of out that the stream's bytes start … start + size fill, and where in them it begins.
        let overlap = |start: u64, size: u64| {
            let (from, to) = (start.max(offset), (start + size).min(end));
            (from < to).then(|| ((from - offset) as usize..(to - offset) as usize, from - start))
        };
        let mut filled = 0;
        if let Some((part, from)) = overlap(0, self.header.len() as u64) {
            let from = from as usize;
            filled = part.end;
            out[part.clone()].copy_from_slice(&self.header[from..from + part.len()]);
        }
        let first = self.files.partition_point(|file| file.start + file.size <= offset);
        for file in self.files[first..].iter().take_while(|file| file.start < end) {
            if let Some((part, from)) = overlap(file.start, file.size) {
                filled = part.end;
                file.read_at(from, &mut out[part])?;
            }
        }
        out[filled..].fill(0);
        Ok(())
    }
}

impl Placed {
    fn open(&self) -> Result<File, Error> {
        let io = |error| Error::Io { path: self.path.clone(), error };
        let file = File::open(&self.path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        if found == self.size {
            Ok(file)
        } else {
            Err(Error::SizeChanged { path: self.path.clone(), expected: self.size, found })
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let io = |error| Error::Io { path: self.path.clone(), error };
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        file.read_exact(out).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::wire::content::{FileEntry, FileList};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_place_reads_as_the_whole(
            sizes in prop::collection::vec(0usize..50, 1..6),
            payload in 1usize..64,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut entries = Vec::new();
            let mut content = Vec::new();
            for (i, &size) in sizes.iter().enumerate() {
                let bytes = vec![i as u8 + 1; size];
                fs::write(dir.path().join(i.to_string()), &bytes).unwrap();
                content.extend_from_slice(&bytes);
                entries.push(FileEntry { mime: "x".into(), path: vec![i.to_string()], size: size as u64 });
            }
            let manifest = Manifest::new(FileList::new(entries).unwrap(), None).unwrap();
            let stream = PlainStream::new(dir.path(), &manifest);
            let mut expected = [manifest.header(), content].concat();
            prop_assert_eq!(stream.length(), expected.len() as u64);
            expected.resize(expected.len().next_multiple_of(payload), 0);
            let mut out = vec![0xee; payload];
            for (index, chunk) in expected.chunks(payload).enumerate() {
                stream.read_at((index * payload) as u64, &mut out).unwrap();
                prop_assert_eq!(&out, chunk);
            }
        }
    }

    #[test]
    fn a_file_that_grew_or_went_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"four").unwrap();
        let entry = FileEntry { mime: String::new(), path: vec!["a".into()], size: 4 };
        let manifest = Manifest::new(FileList::new(vec![entry]).unwrap(), None).unwrap();
        let stream = PlainStream::new(dir.path(), &manifest);
        let mut out = vec![0; stream.length() as usize];
        stream.check_sizes().unwrap();
        stream.read_at(0, &mut out).unwrap();
        assert!(out.ends_with(b"four"));
        fs::write(&path, b"fives").unwrap();
        let changed = stream.read_at(0, &mut out);
        assert!(matches!(changed, Err(Error::SizeChanged { expected: 4, found: 5, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(stream.check_sizes(), Err(Error::Io { .. })));
    }
}
