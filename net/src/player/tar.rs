//! The whole content as one tar stream, for a pipe.

use std::io::{self, Write};

use super::{Content, Error, PieceReader, Session};
use crate::wire::content::FileEntry;

const BLOCK: u64 = 512;
/// Two blocks of zeros end an archive. Without them it does not look complete.
const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

impl Session {
    /// Writes all files as a tar stream: the same bytes for the same content, whoever opens it and when.
    ///
    /// The end of the archive is written once everything else was: one that a bad piece cut short is refused by whoever reads
    /// it. Errors: [`Error::Output`] and those of [`Session::read`].
    pub fn write_tar(
        &self,
        pieces: &dyn PieceReader,
        content: &Content,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut archive = Archive { out, rest: content.files(), left: 0, padding: 0 };
        archive.advance().map_err(Error::Output)?;
        self.read(pieces, content.whole(), &mut |bytes| archive.write(bytes).map_err(Error::Output))?;
        archive.out.write_all(&END).and_then(|()| archive.out.flush()).map_err(Error::Output)
    }
}

/// Puts a header before each file.
struct Archive<'a> {
    out: &'a mut dyn Write,
    /// The files not yet begun.
    rest: &'a [FileEntry],
    /// Bytes of the current one to come, and zeros after them.
    left: u64,
    padding: usize,
}

impl Archive<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && self.left > 0 {
            let len = (bytes.len() as u64).min(self.left) as usize;
            let (now, later) = bytes.split_at(len);
            self.out.write_all(now)?;
            self.left -= len as u64;
            bytes = later;
            if self.left == 0 {
                self.out.write_all(&END[..self.padding])?;
                self.advance()?;
            }
        }
        Ok(())
    }

    /// Writes headers up to that of the next file that is not empty.
    fn advance(&mut self) -> io::Result<()> {
        while let Some((entry, rest)) = self.rest.split_first() {
            self.rest = rest;
            self.out.write_all(&header(entry)?)?;
            if entry.size > 0 {
                self.left = entry.size;
                self.padding = (entry.size.next_multiple_of(BLOCK) - entry.size) as usize;
                break;
            }
        }
        Ok(())
    }
}

/// A file's header, with one for its name where that is long.
fn header(entry: &FileEntry) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(entry.size);
    // A builder that is dropped ends its archive: this one has the header alone.
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, entry.display_path(), io::empty())?;
    Ok(builder.get_ref().clone())
}
