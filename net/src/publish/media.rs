//! What of an MP4, M4A or MOV file may stay clear under `--protect media`.
//!
//! Only the inner bytes of pictures that depend on others may: of each NAL unit of each H.264 sample that is no key frame, what
//! follows its first kibibyte. Everything else is protected, and so is whatever is not understood.
//!
//! Key frames alone would not do. A decoder that is told the encoder's settings shows inter pictures against grey, and outlines
//! move in it. The beginning of a slice has its header, and the state that CABAC, an adaptive arithmetic code, was in
//! afterwards is a function of every bit before: what follows cannot be entered in the middle. Nothing of the kind holds for
//! CAVLC, nor is it tried for other codecs, where tiles begin afresh within a picture: those tracks are protected whole.
//!
//! mp4-atom reads the boxes that are lists of numbers. The boxes around them are walked here, so that one that it does not know
//! costs nothing. `mdat` is never read, but for the length and the first bytes of each NAL unit.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use mp4_atom::{
    Atom, Avcc, Co64, DecodeAtom, FourCC, Header, Stco, Stsc, Stss, Stsz, StszSamples, Tfhd, Tkhd, Trex, Trun,
};

use super::protect::{invert, union};
use crate::platform::read_at;

/// Bytes of every NAL unit's beginning that are protected, with its length.
const HEAD: u64 = 1024;
/// Bytes of the longest `moov` or `moof` that is read.
const MAX_BOX: u64 = 256 << 20;
/// Boxes of a file, at its top, at most.
const MAX_TOP: usize = 1 << 20;
/// Samples that are looked at, at most.
const MAX_SAMPLES: usize = 4 << 20;
/// Bytes of a NAL unit's beginning that are looked at.
const PEEK: usize = 16;

/// Why a file is protected whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It has another format.
    #[error("it is no MP4")]
    NotMp4,
    /// It is an MP4 that breaks the rules, or those known here.
    #[error("its boxes cannot be understood: {0}")]
    Boxes(&'static str),
    /// There is nothing in it that may be left clear.
    #[error("{0}")]
    NothingClear(&'static str),
}

impl From<mp4_atom::Error> for Error {
    fn from(_: mp4_atom::Error) -> Self {
        Error::Boxes("one does not say what it should")
    }
}

/// Bytes at any place of a file.
pub trait Source {
    /// Fills `out`, or fails.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_at(self, out, offset)
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let bytes = self.get(start..).and_then(|bytes| bytes.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What may stay clear of a file of that size: sorted, apart, inside it.
pub fn clear_ranges(path: &Path, size: u64) -> Result<Vec<Range<u64>>, Error> {
    clear_ranges_of(&File::open(path)?, size)
}

/// [`clear_ranges`] of any bytes.
pub fn clear_ranges_of<S: Source + ?Sized>(source: &S, size: u64) -> Result<Vec<Range<u64>>, Error> {
    let boxes = top_boxes(source, size)?;
    let moov = boxes
        .iter()
        .find(|found| found.kind == FourCC::new(b"moov"))
        .ok_or(Error::Boxes("there is no moov"))?;
    let moov = read_box(source, moov)?;
    let mut tracks = Vec::new();
    for trak in children(&moov, b"trak")? {
        tracks.extend(Track::new(trak)?);
    }
    for trex in children(&moov, b"mvex")?
        .into_iter()
        .map(|mvex| children(mvex, b"trex"))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        let trex: Trex = decode(trex)?;
        for track in tracks.iter_mut().filter(|track| track.id == trex.track_id) {
            track.default_size = trex.default_sample_size;
            track.default_flags = trex.default_sample_flags;
        }
    }
    if tracks.is_empty() {
        return Err(Error::NothingClear("it has no track of H.264 video with CABAC"));
    }
    let mut found = Found {
        media: boxes
            .iter()
            .filter(|found| found.kind == FourCC::new(b"mdat"))
            .map(|found| found.body.clone())
            .collect(),
        ..Found::default()
    };
    for track in &tracks {
        track.samples(source, &mut found)?;
    }
    for moof in boxes.iter().filter(|found| found.kind == FourCC::new(b"moof")) {
        fragment(source, moof, &tracks, &mut found)?;
    }
    let clear = subtract(union(found.clear), union(found.sealed));
    if clear.is_empty() {
        return Err(Error::NothingClear("nothing of its pictures may be left clear"));
    }
    Ok(clear)
}

/// A box's place.
#[derive(Clone, Debug)]
struct BoxPlace {
    kind: FourCC,
    start: u64,
    body: Range<u64>,
}

/// What was found out of samples.
#[derive(Default)]
struct Found {
    /// Bodies of `mdat`.
    media: Vec<Range<u64>>,
    clear: Vec<Range<u64>>,
    sealed: Vec<Range<u64>>,
    samples: usize,
}

fn top_boxes<S: Source + ?Sized>(source: &S, size: u64) -> Result<Vec<BoxPlace>, Error> {
    let (mut boxes, mut at) = (Vec::new(), 0);
    while at < size {
        let mut bytes = [0; 16];
        let there = (size - at).min(16) as usize;
        if there < 8 || boxes.len() == MAX_TOP {
            return Err(Error::Boxes("they do not fill the file"));
        }
        source.read_at(at, &mut bytes[..there])?;
        let (kind, header, length) = box_header(&bytes[..there]).ok_or(if at == 0 {
            Error::NotMp4
        } else {
            Error::Boxes("a length cannot be")
        })?;
        let known: [&[u8; 4]; 8] = [b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"sidx"];
        if at == 0 && !known.iter().any(|name| kind == FourCC::new(name)) {
            return Err(Error::NotMp4);
        }
        let end = length.map_or(Some(size), |length| at.checked_add(length)).filter(|&end| end <= size);
        let end = end.ok_or(Error::Boxes("one ends behind the file"))?;
        boxes.push(BoxPlace { kind, start: at, body: at + header..end });
        at = end;
    }
    Ok(boxes)
}

/// A box's name, the bytes of its header and of all of it; `None` where it lasts to the end.
fn box_header(bytes: &[u8]) -> Option<(FourCC, u64, Option<u64>)> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?);
    let kind = FourCC::new(bytes.get(4..8)?.first_chunk()?);
    let (header, length) = match length {
        0 => (8, None),
        1 => (16, Some(u64::from_be_bytes(*bytes.get(8..16)?.first_chunk()?))),
        length => (8, Some(u64::from(length))),
    };
    length.is_none_or(|length| length >= header).then_some((kind, header, length))
}

fn read_box<S: Source + ?Sized>(source: &S, found: &BoxPlace) -> Result<Vec<u8>, Error> {
    let length = found.body.end - found.body.start;
    if length > MAX_BOX {
        return Err(Error::Boxes("one is too long"));
    }
    let mut body = vec![0; length as usize];
    source.read_at(found.body.start, &mut body)?;
    Ok(body)
}

/// The bodies of all boxes of a name directly within a body.
fn children<'a>(body: &'a [u8], name: &[u8; 4]) -> Result<Vec<&'a [u8]>, Error> {
    let (mut rest, mut found) = (body, Vec::new());
    // QuickTime ends some lists with four zeros.
    while rest.len() >= 8 {
        let (kind, header, length) = box_header(rest).ok_or(Error::Boxes("a length cannot be"))?;
        let length = length
            .map_or(Some(rest.len()), |length| usize::try_from(length).ok())
            .filter(|&length| length <= rest.len());
        let (this, others) = rest.split_at(length.ok_or(Error::Boxes("one is longer than what it is in"))?);
        if kind == FourCC::new(name) {
            found.push(&this[header as usize..]);
        }
        rest = others;
    }
    Ok(found)
}

fn child<'a>(body: &'a [u8], name: &[u8; 4]) -> Result<Option<&'a [u8]>, Error> {
    Ok(children(body, name)?.into_iter().next())
}

fn inside<'a>(body: &'a [u8], path: &[&[u8; 4]]) -> Result<Option<&'a [u8]>, Error> {
    path.iter().try_fold(Some(body), |body, name| body.map_or(Ok(None), |body| child(body, name)))
}

/// Reads the body of a box of known kind.
fn decode<T: Atom>(body: &[u8]) -> Result<T, Error> {
    let mut rest = body;
    Ok(T::decode_atom(&Header { kind: T::KIND, size: Some(body.len()) }, &mut rest)?)
}

/// A track of H.264 with CABAC.
struct Track {
    id: u32,
    /// Bytes of a NAL unit's length.
    length_size: usize,
    sizes: Stsz,
    /// Runs of chunks.
    chunks: Stsc,
    offsets: Vec<u64>,
    /// Numbers of key frames, sorted, from 1 on; `None`: all are.
    keys: Option<Vec<u32>>,
    default_size: u32,
    default_flags: u32,
}

impl Track {
    /// `None` where it is of another kind, or a sort that stays whole.
    fn new(trak: &[u8]) -> Result<Option<Self>, Error> {
        let Some(tables) = inside(trak, &[b"mdia", b"minf", b"stbl"])? else { return Ok(None) };
        let (Some(tkhd), Some(entries)) = (child(trak, b"tkhd")?, child(tables, b"stsd")?) else {
            return Ok(None);
        };
        let Some(length_size) = cabac_length_size(entries)? else { return Ok(None) };
        let table = |name| child(tables, name)?.ok_or(Error::Boxes("a table is missing"));
        let offsets = match child(tables, b"co64")? {
            Some(co64) => decode::<Co64>(co64)?.entries,
            None => decode::<Stco>(table(b"stco")?)?.entries.into_iter().map(u64::from).collect(),
        };
        let mut keys =
            child(tables, b"stss")?.map(|stss| decode::<Stss>(stss).map(|stss| stss.entries)).transpose()?;
        keys.iter_mut().for_each(|keys| keys.sort_unstable());
        Ok(Some(Track {
            id: decode::<Tkhd>(tkhd)?.track_id,
            length_size,
            sizes: decode(table(b"stsz")?)?,
            chunks: decode(table(b"stsc")?)?,
            offsets,
            keys,
            default_size: 0,
            default_flags: 0,
        }))
    }

    /// Looks at every sample that the tables name.
    fn samples<S: Source + ?Sized>(&self, source: &S, found: &mut Found) -> Result<(), Error> {
        let count = match &self.sizes.samples {
            StszSamples::Identical { count, .. } => *count as usize,
            StszSamples::Different { sizes } => sizes.len(),
        };
        let mut number = 0;
        for (index, entry) in self.chunks.entries.iter().enumerate() {
            let until = self
                .chunks
                .entries
                .get(index + 1)
                .map_or(self.offsets.len(), |next| next.first_chunk.saturating_sub(1) as usize);
            let first = (entry.first_chunk as usize)
                .checked_sub(1)
                .ok_or(Error::Boxes("chunks are counted from 1"))?;
            let Some(offsets) = self.offsets.get(first..until) else {
                return Err(Error::Boxes("a chunk is missing"));
            };
            for &chunk in offsets {
                let mut at = chunk;
                for _ in 0..entry.samples_per_chunk {
                    if number == count {
                        return Ok(());
                    }
                    let size = match &self.sizes.samples {
                        StszSamples::Identical { size, .. } => *size,
                        StszSamples::Different { sizes } => sizes[number],
                    };
                    let end = at.checked_add(size.into()).ok_or(Error::Boxes("a sample cannot be there"))?;
                    number += 1;
                    let key =
                        self.keys.as_ref().is_none_or(|keys| keys.binary_search(&(number as u32)).is_ok());
                    self.sample(source, at..end, key, found)?;
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// Looks at one sample.
    fn sample<S: Source + ?Sized>(
        &self,
        source: &S,
        sample: Range<u64>,
        key: bool,
        found: &mut Found,
    ) -> Result<(), Error> {
        found.samples += 1;
        let after = found.media.partition_point(|media| media.end < sample.end);
        if found.samples > MAX_SAMPLES
            || found.media.get(after).is_none_or(|media| media.start > sample.start)
        {
            return Err(Error::Boxes("a sample cannot be there"));
        }
        let clear = if key { None } else { self.inner(source, sample.clone())? };
        match clear {
            Some(clear) => {
                found.sealed.extend(invert_within(&clear, sample));
                found.clear.extend(clear);
            }
            None => found.sealed.push(sample),
        }
        Ok(())
    }

    /// What of a sample may be clear; `None` where it is a key frame after all, or not what it should be.
    fn inner<S: Source + ?Sized>(
        &self,
        source: &S,
        sample: Range<u64>,
    ) -> Result<Option<Vec<Range<u64>>>, Error> {
        let (mut at, mut clear) = (sample.start, Vec::new());
        while at < sample.end {
            let mut bytes = [0; 4 + PEEK];
            let there = (sample.end - at).min((self.length_size + PEEK) as u64) as usize;
            source.read_at(at, &mut bytes[..there])?;
            let Some(nal) = bytes[..there].get(self.length_size..) else { return Ok(None) };
            let length =
                bytes[..self.length_size].iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
            let end = at + self.length_size as u64 + length;
            if length == 0 || end > sample.end {
                return Ok(None);
            }
            match content_of(nal) {
                Content::Alone => return Ok(None),
                Content::Dependent if end - at > HEAD => clear.push(at + HEAD..end),
                Content::Dependent | Content::Other => {}
            }
            at = end;
        }
        Ok(Some(clear))
    }
}

/// What a NAL unit holds.
enum Content {
    /// A slice of P or B macroblocks.
    Dependent,
    /// What a picture can be made of without another, or what is not known.
    Alone,
    /// No picture: supplemental information, a delimiter, ends, filler.
    Other,
}

fn content_of(nal: &[u8]) -> Content {
    match nal.first().map(|byte| byte & 0x1f) {
        Some(1) => {
            let mut bits = Bits::new(&nal[1..]);
            // first_mb_in_slice, slice_type: 0 and 5 are P, 1 and 6 B, the others I and switching slices.
            match (bits.exp_golomb(), bits.exp_golomb()) {
                (Some(_), Some(0 | 1 | 5 | 6)) => Content::Dependent,
                _ => Content::Alone,
            }
        }
        Some(6 | 9..=12) => Content::Other,
        _ => Content::Alone,
    }
}

/// Bytes of NAL units' lengths, if all entries of an `stsd` are `avc1` whose pictures are coded with CABAC.
fn cabac_length_size(stsd: &[u8]) -> Result<Option<usize>, Error> {
    let Some(mut rest) = stsd.get(8..) else { return Ok(None) };
    let mut length_size = None;
    while rest.len() >= 8 {
        let (kind, header, length) = box_header(rest).ok_or(Error::Boxes("a length cannot be"))?;
        let length =
            length.and_then(|length| usize::try_from(length).ok()).filter(|&length| length <= rest.len());
        let (entry, others) = rest.split_at(length.ok_or(Error::Boxes("one is longer than what it is in"))?);
        // What stands before the boxes of a visual sample entry (ISO/IEC 14496-12, 12.1.3).
        let boxes = entry.get(header as usize + 78..);
        let (true, Some(boxes)) = (kind == FourCC::new(b"avc1"), boxes) else { return Ok(None) };
        let Some(avcc) = child(boxes, b"avcC")? else { return Ok(None) };
        let avcc: Avcc = decode(avcc)?;
        let size = usize::from(avcc.length_size);
        let all = !avcc.picture_parameter_sets.is_empty()
            && avcc.picture_parameter_sets.iter().all(|pps| is_cabac(pps));
        if !all || !(1..=4).contains(&size) || length_size.is_some_and(|before| before != size) {
            return Ok(None);
        }
        length_size = Some(size);
        rest = others;
    }
    Ok(length_size)
}

/// entropy_coding_mode_flag of a picture parameter set (H.264, 7.3.2.2).
fn is_cabac(pps: &[u8]) -> bool {
    let Some(body) = pps.get(1..) else { return false };
    let mut bits = Bits::new(body);
    let (_, _) = (bits.exp_golomb(), bits.exp_golomb());
    bits.next() == Some(true)
}

/// Bits of a NAL unit, the highest first, without emulation prevention.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0 }
    }

    fn next(&mut self) -> Option<bool> {
        let index = self.at / 8;
        // 0, 0, 3: the 3 is not the picture's.
        if self.at.is_multiple_of(8) && index >= 2 && self.bytes.get(index - 2..=index) == Some(&[0, 0, 3]) {
            self.at += 8;
        }
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// ue(v) (H.264, 9.1).
    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.next()? {
            zeros += 1;
        }
        let mut value = 1u32;
        for _ in 0..zeros {
            value = value.checked_mul(2)?.checked_add(u32::from(self.next()?))?;
        }
        Some(value - 1)
    }
}

/// Looks at the samples of a fragment.
fn fragment<S: Source + ?Sized>(
    source: &S,
    moof: &BoxPlace,
    tracks: &[Track],
    found: &mut Found,
) -> Result<(), Error> {
    let body = read_box(source, moof)?;
    for traf in children(&body, b"traf")? {
        let tfhd: Tfhd = decode(child(traf, b"tfhd")?.ok_or(Error::Boxes("a table is missing"))?)?;
        let Some(track) = tracks.iter().find(|track| track.id == tfhd.track_id) else { continue };
        let size = tfhd.default_sample_size.unwrap_or(track.default_size);
        let flags = tfhd.default_sample_flags.unwrap_or(track.default_flags);
        let base = tfhd.base_data_offset.unwrap_or(moof.start);
        let mut next = None;
        for trun in children(traf, b"trun")? {
            let trun: Trun = decode(trun)?;
            let mut at = match (trun.data_offset, next) {
                (Some(offset), _) => base.checked_add_signed(offset.into()),
                (None, Some(next)) => Some(next),
                // Where those of the track before ended, which nobody writes any more.
                (None, None) => None,
            }
            .ok_or(Error::Boxes("a sample cannot be there"))?;
            for entry in trun.samples.iter() {
                let size = entry.size.unwrap_or(size);
                let end = at.checked_add(size.into()).ok_or(Error::Boxes("a sample cannot be there"))?;
                // sample_is_non_sync_sample.
                let key = entry.flags.unwrap_or(flags) & 0x1_0000 == 0;
                track.sample(source, at..end, key, found)?;
                at = end;
            }
            next = Some(at);
        }
    }
    Ok(())
}

/// What of `whole` is not clear.
fn invert_within(clear: &[Range<u64>], whole: Range<u64>) -> Vec<Range<u64>> {
    let moved = clear.iter().map(|range| range.start - whole.start..range.end - whole.start).collect();
    invert(moved, whole.end - whole.start)
        .into_iter()
        .map(|range| range.start + whole.start..range.end + whole.start)
        .collect()
}

/// What is in `from` and not in `what`; both sorted and apart.
fn subtract(from: Vec<Range<u64>>, what: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(from.len());
    let mut next = 0;
    for range in from {
        let mut at = range.start;
        while what.get(next).is_some_and(|sealed| sealed.end <= at) {
            next += 1;
        }
        let mut index = next;
        while let Some(sealed) = what.get(index).filter(|sealed| sealed.start < range.end) {
            left.push(at..sealed.start.max(at));
            at = sealed.end.max(at);
            index += 1;
        }
        left.push(at.min(range.end)..range.end);
    }
    left.retain(|range| range.start < range.end);
    left
}
