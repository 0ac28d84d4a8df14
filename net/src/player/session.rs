//! One play: plaintext handed out, in order or at any place.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use super::{Error, OpenedManifest, PieceReader, Plaintext, Player, ordered};
use crate::wire::content::{self, FileEntry, FileList, Manifest, PREFIX};
use crate::wire::selection::{self, Interleaving, Kind};

/// Which files the content has and where each lies in the plaintext stream.
#[derive(Clone, Debug)]
pub struct Content {
    files: FileList,
    starts: Vec<u64>,
    length: u64,
}

impl Content {
    fn new(files: FileList, header: u64) -> Self {
        let mut length = header;
        let place = |entry: &FileEntry| {
            let start = length;
            // A list that overflows is longer than any torrent, which is then said.
            length = length.saturating_add(entry.size);
            start
        };
        let starts = files.entries().iter().map(place).collect();
        Content { files, starts, length }
    }

    /// The files, in the order of the stream.
    pub fn files(&self) -> &[FileEntry] {
        self.files.entries()
    }

    /// Where a file lies in the stream. Errors: [`Error::NoSuchFile`].
    pub fn span(&self, index: usize) -> Result<Range<u64>, Error> {
        let no_such_file = Error::NoSuchFile { index, count: self.starts.len() };
        let file = self.files.entries().get(index).ok_or(no_such_file)?;
        Ok(self.starts[index]..self.starts[index] + file.size)
    }

    /// Where all files lie in the stream.
    pub(super) fn whole(&self) -> Range<u64> {
        self.starts.first().copied().unwrap_or(0)..self.length
    }

    /// A file's number by its path, `/` between the components, or by the number itself, from 0. Errors: [`Error::NoSuchPath`],
    /// [`Error::NoSuchFile`].
    pub fn find(&self, name: &str) -> Result<usize, Error> {
        let by_path = self.files().iter().position(|file| file.display_path() == name);
        match (by_path, name.parse::<usize>()) {
            (Some(index), _) => Ok(index),
            (None, Ok(index)) => self.span(index).map(|_| index),
            (None, Err(_)) => Err(Error::NoSuchPath { path: name.chars().take(200).collect() }),
        }
    }

    /// The only file's number. Errors: [`Error::NotSingleFile`].
    pub fn single_file(&self) -> Result<usize, Error> {
        match self.starts.len() {
            1 => Ok(0),
            count => Err(Error::NotSingleFile { count }),
        }
    }
}

/// A play that was checked and counted. Only this releases plaintext.
#[derive(Clone, Debug)]
pub struct Session {
    player: Arc<Player>,
    begun: u64,
}

impl Session {
    /// `begun`: when, in Unix seconds, by the latest clock that was seen.
    pub(super) fn new(player: Arc<Player>, begun: u64) -> Self {
        Session { player, begun }
    }

    /// When it was begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// The player behind it.
    pub fn player(&self) -> &Player {
        &self.player
    }

    /// Reads the list of files from the first pieces.
    ///
    /// Errors: [`Error::Content`], [`Error::WrongLength`] and those of [`Session::read`].
    pub fn content(&self, pieces: &dyn PieceReader) -> Result<Content, Error> {
        let opened = self.manifest(pieces)?;
        Ok(Content::new(opened.manifest.files().clone(), opened.header))
    }

    /// What stands before the files, read once.
    fn manifest(&self, pieces: &dyn PieceReader) -> Result<Arc<OpenedManifest>, Error> {
        if let Some(manifest) = self.player.manifest.get() {
            return Ok(manifest.clone());
        }
        let opened = Arc::new(self.read_manifest(pieces)?);
        Ok(self.player.manifest.get_or_init(|| opened).clone())
    }

    fn read_manifest(&self, pieces: &dyn PieceReader) -> Result<OpenedManifest, Error> {
        let info = &self.player.metainfo.info;
        let mut prefix = Vec::new();
        self.read_sealed(pieces, 0..PREFIX as u64, &mut |bytes| {
            prefix.extend_from_slice(bytes);
            Ok(())
        })?;
        let prefix = prefix.try_into().unwrap_or([0xff; PREFIX]);
        let header = (PREFIX + FileList::length_from_prefix(prefix)?) as u64;
        let mut bytes = Vec::new();
        self.read_sealed(pieces, PREFIX as u64..header, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        let manifest = Manifest::from_bytes(&bytes)?;
        let map = manifest.interleaving(header, info.payload_length() as u64, info.piece_length.into())?;
        match (&map, &info.seal.selection) {
            (None, None) => {
                let (expected, found) =
                    self.check_fits(header.saturating_add(manifest.files().content_length()))?;
                if expected != found {
                    return Err(Error::WrongLength { expected, found });
                }
            }
            (Some(map), Some(selection)) => {
                let expected = map.pieces_of(Kind::Sealed).saturating_add(map.pieces_of(Kind::Clear));
                let found = u64::from(selection.count());
                if expected != found {
                    return Err(Error::WrongLength { expected, found });
                }
                if map.selection().map_err(content::Error::from)? != **selection {
                    return Err(content::Error::from(selection::Error::Mismatch).into());
                }
            }
            _ => return Err(content::Error::from(selection::Error::Mismatch).into()),
        }
        Ok(OpenedManifest { manifest, header, map })
    }

    /// The pieces that a stream of `length` bytes makes where all are sealed, and how many the torrent has sealed.
    fn check_fits(&self, length: u64) -> Result<(u64, u64), Error> {
        let info = &self.player.metainfo.info;
        let expected = length.div_ceil(info.payload_length() as u64);
        let found = u64::from(info.sealed_count());
        if expected > found { Err(Error::WrongLength { expected, found }) } else { Ok((expected, found)) }
    }

    /// Where a range of the stream begins: a piece, and those bytes of its payload that belong to the range and lie together.
    pub(super) fn first_run(&self, range: &Range<u64>) -> (u32, Range<usize>) {
        let info = &self.player.metainfo.info;
        // There is a list of files before there is a range of one.
        let map = self.player.manifest.get().and_then(|opened| opened.map.as_ref());
        let place = map.and_then(|map| Some((map.locate(range.start)?, map, info.seal.selection.as_ref()?)));
        let (index, from, most) = match place {
            Some((place, map, selection)) => {
                let size = map.size(place.kind);
                let from = place.offset % size;
                let index = selection.find(place.kind, (place.offset / size) as u32);
                (index.unwrap_or(info.piece_count), from, place.left.min(size - from))
            }
            None => {
                let payload = info.payload_length() as u64;
                let from = range.start % payload;
                ((range.start / payload) as u32, from, payload - from)
            }
        };
        (index, from as usize..(from + most.min(range.end - range.start)) as usize)
    }

    /// Hands out a range of the plaintext stream in order, piece by piece; pieces are opened on all cores, a few ahead.
    ///
    /// Errors: [`Error::MissingPiece`], [`Error::CorruptPiece`], [`Error::WrongEpoch`], [`Error::PieceIo`], all before
    /// a byte of that piece is handed out, and whatever `sink` returns. What lies behind the stream's end is an error,
    /// [`Error::WrongLength`]. Where some pieces are clear, those of [`Session::content`] as well.
    pub fn read(
        &self,
        pieces: &dyn PieceReader,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        if self.player.metainfo.info.seal.selection.is_none() {
            return self.read_sealed(pieces, range, sink);
        }
        let opened = self.manifest(pieces)?;
        match &opened.map {
            Some(map) => self.read_mixed(pieces, map, range, sink),
            None => Err(content::Error::from(selection::Error::Mismatch).into()),
        }
    }

    /// The pieces that hold a range of the plaintext stream, in the order in which they are read. Errors: as [`Session::read`]; of
    /// the pieces themselves none is opened, but for those of the list of files where some pieces are clear.
    pub fn pieces_of(&self, pieces: &dyn PieceReader, range: Range<u64>) -> Result<Vec<u32>, Error> {
        let info = &self.player.metainfo.info;
        let Some(selection) = &info.seal.selection else {
            self.check_fits(range.end)?;
            let payload = info.payload_length() as u64;
            return Ok(((range.start / payload) as u32..range.end.div_ceil(payload) as u32).collect());
        };
        let opened = self.manifest(pieces)?;
        let map = opened.map.as_ref().ok_or(content::Error::from(selection::Error::Mismatch))?;
        Ok(indices_of(map, selection, &range))
    }

    /// Hands out a range of the stream of sealed bytes, which is the plaintext stream where all are sealed.
    fn read_sealed(
        &self,
        pieces: &dyn PieceReader,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.check_fits(range.end)?;
        let info = &self.player.metainfo.info;
        let payload = info.payload_length() as u64;
        let numbers = (range.start / payload) as u32..range.end.div_ceil(payload) as u32;
        let open = |number| {
            let index = match &info.seal.selection {
                Some(selection) => selection.find(Kind::Sealed, number).unwrap_or(selection.count()),
                None => number,
            };
            self.player.open_piece(pieces, index)
        };
        ordered::in_order(numbers, open, |number, plaintext| {
            let start = u64::from(number) * payload;
            let from = range.start.saturating_sub(start).min(payload);
            let to = (range.end - start).min(payload);
            sink(&plaintext[from as usize..to as usize])
        })
    }

    /// Hands out a range of the plaintext stream whose bytes are in pieces of both kinds. Pieces are numbered by their first bytes:
    /// when one has come, so have all that hold what lies before it, and one of each kind is at hand at a time.
    fn read_mixed(
        &self,
        pieces: &dyn PieceReader,
        map: &Interleaving,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let info = &self.player.metainfo.info;
        let behind = || Error::WrongLength {
            expected: range.end.div_ceil(info.payload_length() as u64),
            found: info.piece_count.into(),
        };
        let selection = info.seal.selection.as_ref().ok_or_else(behind)?;
        if range.end > map.length() {
            return Err(behind());
        }
        let indices = indices_of(map, selection, &range);
        let mut at_hand: [Option<(u32, Plaintext)>; 2] = [None, None];
        let mut at = range.start;
        let open = |place: u32| self.player.open_piece(pieces, indices[place as usize]);
        ordered::in_order(0..indices.len() as u32, open, |place, plaintext| {
            let index = indices[place as usize];
            let kind = selection.kind(index);
            at_hand[kind as usize] = Some((selection.rank(kind, index), plaintext));
            while let Some(found) = map.locate(at).filter(|_| at < range.end) {
                let size = map.size(found.kind);
                let Some((number, bytes)) = &at_hand[found.kind as usize] else { break };
                if u64::from(*number) != found.offset / size {
                    break;
                }
                let from = found.offset % size;
                let length = found.left.min(size - from).min(range.end - at);
                sink(&bytes[from as usize..(from + length) as usize])?;
                at += length;
            }
            Ok(())
        })
    }

    /// Writes one file to a pipe or the like. Errors: [`Error::Output`] and those of [`Session::read`].
    pub fn write_file(
        &self,
        pieces: &dyn PieceReader,
        content: &Content,
        index: usize,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let write = &mut |bytes: &[u8]| out.write_all(bytes).map_err(Error::Output);
        self.read(pieces, content.span(index)?, write)?;
        out.flush().map_err(Error::Output)
    }
}

/// The pieces that hold a range of the stream, in order.
fn indices_of(map: &Interleaving, selection: &selection::Selection, range: &Range<u64>) -> Vec<u32> {
    let mut indices = Vec::new();
    for kind in [Kind::Sealed, Kind::Clear] {
        let (first, end) = (map.before(kind, range.start), map.before(kind, range.end));
        if first < end {
            let numbers = (first / map.size(kind)) as u32..=((end - 1) / map.size(kind)) as u32;
            indices.extend(numbers.filter_map(|number| selection.find(kind, number)));
        }
    }
    indices.sort_unstable();
    indices
}
