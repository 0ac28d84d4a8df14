//! Signed words of others, kept on disk: the statements by which pieces came, which blame follows, and the receipts for
//! what was sent.
//!
//! ```text
//! statements.log   "SSSTATED" ‖ version (4) ‖ torrent id (32) ‖ subscriber id (32)      big-endian
//!                  then records, appended: kind (1) ‖ length of the body (4) ‖ body ‖ first 8 bytes of the BLAKE3 of it all
//! 1 statement      uploader (32) ‖ epoch (8) ‖ time (8) ‖ signature (64) ‖ entries: piece (4) ‖ BLAKE3 (32), each
//! 3 receipt        downloader (32) ‖ since (8) ‖ bytes (8) ‖ pieces (8) ‖ time (8) ‖ signature (64)
//! ```
//!
//! What is no longer of use is dropped when the file is opened: statements about nothing that was ever stored, and all but
//! the newest receipts, and while it is open once it has doubled. In between it grows by about 40 bytes a piece.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use swarmseal_core::{SubscriberId, TorrentId};

use super::store::{StoreError, StoredPiece, failed, if_there};
use crate::atomic_file::{self, Access, Existing};
use crate::platform;
use crate::wire::seal::{MAX_STATEMENT, Parties, Receipt, Statement};

const MAGIC: &[u8; 8] = b"SSSTATED";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 32 + 32;
const STATEMENT: u8 = 1;
/// 2 was a receipt that did not say since when: nobody can credit it, and it is passed over.
const RECEIPT: u8 = 3;
const CHECK: usize = 8;
const MAX_RECORD: usize = 32 + MAX_STATEMENT;
/// Receipts that outlive a start.
const MAX_RECEIPTS: usize = 1024;
/// Bytes below which nothing is dropped.
const SMALL: usize = 64 * 1024;
/// Bytes below which a log that is open is left as it is.
const LARGE: u64 = 8 << 20;

/// Whose statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The torrent.
    pub torrent_id: TorrentId,
    /// The subscriber who got them.
    pub subscriber: SubscriberId,
}

impl Owner {
    /// Between an uploader and the owner.
    pub fn from(&self, uploader: SubscriberId) -> Parties {
        Parties { torrent_id: self.torrent_id, uploader, downloader: self.subscriber }
    }
}

/// One signed word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedWord {
    /// An uploader's, on what it sent to us.
    Statement {
        /// j.
        uploader: SubscriberId,
        /// Its word.
        statement: Statement,
    },
    /// A downloader's, on how much it got from us.
    Receipt {
        /// k.
        downloader: SubscriberId,
        /// Its word.
        receipt: Receipt,
    },
}

/// The file of one subscription.
#[derive(Debug)]
pub struct StatementLog {
    file: File,
    path: PathBuf,
    owner: Owner,
    /// Bytes.
    len: u64,
    /// From how many bytes on it is worth a look for what is of no use.
    large: u64,
}

impl StatementLog {
    /// Opens or makes it, and drops what is of no use. `stored`: every piece that was ever stored. Only one process at a time
    /// may: the one that has the piece store open. Errors: those of [`read_statements`].
    pub fn open(path: &Path, owner: Owner, stored: &[(u32, StoredPiece)]) -> Result<Self, StoreError> {
        Self::open_and_read(path, owner, stored).map(|(log, _)| log)
    }

    /// [`StatementLog::open`], and everything that was in it, the oldest first.
    pub fn open_and_read(
        path: &Path,
        owner: Owner,
        stored: &[(u32, StoredPiece)],
    ) -> Result<(Self, Vec<SignedWord>), StoreError> {
        let bytes = if_there(std::fs::read(path), path)?.unwrap_or_default();
        let (words, good) = parse(&bytes, path, &owner)?;
        let kept = kept(&words, stored);
        let compact: Vec<u8> = kept.iter().fold(header(&owner).to_vec(), |mut file, word| {
            file.extend_from_slice(&record(word));
            file
        });
        let torn = good == 0 || good < bytes.len();
        if torn || (good > SMALL && compact.len() < good / 2) {
            atomic_file::write(path, &compact, Access::Private, Existing::Replace)
                .map_err(|source| failed(path, source))?;
        }
        let mut options = OpenOptions::new();
        platform::private(options.read(true).write(true));
        let file = options.open(path).map_err(|source| failed(path, source))?;
        let len = file.metadata().map_err(|source| failed(path, source))?.len();
        let log = StatementLog { file, path: path.to_owned(), owner, len, large: (2 * len).max(LARGE) };
        Ok((log, words))
    }

    /// Whether so much was added that [`StatementLog::open`] may find a good deal to drop.
    pub fn is_large(&self) -> bool {
        self.len >= self.large
    }

    /// Where it is, for [`read_statements`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Appends a word; the system has it when this returns, so that it survives a kill.
    pub fn add(&mut self, word: &SignedWord) -> Result<(), StoreError> {
        let failed = |source| failed(&self.path, source);
        let end = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        let record = record(word);
        self.file.write_all(&record).map_err(|source| {
            // A torn record would hide those that follow it.
            let _ = self.file.set_len(end);
            failed(source)
        })?;
        self.len = end + record.len() as u64;
        Ok(())
    }

    /// Makes what was added survive a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|source| failed(&self.path, source))
    }
}

/// Everything in a log, the oldest first; nothing where there is none. Errors: [`StoreError::NewerVersion`],
/// [`StoreError::Foreign`], [`StoreError::Io`].
pub fn read_statements(path: &Path, owner: &Owner) -> Result<Vec<SignedWord>, StoreError> {
    let bytes = if_there(std::fs::read(path), path)?.unwrap_or_default();
    Ok(parse(&bytes, path, owner)?.0)
}

/// The statements by which a stored piece came, the newest first: those of before `before` (tracker time) that say just what
/// was stored.
pub fn statements_of(
    words: &[SignedWord],
    stored: &[(u32, StoredPiece)],
    piece: u32,
    before: u64,
) -> Vec<(SubscriberId, Statement)> {
    let stored: HashSet<_> = keys(stored).filter(|(index, ..)| *index == piece).collect();
    let matching = words.iter().filter_map(|word| match word {
        SignedWord::Statement { uploader, statement } => {
            let entry = statement.entry(piece)?;
            let ours = stored.contains(&(piece, entry.hash, *uploader)) && statement.time < before;
            ours.then(|| (*uploader, statement.clone()))
        }
        SignedWord::Receipt { .. } => None,
    });
    let mut matching: Vec<_> = matching.collect();
    matching.sort_by_key(|(_, statement)| std::cmp::Reverse(statement.time));
    matching
}

/// Statements by what they say: piece, BLAKE3 and uploader. Of several that say the same, the last one read.
pub fn statements_by_entry(words: &[SignedWord]) -> HashMap<(u32, [u8; 32], SubscriberId), &Statement> {
    let mut found = HashMap::new();
    for word in words {
        if let SignedWord::Statement { uploader, statement } = word {
            let entries = statement.entries.iter();
            found.extend(entries.map(|entry| ((entry.piece, entry.hash, *uploader), statement)));
        }
    }
    found
}

/// What a statement about a stored piece must say.
fn keys(stored: &[(u32, StoredPiece)]) -> impl Iterator<Item = (u32, [u8; 32], SubscriberId)> + '_ {
    stored.iter().filter_map(|(piece, stored)| Some((*piece, stored.hash, stored.sender?)))
}

fn kept<'a>(words: &'a [SignedWord], stored: &[(u32, StoredPiece)]) -> Vec<&'a SignedWord> {
    let stored: HashSet<_> = keys(stored).collect();
    let receipts = words.iter().filter(|word| matches!(word, SignedWord::Receipt { .. })).count();
    let mut old = receipts.saturating_sub(MAX_RECEIPTS);
    let of_use = |word: &&SignedWord| match word {
        SignedWord::Statement { uploader, statement } => {
            statement.entries.iter().any(|entry| stored.contains(&(entry.piece, entry.hash, *uploader)))
        }
        SignedWord::Receipt { .. } if old > 0 => {
            old -= 1;
            false
        }
        SignedWord::Receipt { .. } => true,
    };
    words.iter().filter(of_use).collect()
}

fn header(owner: &Owner) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_be_bytes());
    out[12..44].copy_from_slice(&owner.torrent_id.0);
    out[44..].copy_from_slice(&owner.subscriber.0);
    out
}

fn record(word: &SignedWord) -> Vec<u8> {
    let (kind, body) = match word {
        SignedWord::Statement { uploader, statement } => {
            (STATEMENT, [&uploader.0[..], &statement.to_bytes()].concat())
        }
        SignedWord::Receipt { downloader, receipt } => {
            (RECEIPT, [&downloader.0[..], &receipt.to_bytes()].concat())
        }
    };
    let mut out = vec![kind];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    let check = blake3::hash(&out);
    out.extend_from_slice(&check.as_bytes()[..CHECK]);
    out
}

/// The words of a file, and how many of its bytes are sound: 0 where not even the header is whole.
fn parse(bytes: &[u8], path: &Path, owner: &Owner) -> Result<(Vec<SignedWord>, usize), StoreError> {
    let header = header(owner);
    // A start that was cut short leaves less than a header.
    if bytes.len() < HEADER_LEN && header.starts_with(bytes) {
        return Ok((Vec::new(), 0));
    }
    let foreign = || StoreError::Foreign(path.to_owned());
    let body = bytes.strip_prefix(MAGIC).ok_or_else(foreign)?;
    let found = body.first_chunk().map(|&found| u32::from_be_bytes(found)).ok_or_else(foreign)?;
    if found > VERSION {
        return Err(StoreError::NewerVersion { path: path.to_owned(), found, newest: VERSION });
    }
    let mut rest = bytes.strip_prefix(&header).ok_or_else(foreign)?;
    let mut words = Vec::new();
    // A torn or damaged record hides those behind it: what they vouch for is fetched again.
    while let Some((word, behind)) = parse_record(rest) {
        words.extend(word);
        rest = behind;
    }
    Ok((words, bytes.len() - rest.len()))
}

/// The first record, and what follows; an unknown kind is passed over.
fn parse_record(bytes: &[u8]) -> Option<(Option<SignedWord>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|&length| length <= MAX_RECORD)?;
    let (body, rest) = rest.split_at_checked(length)?;
    let (check, rest) = rest.split_at_checked(CHECK)?;
    if blake3::hash(&bytes[..5 + length]).as_bytes()[..CHECK] != *check {
        return None;
    }
    let word = match kind {
        STATEMENT => Some(parse_statement(body)?),
        RECEIPT => Some(parse_receipt(body)?),
        _ => None,
    };
    Some((word, rest))
}

fn parse_statement(body: &[u8]) -> Option<SignedWord> {
    let (&uploader, body) = body.split_first_chunk()?;
    let statement = Statement::from_bytes(body)?;
    Some(SignedWord::Statement { uploader: SubscriberId(uploader), statement })
}

fn parse_receipt(body: &[u8]) -> Option<SignedWord> {
    let (&downloader, body) = body.split_first_chunk()?;
    let receipt = Receipt::from_bytes(body.try_into().ok()?);
    Some(SignedWord::Receipt { downloader: SubscriberId(downloader), receipt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::identity::SigningKey;
    use crate::wire::seal::Entry;

    const OWNER: Owner = Owner { torrent_id: TorrentId([7; 32]), subscriber: SubscriberId([8; 32]) };
    const UPLOADER: SubscriberId = SubscriberId([9; 32]);

    fn statement(time: u64, pieces: std::ops::Range<u32>, hash: u8) -> SignedWord {
        let entries = pieces.map(|piece| Entry { piece, hash: [hash; 32] }).collect();
        let key = SigningKey::from_bytes(&[1; 32]);
        let statement = Statement::sign(&key, &OWNER.from(UPLOADER), 3, time, entries);
        SignedWord::Statement { uploader: UPLOADER, statement }
    }

    fn receipt(bytes: u64) -> SignedWord {
        let receipt = Receipt { since: 4, bytes, pieces: 1, time: 5, signature: [6; 64] };
        SignedWord::Receipt { downloader: UPLOADER, receipt }
    }

    fn stored(piece: u32, hash: u8) -> (u32, StoredPiece) {
        (piece, StoredPiece { epoch: 3, hash: [hash; 32], sender: Some(UPLOADER) })
    }

    #[test]
    fn words_outlive_kills_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.log");
        let words = [statement(10, 0..3, 1), receipt(5), statement(11, 3..4, 1)];
        let mut log = StatementLog::open(&path, OWNER, &[]).unwrap();
        words.iter().for_each(|word| log.add(word).unwrap());
        log.sync().unwrap();
        assert_eq!(read_statements(&path, &OWNER).unwrap(), words);
        let whole = std::fs::read(&path).unwrap();
        let stored: Vec<_> = (0..4).map(|piece| stored(piece, 1)).collect();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let before = read_statements(&path, &OWNER).unwrap();
            assert!(words.starts_with(&before));
            let (mut log, found) = StatementLog::open_and_read(&path, OWNER, &stored).unwrap();
            assert_eq!(found, before);
            log.add(&words[2]).unwrap();
            let after = read_statements(&path, &OWNER).unwrap();
            assert_eq!((&after[..before.len()], after.last()), (&before[..], Some(&words[2])));
        }
    }

    #[test]
    fn foreign_damaged_and_newer_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.log");
        StatementLog::open(&path, OWNER, &[]).unwrap().add(&receipt(5)).unwrap();
        let other = Owner { subscriber: SubscriberId([1; 32]), ..OWNER };
        assert!(matches!(read_statements(&path, &other), Err(StoreError::Foreign(_))));
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_statements(&path, &OWNER).unwrap(), []);
        bytes[11] = 2;
        std::fs::write(&path, &bytes).unwrap();
        let newer = StatementLog::open(&path, OWNER, &[]).unwrap_err();
        assert!(newer.to_string().contains("has version 2"), "{newer}");
        std::fs::write(&path, b"no log").unwrap();
        assert!(matches!(StatementLog::open(&path, OWNER, &[]), Err(StoreError::Foreign(_))));
    }

    #[test]
    fn what_is_of_no_use_is_dropped_at_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.log");
        let mut log = StatementLog::open(&path, OWNER, &[]).unwrap();
        log.add(&statement(10, 0..3, 1)).unwrap();
        for n in 0..20 {
            log.add(&statement(20 + n, 100..256, 2)).unwrap();
        }
        (0..2000).for_each(|n| log.add(&receipt(n)).unwrap());
        assert!(!log.is_large());
        while !log.is_large() {
            log.add(&statement(50, 100..356, 2)).unwrap();
        }
        let log = StatementLog::open(&path, OWNER, &[stored(1, 1)]).unwrap();
        assert!(!log.is_large());
        let kept = read_statements(&path, &OWNER).unwrap();
        assert_eq!(kept.len(), 1 + MAX_RECEIPTS);
        assert_eq!((&kept[0], kept.last()), (&statement(10, 0..3, 1), Some(&receipt(1999))));
    }

    #[test]
    fn the_statements_of_a_piece_say_what_was_stored_before() {
        let words = [statement(10, 0..3, 1), statement(20, 1..2, 2), statement(30, 1..2, 3), receipt(1)];
        let stored = [stored(1, 1), stored(1, 2)];
        let times = |piece, before| -> Vec<u64> {
            let found = statements_of(&words, &stored, piece, before);
            found.into_iter().map(|(_, statement)| statement.time).collect()
        };
        assert_eq!(times(1, u64::MAX), [20, 10]);
        assert_eq!(times(1, 20), [10]);
        assert_eq!(times(1, 10), [0; 0]);
        assert_eq!(times(2, u64::MAX), [0; 0]);
    }
}
