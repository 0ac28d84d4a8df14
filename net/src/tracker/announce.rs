//! Announce and scrape over HTTP. A refusal is a `failure reason` with status 200, as clients expect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{Method, Request, Uri};
use axum::response::Response;

use super::connection::Remote;
use super::metrics::{Call, count};
use super::refusal::bencoded;
use super::state::{Torrent, Tracker};
use super::store::Member;
use super::swarm::Arrival;
use super::{clock, http};
use crate::wire::announce::{self, Announce, AnnounceReply, Scrape, ScrapeReply};
use crate::wire::api::{Passkey, Role};

/// Peers in a reply where the client does not say.
const DEFAULT_WANTED: u32 = 50;

type Shared = State<Arc<Tracker>>;

/// Answers an announce whose passkey stands in the path; nothing where that is something else, which the router knows.
/// Announces are most of what a tracker is asked, and so cheap that a way through the router would be much of their cost.
pub(super) fn at_once<B>(tracker: &Tracker, remote: IpAddr, request: &Request<B>) -> Option<Response> {
    if request.method() != Method::GET {
        return None;
    }
    let (("announce", passkey) | (passkey, "announce")) =
        request.uri().path().strip_prefix('/')?.split_once('/')?
    else {
        return None;
    };
    Passkey::from_hex(passkey)?;
    let started = Instant::now();
    let answer = answer_announce(tracker, Some(passkey), request.uri().query(), Remote(remote));
    Some(respond(tracker, Call::ANNOUNCE, started, answer))
}

/// The passkey of an announce or scrape.
pub(super) fn passkey(uri: &Uri) -> Option<Passkey> {
    let path = uri.path().strip_prefix('/')?;
    let text = match path.split_once('/') {
        Some(("announce" | "scrape", passkey) | (passkey, "announce" | "scrape")) => passkey,
        None if ["announce", "scrape"].contains(&path) => {
            uri.query()?.split('&').find_map(|pair| pair.strip_prefix("passkey="))?
        }
        _ => return None,
    };
    Passkey::from_hex(text)
}

/// `GET /{passkey}/announce` and `/announce/{passkey}`
pub(super) async fn announce_at(
    State(tracker): Shared,
    Path(passkey): Path<String>,
    RawQuery(query): RawQuery,
    Extension(remote): Extension<Remote>,
) -> Response {
    let started = Instant::now();
    respond(
        &tracker,
        Call::ANNOUNCE,
        started,
        answer_announce(&tracker, Some(&passkey), query.as_deref(), remote),
    )
}

/// `GET /announce?passkey=`
pub(super) async fn announce(
    State(tracker): Shared,
    RawQuery(query): RawQuery,
    Extension(remote): Extension<Remote>,
) -> Response {
    let started = Instant::now();
    respond(&tracker, Call::ANNOUNCE, started, answer_announce(&tracker, None, query.as_deref(), remote))
}

/// `GET /{passkey}/scrape` and `/scrape/{passkey}`
pub(super) async fn scrape_at(
    State(tracker): Shared,
    Path(passkey): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let started = Instant::now();
    respond(&tracker, Call::SCRAPE, started, answer_scrape(&tracker, Some(&passkey), query))
}

/// `GET /scrape?passkey=`
pub(super) async fn scrape(State(tracker): Shared, RawQuery(query): RawQuery) -> Response {
    let started = Instant::now();
    respond(&tracker, Call::SCRAPE, started, answer_scrape(&tracker, None, query))
}

fn answer_announce(
    tracker: &Tracker,
    passkey: Option<&str>,
    query: Option<&str>,
    remote: Remote,
) -> Result<Vec<u8>, String> {
    let request = Announce::from_query(query.unwrap_or_default()).map_err(|error| error.to_string())?;
    let (passkey, member, torrent) = admit(tracker, passkey, request.passkey)?;
    let own = tracker.personals.find(&request.info_hash).is_some_and(|own| own.subscriber == member.id);
    if torrent.info_hash != request.info_hash && !own {
        return Err("this passkey is for another torrent".to_owned());
    }
    if request.port == 0 {
        return Err("bad port in the query".to_owned());
    }
    let config = &tracker.config;
    let wanted = request.numwant.unwrap_or(DEFAULT_WANTED).min(config.max_peers) as usize;
    let arrival = Arrival {
        member: member.id,
        role: member.role,
        peer_id: request.peer_id,
        address: SocketAddr::new(remote.0, request.port),
        complete: request.left == 0,
        event: request.event,
        wanted,
    };
    let now = clock::now();
    let chance = tracker.swarms.chance();
    let mut found = tracker.swarms.announce(&request.info_hash, &arrival, now, chance);
    if own {
        if arrival.event != Some(announce::Event::Stopped) {
            tracker.personals.seen(torrent.id, request.info_hash);
        }
        // Whoever has the sealed torrent can serve it; nobody has the personal one.
        found = tracker.swarms.visit(&torrent.info_hash, &arrival, now, chance);
    }
    // The passkey may have been replaced or revoked meanwhile: what it left behind goes as well.
    if tracker.member(&passkey).is_none_or(|now| now.revoked) {
        tracker.strike(&member);
        return Err("unknown passkey".to_owned());
    }
    count(&tracker.counters.announces, 1);
    let mut reply = AnnounceReply {
        interval: config.announce_interval,
        min_interval: Some(config.announce_interval.min(config.min_announce_interval)),
        complete: found.complete,
        incomplete: found.incomplete,
        peers: found.peers,
        warning: None,
        now: Some(now),
        // Other clients fetch what they began with.
        epoch: (member.role == Role::Subscriber && !own).then(|| torrent.epochs.current()),
        authority: request.authority.and_then(|known| {
            let newest = tracker.authorities.newest(&torrent.publisher_key)?;
            (newest.serial > known).then(|| newest.as_bytes().to_vec())
        }),
    };
    if request.no_peer_id {
        reply.peers.iter_mut().for_each(|peer| peer.id = None);
    }
    Ok(reply.to_bytes(request.compact))
}

fn answer_scrape(tracker: &Tracker, passkey: Option<&str>, query: Option<String>) -> Result<Vec<u8>, String> {
    let request = Scrape::from_query(&query.unwrap_or_default()).map_err(|error| error.to_string())?;
    let (_, member, torrent) = admit(tracker, passkey, request.passkey)?;
    let now = clock::now();
    let known = request.info_hashes.iter().filter(|hash| {
        let own = || tracker.personals.find(hash).is_some_and(|own| own.subscriber == member.id);
        **hash == torrent.info_hash || own()
    });
    let files = known.map(|hash| (*hash, tracker.swarms.scrape(&torrent.info_hash, now))).collect();
    count(&tracker.counters.scrapes, 1);
    Ok(ScrapeReply { files, now: Some(now) }.to_bytes())
}

/// The member whose passkey it is, and its torrent.
fn admit(
    tracker: &Tracker,
    in_path: Option<&str>,
    in_query: Option<Passkey>,
) -> Result<(Passkey, Member, Arc<Torrent>), String> {
    let passkey = match in_path {
        Some(text) => Passkey::from_hex(text),
        None => in_query,
    };
    let passkey = passkey.ok_or("unknown passkey")?;
    let member = tracker.member(&passkey).ok_or("unknown passkey")?;
    if member.revoked {
        return Err("this subscription was revoked".to_owned());
    }
    if let Err(wait) = tracker.limits.announce(&member.id) {
        count(&tracker.counters.rate_limited, 1);
        return Err(format!("too many announces: wait {wait} s"));
    }
    let torrent = tracker.torrent(&member.torrent_id).map_err(|_| "unknown torrent")?;
    Ok((passkey, member, torrent))
}

fn respond(tracker: &Tracker, call: Call, started: Instant, answer: Result<Vec<u8>, String>) -> Response {
    let answer = bencoded(answer.unwrap_or_else(|reason| {
        count(&tracker.counters.announces_refused, 1);
        announce::failure(&reason)
    }));
    http::observe(tracker, call, started, answer.status());
    answer
}
