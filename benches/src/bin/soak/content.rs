//! What is published, and whether what was opened is that.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::random::Random;

/// Writes some files below `dir`, `bytes` in all: a long one, short ones, an empty one.
pub(crate) fn write(dir: &Path, bytes: u64, random: &mut Random) -> Result<()> {
    fs::create_dir_all(dir.join("extras"))?;
    let mut noise = vec![0; bytes as usize];
    random.fill(&mut noise);
    let (notes, film) = noise.split_at(noise.len().min(random.between(1, 300_000) as usize));
    fs::write(dir.join("film.bin"), film)?;
    fs::write(dir.join("extras/notes.bin"), notes)?;
    fs::write(dir.join("extras/short.txt"), "a few words\n")?;
    fs::write(dir.join("empty"), "")?;
    Ok(())
}

/// Checks that both directories have the same files, byte for byte; how many bytes.
pub(crate) fn compare(expected: &Path, found: &Path) -> Result<u64> {
    let names = |dir: &Path| -> Result<Vec<std::ffi::OsString>> {
        let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
        let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let all = names(expected)?;
    ensure!(all == names(found)?, "{}: expected the files {all:?}", found.display());
    let mut bytes = 0;
    for name in all {
        let (expected, found) = (expected.join(&name), found.join(&name));
        if expected.is_dir() {
            bytes += compare(&expected, &found)?;
            continue;
        }
        let (expected, opened) = (fs::read(&expected)?, fs::read(&found)?);
        let differ = expected.iter().zip(&opened).position(|(expected, opened)| expected != opened);
        ensure!(differ.is_none(), "{}: differs at byte {}", found.display(), differ.unwrap_or_default());
        ensure!(expected.len() == opened.len(), "{}: {} bytes", found.display(), opened.len());
        bytes += expected.len() as u64;
    }
    Ok(bytes)
}
