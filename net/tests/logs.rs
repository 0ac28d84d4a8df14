//! No log harms anybody: every program at every level, with its log on a full disk or in a pipe that nobody reads. And results that
//! cannot be written are an error.

// Public, for not every item in it serves here.
pub mod world;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use swarmseal::tracker_client::Client;
use world::{Running, World, program};

/// Held by the test whose programs are running: where they log is one setting for all.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What takes no byte: a full disk, and a pipe without a reader.
fn sinks() -> [(&'static str, OwnedFd); 2] {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    [("a full disk", full.into()), ("a closed pipe", writer.into())]
}

/// Ends a program in order.
fn end(program: Running) {
    let done = Command::new("kill").arg("-TERM").arg(program.child.id().to_string()).status().unwrap();
    assert!(done.success());
    assert_eq!(program.ends(), Some(0));
}

fn lines_dropped(world: &World) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = runtime.block_on(Client::new(world.service()).unwrap().metrics()).unwrap();
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("swarmseal_tracker_log_lines_dropped_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_log_that_cannot_be_written_harms_nobody() {
    let _turn = turn();
    for level in LEVELS {
        for (name, sink) in sinks() {
            world::log(level, sink);
            let mut world = World::new(100_000);
            let seed = world.seed(&[]);
            // A sentence on standard error is part of this one.
            world.expect("alice", &["play", &world.torrent(), "--no-fetch"], 4);
            world.fetch("alice");
            let voucher = world.voucher(&[]);
            world.play("alice", &["--voucher", &voucher], 0);
            world.assert_opened("alice");
            let (licenser, _) = world.license_server("127.0.0.1:0");
            end(licenser);
            end(seed);
            if level == "trace" {
                assert!(lines_dropped(&world) > 0, "{name}");
            }
            end(world.tracker.take().unwrap());
        }
    }
    let (_, sink) = sinks().into_iter().next().unwrap();
    world::log("trace", sink);
    let directory = tempfile::tempdir().unwrap();
    let demo = program(directory.path(), &["demo", "--size", "1M"]).output().unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", String::from_utf8_lossy(&demo.stdout));
}

#[test]
fn a_reader_of_the_log_that_stalls_holds_nobody_up() {
    let _turn = turn();
    // A pipe holds some 64 KiB, and nobody reads.
    let (reader, writer) = std::io::pipe().unwrap();
    world::log("trace", writer.into());
    let mut world = World::new(300_000);
    let seed = world.seed(&[]);
    world.fetch("alice");
    let tracker = world.service();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(tracker).unwrap();
    world::until("lines are dropped", || {
        runtime.block_on(client.metrics()).unwrap();
        lines_dropped(&world) > 0
    });
    let voucher = world.voucher(&[]);
    world.play("alice", &["--voucher", &voucher], 0);
    world.assert_opened("alice");
    end(seed);
    end(world.tracker.take().unwrap());
    drop(reader);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    for args in
        [&["completions", "bash"][..], &["tracker", "--print-config"], &["cpu"], &["--help"], &["--version"]]
    {
        for (name, sink) in sinks() {
            let output = program(directory.path(), args)
                .stdout(sink)
                .stderr(Stdio::piped())
                .env("SWARMSEAL_LOG", "error")
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(12), "{args:?} to {name}: {error}");
            assert!(
                error.starts_with("swarmseal: standard output: ") && !error.contains("panicked"),
                "{error}"
            );
        }
        for (_, sink) in sinks() {
            // And with nowhere to say so.
            let mut command = program(directory.path(), args);
            let status = command.stderr(sink.try_clone().unwrap()).stdout(sink).status().unwrap();
            assert_eq!(status.code(), Some(12), "{args:?}");
        }
    }
}
