//! The slow work: keys from the tracker, pieces transformed, checked and stored, off the async threads.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use swarmseal_core::{
    EncryptionKey, Error, Params, ReKey, check_piece, check_witness, encrypt_piece, package, re_encrypt_piece,
};

use super::torrent::Role;
use super::witness::WitnessKeys;
use crate::peer::buffers::{Buffer, Buffers};
use crate::peer::published::{Expected, Published};
use crate::peer::state::{Claim, StoreFailure, Unready};
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
    Core(#[from] Error),
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

/// Makes a piece ready for a peer in a buffer of its length. The key is from what we have in `epoch`.
pub(super) fn prepare(
    role: &Role,
    piece: u32,
    mut data: Buffer,
    key: Option<&Bytes>,
    epoch: u64,
) -> Result<Bytes, PrepareError> {
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
            if store.read_stored(piece, &mut data)?.epoch != epoch {
                return Err(PrepareError::Moved);
            }
            let key = ReKey::from_bytes(&member.params, key.ok_or(PrepareError::NoKey)?)?;
            re_encrypt_piece(&member.params, &key, &mut data)?;
        }
        Role::PlainSeed { source } => source.read_payload(piece, &mut data)?,
        Role::PlainPeer { store } => store.read(piece, &mut data)?,
    }
    Ok(Bytes::from_owner(data))
}

/// Makes a clear piece ready, which is the same for everybody.
pub(super) fn prepare_clear(role: &Role, piece: u32, mut data: Buffer) -> Result<Bytes, PrepareError> {
    match role {
        Role::Seed { source, .. } => {
            if !source.read_packaged(piece, &mut data)? {
                source.read_payload(piece, &mut data)?;
            }
        }
        Role::Peer { store, .. } => drop(store.read_stored(piece, &mut data)?),
        Role::PlainSeed { .. } | Role::PlainPeer { .. } => return Err(PrepareError::NoKey),
    }
    Ok(Bytes::from_owner(data))
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

/// What a piece that came is checked by.
#[derive(Clone)]
pub(super) struct Checks {
    /// `None` in a plain torrent.
    pub(super) published: Option<Arc<Published>>,
    pub(super) keys: Arc<WitnessKeys>,
    pub(super) buffers: Buffers,
}

/// Transforms an ordinary client's piece with that key, checks and stores it.
pub(super) fn pull(
    role: &Role,
    checks: &Checks,
    piece: u32,
    mut data: Buffer,
    key: &[u8],
    epoch: u64,
) -> Result<(), StoreFailure> {
    let member = role.member().ok_or(StoreFailure::NoKey)?;
    check_piece(&member.params, &data).map_err(|_| StoreFailure::BadPiece)?;
    let key = ReKey::from_bytes(&member.params, key).map_err(|_| StoreFailure::NoKey)?;
    re_encrypt_piece(&member.params, &key, &mut data).map_err(|_| StoreFailure::BadPiece)?;
    store(role, checks, piece, &data, epoch)
}

/// Checks a received piece and stores it. Nothing is stored otherwise: a sealed piece is checked by the witness under `epoch`, a
/// clear one and those of a plain torrent by SHA-1.
pub(super) fn store(
    role: &Role,
    checks: &Checks,
    piece: u32,
    data: &[u8],
    epoch: u64,
) -> Result<(), StoreFailure> {
    match role {
        Role::Peer { member, store } => {
            let expected = checks.published.as_ref().and_then(|published| published.expected(piece));
            let epoch = match expected.ok_or(StoreFailure::NoKey)? {
                Expected::Witness(hash) => {
                    let key = checks.keys.get(&member.params, epoch, piece).ok_or(StoreFailure::NoKey)?;
                    let mut scratch = checks.buffers.take(data.len() as u32);
                    let right = check_witness(&member.params, &key, hash, data, &mut scratch);
                    right.map_err(|error| match error {
                        Error::WitnessMismatch => StoreFailure::Mismatch,
                        _ => StoreFailure::BadPiece,
                    })?;
                    epoch
                }
                clear if clear.is_clear_piece(data) => NOT_ENCRYPTED,
                Expected::Clear(_) => return Err(StoreFailure::BadPiece),
            };
            let stored = StoredPiece { epoch, hash: *blake3::hash(data).as_bytes() };
            store.put(piece, data, stored).map_err(|error| disk(&error))?;
            checks.keys.served(epoch, piece);
            Ok(())
        }
        Role::PlainPeer { store } => match store.put(piece, data) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreFailure::BadPiece),
            Err(error) => Err(disk(&error)),
        },
        Role::Seed { .. } | Role::PlainSeed { .. } => Err(disk(&"a seed stores no pieces")),
    }
}

fn disk(error: &dyn std::fmt::Display) -> StoreFailure {
    StoreFailure::Disk(error.to_string())
}
