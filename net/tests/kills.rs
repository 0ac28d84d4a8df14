//! A tracker that is killed at random moments while it has much to do: whatever it acknowledged is there when it starts again.
//!
//! `SWARMSEAL_KILLS`: how often (20 unless told otherwise).

// Public, for not every item in it serves here.
pub mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::Value;
use swarmseal::tracker_client::{AdminClient, Client, Error, Service, Terms};
use swarmseal::wire::announce::{Announce, Event};
use swarmseal::wire::api::{ApiError, Passkey};
use swarmseal::wire::identity::Identity;
use swarmseal::wire::keyfile::TokenFile;
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::voucher::CheckedCode;
use swarmseal_core::{SecretKey, SubscriberId};
use tokio::sync::Notify;

use self::world::{DEADLINE, World};

/// Devices at work at once.
const WORKERS: usize = 6;

fn kills() -> usize {
    std::env::var("SWARMSEAL_KILLS").map_or(20, |text| text.parse().expect("SWARMSEAL_KILLS: a number"))
}

fn random(below: u64) -> u64 {
    getrandom::u64().unwrap() % below
}

/// A device, with what the tracker acknowledged about it.
struct Device {
    identity: Identity,
    id: SubscriberId,
    passkey: Passkey,
    holds_grant: bool,
    licenses: u64,
    revoked: bool,
}

/// What the tracker acknowledged in a round.
#[derive(Default)]
struct Acknowledged {
    devices: Vec<Device>,
    unused: Vec<CheckedCode>,
    used: Vec<CheckedCode>,
}

/// Everybody who works with the tracker.
struct Load {
    token: TokenFile,
    metainfo: Metainfo,
    acknowledged: AtomicUsize,
    changed: Notify,
}

impl Load {
    fn client(&self) -> Client {
        let TokenFile { origin, tracker_key, .. } = self.token.clone();
        Client::new(Service::fixed(origin, tracker_key)).unwrap()
    }

    fn admin(&self) -> AdminClient {
        AdminClient::new(&self.token, false).unwrap()
    }

    fn done(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn until(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.acknowledged.load(Ordering::SeqCst) >= count {
                return;
            }
            changed.await;
        }
    }

    async fn subscribe(&self) -> Result<Device, Error> {
        let seal = &self.metainfo.info.seal;
        let rng = &mut UnwrapErr(SysRng);
        let secret = SecretKey::generate(&seal.params, rng);
        let public = secret.public_key(&seal.params);
        let identity = Identity::generate(rng);
        let keys = (&secret, &public);
        let known = self.client().subscribe(&seal.params, seal.torrent_id, keys, &identity).await?;
        let (id, passkey) = (known.subscriber, known.passkey);
        Ok(Device { identity, id, passkey, holds_grant: false, licenses: 0, revoked: false })
    }

    async fn license(&self, device: &Device, voucher: Option<&CheckedCode>) -> Result<(), Error> {
        let client = self.client().as_subscriber(
            &self.metainfo.info.seal.torrent_id,
            device.id,
            device.identity.signing_key().clone(),
        );
        client.license(self.metainfo.info.seal.torrent_id, voucher).await.map(drop)
    }

    async fn announce(&self, device: &Device) -> Result<(), Error> {
        let announce = Announce {
            info_hash: self.metainfo.info_hash,
            peer_id: [1; 20],
            port: 1,
            uploaded: 0,
            downloaded: 0,
            left: 1,
            event: Some(Event::Stopped),
            numwant: None,
            compact: true,
            no_peer_id: false,
            authority: None,
            ip: None,
            passkey: None,
        };
        self.client().announce(&device.passkey, &announce).await.map(drop)
    }

    /// Goes on until the tracker is gone.
    async fn work(&self) -> Acknowledged {
        let mut all = Acknowledged::default();
        let error = loop {
            if let Err(error) = self.step(&mut all).await {
                break error;
            }
        };
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
        all
    }

    async fn step(&self, all: &mut Acknowledged) -> Result<(), Error> {
        let torrent = self.metainfo.info.seal.torrent_id;
        all.devices.push(self.subscribe().await?);
        self.done();
        let last = all.devices.len() - 1;
        match random(5) {
            0 => {
                self.admin().create_grant(torrent, all.devices[last].id, Terms::default()).await?;
                all.devices[last].holds_grant = true;
            }
            1 | 2 => {
                let code = self.admin().create_voucher(&self.metainfo.info.seal, Terms::default()).await?;
                all.unused.push(code.clone());
                self.done();
                if random(3) > 0 {
                    // If no answer comes it may be used or not.
                    all.unused.pop();
                    self.license(&all.devices[last], Some(&code)).await?;
                    (all.devices[last].holds_grant, all.devices[last].licenses) = (true, 1);
                    all.used.push(code);
                }
            }
            3 => {
                let one = random(all.devices.len() as u64) as usize;
                self.admin().revoke(all.devices[one].id).await?;
                all.devices[one].revoked = true;
            }
            _ => {
                let licensed = |device: &Device| device.holds_grant && !device.revoked;
                if let Some(one) = all.devices.iter().position(licensed) {
                    self.license(&all.devices[one], None).await?;
                    all.devices[one].licenses += 1;
                }
            }
        }
        self.done();
        Ok(())
    }

    /// All subscribers as the tracker lists them, by their ids.
    async fn rows(&self) -> HashMap<String, Value> {
        let (torrent, mut rows, mut after) = (self.metainfo.info.seal.torrent_id, HashMap::new(), None);
        loop {
            let page = self.admin().subscribers(torrent, after).await.unwrap();
            for row in page["subscribers"].as_array().unwrap() {
                rows.insert(row["subscriber"].as_str().unwrap().to_owned(), row.clone());
            }
            let Some(next) = page["next"].as_str() else { return rows };
            let mut id = [0; 32];
            hex::decode_to_slice(next, &mut id).unwrap();
            after = Some(SubscriberId(id));
        }
    }
}

/// Everything that was ever acknowledged is still so.
async fn check(load: &Load, ever: &mut Acknowledged, round: Acknowledged) {
    for device in &round.devices {
        match load.announce(device).await {
            Ok(()) => assert!(!device.revoked, "{} was revoked", device.id),
            // A revocation without an answer may have been made.
            Err(Error::AnnounceRefused(why)) => assert!(why.contains("revoked"), "{}: {why}", device.id),
            Err(error) => panic!("{error}"),
        }
    }
    ever.devices.extend(round.devices);
    let rows = load.rows().await;
    for device in &ever.devices {
        let row = rows.get(&device.id.to_string()).unwrap_or_else(|| panic!("{} is lost", device.id));
        assert!(row["revoked"] == true || !device.revoked, "{row}");
        assert!(!device.revoked || row["revoked_at"].is_u64(), "{row}");
        assert!(row["licensed"] == true || !device.holds_grant, "{row}");
        assert!(row["licenses"].as_u64().unwrap() >= device.licenses, "{row}");
    }
    // A voucher that was issued buys a license, and one that was redeemed does not again.
    let device = load.subscribe().await.unwrap();
    if let Some(code) = round.used.first() {
        let refused = load.license(&device, Some(code)).await.unwrap_err();
        assert_eq!(refused.code(), Some(ApiError::UsedVoucher));
    }
    if let Some(code) = round.unused.first() {
        load.license(&device, Some(code)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_at_random_moments() {
    let mut world = World::new(1000);
    let metainfo = std::fs::read(world.torrent()).unwrap();
    let metainfo = Metainfo::from_bytes(&metainfo, swarmseal_accel::detect()).unwrap();
    let mut load = Arc::new(Load {
        token: TokenFile::read(world.token().as_ref()).unwrap(),
        metainfo,
        acknowledged: AtomicUsize::new(0),
        changed: Notify::new(),
    });
    let (mut ever, mut starting, mut acknowledged) = (Acknowledged::default(), Duration::ZERO, 0);
    let kills = kills();
    for kill in 0..kills {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let load = load.clone();
                tokio::spawn(async move { load.work().await })
            })
            .collect();
        let enough = tokio::time::timeout(DEADLINE, load.until(1 + random(40) as usize));
        enough.await.expect("the tracker answers");
        // Anywhere in what is under way.
        tokio::time::sleep(Duration::from_micros(random(20_000))).await;
        world.tracker.take().unwrap().kill();
        let mut round = Acknowledged::default();
        for worker in workers {
            let Acknowledged { devices, unused, used } = worker.await.unwrap();
            round.devices.extend(devices);
            round.unused.extend(unused);
            round.used.extend(used);
        }
        let begun = Instant::now();
        world.start_tracker();
        starting += begun.elapsed();
        let count = load.acknowledged.swap(0, Ordering::SeqCst);
        acknowledged += count;
        if kill % 50 == 49 {
            println!("{} kills, {} devices", kill + 1, ever.devices.len());
        }
        let known = Arc::get_mut(&mut load).expect("the workers are gone");
        known.token = TokenFile::read(world.token().as_ref()).unwrap();
        check(&load, &mut ever, round).await;
    }
    assert!(acknowledged > kills, "{acknowledged} acknowledged in {kills} rounds");
    println!(
        "{kills} kills, {acknowledged} writes acknowledged, {} devices, a start took {:?}",
        ever.devices.len(),
        starting / kills as u32
    );
}
