//! The head of the plaintext stream: which files follow, in which order, and which of their bytes are sealed.
//!
//! ```text
//! length of the manifest (u64, little-endian) ‖ manifest ‖ the files, one after another ‖ zeros
//! manifest   bencoded list of {mime, path, size}                     where all pieces are sealed
//!            bencoded {files: that list, runs: list of lengths, v}    where some are clear, see wire::selection
//! ```
//!
//! A path is a list of components, as in BEP 3. Zeros fill the last piece.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bencode;
use super::selection::{self, Interleaving, Runs};

/// Bytes of the longest manifest that is read.
pub const MAX_LIST: usize = 24 << 20;
/// Bytes before the manifest: its length.
pub const PREFIX: usize = 8;
/// The newest version of a manifest with runs that is understood.
pub const VERSION: u64 = 1;

const MAX_COMPONENTS: usize = 64;

/// Why a list was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no list of files.
    #[error("the content's list of files cannot be read: {0}")]
    Bencode(#[from] bencode::Error),
    /// It lists nothing.
    #[error("the content has no files")]
    Empty,
    /// It is longer than [`MAX_LIST`].
    #[error("the content's list of files is too long: {found} bytes, at most {MAX_LIST}")]
    TooLong {
        /// Its length.
        found: u64,
    },
    /// A path that does not stay below the directory it is extracted to, or that no file system takes.
    #[error("unsafe path in the content: {path:?}")]
    UnsafePath {
        /// The path, shortened.
        path: String,
    },
    /// A path stands there twice, or is a file and a directory at once.
    #[error("the content has two files at {path:?}")]
    DuplicatePath {
        /// The path.
        path: String,
    },
    /// Sizes add up to more than 64 bits.
    #[error("the content's file sizes add up to more than 2^64 bytes")]
    TooLarge,
    /// The manifest is newer than this program.
    #[error("the content's list of files has version {found}; this program understands up to {VERSION}")]
    NewerVersion {
        /// The version found.
        found: u64,
    },
    /// The runs of sealed and clear bytes cannot be, or do not belong to the files or to the torrent.
    #[error(transparent)]
    Selection(#[from] selection::Error),
}

/// One file of the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// MIME type.
    pub mime: String,
    /// Components of the path, below the content's directory.
    pub path: Vec<String>,
    /// Bytes.
    pub size: u64,
}

impl FileEntry {
    /// The path with `/` between its components, for messages.
    pub fn display_path(&self) -> String {
        self.path.join("/")
    }

    /// The path on this system, relative.
    pub fn relative_path(&self) -> PathBuf {
        self.path.iter().collect()
    }
}

/// The files of the content, in the order of the stream: paths are safe and different, sizes add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileList {
    entries: Vec<FileEntry>,
}

impl FileList {
    /// Checks entries. Errors: all but [`Error::Bencode`].
    pub fn new(entries: Vec<FileEntry>) -> Result<Self, Error> {
        if entries.is_empty() {
            return Err(Error::Empty);
        }
        let mut files = HashSet::with_capacity(entries.len());
        let mut total = 0u64;
        for entry in &entries {
            if !is_safe(&entry.path) || entry.mime.len() > 255 || entry.mime.contains(char::is_control) {
                let path = entry.display_path().chars().take(200).collect();
                return Err(Error::UnsafePath { path });
            }
            if !files.insert(entry.path.as_slice()) {
                return Err(Error::DuplicatePath { path: entry.display_path() });
            }
            total = total.checked_add(entry.size).ok_or(Error::TooLarge)?;
        }
        for entry in &entries {
            if let Some(len) = (1..entry.path.len()).find(|&len| files.contains(&entry.path[..len])) {
                return Err(Error::DuplicatePath { path: entry.path[..len].join("/") });
            }
        }
        let list = FileList { entries };
        let found = list.to_bytes().len() as u64;
        if found > MAX_LIST as u64 {
            return Err(Error::TooLong { found });
        }
        total.checked_add(found + PREFIX as u64).ok_or(Error::TooLarge)?;
        Ok(list)
    }

    /// Reads the bencoded list.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::new(bencode::from_bytes(bytes, MAX_LIST)?)
    }

    /// The bencoded list.
    pub fn to_bytes(&self) -> Vec<u8> {
        bencode::to_bytes(&self.entries)
    }

    /// The files.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Reads the manifest's length from the stream's first bytes. Errors: [`Error::TooLong`].
    pub fn length_from_prefix(prefix: [u8; PREFIX]) -> Result<usize, Error> {
        let found = u64::from_le_bytes(prefix);
        usize::try_from(found).ok().filter(|&len| len <= MAX_LIST).ok_or(Error::TooLong { found })
    }

    /// Bytes of all files together.
    pub fn content_length(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }
}

/// What stands before the files: which there are, and which of their bytes are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    files: FileList,
    /// `None`: all bytes are sealed.
    runs: Option<Runs>,
}

#[derive(Serialize)]
struct ManifestOut<'a> {
    files: &'a [FileEntry],
    runs: &'a [u64],
    v: u64,
}

#[derive(Deserialize)]
struct ManifestIn {
    files: Vec<FileEntry>,
    runs: Vec<u64>,
}

impl Manifest {
    /// Of files all of whose bytes are sealed, or of which these runs are. Errors: [`Error::Selection`] where the runs are not as
    /// long as the files, [`Error::TooLong`], [`Error::TooLarge`].
    pub fn new(files: FileList, runs: Option<Runs>) -> Result<Self, Error> {
        if runs.as_ref().is_some_and(|runs| runs.total() != files.content_length()) {
            return Err(selection::Error::BadRuns("they are not as long as the files").into());
        }
        let manifest = Manifest { files, runs };
        let found = manifest.to_bytes().len() as u64;
        if found > MAX_LIST as u64 {
            return Err(Error::TooLong { found });
        }
        manifest.files.content_length().checked_add(found + PREFIX as u64).ok_or(Error::TooLarge)?;
        Ok(manifest)
    }

    /// Reads the bencoded list or dictionary.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.first() != Some(&b'd') {
            return Self::new(FileList::from_bytes(bytes)?, None);
        }
        match bencode::dict_number(bytes, b"v")?.unwrap_or(0) {
            VERSION => {}
            0 => return Err(bencode::Error::Shape("the manifest's version is none".into()).into()),
            found => return Err(Error::NewerVersion { found }),
        }
        let ManifestIn { files, runs } = bencode::from_bytes(bytes, MAX_LIST)?;
        Self::new(FileList::new(files)?, Some(Runs::new(runs)?))
    }

    /// Its bytes, without their length.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.runs {
            None => self.files.to_bytes(),
            Some(runs) => bencode::to_bytes(&ManifestOut {
                files: self.files.entries(),
                runs: runs.lengths(),
                v: VERSION,
            }),
        }
    }

    /// The stream's bytes before the first file.
    pub fn header(&self) -> Vec<u8> {
        let bytes = self.to_bytes();
        [&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat()
    }

    /// The files.
    pub fn files(&self) -> &FileList {
        &self.files
    }

    /// Which bytes are sealed; `None`: all.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.as_ref()
    }

    /// Where each byte of the stream goes, where some are clear. `header`: the length of [`Manifest::header`].
    pub fn interleaving(
        &self,
        header: u64,
        payload: u64,
        piece_length: u64,
    ) -> Result<Option<Interleaving>, Error> {
        let make = |runs| Interleaving::new(header, runs, payload, piece_length);
        Ok(self.runs.as_ref().map(make).transpose()?)
    }
}

/// Whether a path is one of plain names on every system, below the directory it is joined to.
fn is_safe(path: &[String]) -> bool {
    let plain = |name: &String| {
        let mut components = Path::new(name).components();
        name.len() <= 255
            && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\')
            && matches!(components.next(), Some(Component::Normal(only)) if only == name.as_str())
            && components.next().is_none()
    };
    !path.is_empty() && path.len() <= MAX_COMPONENTS && path.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[&str]) -> FileEntry {
        FileEntry { mime: "a/b".into(), path: path.iter().map(|&name| name.into()).collect(), size: 3 }
    }

    #[test]
    fn lists_round_trip() {
        let list = FileList::new(vec![entry(&["a"]), entry(&["b", "c"]), entry(&["b", "..d"])]).unwrap();
        assert_eq!(FileList::from_bytes(&list.to_bytes()).unwrap(), list);
        let header = Manifest::new(list.clone(), None).unwrap().header();
        let (prefix, rest) = header.split_first_chunk().unwrap();
        assert_eq!(FileList::length_from_prefix(*prefix).unwrap(), rest.len());
        assert_eq!(list.content_length(), 9);
        assert_eq!(list.to_bytes()[..27], *b"ld4:mime3:a/b4:pathl1:ae4:s");
    }

    #[test]
    fn paths_stay_below_and_apart() {
        for path in [
            &["..", "a"][..],
            &["a", ".."],
            &["."],
            &[""],
            &[],
            &["a/b"],
            &["/etc"],
            &["a\\b"],
            &["a\0"],
            &["a\u{1b}[2J"],
            &[&"x".repeat(256)],
            &["d"; 65],
        ] {
            assert!(matches!(FileList::new(vec![entry(path)]), Err(Error::UnsafePath { .. })), "{path:?}");
        }
        for (a, b) in [(&["a"][..], &["a"][..]), (&["a"], &["a", "b"]), (&["a", "b", "c"], &["a", "b"])] {
            let list = FileList::new(vec![entry(a), entry(b)]);
            assert!(matches!(list, Err(Error::DuplicatePath { .. })), "{a:?} {b:?}");
        }
        assert_eq!(FileList::new(vec![]), Err(Error::Empty));
        let mut large = [entry(&["a"]), entry(&["b"])];
        large[0].size = u64::MAX - 3;
        assert_eq!(FileList::new(large.to_vec()), Err(Error::TooLarge));
        assert_eq!(FileList::length_from_prefix([0xff; 8]), Err(Error::TooLong { found: u64::MAX }));
    }

    #[test]
    fn a_manifest_says_what_is_sealed_only_where_something_is_not() {
        let list = FileList::new(vec![entry(&["a"]), entry(&["b"])]).unwrap();
        let full = Manifest::new(list.clone(), None).unwrap();
        assert_eq!(full.to_bytes(), list.to_bytes());
        assert_eq!(Manifest::from_bytes(&full.to_bytes()).unwrap(), full);
        let runs = |lengths: &[u64]| Some(Runs::new(lengths.to_vec()).unwrap());
        let mixed = Manifest::new(list.clone(), runs(&[1, 4, 1])).unwrap();
        let bytes = mixed.to_bytes();
        assert!(bytes.ends_with(b"4:runsli1ei4ei1ee1:vi1ee"));
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), mixed);
        assert!(matches!(Manifest::new(list, runs(&[1, 4])), Err(Error::Selection(_))));
        let with = |from: &str, to: &str| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            Manifest::from_bytes(text.replace(from, to).as_bytes())
        };
        assert_eq!(with("1:vi1e", "1:vi2e"), Err(Error::NewerVersion { found: 2 }));
        assert!(matches!(with("1:vi1e", "1:vi0e"), Err(Error::Bencode(_))));
        assert!(matches!(with("li1ei4ei1ee", "li1ei4ei2ee"), Err(Error::Selection(_))));
        assert!(matches!(with("li1ei4ei1ee", "li1ei5ei0ee"), Err(Error::Selection(_))));
        assert!(matches!(with("li1ei4ei1ee", "li6ee"), Err(Error::Selection(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = FileList::from_bytes(&bytes);
            let _ = Manifest::from_bytes(&bytes);
        }

        #[test]
        fn any_path_that_passes_stays_below(path in prop::collection::vec("[./a\\\\:]{0,4}", 0..4)) {
            let entry = FileEntry { mime: String::new(), path, size: 0 };
            if let Ok(list) = FileList::new(vec![entry]) {
                let path = list.entries()[0].relative_path();
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(!path.as_os_str().is_empty());
            }
        }
    }
}
