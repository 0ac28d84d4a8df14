//! Small MP4 files, made box by box: what they hold is known to the byte.

/// A box.
pub fn boxed(name: &[u8; 4], body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], name, &body].concat()
}

/// A box with a length of 64 bits.
pub fn long_boxed(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&1u32.to_be_bytes()[..], name, &(body.len() as u64 + 16).to_be_bytes(), body].concat()
}

/// Numbers of 32 bits, after version and flags.
pub fn table(name: &[u8; 4], flags: u32, numbers: &[u32]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
    boxed(name, &[&flags.to_be_bytes(), &numbers])
}

/// How a picture's macroblocks are coded, or what a track is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// H.264 with CABAC.
    Cabac,
    /// H.264 with CAVLC.
    Cavlc,
    /// Sound.
    Sound,
}

/// A NAL unit with its length, of that many bytes in all.
pub fn nal(first: [u8; 2], length: usize) -> Vec<u8> {
    let mut unit = vec![0x55; length];
    unit[..4].copy_from_slice(&(length as u32 - 4).to_be_bytes());
    unit[4..6].copy_from_slice(&first);
    unit
}

/// First bytes of a slice of P macroblocks, of one of I macroblocks, of an IDR slice and of supplemental information.
pub const P: [u8; 2] = [0x41, 0x98];
/// See [`P`].
pub const I: [u8; 2] = [0x41, 0x88];
/// See [`P`].
pub const IDR: [u8; 2] = [0x65, 0x88];
/// See [`P`].
pub const SEI: [u8; 2] = [0x06, 0x05];

fn sample_entries(coding: Coding) -> Vec<u8> {
    let pps = match coding {
        Coding::Cabac => 0xee,
        Coding::Cavlc => 0xce,
        Coding::Sound => {
            return boxed(b"stsd", &[&[0; 4], &1u32.to_be_bytes(), &boxed(b"mp4a", &[&[0; 28]])]);
        }
    };
    let config = [1, 100, 0, 31, 0xff, 0xe1, 0, 4, 0x67, 100, 0, 31, 1, 0, 2, 0x68, pps];
    let entry = boxed(b"avc1", &[&[0; 78], &boxed(b"avcC", &[&config])]);
    boxed(b"stsd", &[&[0; 4], &1u32.to_be_bytes(), &entry])
}

/// A track of samples of these sizes, in chunks of `together`, which begin at these places. `keys`: numbers of key frames.
pub struct Track<'a> {
    /// What it is.
    pub coding: Coding,
    /// Bytes of each sample.
    pub sizes: &'a [u32],
    /// Samples in a chunk.
    pub together: u32,
    /// Where chunks begin.
    pub chunks: &'a [u64],
    /// Numbers of key frames, from 1 on; without them, all are.
    pub keys: Option<&'a [u32]>,
}

impl Track<'_> {
    /// The `trak` of that number; `wide`: places have 64 bits.
    pub fn trak(&self, id: u32, wide: bool) -> Vec<u8> {
        let mut tkhd = [0u32; 20];
        tkhd[2] = id;
        let sizes = [&[0, self.sizes.len() as u32], self.sizes].concat();
        let chunks = if wide {
            let places: Vec<u8> = self.chunks.iter().flat_map(|place| place.to_be_bytes()).collect();
            boxed(b"co64", &[&[0; 4], &(self.chunks.len() as u32).to_be_bytes(), &places])
        } else {
            let places: Vec<u32> = self.chunks.iter().map(|&place| place as u32).collect();
            table(b"stco", 0, &[&[places.len() as u32], &places[..]].concat())
        };
        let keys = self.keys.map(|keys| table(b"stss", 0, &[&[keys.len() as u32], keys].concat()));
        let tables = [
            sample_entries(self.coding),
            table(b"stsz", 0, &sizes),
            table(b"stsc", 0, &[1, 1, self.together, 1]),
            chunks,
            keys.unwrap_or_default(),
        ];
        let stbl = boxed(b"stbl", &[&tables.concat()]);
        let mdia = boxed(b"mdia", &[&boxed(b"minf", &[&stbl])]);
        boxed(b"trak", &[&table(b"tkhd", 7, &tkhd), &mdia])
    }
}

/// The first box.
pub fn ftyp() -> Vec<u8> {
    boxed(b"ftyp", &[b"isom\0\0\x02\0isomavc1"])
}

/// A key frame and three that depend on it, all of one slice, and a sound between them, in one chunk each.
pub fn plain(wide: bool, moov_first: bool) -> Vec<u8> {
    let video = [nal(IDR, 300), nal(P, 1500), nal(P, 2600), nal(P, 1200)];
    let sound = vec![0x77; 500];
    let media = [&video[0][..], &video[1], &sound, &video[2], &video[3]].concat();
    let sizes = [300, 1500, 2600, 1200];
    let moov = |start: u64| {
        let video = Track {
            coding: Coding::Cabac,
            sizes: &sizes,
            together: 2,
            chunks: &[start, start + 2300],
            keys: Some(&[1]),
        };
        let sound =
            Track { coding: Coding::Sound, sizes: &[500], together: 1, chunks: &[start + 1800], keys: None };
        boxed(b"moov", &[&video.trak(1, wide), &sound.trak(2, wide)])
    };
    let header = if wide { 16 } else { 8 };
    let before = ftyp().len() + if moov_first { moov(0).len() } else { 0 };
    let moov = moov((before + header) as u64);
    let mdat = if wide { long_boxed(b"mdat", &media) } else { boxed(b"mdat", &[&media]) };
    if moov_first { [ftyp(), moov, mdat].concat() } else { [ftyp(), mdat, moov].concat() }
}

/// Two fragments of a key frame and two others each: once told apart by the first sample's flags, once by each one's.
pub fn fragmented() -> Vec<u8> {
    let track = Track { coding: Coding::Cabac, sizes: &[], together: 1, chunks: &[], keys: None };
    let mvex = boxed(b"mvex", &[&table(b"trex", 0, &[1, 1, 1, 0, 0x1_0000])]);
    let moov = boxed(b"moov", &[&track.trak(1, false), &mvex]);
    let media = boxed(b"mdat", &[&nal(IDR, 200), &nal(P, 1600), &nal(P, 1700)]);
    let moof = |trun: &dyn Fn(u32) -> Vec<u8>| {
        let of = |offset| {
            let traf = boxed(b"traf", &[&table(b"tfhd", 0x2_0000, &[1]), &trun(offset)]);
            boxed(b"moof", &[&table(b"mfhd", 0, &[1]), &traf])
        };
        of(of(0).len() as u32 + 8)
    };
    let first = moof(&|offset| table(b"trun", 0x205, &[3, offset, 0x200_0000, 200, 1600, 1700]));
    let each =
        moof(&|offset| table(b"trun", 0x601, &[3, offset, 200, 0x200_0000, 1600, 0x1_0000, 1700, 0x1_0000]));
    [ftyp(), moov, first, media.clone(), each, media].concat()
}
