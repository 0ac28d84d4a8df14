//! Whose a ciphertext piece, a license or a personal torrent is.
//!
//! Every ciphertext piece is the packaged piece times a key of one subscriber's and one epoch's. The publisher, who has the packaged
//! piece, divides and sends the key; the tracker makes everybody's key of that piece until it meets it, and answers with the name. No
//! content and no other key go either way. The witness's key is nobody's: its form of a piece is told apart and names no one. A license names its device in clear, and a personal torrent's info-hash is one subscriber's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use swarmseal_core::{
    EncryptionKey, MasterKey, PublicKey, SubscriberId, TorrentId, TsKeys, WitnessExponents, WitnessFactor,
};
use zeroize::Zeroizing;

use super::{Body, Hex32, Shared, Subject, bad, blocking};
use crate::tracker::masters::Masters;
use crate::tracker::records::SubscriberRecord;
use crate::tracker::refusal::Refusal;
use crate::tracker::state::{Torrent, Tracker};
use crate::wire::api::ApiError;

/// Keys that one call makes at most, but for those of one page: a second, or some on a slow machine.
const MAX_KEYS: usize = 5000;
/// Subscribers that one call looks at, where no key has to be made.
const MAX_LOOKED_AT: usize = 100_000;
/// Subscribers in memory at once.
const PAGE: usize = 500;
/// Epochs that are tried, the newest first.
const MAX_EPOCHS: usize = 100;

/// What is looked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tracker) struct Trace {
    torrent_id: Hex32,
    piece: Option<u32>,
    /// The piece's encryption key.
    key: Option<Key>,
    device: Option<Hex32>,
    /// Of a personal torrent.
    info_hash: Option<String>,
    after: Option<Hex32>,
}

/// A key in hexadecimal: W bytes, big-endian. Zeroized on drop; `Debug` does not show it.
struct Key(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = hex::decode(text.as_bytes());
        bytes
            .map(|bytes| Key(Zeroizing::new(bytes)))
            .map_err(|_| serde::de::Error::custom("key: expected hexadecimal digits"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Subject for Trace {
    fn subject(&self) -> String {
        let what = match (self.piece, self.device, &self.info_hash) {
            (Some(piece), ..) => format!("piece {piece}"),
            (None, Some(device), _) => format!("license for device {}", hex::encode(device.0)),
            _ => "a personal torrent".to_owned(),
        };
        format!("{what} of torrent {}", hex::encode(self.torrent_id.0))
    }
}

/// `POST /admin/trace`
pub(in crate::tracker) async fn trace(State(tracker): Shared, body: Body<Trace>) -> Response {
    blocking(tracker, body, |tracker, body| {
        let torrent = tracker.torrent(&TorrentId(body.torrent_id.0))?;
        let after = body.after.map(|id| SubscriberId(id.0));
        match (body.piece, &body.key, body.device, &body.info_hash) {
            (Some(piece), Some(key), None, None) => of_key(tracker, &torrent, piece, key, after),
            (None, None, Some(device), None) => of_device(tracker, &torrent, &device.0, after),
            (None, None, None, Some(info_hash)) => of_personal(tracker, &torrent, info_hash),
            _ => Err(bad("expected a piece with its key, a device, or an info-hash, and one of them")),
        }
    })
    .await
}

/// What a call found, and where the next one goes on.
#[derive(Default)]
struct Found {
    matches: Vec<Value>,
    /// It is the witness's form, which is nobody's.
    witness: bool,
    tried: usize,
    epochs: Vec<u64>,
    missing: Vec<u64>,
    next: Option<SubscriberId>,
}

impl Found {
    fn answer(self) -> Value {
        let Found { matches, witness, tried, epochs, missing, next } = self;
        json!({
            "matches": matches,
            "witness": witness,
            "tried": tried,
            "epochs": epochs,
            "missing": missing,
            "next": next.map(|id| id.to_string()),
        })
    }
}

fn shown(tracker: &Tracker, id: &SubscriberId, epoch: Option<u64>) -> Result<Value, Refusal> {
    let record = tracker.store.subscriber(id)?.ok_or(ApiError::UnknownSubscriber)?;
    let (held, grant) = (tracker.store.held_by(id)?, tracker.store.grant_of(id)?);
    Ok(json!({
        "subscriber": id.to_string(),
        "epoch": epoch,
        "revoked": record.revoked,
        "account": grant.and_then(|grant| grant.account),
        "name": tracker.store.device(id)?.name,
        "grant": held.map(hex::encode),
    }))
}

fn of_key(
    tracker: &Tracker,
    torrent: &Torrent,
    piece: u32,
    key: &Key,
    after: Option<SubscriberId>,
) -> Result<Value, Refusal> {
    torrent.check_pieces(&[piece])?;
    // Whatever it is, it must be a key: nothing else is worth the work.
    EncryptionKey::from_bytes(&torrent.params, &key.0)
        .map_err(|_| bad("key: expected a number above 0 and below the modulus, as long as that"))?;
    if is_witness(torrent, piece, key)? {
        return Ok(Found { witness: true, ..Found::default() }.answer());
    }
    let OfEpochs { keys, missing } = masters(tracker, torrent)?;
    let mut found = Found { epochs: keys.keys().copied().collect(), missing, ..Found::default() };
    found.next = tracker.store.each_page_of(&torrent.id, after, PAGE, |page| {
        let records: Vec<(SubscriberId, &SubscriberRecord)> =
            page.iter().map(|listed| (listed.id, &listed.record)).collect();
        for (id, epoch) in with_key(torrent, &keys, piece, &records, key)? {
            found.matches.push(shown(tracker, &id, Some(epoch))?);
        }
        found.tried += records.len() * keys.len();
        Ok::<_, Refusal>(!found.matches.is_empty() || found.tried >= MAX_KEYS)
    })?;
    if !found.matches.is_empty() {
        // No two have the same.
        found.next = None;
    }
    Ok(found.answer())
}

/// Whether a key of a piece is the witness's.
fn is_witness(torrent: &Torrent, piece: u32, key: &Key) -> Result<bool, Refusal> {
    let params = &torrent.params;
    let w = WitnessExponents::derive(params, &torrent.witness, &torrent.id).exponent(piece);
    let mut factor = Zeroizing::new(vec![0; params.group().bytes()]);
    WitnessFactor::derive(params, &w).to_bytes(params, &mut factor)?;
    Ok(*factor == *key.0)
}

/// The master keys of a torrent's epochs, and the epochs whose keys are gone.
struct OfEpochs {
    keys: BTreeMap<u64, Arc<MasterKey>>,
    missing: Vec<u64>,
}

fn masters(tracker: &Tracker, torrent: &Torrent) -> Result<OfEpochs, Refusal> {
    let (mut keys, mut missing) = (BTreeMap::new(), Vec::new());
    let masters = tracker.masters();
    for epoch in (1..=torrent.epochs.current()).rev().take(MAX_EPOCHS) {
        match masters.find(epoch) {
            Some(key) => drop(keys.insert(epoch, key)),
            // One that was passed over never had a key.
            None if tracker.store.has_mark(&Masters::mark_name(epoch))? => missing.push(epoch),
            None => {}
        }
    }
    Ok(OfEpochs { keys, missing })
}

/// Those of these subscribers, in one of these epochs, whose key of the piece it is.
fn with_key(
    torrent: &Torrent,
    masters: &BTreeMap<u64, Arc<MasterKey>>,
    piece: u32,
    subscribers: &[(SubscriberId, &SubscriberRecord)],
    key: &Key,
) -> Result<Vec<(SubscriberId, u64)>, Refusal> {
    let params = &torrent.params;
    let encoded: Vec<u8> = subscribers.iter().flat_map(|(_, record)| record.y.iter().copied()).collect();
    let mut publics: Vec<(SubscriberId, PublicKey)> = Vec::with_capacity(subscribers.len());
    PublicKey::from_checked_bytes_batch(params, &encoded, |i, public| {
        // They were checked when they came, and nothing that is made for them leaves the tracker.
        if let (Some((id, _)), Ok(public)) = (subscribers.get(i), public) {
            publics.push((*id, public));
        }
    })?;
    let mut found = Vec::new();
    let mut made = Zeroizing::new(vec![0; params.group().bytes()]);
    for (&epoch, master) in masters {
        let parties: Vec<_> = publics
            .iter()
            .map(|(id, public)| (public, TsKeys::derive(params, master, id, epoch).key(piece)))
            .collect();
        EncryptionKey::derive_each(params, &parties, |i, derived| {
            if derived.to_bytes(params, &mut made).is_ok() && *made == *key.0 {
                found.push((publics[i].0, epoch));
            }
        });
    }
    Ok(found)
}

fn of_device(
    tracker: &Tracker,
    torrent: &Torrent,
    device: &[u8; 32],
    after: Option<SubscriberId>,
) -> Result<Value, Refusal> {
    let mut found = Found::default();
    found.next = tracker.store.each_page_of(&torrent.id, after, PAGE, |page| {
        found.tried += page.len();
        for listed in page.iter().filter(|listed| listed.record.device == *device) {
            found.matches.push(shown(tracker, &listed.id, None)?);
        }
        Ok::<_, Refusal>(found.tried >= MAX_LOOKED_AT)
    })?;
    Ok(found.answer())
}

fn of_personal(tracker: &Tracker, torrent: &Torrent, info_hash: &str) -> Result<Value, Refusal> {
    let mut bytes = [0; 20];
    hex::decode_to_slice(info_hash, &mut bytes)
        .map_err(|_| bad("info_hash: expected 40 hexadecimal digits"))?;
    let mut found = Found { tried: 1, ..Found::default() };
    // Those of epochs that are retired are forgotten.
    if let Some(record) = tracker.personals.find(&bytes).filter(|record| record.torrent_id == torrent.id) {
        found.matches.push(shown(tracker, &record.subscriber, Some(record.epoch))?);
    }
    Ok(found.answer())
}
