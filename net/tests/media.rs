//! `--protect media`: what of an MP4 stays clear, and what an unlicensed peer can make of it.

// A list of one range is what is meant.
#![allow(clippy::single_range_in_vec_init)]

// Public, for not every item in it serves here.
pub mod mp4;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use swarmseal::publish::media::{Error, clear_ranges, clear_ranges_of};
use swarmseal::publish::protect::{Protect, plan};

use self::mp4::{Coding, I, IDR, P, SEI, Track, boxed, fragmented, ftyp, nal, plain};

/// What of a slice is protected.
const HEAD: u64 = 1024;

fn clear_of(file: &[u8]) -> Result<Vec<Range<u64>>, Error> {
    clear_ranges_of(file, file.len() as u64)
}

/// Where these bytes begin in a file, which has them once.
fn place(file: &[u8], part: &[u8]) -> u64 {
    let mut found = (0..file.len() - part.len()).filter(|&at| file[at..].starts_with(part));
    let (at, more) = (found.next().unwrap(), found.next());
    assert_eq!(more, None);
    at as u64
}

#[test]
fn the_inner_bytes_of_dependent_pictures_are_clear() {
    for (wide, moov_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let file = plain(wide, moov_first);
        let clear = clear_of(&file).unwrap();
        let [one, two, three] = [1500, 2600, 1200].map(|length| {
            let start = place(&file, &nal(P, length)[..7]);
            start + HEAD..start + length as u64
        });
        assert_eq!(clear, [one, two, three]);
    }
}

#[test]
fn fragments_say_which_samples_are_keys_in_two_ways() {
    let file = fragmented();
    let clear = clear_of(&file).unwrap();
    let lengths: Vec<u64> = clear.iter().map(|range| range.end - range.start).collect();
    assert_eq!(lengths, [1600 - HEAD, 1700 - HEAD, 1600 - HEAD, 1700 - HEAD]);
    for range in clear {
        assert!(file[range.start as usize..range.end as usize].iter().all(|&byte| byte == 0x55));
    }
}

/// A file of one track in one chunk whose samples are these.
fn file_of(coding: Coding, samples: &[Vec<u8>], keys: Option<&[u32]>) -> Vec<u8> {
    let sizes: Vec<u32> = samples.iter().map(|sample| sample.len() as u32).collect();
    let start = ftyp().len() as u64 + 8;
    let track = Track { coding, sizes: &sizes, together: sizes.len() as u32, chunks: &[start], keys };
    let media = boxed(b"mdat", &[&samples.concat()]);
    [ftyp(), media, boxed(b"moov", &[&track.trak(1, false)])].concat()
}

#[test]
fn whatever_can_be_shown_alone_or_is_not_understood_is_protected() {
    let start = ftyp().len() as u64 + 8;
    let key = nal(IDR, 5000);
    let lengths = |samples: &[Vec<u8>]| -> Vec<Range<u64>> {
        let first = [std::slice::from_ref(&key), samples].concat();
        match clear_of(&file_of(Coding::Cabac, &first, Some(&[1]))) {
            Ok(clear) => clear.iter().map(|it| it.start - start - 5000..it.end - start - 5000).collect(),
            Err(Error::NothingClear(_)) => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(lengths(&[nal(P, 5000)]), [1024..5000]);
    // Slices of one picture, each with a beginning of its own; captions and the like are not pictures, and sealed.
    let several = [nal(SEI, 3000), nal(P, 5000), nal(P, 500), nal(P, 4000)].concat();
    assert_eq!(lengths(&[several]), [4024..8000, 9524..12_500]);
    // Key frames that the table does not name.
    assert_eq!(lengths(&[nal(I, 5000)]), []);
    assert_eq!(lengths(&[nal(IDR, 5000)]), []);
    assert_eq!(lengths(&[[nal(P, 5000), nal(I, 5000)].concat()]), []);
    // Data partitions, parameter sets, what is reserved.
    for kind in [0x42, 0x43, 0x44, 0x47, 0x48, 0x54, 0x5f] {
        assert_eq!(lengths(&[nal([kind, 0x98], 5000)]), [], "{kind:#x}");
    }
    // Lengths that do not add up.
    let mut long = nal(P, 5000);
    long[3] ^= 1;
    assert_eq!(lengths(&[long]), []);
    assert_eq!(lengths(&[[nal(P, 5000), vec![0; 3]].concat()]), []);
    assert_eq!(lengths(&[[nal(P, 5000), vec![0; 8]].concat()]), []);

    let samples = [key.clone(), nal(P, 5000)];
    for (coding, keys) in
        [(Coding::Cavlc, Some(&[1][..])), (Coding::Sound, Some(&[1])), (Coding::Cabac, None)]
    {
        assert!(matches!(clear_of(&file_of(coding, &samples, keys)), Err(Error::NothingClear(_))));
    }
    // A second track says that the same bytes are a key frame.
    let chunks = [start];
    let track =
        |keys| Track { coding: Coding::Cabac, sizes: &[5000, 5000], together: 2, chunks: &chunks, keys };
    let both = [track(Some(&[1])).trak(1, false), track(None).trak(2, false)].concat();
    let file = [ftyp(), boxed(b"mdat", &[&samples.concat()]), boxed(b"moov", &[&both])].concat();
    assert!(matches!(clear_of(&file), Err(Error::NothingClear(_))));
}

#[test]
fn files_that_break_the_rules_are_protected_whole() {
    for bytes in [&b""[..], b"\0\0\0\x08", b"RIFF\0\0\0\0WAVE", &[0xff; 5000]] {
        assert!(clear_of(bytes).is_err(), "{bytes:?}");
    }
    assert!(matches!(clear_of(b"RIFF\0\0\0\0WAVE"), Err(Error::NotMp4)));
    assert!(matches!(clear_of(&ftyp()), Err(Error::Boxes(_))));
    // A sample outside of what is media, such as the tables themselves.
    let track = Track { coding: Coding::Cabac, sizes: &[50], together: 1, chunks: &[0], keys: Some(&[]) };
    let file = [ftyp(), boxed(b"moov", &[&track.trak(1, false)]), boxed(b"mdat", &[&[0; 100]])].concat();
    assert!(matches!(clear_of(&file), Err(Error::Boxes(_))));
    // Cut short, or with anything behind.
    let file = plain(false, false);
    assert!(clear_of(&file[..file.len() - 1]).is_err());
    assert!(clear_of(&[&file[..], b"junk"].concat()).is_err());
    // A length that lasts to the end.
    let mut open = plain(false, true);
    let mdat = place(&open, b"mdat") as usize;
    open[mdat - 4..mdat].fill(0);
    assert_eq!(clear_of(&open).unwrap(), clear_of(&plain(false, true)).unwrap());
}

#[test]
fn an_mdat_of_many_gibibytes_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.mp4");
    // A hole of 20 GiB between two chunks.
    let (gap, start) = (20 << 30, ftyp().len() as u64 + 16);
    let media = gap + 5000 + 5000;
    let track = Track {
        coding: Coding::Cabac,
        sizes: &[5000, 5000],
        together: 1,
        chunks: &[start, start + 5000 + gap],
        keys: Some(&[1]),
    };
    let header = [&1u32.to_be_bytes()[..], b"mdat", &(media + 16).to_be_bytes()].concat();
    let file = fs::File::create(&path).unwrap();
    let write = |bytes: &[u8], at: u64| {
        use std::os::unix::fs::FileExt;
        file.write_all_at(bytes, at).unwrap();
    };
    write(&[ftyp(), header, nal(IDR, 5000)].concat(), 0);
    write(&nal(P, 5000), start + 5000 + gap);
    write(&boxed(b"moov", &[&track.trak(1, true)]), start + media);
    let size = file.metadata().unwrap().len();
    let at = start + 5000 + gap;
    assert_eq!(clear_ranges(&path, size).unwrap(), [at + HEAD..at + 5000]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_changed_byte_is_understood_or_refused(at in 0usize..1200, to: u8, kind in 0usize..3) {
        let mut file = [plain(false, true), plain(true, true), fragmented()][kind].clone();
        file[at] = to;
        if let Ok(clear) = clear_of(&file) {
            prop_assert!(clear.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(clear.iter().all(|range| range.start < range.end && range.end <= file.len() as u64));
        }
    }
}

/// Runs a program to its end, within its time; what it printed. Fails where `must` and it fails.
fn run(program: &str, args: &[&str], must: bool) -> Vec<u8> {
    let mut command = Command::new("timeout");
    command.arg("120").arg(program).args(args).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(!must || output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Width and height of what is compared.
const SHOWN: (usize, usize) = (160, 90);

/// Every frame that ffmpeg makes of a file, however damaged, in grey and small.
fn frames(path: &Path, format: &[&str]) -> Vec<Vec<u8>> {
    let (input, scale) = (path.display().to_string(), format!("scale={}:{}", SHOWN.0, SHOWN.1));
    let mut args = vec!["-v", "quiet", "-err_detect", "ignore_err", "-flags", "+output_corrupt"];
    args.extend(["-flags2", "+showall"]);
    args.extend(format);
    args.extend(["-i", &input, "-map", "0:v:0", "-vf", &scale, "-pix_fmt", "gray"]);
    args.extend(["-fps_mode", "passthrough", "-f", "rawvideo", "-"]);
    run("ffmpeg", &args, false).chunks_exact(SHOWN.0 * SHOWN.1).map(<[u8]>::to_vec).collect()
}

/// How alike two frames are: their correlation, −1 to 1, and their mean SSIM over squares of eight pixels.
fn likeness(a: &[u8], b: &[u8]) -> (f64, f64) {
    let moments = |a: &[u8], b: &[u8]| {
        let mean = |x: &[u8]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
        let (mean_a, mean_b) = (mean(a), mean(b));
        let product = |x: &[u8], y: &[u8], (mx, my): (f64, f64)| {
            let sum: f64 = x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - mx) * (f64::from(y) - my)).sum();
            sum / x.len() as f64
        };
        let (var_a, var_b) = (product(a, a, (mean_a, mean_a)), product(b, b, (mean_b, mean_b)));
        (mean_a, mean_b, var_a, var_b, product(a, b, (mean_a, mean_b)))
    };
    let (_, _, var_a, var_b, covariance) = moments(a, b);
    let correlation = if var_a * var_b > 0.0 { covariance / (var_a * var_b).sqrt() } else { 0.0 };
    let square = |frame: &[u8], x: usize, y: usize| -> Vec<u8> {
        (y..y + 8).flat_map(|row| frame[row * SHOWN.0 + x..][..8].to_vec()).collect()
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for y in (0..SHOWN.1 - 7).step_by(8) {
        for x in (0..SHOWN.0 - 7).step_by(8) {
            let (ma, mb, va, vb, cov) = moments(&square(a, x, y), &square(b, x, y));
            let (c1, c2) = (6.5025, 58.5225);
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            count += 1.0;
        }
    }
    (correlation, sum / count)
}

/// What somebody made of a film.
#[derive(Debug)]
struct Recovered {
    /// Frames that came out at all.
    frames: usize,
    /// Of those, frames that are more like the original, or one close to it, than chance or a grey picture are.
    like: usize,
    correlation: f64,
    ssim: f64,
    grey: f64,
}

fn compare(made: &[Vec<u8>], original: &[Vec<u8>]) -> Recovered {
    let grey = vec![128; SHOWN.0 * SHOWN.1];
    let of_grey = original.iter().map(|frame| likeness(&grey, frame).1).sum::<f64>() / original.len() as f64;
    let (mut like, mut correlations, mut ssims) = (0, 0.0, 0.0);
    for (index, frame) in made.iter().enumerate() {
        // Frames may be missing before it.
        let near = original.iter().skip(index.saturating_sub(2)).take(5);
        let (correlation, ssim) = near
            .map(|near| likeness(frame, near))
            .fold((-1.0, 0.0), |best: (f64, f64), found| (best.0.max(found.0), best.1.max(found.1)));
        like += usize::from(correlation > 0.3 || ssim > of_grey + 0.1);
        correlations += correlation;
        ssims += ssim;
    }
    let count = made.len().max(1) as f64;
    Recovered {
        frames: made.len(),
        like,
        correlation: correlations / count,
        ssim: ssims / count,
        grey: of_grey,
    }
}

/// A film of eight seconds in H.264 and AAC, a key frame every two; the more noise, the more bytes.
fn film(path: &Path, picture: &str, noise: u8, movflags: &str) {
    let picture = format!("{picture}size=1280x720:rate=25:duration=8,noise=alls={noise}:allf=t");
    let mut args = vec!["-v", "error", "-y", "-f", "lavfi", "-i", &picture];
    args.extend([
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:duration=8",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
    ]);
    args.extend(["-b:v", "5M", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "128k"]);
    let path = path.display().to_string();
    args.extend(["-movflags", movflags, &path]);
    run("ffmpeg", &args, true);
}

/// What a sample is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sound,
    Key,
    Dependent,
}

/// A sample and where it is.
struct Sample {
    place: Range<usize>,
    kind: Kind,
}

/// Every sample.
fn samples(path: &Path) -> Vec<Sample> {
    let path = path.display().to_string();
    let shown = run(
        "ffprobe",
        &["-v", "error", "-show_entries", "packet=codec_type,size,pos,flags", "-of", "csv=p=0", &path],
        true,
    );
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let (size, at): (usize, usize) = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
        let kind = match fields[0] {
            "video" if fields[3].contains('K') => Kind::Key,
            "video" => Kind::Dependent,
            _ => Kind::Sound,
        };
        Sample { place: at..at + size, kind }
    };
    // A line of its own says what else belongs to a packet.
    String::from_utf8(shown).unwrap().lines().filter(|line| line.contains(',')).map(parse).collect()
}

/// A film, and its samples.
fn samples_of(path: &Path) -> (Vec<u8>, Vec<Sample>) {
    (fs::read(path).unwrap(), samples(path))
}

/// What an unlicensed peer has, and what one could have that knows more and more.
struct Attacker {
    film: Vec<u8>,
    /// As it is published.
    clear: Vec<Range<usize>>,
    samples: Vec<Sample>,
}

impl Attacker {
    fn new(path: &Path) -> Self {
        let runs = plan(path, &Protect::Media).unwrap().runs.unwrap();
        let (mut clear, mut at) = (Vec::new(), 0);
        for (index, &length) in runs.lengths().iter().enumerate() {
            clear.extend((index % 2 == 1).then_some(at as usize..(at + length) as usize));
            at += length;
        }
        let (film, samples) = samples_of(path);
        Attacker { film, clear, samples }
    }

    /// The part of the film that is protected.
    fn protected(&self) -> f64 {
        let clear: usize = self.clear.iter().map(Range::len).sum();
        1.0 - clear as f64 / self.film.len() as f64
    }

    /// The clear pieces, one after the other.
    fn joined(&self) -> Vec<u8> {
        self.clear.iter().flat_map(|range| self.film[range.clone()].to_vec()).collect()
    }

    /// The film without its samples: every table, which is protected as well.
    fn tables(&self) -> Vec<u8> {
        let mut film = self.film.clone();
        self.samples.iter().for_each(|sample| film[sample.place.clone()].fill(0));
        film
    }

    /// Every table, and every clear byte in its place.
    fn placed(&self) -> Vec<u8> {
        let mut film = self.tables();
        self.clear.iter().for_each(|range| film[range.clone()].copy_from_slice(&self.film[range.clone()]));
        film
    }

    /// The same and the header of every slice, to the bit; with `joined`, the clear bytes right behind it.
    fn with_headers(&self, joined: bool) -> Vec<u8> {
        let (mut film, known) = (self.placed(), 16);
        for range in &self.clear {
            let start = range.start - HEAD as usize;
            film[start..start + known].copy_from_slice(&self.film[start..start + known]);
            if joined {
                film[start + known..range.end].fill(0);
                film[start + known..][..range.len()].copy_from_slice(&self.film[range.clone()]);
            }
        }
        film
    }

    /// The same with key frames of another film by the same program, so that none is missing that later pictures build on.
    fn with_other_keys(&self, other: &(Vec<u8>, Vec<Sample>)) -> Vec<u8> {
        let mut film = self.with_headers(false);
        let mut keys = other.1.iter().filter(|sample| sample.kind == Kind::Key).cycle();
        let (mut put, mut all) = (0, 0);
        for Sample { place, .. } in self.samples.iter().filter(|sample| sample.kind == Kind::Key) {
            let Some(key) = keys.next() else { break };
            let (key, room) = (&other.0[key.place.clone()], place.len());
            all += 1;
            // What is left of its room is one filler unit.
            if key.len() + 5 <= room {
                film[place.start..][..key.len()].copy_from_slice(key);
                let filler = room - key.len() - 4;
                film[place.start + key.len()..][..4].copy_from_slice(&(filler as u32).to_be_bytes());
                film[place.start + key.len() + 4] = 12;
                put += 1;
            }
        }
        assert!(all >= 4 && put == all, "{put} of {all} key frames have room");
        film
    }

    /// What could be seen if key frames alone were protected.
    fn without_keys(&self) -> Vec<u8> {
        let mut film = self.tables();
        for Sample { place, .. } in self.samples.iter().filter(|sample| sample.kind == Kind::Dependent) {
            film[place.clone()].copy_from_slice(&self.film[place.clone()]);
        }
        film
    }
}

/// A film made by the same program with the same settings, up to the bytes of its `mdat`, with others in their place.
fn with_tables_of(similar: &Path, media: &[u8]) -> Vec<u8> {
    let similar = fs::read(similar).unwrap();
    let mdat = similar.windows(4).position(|window| window == b"mdat").unwrap() + 4;
    let mut film = similar[..mdat].to_vec();
    film.extend_from_slice(media);
    film.resize(similar.len().max(film.len()), 0);
    film
}

#[test]
#[ignore = "needs ffmpeg"]
fn without_a_license_ffmpeg_recovers_no_frame() {
    let dir = tempfile::tempdir().unwrap();
    let similar = dir.path().join("similar.mp4");
    film(&similar, "smptehdbars=", 12, "faststart");
    let other = dir.path().join("other.mp4");
    // Grey, so that nothing is like the original by chance.
    film(&other, "color=c=gray:", 0, "faststart");
    let other = samples_of(&other);
    for (kind, movflags) in
        [("plain", "faststart"), ("fragmented", "frag_keyframe+empty_moov+default_base_moof")]
    {
        let path = dir.path().join(format!("{kind}.mp4"));
        film(&path, "testsrc2=", 12, movflags);
        let original = frames(&path, &[]);
        assert_eq!(original.len(), 200);
        let attacker = Attacker::new(&path);
        println!("{kind}: {:.1} % protected", 100.0 * attacker.protected());
        assert!(attacker.protected() < 0.4);
        let tried = |name: &str, bytes: &[u8], format: &[&str]| {
            let path = dir.path().join("tried.bin");
            fs::write(&path, bytes).unwrap();
            let found = compare(&frames(&path, format), &original);
            println!(
                "  {name}: {} frames, {} like the original (correlation {:.3}, SSIM {:.3}, of grey {:.3})",
                found.frames, found.like, found.correlation, found.ssim, found.grey
            );
            found
        };
        // That the measure sees what there is to see.
        let whole = tried("the film itself", &attacker.film, &[]);
        assert_eq!((whole.frames, whole.like), (200, 200));
        let keys = tried("were key frames alone protected", &attacker.without_keys(), &[]);
        assert!(keys.like > 100);

        let joined = attacker.joined();
        for format in [&[][..], &["-f", "h264"], &["-f", "mp4"], &["-f", "mpegts"], &["-f", "m4v"]] {
            let found = tried(&format!("the clear pieces {format:?}"), &joined, format);
            assert_eq!(found.like, 0);
        }
        for (name, bytes) in [
            ("with the tables of a similar film", with_tables_of(&similar, &joined)),
            ("with its own tables, in place", attacker.placed()),
            ("and every slice's header", attacker.with_headers(false)),
            ("the same, clear bytes behind it", attacker.with_headers(true)),
            ("the same in place, with grey key frames by the same encoder", attacker.with_other_keys(&other)),
        ] {
            assert_eq!(tried(name, &bytes, &[]).like, 0, "{name}");
        }
    }
}

/// What Chromium says of a film: the error's number, how much is ready, and the picture's width.
fn shown_by_chromium(film: &Path) -> String {
    let page = film.with_extension("html");
    let name = film.file_name().unwrap().to_str().unwrap();
    fs::write(
        &page,
        format!(
            "<body><video id=v muted autoplay src=\"{name}\"></video><script>
             const say = () => document.body.dataset.shown =
                 `error=${{v.error ? v.error.code : 0}} ready=${{v.readyState}} width=${{v.videoWidth}}`;
             for (const it of ['error', 'canplaythrough', 'loadeddata', 'stalled']) v.addEventListener(it, say);
             setTimeout(say, 4000);</script>"
        ),
    )
    .unwrap();
    let profile = tempfile::tempdir().unwrap();
    let (data, url) =
        (format!("--user-data-dir={}", profile.path().display()), format!("file://{}", page.display()));
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                 --disable-component-update --disable-sync --virtual-time-budget=6000 --dump-dom";
    let args: Vec<&str> = flags.split_whitespace().chain([data.as_str(), url.as_str()]).collect();
    let page = String::from_utf8(run("chromium", &args, true)).unwrap();
    let (_, shown) = page.split_once("data-shown=\"").unwrap_or_else(|| panic!("nothing is said: {page}"));
    shown.split('"').next().unwrap().to_owned()
}

#[test]
#[ignore = "needs ffmpeg and chromium"]
fn without_a_license_chromium_plays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let similar = dir.path().join("similar.mp4");
    film(&similar, "smptehdbars=", 12, "faststart");
    for (kind, movflags) in
        [("plain", "faststart"), ("fragmented", "frag_keyframe+empty_moov+default_base_moof")]
    {
        let path = dir.path().join(format!("{kind}.mp4"));
        film(&path, "testsrc2=", 12, movflags);
        let shown = shown_by_chromium(&path);
        println!("{kind}: the film itself: {shown}");
        assert!(shown.starts_with("error=0 ready=4 width=1280"), "{shown}");
        let attacker = Attacker::new(&path);
        for (name, bytes) in [
            ("clear", attacker.joined()),
            ("similar-tables", with_tables_of(&similar, &attacker.joined())),
            ("own-tables", attacker.placed()),
        ] {
            let path = dir.path().join(format!("{kind}-{name}.mp4"));
            fs::write(&path, bytes).unwrap();
            let shown = shown_by_chromium(&path);
            println!("{kind}: {name}: {shown}");
            // Metadata may be there; no picture is.
            assert!(["ready=0", "ready=1"].iter().any(|ready| shown.contains(ready)), "{name}: {shown}");
        }
    }
}
