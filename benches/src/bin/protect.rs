//! What it saves to protect part of a film only (paper, section 3.1): CPU seconds of publisher, seed, peer and player.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use serde_json::Value;
use swarmseal_bench::process::{Process, cpu_of_children};
use swarmseal_bench::programs::{Programs, World};
use swarmseal_bench::report::table;
use swarmseal_bench::timing::median;

/// Publishes a film with each choice of `--protect` in turn, fetches it from one seed over loopback and opens it.
///
/// CPU seconds are those of the four programs, the tracker's apart; each is the median of all rounds. `swarmseal` is looked for
/// beside this program: build it with --release as well.
#[derive(Parser)]
struct Args {
    /// The film.
    film: PathBuf,
    /// What is protected, one choice after the other.
    #[arg(long, value_delimiter = ';', default_value = "all;media;fraction=0.1")]
    protect: Vec<String>,
    /// Bytes a second at which the peer fetches at most, as `get --download-limit` has it.
    #[arg(long, value_name = "RATE")]
    download_limit: Option<String>,
    /// How often.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print JSON: {"bytes", "choices": [{protect, protected, pieces, sealed, publish, seed, get, play}]}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    choices: Vec<Choice>,
}

/// What one choice comes to. CPU seconds.
#[derive(Serialize)]
struct Choice {
    protect: String,
    /// The part of the film's bytes that is protected.
    protected: f64,
    pieces: u64,
    sealed: u64,
    publish: f64,
    seed: f64,
    get: f64,
    play: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir()?;
    let world = args.programs.world(dir.path())?;
    let film = fs::canonicalize(&args.film).with_context(|| args.film.display().to_string())?;
    let bytes = fs::metadata(&film)?.len();
    let mut choices = Vec::new();
    for protect in &args.protect {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            let place = tempfile::tempdir_in(dir.path())?;
            rounds.push(round(
                &world,
                place.path(),
                args.download_limit.as_deref(),
                (&film, bytes),
                protect,
            )?);
        }
        let of = |figure: fn(&Choice) -> f64| median(rounds.iter().map(figure).collect());
        let (publish, seed) = (of(|it| it.publish), of(|it| it.seed));
        let (get, play) = (of(|it| it.get), of(|it| it.play));
        let last = rounds.pop().context("no rounds")?;
        choices.push(Choice { publish, seed, get, play, ..last });
    }
    let report = Report { bytes, choices };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let header = ["--protect", "protected", "pieces", "sealed", "publish", "seed", "get", "play"];
    let row = |it: &Choice| {
        let seconds = [it.publish, it.seed, it.get, it.play].map(|seconds| format!("{seconds:.2} s"));
        let share = format!("{:.1} %", 100.0 * it.protected);
        let named = [it.protect.clone(), share, it.pieces.to_string(), it.sealed.to_string()];
        named.into_iter().chain(seconds).collect::<Vec<String>>()
    };
    println!("{:.1} MB, medians of {} rounds, CPU seconds", bytes as f64 / 1e6, args.rounds);
    let rows: Vec<Vec<String>> =
        std::iter::once(header.map(str::to_owned).to_vec()).chain(report.choices.iter().map(row)).collect();
    print!("{}", table(&rows));
    Ok(())
}

/// Everything once, in a directory of its own.
fn round(
    world: &World,
    place: &Path,
    limit: Option<&str>,
    (film, bytes): (&Path, u64),
    protect: &str,
) -> Result<Choice> {
    let at = |name: &str| place.join(name).display().to_string();
    let ours = |who: &str, verb: &[&str]| world.ours(at(who), verb);
    let (_tracker, url) = world.tracker(at("operator"), &["--announce-interval", "1"])?;
    let (torrent, seed_file) = (at("film.torrent"), at("film.seed"));
    let (token, film_name) = (at("operator/tracker/admin.token"), film.display().to_string());
    let admin = ["--tracker", &url, "--admin-token-file", &token];
    let files = ["--output", &torrent, "--seed-file", &seed_file, "--protect", protect];
    let mut command = ours("publisher", &[&["publish", &film_name], &admin[..], &files].concat());
    let (published, publish) = measured(&mut command)?;
    let mut command = ours("publisher", &[&["voucher", &torrent], &admin[..]].concat());
    let (voucher, _) = measured(&mut command)?;
    let code = voucher["code"].as_str().context("no code")?.to_owned();

    let seed = Process::start(&mut ours("seed", &["seed", &seed_file, "--listen", "127.0.0.1:0"]))?;
    seed.until("\"listening\"")?;
    let mut command = ours("leech", &["get", &torrent, "--listen", "127.0.0.1:0"]);
    command.args(limit.iter().flat_map(|limit| ["--download-limit", limit]));
    let leech = Process::start(&mut command)?;
    leech.until("\"complete\"")?;
    let (seeded, got) = (seed.cpu(), leech.cpu());
    drop((seed, leech));
    let opened = at("opened");
    let play = ["play", &torrent, "--voucher", &code, "--output", &opened];
    let (_, play) = measured(&mut ours("leech", &play))?;
    let name = film.file_name().context("no name")?;
    ensure!(fs::read(Path::new(&opened).join(name))? == fs::read(film)?, "something else was opened");
    let number = |name: &str| published[name].as_u64().with_context(|| name.to_owned());
    Ok(Choice {
        protect: protect.to_owned(),
        protected: 1.0 - number("clear_bytes")? as f64 / bytes as f64,
        pieces: number("pieces")?,
        sealed: number("sealed_pieces")?,
        publish,
        seed: seeded,
        get: got,
        play,
    })
}

/// Runs a program to its end: the last object that it printed, and its CPU seconds.
fn measured(command: &mut Command) -> Result<(Value, f64)> {
    let before = cpu_of_children();
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last = String::from_utf8(output.stdout)?.lines().last().unwrap_or_default().to_owned();
    Ok((serde_json::from_str(&last)?, cpu_of_children() - before))
}
