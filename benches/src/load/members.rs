//! A torrent without content, its subscribers, and what they ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmseal::tracker_client::{AdminClient, OwnKeys};
use swarmseal::wire::announce::Announce;
use swarmseal::wire::api::{
    Contact, Identified, Identify, LicenseOrder, LicenseWord, OpenSession, Passkey, PasskeyRequest,
    ReKeyRequest, Role, SESSION_TOKEN, SessionOpened, SessionToken, Subscribe, Subscribed, WitnessRequest,
};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::bencode;
use swarmseal::wire::identity::{Identity, SigningKey, purpose};
use swarmseal::wire::metainfo::{Info, Metainfo, Seal};
use swarmseal_core::{
    Exponents, Group, Params, Profile, SecretKey, SubscriberId, Ticket, TorrentId, WitnessSecret,
};

use super::connection::Connection;
use super::drive::Asker;
use super::server::Tracker;

/// Bytes of the longest answer to a call that is no re-key.
const MAX_ANSWER: usize = 1 << 16;
/// Peers that an uploader serves at a time, and how long until it serves others: a peer's upload slots.
const SERVED: usize = 5;
const SERVED_FOR: Duration = Duration::from_secs(10);

/// A registered torrent. Re-keys need no content: its pieces' hashes are of nothing.
pub struct Torrent {
    metainfo: Metainfo,
}

impl Torrent {
    /// Registers one of 2,048 bits.
    pub fn register(tracker: &Tracker, piece_length: u32, piece_count: u32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let admin = AdminClient::new(&tracker.token, false)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let group = Group::ffdhe2048(swarmseal_accel::detect());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).context("parameters")?;
        let OwnKeys { tracker_key, license_key } = runtime.block_on(admin.keys())?;
        let publisher = SigningKey::from_bytes(&[7; 32]);
        let origins = vec![tracker.token.origin.clone()];
        let authority = Authority { license_key, origins, serial: 1, tracker_key };
        let authority = SignedAuthority::sign(authority, &publisher)?;
        let witness = vec![[7; 32]; piece_count as usize].into();
        let seal = Seal { witness, ..Seal::new(publisher.public(), random, Arc::new(params)) };
        let pieces = vec![[7; 20]; piece_count as usize];
        let info = Info { name: "load".to_owned(), piece_length, piece_count, pieces, private: true, seal };
        let metainfo = Metainfo::new(Some(authority), info)?;
        let seed = SigningKey::generate(&mut UnwrapErr(SysRng));
        // Nobody checks a piece.
        let witness = WitnessSecret::from_bytes([7; 32]);
        runtime.block_on(admin.register_torrent(&metainfo, &seed.public(), &witness))?;
        Ok(Torrent { metainfo })
    }

    /// Its group and exponents.
    pub fn params(&self) -> &Params {
        &self.metainfo.info.seal.params
    }

    /// Its id.
    pub fn id(&self) -> TorrentId {
        self.metainfo.info.seal.torrent_id
    }

    /// How many pieces it has.
    pub fn piece_count(&self) -> u32 {
        self.metainfo.info.piece_count
    }

    /// Subscribes so many devices, each with a session.
    pub fn join(&self, tracker: &Tracker, count: usize) -> Result<Vec<Member>> {
        let mut connection = Connection::open(tracker.server.address)?;
        (0..count).map(|_| self.subscribe(tracker, &mut connection)).collect()
    }

    /// Whole requests of so many devices that subscribe: each holds for a minute. Errors: the tracker does not show who it is.
    pub fn subscriptions(&self, tracker: &Tracker, count: usize) -> Result<Vec<Vec<u8>>> {
        let mut connection = Connection::open(tracker.server.address)?;
        let rng = &mut UnwrapErr(SysRng);
        let one = |_| {
            let secret = SecretKey::generate(self.params(), rng);
            let (public, identity) = (secret.public_key(self.params()), Identity::generate(rng));
            let contact = identify(tracker, &mut connection)?;
            let keys = (&secret, &public);
            Ok(post("subscribe", &Subscribe::new(self.params(), self.id(), keys, &identity, contact, rng)?))
        };
        (0..count).map(one).collect()
    }

    /// An order that no license server has signed, after a fresh meeting. Errors: the tracker does not show who it is.
    pub fn forged_order(&self, tracker: &Tracker) -> Result<Vec<u8>> {
        let key = SigningKey::from_bytes(&[9; 32]);
        let word = LicenseWord {
            torrent_id: self.id(),
            subscriber: SubscriberId([9; 32]),
            server: key.public(),
            contact: identify(tracker, &mut Connection::open(tracker.server.address)?)?,
            epoch: None,
            voucher: None,
            signature: [0; 64],
        };
        Ok(post("license/order", &LicenseOrder::new(word.signed(&key), &key)))
    }

    fn subscribe(&self, tracker: &Tracker, connection: &mut Connection) -> Result<Member> {
        let rng = &mut UnwrapErr(SysRng);
        let secret = SecretKey::generate(self.params(), rng);
        let public = secret.public_key(self.params());
        let identity = Identity::generate(rng);
        let contact = identify(tracker, connection)?;
        let subscribe =
            Subscribe::new(self.params(), self.id(), (&secret, &public), &identity, contact, rng)?;
        let subscribed: Subscribed = call(connection, "subscribe", &subscribe)?;
        let id = identity.subscriber(self.params(), &self.id(), &public);
        let token = open_session(tracker, connection, &identity, (id, self.id()))?;
        Ok(Member {
            id,
            torrent: self.id(),
            identity,
            token,
            passkey: subscribed.passkey,
            epoch: subscribed.epoch,
        })
    }
}

/// A subscriber with a session.
pub struct Member {
    /// Its id.
    pub id: SubscriberId,
    /// For its announces.
    pub passkey: Passkey,
    torrent: TorrentId,
    identity: Identity,
    token: SessionToken,
    epoch: u64,
}

impl Member {
    /// Opens a session.
    pub fn open_session(&mut self, tracker: &Tracker, connection: &mut Connection) -> Result<()> {
        self.token = open_session(tracker, connection, &self.identity, (self.id, self.torrent))?;
        Ok(())
    }

    /// One whom the tracker knows already, without a session, of epoch 1.
    pub fn known(id: SubscriberId, torrent: TorrentId, identity: Identity, passkey: Passkey) -> Self {
        Member { id, torrent, passkey, identity, token: SessionToken::new([0; SESSION_TOKEN]), epoch: 1 }
    }

    /// Asks for its passkey, in its session.
    pub fn asks_for_passkey(&self, torrent: &Torrent) -> Vec<u8> {
        let mut request = Vec::new();
        self.post("passkey", &PasskeyRequest { torrent_id: torrent.id(), rotate: 0 }, &mut request);
        request
    }

    /// Writes a call in its session over what is there.
    fn post(&self, call: &str, body: &impl Serialize, request: &mut Vec<u8>) {
        let body = bencode::to_bytes(body);
        let (token, length) = (self.token.to_text(), body.len());
        request.clear();
        request.extend_from_slice(
            format!("POST /{call} HTTP/1.1\r\nHost: tracker\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n")
                .as_bytes(),
        );
        request.extend_from_slice(&body);
    }

    /// Its word that an uploader may have keys to it.
    fn ticket(&self, torrent: TorrentId, uploader: SubscriberId, expires: u64) -> Ticket {
        let ticket = Ticket {
            torrent_id: torrent,
            uploader,
            downloader: self.id,
            epoch: self.epoch,
            expires,
            signature: [0; 64],
        };
        let signature = self.identity.sign(purpose::TICKET, &ticket.signing_input());
        Ticket { signature, ..ticket }
    }
}

fn open_session(
    tracker: &Tracker,
    connection: &mut Connection,
    identity: &Identity,
    (id, torrent): (SubscriberId, TorrentId),
) -> Result<SessionToken> {
    let contact = identify(tracker, connection)?;
    let open = OpenSession::new(identity.signing_key(), Role::Subscriber, id, torrent, contact);
    let opened: SessionOpened = call(connection, "session", &open)?;
    Ok(opened.token)
}

fn identify(tracker: &Tracker, connection: &mut Connection) -> Result<Contact> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    let request = Identify { nonce, origin: tracker.token.origin.clone(), publisher_key: None };
    let query = request.to_query();
    let answer =
        connection.ask(format!("GET /identify?{query} HTTP/1.1\r\nHost: tracker\r\n\r\n").as_bytes())?;
    ensure!(answer.status == 200, "identify: the tracker answered {}", answer.status);
    let answer: Identified = bencode::from_bytes(answer.body, MAX_ANSWER)?;
    Ok(answer.check(&request, &tracker.token.tracker_key)?)
}

fn call<T: DeserializeOwned>(connection: &mut Connection, call: &str, body: &impl Serialize) -> Result<T> {
    let answer = connection.ask(&post(call, body))?;
    ensure!(
        answer.status == 200,
        "{call}: the tracker answered {}: {}",
        answer.status,
        String::from_utf8_lossy(answer.body)
    );
    Ok(bencode::from_bytes(answer.body, MAX_ANSWER)?)
}

/// A call without a session.
fn post(call: &str, body: &impl Serialize) -> Vec<u8> {
    let body = bencode::to_bytes(body);
    let head = format!("POST /{call} HTTP/1.1\r\nHost: tracker\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

/// A member that announces, always the same.
pub struct Announcer(Vec<u8>);

impl Announcer {
    /// Asks for up to 50 peers. `numbered`: of the peer id and the port.
    pub fn new(torrent: &Torrent, passkey: &Passkey, numbered: u32, keep_alive: bool) -> Self {
        let passkey = passkey.to_hex();
        Announcer(announce(torrent, &format!("/announce/{passkey}"), numbered, keep_alive))
    }

    /// The same request without a passkey, for a tracker that asks for none.
    pub fn without_passkey(torrent: &Torrent, numbered: u32, keep_alive: bool) -> Self {
        Announcer(announce(torrent, "/announce", numbered, keep_alive))
    }
}

fn announce(torrent: &Torrent, path: &str, numbered: u32, keep_alive: bool) -> Vec<u8> {
    let mut peer_id = *b"-SB0100-000000000000";
    peer_id[16..].copy_from_slice(&numbered.to_be_bytes());
    let announce = Announce {
        info_hash: torrent.metainfo.info_hash,
        peer_id,
        port: 1024 + (numbered % 64_000) as u16,
        uploaded: 0,
        downloaded: 0,
        left: 1 << 20,
        event: None,
        numwant: Some(50),
        compact: true,
        no_peer_id: false,
        authority: None,
        ip: None,
        passkey: None,
    };
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!("GET {path}?{} HTTP/1.1\r\nHost: tracker\r\n{close}\r\n", announce.to_query()).into_bytes()
}

impl Asker for Announcer {
    fn next(&mut self, request: &mut Vec<u8>) {
        request.clear();
        request.extend_from_slice(&self.0);
    }

    fn is_answer(&self, body: &[u8]) -> bool {
        body.starts_with(b"d") && !body.starts_with(b"d14:failure reason")
    }
}

/// A member that uploads: it asks for the re-keys of random pieces, to a few members at a time and others after a while.
pub struct Uploader<'m> {
    torrent: &'m Torrent,
    own: usize,
    members: &'m [Member],
    /// Keys in one call.
    batch: usize,
    expires: u64,
    tickets: HashMap<usize, Ticket>,
    started: Instant,
    random: Random,
}

impl<'m> Uploader<'m> {
    /// The member in that place, which asks for `batch` keys a call.
    pub fn new(torrent: &'m Torrent, members: &'m [Member], own: usize, batch: usize) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Uploader {
            torrent,
            own,
            members,
            batch,
            expires: now.map_or(0, |since| since.as_secs()) + 6 * 3600,
            tickets: HashMap::new(),
            started: Instant::now(),
            random: Random::new(own as u64),
        }
    }

    /// One call for keys to the member in that place.
    pub fn ask(&mut self, downloader: usize, request: &mut Vec<u8>) {
        let own = &self.members[self.own];
        let torrent_id = self.torrent.id();
        let fresh = || self.members[downloader].ticket(torrent_id, own.id, self.expires);
        let ticket = self.tickets.entry(downloader).or_insert_with(fresh).clone();
        let pieces = some_pieces(self.torrent, self.batch, &mut self.random);
        own.post("rekey", &ReKeyRequest { torrent_id, epoch: own.epoch, ticket, pieces }, request);
    }
}

/// So many pieces in a row, from a random one on.
fn some_pieces(torrent: &Torrent, count: usize, random: &mut Random) -> Vec<u32> {
    let (first, all) = (random.next(), u64::from(torrent.piece_count()));
    (0..count as u64).map(|i| (first.wrapping_add(i) % all) as u32).collect()
}

impl Asker for Uploader<'_> {
    fn next(&mut self, request: &mut Vec<u8>) {
        let turn = self.started.elapsed().as_secs() as usize / SERVED_FOR.as_secs() as usize;
        let served = turn * SERVED + self.random.next() as usize % SERVED;
        let others = self.members.len() - 1;
        let downloader = (self.own + 1 + served % others) % self.members.len();
        self.ask(downloader, request);
    }

    fn is_answer(&self, body: &[u8]) -> bool {
        body.len() > self.batch * self.torrent.params().group().bytes()
    }
}

/// A member that downloads: it asks for its witness keys of random pieces.
pub struct Downloader<'m> {
    torrent: &'m Torrent,
    member: &'m Member,
    /// Keys in one call.
    batch: usize,
    random: Random,
}

impl<'m> Downloader<'m> {
    /// The member in that place, which asks for `batch` keys a call.
    pub fn new(torrent: &'m Torrent, members: &'m [Member], own: usize, batch: usize) -> Self {
        Downloader { torrent, member: &members[own], batch, random: Random::new(own as u64) }
    }
}

impl Asker for Downloader<'_> {
    fn next(&mut self, request: &mut Vec<u8>) {
        let (torrent_id, epoch) = (self.torrent.id(), self.member.epoch);
        let pieces = some_pieces(self.torrent, self.batch, &mut self.random);
        self.member.post("witness", &WitnessRequest { torrent_id, epoch, pieces }, request);
    }

    fn is_answer(&self, body: &[u8]) -> bool {
        body.len() > self.batch * self.torrent.params().group().bytes()
    }
}

/// A member that does both: each piece takes a call for one re-key, and as many pieces as fit share a call for witness keys.
pub struct Peer<'m> {
    uploader: Uploader<'m>,
    downloader: Downloader<'m>,
    /// Calls so far.
    calls: usize,
}

impl<'m> Peer<'m> {
    /// The member in that place, which asks for `batch` witness keys a call.
    pub fn new(torrent: &'m Torrent, members: &'m [Member], own: usize, batch: usize) -> Self {
        let (uploader, downloader) =
            (Uploader::new(torrent, members, own, 1), Downloader::new(torrent, members, own, batch));
        // They do not all ask for witness keys at once.
        Peer { uploader, downloader, calls: own }
    }

    fn wants_witness_keys(&self) -> bool {
        self.calls.is_multiple_of(self.downloader.batch + 1)
    }
}

impl Asker for Peer<'_> {
    fn next(&mut self, request: &mut Vec<u8>) {
        self.calls += 1;
        if self.wants_witness_keys() { self.downloader.next(request) } else { self.uploader.next(request) }
    }

    fn is_answer(&self, body: &[u8]) -> bool {
        if self.wants_witness_keys() {
            self.downloader.is_answer(body)
        } else {
            self.uploader.is_answer(body)
        }
    }
}

/// Random numbers that need not be good.
pub struct Random(u64);

impl Random {
    /// Another sequence for each seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2008_0004)
    }

    /// 33 bits of them.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.0 >> 31
    }

    /// Above 0, up to 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() + 1) as f64 / (1_u64 << 33) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_even() {
        let mut random = Random::new(3);
        let fractions: Vec<f64> = (0..10_000).map(|_| random.fraction()).collect();
        assert!(fractions.iter().all(|&fraction| fraction > 0.0 && fraction <= 1.0));
        let mean = fractions.iter().sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }
}
