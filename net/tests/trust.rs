//! Programs talk to the publisher's tracker and to nobody else, whatever a .torrent says; and the publisher can move while swarms run.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use swarmseal::wire::api::{Identified, Identify};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::bencode;
use swarmseal::wire::identity::SigningKey;
use swarmseal::wire::keyfile::{KeyFile, PublisherKey, TokenFile};
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::subscription::SubscriptionFile;

use self::world::{Running, World, program, until};

/// What was sent to somebody, as it came.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;
/// What somebody does with a connection, once its first bytes were heard.
type Behaviour = Box<dyn Fn(Vec<u8>, TcpStream, &Heard) + Send + Sync>;

/// Somebody who listens where clients may believe that their tracker is.
struct Listener {
    address: SocketAddr,
    heard: Heard,
    /// None once it is closed.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Listener {
    fn new(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, open) = (Heard::default(), Arc::new(Mutex::new(Some(Vec::new()))));
        let (hears, opens, behaviour) = (heard.clone(), open.clone(), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(all) = &mut *opens.lock().unwrap() else { return };
                all.push(stream.try_clone().unwrap());
                let (hears, behaviour) = (hears.clone(), behaviour.clone());
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some(first) = hear(&mut stream, &hears) {
                        behaviour(first, stream, &hears);
                    }
                });
            }
        });
        Listener { address, heard, open }
    }

    /// Answers every request, whatever it is, with 200 and this body.
    fn answering(body: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Listener::new(Box::new(move |first, mut stream, heard| {
            let mut next = Some(first);
            while let Some(request) = next {
                let body = body(&String::from_utf8_lossy(&request));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                    return;
                }
                next = hear(&mut stream, heard);
            }
        }))
    }

    /// Passes connections on.
    fn proxy(to: Arc<Mutex<Option<SocketAddr>>>) -> Self {
        Listener::new(Box::new(move |first, client, _| {
            let Some(to) = *to.lock().unwrap() else { return };
            let Ok(mut server) = TcpStream::connect(to) else { return };
            if server.write_all(&first).is_err() {
                return;
            }
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
            let mut client = client;
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        }))
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// It is gone, and so are its connections.
    fn close(self) {
        for stream in self.open.lock().unwrap().take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn hear(stream: &mut TcpStream, heard: &Heard) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let length = stream.read(&mut bytes).ok().filter(|&length| length > 0)?;
    bytes.truncate(length);
    heard.lock().unwrap().push(bytes.clone());
    Some(bytes)
}

impl World {
    fn publisher(&self) -> SigningKey {
        let path = self.path("publisher/publisher/publisher.key");
        let file = KeyFile::read(&path, PublisherKey::KIND).unwrap();
        PublisherKey::from_key_file(&file).unwrap().signing_key().clone()
    }

    fn metainfo(&self) -> Metainfo {
        Metainfo::from_bytes(&fs::read(self.torrent()).unwrap(), swarmseal_accel::detect()).unwrap()
    }

    fn authority(&self) -> SignedAuthority {
        self.metainfo().authority.unwrap()
    }

    /// The genuine .torrent with something else of its authority; signed by the publisher unless told otherwise.
    fn torrent_with(&self, name: &str, change: impl FnOnce(&mut Authority)) -> String {
        let mut authority = (*self.authority()).clone();
        change(&mut authority);
        let signed = SignedAuthority::sign(authority, &self.publisher()).unwrap();
        let torrent = self.metainfo().with_authority(signed).unwrap();
        fs::write(self.path(name), torrent.to_bytes()).unwrap();
        self.file(name)
    }

    /// What a device keeps of the publisher's authority.
    fn kept(&self, who: &str) -> std::path::PathBuf {
        self.path(who).join("authorities").join(hex::encode(self.publisher().public()))
    }

    fn proxy(target: &Arc<Mutex<Option<SocketAddr>>>) -> Listener {
        Listener::proxy(target.clone())
    }

    /// A tracker that is reached by a proxy, which is the only origin of its torrents.
    fn behind_a_proxy(bytes: usize) -> (Self, Listener, Arc<Mutex<Option<SocketAddr>>>) {
        let target = Arc::new(Mutex::new(None));
        let proxy = Self::proxy(&target);
        let flags = ["--piece-length", "64K", "--origin", &proxy.origin()];
        let world = World::publish(bytes, Ipv4Addr::LOCALHOST.into(), &flags);
        *target.lock().unwrap() = Some(world.url().strip_prefix("http://").unwrap().parse().unwrap());
        (world, proxy, target)
    }

    /// Signs an authority with the tracker's keys of now and these origins, and has the tracker hand it out.
    fn move_to(&self, origins: &[&str]) {
        let (token, file) = (self.token(), self.file("new.authority"));
        let admin = ["--admin-token-file", &token];
        let mut sign = vec!["authority", "sign", "--force", "--output", &file];
        origins.iter().for_each(|origin| sign.extend(["--origin", origin]));
        self.expect("publisher", &[&sign[..], &admin].concat(), 0);
        self.expect("publisher", &[&["authority", "serve", &file], &admin[..]].concat(), 0);
    }
}

/// Everything secret that the programs of a world have and could send.
fn secrets(world: &World, codes: &[&str]) -> Vec<String> {
    let path = world.torrent_dir("alice").join("subscription");
    let subscription = SubscriptionFile::from_bytes(&fs::read(path).unwrap()).unwrap();
    let token = TokenFile::read(world.token().as_ref()).unwrap().token.to_hex();
    let seed = fs::read_to_string(world.path("film.seed")).unwrap();
    let seed_passkey = seed.lines().find_map(|line| line.strip_prefix("passkey: ")).unwrap().to_owned();
    let mut all = vec![subscription.passkey.to_hex(), token, seed_passkey];
    for code in codes {
        all.push((*code).to_owned());
        all.push(code.replace('-', ""));
    }
    all
}

/// That it heard somebody ask who it is, and nothing else.
fn assert_heard_nothing_secret(listener: &Listener, secrets: &[String], what: &str) {
    let heard = listener.heard();
    assert!(!heard.is_empty(), "{what}: nothing was tried");
    for request in heard {
        assert!(request.starts_with("GET /identify?nonce="), "{what}: {request}");
        let lower = request.to_lowercase();
        assert!(!lower.contains("authorization") && !lower.contains("bearer"), "{what}: {request}");
        for secret in secrets {
            assert!(!lower.contains(&secret.to_lowercase()), "{what} sent a secret: {request}");
        }
    }
}

/// Fetches nothing, and must fail as a program does that finds no tracker.
fn refused(world: &World, who: &str, args: &[&str]) {
    let output = program(&world.path(who), args).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{args:?}: {text}");
    assert!(text.contains("does not show the key"), "{args:?}: {text}");
}

#[test]
fn nothing_secret_goes_to_a_false_tracker_whatever_the_verb() {
    let world = World::new(200_000);
    let (first, second) = (world.voucher(&[]), world.voucher(&[]));
    let _seed = world.seed(&[]);
    world.fetch("alice");
    world.play("alice", &["--voucher", &first], 0);
    let secrets = secrets(&world, &[&first, &second]);
    let tracker_key = world.authority().tracker_key;
    let genuine = world.url();

    // A domain that the publisher gave up, and somebody else has now: one that says nothing of use, one that claims the tracker's key,
    // and one in between that asks the tracker. Each sees all that the programs send.
    let own = SigningKey::from_bytes(&[66; 32]);
    let ask = move |request: &str| {
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut stream = TcpStream::connect(genuine.strip_prefix("http://").unwrap()).unwrap();
        let get = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        stream.write_all(get.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(body)
    };
    let sign = move |request: &str| {
        let query = request.split(['?', ' ']).nth(2).unwrap_or_default();
        let Some(asked) = Identify::from_query(query) else { return b"de".to_vec() };
        // The tracker's key, which everybody can read, over a signature that it did not make.
        let signed = Identified::sign(&asked, &own, [7; 32], 1_800_000_000);
        bencode::to_bytes(&Identified { key: tracker_key, ..signed })
    };
    let false_ones: [(&str, Listener); 3] = [
        ("garbage", Listener::answering(|_| b"d2:ok3:yese".to_vec())),
        ("a borrowed key", Listener::answering(sign)),
        ("a relay", Listener::answering(ask)),
    ];
    for (what, listener) in &false_ones {
        let origin = listener.origin();
        // As the publisher said before it moved.
        let lapsed = |authority: &mut Authority| {
            authority.origins = vec![origin.parse().unwrap()];
            authority.serial -= 1000;
        };
        let torrent = world.torrent_with("lapsed.torrent", lapsed);
        let seed_file = world.file("film.seed");
        let statement = world.authority();
        let old = {
            let mut authority = (*statement).clone();
            lapsed(&mut authority);
            SignedAuthority::sign(authority, &world.publisher()).unwrap()
        };
        let old_key = world.file("lapsed.token");
        let token = TokenFile::read(world.token().as_ref()).unwrap();
        let token = TokenFile { origin: origin.parse().unwrap(), tracker_key, token: token.token };
        let _ = fs::remove_file(&old_key);
        token.to_key_file().write(old_key.as_ref(), swarmseal::atomic_file::Existing::Keep).unwrap();
        // The tracker tells a relay's victims where it is now, and they go there.
        let knows_newer = *what == "a relay";

        let fetch = ["--listen", "127.0.0.1:0", "--exit"];
        if knows_newer {
            world.expect("carol", &["license", &torrent, "--voucher", &second], 0);
            world.expect("carol", &[&["get", &torrent][..], &fetch].concat(), 0);
            for args in [&["passkey", &torrent][..], &["devices", &torrent, "--name", "laptop"]] {
                fs::write(world.kept("alice"), old.to_file()).unwrap();
                world.expect("alice", args, 0);
            }
        } else {
            // Somebody who never met the tracker.
            for args in [
                &["subscribe", &torrent][..],
                &["license", &torrent, "--voucher", &second],
                &[&["get", &torrent, "--voucher", &second][..], &fetch].concat(),
            ] {
                refused(&world, "bob", args);
            }
            // Alice, who has a subscription and was away when it moved.
            for args in [
                &["passkey", &torrent][..],
                &["license", &torrent, "--voucher", &second],
                &["devices", &torrent],
                &["devices", &torrent, "--name", "laptop"],
                &["subscribe", &torrent, "--personal", "--output", &world.file("p.torrent")],
                &["play", &torrent, "--voucher", &second, "--output", &world.file("x")],
                &[&["get", &torrent, "--voucher", &second][..], &fetch].concat(),
            ] {
                fs::write(world.kept("alice"), old.to_file()).unwrap();
                refused(&world, "alice", args);
            }
            // Peers and seeds that run announce and ask for keys: they do not end, and say nothing.
            fs::write(world.kept("alice"), old.to_file()).unwrap();
            let before = listener.heard().len();
            let peer = Running::start(&world.path("alice"), &["get", &torrent, "--listen", "127.0.0.1:0"]);
            peer.event("listening");
            let args = ["seed", &seed_file, "--torrent", &torrent, "--listen", "127.0.0.1:0"];
            let seed = Running::start(&world.path("seed-away"), &args);
            seed.event("listening");
            until("both announce", || listener.heard().len() >= before + 4);
        }
        let admin = ["--admin-token-file", &old_key];
        let subscriber = "00".repeat(32);
        let found = world.file("content.bin");
        let license = world.torrent_dir("alice").join("license").display().to_string();
        for args in [
            &["publish", &found, "--output", &world.file("n.torrent"), "--seed-file", &world.file("n.seed")]
                [..],
            &["authority", "sign", "--origin", &origin, "--output", &world.file("n.authority")],
            &["voucher", &torrent],
            &["grant", &torrent, &subscriber],
            &["revoke", &subscriber],
            &["revoke", "--voucher", &second],
            &["trace", &torrent, "--license", &license],
            &["token", "create", "shop", "--role", "publisher"],
            &["token", "list"],
            &["audit"],
            &["offload", &torrent],
            &["epochs", &torrent],
            &["backup", &world.file("n.backup")],
        ] {
            refused(&world, "publisher", &[args, &admin].concat());
        }
        assert_heard_nothing_secret(listener, &secrets, what);
    }
}

#[test]
fn what_a_torrent_says_outside_of_its_info_moves_nobody() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    let code = world.voucher(&[]);
    let nobody = Listener::answering(|_| b"de".to_vec());
    // The same info-hash and another announce URL: it is for other programs to show.
    let bytes = fs::read(world.torrent()).unwrap();
    let (from, to) = (format!("{}/announce", world.url()), format!("{}/announce", nobody.origin()));
    let text = |url: &str| format!("8:announce{}:{url}", url.len()).into_bytes();
    let at = bytes.windows(text(&from).len()).position(|window| window == text(&from)).unwrap();
    let moved = [&bytes[..at], &text(&to), &bytes[at + text(&from).len()..]].concat();
    fs::write(world.path("moved.torrent"), moved).unwrap();
    let moved = world.file("moved.torrent");
    let args = ["get", &moved, "--voucher", &code, "--listen", "127.0.0.1:0", "--exit"];
    world.expect("alice", &args, 0);
    world.expect("publisher", &["voucher", &moved, "--admin-token-file", &world.token()], 0);
    // A --tracker that is not the token's is refused before anything is sent.
    let elsewhere = ["voucher", &moved, "--admin-token-file", &world.token(), "--tracker", &nobody.origin()];
    world.expect("publisher", &elsewhere, 2);

    // The genuine info with an authority that somebody else signed; and the genuine keys in a torrent of somebody else's.
    let stranger = SigningKey::from_bytes(&[99; 32]);
    let mut authority = (*world.authority()).clone();
    authority.origins = vec![nobody.origin().parse().unwrap()];
    authority.serial += 1;
    let foreign = SignedAuthority::sign(authority.clone(), &stranger).unwrap();
    let genuine = world.authority();
    let at = bytes.windows(64).position(|window| window == &genuine.as_bytes()[..64]).unwrap();
    let length = |bytes: &[u8]| format!("{}:", bytes.len()).into_bytes();
    let head = length(genuine.as_bytes()).len();
    let (before, after) = (&bytes[..at - head], &bytes[at + genuine.as_bytes().len()..]);
    let forged = [before, &length(foreign.as_bytes()), foreign.as_bytes(), after].concat();
    fs::write(world.path("forged.torrent"), forged).unwrap();
    let forged = world.file("forged.torrent");
    let refused = program(&world.path("bob"), &["get", &forged, "--voucher", &code]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stdout).contains("forged .torrent"), "{refused:?}");
    // Beside the genuine .torrent, as a file.
    let file = world.file("foreign.authority");
    fs::write(&file, foreign.to_file()).unwrap();
    world.expect("bob", &["subscribe", &world.torrent(), "--authority", &file], 5);
    let mut info = world.metainfo().info;
    info.seal.publisher_key = stranger.public();
    info.seal.torrent_id = swarmseal_core::TorrentId::of(&stranger.public(), &info.seal.random);
    fs::write(world.path("own.torrent"), Metainfo::new(Some(foreign), info).unwrap().to_bytes()).unwrap();
    self::refused(&world, "bob", &["subscribe", &world.file("own.torrent")]);
    let heard = nobody.heard();
    assert!(heard.iter().all(|request| request.starts_with("GET /identify?")), "{heard:?}");
    assert!(!heard.is_empty());
}

#[test]
fn redirects_lead_nowhere() {
    let world = World::new(100_000);
    let nobody = Listener::answering(|_| b"de".to_vec());
    let to = nobody.origin();
    let sends_away = Listener::new(Box::new(move |_, mut stream, _| {
        let head = format!(
            "HTTP/1.1 307 T\r\nlocation: {to}/identify\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
    }));
    let torrent = world.torrent_with("away.torrent", |authority| {
        authority.origins = vec![sends_away.origin().parse().unwrap()];
    });
    refused(&world, "alice", &["subscribe", &torrent]);
    assert_eq!(sends_away.heard().len(), 1);
    assert!(nobody.heard().is_empty(), "{:?}", nobody.heard());
}

#[test]
fn an_old_an_early_and_a_missing_authority_are_told_apart() {
    let world = World::new(100_000);
    let nobody = Listener::answering(|_| b"de".to_vec());
    let elsewhere = |authority: &mut Authority| authority.origins = vec![nobody.origin().parse().unwrap()];
    let torrent = world.torrent();
    world.expect("alice", &["subscribe", &torrent], 0);
    // Alice has seen a newer one: an old one that an attacker hands out moves her nowhere.
    let old = world.torrent_with("old.torrent", |authority| {
        elsewhere(authority);
        authority.serial -= 10;
    });
    world.expect("alice", &["passkey", &old], 0);
    // From the future: nobody can say that it is the newest for a while to come.
    let early = world.torrent_with("early.torrent", |authority| {
        elsewhere(authority);
        authority.serial += 2 * 24 * 3600;
    });
    world.expect("alice", &["passkey", &early], 0);
    let refused = world.expect("bob", &["subscribe", &early], 1);
    assert!(refused["error"].as_str().unwrap().contains("ahead of the clock"), "{refused}");
    // Plain HTTP to another machine.
    let plain = world.torrent_with("plain.torrent", |authority| {
        authority.origins = vec!["http://192.0.2.1:7000".parse().unwrap()];
    });
    let refused = world.expect("dave", &["subscribe", &plain], 2);
    assert!(refused["error"].as_str().unwrap().contains("--insecure-http"), "{refused}");
    // None at all.
    let bare = Metainfo::new(None, world.metainfo().info).unwrap();
    fs::write(world.path("bare.torrent"), bare.to_bytes()).unwrap();
    let bare = world.file("bare.torrent");
    world.expect("alice", &["passkey", &bare], 0);
    let refused = world.expect("carol", &["subscribe", &bare], 2);
    let said = refused["error"].as_str().unwrap();
    assert!(said.contains("does not say which tracker serves it; add --authority FILE"), "{refused}");
    let file = world.file("film.authority");
    fs::write(&file, world.authority().to_file()).unwrap();
    world.expect("carol", &["subscribe", &bare, "--authority", &file], 0);
    // It is kept.
    world.expect("carol", &["passkey", &bare], 0);
    let shown = world.expect("carol", &["authority", "show", &file], 0);
    assert_eq!(shown["origins"], serde_json::json!([world.url()]));
    assert_eq!(world.expect("carol", &["authority", "show", &torrent], 0)["serial"], shown["serial"]);
    world.expect("carol", &["authority", "show", &bare], 1);
    assert!(nobody.heard().is_empty(), "{:?}", nobody.heard());
}

#[test]
fn a_swarm_moves_to_another_domain_while_it_runs() {
    let (world, old, target) = World::behind_a_proxy(6 << 20);
    // Through a proxy all come from one address.
    let here = ["--listen", "127.0.0.1:0"];
    let args = ["seed", &world.file("film.seed"), "--upload-limit", "1M"];
    let seed = Running::start(&world.path("seeder"), &[&args[..], &here].concat());
    seed.event("listening");
    let alice = Running::start(&world.path("alice"), &[&["get", &world.torrent()][..], &here].concat());
    alice.event("listening");
    until("alice fetches", || world.stored("alice").1.len() > 2);
    let new = World::proxy(&target);
    world.move_to(&[&new.origin(), &old.origin()]);
    until("seed and peer announce at the new place", || {
        let announces = |request: &&String| request.contains("/announce?");
        new.heard().iter().filter(announces).count() >= 2
    });
    // The old one is given up, and somebody else's.
    let (address, origin) = (old.address, old.origin());
    world.move_to(&[&new.origin()]);
    old.close();
    let thief = until_bound(address);
    alice.event("complete");
    // Whoever was away learns of it from the .torrent of today, or from the tracker that it knows.
    let voucher = world.voucher(&[]);
    let refused = program(&world.path("bob"), &["subscribe", &world.torrent()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{origin} is not the tracker any more");
    let file = world.file("new.authority");
    world.expect("bob", &["subscribe", &world.torrent(), "--authority", &file], 0);
    world.play("alice", &["--voucher", &voucher], 0);
    world.assert_opened("alice");
    drop((seed, thief));
}

/// Listens where somebody else did, and says nothing.
fn until_bound(address: SocketAddr) -> TcpListener {
    let mut bound = None;
    until("the port is free", || {
        bound = TcpListener::bind(address).ok();
        bound.is_some()
    });
    let listener = bound.unwrap();
    let accepts = listener.try_clone().unwrap();
    std::thread::spawn(move || for _ in accepts.incoming() {});
    listener
}

#[test]
fn the_tracker_s_key_is_replaced_while_a_swarm_runs() {
    let mut world = World::new(6 << 20);
    let _seed = world.seed(&["--upload-limit", "1M"]);
    let alice = world.get("alice", &[]);
    alice.event("listening");
    until("alice fetches", || world.stored("alice").1.len() > 2);
    let before = world.authority();
    world.tracker.take().unwrap().kill();
    world.start_tracker_with(&["--new-key", "tracker"]);
    world.move_to(&[&world.url()]);
    alice.event("complete");
    // With the .torrent of before.
    let code = world.voucher(&[]);
    world.expect("bob", &["license", &world.torrent(), "--voucher", &code], 0);
    let kept = SignedAuthority::from_file(&fs::read(world.kept("bob")).unwrap()).unwrap();
    assert!(kept.serial > before.serial && kept.tracker_key != before.tracker_key);
    assert_eq!(kept.license_key, before.license_key);
    // The old key serves nobody any more, though somebody has it.
    let aside = fs::read_dir(world.path("operator/tracker")).unwrap();
    let aside: Vec<String> = aside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(aside.iter().any(|name| name.starts_with("tracker.key.until-")), "{aside:?}");
}

#[test]
fn a_license_server_takes_over_while_devices_hold_licenses() {
    let mut world = World::new(200_000);
    let _seed = world.seed(&[]);
    let (first, second) = (world.voucher(&[]), world.voucher(&[]));
    world.fetch("alice");
    world.play("alice", &["--voucher", &first], 0);
    let (_server, line) = world.license_server("127.0.0.1:0");
    world.tracker.take().unwrap().kill();
    world.start_tracker_with(&["--license-server", &line]);
    world.move_to(&[&world.url()]);
    let served = world.expect("publisher", &["authority", "show", &world.file("new.authority")], 0);
    let key = line.split_once('#').unwrap().1.split_once('.').unwrap().0;
    assert_eq!(served["license_key"], key);
    // Alice's license is of the key before, and is fetched again.
    world.expect("alice", &["devices", &world.torrent()], 0);
    world.play("alice", &[], 0);
    world.assert_opened("alice");
    world.fetch("bob");
    world.play("bob", &["--voucher", &second], 0);
    world.assert_opened("bob");
}

#[test]
fn a_publisher_s_torrents_are_not_moved_by_publishing() {
    let world = World::new(100_000);
    let other = Running::start(&world.path("other"), &["tracker", "--listen", "127.0.0.1:0"]);
    let token = other.event("listening")["admin_token_file"].as_str().unwrap().to_owned();
    let content = world.file("content.bin");
    let files = ["--output", &world.file("second.torrent"), "--seed-file", &world.file("second.seed")];
    let publish = |token: &str, more: &[&str], code| {
        let args = ["publish", &content, "--admin-token-file", token, "--name", "second"];
        world.expect("publisher", &[&args[..], &files, more].concat(), code)
    };
    let refused = publish(&token, &[], 2);
    assert!(refused["error"].as_str().unwrap().contains("another tracker"), "{refused}");
    publish(&world.token(), &["--origin", "https://elsewhere.example"], 2);
    publish(&world.token(), &[], 0);
    let second = Metainfo::from_bytes(&fs::read(files[1]).unwrap(), swarmseal_accel::detect()).unwrap();
    assert_eq!(second.authority.unwrap(), world.authority());
    assert!(Path::new(&token).exists());
}

#[test]
fn what_a_stranger_says_steers_no_terminal() {
    let world = World::new(100_000);
    let body = bencode::to_bytes(&swarmseal::wire::api::Failure {
        code: "full".to_owned(),
        reason: format!("\u{1b}]0;owned\u{7}{}", "x".repeat(3000)),
        now: Some(u64::MAX),
        devices: Vec::new(),
    });
    let head = format!("HTTP/1.1 507 F\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let listener = Listener::new(Box::new(move |_, mut stream, _| drop(stream.write_all(&answer))));
    let torrent = world.torrent_with("rude.torrent", |authority| {
        authority.origins = vec![listener.origin().parse().unwrap()];
    });
    let refused = world.expect("alice", &["subscribe", &torrent], 3);
    let said = refused["error"].as_str().unwrap();
    assert!(said.contains("owned") && !said.contains(char::is_control) && said.len() < 700, "{said:?}");
}
