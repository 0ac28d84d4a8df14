//! The program as its users run it: processes killed and restarted, clocks and disks that fail.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::BytesMut;
use serde_json::Value;
use swarmseal::peer::{Shape, Store, StoredPiece};
use swarmseal::tracker_client::{Order, Terms};
use swarmseal::wire::handshake::{self, Handshake};
use swarmseal::wire::keyfile::words::Words;
use swarmseal::wire::message::{Decoder, Message};
use swarmseal::wire::metainfo::Metainfo;
use swarmseal::wire::seal::{ExtendedHandshake, Hello, OUR_ID};
use swarmseal_core::SubscriberId;

use self::world::{DEADLINE, Running, World, program, until};

#[test]
fn an_order_is_repeated_and_its_codes_are_read_as_people_write_them() {
    let world = World::new(300_000);
    let (torrent, token, url) = (world.torrent(), world.token(), world.url());
    let order = |more: &[&str]| {
        let args = ["voucher", &torrent, "--admin-token-file", &token, "--order", "A-1001", "--line", "1"];
        let output = program(&world.path("publisher"), &[&args[..], more].concat()).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let issued = order(&["--count", "2", "--plays", "3"]);
    let text = |voucher: &Value| voucher["code"].as_str().unwrap().to_owned();
    assert_eq!(issued.len(), 2);
    for (voucher, number) in issued.iter().zip(0..) {
        assert_eq!(
            (&voucher["order"], &voucher["line"], &voucher["number"]),
            (&"A-1001".into(), &1.into(), &number.into())
        );
        assert_eq!(text(voucher).split('-').map(str::len).collect::<Vec<_>>(), [4; 6]);
    }
    assert_ne!(text(&issued[0]), text(&issued[1]));
    let more = order(&["--count", "3", "--plays", "3"]);
    assert_eq!((&more[..2], more.len()), (&issued[..], 3));
    assert_eq!(order(&["--plays", "4"])[0]["code"], "other-terms");
    let drawn = world.expect("publisher", &["voucher", &torrent, "--admin-token-file", &token], 0);
    assert_eq!(drawn["order"].as_str().unwrap().len(), 32);

    let file = world.file("code.txt");
    fs::write(&file, format!("  {}\n", text(&issued[0]).to_lowercase().replace('-', " "))).unwrap();
    let license = ["license", &torrent, "--voucher-file", &file];
    assert_eq!(world.expect("alice", &license, 0)["plays"], 3);
    // Taken by one device; a code without its last character is refused without being repeated.
    assert_eq!(world.expect("bob", &license, 4)["code"], "used-voucher");
    let short = text(&issued[1])[..28].to_owned();
    let refused = world.expect("bob", &["license", &torrent, "--voucher", &short], 4);
    assert_eq!((&refused["kind"], &refused["reason"]), (&"not-licensed".into(), &"no-voucher-code".into()));
    assert!(!refused.to_string().contains(&short[..6]), "{refused}");
    fs::write(&file, text(&issued[1])).unwrap();
    let revoke = ["revoke", "--voucher-file", &file, "--tracker", &url, "--admin-token-file", &token];
    world.expect("publisher", &revoke, 0);
    assert_eq!(world.expect("bob", &license, 6)["kind"], "expired");
    // One of them is to be revoked, not both.
    world.expect("publisher", &[&revoke[..], &["--grant", &"0".repeat(64)]].concat(), 2);
}

#[test]
fn bought_fetched_and_opened_until_the_plays_are_used_up() {
    let world = World::new(300_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let refused = world.play("alice", &[], 4);
    assert_eq!(refused["kind"], "not-licensed");
    let code = world.voucher(&["--plays", "2"]);
    world.play("alice", &["--voucher", &code], 0);
    world.assert_opened("alice");
    // Redeemed once: it buys nobody else a license.
    world.fetch("bob");
    world.play("bob", &["--voucher", &code], 4);
    // A directory that has the file already costs no play.
    let (torrent, to) = (world.torrent(), world.file("alice/opened"));
    world.expect("alice", &["play", &torrent, "--output", &to], 12);
    assert_eq!(world.play("alice", &[], 0)["plays_left"], 0);
    assert_eq!(world.play("alice", &[], 7)["kind"], "no-plays-left");
}

#[test]
fn a_peer_killed_midway_resumes_with_what_it_had() {
    let world = World::new(4 << 20);
    let seed = world.seed(&["--upload-limit", "1M"]);
    let get = world.get("alice", &[]);
    get.event("listening");
    let index = world.torrent_dir("alice").join("pieces.idx");
    let begun = std::time::Instant::now();
    // Three records and more.
    while fs::metadata(&index).map_or(0, |meta| meta.len()) < 52 + 3 * 53 {
        assert!(begun.elapsed() < DEADLINE, "no pieces arrive");
        std::thread::yield_now();
    }
    get.kill();
    seed.kill();
    // A torn record at the end, as a crash leaves it.
    let mut bytes = fs::read(&index).unwrap();
    bytes.extend([1, 2, 3]);
    fs::write(&index, bytes).unwrap();
    let _seed = world.seed(&[]);
    let get = world.get("alice", &["--exit"]);
    assert!(get.event("listening")["pieces"].as_u64().unwrap() >= 3);
    let complete = get.event("complete");
    let all = complete["total"].as_u64().unwrap() * (64 << 10);
    assert!(complete["bytes_from_seeds"].as_u64().unwrap() < all, "everything was fetched again");
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
    world.assert_opened("alice");
}

#[cfg(unix)]
#[test]
fn told_to_end_it_ends_and_keeps_what_it_has() {
    let world = World::new(8 << 20);
    let gateway = ["--gateway", "127.83.77.5"];
    let mut seed = world.seed(&["--upload-limit", "2M", gateway[0], gateway[1]]);
    let mut get = world.get("alice", &gateway);
    get.event("listening");
    let index = world.torrent_dir("alice").join("pieces.idx");
    let begun = std::time::Instant::now();
    while fs::metadata(&index).map_or(0, |meta| meta.len()) < 52 + 3 * 53 {
        assert!(begun.elapsed() < DEADLINE, "no pieces arrive");
        std::thread::yield_now();
    }
    for (what, process) in [("get", &mut get), ("seed", &mut seed)] {
        let told = std::time::Instant::now();
        let id = process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(process.child.wait().unwrap().code(), Some(0));
        println!("{what} ended {:?} after SIGTERM", told.elapsed());
    }
    let stored = (fs::metadata(&index).unwrap().len() - 52) / 53;
    let get = world.get("alice", &[]);
    assert_eq!(get.event("listening")["pieces"].as_u64().unwrap(), stored);
}

/// A public torrent of one piece that nobody has.
fn public_torrent() -> Vec<u8> {
    use swarmseal::wire::plain::PlainTorrent;
    let torrent = PlainTorrent {
        name: "nowhere",
        files: None,
        length: 16_384,
        piece_len: 16_384,
        pieces: &[[7; 20]],
        announce: Some("udp://127.0.0.1:9/announce"),
        private: false,
    };
    torrent.to_bytes()
}

#[cfg(unix)]
#[test]
fn told_to_end_it_does_not_wait_for_who_is_silent() {
    // A node of the DHT, a tracker and a gateway that say nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let node = silent.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (torrent, output) = (dir.path().join("public.torrent"), dir.path().join("files"));
    fs::write(&torrent, public_torrent()).unwrap();
    let [torrent, output] = [&torrent, &output].map(|path| path.display().to_string());
    let args = ["get", &torrent, "--output", &output, "--listen", "127.0.0.1:0", "--dht-bootstrap", &node];
    let mut get = Running::start(dir.path(), &[&args[..], &["--gateway", "127.83.77.4"]].concat());
    get.event("listening");
    // It has begun to ask.
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    silent.recv(&mut [0; 2048]).unwrap();
    let told = std::time::Instant::now();
    let id = get.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(get.child.wait().unwrap().code(), Some(0));
    assert!(told.elapsed() < std::time::Duration::from_secs(1), "{:?}", told.elapsed());
}

#[test]
fn a_tracker_killed_in_the_middle_of_a_swarm_comes_back() {
    let mut world = World::new(4 << 20);
    let _seed = world.seed(&["--upload-limit", "2M"]);
    let code = world.voucher(&[]);
    let alice = world.get("alice", &["--voucher", &code]);
    alice.event("listening");
    let index = world.torrent_dir("alice").join("pieces.idx");
    let begun = std::time::Instant::now();
    while fs::metadata(&index).map_or(0, |meta| meta.len()) < 52 + 3 * 53 {
        assert!(begun.elapsed() < DEADLINE, "no pieces arrive");
        std::thread::yield_now();
    }
    world.tracker.take().unwrap().kill();
    world.start_tracker();
    // Keys come in new sessions; what was acknowledged before is there: subscription, redeemed voucher.
    alice.event("complete");
    world.play("alice", &[], 0);
    world.assert_opened("alice");
}

#[test]
fn a_tracker_moves_to_another_machine_by_its_backup() {
    let mut world = World::new(300_000);
    let (torrent, url, token) = (world.torrent(), world.url(), world.token());
    let seed = world.seed(&[]);
    let code = world.voucher(&[]);
    world.fetch("alice");
    let backup = world.file("tracker.backup");
    let args = ["backup", &backup, "--tracker", &url, "--admin-token-file", &token];
    let left_out = world.expect("publisher", &args, 0)["left_out"].clone();
    assert_eq!(
        left_out,
        serde_json::json!([
            "masters/1.key",
            "witnesses/*.key",
            "tracker.key",
            "license.key",
            "voucher.key",
            "admin.token"
        ])
    );
    // One that is there is kept.
    world.expect("publisher", &args, 12);
    world.expect("operator", &["restore", &backup], 13);
    world.tracker.take().unwrap().kill();
    world.expect("operator", &["restore", &backup], 12);
    let operator = world.path("operator/tracker");
    fs::rename(&operator, world.path("gone")).unwrap();
    let restored = world.expect("operator", &["restore", &backup], 0);
    let missing: Vec<&str> =
        restored["missing"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(missing.len(), 5, "{restored}");
    for path in missing {
        world.expect("operator", &["tracker", "--listen", "127.0.0.1:0"], 12);
        let name = Path::new(path).strip_prefix(&operator).unwrap();
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::copy(world.path("gone").join(name), path).unwrap();
    }
    world.start_tracker();
    world.play("alice", &["--voucher", &code], 0);
    world.assert_opened("alice");
    let bob = world.get("bob", &["--exit"]);
    bob.event("complete");
    seed.kill();
    let args = ["voucher", &torrent, "--admin-token-file", &token];
    world.expect("publisher", &args, 0);
}

/// The epochs of a device's stored pieces, and how many there are.
fn stored_epochs(world: &World, who: &str) -> (Vec<u64>, usize) {
    let (reader, pieces) = world.stored(who);
    (reader.epochs().into_iter().collect(), pieces.len())
}

#[test]
fn an_epoch_begins_while_a_swarm_runs_and_the_old_one_retires() {
    let mut world = World::new(6 << 20);
    let (torrent, token) = (world.torrent(), world.token());
    let epochs = |world: &World, flags: &[&str]| {
        let args = [&["epochs", &torrent, "--admin-token-file", &token], flags].concat();
        let shown = world.expect("publisher", &args, 0);
        (shown["oldest"].as_u64().unwrap(), shown["current"].as_u64().unwrap())
    };
    let seed = world.seed(&["--upload-limit", "4M"]);
    // Erin has everything, and is away until all is over.
    world.fetch("erin");
    let all = stored_epochs(&world, "erin");
    assert_eq!(all.0, [1]);
    let code = world.voucher(&[]);
    world.play("erin", &["--voucher", &code], 0);
    let code = world.voucher(&[]);
    let alice = world.get("alice", &["--voucher", &code]);
    let bob = world.get("bob", &[]);
    for who in ["alice", "bob"] {
        until("no pieces arrive", || {
            world.path(who).join("torrents").exists() && stored_epochs(&world, who).1 >= 8
        });
    }
    assert!(stored_epochs(&world, "alice").1 < all.1);
    assert_eq!(epochs(&world, &["--begin"]), (1, 2));
    // Bob is killed while his pieces move, and goes on.
    until("nothing moves", || stored_epochs(&world, "bob").0.contains(&2));
    bob.kill();
    let bob = world.get("bob", &[]);
    let carol = world.get("carol", &[]);
    for (who, get) in [("alice", &alice), ("bob", &bob), ("carol", &carol)] {
        let complete = get.event("complete");
        assert_eq!(
            (&complete["epoch"], &complete["pieces_refused"]),
            (&2.into(), &0.into()),
            "{who}: {complete}"
        );
        until("pieces of the old epoch stay", || stored_epochs(&world, who).0 == [2]);
    }
    // Alice's license is that of the new epoch already.
    world.tracker.take().unwrap().kill();
    world.play("alice", &[], 0);
    world.assert_opened("alice");
    world.start_tracker();
    for who in ["bob", "carol"] {
        let code = world.voucher(&[]);
        world.play(who, &["--voucher", &code], 0);
        world.assert_opened(who);
    }
    // Nothing of the old epoch is needed any more, nor its master key.
    assert_eq!(epochs(&world, &["--retire-before", "2"]), (2, 2));
    seed.kill();
    world.tracker.take().unwrap().kill();
    fs::remove_file(world.path("operator/tracker/masters/1.key")).unwrap();
    world.start_tracker();
    let dave = world.get("dave", &["--exit"]);
    assert_eq!(dave.event("complete")["bytes_from_seeds"], 0);
    assert_eq!(dave.ends(), Some(0));
    let code = world.voucher(&[]);
    world.play("dave", &["--voucher", &code], 0);
    world.assert_opened("dave");
    // Erin comes too late to move: her license opens what she has, until it is fetched again.
    world.play("erin", &[], 0);
    world.assert_opened("erin");
    let erin = world.get("erin", &[]);
    until("nothing is fetched again", || stored_epochs(&world, "erin") == (vec![2], all.1));
    drop(erin);
    world.play("erin", &[], 0);
    world.assert_opened("erin");
}

#[test]
fn the_offload_is_the_part_that_came_from_peers() {
    let world = World::new(1 << 20);
    let seed = world.seed(&["--cipher-hashes", "0"]);
    world.fetch("alice");
    seed.kill();
    let alice = world.get("alice", &[]);
    let pieces = alice.event("complete")["pieces"].as_u64().unwrap();
    world.fetch("bob");
    let (torrent, token) = (world.torrent(), world.token());
    let args = ["offload", &torrent, "--admin-token-file", &token];
    let rows = |flags: &[&str]| -> Vec<Value> {
        let shown = program(&world.path("publisher"), &[&args, flags].concat()).output().unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let lines = String::from_utf8(shown.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap();
    let shown = rows(&[]);
    let (all, hours) = shown.split_last().unwrap();
    let (seeds, peers) = (number(all, "from_seeds"), number(all, "from_peers"));
    assert!(seeds >= pieces && peers >= pieces, "{all}");
    assert_eq!(all["offload"], peers as f64 / (seeds + peers) as f64);
    let sum = |field: &str| hours.iter().map(|hour| number(hour, field)).sum::<u64>();
    assert_eq!((sum("from_seeds"), sum("from_peers")), (seeds, peers), "{hours:?}");
    // Alice alone had the seed, and Bob had Alice alone.
    let subscribers = rows(&["--subscribers"]);
    let keyed = |who: &str| {
        let id = subscriber(&world, who).to_string();
        let row = subscribers.iter().find(|row| row["subscriber"] == id.as_str()).unwrap();
        (number(row, "keyed_to"), number(row, "keyed_from"))
    };
    assert_eq!((keyed("alice"), keyed("bob")), ((seeds, peers), (peers, 0)), "{subscribers:?}");
}

#[test]
fn licenses_come_from_a_server_apart_that_has_neither_an_r_nor_a_master_key() {
    let (world, server, address) = World::with_license_server(300_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let codes = [world.voucher(&["--plays", "1"]), world.voucher(&[])];
    world.play("alice", &["--voucher", &codes[0]], 0);
    world.assert_opened("alice");
    assert_eq!(world.play("alice", &[], 7)["kind"], "no-plays-left");
    // While it is down, nobody buys, and no voucher is used up; what was bought goes on.
    server.kill();
    world.fetch("bob");
    world.play("bob", &["--voucher", &codes[1]], 3);
    let (_server, _) = world.license_server(&address);
    world.play("bob", &["--voucher", &codes[1]], 0);
    world.assert_opened("bob");
    // It keeps its own keys and nothing else.
    let files = fs::read_dir(world.path("licenser/license-server")).unwrap();
    let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["identity.key"]);
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let world = World::new(1000);
    let refused = world.expect("operator", &["tracker", "--listen", "127.0.0.1:0"], 13);
    assert_eq!(refused["kind"], "in-use");
    let _seed = world.seed(&[]);
    let alice = world.get("alice", &[]);
    alice.event("complete");
    let torrent = world.torrent();
    world.expect("alice", &["get", &torrent, "--listen", "127.0.0.1:0", "--exit"], 13);
    // A player only reads: it may run beside.
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
}

#[test]
fn a_corrupt_piece_is_named_and_fetched_again() {
    let world = World::new(300_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
    world.damage("alice", 2);
    let refused = world.play("alice", &["--no-fetch"], 10);
    assert!(refused["error"].as_str().unwrap().contains("piece 2 "), "{refused}");
    let get = world.get("alice", &["--exit"]);
    get.event("complete");
    assert_eq!(get.ends(), Some(0));
    world.play("alice", &["--no-fetch"], 0);
    world.assert_opened("alice");
}

#[test]
fn a_player_has_a_corrupt_piece_fetched_again_by_itself() {
    let world = World::new(300_000);
    let seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--plays", "3"]);
    world.play("alice", &["--voucher", &code], 0);
    // Into a directory, and into a pipe: not a byte is missing.
    world.damage("alice", 2);
    world.play("alice", &[], 0);
    world.assert_opened("alice");
    world.damage("alice", 0);
    world.damage("alice", 3);
    let piped = program(&world.path("alice"), &["play", &world.torrent(), "-o", "-"]).output().unwrap();
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert!(piped.stdout == fs::read(world.path("content.bin")).unwrap());
    // All plays are used up; and where nobody has the piece, a clear error, and nothing is counted.
    let code = world.voucher(&["--plays", "1"]);
    seed.kill();
    world.damage("alice", 1);
    let refused = world.play("alice", &["--voucher", &code, "--patience", "1s"], 10);
    assert!(refused["error"].as_str().unwrap().contains("piece 1 "), "{refused}");
    let piped = program(&world.path("alice"), &["play", &world.torrent(), "-o", "-", "--patience", "1s"]);
    // By then it is not in the store any more.
    let piped = { piped }.output().unwrap();
    assert_eq!((piped.status.code(), piped.stdout.len()), (Some(11), 0));
    let _seed = world.seed(&[]);
    world.play("alice", &[], 0);
    world.assert_opened("alice");
}

#[test]
fn an_ordinary_client_fetches_a_personal_torrent() {
    let world = World::new(600_000);
    let seed = world.seed(&[]);
    let (torrent, personal) = (world.torrent(), world.file("alice.torrent"));
    world.expect("alice", &["subscribe", &torrent, "--personal", "--output", &personal], 0);
    world.fetch("bob");
    // From now on there is only a peer, with ciphertext of its own.
    let bob = world.get("bob", &[]);
    bob.event("complete");
    seed.kill();
    let (to, listen) = (world.file("downloads"), world.listen());
    let client = ["--listen", &listen, "--exit"];
    let fetch =
        |code| world.expect("client", &[&["get", &personal, "--output", &to], &client[..]].concat(), code);
    assert_eq!(fetch(0)["event"], "complete");
    let sealed = world.file("downloads/content.bin.sealed");
    let code = world.voucher(&[]);
    world.play("alice", &["--pieces", &sealed, "--voucher", &code], 0);
    world.assert_opened("alice");
    // Nobody else's license opens it, and nobody else's ciphertext passes the client's check.
    let code = world.voucher(&[]);
    world.play("bob", &["--pieces", &sealed, "--voucher", &code], 10);
    let others = fs::read(world.torrent_dir("bob").join("pieces.bin")).unwrap();
    fs::write(&sealed, others).unwrap();
    let client =
        Running::start(&world.path("client"), &["get", &personal, "--output", &to, "--listen", &listen]);
    assert_eq!(client.event("listening")["pieces"], 0);
    // What is left of it is fetched again.
    client.event("complete");
    assert_eq!(world.play("alice", &["--pieces", &sealed], 0)["event"], "played");
}

#[test]
fn a_torrent_that_is_partly_clear_goes_through_everything() {
    let flags = ["--piece-length", "64K", "--protect", "ranges=0-100K,content.bin:300K-350K"];
    let world = World::publish(600_000, IpAddr::V4(Ipv4Addr::LOCALHOST), &flags);
    let torrent = world.torrent();
    let shown = world.expect("alice", &["inspect", &torrent], 0);
    let (all, sealed) = (shown["pieces"].as_u64().unwrap(), shown["sealed_pieces"].as_u64().unwrap());
    assert_eq!((all, sealed), (10, 3));
    assert_eq!(shown["clear_pieces"].as_u64(), Some(all - sealed));
    let seed = world.seed(&["--package-cache", &world.file("packages")]);
    let personal = world.file("alice.torrent");
    world.expect("alice", &["subscribe", &torrent, "--personal", "--output", &personal], 0);
    world.expect("carol", &["subscribe", &torrent, "--personal"], 0);
    world.fetch("bob");
    let code = world.voucher(&[]);
    world.play("bob", &["--voucher", &code], 0);
    world.assert_opened("bob");
    let license = world.expect("bob", &["inspect", &torrent, "--license"], 0);
    assert_eq!(license["decryption_keys"].as_u64(), Some(sealed));

    // From a peer to an ordinary client, whose copy her license opens.
    let bob = world.get("bob", &[]);
    bob.event("complete");
    seed.kill();
    let to = world.file("downloads");
    let listen = world.listen();
    let client = ["get", &personal, "--output", &to, "--listen", &listen];
    let client = Running::start(&world.path("client"), &client);
    client.event("complete");
    let code = world.voucher(&[]);
    let fetched = world.file("downloads/content.bin.sealed");
    world.play("alice", &["--pieces", &fetched, "--voucher", &code], 0);
    world.assert_opened("alice");
    // And from that to another peer, once there is no other source.
    bob.kill();
    let carol = world.get("carol", &["--exit"]);
    assert_eq!(carol.event("complete")["bytes_from_seeds"], 0);
    assert_eq!(carol.ends(), Some(0));
    client.kill();
    let code = world.voucher(&[]);
    world.play("carol", &["--voucher", &code], 0);
    world.assert_opened("carol");

    // What is clear is the same on every disk, and stays where it is in another epoch.
    let read = |who: &str, name: &str| fs::read(world.torrent_dir(who).join(name)).unwrap();
    let clear = read("bob", "pieces-clear.bin");
    assert!(clear == read("carol", "pieces-clear.bin"));
    assert!(read("bob", "pieces.bin") != read("carol", "pieces.bin"));
    let token = world.token();
    world.expect("operator", &["epochs", &torrent, "--admin-token-file", &token, "--begin"], 0);
    let bob = world.get("bob", &[]);
    until("pieces of the old epoch stay", || stored_epochs(&world, "bob") == (vec![2], all as usize));
    bob.kill();
    assert!(clear == read("bob", "pieces-clear.bin"));
    world.play("bob", &[], 0);
    world.assert_opened("bob");

    // A clear piece that was damaged is named, and fetched again from another peer.
    let carol = world.get("carol", &[]);
    carol.event("complete");
    let mut damaged = clear.clone();
    let place = damaged.iter().rposition(|&byte| byte != 0).unwrap();
    damaged[place] ^= 1;
    fs::write(world.torrent_dir("bob").join("pieces-clear.bin"), &damaged).unwrap();
    let piece = place / (64 << 10);
    let refused = world.play("bob", &["--no-fetch"], 10);
    assert!(refused["error"].as_str().unwrap().contains(&format!("piece {piece} ")), "{refused}");
    let bob = world.get("bob", &["--exit"]);
    bob.event("complete");
    assert_eq!(bob.ends(), Some(0));
    world.play("bob", &[], 0);
    world.assert_opened("bob");
}

#[test]
fn many_pieces_of_both_kinds_come_in_whatever_order() {
    // More sealed ones among those that a peer asks for ahead than a seed makes ready at a time.
    let flags = ["--piece-length", "256K", "--protect", "fraction=0.5"];
    let world = World::publish(64 << 20, IpAddr::V4(Ipv4Addr::LOCALHOST), &flags);
    let shown = world.expect("alice", &["inspect", &world.torrent()], 0);
    for kind in ["sealed_pieces", "clear_pieces"] {
        assert!(shown[kind].as_u64().is_some_and(|count| count >= 128), "{shown}");
    }
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
    world.assert_opened("alice");
}

#[test]
fn an_ordinary_client_is_a_source_for_peers() {
    let world = World::new(600_000);
    let seed = world.seed(&[]);
    let (torrent, personal) = (world.torrent(), world.file("alice.torrent"));
    world.expect("alice", &["subscribe", &torrent, "--personal", "--output", &personal], 0);
    // Her hashes are there as well: without them she would take nothing that nobody vouches for.
    world.expect("carol", &["subscribe", &torrent, "--personal"], 0);
    let to = world.file("downloads");
    let listen = world.listen();
    let client = ["get", &personal, "--output", &to, "--listen", &listen];
    let client = Running::start(&world.path("client"), &client);
    client.event("complete");
    seed.kill();
    let carol = world.get("carol", &["--exit"]);
    let complete = carol.event("complete");
    assert_eq!(complete["bytes_from_seeds"], 0, "{complete}");
    assert_eq!(carol.ends(), Some(0));
    let code = world.voucher(&[]);
    world.play("carol", &["--voucher", &code], 0);
    world.assert_opened("carol");
    assert!(
        fs::read(world.torrent_dir("carol").join("pieces.bin")).unwrap()
            != fs::read(world.path("downloads/content.bin.sealed")).unwrap()
    );
}

#[test]
fn refusals_have_exit_codes_of_their_own() {
    let world = World::new(100_000);
    let other = World::new(100_001);
    let _seeds = (world.seed(&[]), other.seed(&[]));
    world.fetch("alice");
    assert_eq!(world.play("alice", &["--voucher", "no-such-code"], 4)["kind"], "not-licensed");
    let code = world.voucher(&["--expires", "1h"]);
    world.play("alice", &["--voucher", &code], 0);
    let dir = world.torrent_dir("alice");
    let license = dir.join("license");
    let good = fs::read(&license).unwrap();

    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&license, &bad).unwrap();
    assert_eq!(world.play("alice", &[], 8)["kind"], "tampered");

    // Another device's license, and one of this device for another torrent.
    world.fetch("bob");
    let code = world.voucher(&[]);
    world.play("bob", &["--voucher", &code], 0);
    fs::copy(world.torrent_dir("bob").join("license"), &license).unwrap();
    assert_eq!(world.play("alice", &[], 5)["kind"], "wrong-key");
    let elsewhere = other.path("alice");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::copy(world.path("alice").join("device.key"), elsewhere.join("device.key")).unwrap();
    other.fetch("alice");
    let code = other.voucher(&[]);
    other.play("alice", &["--voucher", &code], 0);
    fs::copy(other.torrent_dir("alice").join("license"), &license).unwrap();
    // Its keys in the two torrents have nothing in common.
    assert_eq!(world.play("alice", &[], 5)["kind"], "wrong-key");
    fs::write(&license, &good).unwrap();

    // The record of plays, edited.
    let plays = dir.join("plays");
    let mut record = fs::read(&plays).unwrap();
    let middle = record.len() / 2;
    record[middle] ^= 1;
    fs::write(&plays, record).unwrap();
    assert_eq!(world.play("alice", &[], 8)["kind"], "tampered");
    fs::remove_file(&plays).unwrap();
    assert_eq!(world.play("alice", &[], 8)["reason"], "record-lost");
    let torrent = world.torrent();
    world.expect("alice", &["license", &torrent], 0);
    world.play("alice", &[], 0);

    // Not valid yet; nothing fetched; no such torrent file.
    world.fetch("carol");
    let code = world.voucher(&["--not-before", "1h"]);
    let refused = world.play("carol", &["--voucher", &code], 6);
    assert_eq!((&refused["kind"], &refused["reason"]), (&"expired".into(), &"not-yet".into()));
    assert!(refused["until"].as_u64().unwrap() > 1_700_000_000, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains(" UTC: "), "{refused}");
    world.expect("dave", &["subscribe", &torrent], 0);
    let code = world.voucher(&[]);
    assert_eq!(world.play("dave", &["--voucher", &code], 11)["kind"], "missing-piece");
    world.expect("dave", &["get", "/no/such.torrent"], 12);
    world.expect("dave", &["get", &world.file("content.bin")], 1);
}

/// Runs `key import --words` with that on its standard input; its exit code, and what it printed.
fn import_words(world: &World, who: &str, words: &str) -> (Option<i32>, Value) {
    let mut command = program(&world.path(who), &["key", "import", "--words"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    (status.code(), serde_json::from_slice(&stdout).unwrap())
}

fn subscriber(world: &World, who: &str) -> SubscriberId {
    let torrent = world.torrent();
    let known = world.expect(who, &["subscribe", &torrent], 0);
    let mut id = [0; 32];
    hex::decode_to_slice(known["subscriber"].as_str().unwrap(), &mut id).unwrap();
    SubscriberId(id)
}

#[test]
fn a_recovery_file_or_its_words_open_the_purchase_on_another_machine() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    let file = world.file("recovery.key");
    let export = |code| world.expect("alice", &["key", "export", &file], code);
    // There is nothing to keep yet.
    export(12);
    world.fetch("alice");
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
    export(0);
    export(12);
    let words = world.expect("alice", &["key", "export", "--words"], 0)["words"].clone();
    let words: Vec<String> = words.as_str().unwrap().split(' ').map(str::to_owned).collect();
    assert_eq!(words.len(), 24);

    world.expect("laptop", &["key", "import", &file], 0);
    let short: Vec<String> = words.iter().map(|word| word[..word.len().min(4)].to_uppercase()).collect();
    assert_eq!(import_words(&world, "desktop", &short.join("\n  ")).0, Some(0));
    // The tracker knows the subscriber, and the license is its own. Nothing is redeemed.
    let alice = subscriber(&world, "alice");
    for machine in ["laptop", "desktop"] {
        world.fetch(machine);
        world.play(machine, &[], 0);
        world.assert_opened(machine);
        assert_eq!(subscriber(&world, machine), alice);
    }
    world.play("alice", &[], 0);

    let wrong = |text: String| {
        let (code, answer) = import_words(&world, "phone", &text);
        assert_eq!(code, Some(2), "{answer}");
        assert!(!world.path("phone/device.key").exists());
        answer["error"].as_str().unwrap().to_owned()
    };
    let mistyped = [&words[..6], &["abandom".to_owned()], &words[7..]].concat();
    let error = wrong(mistyped.join(" "));
    assert!(["word 7", "\"abandom\"", "\"abandon\""].iter().all(|part| error.contains(part)), "{error}");
    assert!(wrong(words[..23].join(" ")).contains("found 23"));
    // One swap in 256 fits the checksum by chance.
    let swapped = (1..24).map(|at| {
        let mut swapped = words.clone();
        swapped.swap(0, at);
        swapped.join(" ")
    });
    let misfit = |text: &String| {
        let mut read = Words::default();
        read.add(text).unwrap();
        read.secret().is_err()
    };
    assert!(wrong(swapped.into_iter().find(misfit).unwrap()).contains("checksum"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let dir = world.torrent_dir("alice");
        for secret in [Path::new(&file), &dir.join("subscription"), &world.path("alice/device.key")] {
            assert_eq!(fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600, "{secret:?}");
        }
    }
}

#[test]
fn another_key_replaces_a_devices_own_only_by_force() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    let torrent = world.torrent();
    for who in ["alice", "bob"] {
        world.fetch(who);
        let code = world.voucher(&[]);
        world.play(who, &["--voucher", &code], 0);
        world.expect(who, &["key", "export", &world.file(&format!("{who}.key"))], 0);
    }
    let (alice, bob) = (world.file("alice.key"), world.file("bob.key"));
    assert_eq!(world.expect("bob", &["key", "import", &bob], 0)["same"], true);
    let refused = world.expect("bob", &["key", "import", &alice], 12);
    assert!(refused["error"].as_str().unwrap().contains("content.bin"), "{refused}");
    world.play("bob", &[], 0);
    // Nor while it fetches.
    let get = Running::start(&world.path("bob"), &["get", &torrent, "--listen", "127.0.0.1:0"]);
    get.event("complete");
    let busy = world.expect("bob", &["key", "import", &alice, "--force"], 13);
    assert!(busy["error"].as_str().unwrap().contains("in use"), "{busy}");
    get.kill();
    world.play("bob", &[], 0);
    let forced = world.expect("bob", &["key", "import", &alice, "--force"], 0);
    assert_eq!(forced["lost"], serde_json::json!(["content.bin"]));
    assert_eq!(world.play("bob", &[], 4)["kind"], "not-licensed");
    world.fetch("bob");
    world.play("bob", &[], 0);
    world.assert_opened("bob");
    assert_eq!(subscriber(&world, "bob"), subscriber(&world, "alice"));

    // Without its key a device does not begin again as another one.
    fs::remove_file(world.path("alice/device.key")).unwrap();
    let refused = world.expect("alice", &["get", &torrent, "--listen", "127.0.0.1:0"], 12);
    assert!(refused["error"].as_str().unwrap().contains("key import"), "{refused}");
    // Nor does it take what another one fetched.
    fs::copy(&bob, world.path("alice/device.key")).unwrap();
    assert_eq!(world.play("alice", &[], 5)["kind"], "wrong-key");
    fs::remove_file(world.path("alice/device.key")).unwrap();
    world.expect("alice", &["key", "import", &alice], 0);
    world.play("alice", &[], 0);
}

/// Plain HTTP needs none, and a small system may have none.
#[test]
fn a_system_without_certificates_fetches_by_plain_http() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    let (torrent, listen) = (world.torrent(), world.listen());
    let mut get = program(&world.path("alice"), &["get", &torrent, "--listen", &listen, "--exit"]);
    let none = world.file("no-certificates");
    let output = get.env("SSL_CERT_FILE", &none).env("SSL_CERT_DIR", &none).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_publishers_key_is_made_once_and_lies_under_a_passphrase_if_that_is_wanted() {
    let world = World::new(1000);
    let (content, url, token) = (world.file("content.bin"), world.url(), world.token());
    let publish = |who: &str, name: &str, flags: &[&str], code| {
        let [torrent, seed] = ["torrent", "seed"].map(|end| world.file(&format!("{name}.{end}")));
        let args = ["publish", &content, "--tracker", &url, "--admin-token-file", &token];
        let args = [&args[..], &["--output", &torrent, "--seed-file", &seed], flags].concat();
        world.expect(who, &args, code)
    };
    let shown = |path: &str| world.expect("anybody", &["inspect", path], 0);
    let first = shown(&world.torrent());
    let key = world.file("publisher/publisher/publisher.key");
    assert_eq!(shown(&key)["publisher_key"], first["publisher_key"]);
    let second = publish("publisher", "second", &[], 0);
    assert_eq!(second["publisher_key"], first["publisher_key"]);
    assert_ne!(second["torrent_id"], first["torrent_id"]);

    let (right, wrong) = (world.file("right"), world.file("wrong"));
    fs::write(&right, "correct horse\n").unwrap();
    fs::write(&wrong, "correct house\n").unwrap();
    let clear = fs::read_to_string(&key).unwrap();
    let sealed = publish("publisher", "third", &["--publisher-passphrase-file", &right], 0);
    assert_eq!(sealed["publisher_key"], first["publisher_key"]);
    let secret = clear.lines().find_map(|line| line.strip_prefix("signing: ")).unwrap();
    assert!(!fs::read_to_string(&key).unwrap().contains(secret));
    assert_eq!(shown(&key)["kind"], "key file: sealed publisher");
    assert_eq!(shown(&key)["publisher_key"], first["publisher_key"]);
    publish("publisher", "fourth", &[], 2);
    publish("publisher", "fourth", &["--publisher-passphrase-file", &wrong], 5);
    publish("publisher", "fourth", &["--publisher-passphrase-file", &right], 0);

    let other = publish("other", "fifth", &[], 0);
    assert_ne!(other["publisher_key"], first["publisher_key"]);
    let named = ["--publisher-key", &key, "--publisher-passphrase-file", &right];
    assert_eq!(publish("other", "sixth", &named, 0)["publisher_key"], first["publisher_key"]);
    publish("other", "seventh", &["--publisher-key", &world.file("none")], 12);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for key in [&key, &world.file("other/publisher/publisher.key")] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
        }
    }
}

#[test]
fn a_revoked_subscriber_gets_nothing_more() {
    let world = World::new(2 << 20);
    let torrent = world.torrent();
    let subscriber = world.expect("alice", &["subscribe", &torrent], 0)["subscriber"].clone();
    let subscriber = subscriber.as_str().unwrap();
    let token = world.token();
    world.expect("publisher", &["grant", &torrent, subscriber, "--admin-token-file", &token], 0);
    let mut id = [0; 32];
    hex::decode_to_slice(subscriber, &mut id).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(world.admin().revoke(SubscriberId(id))).unwrap();
    assert_eq!(world.expect("alice", &["license", &torrent], 15)["kind"], "revoked");
    let _seed = world.seed(&[]);
    let bob = world.get("bob", &[]);
    bob.event("complete");
    // Alice hears of no peers, and a peer that she finds all the same gets no keys for her.
    let alice = world.get("alice", &[]);
    alice.event("listening");
    let stored = world.torrent_dir("alice").join("pieces.bin");
    let progress = alice.event("progress");
    assert_eq!(progress["pieces"], 0);
    assert_eq!(fs::metadata(stored).unwrap().len(), 0);
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_full_disk_is_an_error_that_loses_nothing() {
    let world = World::new(4 << 20);
    let _seed = world.seed(&[]);
    let small = world.path("small");
    fs::create_dir_all(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).status();
    assert!(mounted.unwrap().success());
    let torrent = world.torrent();
    let full = program(&small, &["get", &torrent, "--listen", "127.0.0.1:0", "--exit"]).output().unwrap();
    let grown = Command::new("mount").args(["-o", "remount,size=16m"]).arg(&small).status();
    let get = world.get("small", &["--exit"]);
    let resumed = get.event("listening")["pieces"].as_u64();
    get.event("complete");
    get.kill();
    let _ = Command::new("umount").arg(&small).status();
    assert!(grown.unwrap().success());
    assert_eq!(full.status.code(), Some(12), "{}", String::from_utf8_lossy(&full.stderr));
    assert!(resumed.unwrap() > 0, "what was stored is still there");
}

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_tracker_whose_disk_is_full_goes_on_once_there_is_room() {
    let mut world = World::new(1000);
    world.tracker.take().unwrap().kill();
    let (data, whole) = (world.path("operator"), world.path("whole"));
    fs::rename(&data, &whole).unwrap();
    fs::create_dir(&data).unwrap();
    let size = |size: &str, flags: &[&str]| {
        let options = [flags.join(","), format!("size={size}")].join(",");
        let options = options.trim_start_matches(',').to_owned();
        let kind = if flags.is_empty() { &["-t", "tmpfs"][..] } else { &[] };
        let device = if flags.is_empty() { &["tmpfs"][..] } else { &[] };
        let mut mount = Command::new("mount");
        mount.args(kind).args(["-o", &options]).args(device).arg(&data).status().unwrap().success()
    };
    assert!(size("3m", &[]));
    assert!(Command::new("cp").arg("-a").arg(whole.join("tracker")).arg(&data).status().unwrap().success());
    world.start_tracker();
    let torrent = world.torrent();
    // 1,000 vouchers in one call.
    let issue = |world: &World| {
        let metainfo = Metainfo::from_bytes(&fs::read(world.torrent()).unwrap(), swarmseal_accel::detect());
        let seal = metainfo.unwrap().info.seal;
        let (order, terms) = (Order { count: 1000, ..Order::default() }, Terms::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(world.admin().create_vouchers(&seal, &order, terms)).map(|issued| issued.codes)
    };
    let (mut codes, mut refused) = (Vec::new(), None);
    while refused.is_none() && codes.len() < 100_000 {
        match issue(&world) {
            Ok(more) => codes.extend(more),
            Err(error) => refused = Some(error),
        }
    }
    let again = issue(&world).map_err(|error| error.code());
    let grown = size("64m", &["remount"]);
    let after = issue(&world);
    let code = codes.last().map(|code| code.to_text()).unwrap_or_default();
    world.expect("alice", &["subscribe", &torrent], 0);
    let licensed =
        program(&world.path("alice"), &["license", &torrent, "--voucher", &code]).output().unwrap();
    world.tracker.take().unwrap().kill();
    let unmounted = Command::new("umount").arg(&data).status().unwrap().success();
    assert!(grown && unmounted);
    let full = Some(swarmseal::wire::api::ApiError::Full);
    assert_eq!((refused.and_then(|error| error.code()), again.err()), (full, Some(full)));
    assert_eq!(after.unwrap().len(), 1000);
    assert_eq!(licensed.status.code(), Some(0), "what was acknowledged before is there");
}

#[test]
fn a_backend_can_be_forced_and_one_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let Output { status, stdout, stderr } = program(dir.path(), args).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let quick = ["cpu", "--seconds", "0"];
    for name in swarmseal_accel::each().map(|kernels| kernels.name) {
        let (code, out, err) = run(&[&quick, &["--backend", name][..]].concat());
        assert_eq!(code, Some(0), "{err}");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["chosen"], &lines[0]["forced"]), (&Value::from(name), &Value::from(true)));
        let chosen: Vec<&Value> = lines[1..].iter().filter(|line| line["chosen"] == true).collect();
        assert_eq!(chosen.len(), 1);
        assert_eq!((&chosen[0]["backend"], &chosen[0]["runs"]), (&Value::from(name), &Value::from(true)));
    }
    // Whatever the verb, before it does anything.
    let mut inspect = program(dir.path(), &["inspect", "film.torrent"]);
    let refused = inspect.env("SWARMSEAL_BACKEND", "adxx").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("no backend \"adxx\"") && message.contains("portable"), "{message}");
    assert_eq!(run(&[&quick, &["--seconds", "soon"][..]].concat()).0, Some(2));
}

/// Makes a stored piece another one that the store itself finds nothing wrong with: what a peer sends that cheats.
fn pollute(world: &World, who: &str, piece: u32) {
    let metainfo =
        Metainfo::from_bytes(&fs::read(world.torrent()).unwrap(), swarmseal_accel::detect()).unwrap();
    let torrent_id = metainfo.info.seal.torrent_id;
    let (piece_len, piece_count) = (metainfo.info.piece_length, metainfo.info.piece_count);
    let store = Store::open(&world.torrent_dir(who), Shape { torrent_id, piece_len, piece_count }).unwrap();
    let stored = store.piece(piece).unwrap();
    let mut bytes = vec![0; piece_len as usize];
    store.read(piece, &mut bytes).unwrap();
    bytes[9000] ^= 1;
    let hash = *blake3::hash(&bytes).as_bytes();
    store.put(piece, &bytes, StoredPiece { hash, ..stored }).unwrap();
}

/// A world in which Mallory has everything, of which these pieces are bad. Others have it all, or nothing.
fn polluted(bytes: usize, bad: std::ops::Range<u32>, others: &[&str]) -> (World, Running) {
    let world = World::publish(bytes, [127, 0, 0, 1].into(), &["--piece-length", "64K"]);
    let seed = world.seed(&[]);
    world.fetch("mallory");
    others.iter().for_each(|who| world.fetch(who));
    seed.kill();
    bad.for_each(|piece| pollute(&world, "mallory", piece));
    let mallory = world.get("mallory", &[]);
    mallory.event("complete");
    (world, mallory)
}

fn refused(get: &Running) -> u64 {
    get.event("progress")["pieces_refused"].as_u64().unwrap()
}

#[test]
fn without_a_license_a_bad_piece_is_neither_stored_nor_handed_on() {
    let (world, _mallory) = polluted(500_000, 3..4, &[]);
    let bob = world.get("bob", &[]);
    // Carol has whatever Bob has.
    let carol = world.get("carol", &["--exit"]);
    while refused(&bob) == 0 {}
    let has_bad = |who: &str| world.stored(who).1.contains(&3);
    assert!(!has_bad("bob") && !has_bad("carol"));
    let _seed = world.seed(&[]);
    bob.event("complete");
    carol.event("complete");
    assert_eq!(carol.ends(), Some(0));
    let code = world.voucher(&[]);
    world.play("carol", &["--voucher", &code, "--no-fetch"], 0);
    world.assert_opened("carol");
}

#[test]
fn who_sends_many_bad_pieces_is_not_dealt_with_any_more() {
    let (world, _mallory) = polluted(2_700_000, 1..41, &[]);
    let carol = world.get("carol", &["--exit"]);
    while refused(&carol) == 0 {}
    let _seed = world.seed(&[]);
    let complete = carol.event("complete");
    // Some were under way when the first were found to be bad.
    assert!(complete["pieces_refused"].as_u64().unwrap() < 30, "{complete}");
    assert_eq!(carol.ends(), Some(0));
    let code = world.voucher(&[]);
    world.play("carol", &["--voucher", &code, "--no-fetch"], 0);
    world.assert_opened("carol");
}

#[test]
fn a_player_that_fetches_by_itself_stores_nothing_that_get_would_refuse() {
    let (world, mallory) = polluted(500_000, 3..4, &["dave"]);
    world.damage("dave", 3);
    // Nobody but Mallory has the piece that Dave's player wants again.
    let code = world.voucher(&[]);
    let refused = world.play("dave", &["--voucher", &code, "--patience", "3s"], 10);
    assert_eq!(refused["kind"], "corrupt-piece", "{refused}");
    assert!(!world.stored("dave").1.contains(&3));
    mallory.kill();
    let _seed = world.seed(&[]);
    world.play("dave", &[], 0);
    world.assert_opened("dave");
}

/// What the peer at `addr` says that it is in a torrent, to somebody of that name.
fn hello_of(addr: &str, torrent: &Path, name: u8) -> Hello {
    let metainfo = Metainfo::from_bytes(&fs::read(torrent).unwrap(), swarmseal_accel::detect()).unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let extended = ExtendedHandshake {
        seal_id: Some(OUR_ID),
        dont_have_id: None,
        client: "curious".to_owned(),
        reqq: 250,
        port: None,
        hello: None,
    };
    let mut bytes = BytesMut::from(&Handshake::new(metainfo.info_hash, [name; 20]).to_bytes()[..]);
    Message::Extended { id: 0, payload: extended.to_bytes().into() }.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut [0; handshake::LEN]).unwrap();
    let (decoder, mut pending) = (Decoder::new(metainfo.info.layout()), BytesMut::new());
    loop {
        if let Some(Message::Extended { id: 0, payload }) = decoder.decode(&mut pending).unwrap() {
            return ExtendedHandshake::from_bytes(&payload).unwrap().hello.unwrap();
        }
        let mut more = [0; 1024];
        let read = stream.read(&mut more).unwrap();
        assert!(read > 0, "it hangs up");
        pending.extend_from_slice(&more[..read]);
    }
}

#[test]
fn two_torrents_on_one_device_show_two_identities() {
    let world = World::new(200_000);
    let (url, token) = (world.url(), world.token());
    fs::write(world.path("other.bin"), [7; 100_000]).unwrap();
    let (content, torrent, seed) =
        (world.file("other.bin"), world.file("other.torrent"), world.file("other.seed"));
    let args = ["publish", &content, "--tracker", &url, "--admin-token-file", &token];
    world.expect("publisher", &[&args[..], &["--output", &torrent, "--seed-file", &seed]].concat(), 0);
    let shown = [world.torrent(), torrent].map(|torrent| {
        let listen = world.listen();
        let get = Running::start(&world.path("alice"), &["get", &torrent, "--listen", &listen]);
        let addr = get.event("listening")["address"].as_str().unwrap().to_owned();
        let hello = hello_of(&addr, Path::new(&torrent), 1);
        // Asked again, it says the same.
        assert_eq!(hello_of(&addr, Path::new(&torrent), 2), hello);
        hello
    });
    let [Hello::Subscriber { identity: a, keys: b }, Hello::Subscriber { identity: c, keys: d }] = shown
    else {
        panic!("{shown:?}")
    };
    assert!(a != c && b != d);
}
