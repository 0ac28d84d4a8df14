//! Which bytes of the content are protected: everything, or what the publisher chooses (paper, section 3.1).
//!
//! A choice is made file by file and comes out as [`Runs`] of sealed and clear bytes over all files. Clear stretches of less than
//! 4 KiB are protected as well, and more than that where there would be more than a million runs, so that the list of them, which
//! the player reads before anything else, stays small.

use std::ops::Range;
use std::path::Path;

use super::{Error, list_files, media};
use crate::wire::content::FileEntry;
use crate::wire::selection::Runs;

/// No clear stretch is shorter.
const LEAST_CLEAR: u64 = 4 << 10;
/// Runs at most.
const MAX_RUNS: usize = 1 << 20;
/// Of a fraction: the length of its chunks, and of what is protected at the beginning of a file.
const CHUNK: u64 = 64 << 10;
/// Of what a fraction counts in.
const WHOLE: u64 = 1_000_000;

/// What is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Protect {
    /// Every byte.
    #[default]
    All,
    /// Of MP4, M4A and MOV files whose video is H.264: all but the inner bytes of pictures that depend on others.
    Media,
    /// These ranges.
    Ranges(Vec<FileRange>),
    /// That many millionths of every file.
    Fraction(u32),
}

/// A range of one file, or of every file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// The file's path with `/` between its components; `None`: every file.
    pub path: Option<String>,
    /// The first byte.
    pub from: u64,
    /// The byte behind the last; `None`: to the file's end.
    pub to: Option<u64>,
}

/// What a choice comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Sealed and clear bytes over all files; `None` where every byte is protected.
    pub runs: Option<Runs>,
    /// Files that are protected whole although less was asked for, and why.
    pub whole: Vec<(String, String)>,
}

/// Applies a choice to a file or a directory. Errors: as [`list_files`]; [`Error::NoSuchFile`] where a range names a file that is
/// not there.
pub fn plan(source: &Path, protect: &Protect) -> Result<Plan, Error> {
    let (root, files) = list_files(source)?;
    let mut plan = Plan { runs: None, whole: Vec::new() };
    if let Protect::Ranges(ranges) = protect {
        let known = |path: &String| files.entries().iter().any(|entry| entry.display_path() == *path);
        if let Some(path) = ranges.iter().filter_map(|range| range.path.as_ref()).find(|path| !known(path)) {
            return Err(Error::NoSuchFile { path: path.clone() });
        }
    }
    let (mut clear, mut start) = (Vec::new(), 0);
    for entry in files.entries() {
        let found = match protect {
            Protect::All => Vec::new(),
            Protect::Ranges(ranges) => invert(of_file(ranges, entry), entry.size),
            Protect::Fraction(millionths) => invert(spread(entry.size, *millionths), entry.size),
            Protect::Media => match media::clear_ranges(&root.join(entry.relative_path()), entry.size) {
                Ok(clear) => clear,
                Err(why) => {
                    plan.whole.push((entry.display_path(), why.to_string()));
                    Vec::new()
                }
            },
        };
        clear.extend(found.into_iter().map(|range| range.start + start..range.end + start));
        start += entry.size;
    }
    plan.runs = Runs::of_clear(&coarsen(clear), start).map_err(crate::wire::content::Error::from)?;
    Ok(plan)
}

/// What a list of ranges protects of one file: sorted and apart.
fn of_file(ranges: &[FileRange], entry: &FileEntry) -> Vec<Range<u64>> {
    let path = entry.display_path();
    let concerned = ranges.iter().filter(|range| range.path.as_ref().is_none_or(|only| *only == path));
    let cut = |range: &FileRange| range.from.min(entry.size)..range.to.unwrap_or(entry.size).min(entry.size);
    union(concerned.map(cut).collect())
}

/// The beginning of a file and, evenly spread over the rest, chunks that make up the part.
fn spread(size: u64, millionths: u32) -> Vec<Range<u64>> {
    let first = CHUNK.min(size);
    let target = (u128::from(size) * u128::from(millionths)).div_ceil(u128::from(WHOLE)) as u64;
    let (rest, wanted) = (size - first, target.saturating_sub(first).min(size - first));
    let count = wanted.div_ceil(CHUNK);
    // Each at the end of its stride: so is the last one.
    let end = |index: u64| first + (u128::from(rest) * u128::from(index) / u128::from(count)) as u64;
    let chunk = |index: u64| {
        let length = (wanted / count).max(1).min(end(index + 1) - end(index));
        end(index + 1) - length..end(index + 1)
    };
    union(std::iter::once(0..first).chain((0..count).map(chunk)).collect())
}

/// Sorted, without those that are empty, those that meet joined.
pub(super) fn union(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// What of `0..size` is in none of them, which are sorted and apart.
pub(super) fn invert(ranges: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    let mut at = 0;
    let mut rest = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        rest.push(at..range.start);
        at = range.end;
    }
    rest.push(at..size.max(at));
    rest.retain(|range| range.start < range.end);
    rest
}

/// Sorted clear ranges without those that are too short, as many as there may be.
fn coarsen(clear: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut clear = union(clear);
    let mut least = LEAST_CLEAR;
    loop {
        clear.retain(|range| range.end - range.start >= least);
        if 2 * clear.len() < MAX_RUNS {
            return clear;
        }
        least *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;

    fn planned(protect: &Protect) -> Result<Plan, Error> {
        let dir = tempfile::tempdir().unwrap();
        for (name, size) in [("a", 100_000), ("b", 10), ("c", 50_000)] {
            fs::write(dir.path().join(name), vec![1; size]).unwrap();
        }
        plan(dir.path(), protect)
    }

    fn range(path: Option<&str>, from: u64, to: Option<u64>) -> FileRange {
        FileRange { path: path.map(str::to_owned), from, to }
    }

    #[test]
    fn ranges_are_of_every_file_or_of_one() {
        let of = |ranges: &[FileRange]| planned(&Protect::Ranges(ranges.to_vec())).unwrap().runs;
        let lengths = |runs: Option<Runs>| runs.map(|runs| runs.lengths().to_vec());
        // Of b nothing is long enough to be clear.
        assert_eq!(lengths(of(&[range(None, 0, Some(20_000))])), Some(vec![20_000, 80_000, 20_010, 30_000]));
        assert_eq!(lengths(of(&[range(Some("c"), 0, None)])), Some(vec![0, 100_010, 50_000]));
        let meeting = [
            range(Some("a"), 0, Some(10)),
            range(Some("a"), 5, Some(60_000)),
            range(Some("a"), 63_000, None),
        ];
        assert_eq!(lengths(of(&meeting)), Some(vec![100_000, 50_010]));
        assert_eq!(of(&[range(None, 0, None)]), None);
        let missing = planned(&Protect::Ranges(vec![range(Some("d"), 0, None)]));
        assert!(matches!(missing, Err(Error::NoSuchFile { path }) if path == "d"));
        assert_eq!(planned(&Protect::All).unwrap().runs, None);
    }

    #[test]
    fn media_protects_whole_what_it_does_not_know() {
        let plan = planned(&Protect::Media).unwrap();
        assert_eq!((plan.runs, plan.whole.len()), (None, 3));
    }

    #[test]
    fn no_more_runs_are_made_than_a_player_should_read() {
        let short =
            |index: u64| index * 10_000..index * 10_000 + if index.is_multiple_of(3) { 9_000 } else { 5_000 };
        let clear = coarsen((0..1_000_000).map(short).collect());
        assert_eq!(clear.len(), 333_334);
        assert!(clear.iter().all(|range| range.end - range.start == 9_000));
    }

    proptest! {
        #[test]
        fn a_fraction_is_that_part_and_the_beginning(size in 0u64..30_000_000, millionths in 1u32..=1_000_000) {
            let ranges = spread(size, millionths);
            prop_assert_eq!(union(ranges.clone()), ranges.clone());
            let protected: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            let wanted = size as f64 * f64::from(millionths) / 1e6;
            prop_assert!(ranges.last().is_none_or(|range| range.end <= size));
            prop_assert!(size == 0 || ranges[0].start == 0 && ranges[0].end >= size.min(CHUNK));
            let slack = 600.0 + CHUNK.min(size) as f64;
            prop_assert!(protected as f64 > wanted - 600.0 && (protected as f64) < wanted + slack, "{protected} {wanted}");
        }

        #[test]
        fn what_is_not_inside_is_outside(cuts in prop::collection::vec((0u64..200, 0u64..30), 0..8), size in 0u64..250) {
            let ranges = union(cuts.iter().map(|&(at, len)| at.min(size)..(at + len).min(size)).collect());
            let rest = invert(ranges.clone(), size);
            for byte in 0..size {
                let within = |ranges: &[Range<u64>]| ranges.iter().any(|range| range.contains(&byte));
                prop_assert!(within(&ranges) != within(&rest));
                prop_assert_eq!(within(&ranges), cuts.iter().any(|&(at, len)| (at..at + len).contains(&byte)));
            }
        }
    }
}
