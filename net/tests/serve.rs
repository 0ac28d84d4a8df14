//! `play --serve` as a browser meets it: ranges, pages, strangers; while pieces still come, and where they are bad.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use swarmseal::peer::Store;

use self::world::{DEADLINE, Running, World, program, until};

/// An answer, as far as it came.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn length(&self) -> usize {
        self.header("content-length").unwrap().parse().unwrap()
    }
}

/// A running `play --serve`.
struct Served {
    process: Running,
    address: SocketAddr,
    /// `/TOKEN/`
    path: String,
}

impl Served {
    fn start(world: &World, who: &str, flags: &[&str]) -> Self {
        let (torrent, listen) = (world.torrent(), world.listen());
        let args = [&["play", &torrent, "--serve", "--listen", &listen], flags].concat();
        let process = Running::start(&world.path(who), &args);
        let url = process.event("serving")["url"].as_str().unwrap().to_owned();
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        Served { process, address: address.parse().unwrap(), path: format!("/{path}") }
    }

    /// A request with its own connection; everything up to its end.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {}\r\n", self.address);
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // One that is cut short may end with an error.
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned()));
        Answer { status, headers: headers.collect(), body: answer[end + 4..].to_vec() }
    }

    fn get(&self, file: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", &format!("{}{file}", self.path), headers)
    }

    fn range(&self, range: &str) -> Answer {
        self.get("0/content.bin", &[("Range", range)])
    }

    /// Ends it by a signal.
    fn ends(mut self) {
        let begun = Instant::now();
        let id = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert_eq!(self.process.child.wait().unwrap().code(), Some(0));
        // The promise is a second; the machine may be busy.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

fn published(world: &World) -> Vec<u8> {
    fs::read(world.path("content.bin")).unwrap()
}

/// How many pieces are stored.
fn stored(world: &World, who: &str) -> u32 {
    if !world.path(who).join("torrents").exists() {
        return 0;
    }
    world.stored(who).1.len() as u32
}

#[test]
fn any_part_is_served_to_who_has_the_token_and_to_nobody_else() {
    let world = World::new(700_001);
    let content = published(&world);
    let seed = world.seed(&[]);
    world.fetch("alice");
    drop(seed);
    let code = world.voucher(&["--plays", "2"]);
    let served = Served::start(&world, "alice", &["--voucher", &code]);
    let whole = served.get("0/content.bin", &[]);
    assert_eq!((whole.status, whole.length()), (200, content.len()));
    assert!(whole.body == content);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(whole.header("cache-control"), Some("no-store"));
    assert_eq!(whole.header("content-security-policy"), Some("sandbox"));
    assert_eq!(whole.header("access-control-allow-origin"), None);
    let tag = whole.header("etag").unwrap();
    assert!(tag.starts_with('"') && tag.ends_with("-0\""), "{tag}");

    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65503-65505", 65_503, 65_506),
        ("bytes=100000-299999", 100_000, 300_000),
        ("bytes=700000-", 700_000, 700_001),
        ("bytes=-5", 699_996, 700_001),
        ("bytes=600000-9999999", 600_000, 700_001),
    ] {
        let part = served.range(range);
        assert_eq!((part.status, part.length()), (206, to - from), "{range}");
        let said = format!("bytes {from}-{}/{}", to - 1, content.len());
        assert_eq!(part.header("content-range"), Some(said.as_str()));
        assert!(part.body == content[from..to], "{range}");
        assert_eq!(part.header("etag"), Some(tag));
    }
    let none = served.range("bytes=700001-");
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */700001")));
    let several = served.range("bytes=0-1,5-6");
    assert!(several.status == 200 && several.body == content);
    let known = served.get("0/content.bin", &[("Range", "bytes=1-2"), ("If-Range", tag)]);
    assert!(known.status == 206 && known.body == content[1..3]);
    let changed = served.get("0/content.bin", &[("Range", "bytes=1-2"), ("If-Range", "\"other\"")]);
    assert!(changed.status == 200 && changed.body == content);
    let head = served.ask("HEAD", &format!("{}0/content.bin", served.path), &[("Range", "bytes=1-2")]);
    assert_eq!((head.status, head.length(), head.body.len()), (200, content.len(), 0));

    let page = served.get("", &[]);
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert!(text.contains("<a href=\"0/content.bin\">content.bin</a>"), "{text}");
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));

    // Strangers: without the token, with a name that was pointed at this machine, with another method.
    let file = format!("{}0/content.bin", served.path);
    for path in ["/", "/0/content.bin", &file.replace(&served.path[1..5], "0000"), &file[..40]] {
        let refused = served.ask("GET", path, &[]);
        assert_eq!(refused.status, 404, "{path}");
        assert!(refused.body.len() < 100);
    }
    assert_eq!(served.get("1/content.bin", &[]).status, 404);
    for host in ["attacker.example", "127.0.0.1", "127.0.0.1:1"] {
        assert_eq!(served.get("0/content.bin", &[("Host", host)]).status, 421, "{host}");
    }
    let local = format!("localhost:{}", served.address.port());
    assert_eq!(served.get("0/content.bin", &[("Host", &local)]).status, 200);
    let posted = served.ask("POST", &file, &[("Content-Length", "0")]);
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    served.ends();
    // One play for all of it.
    Served::start(&world, "alice", &[]).ends();
    let torrent = world.torrent();
    world.expect("alice", &["play", &torrent, "--serve"], 7);
}

#[test]
fn what_ends_early_does_not_look_whole() {
    let world = World::new(700_000);
    let content = published(&world);
    let seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&[]);
    world.play("alice", &["--voucher", &code], 0);
    drop(seed);
    let (shape, missing) = (world.shape(), 6);
    Store::open(&world.torrent_dir("alice"), shape).unwrap().discard(missing).unwrap();
    let payload = shape.piece_len as usize - 32;
    // Nobody has the piece.
    let served = Served::start(&world, "alice", &["--patience", "1s"]);
    let cut = served.get("0/content.bin", &[]);
    assert_eq!((cut.status, cut.length()), (200, content.len()));
    assert!(cut.body.len() < content.len() && cut.body.len() <= missing as usize * payload);
    assert!(content.starts_with(&cut.body), "not a byte that is not the content's");
    let at = format!("bytes={}-", missing as usize * payload + 1000);
    let refused = served.range(&at);
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    assert!(String::from_utf8_lossy(&refused.body).starts_with("piece 6 is not there: "));
    // What is there is served on.
    assert!(served.range("bytes=-100").body == content[content.len() - 100..]);
    served.ends();
    // The same through a pipe, to a tar and to a file: what comes is right, and does not look whole.
    let (torrent, to) = (world.torrent(), world.file("alice/again"));
    world.expect("alice", &["play", &torrent, "--patience", "1s", "--output", &to], 11);
    assert!(!world.path("alice/again/content.bin").exists());
    for (flags, head) in [(&["-o", "-"][..], 0), (&["-o", "-", "--tar"], 512)] {
        let args = [&["play", &torrent, "--patience", "1s"], flags].concat();
        let played = program(&world.path("alice"), &args).output().unwrap();
        assert_eq!(played.status.code(), Some(11), "{flags:?}");
        let said = String::from_utf8_lossy(&played.stderr).into_owned();
        assert!(said.contains("piece 6 is missing"), "{said}");
        assert!(played.stdout.len() <= head + missing as usize * payload);
        assert!(head > played.stdout.len() || content.starts_with(&played.stdout[head..]));
    }
}

#[test]
fn a_running_get_fetches_first_what_is_read() {
    let world = World::new(6 << 20);
    let content = published(&world);
    let _seed = world.seed(&[]);
    let code = world.voucher(&[]);
    let get = world.get("alice", &["--download-limit", "512K", "--voucher", &code]);
    get.event("listening");
    let served = Served::start(&world, "alice", &[]);
    let all = world.shape().piece_count;
    // Far behind what has come, and back again.
    for from in [5 << 20, 2 << 20, 4 << 20] {
        let part = served.range(&format!("bytes={from}-{}", from + 99_999));
        assert_eq!(part.status, 206, "{}", String::from_utf8_lossy(&part.body));
        assert!(part.body == content[from..from + 100_000]);
        assert!(stored(&world, "alice") < all, "everything was there before");
    }
    // It reads to the end while the rest comes.
    assert!(served.get("0/content.bin", &[]).body == content);
    get.event("complete");
    served.ends();
}

#[test]
fn without_a_get_the_player_fetches_by_itself() {
    let world = World::new(2 << 20);
    let content = published(&world);
    let _seed = world.seed(&["--upload-limit", "2M"]);
    let (torrent, code) = (world.torrent(), world.voucher(&[]));
    world.expect("alice", &["subscribe", &torrent], 0);
    let served = Served::start(&world, "alice", &["--voucher", &code]);
    let from = 1_900_000;
    assert!(served.range(&format!("bytes={from}-")).body == content[from..]);
    assert!(served.get("0/content.bin", &[]).body == content);
    // A `get` that comes now finds its data in use; a second player is served by the first one's fetching.
    world.expect("alice", &["get", &torrent, "--listen", "127.0.0.1:0", "--exit"], 13);
    let second = Served::start(&world, "alice", &[]);
    assert!(second.range("bytes=0-99").body == content[..100]);
    second.ends();
    served.ends();
}

#[test]
fn what_moves_to_an_epoch_that_begins_meanwhile_is_served() {
    let mut world = World::new(700_000);
    let content = published(&world);
    let _seed = world.seed(&[]);
    let (torrent, token, code) = (world.torrent(), world.token(), world.voucher(&[]));
    world.expect("alice", &["subscribe", &torrent], 0);
    let served = Served::start(&world, "alice", &["--voucher", &code]);
    let all = world.shape().piece_count;
    // Its last piece, for which the player begins to fetch; none of what is asked for below.
    assert!(served.range("bytes=-10").body == content[content.len() - 10..]);
    until("not all is fetched", || stored(&world, "alice") == all);
    // Twice: the bytes of the one before may be read until others take their place.
    for epoch in [2, 3] {
        world.expect("operator", &["epochs", &torrent, "--admin-token-file", &token, "--begin"], 0);
        until("pieces of the old epoch stay", || world.stored("alice").0.epochs().into_iter().eq([epoch]));
    }
    // Without the tracker there is no license of it, and a reader is told why.
    world.tracker.take().unwrap().kill();
    let refused = served.range("bytes=200000-200009");
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert_eq!(refused.status, 503, "{said}");
    assert!(said.contains("is stored for epoch 3, and there is no license of that: "), "{said}");
    world.start_tracker();
    until("the license is not fetched", || served.range("bytes=200000-200009").status == 206);
    assert!(served.get("0/content.bin", &[]).body == content);
    served.ends();
    // It is kept.
    world.tracker.take().unwrap().kill();
    world.play("alice", &[], 0);
    world.assert_opened("alice");
}

#[test]
fn sealed_and_clear_bytes_are_served_as_one_file() {
    let content: Vec<u8> = (0..900_001_u64).map(|i| (i * i % 251) as u8).collect();
    // A run ends within each piece, and both kinds have whole pieces.
    let flags = ["--piece-length", "64K", "--protect", "ranges=100K-250K,300K-310K,500K-800K"];
    let world = World::of(|path| fs::write(path, &content).unwrap(), &flags);
    let _seed = world.seed(&[]);
    world.expect("bob", &["subscribe", &world.torrent()], 0);
    let code = world.voucher(&[]);
    let served = Served::start(&world, "bob", &["--voucher", &code]);
    // What nobody has fetched yet, from the middle on.
    for range in [600_000..900_001, 0..5, 99_000..320_000, 0..900_001, 250_000..256_001] {
        let answer =
            served.get("0/content", &[("Range", &format!("bytes={}-{}", range.start, range.end - 1))]);
        assert_eq!(answer.status, 206);
        assert!(answer.body == content[range.clone()], "{range:?}");
    }
    served.ends();
}

#[test]
fn a_bad_piece_is_fetched_again_while_it_is_served() {
    let world = World::new(1 << 20);
    let content = published(&world);
    let _seed = world.seed(&[]);
    let code = world.voucher(&[]);
    let (shape, bad) = (world.shape(), 5_u32);
    let from = bad as usize * (shape.piece_len as usize - 32);
    for fetches in [true, false] {
        let get = world.get("alice", &["--voucher", &code][if fetches { 0 } else { 2 }..]);
        get.event("complete");
        let get = if fetches {
            Some(get)
        } else {
            drop(get);
            None
        };
        world.damage("alice", bad);
        let served = Served::start(&world, "alice", &[]);
        let part = served.range(&format!("bytes={from}-{}", from + 9999));
        assert_eq!(part.status, 206, "{}", String::from_utf8_lossy(&part.body));
        assert!(part.body == content[from..from + 10_000]);
        until("the piece is still noted as bad", || {
            fs::read_to_string(world.torrent_dir("alice").join("bad")).map_or(true, |bad| bad.is_empty())
        });
        served.ends();
        drop(get);
    }
    world.play("alice", &[], 0);
    world.assert_opened("alice");
}

#[test]
fn a_license_that_ends_meanwhile_ends_the_reading() {
    let world = World::new(300_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--expires", "4s"]);
    let served = Served::start(&world, "alice", &["--voucher", &code]);
    assert_eq!(served.range("bytes=0-9").status, 206);
    until("it goes on", || served.range("bytes=0-9").status == 403);
    served.ends();
}

#[test]
fn nobody_else_can_be_served_by_mistake() {
    let world = World::new(1000);
    let torrent = world.torrent();
    for flags in [
        &["--serve=0.0.0.0:0"][..],
        &["--serve=nonsense"],
        &["--serve", "--output", "x"],
        &["--open", "--player", "mpv"],
        &["--tar"],
        &["--file", "a"],
        &["--serve", "--patience", "soon"],
    ] {
        let args = [&["play", &torrent], flags].concat();
        let refused = program(&world.path("alice"), &args).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{flags:?}");
    }
    world.expect("alice", &["play", &torrent, "--serve"], 4);
}

#[test]
fn a_player_that_does_not_start_is_no_reason_to_stop() {
    let world = World::new(1000);
    let _seed = world.seed(&[]);
    let code = world.voucher(&[]);
    world.fetch("alice");
    let served = Served::start(&world, "alice", &["--voucher", &code, "--player", "/no/such/player"]);
    assert_eq!(served.range("bytes=0-9").status, 206);
    // One that starts gets the addresses.
    let (script, told) = (world.path("player"), world.path("told"));
    fs::write(&script, format!("#!/bin/sh\nprintf %s \"$1\" > {0}.new && mv {0}.new {0}\n", told.display()))
        .unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&script).status().unwrap().success());
    let second = Served::start(&world, "alice", &["--player", &script.display().to_string()]);
    until("the player was not started", || told.exists());
    let url = format!("http://{}{}0/content.bin", second.address, second.path);
    assert_eq!(fs::read_to_string(told).unwrap(), url);
    second.ends();
    served.ends();
}

#[test]
fn several_files_go_through_a_pipe_as_one_archive() {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(120));
    let files = [("a/one.txt", 100), ("a/two.bin", 200_000), ("empty", 0), (&long, 513), ("z.txt", 512)];
    let write = |root: &std::path::Path| {
        for (path, size) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![size as u8 | 1; size]).unwrap();
        }
    };
    let world = World::of(write, &["--piece-length", "64K"]);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let (torrent, code) = (world.torrent(), world.voucher(&[]));
    let piped = |flags: &[&str]| {
        let args = [&["play", &torrent, "-o", "-"], flags].concat();
        let played = program(&world.path("alice"), &args).output().unwrap();
        assert_eq!(played.status.code(), Some(0), "{}", String::from_utf8_lossy(&played.stderr));
        played.stdout
    };
    let archive = piped(&["--voucher", &code]);
    assert!(archive == piped(&["--tar"]), "it is the same every time");
    let out = world.path("untarred");
    fs::create_dir(&out).unwrap();
    let mut tar =
        Command::new("tar").arg("x").current_dir(&out).stdin(std::process::Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    for (path, size) in files {
        assert!(fs::read(out.join(path)).unwrap() == vec![size as u8 | 1; size], "{path}");
    }
    assert!(piped(&["--file", "a/two.bin"]) == vec![200_000_u32 as u8 | 1; 200_000]);
    let numbered: Vec<u8> = piped(&["--file", "0"]);
    assert!(files.iter().any(|(_, size)| numbered == vec![*size as u8 | 1; *size]));
    let refused =
        program(&world.path("alice"), &["play", &torrent, "-o", "-", "--file", "b"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    // Cut anywhere before its end, it is refused by who reads it.
    for length in [archive.len() - 1024, archive.len() / 2] {
        let mut tar = Command::new("tar")
            .arg("t")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let _ = tar.stdin.take().unwrap().write_all(&archive[..length]);
        let code = tar.wait().unwrap().code();
        assert!(length == archive.len() - 1024 || code != Some(0), "{length}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let world = World::new(3 << 20);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let (torrent, code) = (world.torrent(), world.voucher(&[]));
    let args = ["play", &torrent, "-o", "-", "--voucher", &code];
    let mut play = program(&world.path("alice"), &args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    play.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(first[..], published(&world)[..10]);
    let ended = play.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}
