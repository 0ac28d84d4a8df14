//! One play: plaintext handed out, in order or at any place.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use super::{Error, PieceReader, Player, ordered};
use crate::wire::content::{FileEntry, FileList, PREFIX};

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
}

impl Session {
    pub(super) fn new(player: Arc<Player>) -> Self {
        Session { player }
    }

    /// The player behind it.
    pub fn player(&self) -> &Player {
        &self.player
    }

    /// Reads the list of files from the first pieces.
    ///
    /// Errors: [`Error::Content`], [`Error::WrongLength`] and those of [`Session::read`].
    pub fn content(&self, pieces: &dyn PieceReader) -> Result<Content, Error> {
        let mut prefix = Vec::new();
        self.read(pieces, 0..PREFIX as u64, &mut |bytes| {
            prefix.extend_from_slice(bytes);
            Ok(())
        })?;
        let prefix = prefix.try_into().unwrap_or([0xff; PREFIX]);
        let header = (PREFIX + FileList::length_from_prefix(prefix)?) as u64;
        self.check_fits(header)?;
        let mut list = Vec::new();
        self.read(pieces, PREFIX as u64..header, &mut |bytes| {
            list.extend_from_slice(bytes);
            Ok(())
        })?;
        let content = Content::new(FileList::from_bytes(&list)?, header);
        let (expected, found) = self.check_fits(content.length)?;
        if expected != found {
            return Err(Error::WrongLength { expected, found });
        }
        Ok(content)
    }

    /// The pieces that a stream of `length` bytes makes, and how many the torrent has.
    fn check_fits(&self, length: u64) -> Result<(u64, u64), Error> {
        let info = &self.player.metainfo.info;
        let expected = length.div_ceil(info.payload_length() as u64);
        let found = u64::from(info.piece_count);
        if expected > found { Err(Error::WrongLength { expected, found }) } else { Ok((expected, found)) }
    }

    /// Where a range of the stream begins: a piece, and those bytes of its payload that belong to the range and lie together.
    pub(super) fn first_run(&self, range: &Range<u64>) -> (u32, Range<usize>) {
        let payload = self.player.metainfo.info.payload_length() as u64;
        let (index, from) = (range.start / payload, range.start % payload);
        let to = payload.min(from + (range.end - range.start));
        (index as u32, from as usize..to as usize)
    }

    /// Hands out a range of the plaintext stream in order, piece by piece; pieces are opened on all cores, a few ahead.
    ///
    /// Errors: [`Error::MissingPiece`], [`Error::CorruptPiece`], [`Error::WrongEpoch`], [`Error::PieceIo`], all before
    /// a byte of that piece is handed out, and whatever `sink` returns. What lies behind the stream's end is an error,
    /// [`Error::WrongLength`].
    pub fn read(
        &self,
        pieces: &dyn PieceReader,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.check_fits(range.end)?;
        let payload = self.player.metainfo.info.payload_length() as u64;
        let indices = (range.start / payload) as u32..range.end.div_ceil(payload) as u32;
        let open = |index| self.player.open_piece(pieces, index);
        ordered::in_order(indices, open, |index, plaintext| {
            let start = u64::from(index) * payload;
            let from = range.start.saturating_sub(start).min(payload);
            let to = (range.end - start).min(payload);
            sink(&plaintext[from as usize..to as usize])
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
