//! What one network can do to others: floods of every route that asks for no session, of connections and of subscriptions, and how long
//! honest calls from another network take meanwhile.

mod peer;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use swarmseal_bench::load::connection::Connection;
use swarmseal_bench::load::drive::Asker;
use swarmseal_bench::load::members::{Announcer, Torrent};
use swarmseal_bench::load::server::Tracker;
use swarmseal_bench::report::{cells, table};

/// Honest calls a second, p99 and refusals while another network floods the tracker, a flood after the other.
///
/// The tracker has its default limits. Honest are: announces, calls in a session that read the store, identifications, and identifications that
/// each take a new connection. A call counts from the moment that was set for it.
#[derive(Parser)]
struct Args {
    /// Print JSON: [{flood, flood_rate, calls, p50_ms, p99_ms, busy, refused, lost}].
    #[arg(long)]
    json: bool,
    /// Seconds of each flood.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Connections of the flood.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Cores of the tracker, as `taskset` takes them.
    #[arg(long, value_name = "CORES", default_value = "0")]
    cores: String,
    /// Cores of this program.
    #[arg(long, value_name = "CORES", default_value = "1")]
    own_cores: String,
    /// The program [default: beside this one].
    #[arg(long, value_name = "FILE")]
    swarmseal: Option<PathBuf>,
}

const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);
/// Between two calls of each honest member, and of each honest stranger: strangers have an allowance.
const PAUSE: Duration = Duration::from_millis(25);
const PAUSE_OF_STRANGERS: Duration = Duration::from_millis(100);
/// Milliseconds of p99 that pass.
const BAR_MS: f64 = 50.0;
/// Connections that the flood of idle ones holds.
const IDLE: usize = 1000;

/// What a flood does on each of its connections.
enum Flood {
    Nothing,
    /// Asks again as soon as it has its answer.
    Requests(Vec<Vec<u8>>),
    /// Connects, sends so much, and connects again.
    Connections(Vec<u8>),
    /// Holds connections that have sent so much.
    Held(Vec<u8>),
}

struct Honest {
    request: Vec<u8>,
    /// On one connection.
    stays: bool,
    pause: Duration,
}

#[derive(Serialize)]
struct Row {
    flood: &'static str,
    flood_rate: f64,
    calls: usize,
    p50_ms: f64,
    p99_ms: f64,
    busy: u64,
    refused: u64,
    lost: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let beside = std::env::current_exe()?.with_file_name("swarmseal");
    let program = args.swarmseal.clone().unwrap_or(beside);
    let duration = Duration::from_secs(args.seconds);
    // Before this program keeps to its own cores: what it starts would, too.
    let of_a_peer = peer::rows(program.clone(), duration)?;
    let tracker = Tracker::start(&program, &args.cores, None)?;
    swarmseal_bench::load::server::stay_on(&args.own_cores)?;
    let torrent = Torrent::register(&tracker, 1 << 18, 1000)?;
    let member = torrent.join(&tracker, 1)?.remove(0);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes();
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nd").into_bytes();
    let one = |request: Vec<u8>| Flood::Requests(vec![request]);
    let mut announce = Vec::new();
    Announcer::new(&torrent, &member.passkey, 7, true).next(&mut announce);
    let identify = get(&format!("/identify?nonce={}&origin={}", "00".repeat(32), tracker.url()));
    let session = member.asks_for_passkey(&torrent);
    let trickle = b"POST /session HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nd".to_vec();
    let floods: [(&str, Flood); 17] = [
        ("none", Flood::Nothing),
        ("/metrics", one(get("/metrics"))),
        ("/ready", one(get("/ready"))),
        ("/health", one(get("/health"))),
        ("an unknown path", one(get("/nothing"))),
        ("/admin/openapi.json", one(get("/admin/openapi.json"))),
        ("/admin/stats", one(get("/admin/stats"))),
        ("announces without a passkey", one(get(&format!("/announce/{}", "0".repeat(64))))),
        ("/identify", one(identify.clone())),
        ("/session", one(post("/session"))),
        ("/witness without a session", one(post("/witness"))),
        ("/license/order", one(torrent.forged_order(&tracker)?)),
        ("subscriptions", Flood::Requests(torrent.subscriptions(&tracker, 500)?)),
        ("connections", Flood::Connections(Vec::new())),
        ("connections that end a request", Flood::Connections(get("/health"))),
        ("1,000 idle connections", Flood::Held(Vec::new())),
        ("1,000 uploads that trickle", Flood::Held(trickle)),
    ];
    let honest = [
        Honest { request: announce, stays: true, pause: PAUSE },
        Honest { request: session, stays: true, pause: PAUSE },
        Honest { request: identify.clone(), stays: true, pause: PAUSE_OF_STRANGERS },
        Honest { request: identify, stays: false, pause: PAUSE_OF_STRANGERS },
    ];
    let mut rows = Vec::new();
    for (name, flood) in floods {
        let row = run(tracker.server.address, name, &flood, &honest, duration, args.connections.into())?;
        if !args.json {
            eprintln!("{name}: p99 {:.1} ms", row.p99_ms);
        }
        rows.push(row);
    }
    rows.extend(of_a_peer);
    let passes = rows.iter().all(|row| row.p99_ms < BAR_MS && row.busy + row.refused + row.lost == 0);
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
    } else {
        print(&rows);
        println!("p99 below {BAR_MS} ms, and no call refused: {}", if passes { "pass" } else { "miss" });
    }
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One flood, and what honest callers see of it.
fn run(
    address: SocketAddr,
    name: &'static str,
    flood: &Flood,
    honest: &[Honest],
    duration: Duration,
    connections: usize,
) -> Result<Row> {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let callers = std::thread::scope(|scope| {
        let count = if matches!(flood, Flood::Nothing) { 0 } else { connections };
        for own in 0..count {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || attack(address, flood, own, count, stop, sent));
        }
        let callers: Vec<_> =
            honest.iter().map(|honest| scope.spawn(move || call(address, honest, duration))).collect();
        let done: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        stop.store(true, Ordering::Relaxed);
        done
    });
    let callers = callers.into_iter().map(|caller| caller.ok().context("a caller failed"));
    let callers = callers.collect::<Result<Vec<_>>>()?;
    row_of(name, callers, sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

/// What the callers saw together.
fn row_of(name: &'static str, callers: Vec<Caller>, flood_rate: f64) -> Result<Row> {
    let mut latencies = Vec::new();
    let (mut busy, mut refused, mut lost) = (0, 0, 0);
    for caller in callers {
        latencies.extend(caller.latencies);
        busy += caller.busy;
        refused += caller.refused;
        lost += caller.lost;
    }
    ensure!(!latencies.is_empty(), "{name}: no call was answered");
    latencies.sort_by(f64::total_cmp);
    let quantile = |part: f64| latencies[((part * latencies.len() as f64) as usize).min(latencies.len() - 1)];
    let (p50_ms, p99_ms) = (quantile(0.5), quantile(0.99));
    Ok(Row { flood: name, flood_rate, calls: latencies.len(), p50_ms, p99_ms, busy, refused, lost })
}

#[derive(Default)]
struct Caller {
    /// Milliseconds.
    latencies: Vec<f64>,
    /// 503.
    busy: u64,
    /// Any other status but 200.
    refused: u64,
    /// Connections that ended, or were not to be had.
    lost: u64,
}

/// Calls at moments that are set beforehand.
fn call(address: SocketAddr, honest: &Honest, duration: Duration) -> Caller {
    let Honest { request, stays, pause } = honest;
    let mut caller = Caller::default();
    let mut kept = None;
    let begun = Instant::now();
    let mut due = Duration::ZERO;
    while due < duration {
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let connection = kept.take().map_or_else(|| Connection::open_from(HONEST, address), Ok);
        match connection.and_then(|mut connection| Ok((connection.ask(request)?.status, connection))) {
            Ok((status, connection)) => {
                match status {
                    200 => {}
                    503 => caller.busy += 1,
                    _ => caller.refused += 1,
                }
                kept = stays.then_some(connection);
            }
            Err(_) => caller.lost += 1,
        }
        caller.latencies.push((begun.elapsed() - due).as_secs_f64() * 1e3);
        due += *pause;
    }
    caller
}

/// One connection's part of a flood, until it is told to stop.
fn attack(address: SocketAddr, flood: &Flood, own: usize, of: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let open = || Connection::open_from(FLOODER, address);
    let mut held = Vec::new();
    let mut turn = own;
    while !stop.load(Ordering::Relaxed) {
        match flood {
            Flood::Nothing => return,
            Flood::Requests(requests) => {
                let Ok(mut connection) = open() else { continue };
                while !stop.load(Ordering::Relaxed)
                    && connection.ask(&requests[turn % requests.len()]).is_ok()
                {
                    sent.fetch_add(1, Ordering::Relaxed);
                    turn += of;
                }
            }
            Flood::Connections(bytes) => {
                let done = open().and_then(|mut connection| connection.send(bytes));
                sent.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
            }
            Flood::Held(bytes) if held.len() < IDLE / of => {
                let opened = open().and_then(|mut connection| connection.send(bytes).map(|()| connection));
                sent.fetch_add(u64::from(opened.is_ok()), Ordering::Relaxed);
                held.extend(opened);
            }
            Flood::Held(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn print(rows: &[Row]) {
    let mut lines = vec![cells(["flood", "a second", "calls", "p50 ms", "p99 ms", "503", "refused", "lost"])];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.flood.to_owned(),
            format!("{:.0}", row.flood_rate),
            row.calls.to_string(),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            row.busy.to_string(),
            row.refused.to_string(),
            row.lost.to_string(),
        ]
    }));
    println!("{}", table(&lines));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
