//! The player: checks a license and its policy, opens pieces, and hands plaintext out, never a byte that is not proven.
//!
//! [`Player::new`] takes a license apart, [`Player::begin_play`] checks and counts, and only the [`Session`] that it gives
//! releases plaintext. [`Player::verify`] says which pieces are bad without releasing any.

mod extract;
mod keys;
mod ordered;
mod play_journal;
mod policy_state;
pub mod serve;
mod session;
mod tar;

use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use swarmseal_core::{SecretKey, decrypt_piece_with, package};

use crate::date;
use crate::player::keys::OpenedKeys;
use crate::publish::Progress;
use crate::wire::content::{self, Manifest};
use crate::wire::identity::SubscriberKeys;
use crate::wire::license::{License, LicenseError, Policy};
use crate::wire::metainfo::Metainfo;
use crate::wire::selection::{Interleaving, Kind};

pub use play_journal::records_in_journal;
pub use policy_state::{PlayFiles, PolicyState, plays_in_record};
pub use session::{Content, Session};

/// Why something is not played. Times are Unix seconds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The license does not open with this device's key, or belongs to another subscription.
    #[error("this device's keys do not open the license: {0}")]
    WrongKey(LicenseError),
    /// The license is for another torrent.
    #[error("the license or the key is for another torrent")]
    WrongTorrent,
    /// The license was changed, or somebody else signed it.
    #[error("the license was tampered with")]
    TamperedLicense,
    /// The license is newer than this program.
    #[error("the license has version {found}, which is newer than this program understands")]
    NewerLicense {
        /// The version found.
        found: u64,
    },
    /// It is no license.
    #[error("the license cannot be read: {0}")]
    MalformedLicense(String),
    /// The license has run out.
    #[error("the license expired on {}", date::utc(*since))]
    Expired {
        /// When.
        since: u64,
    },
    /// The license has not begun.
    #[error("the license is not valid before {}", date::utc(*until))]
    NotYet {
        /// When it will.
        until: u64,
    },
    /// All plays are used up.
    #[error("all {allowed} plays of the license are used up")]
    NoPlaysLeft {
        /// How many there were.
        allowed: u64,
    },
    /// The license server has not been heard of for too long.
    #[error("the license has to be renewed online: its offline time of {grace} seconds is over{}", since.map(|since| format!(" since {}", date::utc(since))).unwrap_or_default())]
    OfflineTooLong {
        /// The license's offline grace.
        grace: u64,
        /// Since when it is over; none where the tracker was never heard of.
        since: Option<u64>,
    },
    /// The record of plays was edited or belongs to another device.
    #[error("the record of plays in {} was changed: it has to be renewed online", path.display())]
    TamperedPolicyState {
        /// The file.
        path: PathBuf,
    },
    /// The record of plays, or its journal, is gone.
    #[error("{} is gone: the record of plays has to be renewed online", path.display())]
    LostPolicyState {
        /// The file.
        path: PathBuf,
    },
    /// An older record of plays was put back.
    #[error("the record of plays in {} is an older one that was put back: it has to be renewed online", path.display())]
    OldPolicyState {
        /// The file.
        path: PathBuf,
    },
    /// The record of plays was copied from elsewhere.
    #[error("the record of plays in {} was made on another machine, or in another directory: it has to be renewed online", path.display())]
    ElsewherePolicyState {
        /// The file.
        path: PathBuf,
    },
    /// The record of plays is newer than this program.
    #[error("the record of plays has version {found}, which is newer than this program understands")]
    NewerPolicyState {
        /// The version found.
        found: u64,
    },
    /// A piece is not stored.
    #[error("piece {index} is missing")]
    MissingPiece {
        /// The piece.
        index: u32,
    },
    /// A piece was waited for, and did not come.
    #[error("piece {index} is not there: {why}")]
    NotFetched {
        /// The piece.
        index: u32,
        /// Why it does not come.
        why: String,
    },
    /// A piece opens to something else than was published.
    #[error("piece {index} is corrupt")]
    CorruptPiece {
        /// The piece.
        index: u32,
    },
    /// A piece is stored for an epoch of which there is no license.
    #[error("piece {index} is stored for epoch {stored}, and there is no license of that: {why}")]
    WrongEpoch {
        /// The piece.
        index: u32,
        /// The epoch that it is encrypted for.
        stored: u64,
        /// Why there is none.
        why: String,
    },
    /// A stored piece could not be read.
    #[error("piece {index} could not be read: {error}")]
    PieceIo {
        /// The piece.
        index: u32,
        /// Why.
        error: io::Error,
    },
    /// What was published is no list of files followed by files.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// The files' sizes do not fit the torrent.
    #[error("the content does not fit the torrent: expected {expected} pieces, found {found}")]
    WrongLength {
        /// Pieces that the listed files make.
        expected: u64,
        /// Pieces of the torrent.
        found: u64,
    },
    /// There is no file of that number.
    #[error("the content has no file {index}; it has {count}")]
    NoSuchFile {
        /// Counted from 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// There is no file of that path.
    #[error("the content has no file {path:?}")]
    NoSuchPath {
        /// As it was given.
        path: String,
    },
    /// One file was asked for, and there are several.
    #[error("the content has {count} files: choose one, or extract them to a directory")]
    NotSingleFile {
        /// How many there are.
        count: usize,
    },
    /// A file is there already.
    #[error("{} is already there; it is not overwritten unless forced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A directory on the way to a file is a link or a file: going on could lead out of the destination.
    #[error("{} is in the way: it is no directory", path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Whoever reads the plaintext stopped, or could not take it.
    #[error("cannot write the plaintext: {0}")]
    Output(io::Error),
}

impl From<LicenseError> for Error {
    fn from(error: LicenseError) -> Self {
        match error {
            LicenseError::NotForThisDevice | LicenseError::WrongSubscriber => Error::WrongKey(error),
            LicenseError::Tampered | LicenseError::OtherSigner => Error::TamperedLicense,
            LicenseError::WrongTorrent => Error::WrongTorrent,
            LicenseError::NewerVersion { found } => Error::NewerLicense { found },
            LicenseError::Malformed(why) => Error::MalformedLicense(why),
        }
    }
}

/// Where stored ciphertext comes from.
pub trait PieceReader: Sync {
    /// Reads a whole piece, P bytes, into `piece`. Returns the epoch that it is encrypted for, or `None` where it is not
    /// stored.
    fn read_piece(&self, index: u32, piece: &mut [u8]) -> io::Result<Option<u64>>;

    /// Whether another copy of a corrupt piece is there now: somebody may fetch it meanwhile. On a thread that may wait.
    fn replaced(&self, _index: u32) -> bool {
        false
    }
}

/// Where licenses of further epochs come from: pieces move to an epoch that begins, while they are played and before.
pub trait Licenses: Send + Sync {
    /// The license of an epoch. Called outside a runtime, by one thread at a time; it may wait for as long as a reader does. Errors:
    /// a sentence that says why there is none.
    fn license(&self, epoch: u64) -> Result<License, String>;
}

/// No license but the one.
struct NoOthers;

impl Licenses for NoOthers {
    fn license(&self, _: u64) -> Result<License, String> {
        Err("nobody is asked for it".to_owned())
    }
}

/// Epochs whose licenses are at hand at most, beside the one whose policy counts.
const EPOCHS_AT_HAND: usize = 4;
/// A license that could not be had is not asked for again meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Copies of a piece that are opened at most.
const TRIES: u32 = 8;

/// What is wrong with a stored piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not stored.
    Missing,
    /// It opens to something else than was published.
    Corrupt,
    /// It is encrypted for an epoch of which there is no license.
    OtherEpoch,
    /// The disk did not give it.
    Unreadable,
}

/// A stored piece that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPiece {
    /// Which.
    pub index: u32,
    /// What is wrong with it.
    pub fault: Fault,
}

/// A torrent, a subscriber's secret and a license that fit together.
pub struct Player {
    metainfo: Metainfo,
    secret: SecretKey,
    /// The one whose policy counts.
    opener: Arc<Opener>,
    /// Those of other epochs, the newest last; they say nothing of what is allowed.
    others: Mutex<Vec<Arc<Opener>>>,
    /// What others there are, and which could not be had lately.
    source: Mutex<Source>,
    /// Once it was read: what stands before the files.
    manifest: OnceLock<Arc<OpenedManifest>>,
}

/// Who is asked for licenses of other epochs.
struct Source {
    licenses: Box<dyn Licenses>,
    refused: Option<(u64, Instant, String)>,
}

/// The head of the stream.
#[derive(Debug)]
struct OpenedManifest {
    manifest: Manifest,
    /// Its bytes and those of its length.
    header: u64,
    /// Where some pieces are clear, what each carries.
    map: Option<Interleaving>,
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player").field("license", self.license()).finish_non_exhaustive()
    }
}

/// A license, and its keys as far as they were opened.
#[derive(Debug)]
struct Opener {
    license: License,
    opened: OpenedKeys,
}

impl Player {
    /// Opens a license on this device and checks that it is for this torrent and subscription.
    ///
    /// Errors: [`Error::WrongKey`], [`Error::WrongTorrent`], [`Error::TamperedLicense`], [`Error::NewerLicense`],
    /// [`Error::MalformedLicense`].
    pub fn new(
        metainfo: Metainfo,
        keys: &SubscriberKeys,
        license_key: &[u8; 32],
        envelope: &[u8],
    ) -> Result<Arc<Self>, Error> {
        Self::following(metainfo, keys, license_key, envelope, Box::new(NoOthers))
    }

    /// The same, of a device that asks for licenses of other epochs when it meets pieces of them.
    pub fn following(
        metainfo: Metainfo,
        keys: &SubscriberKeys,
        license_key: &[u8; 32],
        envelope: &[u8],
        licenses: Box<dyn Licenses>,
    ) -> Result<Arc<Self>, Error> {
        let license = License::open_for(envelope, &keys.identity, &metainfo, license_key, &keys.id)?;
        Ok(Arc::new(Player {
            metainfo,
            secret: keys.secret.clone(),
            opener: Arc::new(Opener { license, opened: OpenedKeys::default() }),
            others: Mutex::default(),
            source: Mutex::new(Source { licenses, refused: None }),
            manifest: OnceLock::new(),
        }))
    }

    /// The .torrent.
    pub fn metainfo(&self) -> &Metainfo {
        &self.metainfo
    }

    /// What the license allows.
    pub fn policy(&self) -> &Policy {
        &self.license().policy
    }

    /// Whether the record of plays and the policy let it be played at `now`; counts nothing. Errors: as
    /// [`Player::begin_play`].
    pub fn check(&self, state: &PolicyState, now: u64) -> Result<(), Error> {
        state.fits(self.license())?;
        state.check(self.policy(), now)
    }

    /// The license's epoch.
    pub fn epoch(&self) -> u64 {
        self.license().epoch
    }

    /// The license whose policy counts.
    pub(crate) fn license(&self) -> &License {
        &self.opener.license
    }

    /// Whether a stored piece opens to what was published. Releases nothing.
    pub fn opens(&self, pieces: &dyn PieceReader, index: u32) -> bool {
        self.decrypt_piece(pieces, index).is_ok()
    }

    /// Which files are in it: their names and sizes, before a play is begun. Errors: as [`Session::content`].
    pub fn content(self: &Arc<Self>, pieces: &dyn PieceReader) -> Result<Content, Error> {
        Session::new(self.clone(), 0).content(pieces)
    }

    /// Checks the policy at `now`, counts one play, and writes the count before anything is released.
    ///
    /// Errors: [`Error::Expired`], [`Error::NotYet`], [`Error::NoPlaysLeft`], [`Error::OfflineTooLong`],
    /// those of [`PolicyState::load`].
    pub fn begin_play(self: &Arc<Self>, state: &mut PolicyState, now: u64) -> Result<Session, Error> {
        let time = state.begin_play(self.license(), now)?;
        Ok(Session::new(self.clone(), time))
    }

    /// Opens pieces and says which do not open, in order: what is fetched again. Releases nothing.
    pub fn verify(
        &self,
        pieces: &dyn PieceReader,
        indices: &[u32],
        progress: &mut dyn FnMut(Progress),
    ) -> Vec<BadPiece> {
        let total = indices.len() as u32;
        let mut bad = Vec::new();
        let check = |at: u32| {
            let index = indices[at as usize];
            let fault = match self.decrypt_piece(pieces, index) {
                Ok(_) => None,
                Err(Error::MissingPiece { .. }) => Some(Fault::Missing),
                Err(Error::WrongEpoch { .. }) => Some(Fault::OtherEpoch),
                Err(Error::PieceIo { .. }) => Some(Fault::Unreadable),
                Err(_) => Some(Fault::Corrupt),
            };
            Ok::<_, std::convert::Infallible>(fault)
        };
        let Ok(()) = ordered::in_order(0..total, check, |at, fault| {
            bad.extend(fault.map(|fault| BadPiece { index: indices[at as usize], fault }));
            progress(Progress { done: at + 1, total });
            Ok(())
        });
        bad
    }

    /// What of the stream one piece carries.
    fn open_piece(&self, pieces: &dyn PieceReader, index: u32) -> Result<Plaintext, Error> {
        let mut piece = self.decrypt_piece(pieces, index)?;
        if self.metainfo.info.seal.is_clear(index) {
            return Ok(piece);
        }
        let unpacked = package::unpack(&self.metainfo.info.seal.params, &mut piece.bytes);
        piece.len = unpacked.map_err(|_| Error::CorruptPiece { index })?;
        Ok(piece)
    }

    /// One piece in its package, of the first copy that is good.
    fn decrypt_piece(&self, pieces: &dyn PieceReader, index: u32) -> Result<Plaintext, Error> {
        let mut tries = 1;
        loop {
            match self.decrypt_copy(pieces, index) {
                Err(Error::CorruptPiece { .. }) if tries < TRIES && pieces.replaced(index) => tries += 1,
                opened => return opened,
            }
        }
    }

    /// Read, PDec, SHA-1 against the .torrent. Of a clear one, nothing has to be undone.
    fn decrypt_copy(&self, pieces: &dyn PieceReader, index: u32) -> Result<Plaintext, Error> {
        let mut piece = Plaintext::new(self.metainfo.info.piece_length as usize);
        let read = pieces.read_piece(index, &mut piece.bytes);
        let stored =
            read.map_err(|error| Error::PieceIo { index, error })?.ok_or(Error::MissingPiece { index })?;
        self.decrypt(index, stored, &mut piece)?;
        Ok(piece)
    }

    /// PDec in place, and SHA-1 against the .torrent; of a clear piece, SHA-1 alone. `stored`: the epoch that the piece is encrypted
    /// for.
    fn decrypt(&self, index: u32, stored: u64, piece: &mut Plaintext) -> Result<(), Error> {
        let info = &self.metainfo.info;
        let params = &info.seal.params;
        if !info.seal.is_clear(index) {
            let opener = self.opener(stored).map_err(|why| Error::WrongEpoch { index, stored, why })?;
            let Opener { license, opened } = &*opener;
            let place = info.seal.selection.as_ref().map_or(index, |it| it.rank(Kind::Sealed, index));
            let key = opened.get(params, &self.secret, &license.keys, place);
            let key =
                key.ok_or_else(|| Error::MalformedLicense(format!("its key of piece {index} is none")))?;
            decrypt_piece_with(params, &key, &mut piece.bytes).map_err(|_| Error::CorruptPiece { index })?;
        }
        let found: [u8; 20] = Sha1::digest(&piece.bytes).into();
        if info.pieces.get(index as usize) != Some(&found) {
            return Err(Error::CorruptPiece { index });
        }
        Ok(())
    }

    /// The license of an epoch, which is asked for where it is not at hand.
    fn opener(&self, epoch: u64) -> Result<Arc<Opener>, String> {
        if let Some(opener) = self.at_hand(epoch) {
            return Ok(opener);
        }
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have asked meanwhile.
        if let Some(opener) = self.at_hand(epoch) {
            return Ok(opener);
        }
        if let Some((of, at, why)) = &source.refused
            && *of == epoch
            && at.elapsed() < ASK_AGAIN
        {
            return Err(why.clone());
        }
        let fits = |license: &License| {
            let known = self.license();
            (license.torrent_id, license.subscriber, license.epoch)
                == (known.torrent_id, known.subscriber, epoch)
        };
        match source.licenses.license(epoch) {
            Ok(license) if fits(&license) => {
                let opener = Arc::new(Opener { license, opened: OpenedKeys::default() });
                let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                if others.len() == EPOCHS_AT_HAND {
                    others.remove(0);
                }
                others.push(Arc::clone(&opener));
                Ok(opener)
            }
            Ok(_) => Err("what came is another's".to_owned()),
            Err(why) => {
                source.refused = Some((epoch, Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn at_hand(&self, epoch: u64) -> Option<Arc<Opener>> {
        if epoch == self.epoch() {
            return Some(Arc::clone(&self.opener));
        }
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().find(|opener| opener.license.epoch == epoch).cloned()
    }
}

/// A decrypted piece, wiped on drop. `zeroize` writes a `Vec` byte by byte, which takes as long as T; this goes at memory's speed.
struct Plaintext {
    bytes: Vec<u8>,
    /// Of the payload.
    len: usize,
}

impl Plaintext {
    fn new(len: usize) -> Self {
        Plaintext { bytes: vec![0; len], len }
    }
}

impl Deref for Plaintext {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        zeroize::zeroize_bytes(&mut self.bytes);
    }
}
