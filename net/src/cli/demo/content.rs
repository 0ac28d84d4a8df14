//! What the demo spreads.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// A file to publish.
pub struct Content {
    /// Where it is.
    pub path: PathBuf,
    /// Its file name, by which the player extracts it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Content {
    /// The file given, or generated data of that size in the work directory.
    pub fn prepare(work: &Path, file: Option<&Path>, size: u64) -> Result<Self, Failure> {
        match file {
            None => Self::generate(&work.join("content.bin"), size),
            Some(path) => {
                let bytes = path.metadata().map_err(|error| Failure::file(path, &error))?.len();
                Ok(Self::at(path, bytes))
            }
        }
    }

    /// Fresh random data: BLAKE3's extendable output under a random key.
    pub fn generate(path: &Path, bytes: u64) -> Result<Self, Failure> {
        let write = || {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(std::io::Error::other)?;
            let mut stream = blake3::Hasher::new_keyed(&key).finalize_xof();
            let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
            std::io::copy(&mut Read::by_ref(&mut stream).take(bytes), &mut file)?;
            file.flush()
        };
        write().map_err(|error| Failure::file(path, &error))?;
        Ok(Self::at(path, bytes))
    }

    fn at(path: &Path, bytes: u64) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Content { path: path.to_owned(), name, bytes }
    }

    /// Whether the file at `other` has the same bytes.
    pub fn equals(&self, other: &Path) -> Result<bool, Failure> {
        Ok(digest(&self.path)? == digest(other)?)
    }
}

fn digest(path: &Path) -> Result<blake3::Hash, Failure> {
    let hash = || {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut BufReader::with_capacity(1 << 20, File::open(path)?), &mut hasher)?;
        Ok(hasher.finalize())
    };
    hash().map_err(|error: std::io::Error| Failure::file(path, &error))
}
