//! `demo`: a whole swarm as child processes on loopback, checked and attacked.

mod attacker;
mod children;
mod content;
mod evidence;
mod forger;
mod impostor;
mod stranger;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::output::bytes;
use super::subscription::at;
use super::{Exit, Failure, Output, glue};
use crate::tracker_client::AdminClient;
use crate::wire::keyfile::TokenFile;
use children::{Running, call};
use content::Content;
pub(super) use impostor::{Args as ImpostorArgs, run as impostor};
pub(super) use stranger::{Args as StrangerArgs, run as stranger};

/// Licensed peers.
const LICENSED: usize = 8;
/// Bytes of the `paper` torrent that serves as the attacker's positive control.
const CONTROL_BYTES: u64 = 256 << 10;
/// How long any one child may take for a step that moves no pieces.
const STEP: Duration = Duration::from_secs(60);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal demo --size 256M --json")]
pub(super) struct Args {
    /// Spread this file
    #[arg(long, env = "SWARMSEAL_FILE", value_name = "FILE", conflicts_with = "size")]
    file: Option<PathBuf>,
    /// Spread this much generated data: a number with K, M or G
    #[arg(long, env = "SWARMSEAL_SIZE", value_name = "SIZE", default_value = "64M", value_parser = super::size)]
    size: u64,
    /// Leave every directory, log and store for inspection
    #[arg(long, env = "SWARMSEAL_KEEP")]
    keep: bool,
    /// Give up after so many seconds
    #[arg(long, env = "SWARMSEAL_TIMEOUT", value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
}

/// The outcome, as `--json` prints it.
struct Report {
    verified: bool,
    pieces: u64,
    bytes: u64,
    seconds: f64,
    peer_to_peer_share: f64,
    equal_ciphertext_pieces: usize,
    attacks: Vec<AttackResult>,
    stranger_bytes: u64,
    rekeys: u64,
}

/// One attack on one torrent.
pub(super) struct AttackResult {
    name: &'static str,
    profile: &'static str,
    opened: bool,
}

impl Report {
    fn holds(&self) -> bool {
        self.verified
            && self.equal_ciphertext_pieces == 0
            && self.stranger_bytes == 0
            && self.peer_to_peer_share > 0.5
            && self.attacks.iter().all(|a| a.opened == (a.profile == "paper" && a.name == "one known block"))
    }

    fn json(&self) -> Value {
        json!({
            "verified": self.verified,
            "pieces": self.pieces,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "peers": LICENSED + 2,
            "peer_to_peer_share": self.peer_to_peer_share,
            "equal_ciphertext_pieces": self.equal_ciphertext_pieces,
            "attacks": self.attacks.iter().map(|a| json!({
                "name": a.name, "profile": a.profile, "opened": a.opened,
            })).collect::<Vec<_>>(),
            "stranger_bytes": self.stranger_bytes,
            "rekeys": self.rekeys,
            "plain_bytes_per_second": (self.bytes as f64 * LICENSED as f64 / self.seconds).round(),
        })
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ("opened by every licensed peer".into(), if self.verified { "yes" } else { "NO" }.to_string()),
            ("pieces".into(), format!("{} ({})", self.pieces, bytes(self.bytes))),
            ("time to spread".into(), format!("{:.1} s", self.seconds)),
            ("from peers, not the seed".into(), format!("{:.0} %", 100.0 * self.peer_to_peer_share)),
            ("equal ciphertext pieces".into(), self.equal_ciphertext_pieces.to_string()),
            ("piece bytes that the stranger got".into(), self.stranger_bytes.to_string()),
            ("re-keys issued".into(), self.rekeys.to_string()),
        ];
        rows.extend(self.attacks.iter().map(|attack| {
            let outcome = if attack.opened { "opened" } else { "nothing" };
            (format!("attack on {}: {}", attack.profile, attack.name), outcome.to_string())
        }));
        rows.iter().map(|(what, value)| format!("  {what:<52} {value}\n")).collect::<String>()
            + if self.holds() { "All holds." } else { "NOT all holds." }
    }
}

/// Runs the swarm, checks it, attacks it, reports.
pub(super) async fn run(args: Args, data: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let work = Workplace::new(data, args.keep)?;
    let deadline = Duration::from_secs(args.timeout);
    let swarm = async {
        tokio::time::timeout(deadline, spread_and_attack(&args, work.path(), output)).await.unwrap_or_else(
            |_| Err(Failure::new(Exit::DemoFailed, format!("not done within {} s", args.timeout))),
        )
    };
    let report = tokio::select! {
        report = swarm => report,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    if args.keep {
        output.note(format!("Everything is left in {}", work.path().display()));
    }
    let report = report?;
    output.result(report.table(), report.json());
    if report.holds() { Ok(()) } else { Err(Failure::new(Exit::DemoFailed, "a check of the demo failed")) }
}

async fn spread_and_attack(args: &Args, work: &Path, output: Output) -> Result<Report, Failure> {
    let content = Content::prepare(work, args.file.as_deref(), args.size)?;
    let control = Content::generate(&work.join("control.bin"), CONTROL_BYTES)?;

    output.note("Starting a tracker and publishing two torrents");
    let mut tracker = Running::start(
        "tracker",
        &work.join("tracker"),
        &["tracker", "--listen", "127.0.0.1:0", "--insecure-paper-profile"],
    )?;
    let listening = tracker.event("listening", STEP).await?;
    let url = text(&listening, "url")?;
    let token = text(&listening, "admin_token_file")?;
    let sealed = publish(work, "sealed", &content.path, &url, &token, &[]).await?;
    let paper_flags = ["--profile", "paper", "--group", "prime512", "--insecure-paper-profile"];
    let paper = publish(work, "paper", &control.path, &url, &token, &paper_flags).await?;
    let mut vouchers = Vec::new();
    // One more for the forger's victim.
    for _ in 0..=LICENSED {
        let args = ["voucher", &sealed.metainfo, "--tracker", &url, "--admin-token-file", &token];
        let voucher = call("voucher", &work.join("publisher"), &args, "voucher", STEP).await?;
        vouchers.push(text(&voucher, "code")?);
    }
    let spare = vouchers.pop().unwrap_or_default();

    output
        .note(format!("Spreading {} to {LICENSED} licensed peers and one unlicensed", bytes(content.bytes)));
    let started = Instant::now();
    // One copy in about four seconds per 64 MiB: the peers, not the seed, must carry the rest.
    let limit = (content.bytes / 4).clamp(1 << 20, 16 << 20).to_string();
    let mut seed = Running::start(
        "seed",
        &work.join("seed"),
        &[
            "seed",
            &sealed.seed_file,
            &paper.seed_file,
            "--listen",
            &address(1),
            "--super-seed",
            "--upload-limit",
            &limit,
        ],
    )?;
    let seed_address = text(&seed.event("listening", STEP).await?, "address")?;
    let get = ["get", &sealed.metainfo, "--transcript"];
    let mut peers = Vec::new();
    for (i, voucher) in vouchers.iter().enumerate() {
        let name = peer_name(i);
        let dir = work.join(&name);
        let transcript = dir.join("transcript").display().to_string();
        let listen = address(2 + i as u8);
        let args = [&get[..], &[transcript.as_str(), "--voucher", voucher, "--listen", &listen]].concat();
        peers.push(Running::start(&name, &dir, &args)?);
    }
    let attacker_dir = work.join("unlicensed");
    let transcript = attacker_dir.join("transcript").display().to_string();
    let listen = address(2 + LICENSED as u8);
    let args_of_attacker = [&get[..], &[transcript.as_str(), "--listen", &listen]].concat();
    let mut attacker = Running::start("unlicensed", &attacker_dir, &args_of_attacker)?;
    let first = text(&peers[0].event("listening", STEP).await?, "address")?;
    let mut stranger = Running::start(
        "stranger",
        &work.join("stranger"),
        &["stranger", &sealed.metainfo, "--peer", &first, "--seconds", "5"],
    )?;

    let second = text(&peers[1].event("listening", STEP).await?, "address")?;
    let from = address(3 + LICENSED as u8);
    let from = from.trim_end_matches(":0");
    let names = ["--seed", &seed_address, "--from", from, "--peer", &first, "--peer", &second];
    let mut impostor = Running::start(
        "impostor",
        &work.join("impostor"),
        &[&["impostor", &sealed.metainfo, "--seconds", "5"][..], &names].concat(),
    )?;

    let (mut from_seeds, mut from_peers) = (0, 0);
    let patience = Duration::from_secs(args.timeout);
    for peer in peers.iter_mut().chain([&mut attacker]) {
        let complete = peer.event("complete", patience).await?;
        from_seeds += number(&complete, "bytes_from_seeds");
        from_peers += number(&complete, "bytes_from_peers");
    }
    let seconds = started.elapsed().as_secs_f64();
    let stranger_bytes = number(&stranger.event("stranger", STEP).await?, "piece_bytes");
    if number(&impostor.event("impostor", STEP).await?, "piece_bytes") == 0 {
        return Err(Failure::new(Exit::DemoFailed, "the impostor was asked for nothing"));
    }
    // A peer of the control torrent, unlicensed too: the attacker's own ciphertext under `paper`.
    let transcript = attacker_dir.join("transcript-paper").display().to_string();
    call(
        "unlicensed, paper",
        &attacker_dir,
        &[
            "get",
            &paper.metainfo,
            "--listen",
            &listen,
            "--exit",
            "--insecure-paper-profile",
            "--transcript",
            &transcript,
        ],
        "complete",
        STEP,
    )
    .await?;

    output.note("Opening the copies");
    let mut verified = true;
    for i in 0..LICENSED {
        let dir = work.join(peer_name(i));
        let opened = dir.join("opened");
        let to = opened.display().to_string();
        call("play", &dir, &["play", &sealed.metainfo, "--output", &to], "played", patience).await?;
        verified &= content.equals(&opened.join(&content.name))?;
        // The opened copy is checked; with 8 peers it would fill a disk.
        if !args.keep {
            let _ = std::fs::remove_dir_all(&opened);
        }
    }
    let to = attacker_dir.join("opened").display().to_string();
    let args = ["play", &sealed.metainfo, "--output", &to];
    verified &= call("play without a license", &attacker_dir, &args, "played", STEP).await.is_err();
    let rekeys = rekeys_issued(&token).await?;
    let licensed: Vec<PathBuf> = (0..LICENSED).map(|i| work.join(peer_name(i))).collect();
    let sealed_path = PathBuf::from(&sealed.metainfo);
    let harvest = evidence::harvest(&sealed_path, &attacker_dir, &licensed).await?;
    let forged = forger::forge(work, &sealed_path, &work.join("publisher"), (&url, &spare)).await?;
    for running in peers.into_iter().chain([attacker, stranger, impostor, seed, tracker]) {
        running.stop().await;
    }

    output.note("Attacking");
    let (content_path, control_path, paper_path) =
        (content.path.clone(), control.path.clone(), PathBuf::from(&paper.metainfo));
    let (equal, mut attacks) = tokio::task::spawn_blocking(move || {
        let sealed =
            evidence::Scene::load(&sealed_path, "transcript", &attacker_dir, &licensed, &content_path)?;
        let paper =
            evidence::Scene::load(&paper_path, "transcript-paper", &attacker_dir, &[], &control_path)?;
        let mut attacks = sealed.attack()?;
        attacks.extend(paper.attack()?);
        Ok::<_, Failure>((sealed.equal_pieces()?, attacks))
    })
    .await
    .map_err(|error| Failure::new(Exit::DemoFailed, format!("the attacker stopped: {error}")))??;

    attacks.insert(0, harvest);
    attacks.insert(1, forged);
    // It succeeds where a peer takes its pieces for the seed's.
    attacks.insert(2, AttackResult { name: "borrowed identity", profile: "sealed", opened: !verified });
    Ok(Report {
        verified,
        pieces: sealed.pieces,
        bytes: content.bytes,
        seconds,
        peer_to_peer_share: from_peers as f64 / (from_peers + from_seeds).max(1) as f64,
        equal_ciphertext_pieces: equal,
        attacks,
        stranger_bytes,
        rekeys,
    })
}

struct Published {
    metainfo: String,
    seed_file: String,
    pieces: u64,
}

async fn publish(
    work: &Path,
    name: &str,
    content: &Path,
    url: &str,
    token: &str,
    flags: &[&str],
) -> Result<Published, Failure> {
    let metainfo = work.join(format!("{name}.torrent")).display().to_string();
    let seed_file = work.join(format!("{name}.seed")).display().to_string();
    let content = content.display().to_string();
    let args = [
        &["publish", &content, "--tracker", url, "--admin-token-file", token],
        &["--output", &metainfo, "--seed-file", &seed_file, "--name", name][..],
        flags,
    ]
    .concat();
    let published =
        call("publish", &work.join("publisher"), &args, "published", Duration::from_secs(600)).await?;
    Ok(Published { metainfo, seed_file, pieces: number(&published, "pieces") })
}

/// Re-keys that the tracker has issued.
async fn rekeys_issued(token_file: &str) -> Result<u64, Failure> {
    let path = Path::new(token_file);
    let token = TokenFile::read(path).map_err(at(path))?;
    let admin = AdminClient::new(&token, false).map_err(glue::client_failure)?;
    Ok(number(&admin.stats().await.map_err(glue::client_failure)?, "rekeys"))
}

/// Where a process listens, at any port: an address of its own, so that peers tell it from others as they tell hosts. Where the system
/// has no more than 127.0.0.1, that one.
fn address(number: u8) -> String {
    let own = Ipv4Addr::new(127, 0, 1, number);
    let has = TcpListener::bind((own, 0)).is_ok();
    format!("{}:0", if has { own } else { Ipv4Addr::LOCALHOST })
}

fn peer_name(index: usize) -> String {
    format!("peer-{}", index + 1)
}

fn text(object: &Value, field: &str) -> Result<String, Failure> {
    object[field]
        .as_str()
        .map(Into::into)
        .ok_or_else(|| Failure::new(Exit::DemoFailed, format!("a child's answer lacks `{field}`")))
}

fn number(object: &Value, field: &str) -> u64 {
    object[field].as_u64().unwrap_or_default()
}

/// The directory of a run: removed at its end unless it is to be kept.
enum Workplace {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl Workplace {
    fn new(data: Option<PathBuf>, keep: bool) -> Result<Self, Failure> {
        let parent = data.unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&parent).map_err(|error| Failure::file(&parent, &error))?;
        let dir = tempfile::Builder::new()
            .prefix("swarmseal-demo-")
            .tempdir_in(&parent)
            .map_err(|error| Failure::file(&parent, &error))?;
        Ok(if keep { Workplace::Kept(dir.keep()) } else { Workplace::Passing(dir) })
    }

    fn path(&self) -> &Path {
        match self {
            Workplace::Kept(path) => path,
            Workplace::Passing(dir) => dir.path(),
        }
    }
}
