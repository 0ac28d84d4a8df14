//! The tracker as its operator runs it: configuration, logs, signals, and what is under `net/dist`.

// Public, for not every item in it serves here.
pub mod world;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde_json::Value;
use swarmseal::tracker::Config;
use swarmseal::tracker_client::{AdminClient, Client, OwnKeys, Service, trust};
use swarmseal::wire::api::{OpenSession, Role, SessionOpened};
use swarmseal::wire::authority::{Authority, SignedAuthority};
use swarmseal::wire::bencode;
use swarmseal::wire::identity::{Identity, SigningKey};
use swarmseal::wire::keyfile::TokenFile;
use swarmseal::wire::metainfo::Metainfo;
use swarmseal_core::{SecretKey, SubscriberId, WitnessSecret};
use world::{DEADLINE, Running, World, program};

/// A tracker whose log goes to a file.
struct Logged {
    child: Child,
    log: PathBuf,
}

impl Logged {
    fn start(data: &Path, flags: &[&str], log: &[&str]) -> Self {
        fs::create_dir_all(data).unwrap();
        let path = data.join("log");
        let args = [log, &["tracker", "--listen", "127.0.0.1:0"], flags].concat();
        let mut tracker = program(data, &args);
        tracker.stderr(File::create(&path).unwrap()).stdout(File::create(data.join("out")).unwrap());
        Logged { child: tracker.spawn().unwrap(), log: path }
    }

    fn url(&self) -> String {
        let out = self.log.with_file_name("out");
        let line = until(|| fs::read_to_string(&out).ok().filter(|out| out.ends_with('\n')));
        serde_json::from_str::<Value>(line.trim()).unwrap()["url"].as_str().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(done.success());
    }

    /// Ends it in order; its log.
    fn end(mut self) -> String {
        self.signal("-TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes of it, once something does.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "nothing happened");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An own authority's certificate for this machine, with `ca.pem`, `cert.pem` and `key.pem` in the directory.
fn certify(directory: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new([]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(directory.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    fs::write(directory.join("cert.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn bought_and_opened_by_tls_with_an_authority_of_one_s_own() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = ["--tls-certificate", &file("cert.pem"), "--tls-key", &file("key.pem")];
    let tracker = Logged::start(&dir.path().join("operator"), &tls, &["--log", "info"]);
    let (url, ca) = (tracker.url(), file("ca.pem"));
    assert!(url.starts_with("https://"), "{url}");
    fs::write(dir.path().join("film.bin"), [7; 100_000]).unwrap();
    let verb = |who: &str, args: &[&str], code: i32| {
        let output = program(&dir.path().join(who), args).output().unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{err}");
        (out, err)
    };
    let (film, torrent, seed) = (file("film.bin"), file("film.torrent"), file("film.seed"));
    let token = file("operator/tracker/admin.token");
    let publish = ["publish", &film, "--tracker", &url, "--admin-token-file", &token, "--output", &torrent];
    let publish = [&publish[..], &["--seed-file", &seed, "--piece-length", "64K"]].concat();
    // Without the authority it is nobody that one should trust.
    let (_, error) = verb("publisher", &publish, 3);
    assert!(error.contains("certificate"), "{error}");
    let trusting = |args: &[&str]| {
        [&["--tracker-ca", ca.as_str()], args].concat().iter().map(|arg| arg.to_string()).collect::<Vec<_>>()
    };
    let run = |who: &str, args: &[&str]| {
        let args = trusting(args);
        verb(who, &args.iter().map(String::as_str).collect::<Vec<_>>(), 0).0
    };
    run("publisher", &publish);
    let voucher = run("publisher", &["voucher", &torrent, "--admin-token-file", &token]);
    let voucher: Value = serde_json::from_str(voucher.trim()).unwrap();
    let seeding = Running::start(
        &dir.path().join("seeder"),
        &["--tracker-ca", &ca, "seed", &seed, "--listen", "127.0.0.1:0"],
    );
    seeding.event("listening");
    run("alice", &["get", &torrent, "--listen", "127.0.0.1:0", "--exit"]);
    let opened = file("opened");
    run("alice", &["play", &torrent, "--voucher", voucher["code"].as_str().unwrap(), "--output", &opened]);
    assert_eq!(fs::read(dir.path().join("opened/film.bin")).unwrap(), [7; 100_000]);

    // A certificate of another authority: after SIGHUP those who trust the first one are right to stay away.
    certify(dir.path());
    fs::copy(dir.path().join("ca.pem"), dir.path().join("new.pem")).unwrap();
    tracker.signal("-HUP");
    until(|| fs::read_to_string(&tracker.log).unwrap().contains("read again").then_some(()));
    run("bob", &["subscribe", &torrent]);
    // What was read badly is said, and changes nothing.
    fs::write(dir.path().join("key.pem"), "nothing").unwrap();
    tracker.signal("-HUP");
    until(|| fs::read_to_string(&tracker.log).unwrap().contains("stays in use").then_some(()));
    run("carol", &["subscribe", &torrent]);
    // A new passkey is kept, and a running program would find it by itself.
    run("carol", &["passkey", &torrent]);
    tracker.end();
}

/// Everything that is secret and crosses the network, in a log of everything.
#[test]
fn no_secret_stands_in_any_log() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    trust(&dir.path().join("ca.pem")).unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = ["--tls-certificate", &file("cert.pem"), "--tls-key", &file("key.pem")];
    for (name, tls, format) in [("plain", &[][..], "text"), ("tls", &tls[..], "json")] {
        let data = dir.path().join(name);
        let tracker = Logged::start(&data, tls, &["--log", "trace", "--log-format", format]);
        let url = tracker.url();
        let token = TokenFile::read(&data.join("tracker/admin.token")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut secrets = runtime.block_on(talk(&url, &token));
        secrets.push(token.token.to_hex());
        let log = tracker.end();
        assert!(log.contains("announce") && log.contains("rekey"), "the log says too little:\n{log}");
        for secret in secrets {
            assert!(!log.to_lowercase().contains(&secret.to_lowercase()), "{secret} is in the log:\n{log}");
        }
        if format == "json" {
            for line in log.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            }
            let answered = |line: &&str| line.contains("\"call\":\"announce\"");
            let line: Value = serde_json::from_str(log.lines().find(answered).unwrap()).unwrap();
            assert_eq!((&line["status"], &line["target"]), (&200.into(), &"swarmseal::access".into()));
        }
    }
}

/// Makes calls of every kind; the secrets in them.
async fn talk(url: &str, token: &TokenFile) -> Vec<String> {
    let admin = AdminClient::new(token, false).unwrap();
    let metainfo = published(&admin, token).await;
    let torrent = metainfo.info.seal.torrent_id;
    let params = &metainfo.info.seal.params;
    let (secret, identity) =
        (SecretKey::generate(params, &mut UnwrapErr(SysRng)), Identity::generate(&mut UnwrapErr(SysRng)));
    let public = secret.public_key(params);
    let client = Client::new(Service::fixed(token.origin.clone(), token.tracker_key)).unwrap();
    let subscribed = client.subscribe(params, torrent, (&secret, &public), &identity).await.unwrap();
    let id = subscribed.subscriber;
    let voucher = admin.create_voucher(&metainfo.info.seal, Default::default()).await.unwrap();
    let own = client.as_subscriber(&torrent, id, identity.signing_key().clone());
    own.license(torrent, Some(&voucher)).await.unwrap();
    let passkey = own.passkey(torrent, true).await.unwrap().to_hex();
    // By hand: every form of URL, and a session whose token we know.
    let raw = raw_client();
    let hash: String = metainfo.info_hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let query =
        format!("info_hash={hash}&peer_id=-XX0000-123456789012&port=7&uploaded=0&downloaded=0&left=0");
    for path in [
        format!("{passkey}/announce?{query}"),
        format!("announce/{passkey}?{query}"),
        format!("announce?{query}&passkey={passkey}"),
        format!("{passkey}/announce?port={passkey}"),
        format!("{passkey}/scrape?info_hash={hash}"),
        format!("{passkey}/nothing"),
        passkey.clone(),
    ] {
        raw.get(format!("{url}/{path}")).send().await.unwrap();
    }
    let contact = client.identify().await.unwrap();
    let request = OpenSession::new(identity.signing_key(), Role::Subscriber, id, torrent, contact);
    let opened = raw.post(format!("{url}/session")).body(bencode::to_bytes(&request)).send().await.unwrap();
    let opened: SessionOpened = bencode::from_bytes(&opened.bytes().await.unwrap(), 4096).unwrap();
    let bearer = opened.token.to_text();
    for call in ["rekey", "license", "passkey", "nothing"] {
        let request = raw.post(format!("{url}/{call}")).bearer_auth(&bearer).body("de");
        assert!(!request.send().await.unwrap().status().is_success());
    }
    let key = hex::encode(&own.witness(torrent, 1, &[1]).await.unwrap().keys);
    let codes = [voucher.as_str().to_owned(), (*voucher.to_text()).clone()];
    [vec![subscribed.passkey.to_hex(), passkey, bearer, hex::encode(WITNESS), key], codes.into()].concat()
}

fn raw_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // It is the tracker's log that counts here.
    reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap()
}

/// The witness secret of [`published`].
const WITNESS: [u8; 32] = *b"whoever reads this reads secrets";

/// A torrent that the tracker knows.
async fn published(admin: &AdminClient, token: &TokenFile) -> Metainfo {
    use std::sync::Arc;
    use swarmseal::wire::metainfo::{Info, Seal};
    use swarmseal_core::{Exponents, Group, Params, Profile};
    let group = Group::ffdhe2048(swarmseal_accel::detect());
    let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
    let publisher = SigningKey::from_bytes(&[5; 32]);
    let OwnKeys { tracker_key, license_key } = admin.keys().await.unwrap();
    let authority = Authority { license_key, origins: vec![token.origin.clone()], serial: 1, tracker_key };
    let authority = SignedAuthority::sign(authority, &publisher).unwrap();
    let seal = Seal::new(publisher.public(), [5; 32], Arc::new(params));
    let torrent = seal.torrent_id;
    let seal = Seal { witness: Arc::new([[2; 32]; 2]), ..seal };
    let (piece_length, pieces) = (16384, vec![[1; 20]; 2]);
    let info = Info { name: "a film".to_owned(), piece_length, piece_count: 2, pieces, private: true, seal };
    let metainfo = Metainfo::new(Some(authority), info).unwrap();
    let seed_key = SigningKey::generate(&mut UnwrapErr(SysRng));
    let witness = WitnessSecret::from_bytes(WITNESS);
    let registered = admin.register_torrent(&metainfo, &seed_key.public(), &witness).await.unwrap();
    assert_eq!(registered.seed, SubscriberId::of_seed(&torrent, &seed_key.public()));
    metainfo
}

#[test]
fn the_configuration_is_printed_read_and_overridden() {
    let dir = tempfile::tempdir().unwrap();
    let printed = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = program(dir.path(), &[&["tracker"], args, &["--print-config"]].concat());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        (Config::from_table(Config::parse(&text).unwrap()).unwrap(), text)
    };
    let (defaults, text) = printed(&[], &[]);
    assert_eq!(defaults, Config::default());
    let file = dir.path().join("tracker.toml");
    fs::write(
        &file,
        text.replace("max_peers = 200", "max_peers = 3").replace("idle_seconds = 60", "idle_seconds = 3"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let variables = [("SWARMSEAL_TRACKER_MAX_PEERS", "4"), ("SWARMSEAL_TRACKER_BODY_TIME", "4s")];
    // Flag, then variable, then file.
    let (config, _) = printed(&["--config", file, "--body-time", "5s"], &variables);
    assert_eq!((config.idle_seconds, config.max_peers, config.body_seconds), (3, 4, 5));

    fs::write(file, "max_pears = 3\n").unwrap();
    let refused = program(dir.path(), &["tracker", "--config", file]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("unknown setting `max_pears`: did you mean `max_peers`?"), "{error}");
    let refused = program(dir.path(), &["tracker", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--insecure-http"));
}

/// Attack 9b: more idle connections than the tracker has file descriptors.
#[test]
fn a_tracker_of_few_descriptors_answers_whatever_is_idle() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::io::{Read, Write};

    // For our own ends of the connections.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let limited = |soft: u32, hard: u32| {
        let tracker = program(&dir.path().join("operator"), &["tracker", "--listen", "127.0.0.1:0"]);
        let mut shell = Command::new("sh");
        let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        shell.arg("-c").arg(limits).arg(tracker.get_program()).args(tracker.get_args());
        shell
    };
    let tracker = Running::of(limited(256, 1024));
    let url = tracker.event("listening")["url"].as_str().unwrap().to_owned();
    let address: std::net::SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = |from: [u8; 4]| {
        let connecting = async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        };
        let stream = runtime.block_on(connecting);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let ready = |mut stream: std::net::TcpStream| {
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let mut idle = Vec::new();
    for number in 0..1100 {
        // This machine's are not bounded but in all; another network's are 550.
        let stream = connect(if number % 2 == 0 { [127, 0, 0, 1] } else { [127, 0, 0, 66] });
        let upload = b"POST /session HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\nd";
        if number % 3 == 0 {
            (&stream).write_all(upload).unwrap();
        }
        idle.push(stream);
    }
    for host in 1..20 {
        let answer = ready(connect([127, 0, 7, host]));
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    // The soft limit is the hard one, and the connections fit it.
    let token = TokenFile::read(&dir.path().join("operator/tracker/admin.token")).unwrap();
    let service = Service::fixed(token.origin, token.tracker_key);
    let metrics = runtime.block_on(Client::new(service).unwrap().metrics()).unwrap();
    assert!(metrics.contains("\nswarmseal_tracker_max_open_connections 896\n"), "{metrics}");
}

#[test]
fn a_publisher_sells_with_a_token_of_its_own() {
    let world = World::new(100_000);
    let (url, token, own) = (world.url(), world.token(), world.file("shop.token"));
    let by = ["--tracker", &url, "--admin-token-file", &token];
    let issue = ["token", "create", "shop", "--role", "publisher", "--output", &own];
    let issued = world.expect("operator", &[&issue[..], &by].concat(), 0);
    // It is not written over another.
    world.expect("operator", &[&issue[..], &by].concat(), 12);
    let torrent = world.torrent();
    let sell = ["voucher", &torrent, "--admin-token-file", &own];
    let code = world.expect("shop", &sell, 0)["code"].as_str().unwrap().to_owned();
    world.expect("shop", &["revoke", "--voucher", &code, "--tracker", &url, "--admin-token-file", &own], 0);
    world.expect("shop", &["audit", "--tracker", &url, "--admin-token-file", &own], 3);
    let last = world.expect("operator", &[&["audit", "--limit", "1"][..], &by].concat(), 0);
    assert_eq!(last["entry"]["outcome"], "403 wrong-role");
    world.expect("operator", &[&["token", "revoke", issued["id"].as_str().unwrap()][..], &by].concat(), 0);
    world.expect("shop", &sell, 3);
}

fn dist(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)).unwrap()
}

/// Names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        .filter(|word| word.starts_with("swarmseal_tracker_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_dashboard_asks_for_what_metrics_print() {
    let world = World::new(100_000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(Client::new(world.service()).unwrap().metrics()).unwrap();
    let mut printed = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(printed.insert(series.to_owned()), "{series} stands twice");
    }
    let names: BTreeSet<String> =
        printed.iter().map(|series| series.split('{').next().unwrap().to_owned()).collect();
    for name in &names {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let typed = text.contains(&format!("# TYPE {family} "));
        assert!(typed && text.contains(&format!("# HELP {family} ")), "{name} has no type or help");
    }
    let dashboard: Value = serde_json::from_str(&dist("grafana-dashboard.json")).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let of_it = metrics_in(target["expr"].as_str().unwrap());
            assert!(!of_it.is_empty(), "{target}");
            asked.extend(of_it);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        asked.extend(metrics_in(variable["query"].as_str().unwrap()));
    }
    let unknown: Vec<_> = asked.difference(&names).collect();
    assert!(unknown.is_empty(), "not printed: {unknown:?}");
}

#[test]
fn the_unit_and_the_image_name_what_there_is() {
    let (unit, image) = (dist("swarmseal-tracker.service"), dist("Dockerfile"));
    let known: BTreeSet<&str> = Config::SETTINGS.iter().filter_map(|setting| setting.variable).collect();
    let general = ["SWARMSEAL_DATA", "SWARMSEAL_LOG", "SWARMSEAL_LOG_FORMAT"];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for text in [&unit, &image] {
        for name in text.split(|c| !word(c)).filter(|word| word.starts_with("SWARMSEAL_")) {
            assert!(known.contains(name) || general.contains(&name), "{name}");
        }
    }
    assert!(unit.contains("ExecStart=/usr/local/bin/swarmseal tracker --config "));
    assert!(image.contains("\nUSER 10001:10001\n") && image.contains("CMD [\"tracker\", \"--listen\""));
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarmseal-tracker.service");
    // It looks whether the program is there.
    fs::write(&path, dist("swarmseal-tracker.service").replace("/usr/local/bin/swarmseal", "/bin/true"))
        .unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    assert!(
        verified.status.success() && verified.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    // 0 is no exposure, 10 the most; 2.0 is "OK".
    let secure = ["security", "--offline=yes", "--threshold=20"];
    let secure = Command::new("systemd-analyze").args(secure).arg(&path).output().unwrap();
    assert!(secure.status.success(), "{}", String::from_utf8_lossy(&secure.stdout));
}
