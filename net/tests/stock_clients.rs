//! Clients that nobody modified, aria2, Transmission and qBittorrent, as they are and told to force encryption: ordinary torrents
//! both ways, and personal ones.
//!
//! Each test starts itself again in a network namespace of its own, where the loopback device has an address that Transmission takes
//! peers at, and nothing leads out.

#![cfg(target_os = "linux")]

// Public, for not every item in it serves here.
pub mod world;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};
use swarmseal::wire::announce::{Announce, AnnounceReply, Event, Peer};
use swarmseal::wire::content::{FileEntry, FileList};
use swarmseal::wire::plain::PlainTorrent;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// A client takes some seconds to call; no step takes nearly as long.
const DEADLINE: Duration = Duration::from_secs(90);
const PIECE: u32 = 1 << 15;
const CLIENT_PORT: u16 = 7102;
/// Less than a piece.
const BLOCK: usize = 1 << 14;

/// Runs the test of that name once more in a namespace; whether this is that run.
fn inside(test: &str) -> bool {
    const MARK: &str = "SWARMSEAL_TEST_NAMESPACE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let script = format!("ip link set lo up && ip addr add {ADDRESS}/32 dev lo && exec \"$0\" \"$@\"");
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(MARK, "1")
        .status()
        .expect("unshare, of util-linux");
    assert!(status.success(), "the run in the namespace: {status}");
    false
}

/// A process that is killed at the end.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Running(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tracker that knows of one swarm; its announce URL. Who comes back to an address takes the place of who was there: libtorrent bans
/// an IP address for good where it meets itself.
fn tracker() -> String {
    let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut swarm = HashSet::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut reader = BufReader::new(&stream);
            let _ = reader.read_line(&mut request);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
                line.clear();
            }
            let query = request.split([' ', '?']).nth(2).unwrap_or("");
            let Ok(said) = Announce::from_query(query) else { continue };
            let address = SocketAddr::from((ADDRESS, said.port));
            if said.event == Some(Event::Stopped) {
                swarm.remove(&address);
            } else {
                swarm.insert(address);
            }
            let others = swarm.iter().filter(|other| **other != address);
            let others = others.map(|&address| Peer { address, id: None });
            let reply = AnnounceReply { interval: 2, peers: others.collect(), ..AnnounceReply::default() };
            let body = reply.to_bytes(true);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

/// A directory with a torrent of several files, and the files below `have`.
struct Ordinary {
    dir: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Ordinary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sizes = [("a.bin", 1_000_003), ("below/empty", 0), ("below/b.bin", 70_001), ("c.bin", 2_000_000)];
        let mut random = 1_u64;
        let mut byte = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 56) as u8
        };
        let files: Vec<(PathBuf, Vec<u8>)> = sizes
            .iter()
            .map(|&(path, size)| (Path::new("all").join(path), (0..size).map(|_| byte()).collect()))
            .collect();
        let entry = |(path, content): &(PathBuf, Vec<u8>)| FileEntry {
            mime: String::new(),
            path: path.iter().skip(1).map(|name| name.to_str().unwrap().to_owned()).collect(),
            size: content.len() as u64,
        };
        let list = FileList::new(files.iter().map(entry).collect()).unwrap();
        let stream: Vec<u8> = files.iter().flat_map(|(_, content)| content).copied().collect();
        let pieces: Vec<[u8; 20]> =
            stream.chunks(PIECE as usize).map(|piece| Sha1::digest(piece).into()).collect();
        let torrent = PlainTorrent {
            name: "all",
            files: Some(&list),
            length: stream.len() as u64,
            piece_len: PIECE,
            pieces: &pieces,
            announce: Some(&tracker()),
            private: true,
        };
        fs::write(dir.path().join("all.torrent"), torrent.to_bytes()).unwrap();
        let world = Ordinary { dir, files };
        for (path, content) in &world.files {
            let path = world.path("have").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Our peer on that directory; it ends when it has everything, if it is to.
    fn ours(&self, directory: &str, obfuscation: &str, exit: bool) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmseal"));
        command
            .args(["get", "--json"])
            .arg(self.path("all.torrent"))
            .arg("--output")
            .arg(self.path(directory));
        command.args(["--listen", &format!("{ADDRESS}:7101"), "--obfuscation", obfuscation]);
        command.args(exit.then_some("--exit"));
        Running::start(command.stdout(Stdio::null()))
    }

    /// Whether every file is there. Transmission makes no empty ones.
    fn is_whole(&self, directory: &str) -> bool {
        let directory = self.path(directory);
        let same = |(path, content): &(PathBuf, Vec<u8>)| {
            if content.is_empty() && directory.ends_with("theirs") {
                return true;
            }
            // Some clients write a file's last bytes after they give it its name.
            fs::File::open(directory.join(path)).is_ok_and(|mut file| {
                let mut found = Vec::new();
                file.read_to_end(&mut found).is_ok() && found == *content
            })
        };
        self.files.iter().all(same)
    }

    fn until_whole(&self, directory: &str) {
        let start = Instant::now();
        while !self.is_whole(directory) {
            assert!(start.elapsed() < DEADLINE, "{directory} is not whole");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Both ways: the client fetches from us, and we fetch from it. `client` starts one that downloads to or seeds from a directory,
    /// with a profile of its own.
    fn both_ways(&self, obfuscation: &str, client: Client, forced: bool) {
        let start = |profile: &str| {
            client.start(&self.path("all.torrent"), forced, &self.path("theirs"), &self.path(profile))
        };
        let (ours, theirs) = (self.ours("have", obfuscation, false), start("first"));
        self.until_whole("theirs");
        drop((ours, theirs));
        let (mut ours, theirs) = (self.ours("ours", obfuscation, true), start("second"));
        self.until_whole("ours");
        assert!(ours.0.wait().unwrap().success());
        drop(theirs);
    }
}

/// One that runs a client on a torrent, as the client is or told to force encryption, with a directory for the files and one for its
/// own.
#[derive(Clone, Copy)]
struct Client(fn(torrent: &Path, forced: bool, directory: &Path, profile: &Path) -> Command);

const ARIA2: Client = Client(aria2c);
const TRANSMISSION: Client = Client(transmission_cli);
const QBITTORRENT: Client = Client(qbittorrent_nox);

impl Client {
    fn start(self, torrent: &Path, forced: bool, directory: &Path, profile: &Path) -> Running {
        fs::create_dir_all(directory).unwrap();
        fs::create_dir_all(profile).unwrap();
        let mut command = (self.0)(torrent, forced, directory, profile);
        Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }
}

fn as_it_is(test: &str, client: Client) {
    if inside(test) {
        Ordinary::new().both_ways("allow", client, false);
    }
}

fn forced(test: &str, client: Client) {
    if inside(test) {
        for obfuscation in ["allow", "require"] {
            Ordinary::new().both_ways(obfuscation, client, true);
        }
    }
}

/// The client fetches one subscriber's personal torrent and then another's to the same place, where it refuses what is there; both
/// open what it brought them. First it has the original seed, then only a subscriber who is no seed.
fn personal(test: &str, client: Client, forced: bool, publish: &[&str]) {
    if !inside(test) {
        return;
    }
    let world = world::World::publish(1_500_000, IpAddr::V4(ADDRESS), publish);
    let seed = world.seed(&[]);
    let torrent = world.torrent();
    let sealed = world.path("theirs/content.bin.sealed");
    let run = |who: &str, code: &str| {
        let personal = world.file(&format!("{who}.torrent"));
        let running = client.start(
            Path::new(&personal),
            forced,
            &world.path("theirs"),
            &world.path(&format!("{who}-client")),
        );
        let start = Instant::now();
        // The player is its judge: it opens nothing but the very bytes.
        while let Err(why) = open(&world, who, &sealed, code) {
            assert!(start.elapsed() < DEADLINE, "what the client brought {who} does not open: {why}");
            std::thread::sleep(Duration::from_millis(500));
        }
        drop(running);
        // What aria2, killed, noted of the other torrent: it would refuse this one.
        let _ = fs::remove_file(world.path("theirs/content.bin.sealed.aria2"));
        fs::read(&sealed).unwrap()
    };
    for who in ["alice", "bob"] {
        world.expect(
            who,
            &["subscribe", &torrent, "--personal", "--output", &world.file(&format!("{who}.torrent"))],
            0,
        );
    }
    world.fetch("carol");
    // It is there, and has announced itself, before any client asks for peers: some ask only once in minutes.
    let carol = world.get("carol", &[]);
    carol.event("complete");
    let first = run("alice", &world.voucher(&[]));
    seed.kill();
    let second = run("bob", &world.voucher(&[]));
    assert_eq!(first.len(), second.len());
    let same = first.chunks(BLOCK).zip(second.chunks(BLOCK)).filter(|(first, second)| first == second);
    assert_eq!(same.count(), 0, "nothing is the same for two subscribers");
}

/// Plays from a client's file; why it does not.
fn open(world: &world::World, who: &str, sealed: &Path, code: &str) -> Result<(), String> {
    let (torrent, to) = (world.torrent(), world.file(&format!("{who}/opened")));
    let args = [
        "play",
        &torrent,
        "--output",
        &to,
        "--force",
        "--pieces",
        &sealed.display().to_string(),
        "--voucher",
        code,
    ];
    let output = world::program(&world.path(who), &args).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    }
    world.assert_opened(who);
    Ok(())
}

fn aria2c(torrent: &Path, forced: bool, directory: &Path, _profile: &Path) -> Command {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
    command.args(["--check-integrity", "--seed-ratio=0", &format!("--listen-port={CLIENT_PORT}")]);
    command.args(forced.then_some("--bt-force-encryption"));
    command.arg("--dir").arg(directory).arg(torrent);
    command
}

fn transmission_cli(torrent: &Path, forced: bool, directory: &Path, profile: &Path) -> Command {
    let mut command = Command::new("transmission-cli");
    // It verifies what is new to it. A second time, `--verify`, may come between that and its start, which it then never makes.
    command.args(["--no-portmap", "--port", &CLIENT_PORT.to_string()]);
    command.args(forced.then_some("--encryption-required"));
    command.arg("--config-dir").arg(profile).arg("--download-dir").arg(directory);
    command.arg(torrent);
    command
}

fn qbittorrent_nox(torrent: &Path, forced: bool, directory: &Path, profile: &Path) -> Command {
    // 0: both kinds, 1: encryption forced.
    let encryption = u8::from(forced);
    let settings = format!(
        "[LegalNotice]\nAccepted=true\n[BitTorrent]\nSession\\Port={CLIENT_PORT}\nSession\\DHTEnabled=false\n\
         Session\\LSDEnabled=false\nSession\\PeXEnabled=false\nSession\\Encryption={encryption}\n\
         [Preferences]\nWebUI\\Enabled=false\n"
    );
    let config = profile.join("qBittorrent/config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("qBittorrent.conf"), &settings).unwrap();
    let mut command = Command::new("qbittorrent-nox");
    command.arg(format!("--profile={}", profile.display()));
    command.arg(format!("--save-path={}", directory.display()));
    command.args(["--add-paused=false", "--skip-dialog=true"]).arg(torrent);
    command
}

const USUAL: &[&str] = &["--piece-length", "64K"];
/// Pieces that are no power of two.
const LARGE: &[&str] = &["--group", "ffdhe3072", "--piece-length", "48K"];

macro_rules! clients {
    ($($name:ident $needs:literal $run:ident $client:ident $($arg:expr)*;)+) => {$(
        #[test]
        #[ignore = $needs]
        fn $name() {
            $run(stringify!($name), $client, $($arg),*);
        }
    )+};
}

clients! {
    aria2 "needs aria2" as_it_is ARIA2;
    aria2_forced "needs aria2" forced ARIA2;
    aria2_personal "needs aria2" personal ARIA2 false USUAL;
    aria2_personal_forced "needs aria2" personal ARIA2 true USUAL;
    aria2_personal_3072 "needs aria2" personal ARIA2 false LARGE;
    transmission "needs transmission-cli" as_it_is TRANSMISSION;
    transmission_forced "needs transmission-cli" forced TRANSMISSION;
    transmission_personal "needs transmission-cli" personal TRANSMISSION false USUAL;
    transmission_personal_forced "needs transmission-cli" personal TRANSMISSION true USUAL;
    qbittorrent "needs qbittorrent-nox" as_it_is QBITTORRENT;
    qbittorrent_forced "needs qbittorrent-nox" forced QBITTORRENT;
    qbittorrent_personal "needs qbittorrent-nox" personal QBITTORRENT false USUAL;
    qbittorrent_personal_forced "needs qbittorrent-nox" personal QBITTORRENT true USUAL;
    qbittorrent_personal_3072 "needs qbittorrent-nox" personal QBITTORRENT false LARGE;
}
