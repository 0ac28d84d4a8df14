//! Selective encryption (paper, section 3.1): which pieces of a torrent are sealed and which are clear, and where each byte of
//! the plaintext stream goes.
//!
//! ```text
//! plaintext stream   header ‖ files                                              (wire::content)
//! runs               sealed, clear, sealed, … bytes, from the first byte of the files on; the header is sealed
//! sealed stream      header ‖ all bytes of sealed runs, in order     cut into payloads, packaged and encrypted as always
//! clear stream       all bytes of clear runs, in order               cut into whole pieces as they are, zeros behind the last
//! ```
//!
//! Pieces of both kinds are numbered together, by where in the plaintext stream their first bytes lie: who reads in order
//! fetches in order. `info.swarmseal.selection` has one bit a piece, the highest bit of the first byte first as in BEP 3's
//! bitfield, 1 where it is sealed, spare bits 0.

use std::ops::Range;

/// Why a selection, or what it is made of, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has another number of bytes than one bit a piece takes.
    #[error("the selection has {found} bytes; {expected} are expected")]
    Length {
        /// For as many pieces as there are.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// A bit behind the last piece is set.
    #[error("the selection's spare bits are not zero")]
    SpareBits,
    /// The list of files is in the first piece.
    #[error("the selection leaves the first piece clear; it is always sealed")]
    FirstClear,
    /// Where nothing is clear, there is no selection.
    #[error("the selection has no clear piece; a torrent without any has no selection")]
    NothingClear,
    /// The runs are not alternating lengths with something clear among them.
    #[error("the runs of sealed and clear bytes cannot be: {0}")]
    BadRuns(&'static str),
    /// Pieces and runs do not belong together.
    #[error("the selection is not the one that the runs of sealed and clear bytes make")]
    Mismatch,
}

/// What is done to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Packaged, and encrypted for each subscriber.
    Sealed,
    /// Left as it is: the same for everybody.
    Clear,
}

/// Which pieces of a torrent are sealed. The first is, and at least one is not.
#[derive(Clone, PartialEq, Eq)]
pub struct Selection {
    bits: Vec<u8>,
    count: u32,
    /// Sealed pieces before every 512th.
    ranks: Vec<u32>,
}

/// Bytes of the bitfield that one rank covers.
const BLOCK: usize = 64;

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sealed, count) = (self.sealed_count(), self.count);
        f.debug_struct("Selection").field("sealed", &sealed).field("count", &count).finish()
    }
}

impl Selection {
    /// Reads the bitfield of `count` pieces. Errors: all but [`Error::BadRuns`] and [`Error::Mismatch`].
    pub fn from_bytes(bytes: &[u8], count: u32) -> Result<Self, Error> {
        let expected = count.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(Error::Length { expected, found: bytes.len() });
        }
        let spare = expected as u32 * 8 - count;
        if bytes.last().is_some_and(|&last| last.trailing_zeros() < spare) {
            return Err(Error::SpareBits);
        }
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        let mut ranks = vec![0];
        for block in bytes.chunks(BLOCK) {
            ranks.push(ranks.last().copied().unwrap_or(0) + ones(block));
        }
        let selection = Selection { bits: bytes.to_vec(), count, ranks };
        if selection.kind(0) == Kind::Clear || count == 0 {
            return Err(Error::FirstClear);
        }
        if selection.clear_count() == 0 {
            return Err(Error::NothingClear);
        }
        Ok(selection)
    }

    /// Of these kinds, one a piece. Errors: [`Error::FirstClear`], [`Error::NothingClear`].
    pub fn new(kinds: &[Kind]) -> Result<Self, Error> {
        let mut bits = vec![0u8; kinds.len().div_ceil(8)];
        for (index, _) in kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Sealed) {
            bits[index / 8] |= 0x80 >> (index % 8);
        }
        Self::from_bytes(&bits, kinds.len() as u32)
    }

    /// The bitfield.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Pieces of both kinds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// What is done to a piece; those behind the last count as sealed.
    pub fn kind(&self, piece: u32) -> Kind {
        let bit = self.bits.get(piece as usize / 8).map(|byte| byte & (0x80 >> (piece % 8)));
        if bit == Some(0) && piece < self.count { Kind::Clear } else { Kind::Sealed }
    }

    /// Whether a piece is there and clear.
    pub fn is_clear(&self, piece: u32) -> bool {
        self.kind(piece) == Kind::Clear
    }

    /// How many pieces are sealed.
    pub fn sealed_count(&self) -> u32 {
        self.ranks.last().copied().unwrap_or(0)
    }

    /// How many pieces are clear.
    pub fn clear_count(&self) -> u32 {
        self.count - self.sealed_count()
    }

    /// Pieces of a kind before `piece`, which is at most the number of pieces: the place of a sealed piece's key in a license.
    pub fn rank(&self, kind: Kind, piece: u32) -> u32 {
        let piece = piece.min(self.count);
        let (block, byte) = (piece as usize / 8 / BLOCK, piece as usize / 8);
        let whole: u32 = self.bits[block * BLOCK..byte].iter().map(|byte| byte.count_ones()).sum();
        let part = self.bits.get(byte).map_or(0, |bits| (bits & !(0xff_u8 >> (piece % 8))).count_ones());
        let sealed = self.ranks[block] + whole + part;
        if kind == Kind::Sealed { sealed } else { piece - sealed }
    }

    /// The `nth` piece of a kind, counted from 0.
    pub fn find(&self, kind: Kind, nth: u32) -> Option<u32> {
        let all = if kind == Kind::Sealed { self.sealed_count() } else { self.clear_count() };
        if nth >= all {
            return None;
        }
        // The last piece with no more than nth of the kind before it is of that kind.
        let (mut low, mut high) = (0, self.count);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.rank(kind, middle) <= nth { low = middle } else { high = middle }
        }
        Some(low)
    }

    /// The sealed pieces, in order.
    pub fn sealed(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count).filter(|&piece| !self.is_clear(piece))
    }
}

/// Lengths of alternating runs of the files' bytes: sealed, clear, sealed, … The first may be 0, no other is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs(Vec<u64>);

impl Runs {
    /// Checks lengths. Errors: [`Error::BadRuns`].
    pub fn new(lengths: Vec<u64>) -> Result<Self, Error> {
        if lengths.len() < 2 {
            return Err(Error::BadRuns("nothing is clear"));
        }
        if lengths[1..].contains(&0) {
            return Err(Error::BadRuns("one is empty"));
        }
        if lengths.iter().try_fold(0u64, |sum, &length| sum.checked_add(length)).is_none() {
            return Err(Error::BadRuns("they add up to more than 2^64 bytes"));
        }
        Ok(Runs(lengths))
    }

    /// The runs that leave these bytes of `total` clear, or none where nothing would be. `clear`: sorted, apart from each other.
    /// Errors: [`Error::BadRuns`].
    pub fn of_clear(clear: &[Range<u64>], total: u64) -> Result<Option<Self>, Error> {
        let (mut lengths, mut at) = (Vec::with_capacity(2 * clear.len() + 1), 0);
        for range in clear {
            if range.start < at
                || range.end <= range.start
                || range.end > total
                || (at == range.start && at > 0)
            {
                return Err(Error::BadRuns("clear ranges overlap, touch, are empty or lie behind the end"));
            }
            lengths.extend([range.start - at, range.end - range.start]);
            at = range.end;
        }
        if lengths.is_empty() {
            return Ok(None);
        }
        lengths.extend((at < total).then_some(total - at));
        Self::new(lengths).map(Some)
    }

    /// The lengths.
    pub fn lengths(&self) -> &[u64] {
        &self.0
    }

    /// Bytes of clear runs.
    pub fn clear(&self) -> u64 {
        self.0.iter().skip(1).step_by(2).sum()
    }

    /// Bytes of all runs.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Where something lies in one of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which stream.
    pub kind: Kind,
    /// Bytes of that stream before it.
    pub offset: u64,
    /// Bytes from there to the end of the run.
    pub left: u64,
}

/// How the plaintext stream is dealt out to the two streams, and these to pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interleaving {
    /// Where each run begins in the plaintext stream; the header counts to the first. Even ones are sealed.
    starts: Vec<u64>,
    /// Bytes of its own stream before each run.
    before: Vec<u64>,
    length: u64,
    /// Bytes of a sealed and of a clear piece.
    sizes: [u64; 2],
}

impl Interleaving {
    /// `header`: bytes before the files. `payload`, `piece_length`: bytes that a sealed and that a clear piece carry, neither 0.
    /// Errors: [`Error::BadRuns`] where all together is more than 2^64 bytes.
    pub fn new(header: u64, runs: &Runs, payload: u64, piece_length: u64) -> Result<Self, Error> {
        let too_long = || Error::BadRuns("they add up to more than 2^64 bytes");
        let mut starts = Vec::with_capacity(runs.0.len());
        let mut before = Vec::with_capacity(runs.0.len());
        let (mut at, mut of_kind) = (0u64, [0u64; 2]);
        for (index, &length) in runs.0.iter().enumerate() {
            let length = if index == 0 { length.checked_add(header).ok_or_else(too_long)? } else { length };
            starts.push(at);
            before.push(of_kind[index % 2]);
            at = at.checked_add(length).ok_or_else(too_long)?;
            of_kind[index % 2] += length;
        }
        Ok(Interleaving { starts, before, length: at, sizes: [payload, piece_length] })
    }

    /// Bytes of the plaintext stream.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of one of the two streams.
    pub fn length_of(&self, kind: Kind) -> u64 {
        let last = (0..self.starts.len()).rev().find(|index| index % 2 == kind as usize);
        last.map_or(0, |last| self.before[last] + self.end(last) - self.starts[last])
    }

    /// Bytes of the streams that a piece of a kind carries; the last carries zeros behind them.
    pub fn size(&self, kind: Kind) -> u64 {
        self.sizes[kind as usize]
    }

    /// How many pieces a stream makes.
    pub fn pieces_of(&self, kind: Kind) -> u64 {
        self.length_of(kind).div_ceil(self.size(kind))
    }

    /// Where a byte of the plaintext stream is; `None` behind its end.
    pub fn locate(&self, offset: u64) -> Option<Place> {
        if offset >= self.length {
            return None;
        }
        let run = self.starts.partition_point(|&start| start <= offset) - 1;
        let kind = if run.is_multiple_of(2) { Kind::Sealed } else { Kind::Clear };
        let within = offset - self.starts[run];
        Some(Place { kind, offset: self.before[run] + within, left: self.end(run) - offset })
    }

    /// Bytes of a stream that lie before a place of the plaintext stream.
    pub fn before(&self, kind: Kind, offset: u64) -> u64 {
        match self.locate(offset) {
            None => self.length_of(kind),
            Some(place) if place.kind == kind => place.offset,
            // All of the plaintext before it is of one kind or the other.
            Some(place) => offset - place.offset,
        }
    }

    /// The parts of the plaintext stream that the `nth` piece of a kind carries, in order.
    pub fn parts(&self, kind: Kind, nth: u32) -> impl Iterator<Item = Range<u64>> + '_ {
        let start = u64::from(nth) * self.size(kind);
        let end = (start + self.size(kind)).min(self.length_of(kind));
        let mut at = start;
        // The last run of the kind that begins no later.
        let mut run = self.run_at(kind, start);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let from = self.starts[run] + (at - self.before[run]);
            let length = (self.end(run) - from).min(end - at);
            at += length;
            run += 2;
            Some(from..from + length)
        })
    }

    /// The pieces in their order. Errors: [`Error::FirstClear`], [`Error::NothingClear`]; [`Error::BadRuns`] where there are more
    /// pieces than can be numbered.
    pub fn selection(&self) -> Result<Selection, Error> {
        let counts = [self.pieces_of(Kind::Sealed), self.pieces_of(Kind::Clear)];
        if counts.iter().sum::<u64>() > u64::from(u32::MAX) {
            return Err(Error::BadRuns("they make too many pieces"));
        }
        let mut next = [0u32; 2];
        let first_byte = |kind: Kind, nth: u32| {
            let start = u64::from(nth) * self.size(kind);
            let run = self.run_at(kind, start);
            self.starts[run] + (start - self.before[run])
        };
        let mut kinds = Vec::with_capacity(counts.iter().sum::<u64>() as usize);
        loop {
            let due = |kind: Kind| {
                let nth = next[kind as usize];
                (u64::from(nth) < counts[kind as usize]).then(|| (first_byte(kind, nth), kind))
            };
            let Some((_, kind)) = [due(Kind::Sealed), due(Kind::Clear)].into_iter().flatten().min() else {
                break;
            };
            next[kind as usize] += 1;
            kinds.push(kind);
        }
        Selection::new(&kinds)
    }

    fn end(&self, run: usize) -> u64 {
        self.starts.get(run + 1).copied().unwrap_or(self.length)
    }

    /// The run of a kind that has the byte at `offset` of its stream; of a stream without bytes, any.
    fn run_at(&self, kind: Kind, offset: u64) -> usize {
        let of_kind = |nth: usize| 2 * nth + kind as usize;
        let count = (self.starts.len() + 1 - kind as usize) / 2;
        let (mut low, mut high) = (0, count.max(1));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.before[of_kind(middle)] <= offset { low = middle } else { high = middle }
        }
        of_kind(low).min(self.starts.len().saturating_sub(1))
    }
}

// A list of one range is what is meant.
#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(bits: &[bool]) -> Vec<Kind> {
        bits.iter().map(|&sealed| if sealed { Kind::Sealed } else { Kind::Clear }).collect()
    }

    #[test]
    fn a_selection_has_one_form() {
        let selection = Selection::from_bytes(&[0b1010_0000, 0b1000_0000], 9).unwrap();
        assert_eq!((selection.sealed_count(), selection.clear_count()), (3, 6));
        assert_eq!(selection.sealed().collect::<Vec<_>>(), [0, 2, 8]);
        assert_eq!(selection.kind(9), Kind::Sealed);
        for (bytes, count, error) in [
            (&[0x80][..], 9, Error::Length { expected: 2, found: 1 }),
            (&[0x80, 0, 0], 9, Error::Length { expected: 2, found: 3 }),
            (&[], 1, Error::Length { expected: 1, found: 0 }),
            (&[], 0, Error::FirstClear),
            (&[0x80, 0x40], 9, Error::SpareBits),
            (&[0xa0, 0x01], 15, Error::SpareBits),
            (&[0x40], 8, Error::FirstClear),
            (&[0xff, 0x80], 9, Error::NothingClear),
        ] {
            assert_eq!(Selection::from_bytes(bytes, count), Err(error), "{bytes:?} of {count}");
        }
    }

    #[test]
    fn runs_have_one_form() {
        assert!(Runs::new(vec![0, 5]).is_ok() && Runs::new(vec![3, 5, 1]).is_ok());
        for bad in [&[][..], &[7], &[1, 0], &[1, 2, 0], &[u64::MAX, 1]] {
            assert!(matches!(Runs::new(bad.to_vec()), Err(Error::BadRuns(_))), "{bad:?}");
        }
        assert_eq!(Runs::of_clear(&[], 9), Ok(None));
        assert_eq!(Runs::of_clear(&[0..2, 5..9], 9).unwrap().unwrap().lengths(), [0, 2, 3, 4]);
        assert_eq!(Runs::of_clear(&[1..2], 9).unwrap().unwrap().lengths(), [1, 1, 7]);
        for bad in [&[5..10][..], &[3..3], &[1..4, 3..5], &[1..4, 4..5]] {
            assert!(Runs::of_clear(bad, 9).is_err(), "{bad:?}");
        }
        let runs = Runs::new(vec![1, u64::MAX - 1]).unwrap();
        assert!(Interleaving::new(1, &runs, 1, 1).is_err());
    }

    proptest! {
        #[test]
        fn ranks_and_places_are_those_of_a_plain_list(bits in prop::collection::vec(any::<bool>(), 2..3000)) {
            let mut bits = bits;
            bits[0] = true;
            *bits.last_mut().unwrap() = false;
            let kinds = kinds(&bits);
            let selection = Selection::new(&kinds).unwrap();
            let bytes = selection.as_bytes().to_vec();
            prop_assert_eq!(&Selection::from_bytes(&bytes, bits.len() as u32).unwrap(), &selection);
            for kind in [Kind::Sealed, Kind::Clear] {
                let all: Vec<u32> = (0..).zip(&kinds).filter(|(_, it)| **it == kind).map(|(at, _)| at).collect();
                for (nth, &piece) in all.iter().enumerate() {
                    prop_assert_eq!(selection.find(kind, nth as u32), Some(piece));
                    prop_assert_eq!(selection.rank(kind, piece), nth as u32);
                    prop_assert_eq!(selection.kind(piece), kind);
                }
                prop_assert_eq!(selection.find(kind, all.len() as u32), None);
                prop_assert_eq!(selection.rank(kind, bits.len() as u32), all.len() as u32);
            }
        }

        #[test]
        fn any_bytes_are_a_selection_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..9), count in 0u32..80) {
            if let Ok(selection) = Selection::from_bytes(&bytes, count) {
                prop_assert_eq!(selection.as_bytes(), &bytes);
                prop_assert!(selection.sealed_count() > 0 && selection.clear_count() > 0);
            }
        }

        /// The model: a list of bytes, each with its place, dealt out one by one.
        #[test]
        fn every_byte_is_where_a_plain_list_has_it(
            header in 1u64..20,
            lengths in prop::collection::vec(1u64..40, 2..12),
            first_empty: bool,
            payload in 1u64..30,
            extra in 0u64..10,
        ) {
            let mut lengths = lengths;
            if first_empty {
                lengths[0] = 0;
            }
            let piece_length = payload + extra;
            let runs = Runs::new(lengths.clone()).unwrap();
            let map = Interleaving::new(header, &runs, payload, piece_length).unwrap();
            let mut streams: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            lengths[0] += header;
            let mut at = 0;
            for (index, &length) in lengths.iter().enumerate() {
                for left in (1..=length).rev() {
                    let kind = if index % 2 == 0 { Kind::Sealed } else { Kind::Clear };
                    let offset = streams[index % 2].len() as u64;
                    prop_assert_eq!(map.locate(at), Some(Place { kind, offset, left }));
                    for kind in [Kind::Sealed, Kind::Clear] {
                        prop_assert_eq!(map.before(kind, at), streams[kind as usize].len() as u64);
                    }
                    streams[index % 2].push(at);
                    at += 1;
                }
            }
            prop_assert_eq!((map.length(), map.locate(at)), (at, None));
            let selection = map.selection().unwrap();
            let mut pieces = Vec::new();
            for kind in [Kind::Sealed, Kind::Clear] {
                let stream = &streams[kind as usize];
                prop_assert_eq!(map.length_of(kind), stream.len() as u64);
                for (nth, bytes) in stream.chunks(map.size(kind) as usize).enumerate() {
                    let parts: Vec<u64> = map.parts(kind, nth as u32).flatten().collect();
                    prop_assert_eq!(&parts, bytes);
                    pieces.push((bytes[0], kind));
                }
                prop_assert_eq!(map.pieces_of(kind), stream.chunks(map.size(kind) as usize).count() as u64);
            }
            pieces.sort_unstable();
            let order: Vec<Kind> = pieces.into_iter().map(|(_, kind)| kind).collect();
            prop_assert_eq!(selection, Selection::new(&order).unwrap());
        }
    }
}
