//! The statements by which pieces came, kept on disk: blame follows them.
//!
//! ```text
//! statements.log   "SSSTATED" ‖ version (4) ‖ torrent id (32) ‖ subscriber id (32)      big-endian
//!                  then records, appended: kind (1) ‖ length of the body (4) ‖ body ‖ first 8 bytes of the BLAKE3 of it all
//! 1 statement      uploader (32) ‖ epoch (8) ‖ time (8) ‖ signature (64) ‖ entries: piece (4) ‖ BLAKE3 (32), each
//! ```
//!
//! Statements about nothing that was ever stored are dropped when the file is opened, and while it is open once it has
//! doubled. In between it grows by about 40 bytes a piece.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use swarmseal_core::{SubscriberId, TorrentId};

use super::store::{StoreError, StoredPiece, failed, if_there};
use crate::atomic_file::{self, Access, Existing};
use crate::platform;
use crate::wire::seal::{MAX_STATEMENT, Parties, Statement};

const MAGIC: &[u8; 8] = b"SSSTATED";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 32 + 32;
const STATEMENT: u8 = 1;
const CHECK: usize = 8;
const MAX_RECORD: usize = 32 + MAX_STATEMENT;
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

/// An uploader's word on what it sent to us.
pub type Stated = (SubscriberId, Statement);

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
    ) -> Result<(Self, Vec<Stated>), StoreError> {
        let bytes = if_there(std::fs::read(path), path)?.unwrap_or_default();
        let (statements, good) = parse(&bytes, path, &owner)?;
        let mut compact = header(&owner).to_vec();
        for (uploader, statement) in kept(&statements, stored) {
            compact.extend_from_slice(&record(*uploader, statement));
        }
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
        Ok((log, statements))
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

    /// Appends a statement; the system has it when this returns, so that it survives a kill.
    pub fn add(&mut self, uploader: SubscriberId, statement: &Statement) -> Result<(), StoreError> {
        let failed = |source| failed(&self.path, source);
        let end = self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        let record = record(uploader, statement);
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
pub fn read_statements(path: &Path, owner: &Owner) -> Result<Vec<Stated>, StoreError> {
    let bytes = if_there(std::fs::read(path), path)?.unwrap_or_default();
    Ok(parse(&bytes, path, owner)?.0)
}

/// Statements by what they say: piece, BLAKE3 and uploader. Of several that say the same, the last one read.
pub fn statements_by_entry(statements: &[Stated]) -> HashMap<(u32, [u8; 32], SubscriberId), &Statement> {
    let entries = statements.iter().flat_map(|(uploader, statement)| {
        statement.entries.iter().map(move |entry| ((entry.piece, entry.hash, *uploader), statement))
    });
    entries.collect()
}

/// What a statement about a stored piece must say.
fn keys(stored: &[(u32, StoredPiece)]) -> impl Iterator<Item = (u32, [u8; 32], SubscriberId)> + '_ {
    stored.iter().filter_map(|(piece, stored)| Some((*piece, stored.hash, stored.sender?)))
}

fn kept<'a>(
    statements: &'a [Stated],
    stored: &[(u32, StoredPiece)],
) -> impl Iterator<Item = &'a Stated> + use<'a> {
    let stored: HashSet<_> = keys(stored).collect();
    statements.iter().filter(move |(uploader, statement)| {
        statement.entries.iter().any(|entry| stored.contains(&(entry.piece, entry.hash, *uploader)))
    })
}

fn header(owner: &Owner) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_be_bytes());
    out[12..44].copy_from_slice(&owner.torrent_id.0);
    out[44..].copy_from_slice(&owner.subscriber.0);
    out
}

fn record(uploader: SubscriberId, statement: &Statement) -> Vec<u8> {
    let body = [&uploader.0[..], &statement.to_bytes()].concat();
    let mut out = vec![STATEMENT];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    let check = blake3::hash(&out);
    out.extend_from_slice(&check.as_bytes()[..CHECK]);
    out
}

/// The statements of a file, and how many of its bytes are sound: 0 where not even the header is whole.
fn parse(bytes: &[u8], path: &Path, owner: &Owner) -> Result<(Vec<Stated>, usize), StoreError> {
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
    let mut statements = Vec::new();
    // A torn or damaged record hides those behind it: what they vouch for is fetched again.
    while let Some((statement, behind)) = parse_record(rest) {
        statements.extend(statement);
        rest = behind;
    }
    Ok((statements, bytes.len() - rest.len()))
}

/// The first record, and what follows; an unknown kind is passed over.
fn parse_record(bytes: &[u8]) -> Option<(Option<Stated>, &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok().filter(|&length| length <= MAX_RECORD)?;
    let (body, rest) = rest.split_at_checked(length)?;
    let (check, rest) = rest.split_at_checked(CHECK)?;
    if blake3::hash(&bytes[..5 + length]).as_bytes()[..CHECK] != *check {
        return None;
    }
    let statement = if kind == STATEMENT { Some(parse_statement(body)?) } else { None };
    Some((statement, rest))
}

fn parse_statement(body: &[u8]) -> Option<Stated> {
    let (&uploader, body) = body.split_first_chunk()?;
    Some((SubscriberId(uploader), Statement::from_bytes(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::identity::SigningKey;
    use crate::wire::seal::Entry;

    const OWNER: Owner = Owner { torrent_id: TorrentId([7; 32]), subscriber: SubscriberId([8; 32]) };
    const UPLOADER: SubscriberId = SubscriberId([9; 32]);

    fn statement(time: u64, pieces: std::ops::Range<u32>, hash: u8) -> Statement {
        let entries = pieces.map(|piece| Entry { piece, hash: [hash; 32] }).collect();
        let key = SigningKey::from_bytes(&[1; 32]);
        Statement::sign(&key, &OWNER.from(UPLOADER), 3, time, entries)
    }

    fn stored(piece: u32, hash: u8) -> (u32, StoredPiece) {
        (piece, StoredPiece { epoch: 3, hash: [hash; 32], sender: Some(UPLOADER) })
    }

    #[test]
    fn statements_outlive_kills_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.log");
        let statements = [statement(10, 0..3, 1), statement(11, 3..4, 1)].map(|it| (UPLOADER, it));
        let mut log = StatementLog::open(&path, OWNER, &[]).unwrap();
        statements.iter().for_each(|(uploader, statement)| log.add(*uploader, statement).unwrap());
        log.sync().unwrap();
        assert_eq!(read_statements(&path, &OWNER).unwrap(), statements);
        let whole = std::fs::read(&path).unwrap();
        let stored: Vec<_> = (0..4).map(|piece| stored(piece, 1)).collect();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let before = read_statements(&path, &OWNER).unwrap();
            assert!(statements.starts_with(&before));
            let (mut log, found) = StatementLog::open_and_read(&path, OWNER, &stored).unwrap();
            assert_eq!(found, before);
            log.add(UPLOADER, &statements[1].1).unwrap();
            let after = read_statements(&path, &OWNER).unwrap();
            assert_eq!((&after[..before.len()], after.last()), (&before[..], Some(&statements[1])));
        }
    }

    #[test]
    fn foreign_damaged_and_newer_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statements.log");
        let mut log = StatementLog::open(&path, OWNER, &[]).unwrap();
        log.add(UPLOADER, &statement(10, 0..3, 1)).unwrap();
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
        log.add(UPLOADER, &statement(10, 0..3, 1)).unwrap();
        for n in 0..20 {
            log.add(UPLOADER, &statement(20 + n, 100..256, 2)).unwrap();
        }
        assert!(!log.is_large());
        while !log.is_large() {
            log.add(UPLOADER, &statement(50, 100..356, 2)).unwrap();
        }
        let log = StatementLog::open(&path, OWNER, &[stored(1, 1)]).unwrap();
        assert!(!log.is_large());
        let kept = read_statements(&path, &OWNER).unwrap();
        assert_eq!(kept, [(UPLOADER, statement(10, 0..3, 1))]);
    }
}
