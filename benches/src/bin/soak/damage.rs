//! What a crash, a bad disk or a bad cable does to what a peer has stored.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::random::Random;

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Some bytes of stored pieces are others.
    Pieces,
    /// The pieces' file ends early.
    ShortPieces,
    /// The index lost its end.
    TornIndex,
    /// The index ends in half a record of noise.
    NoisyIndex,
    /// A bit of the index is another.
    Index,
}

impl Damage {
    /// With their weights.
    pub(crate) const ALL: [(u64, Damage); 5] = [
        (4, Damage::Pieces),
        (1, Damage::ShortPieces),
        (2, Damage::TornIndex),
        (1, Damage::NoisyIndex),
        (1, Damage::Index),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Damage::Pieces => "damage: bytes of pieces",
            Damage::ShortPieces => "damage: pieces.bin cut short",
            Damage::TornIndex => "damage: pieces.idx torn",
            Damage::NoisyIndex => "damage: noise behind pieces.idx",
            Damage::Index => "damage: a bit of pieces.idx",
        }
    }

    /// Does it to the peer with that data directory, which must not be running. Whether there was anything to damage.
    pub(crate) fn apply(self, data: &Path, random: &mut Random) -> Result<bool> {
        let Some(dir) = torrent_dir(data)? else { return Ok(false) };
        let path = |name: &str| dir.join(name);
        let (file, behind) = match self {
            Damage::Pieces | Damage::ShortPieces => (path("pieces.bin"), 0),
            // The headers say whose they are: a peer refuses to take another's, and says so.
            Damage::TornIndex | Damage::NoisyIndex | Damage::Index => (path("pieces.idx"), 52),
        };
        let length = fs::metadata(&file).map_or(0, |data| data.len());
        if length <= behind + 1 {
            return Ok(false);
        }
        match self {
            Damage::Pieces => (0..random.between(1, 8)).try_for_each(|_| {
                let mut noise = vec![0; random.between(1, 5000) as usize];
                random.fill(&mut noise);
                overwrite(&file, random.below(length), &noise)
            }),
            Damage::Index => flip(&file, random.between(behind, length - 1), random),
            Damage::ShortPieces => cut(&file, random.below(length)),
            Damage::TornIndex => {
                cut(&file, random.between(length.saturating_sub(2000).max(behind), length - 1))
            }
            Damage::NoisyIndex => {
                let mut noise = vec![0; random.between(1, 200) as usize];
                random.fill(&mut noise);
                overwrite(&file, length, &noise)
            }
        }
        .with_context(|| file.display().to_string())?;
        Ok(true)
    }
}

/// The one torrent that a peer's directory is for.
pub(crate) fn torrent_dir(data: &Path) -> Result<Option<PathBuf>> {
    let Ok(mut entries) = fs::read_dir(data.join("torrents")) else { return Ok(None) };
    Ok(entries.next().transpose()?.map(|entry| entry.path()))
}

fn cut(path: &Path, length: u64) -> Result<()> {
    Ok(OpenOptions::new().write(true).open(path)?.set_len(length)?)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    Ok(file.write_all(bytes)?)
}

fn flip(path: &Path, at: u64, random: &mut Random) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << random.below(8);
    file.seek(SeekFrom::Start(at))?;
    Ok(file.write_all(&byte)?)
}
