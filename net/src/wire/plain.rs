//! Ordinary metainfo: .torrent files of BitTorrent v1 (BEP 3), with several trackers (BEP 12), private (BEP 27), with padding files
//! (BEP 47). Hybrid files (BEP 52) are read for their v1 part.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha1::{Digest, Sha1};

use super::bencode;
use super::content::{self, FileEntry, FileList};
use super::layout::Layout;
use super::metainfo::{MAX_FILE, MAX_PIECE_LENGTH};

/// Trackers that are kept of a file.
const MAX_TRACKERS: usize = 64;

/// Why a .torrent file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no metainfo.
    #[error("no .torrent file: {0}")]
    Bencode(#[from] bencode::Error),
    /// It has no `info`.
    #[error("no .torrent file: there is no info dictionary")]
    NoInfo,
    /// One entry has a value that cannot be.
    #[error("bad .torrent file: {what}: expected {expected}")]
    Bad {
        /// The entry.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Its files have no place on a disk.
    #[error("bad .torrent file: {0}")]
    Files(#[from] content::Error),
}

/// A file of the torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainFile {
    /// Components of its path, the torrent's own name first. Safe to join to a directory.
    pub path: Vec<String>,
    /// Where its bytes are in the torrent.
    pub range: Range<u64>,
    /// Zeros that are stored nowhere (BEP 47).
    pub padding: bool,
}

/// A .torrent file.
#[derive(Clone, Debug)]
pub struct PlainMetainfo {
    /// SHA-1 of the raw bytes of `info`.
    pub info_hash: [u8; 20],
    /// The suggested name of the file, or of the directory.
    pub name: String,
    /// How it is cut.
    pub layout: Layout,
    /// SHA-1 of each piece.
    pub pieces: Arc<[[u8; 20]]>,
    /// The files in order; together they are the whole torrent.
    pub files: Vec<PlainFile>,
    /// Whether peers are to come from the trackers alone.
    pub private: bool,
    /// URLs of trackers, in tiers of equals.
    pub trackers: Vec<Vec<String>>,
}

impl PlainMetainfo {
    /// Reads a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let outer: OuterIn = bencode::from_bytes(bytes, MAX_FILE)?;
        let raw_info = bencode::dict_entry(bytes, b"info")?.ok_or(Error::NoInfo)?;
        let info: InfoIn = bencode::from_bytes(raw_info, MAX_FILE)?;
        if info.piece_length == 0 || info.piece_length > MAX_PIECE_LENGTH {
            return Err(Error::Bad { what: "piece length", expected: "1 byte to 32 MiB" });
        }
        let name = component(info.name);
        let entries = match (info.length, info.files) {
            (Some(length), None) => vec![(vec![name.clone()], length, false)],
            (None, Some(files)) => {
                let entry = |file: FileIn| {
                    let below = file.path.iter().map(|name| component(name));
                    let padding = file.attr.is_some_and(|attr| attr.contains(&b'p'));
                    (std::iter::once(name.clone()).chain(below).collect(), file.length, padding)
                };
                files.into_iter().map(entry).collect()
            }
            _ => return Err(Error::Bad { what: "info", expected: "either length or files" }),
        };
        let files = place(entries)?;
        let length = files.last().map_or(0, |file| file.range.end);
        let layout = Layout::new(length, info.piece_length)
            .ok_or(Error::Bad { what: "length", expected: "1 byte to 2^32 pieces" })?;
        let (pieces, rest) = info.pieces.as_chunks::<20>();
        if !rest.is_empty() || pieces.len() != layout.piece_count() as usize {
            return Err(Error::Bad { what: "pieces", expected: "20 bytes for each piece" });
        }
        Ok(PlainMetainfo {
            info_hash: Sha1::digest(raw_info).into(),
            name,
            layout,
            pieces: pieces.into(),
            files,
            private: info.private == Some(1),
            trackers: trackers(outer),
        })
    }
}

/// Ranges for files of given lengths. Padding needs no path.
fn place(entries: Vec<(Vec<String>, u64, bool)>) -> Result<Vec<PlainFile>, Error> {
    let kept = entries.iter().filter(|(.., padding)| !padding);
    let listed =
        kept.map(|(path, size, _)| FileEntry { mime: String::new(), path: path.clone(), size: *size });
    FileList::new(listed.collect())?;
    let mut end = 0_u64;
    let mut files = Vec::with_capacity(entries.len());
    for (path, length, padding) in entries {
        let start = end;
        end = end.checked_add(length).ok_or(content::Error::TooLarge)?;
        files.push(PlainFile { path, range: start..end, padding });
    }
    Ok(files)
}

/// A name as it can stand on a disk: other clients' users call files what they like.
fn component(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut name: String =
        text.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c }).collect();
    while name.len() > 255 {
        name.pop();
    }
    if matches!(name.as_str(), "" | "." | "..") { "_".to_owned() } else { name }
}

/// `announce-list` where there is one (BEP 12), else `announce`; each URL once.
fn trackers(outer: OuterIn) -> Vec<Vec<String>> {
    let listed = outer.announce_list.unwrap_or_default();
    let single = outer.announce.map(|url| vec![vec![url]]).unwrap_or_default();
    let tiers = if listed.iter().any(|tier| !tier.is_empty()) { listed } else { single };
    let mut seen = HashSet::new();
    let url = |bytes: ByteBuf| String::from_utf8(bytes.into_vec()).ok().filter(|url| is_url(url));
    let mut left = MAX_TRACKERS;
    let mut kept = Vec::new();
    for tier in tiers {
        let tier: Vec<String> =
            tier.into_iter().filter_map(url).filter(|url| seen.insert(url.clone())).take(left).collect();
        left -= tier.len();
        if !tier.is_empty() {
            kept.push(tier);
        }
    }
    kept
}

fn is_url(url: &str) -> bool {
    url.len() <= 2048 && url.contains("://") && url.bytes().all(|byte| byte.is_ascii_graphic())
}

#[derive(Deserialize)]
struct OuterIn {
    #[serde(default, with = "bencode::optional")]
    announce: Option<ByteBuf>,
    #[serde(rename = "announce-list", default, with = "bencode::optional")]
    announce_list: Option<Vec<Vec<ByteBuf>>>,
}

#[derive(Deserialize)]
struct InfoIn<'a> {
    #[serde(default, with = "bencode::optional")]
    files: Option<Vec<FileIn>>,
    #[serde(default, with = "bencode::optional")]
    length: Option<u64>,
    #[serde(with = "serde_bytes")]
    name: &'a [u8],
    #[serde(rename = "piece length")]
    piece_length: u32,
    #[serde(with = "serde_bytes")]
    pieces: &'a [u8],
    #[serde(default, with = "bencode::optional")]
    private: Option<u64>,
}

#[derive(Deserialize)]
struct FileIn {
    #[serde(default, with = "bencode::optional")]
    attr: Option<ByteBuf>,
    length: u64,
    path: Vec<ByteBuf>,
}

/// What an ordinary .torrent file is written from.
#[derive(Clone, Debug)]
pub struct PlainTorrent<'a> {
    /// The file's name or, of several files, the directory's.
    pub name: &'a str,
    /// Paths below the directory, and lengths. None: `name` is the only file.
    pub files: Option<&'a FileList>,
    /// Bytes in all.
    pub length: u64,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// SHA-1 of each piece.
    pub pieces: &'a [[u8; 20]],
    /// Where it is announced, if anywhere.
    pub announce: Option<&'a str>,
    /// Whether peers are to come from the tracker alone.
    pub private: bool,
}

impl PlainTorrent<'_> {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let files = self.files.map(|files| {
            files.entries().iter().map(|entry| FileOut { length: entry.size, path: &entry.path }).collect()
        });
        let info = InfoOut {
            length: files.is_none().then_some(self.length),
            files,
            name: self.name,
            piece_length: self.piece_len,
            pieces: self.pieces.as_flattened(),
            private: self.private.then_some(1),
        };
        bencode::to_bytes(&OuterOut { announce: self.announce, info })
    }
}

#[derive(Serialize)]
struct OuterOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none", with = "bencode::optional")]
    announce: Option<&'a str>,
    info: InfoOut<'a>,
}

#[derive(Serialize)]
struct InfoOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none", with = "bencode::optional")]
    files: Option<Vec<FileOut<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none", with = "bencode::optional")]
    length: Option<u64>,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_length: u32,
    #[serde(with = "serde_bytes")]
    pieces: &'a [u8],
    #[serde(skip_serializing_if = "Option::is_none", with = "bencode::optional")]
    private: Option<u64>,
}

#[derive(Serialize)]
struct FileOut<'a> {
    length: u64,
    path: &'a [String],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(count: usize) -> Vec<[u8; 20]> {
        (0..count).map(|i| [i as u8; 20]).collect()
    }

    #[test]
    fn one_file() {
        let pieces = pieces(3);
        let torrent = PlainTorrent {
            name: "a film.mkv",
            files: None,
            length: 100,
            piece_len: 40,
            pieces: &pieces,
            announce: Some("http://127.0.0.1:1/announce"),
            private: false,
        };
        let bytes = torrent.to_bytes();
        let read = PlainMetainfo::from_bytes(&bytes).unwrap();
        assert_eq!(read.layout, Layout::new(100, 40).unwrap());
        assert_eq!(read.pieces[..], pieces[..]);
        let file = PlainFile { path: vec!["a film.mkv".into()], range: 0..100, padding: false };
        assert_eq!((read.files, read.private), (vec![file], false));
        assert_eq!(read.trackers, [["http://127.0.0.1:1/announce"]]);
        let info = bencode::dict_entry(&bytes, b"info").unwrap().unwrap();
        assert_eq!(read.info_hash, <[u8; 20]>::from(Sha1::digest(info)));
    }

    #[test]
    fn several_files_stay_below_their_directory() {
        let entry = |path: &[&str], size| FileEntry {
            mime: String::new(),
            path: path.iter().map(|&name| name.to_owned()).collect(),
            size,
        };
        let list =
            FileList::new(vec![entry(&["x"], 30), entry(&["d", "y"], 0), entry(&["d", "z"], 70)]).unwrap();
        let torrent = PlainTorrent {
            name: "all",
            files: Some(&list),
            length: 100,
            piece_len: 64,
            pieces: &pieces(2),
            announce: None,
            private: true,
        };
        let read = PlainMetainfo::from_bytes(&torrent.to_bytes()).unwrap();
        let places: Vec<_> =
            read.files.iter().map(|file| (file.path.join("/"), file.range.clone())).collect();
        let expected = [("all/x", 0..30), ("all/d/y", 30..30), ("all/d/z", 30..100)];
        assert_eq!(places, expected.map(|(path, range)| (path.to_owned(), range)));
        assert!(read.private && read.trackers.is_empty());
    }

    /// A torrent of 5 bytes with these entries in `info`, in order before `name`.
    fn with(files: &str, outer: &str) -> Result<PlainMetainfo, Error> {
        let text =
            format!("d{outer}4:infod{files}4:name2:..12:piece lengthi8e6:pieces20:aaaaaaaaaaaaaaaaaaaaee");
        PlainMetainfo::from_bytes(text.as_bytes())
    }

    #[test]
    fn names_lead_nowhere_else() {
        let read = with("5:filesld6:lengthi5e4:pathl2:..4:a/\0beee", "").unwrap();
        assert_eq!(read.files[0].path, ["_", "_", "a__b"]);
        let twice = "5:filesld6:lengthi2e4:pathl1:xeed6:lengthi3e4:pathl1:xeee";
        assert!(matches!(with(twice, ""), Err(Error::Files(content::Error::DuplicatePath { .. }))));
        let nested = "5:filesld6:lengthi2e4:pathl1:xeed6:lengthi3e4:pathl1:x1:yeee";
        assert!(matches!(with(nested, ""), Err(Error::Files(content::Error::DuplicatePath { .. }))));
    }

    #[test]
    fn padding_is_no_file() {
        let padded = "5:filesld6:lengthi2e4:pathl1:xeed4:attr1:p6:lengthi1e4:pathl4:.pad1:1eed4:attr1:p6:lengthi2e4:pathl4:.pad1:1eee";
        let read = with(padded, "").unwrap();
        assert_eq!(read.files.iter().map(|file| file.padding).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(read.layout.length(), 5);
    }

    #[test]
    fn trackers_come_in_tiers_and_once() {
        let list = "8:announce9:http://a/13:announce-listll9:http://b/7:no url!9:http://b/el9:http://c/ee";
        let read = with("6:lengthi5e", list).unwrap();
        assert_eq!(read.trackers, [["http://b/"], ["http://c/"]]);
        let read = with("6:lengthi5e", "8:announce9:http://a/13:announce-listle").unwrap();
        assert_eq!(read.trackers, [["http://a/"]]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for files in
            ["", "6:lengthi0e", "6:lengthi9e", "5:filesle", "5:filesld6:lengthi5e4:pathl1:xeee6:lengthi5e"]
        {
            assert!(with(files, "").is_err(), "{files}");
        }
        assert_eq!(PlainMetainfo::from_bytes(b"de").unwrap_err(), Error::NoInfo);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = PlainMetainfo::from_bytes(&bytes);
        }
    }
}
