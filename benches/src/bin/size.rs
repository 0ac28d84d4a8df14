//! How much a large tracker takes: a million subscribers in its store, a hundred thousand peers in its swarms.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use serde::Serialize;
use swarmseal::tracker::filling::{Subscription, fill};
use swarmseal::tracker_client::AdminClient;
use swarmseal::wire::api::Passkey;
use swarmseal::wire::identity::Identity;
use swarmseal_bench::load::connection::Connection;
use swarmseal_bench::load::drive::Asker;
use swarmseal_bench::load::members::{Announcer, Member, Torrent, Uploader};
use swarmseal_bench::load::server::Tracker;
use swarmseal_bench::report::{cells, table};
use swarmseal_core::{DecryptionKey, FixedBase, MasterKey, Params, SecretKey, SubscriberId, TsKeys};

/// Memory and disk of a tracker with 1,000,000 subscribers and 100,000 live peers in 1,000 torrents, how fast it starts, and
/// how fast it makes re-keys for those whose tables it has not at hand and tries whose a key is.
///
/// The store is filled without calls, as a million subscriptions would take hours; what the tracker then does is asked of it as
/// always. Public keys are powers of g, as they must be; nobody knows their exponents, and re-keys need none.
#[derive(Parser)]
struct Args {
    /// Print JSON: {"subscribers", "bytes_a_subscriber_on_disk", "bytes_a_subscriber_in_memory", "bytes_a_peer", …}.
    #[arg(long)]
    json: bool,
    /// A twentieth of everything.
    #[arg(long)]
    quick: bool,
    /// Subscribers in the store.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    subscribers: u32,
    /// Peers that announce.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    peers: u32,
    /// Torrents.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    torrents: u32,
    /// Pieces of each.
    #[arg(long, value_name = "COUNT", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pieces: u32,
    /// Re-keys for subscribers whose tables are not there.
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    cold: u32,
    /// The core of the tracker.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
    /// The program [default: beside this one].
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
}

/// What all of it is to fit in.
const LIMIT: u64 = 1 << 30;

#[derive(Serialize)]
struct Report {
    subscribers: u32,
    peers: u32,
    torrents: u32,
    /// Bytes of the store.
    store: u64,
    bytes_a_subscriber_on_disk: u64,
    bytes_a_subscriber_in_memory: u64,
    bytes_a_peer: u64,
    /// Until it listens: of the store as it is, and of one without subscribers.
    start_seconds: f64,
    empty_start_seconds: f64,
    /// Bytes resident: without subscribers, with all, with all peers, after the cold re-keys, and at most.
    empty: u64,
    started: u64,
    announced: u64,
    rekeyed: u64,
    most: u64,
    announces_a_second: f64,
    /// Calls for one key each to a subscriber whose tables are not there, one after the other; microseconds of CPU for one.
    cold_a_second: f64,
    cold_cpu_us: f64,
    /// The same calls again, when the tables are there.
    warm_a_second: f64,
    warm_cpu_us: f64,
    /// Subscribers of the first torrent whose key of a piece is compared with one that is nobody's, as `trace` does it.
    traced: u64,
    traced_a_second: f64,
    trace_cpu_us: f64,
    /// Whether it never had more than a gigabyte.
    pass: bool,
    seconds: f64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let part = if args.quick { 20 } else { 1 };
    let (subscribers, peers, torrents) =
        (args.subscribers / part, args.peers / part, (args.torrents / part).max(1));
    let cold = (args.cold / part).max(10).min(subscribers);
    ensure!(peers <= subscribers, "expected at most as many peers as subscribers");
    let start = Instant::now();
    let program = match &args.swarmseal {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("swarmseal"),
    };
    let tracker = Tracker::start(&program, &args.core.to_string(), None)?;
    let torrents: Vec<Torrent> =
        (0..torrents).map(|_| Torrent::register(&tracker, 32 << 10, args.pieces)).collect::<Result<_>>()?;
    eprintln!("{:.0} s: {} torrents", start.elapsed().as_secs_f64(), torrents.len());
    let begun = Instant::now();
    let tracker = tracker.restart()?;
    let empty_start_seconds = begun.elapsed().as_secs_f64();
    let empty = tracker.server.resident().1;

    let actors: Vec<Identity> = (0..cold).map(|_| Identity::generate(&mut UnwrapErr(SysRng))).collect();
    let mut begun = Instant::now();
    let tracker = tracker.restart_after(|data| {
        write(data, &torrents, subscribers, &actors)?;
        eprintln!("{:.0} s: {subscribers} subscribers", start.elapsed().as_secs_f64());
        begun = Instant::now();
        Ok(())
    })?;
    let start_seconds = begun.elapsed().as_secs_f64();
    let started = tracker.server.resident().1;

    let begun = Instant::now();
    let mut connection = Connection::open(tracker.server.address)?;
    let mut request = Vec::new();
    for number in 0..peers {
        // Those who act are the first ones of the first torrent; all others go round.
        let mut one = Announcer::new(torrent_of(&torrents, number, cold), &passkey(number), number, true);
        one.next(&mut request);
        let answer = connection.ask(&request)?;
        ensure!(answer.status == 200 && one.is_answer(answer.body), "an announce was refused");
    }
    let announces_a_second = f64::from(peers) / begun.elapsed().as_secs_f64();
    let announced = tracker.server.resident().1;

    let members: Vec<Member> = actors
        .into_iter()
        .zip(0..)
        .map(|(identity, number)| Member::known(id(number), torrents[0].id(), identity, passkey(number)))
        .collect();
    let mut members = members;
    members[0].open_session(&tracker, &mut connection)?;
    let mut pass = |connection: &mut Connection| -> Result<(f64, f64)> {
        let mut uploader = Uploader::new(&torrents[0], &members, 0, 1);
        // The uploader's own tables first.
        uploader.ask(1, &mut request);
        ensure!(connection.ask(&request)?.status == 200, "a call for a key was refused");
        let (begun, before) = (Instant::now(), tracker.server.cpu());
        for downloader in 2..members.len() {
            uploader.ask(downloader, &mut request);
            let answer = connection.ask(&request)?;
            ensure!(answer.status == 200 && uploader.is_answer(answer.body), "a call for a key was refused");
        }
        let count = (members.len() - 2) as f64;
        Ok((count / begun.elapsed().as_secs_f64(), 1e6 * (tracker.server.cpu() - before) / count))
    };
    let (cold_a_second, cold_cpu_us) = pass(&mut connection)?;
    let (warm_a_second, warm_cpu_us) = pass(&mut connection)?;
    let (most, rekeyed) = tracker.server.resident();
    let (traced, seconds, cpu) = trace(&tracker, &torrents[0])?;
    let store = tracker.stored()?;
    let report = Report {
        subscribers,
        peers,
        torrents: torrents.len() as u32,
        store,
        bytes_a_subscriber_on_disk: store / u64::from(subscribers),
        bytes_a_subscriber_in_memory: started.saturating_sub(empty) / u64::from(subscribers),
        bytes_a_peer: announced.saturating_sub(started) / u64::from(peers),
        start_seconds,
        empty_start_seconds,
        empty,
        started,
        announced,
        rekeyed,
        most,
        announces_a_second,
        cold_a_second,
        cold_cpu_us,
        warm_a_second,
        warm_cpu_us,
        traced,
        traced_a_second: traced as f64 / seconds,
        trace_cpu_us: 1e6 * cpu / traced as f64,
        pass: most < LIMIT,
        seconds: start.elapsed().as_secs_f64(),
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// Has a key traced that is nobody's: so many subscribers are tried in so many seconds, with so many of CPU.
fn trace(tracker: &Tracker, torrent: &Torrent) -> Result<(u64, f64, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let params = torrent.params();
    let public = SecretKey::generate(params, &mut UnwrapErr(SysRng)).public_key(params);
    let mut key = vec![0; params.group().bytes()];
    public.to_bytes(params, &mut key).context("a key")?;
    let before = tracker.server.cpu();
    let admin = AdminClient::new(&tracker.token, false)?;
    let traced = runtime.block_on(admin.trace_key(torrent.id(), 0, &key))?;
    ensure!(traced.matches.is_empty() && traced.tried > 0, "a key of nobody's was traced");
    Ok((traced.tried, traced.seconds, tracker.server.cpu() - before))
}

/// Numbered subscribers: the first ones in the first torrent, the others in all of them.
fn write(data: &Path, torrents: &[Torrent], subscribers: u32, actors: &[Identity]) -> Result<()> {
    let started = Instant::now();
    let params = torrents[0].params();
    let mut words = vec![0; FixedBase::words(params)];
    let powers = DecryptionKey::table(params, &mut words).context("a table")?;
    let master = MasterKey::from_bytes(*blake3::hash(b"public keys of nobody").as_bytes());
    let exponents = TsKeys::derive(params, &master, &SubscriberId([0; 32]), 1);
    const AT_ONCE: u32 = 64;
    let mut said = Duration::ZERO;
    let rows = (0..subscribers.div_ceil(AT_ONCE)).flat_map(|chunk| {
        let numbers = chunk * AT_ONCE..((chunk + 1) * AT_ONCE).min(subscribers);
        if started.elapsed() > said + Duration::from_secs(20) {
            said = started.elapsed();
            eprintln!("{} of {subscribers} subscribers", numbers.start);
        }
        let rows = public_keys(params, &powers, &exponents, numbers.clone());
        let row = |(number, y): (u32, Vec<u8>)| {
            let actor = actors.get(number as usize);
            Subscription {
                id: id(number),
                torrent_id: torrent_of(torrents, number, actors.len() as u32).id(),
                y,
                identity: actor.map_or_else(|| name("identity", number), Identity::public),
                device: name("device", number),
                passkey: passkey(number),
            }
        };
        numbers.zip(rows).map(row).collect::<Vec<_>>()
    });
    Ok(fill(data, rows)?)
}

/// Powers of g.
fn public_keys(
    params: &Params,
    powers: &FixedBase<'_>,
    exponents: &TsKeys<'_>,
    numbers: std::ops::Range<u32>,
) -> Vec<Vec<u8>> {
    let keys: Vec<_> = numbers.map(|number| exponents.key(number)).collect();
    let mut all = vec![vec![0; params.group().bytes()]; keys.len()];
    DecryptionKey::derive_batch(params, powers, &keys, |i, key| {
        key.to_bytes(params, &mut all[i]).expect("W bytes");
    });
    all
}

fn torrent_of(torrents: &[Torrent], number: u32, actors: u32) -> &Torrent {
    let place = if number < actors { 0 } else { number as usize % torrents.len() };
    &torrents[place]
}

fn id(number: u32) -> SubscriberId {
    SubscriberId(name("id", number))
}

fn passkey(number: u32) -> Passkey {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&name("passkey", number)[..16]);
    Passkey::new(bytes)
}

/// Bytes that look like any others.
fn name(what: &str, number: u32) -> [u8; 32] {
    *blake3::Hasher::new().update(what.as_bytes()).update(&number.to_le_bytes()).finalize().as_bytes()
}

fn print(report: &Report) {
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let of_it =
        format!("{} torrents, {} subscribers, {} peers", report.torrents, report.subscribers, report.peers);
    let rows = [
        ["what", of_it.as_str()],
        ["store", &mib(report.store)],
        ["a subscriber on disk", &format!("{} bytes", report.bytes_a_subscriber_on_disk)],
        ["a subscriber in memory", &format!("{} bytes", report.bytes_a_subscriber_in_memory)],
        ["a live peer", &format!("{} bytes", report.bytes_a_peer)],
        [
            "start",
            &format!(
                "{:.1} s ({:.1} s without subscribers)",
                report.start_seconds, report.empty_start_seconds
            ),
        ],
        ["resident without subscribers", &mib(report.empty)],
        ["with them", &mib(report.started)],
        ["with all peers", &mib(report.announced)],
        ["after the re-keys", &mib(report.rekeyed)],
        ["at most", &mib(report.most)],
        ["announces, one after the other", &format!("{:.0}/s", report.announces_a_second)],
        ["cold re-keys", &format!("{:.0}/s, {:.0} µs of CPU each", report.cold_a_second, report.cold_cpu_us)],
        [
            "the same again",
            &format!("{:.0}/s, {:.0} µs of CPU each", report.warm_a_second, report.warm_cpu_us),
        ],
        [
            "subscribers tried by a trace",
            &format!("{:.0}/s, {:.0} µs of CPU each", report.traced_a_second, report.trace_cpu_us),
        ],
    ];
    print!("{}", table(&rows.map(cells)));
    println!("within a gigabyte: {}", if report.pass { "pass" } else { "miss" });
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use swarmseal_core::{Exponents, Group, Profile, PublicKey};

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn public_keys_are_such() {
        let group = Group::ffdhe2048(swarmseal_accel::detect());
        let params = Params::new(Profile::Sealed, group, Exponents::Short).unwrap();
        let mut words = vec![0; FixedBase::words(&params)];
        let powers = DecryptionKey::table(&params, &mut words).unwrap();
        let exponents = TsKeys::derive(&params, &MasterKey::from_bytes([1; 32]), &SubscriberId([0; 32]), 1);
        let keys = public_keys(&params, &powers, &exponents, 3..70);
        assert_eq!(keys.len(), 67);
        assert!(keys.iter().all(|y| PublicKey::from_bytes(&params, y).is_ok()));
        assert!(keys.iter().enumerate().all(|(i, y)| !keys[..i].contains(y)));
    }
}
