//! Files written to a directory, never outside it, each only once it is whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Content, Error, PieceReader, Session};
use crate::atomic_file::{Access, Existing, PendingFile, make_parents};
use crate::platform::takes_name;
use crate::wire::content::{self, FileEntry};

impl Content {
    /// Refuses a directory that has a file of the content already. Errors: [`Error::Exists`].
    pub fn check_vacant(&self, directory: &Path) -> Result<(), Error> {
        match self.paths(directory).find(|path| fs::symlink_metadata(path).is_ok()) {
            Some(path) => Err(Error::Exists { path }),
            None => Ok(()),
        }
    }

    fn paths(&self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        self.files().iter().map(move |entry| directory.join(entry.relative_path()))
    }
}

impl Session {
    /// Writes all files below `directory`, which is created where it is missing. Returns their paths.
    ///
    /// Each file is written under a temporary name and moved into place when it is whole; a bad piece stops the
    /// extraction, and what was whole by then stays. `progress`: bytes written of all bytes.
    /// Errors: [`Error::Exists`] before anything is written, [`Error::NotADirectory`], [`Error::Io`] and those of
    /// [`Session::read`].
    pub fn extract(
        &self,
        pieces: &dyn PieceReader,
        content: &Content,
        directory: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<PathBuf>, Error> {
        fs::create_dir_all(directory).map_err(|error| Error::Io { path: directory.into(), error })?;
        if let Some(entry) =
            content.files().iter().find(|file| !file.path.iter().all(|name| takes_name(name)))
        {
            let path = entry.display_path().chars().take(200).collect();
            return Err(content::Error::UnsafePath { path }.into());
        }
        if existing == Existing::Keep {
            content.check_vacant(directory)?;
        }
        let paths = content.paths(directory).collect();
        let whole = content.whole();
        let total = whole.end - whole.start;
        let mut files = Files { directory, existing, rest: content.files(), current: None };
        files.advance()?;
        let mut done = 0;
        self.read(pieces, whole, &mut |bytes| {
            files.write(bytes)?;
            done += bytes.len() as u64;
            progress(done, total);
            Ok(())
        })?;
        Ok(paths)
    }
}

/// Cuts the stream into files.
struct Files<'a> {
    directory: &'a Path,
    existing: Existing,
    /// The files not yet begun.
    rest: &'a [FileEntry],
    current: Option<Current>,
}

struct Current {
    path: PathBuf,
    file: PendingFile,
    left: u64,
}

impl Files<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(current) = &mut self.current {
            let len = (bytes.len() as u64).min(current.left) as usize;
            let (now, later) = bytes.split_at(len);
            current.file.write_all(now).map_err(|error| Error::Io { path: current.path.clone(), error })?;
            current.left -= len as u64;
            bytes = later;
            if current.left > 0 {
                break;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Moves finished files into place and opens the next one that is not empty.
    fn advance(&mut self) -> Result<(), Error> {
        loop {
            if let Some(Current { path, file, .. }) = self.current.take() {
                file.commit(self.existing).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => Error::Exists { path },
                    _ => Error::Io { path, error },
                })?;
            }
            let Some((entry, rest)) = self.rest.split_first() else { return Ok(()) };
            self.rest = rest;
            let path =
                make_parents(self.directory, &entry.path).map_err(|(path, error)| match error.kind() {
                    io::ErrorKind::NotADirectory => Error::NotADirectory { path },
                    _ => Error::Io { path, error },
                })?;
            let file = PendingFile::create(&path, Access::Shared)
                .map_err(|error| Error::Io { path: path.clone(), error })?;
            self.current = Some(Current { path, file, left: entry.size });
            if entry.size > 0 {
                return Ok(());
            }
        }
    }
}
