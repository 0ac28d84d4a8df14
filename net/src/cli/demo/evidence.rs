//! What the attacker gets: every peer's directory but the plaintext, every transcript, and its own keys.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use swarmseal_core::{Profile, Ticket};

use super::AttackResult;
use super::attacker::{ATTACKS, Attacker, PieceEvidence};
use crate::cli::glue::TrustArgs;
use crate::cli::subscription::{Subscription, read_metainfo};
use crate::cli::{DataDir, Exit, Failure, glue};
use crate::publish::{PlainStream, list_files};
use crate::wire::content::Manifest;
use crate::wire::license::License;
use crate::wire::metainfo::Metainfo;

/// Pieces that every attack is tried on, spread over the torrent.
const ATTACKED: u32 = 32;

/// One torrent after the swarm: the attacker, everybody else, and where the published content is.
pub(super) struct Scene {
    metainfo: Arc<Metainfo>,
    own: Subscription,
    others: Vec<Subscription>,
    leaked: Vec<License>,
    rekeys: HashMap<u32, Vec<Vec<u8>>>,
    known: PathBuf,
}

impl Scene {
    /// Gathers it. `transcript` is the name of the peers' transcripts; `content` is
    /// the file that was published, of which one block a piece is taken as known.
    pub(super) fn load(
        torrent: &Path,
        transcript: &str,
        own: &Path,
        others: &[PathBuf],
        content: &Path,
    ) -> Result<Self, Failure> {
        let metainfo = Arc::new(read_metainfo(torrent, true)?);
        let own_subscription = subscription_in(own, &metainfo)?;
        let others_subscriptions =
            others.iter().map(|dir| subscription_in(dir, &metainfo)).collect::<Result<Vec<_>, _>>()?;
        let leaked = others_subscriptions
            .iter()
            .map(|other| leaked_license(other, &own_subscription))
            .collect::<Result<_, _>>()?;
        let mut rekeys = HashMap::new();
        for dir in others.iter().map(PathBuf::as_path).chain([own]) {
            read_rekeys(&dir.join(transcript), &metainfo, &mut rekeys)?;
        }
        Ok(Scene {
            metainfo,
            own: own_subscription,
            others: others_subscriptions,
            leaked,
            rekeys,
            known: content.to_owned(),
        })
    }

    /// Every attack on every piece in reach.
    pub(super) fn attack(&self) -> Result<Vec<AttackResult>, Failure> {
        let info = &self.metainfo.info;
        let params = &info.seal.params;
        let public_keys = std::iter::once(&self.own)
            .chain(&self.others)
            .map(|subscription| {
                let mut y = vec![0; params.group().bytes()];
                subscription.keys.public_key.to_bytes(params, &mut y).map(|()| y)
            })
            .collect::<Result<_, _>>()
            .map_err(core_failure)?;
        let attacker = Attacker::new(params, &self.own.keys.secret, public_keys).map_err(core_failure)?;
        let mut opened = [false; ATTACKS.len()];
        for index in (0..info.piece_count).step_by(info.piece_count.div_ceil(ATTACKED).max(1) as usize) {
            let own = self.ciphertext(&self.own, index)?;
            let evidence = PieceEvidence {
                hash: info.pieces[index as usize],
                own: &own,
                others: self
                    .others
                    .iter()
                    .map(|other| self.ciphertext(other, index))
                    .collect::<Result<_, _>>()?,
                rekeys: self.rekeys.get(&index).cloned().unwrap_or_default(),
                leaked_keys: self.leaked.iter().map(|license| self.key(license, index)).collect(),
                known_plaintext: self.known_plaintext(index)?,
            };
            for (opened, (_, attack)) in opened.iter_mut().zip(ATTACKS) {
                *opened |= attacker.opens(attack, &evidence);
            }
        }
        let profile = params.profile().name();
        Ok(ATTACKS
            .iter()
            .zip(opened)
            .map(|(&(name, _), opened)| AttackResult { name, profile, opened })
            .collect())
    }

    /// Pairs of peers that store the same bytes for a piece.
    pub(super) fn equal_pieces(&self) -> Result<usize, Failure> {
        let mut equal = 0;
        for index in 0..self.metainfo.info.piece_count {
            let mut seen = std::collections::HashSet::new();
            for peer in std::iter::once(&self.own).chain(&self.others) {
                equal += usize::from(!seen.insert(blake3::hash(&self.ciphertext(peer, index)?)));
            }
        }
        Ok(equal)
    }

    fn ciphertext(&self, of: &Subscription, index: u32) -> Result<Vec<u8>, Failure> {
        let length = self.metainfo.info.piece_length as usize;
        read_at(&of.dir.path().join("pieces.bin"), u64::from(index) * length as u64, length)
    }

    fn key(&self, license: &License, index: u32) -> Vec<u8> {
        let width = self.metainfo.info.seal.params.group().bytes();
        license.keys.chunks_exact(width).nth(index as usize).unwrap_or_default().to_vec()
    }

    /// The first plaintext bytes of a piece's payload: for the sake of the attack, known.
    fn known_plaintext(&self, index: u32) -> Result<Vec<u8>, Failure> {
        let params = &self.metainfo.info.seal.params;
        let payload = self.metainfo.info.payload_length() as u64;
        let width = match params.profile() {
            Profile::Sealed => params.group().bytes(),
            Profile::Paper => params.group().bytes() - 1,
        };
        let failed = |error: crate::publish::Error| Failure::new(Exit::DemoFailed, error.to_string());
        let (root, files) = list_files(&self.known).map_err(failed)?;
        let mut known = vec![0; width];
        let manifest = Manifest::new(files, None).map_err(|error| failed(error.into()))?;
        PlainStream::new(&root, &manifest).read_at(u64::from(index) * payload, &mut known).map_err(failed)?;
        Ok(known)
    }
}

/// Whether the tracker gives the attacker a key for any ticket that others wrote to each other. Errors: there are no such
/// tickets, for then nothing was tried.
pub(super) async fn harvest(torrent: &Path, own: &Path, others: &[PathBuf]) -> Result<AttackResult, Failure> {
    let metainfo = Arc::new(read_metainfo(torrent, true)?);
    let own = subscription_in(own, &metainfo)?;
    let mut tickets = Vec::new();
    for dir in others {
        read_transcript(&dir.join("transcript"), &mut |object| {
            let ticket = object["ticket"].as_str().and_then(|text| hex::decode(text).ok());
            let ticket = ticket.and_then(|bytes| Ticket::from_bytes(&bytes).ok());
            tickets.extend(ticket.filter(|ticket| ticket.uploader != own.keys.id));
        })?;
    }
    if tickets.is_empty() {
        return Err(Failure::new(Exit::DemoFailed, "no ticket was collected to try"));
    }
    let (client, torrent) = (glue::client(&own)?, metainfo.info.seal.torrent_id);
    let mut opened = false;
    for ticket in &tickets {
        // As the attacker itself, and in the name of the uploader that the ticket is for.
        opened |= client.rekey(torrent, own.epoch, ticket, &[0]).await.is_ok();
        let forged = client.as_subscriber(&torrent, ticket.uploader, own.keys.identity.signing_key().clone());
        opened |= forged.rekey(torrent, own.epoch, ticket, &[0]).await.is_ok();
    }
    Ok(AttackResult { name: "others' tickets", profile: metainfo.info.seal.params.profile().name(), opened })
}

/// The subscription of a device whose data directory this is.
fn subscription_in(dir: &Path, metainfo: &Arc<Metainfo>) -> Result<Subscription, Failure> {
    let data = DataDir::open(Some(dir.to_owned()))?;
    Subscription::expect(metainfo.clone(), &TrustArgs::default(), &data)
}

/// A licensed peer's license, opened on its own device, as if it had leaked; and the check that the attacker's own device
/// cannot open it.
fn leaked_license(owner: &Subscription, attacker: &Subscription) -> Result<License, Failure> {
    let path = owner.dir.license();
    let envelope = std::fs::read(&path).map_err(|error| Failure::file(&path, &error))?;
    if attacker.open_license(&envelope).is_ok() {
        return Err(Failure::new(Exit::DemoFailed, "a license opened on another device"));
    }
    owner
        .open_license(&envelope)
        .map_err(|error| Failure::new(Exit::DemoFailed, format!("{}: {error}", path.display())))
}

/// The re-keys in a transcript: objects of the kind `rekey`.
fn read_rekeys(
    path: &Path,
    metainfo: &Metainfo,
    into: &mut HashMap<u32, Vec<Vec<u8>>>,
) -> Result<(), Failure> {
    read_transcript(path, &mut |object| {
        if let (Some(piece), Some(key)) = (object["piece"].as_u64(), object["key"].as_str())
            && let (Ok(piece), Ok(key)) = (u32::try_from(piece), hex::decode(key))
            && piece < metainfo.info.piece_count
            && key.len() == metainfo.info.seal.params.group().bytes()
        {
            into.entry(piece).or_default().push(key);
        }
    })
}

/// The lines of a transcript. The last one of a killed peer may be torn.
fn read_transcript(path: &Path, take: &mut dyn FnMut(&Value)) -> Result<(), Failure> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::file(path, &error)),
    };
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| Failure::file(path, &error))?;
        if let Ok(object) = serde_json::from_str(&line) {
            take(&object);
        }
    }
    Ok(())
}

fn read_at(path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; len];
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)
        })
        .map_err(|error| Failure::file(path, &error))?;
    Ok(bytes)
}

fn core_failure(error: swarmseal_core::Error) -> Failure {
    Failure::new(Exit::DemoFailed, error.to_string())
}
