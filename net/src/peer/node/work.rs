//! The slow work: keys from the tracker, pieces transformed, checked and stored, off the async threads.

use std::io;

use bytes::Bytes;
use swarmseal_core::{EncryptionKey, Params, ReKey, check_piece, encrypt_piece, package, re_encrypt_piece};

use super::torrent::Role;
use crate::peer::buffers::Buffer;
use crate::peer::cipher_hashes::CipherHashes;
use crate::peer::clear::ClearPieces;
use crate::peer::state::{Claim, Sender, StoreFailure, Unready};
use crate::peer::store::{NOT_ENCRYPTED, StoreError, StoredPiece};
use crate::peer::tracker::{KeyError, Personal, Tracker};

/// Asks for the keys that the role needs.
pub(super) async fn fetch_keys(
    role: &Role,
    tracker: &dyn Tracker,
    claim: &Claim,
    epoch: u64,
    pieces: &[u32],
) -> Result<Vec<Bytes>, KeyError> {
    let Some(member) = role.member() else { return Ok(Vec::new()) };
    let keys = match claim {
        Claim::Personal(personal) => tracker.personal_keys(&personal.info_hash, epoch, pieces).await?,
        Claim::Ticket(ticket) => {
            let ticket = ticket.to_bytes();
            match role {
                Role::Seed { .. } => tracker.encryption_keys(&ticket, pieces).await?,
                _ => tracker.rekeys(&ticket, epoch, pieces).await?,
            }
        }
    };
    let width = member.params.group().bytes();
    if keys.len() != pieces.len() || keys.iter().any(|key| key.len() != width) {
        return Err(KeyError::Unavailable("the tracker's answer has the wrong length".to_owned()));
    }
    Ok(keys.into_iter().map(Bytes::from).collect())
}

/// Why a piece was not made ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("it is of another epoch than the key")]
    Moved,
    #[error("there is no key")]
    NoKey,
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Core(#[from] swarmseal_core::Error),
}

impl PrepareError {
    pub(super) fn unready(&self) -> Unready {
        match self {
            PrepareError::Store(StoreError::Damaged(_)) => Unready::Damaged,
            PrepareError::Moved => Unready::Moved,
            _ => Unready::Failed,
        }
    }
}

/// Makes a piece ready for a peer in a buffer of its length; its BLAKE3 (zeros in a plain torrent, where nobody asks). The key is
/// from what we have in `epoch`.
pub(super) fn prepare(
    role: &Role,
    piece: u32,
    mut data: Buffer,
    key: Option<&Bytes>,
    epoch: u64,
) -> Result<(Bytes, [u8; 32]), PrepareError> {
    match role {
        Role::Seed { member, source, secret } => {
            let params: &Params = &member.params;
            let key = EncryptionKey::from_bytes(params, key.ok_or(PrepareError::NoKey)?)?;
            if !source.read_packaged(piece, &mut data)? {
                let payload = params.payload_bytes(data.len());
                source.read_payload(piece, &mut data[..payload])?;
                package::pack(params, secret, &member.torrent_id, piece, &mut data)?;
            }
            encrypt_piece(params, &key, &mut data)?;
        }
        Role::Peer { member, store } => {
            // What we sign for is what its sender signed for.
            if store.read_stored(piece, &mut data)?.epoch != epoch {
                return Err(PrepareError::Moved);
            }
            let key = ReKey::from_bytes(&member.params, key.ok_or(PrepareError::NoKey)?)?;
            re_encrypt_piece(&member.params, &key, &mut data)?;
        }
        Role::PlainSeed { source } => source.read_payload(piece, &mut data)?,
        Role::PlainPeer { store } => store.read(piece, &mut data)?,
    }
    let hash = if role.member().is_some() { *blake3::hash(&data).as_bytes() } else { [0; 32] };
    Ok((Bytes::from_owner(data), hash))
}

/// Makes a clear piece ready, which is the same for everybody. Nothing is stated of it, so that its BLAKE3 is not asked for.
pub(super) fn prepare_clear(
    role: &Role,
    piece: u32,
    mut data: Buffer,
) -> Result<(Bytes, [u8; 32]), PrepareError> {
    match role {
        Role::Seed { source, .. } => {
            if !source.read_packaged(piece, &mut data)? {
                source.read_payload(piece, &mut data)?;
            }
        }
        Role::Peer { store, .. } => drop(store.read_stored(piece, &mut data)?),
        Role::PlainSeed { .. } | Role::PlainPeer { .. } => return Err(PrepareError::NoKey),
    }
    Ok((Bytes::from_owner(data), [0; 32]))
}

/// Asks for the re-key from an ordinary client's ciphertext to ours of `epoch`.
pub(super) async fn pull_key(
    tracker: &dyn Tracker,
    piece: u32,
    epoch: u64,
    personal: &Personal,
) -> Result<Vec<u8>, StoreFailure> {
    let keys = tracker.pull_keys(&personal.info_hash, epoch, &[piece]).await;
    keys.ok().and_then(|keys| keys.into_iter().next()).ok_or(StoreFailure::NoKey)
}

/// Transforms an ordinary client's piece with that key, checks and stores it; its BLAKE3.
pub(super) fn pull(
    role: &Role,
    hashes: &CipherHashes,
    piece: u32,
    mut data: Buffer,
    key: &[u8],
    (sender, epoch): (Sender, u64),
) -> Result<[u8; 32], StoreFailure> {
    let member = role.member().ok_or(StoreFailure::NoKey)?;
    check_piece(&member.params, &data).map_err(|_| StoreFailure::BadPiece)?;
    let key = ReKey::from_bytes(&member.params, key).map_err(|_| StoreFailure::NoKey)?;
    re_encrypt_piece(&member.params, &key, &mut data).map_err(|_| StoreFailure::BadPiece)?;
    store(role, hashes, piece, &data, sender, epoch)
}

/// Checks a received clear piece by the .torrent and stores it; its BLAKE3.
pub(super) fn store_clear(
    role: &Role,
    clear: &ClearPieces,
    piece: u32,
    data: &[u8],
    sender: Sender,
) -> Result<[u8; 32], StoreFailure> {
    let Role::Peer { store, .. } = role else {
        return Err(StoreFailure::Disk("only a peer stores clear pieces".to_owned()));
    };
    if !clear.is_right(piece, data) {
        return Err(StoreFailure::BadPiece);
    }
    let hash = *blake3::hash(data).as_bytes();
    let stored = StoredPiece { epoch: NOT_ENCRYPTED, hash, sender: sender.id };
    store.put(piece, data, stored).map_err(|error| StoreFailure::Disk(error.to_string()))?;
    Ok(hash)
}

/// Checks a received piece and stores it; its BLAKE3.
pub(super) fn store(
    role: &Role,
    hashes: &CipherHashes,
    piece: u32,
    data: &[u8],
    sender: Sender,
    epoch: u64,
) -> Result<[u8; 32], StoreFailure> {
    let disk = |error: &dyn std::fmt::Display| StoreFailure::Disk(error.to_string());
    match role {
        Role::Peer { member, store } => {
            check_piece(&member.params, data).map_err(|_| StoreFailure::BadPiece)?;
            let hash = *blake3::hash(data).as_bytes();
            if !hashes.allow(epoch, piece, data, &hash) {
                return Err(StoreFailure::WrongHash);
            }
            let stored = StoredPiece { epoch, hash, sender: sender.id };
            store.put(piece, data, stored).map_err(|error| disk(&error))?;
            Ok(hash)
        }
        Role::PlainPeer { store } => match store.put(piece, data) {
            Ok(true) => Ok([0; 32]),
            Ok(false) => Err(StoreFailure::BadPiece),
            Err(error) => Err(disk(&error)),
        },
        Role::Seed { .. } | Role::PlainSeed { .. } => {
            Err(StoreFailure::Disk("a seed stores no pieces".to_owned()))
        }
    }
}
