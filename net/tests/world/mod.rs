//! The program as its users run it: processes with directories and, on loopback, addresses of their own.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::Value;
use swarmseal::peer::{Shape, StoreReader};
use swarmseal::tracker_client::{AdminClient, Service};
use swarmseal::wire::keyfile::TokenFile;
use swarmseal::wire::metainfo::Metainfo;

/// No step of these tests takes nearly as long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// One of our programs. Where there is a directory `logs` beside its own, all that it logs at any level is kept there.
pub fn program(data: &Path, args: &[&str]) -> Command {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmseal"));
    command.arg("--json").arg("--data").arg(data).args(args).stdin(Stdio::null());
    let logs = data.with_file_name(LOGS);
    if logs.is_dir() {
        let verb = args.first().unwrap_or(&"none");
        let log = logs.join(format!("{}-{verb}", COUNTER.fetch_add(1, Ordering::Relaxed)));
        command.env("SWARMSEAL_LOG", "trace").stderr(fs::File::create(log).unwrap());
    }
    if data.with_file_name(PLAIN).exists() {
        command.env("SWARMSEAL_INSECURE_HTTP", "true");
    }
    if let Some((level, stderr)) = LOG.lock().unwrap().as_ref() {
        command.env("SWARMSEAL_LOG", level).stderr(stderr.try_clone().unwrap());
    }
    command
}

static LOG: Mutex<Option<(String, OwnedFd)>> = Mutex::new(None);

/// From now on all programs log at that level, to there.
pub fn log(level: &str, stderr: OwnedFd) {
    *LOG.lock().unwrap() = Some((level.to_owned(), stderr));
}

const LOGS: &str = "logs";
/// There where the tracker is not on loopback.
const PLAIN: &str = "plain-http";

/// A process that goes on running; killed (SIGKILL) when dropped.
pub struct Running {
    /// The process.
    pub child: Child,
    events: mpsc::Receiver<Value>,
}

impl Running {
    /// Starts a verb, with that directory for its data.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::of(program(data, args))
    }

    /// Starts a program that prints JSON.
    pub fn of(mut program: Command) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let lines: Lines<BufReader<ChildStdout>> = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Running { child, events }
    }

    /// The next object of that event.
    pub fn event(&self, event: &str) -> Value {
        loop {
            let object = self.events.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no `{event}`"));
            assert!(object.get("error").is_none(), "{object}");
            if object["event"] == event {
                return object;
            }
        }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its exit code, once it ends by itself.
    pub fn ends(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A publisher's world: a tracker, a published file, a seed file.
pub struct World {
    /// Where everything lies.
    pub dir: tempfile::TempDir,
    address: IpAddr,
    /// The tracker, while it runs.
    pub tracker: Option<Running>,
    /// Its public key.
    pub tracker_key: String,
    tracker_flags: Vec<String>,
    port: u64,
}

impl World {
    /// On 127.0.0.1, in pieces of 64 KiB.
    pub fn new(bytes: usize) -> Self {
        World::with_tracker(bytes, &[])
    }

    /// [`World::new`], with a tracker that has these flags.
    pub fn with_tracker(bytes: usize, flags: &[&str]) -> Self {
        World::make(bytes, IpAddr::V4(Ipv4Addr::LOCALHOST), flags, &["--piece-length", "64K"])
    }

    /// Publishes so many bytes with these flags; everybody is at that address, or on loopback if it is 127.0.0.1.
    pub fn publish(bytes: usize, address: IpAddr, flags: &[&str]) -> Self {
        World::make(bytes, address, &[], flags)
    }

    fn make(bytes: usize, address: IpAddr, tracker_flags: &[&str], flags: &[&str]) -> Self {
        World::found(address, tracker_flags).with_content(bytes, flags)
    }

    fn with_content(mut self, bytes: usize, flags: &[&str]) -> Self {
        let content: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8).collect();
        fs::write(self.path("content.bin"), content).unwrap();
        self.start_tracker();
        self.release("content.bin", flags);
        self
    }

    /// [`World::new`], all of whose programs log everything. See [`World::logs`].
    pub fn logged(bytes: usize) -> Self {
        let world = World::found(IpAddr::V4(Ipv4Addr::LOCALHOST), &[]);
        fs::create_dir(world.path(LOGS)).unwrap();
        world.with_content(bytes, &["--piece-length", "64K"])
    }

    /// What each program of a [`World::logged`] logged, by a name that says which it was.
    pub fn logs(&self) -> Vec<(String, String)> {
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        };
        fs::read_dir(self.path(LOGS)).unwrap().map(read).collect()
    }

    /// On 127.0.0.1, whatever `write` writes to the path that it is given.
    pub fn of(write: impl FnOnce(&Path), flags: &[&str]) -> Self {
        let mut world = World::found(IpAddr::V4(Ipv4Addr::LOCALHOST), &[]);
        write(&world.path("content"));
        world.start_tracker();
        world.release("content", flags);
        world
    }

    fn found(address: IpAddr, tracker_flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracker_flags = tracker_flags.iter().map(|&flag| flag.to_owned()).collect();
        if !address.is_loopback() {
            fs::write(dir.path().join(PLAIN), "").unwrap();
        }
        World { dir, address, tracker: None, tracker_key: String::new(), tracker_flags, port: 0 }
    }

    /// Licenses are signed by a server of their own, in the directory `licenser`. Also that server, and where it listens.
    pub fn with_license_server(bytes: usize) -> (Self, Running, String) {
        let mut world = World::found(IpAddr::V4(Ipv4Addr::LOCALHOST), &[]);
        // Each has to know the other's key: the tracker has one from its first start on.
        world.start_tracker();
        world.tracker.take().unwrap().kill();
        let (server, line) = world.license_server("127.0.0.1:0");
        let (url, _) = line.split_once('#').unwrap();
        let address = url.strip_prefix("http://").unwrap().to_owned();
        world.tracker_flags = vec!["--license-server".to_owned(), line];
        (world.with_content(bytes, &["--piece-length", "64K"]), server, address)
    }

    /// Starts the license server; also the line that a tracker takes.
    pub fn license_server(&self, listen: &str) -> (Running, String) {
        let (url, key) = (self.url(), &self.tracker_key);
        let args = ["license-server", "--tracker", &url, "--tracker-key", key, "--listen", listen];
        let server = Running::start(&self.path("licenser"), &args);
        let line = server.event("listening")["license_server"].as_str().unwrap().to_owned();
        (server, line)
    }

    fn release(&self, content: &str, flags: &[&str]) {
        let (tracker, token) = (self.url(), self.token());
        let (content, torrent, seed) = (self.file(content), self.torrent(), self.file("film.seed"));
        let args = ["publish", &content, "--tracker", &tracker, "--admin-token-file", &token];
        let args = [&args[..], &["--output", &torrent, "--seed-file", &seed], flags].concat();
        self.expect("publisher", &args, 0);
    }

    /// Starts the tracker, on the port that it had before.
    pub fn start_tracker(&mut self) {
        self.start_tracker_with(&[]);
    }

    /// The same, with further flags.
    pub fn start_tracker_with(&mut self, flags: &[&str]) {
        let listen = self.at(self.port);
        let mut args = vec!["tracker", "--listen", &listen, "--announce-interval", "1"];
        args.extend(self.tracker_flags.iter().map(String::as_str));
        args.extend(flags);
        let tracker = Running::start(&self.path("operator"), &args);
        let listening = tracker.event("listening");
        let [url, key] = ["url", "key"].map(|name| listening[name].as_str().unwrap().to_owned());
        self.tracker_key = key;
        self.port = url.rsplit_once(':').unwrap().1.parse().unwrap();
        self.tracker = Some(tracker);
    }

    /// A port at the tracker's address; 0: any.
    pub fn at(&self, port: u64) -> String {
        match self.address {
            IpAddr::V4(address) => format!("{address}:{port}"),
            IpAddr::V6(address) => format!("[{address}]:{port}"),
        }
    }

    /// Where the next process listens, at any port: on loopback an address of its own, else everybody's.
    pub fn listen(&self) -> String {
        if self.address == IpAddr::V4(Ipv4Addr::LOCALHOST) { own_address() } else { self.at(0) }
    }

    /// Something below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    pub fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The published torrent.
    pub fn torrent(&self) -> String {
        self.file("film.torrent")
    }

    /// The tracker's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.at(self.port))
    }

    /// The file with the admin token.
    pub fn token(&self) -> String {
        self.file("operator/tracker/admin.token")
    }

    /// The admin API.
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(&TokenFile::read(self.token().as_ref()).unwrap(), true).unwrap()
    }

    /// The tracker as its operator knows it.
    pub fn service(&self) -> Service {
        let TokenFile { origin, tracker_key, .. } = TokenFile::read(self.token().as_ref()).unwrap();
        Service::fixed(origin, tracker_key)
    }

    /// Runs a verb to its end and checks its exit code; the last object that it printed.
    pub fn expect(&self, who: &str, args: &[&str], code: i32) -> Value {
        let Output { status, stdout, stderr } = program(&self.path(who), args).output().unwrap();
        let (out, err) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert_eq!(status.code(), Some(code), "{args:?}\n{out}{err}");
        out.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
    }

    /// The original seed, once it listens.
    pub fn seed(&self, flags: &[&str]) -> Running {
        let seed_file = self.file("film.seed");
        let listen = self.listen();
        let args = [&["seed", &seed_file, "--listen", &listen], flags].concat();
        let seed = Running::start(&self.path("seeder"), &args);
        seed.event("listening");
        seed
    }

    /// A subscriber's peer.
    pub fn get(&self, who: &str, flags: &[&str]) -> Running {
        let (torrent, listen) = (self.torrent(), self.listen());
        let args = [&["get", &torrent, "--listen", &listen], flags].concat();
        Running::start(&self.path(who), &args)
    }

    /// Lets a subscriber fetch everything.
    pub fn fetch(&self, who: &str) {
        let get = self.get(who, &["--exit"]);
        get.event("complete");
        assert_eq!(get.ends(), Some(0));
    }

    /// A voucher on these terms.
    pub fn voucher(&self, terms: &[&str]) -> String {
        let (torrent, token) = (self.torrent(), self.token());
        let args = [&["voucher", &torrent, "--admin-token-file", &token], terms].concat();
        self.expect("publisher", &args, 0)["code"].as_str().unwrap().to_owned()
    }

    /// Plays, and checks the exit code; what was printed.
    pub fn play(&self, who: &str, flags: &[&str], code: i32) -> Value {
        let (torrent, to) = (self.torrent(), self.file(&format!("{who}/opened")));
        let args = [&["play", &torrent, "--output", &to, "--force"], flags].concat();
        self.expect(who, &args, code)
    }

    /// What was played is what was published.
    pub fn assert_opened(&self, who: &str) {
        let opened = fs::read(self.path(who).join("opened/content.bin")).unwrap();
        assert!(opened == fs::read(self.path("content.bin")).unwrap(), "{who} opened something else");
    }

    /// The published torrent's shape.
    pub fn shape(&self) -> Shape {
        let bytes = fs::read(self.torrent()).unwrap();
        let info = Metainfo::from_bytes(&bytes, swarmseal_accel::detect()).unwrap().info;
        Shape {
            torrent_id: info.seal.torrent_id,
            piece_len: info.piece_length,
            piece_count: info.piece_count,
        }
    }

    /// What a subscriber has on disk, and which pieces these are.
    pub fn stored(&self, who: &str) -> (StoreReader, Vec<u32>) {
        let shape = self.shape();
        let reader = StoreReader::open(&self.torrent_dir(who), &shape).unwrap();
        let pieces = (0..shape.piece_count).filter(|&piece| reader.piece(piece).is_some()).collect();
        (reader, pieces)
    }

    /// Turns a bit of a piece that a subscriber has on disk, whoever else writes there.
    pub fn damage(&self, who: &str, piece: u32) {
        let path = self.torrent_dir(who).join("pieces.bin");
        let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
        let place = SeekFrom::Start(u64::from(piece) * u64::from(self.shape().piece_len) + 5000);
        let mut byte = [0];
        file.seek(place).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(place).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    }

    /// The one torrent's directory of a device.
    pub fn torrent_dir(&self, who: &str) -> PathBuf {
        let mut dirs = fs::read_dir(self.path(who).join("torrents")).unwrap();
        dirs.next().unwrap().unwrap().path()
    }
}

/// An address of loopback that no other process of these tests has, with any port.
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{}:0",
        Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + NEXT.fetch_add(1, Ordering::Relaxed))
    )
}

/// Waits for something that can only be looked at.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}
