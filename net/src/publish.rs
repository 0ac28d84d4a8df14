//! Publishing: files become a plaintext stream, the stream becomes packaged pieces, and their hashes a .torrent.

mod cipher_hashes;
pub mod media;
mod package_cache;
mod piece_length;
pub mod protect;
mod stream;
mod walk;

use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use rand_core::CryptoRng;
use sha1::{Digest, Sha1};
use swarmseal_core::package::{self, PackageSecret};
use swarmseal_core::{
    FixedBase, Params, TorrentId, WitnessExponent, WitnessExponents, WitnessFactor, WitnessSecret,
    WitnessTable, Word, witness_hash,
};
use zeroize::Zeroizing;

use crate::wire::authority::SignedAuthority;
use crate::wire::content::{self, FileEntry, Manifest};
use crate::wire::identity::SigningKey;
use crate::wire::keyfile::SeedFile;
use crate::wire::metainfo::{self, Info, Metainfo, Seal};
use crate::wire::selection::{Interleaving, Kind, Runs, Selection};

pub use package_cache::{CacheError, PackageCache};
pub use piece_length::piece_length_for;
pub use stream::PlainStream;
pub use walk::list_files;

/// Why something could not be published or seeded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is to be published is neither a file nor a directory: a link, a device, a socket.
    #[error("{} is neither a file nor a directory; links are not followed", path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// A name is not UTF-8, which the list of files needs.
    #[error("the name of {} is not UTF-8", path.display())]
    NameNotUtf8 {
        /// Where.
        path: PathBuf,
    },
    /// The files cannot be listed.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// A file is no longer as it was when it was published.
    #[error("{} has changed since it was published: expected {expected} bytes, found {found}", path.display())]
    SizeChanged {
        /// The file.
        path: PathBuf,
        /// Its size in the list of files.
        expected: u64,
        /// Its size now.
        found: u64,
    },
    /// A piece of the files no longer has the hash that was published.
    #[error("piece {index} is not as it was published: a file has changed")]
    ContentChanged {
        /// The piece.
        index: u32,
    },
    /// The seed file, the .torrent and the files do not belong together.
    #[error("the seed file belongs to another torrent")]
    WrongTorrent,
    /// There is no such piece, or the buffer is not one piece long.
    #[error("there is no piece {index}, or its buffer has the wrong length")]
    NoSuchPiece {
        /// The piece.
        index: u32,
    },
    /// A range to protect is of a file that is not there.
    #[error("there is no file {path:?} in what is to be published")]
    NoSuchFile {
        /// As it was given.
        path: String,
    },
    /// The content makes more pieces than a .torrent can hold.
    #[error("too many pieces: choose a longer piece length")]
    TooManyPieces,
    /// The .torrent would not be valid.
    #[error(transparent)]
    Metainfo(#[from] metainfo::Error),
    /// Packaged pieces cannot be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The group operation refused a piece.
    #[error(transparent)]
    Core(#[from] swarmseal_core::Error),
}

/// What to publish, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file or a directory.
    pub source: PathBuf,
    /// The public label; by default the name of `source`, which strangers will see.
    pub name: Option<String>,
    /// Which tracker serves it; signed by the publisher's key.
    pub authority: Option<SignedAuthority>,
    /// The publisher's Ed25519 public key.
    pub publisher_key: [u8; 32],
    /// Profile, group and exponents.
    pub params: Arc<Params>,
    /// P; by default [`piece_length_for`] the content's length.
    pub piece_length: Option<u32>,
    /// Which bytes of the files are sealed and which are clear, as [`protect::plan`] says; `None`: all are sealed. So they are where
    /// less than a piece would be clear.
    pub runs: Option<Runs>,
}

/// How far packaging has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Pieces done.
    pub done: u32,
    /// Pieces in all.
    pub total: u32,
}

/// Publishes: packages every piece, hashes it, and returns the .torrent, the seed file, and the witness secret, which goes to the
/// tracker and nowhere else. Nothing is written.
///
/// Pieces are hashed on all cores; `progress` is called from those threads.
pub fn publish(
    options: &Options,
    rng: &mut impl CryptoRng,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Metainfo, SeedFile, WitnessSecret), Error> {
    let (root, files) = list_files(&options.source)?;
    let mut draw = || {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        bytes
    };
    let (random, package_secret) = (*draw(), PackageSecret::from_bytes(*draw()));
    let witness = WitnessSecret::from_bytes(*draw());
    let seal = Seal::new(options.publisher_key, random, options.params.clone());
    let torrent_id = seal.torrent_id;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => default_name(&options.source)?,
    };
    let full = Manifest::new(files.clone(), None)?;
    let length = PlainStream::new(&root, &full).length();
    let piece_length = options.piece_length.unwrap_or_else(|| piece_length_for(&options.params, length));
    if piece_length == 0 {
        return Err(metainfo::Error::Bad { what: "piece length", expected: "16 KiB to 32 MiB" }.into());
    }
    // Less than one clear piece saves nothing.
    let worth_it = |runs: &Runs| runs.clear() >= u64::from(piece_length);
    let manifest = Manifest::new(files, options.runs.clone().filter(worth_it))?;
    // Whatever is wrong with the options is said before hours of hashing, not after.
    let info = |hashes: Hashes, selection: Option<Arc<Selection>>| Info {
        name: name.clone(),
        piece_length,
        piece_count: hashes.pieces.len() as u32,
        pieces: hashes.pieces,
        private: true,
        seal: Seal { selection, witness: hashes.witness.into(), ..seal.clone() },
    };
    let any = Hashes { pieces: vec![[0; 20]], witness: vec![[0; 32]] };
    Metainfo::new(options.authority.clone(), info(any, None))?;

    let dealt = Dealt::new(&manifest, &seal.params, piece_length)?;
    let packager = Packager {
        stream: PlainStream::new(&root, &manifest),
        torrent_id,
        package_secret,
        params: seal.params.clone(),
        piece_length,
        dealt,
        hashes: Vec::new(),
        cache: None,
    };
    let hashes = packager.hash_pieces(&witness, progress)?;
    let selection = packager.dealt.map(|dealt| dealt.selection);
    let metainfo = Metainfo::new(options.authority.clone(), info(hashes, selection))?;
    let seed = SeedFile {
        torrent_id,
        package_secret: packager.package_secret,
        signing_key: SigningKey::generate(rng),
        passkey: None,
        manifest,
        content: None,
        metainfo: None,
    };
    Ok((metainfo, seed, witness))
}

/// The last component of the path, made absolute so that `.` has a name as well.
fn default_name(source: &Path) -> Result<String, Error> {
    let absolute = source.canonicalize().map_err(|error| Error::Io { path: source.into(), error })?;
    let name = absolute.file_name().unwrap_or(absolute.as_os_str());
    name.to_str().map(str::to_owned).ok_or(Error::NameNotUtf8 { path: absolute.clone() })
}

/// Which pieces are clear, and what of the stream each carries.
#[derive(Debug)]
struct Dealt {
    map: Interleaving,
    selection: Arc<Selection>,
}

impl Dealt {
    /// `None` where all is sealed.
    fn new(manifest: &Manifest, params: &Params, piece_length: u32) -> Result<Option<Self>, Error> {
        let payload = params.payload_bytes(piece_length as usize) as u64;
        let header = manifest.header().len() as u64;
        let Some(map) = manifest.interleaving(header, payload, piece_length.into())? else { return Ok(None) };
        if map.pieces_of(Kind::Sealed).saturating_add(map.pieces_of(Kind::Clear)) > MAX_PIECES {
            return Err(Error::TooManyPieces);
        }
        let selection = Arc::new(map.selection().map_err(content::Error::from)?);
        Ok(Some(Dealt { map, selection }))
    }
}

/// A .torrent of 64 MiB holds the hashes of so many pieces, 20 and 32 bytes each.
const MAX_PIECES: u64 = 1_280_000;

/// Pieces whose witness factors a thread makes together: what the widest backend takes at a time.
const BATCH: u32 = 8;

/// What a .torrent says of pieces.
#[derive(Debug)]
struct Hashes {
    /// SHA-1 of each packaged piece, or of the piece itself where it is clear.
    pieces: Vec<[u8; 20]>,
    /// BLAKE3 of the witness's ciphertext of each sealed piece.
    witness: Vec<[u8; 32]>,
}

/// Makes packaged pieces of the files on disk: the same ones on every seed.
#[derive(Debug)]
pub struct Packager {
    stream: PlainStream,
    torrent_id: TorrentId,
    package_secret: PackageSecret,
    params: Arc<Params>,
    piece_length: u32,
    /// `None`: every piece is sealed.
    dealt: Option<Dealt>,
    /// Those of the .torrent, by which clear pieces are checked; empty before there is one.
    hashes: Vec<[u8; 20]>,
    cache: Option<PackageCache>,
}

impl Packager {
    /// For seeding: the content lies at `source`, a file or a directory as at publication.
    ///
    /// Errors: [`Error::WrongTorrent`] where seed file and .torrent differ; [`Error::SizeChanged`] and [`Error::Io`]
    /// where a file is missing or has another size.
    pub fn open(source: &Path, seed: &SeedFile, metainfo: &Metainfo) -> Result<Self, Error> {
        let info = &metainfo.info;
        if seed.torrent_id != info.seal.torrent_id {
            return Err(Error::WrongTorrent);
        }
        let root = walk::root_of(source, seed.manifest.files().entries())?;
        let packager = Packager {
            stream: PlainStream::new(&root, &seed.manifest),
            torrent_id: seed.torrent_id,
            package_secret: seed.package_secret.clone(),
            params: info.seal.params.clone(),
            piece_length: info.piece_length,
            dealt: Dealt::new(&seed.manifest, &info.seal.params, info.piece_length)?,
            hashes: if info.seal.selection.is_some() { info.pieces.clone() } else { Vec::new() },
            cache: None,
        };
        let selection = packager.dealt.as_ref().map(|dealt| &dealt.selection);
        if packager.piece_count()? != info.piece_count || selection != info.seal.selection.as_ref() {
            return Err(Error::WrongTorrent);
        }
        packager.stream.check_sizes()?;
        Ok(packager)
    }

    /// Takes packaged pieces from there, and keeps those that it makes.
    pub fn with_cache(self, cache: PackageCache) -> Self {
        Packager { cache: Some(cache), ..self }
    }

    /// Makes every piece that is to be kept and is not there, until `stop` is set; how many are there. What cannot be made is
    /// said in the log and left out. Blocks.
    pub fn fill_cache(&self, stop: &AtomicBool) -> u32 {
        let Some(cache) = &self.cache else { return 0 };
        let mut piece = Zeroizing::new(vec![0; self.piece_length as usize]);
        let sealed = (0..cache.room()).filter(|&index| !self.is_clear(index));
        for index in sealed.take_while(|_| !stop.load(Ordering::Relaxed)) {
            if let Err(error) = self.read_packaged(index, &mut piece) {
                tracing::warn!(index, %error, "a piece cannot be packaged");
            }
        }
        cache.count()
    }

    /// The plaintext behind the pieces.
    pub fn stream(&self) -> &PlainStream {
        &self.stream
    }

    /// Whether a piece is clear.
    pub fn is_clear(&self, index: u32) -> bool {
        self.dealt.as_ref().is_some_and(|dealt| dealt.selection.is_clear(index))
    }

    /// Fills `payload` with the bytes of the stream that a piece carries: P of a clear piece, its package's payload of another; zeros
    /// behind the last.
    pub fn read_payload(&self, index: u32, payload: &mut [u8]) -> Result<(), Error> {
        let Some(dealt) = &self.dealt else {
            return self.stream.read_at(u64::from(index) * payload.len() as u64, payload);
        };
        let kind = dealt.selection.kind(index);
        if payload.len() as u64 != dealt.map.size(kind) {
            return Err(Error::NoSuchPiece { index });
        }
        let mut rest = payload;
        for part in dealt.map.parts(kind, dealt.selection.rank(kind, index)) {
            let (now, later) = rest.split_at_mut((part.end - part.start) as usize);
            self.stream.read_at(part.start, now)?;
            rest = later;
        }
        rest.fill(0);
        Ok(())
    }

    /// Reads and packages one piece, or takes it from where such are kept; `piece` is exactly P bytes. A clear one is only read.
    ///
    /// Errors: [`Error::ContentChanged`] where it is clear, or was to be kept, and is not what was published, among others.
    pub fn read_packaged(&self, index: u32, piece: &mut [u8]) -> Result<(), Error> {
        if piece.len() != self.piece_length as usize || index >= self.piece_count()? {
            return Err(Error::NoSuchPiece { index });
        }
        if self.is_clear(index) {
            self.read_payload(index, piece)?;
            let expected = self.hashes.get(index as usize);
            // Peers hold it against a seed that it sends another.
            return match expected {
                Some(expected) if *expected != <[u8; 20]>::from(Sha1::digest(&*piece)) => {
                    Err(Error::ContentChanged { index })
                }
                _ => Ok(()),
            };
        }
        if self.cache.as_ref().is_some_and(|cache| cache.read(index, piece)) {
            return Ok(());
        }
        let payload = self.params.payload_bytes(piece.len());
        self.read_payload(index, &mut piece[..payload])?;
        package::pack(&self.params, &self.package_secret, &self.torrent_id, index, piece)?;
        if let Some(cache) = self.cache.as_ref().filter(|cache| cache.has_room(index)) {
            if !cache.is_right(index, piece) {
                return Err(Error::ContentChanged { index });
            }
            cache.keep(index, piece);
        }
        Ok(())
    }

    /// [`Packager::read_packaged`], checked against the .torrent: a seed never sends what would be found bad.
    /// Errors: [`Error::ContentChanged`] among others.
    pub fn read_checked(&self, index: u32, metainfo: &Metainfo, piece: &mut [u8]) -> Result<(), Error> {
        self.read_packaged(index, piece)?;
        let found: [u8; 20] = Sha1::digest(&*piece).into();
        match metainfo.info.pieces.get(index as usize) {
            Some(expected) if *expected == found => Ok(()),
            _ => Err(Error::ContentChanged { index }),
        }
    }

    /// N.
    fn piece_count(&self) -> Result<u32, Error> {
        if let Some(dealt) = &self.dealt {
            return Ok(dealt.selection.count());
        }
        let payload = self.params.payload_bytes(self.piece_length as usize) as u64;
        let count = self.stream.length().div_ceil(payload);
        u32::try_from(count).ok().filter(|&count| u64::from(count) <= MAX_PIECES).ok_or(Error::TooManyPieces)
    }

    /// The hashes of all pieces, on all cores.
    fn hash_pieces(
        &self,
        witness: &WitnessSecret,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Hashes, Error> {
        let total = self.piece_count()?;
        let threads = thread::available_parallelism().map_or(1, NonZero::get) as u32;
        // All threads have work to the end of a short torrent as well.
        let batch = (total / (threads * 4)).clamp(1, BATCH);
        let mut words = vec![0; FixedBase::words(&self.params)];
        WitnessTable::new(&self.params, &mut words)?;
        let (next, done, failed) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let work = || {
            let mut hasher = Hasher::new(self, witness, &words)?;
            let mut hashed = Vec::new();
            loop {
                // At most 1,280,000 pieces, and a batch for each thread behind them.
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= total || failed.load(Ordering::Relaxed) {
                    return Ok(hashed);
                }
                for (index, factor) in hasher.factors(first..total.min(first + batch)) {
                    let (piece, witness) = hasher.hash(index, factor.as_ref())?;
                    hashed.push((index, piece, witness));
                    progress(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
                }
            }
        };
        let work = || work().inspect_err(|_: &Error| failed.store(true, Ordering::Relaxed));
        let mut hashed = Vec::with_capacity(total as usize);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                hashed.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok::<_, Error>(())
        })?;
        hashed.sort_unstable_by_key(|&(index, ..)| index);
        Ok(Hashes {
            pieces: hashed.iter().map(|&(_, piece, _)| piece).collect(),
            witness: hashed.iter().filter_map(|&(_, _, witness)| witness).collect(),
        })
    }
}

/// Hashes pieces one after another.
struct Hasher<'a> {
    packager: &'a Packager,
    exponents: WitnessExponents<'a>,
    table: WitnessTable<'a>,
    piece: Zeroizing<Vec<u8>>,
}

impl<'a> Hasher<'a> {
    /// `words`: of a [`WitnessTable`].
    fn new(packager: &'a Packager, witness: &WitnessSecret, words: &'a [Word]) -> Result<Self, Error> {
        let params = &packager.params;
        Ok(Hasher {
            packager,
            exponents: WitnessExponents::derive(params, witness, &packager.torrent_id),
            table: WitnessTable::from_words(params, words)?,
            piece: Zeroizing::new(vec![0; packager.piece_length as usize]),
        })
    }

    /// The witness factors of some pieces, with the pieces; of clear ones none.
    fn factors(&self, pieces: Range<u32>) -> Vec<(u32, Option<WitnessFactor>)> {
        let (packager, params) = (self.packager, &self.packager.params);
        let sealed: Vec<u32> = pieces.clone().filter(|&piece| !packager.is_clear(piece)).collect();
        let w: Vec<WitnessExponent> = sealed.iter().map(|&piece| self.exponents.exponent(piece)).collect();
        let mut factors: Vec<_> = pieces.clone().map(|piece| (piece, None)).collect();
        WitnessFactor::derive_batch(params, &self.table, &w, |at, factor| {
            factors[(sealed[at] - pieces.start) as usize].1 = Some(factor);
        });
        factors
    }

    /// SHA-1 of a packaged piece, and the hash of the witness's ciphertext where the piece is sealed.
    fn hash(
        &mut self,
        index: u32,
        factor: Option<&WitnessFactor>,
    ) -> Result<([u8; 20], Option<[u8; 32]>), Error> {
        self.packager.read_packaged(index, &mut self.piece)?;
        let sha1 = Sha1::digest(&*self.piece).into();
        let witness = factor.map(|factor| witness_hash(&self.packager.params, factor, &mut self.piece));
        Ok((sha1, witness.transpose()?))
    }
}

/// The MIME type that a file's name suggests.
fn mime_of(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned()
}

fn entry(path: Vec<String>, size: u64) -> FileEntry {
    FileEntry { mime: path.last().map_or_else(String::new, |name| mime_of(name)), path, size }
}
