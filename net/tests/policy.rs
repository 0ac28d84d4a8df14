//! What a license allows, as its users meet it: plays that are not won back, copies, time without the tracker, clocks, and devices
//! that share a grant.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use self::world::{DEADLINE, World, program};

/// Copies what is below a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

fn license(world: &World, who: &str, flags: &[&str], code: i32) -> Value {
    let torrent = world.torrent();
    world.expect(who, &[&["license", &torrent], flags].concat(), code)
}

fn devices(world: &World, who: &str, flags: &[&str]) -> Vec<Value> {
    let torrent = world.torrent();
    let shown = program(&world.path(who), &[&["devices", &torrent], flags].concat()).output().unwrap();
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8(shown.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn plays_are_not_won_back_by_putting_files_back() {
    let mut world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--plays", "2"]);
    assert_eq!(world.play("alice", &["--voucher", &code], 0)["plays_left"], 1);
    let (record, journal) = (world.torrent_dir("alice").join("plays"), world.path("alice/plays.journal"));
    let before = (fs::read(&record).unwrap(), fs::read(&journal).unwrap());
    let whole = world.path("whole");
    copy(&world.path("alice"), &whole);
    assert_eq!(world.play("alice", &[], 0)["plays_left"], 0);
    world.tracker.take().unwrap().kill();

    let after = (fs::read(&record).unwrap(), fs::read(&journal).unwrap());
    fs::write(&record, &before.0).unwrap();
    let refused = world.play("alice", &[], 8);
    assert_eq!((&refused["kind"], &refused["reason"]), (&"tampered".into(), &"record-put-back".into()));
    assert!(refused["error"].as_str().unwrap().contains("swarmseal license"), "{refused}");
    fs::remove_file(&record).unwrap();
    assert_eq!(world.play("alice", &[], 8)["reason"], "record-lost");
    // Not even without the journal: the license is newer than no record at all.
    fs::remove_file(&journal).unwrap();
    assert_eq!(world.play("alice", &[], 8)["reason"], "record-put-back");
    fs::write(&record, &after.0).unwrap();
    assert_eq!(world.play("alice", &[], 8)["reason"], "record-lost");
    fs::write(&journal, &after.1).unwrap();
    assert_eq!(world.play("alice", &[], 7)["reason"], "no-plays-left");

    // Everything put back at once, with the license: only the tracker knows, and it was told.
    fs::write(&record, &before.0).unwrap();
    fs::write(&journal, &before.1).unwrap();
    world.start_tracker();
    assert_eq!(license(&world, "alice", &[], 0)["plays_left"], 0);
    let refused = world.play("alice", &[], 7);
    assert_eq!((&refused["kind"], &refused["plays"]), (&"no-plays-left".into(), &2.into()));
    // More are bought, and count from there.
    let code = world.voucher(&["--plays", "1"]);
    assert_eq!(license(&world, "alice", &["--voucher", &code], 0)["plays_left"], 1);
    assert_eq!(world.play("alice", &[], 0)["plays_left"], 0);
    world.play("alice", &[], 7);
}

#[test]
fn codes_redeemed_in_turns_are_played_as_often_as_was_bought() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let codes = [world.voucher(&["--plays", "2"]), world.voucher(&["--plays", "1"])];
    let (torrent, to) = (world.torrent(), world.file("alice/opened"));
    let mut played = 0;
    for turn in 0..9 {
        let args = ["play", &torrent, "--output", &to, "--force", "--voucher", &codes[turn % 2]];
        match program(&world.path("alice"), &args).output().unwrap().status.code() {
            Some(0) => played += 1,
            code => assert_eq!(code, Some(7)),
        }
    }
    assert_eq!(played, 3);
}

#[cfg(unix)]
#[test]
fn a_used_code_gives_back_no_reset() {
    let world = World::with_tracker(100_000, &["--record-resets", "1"]);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let (code, another) = (world.voucher(&["--plays", "9"]), world.voucher(&["--plays", "9"]));
    license(&world, "alice", &["--voucher", &another], 0);
    world.play("alice", &["--voucher", &code], 0);
    let lose = || fs::remove_file(world.torrent_dir("alice").join("plays")).unwrap();
    lose();
    license(&world, "alice", &["--voucher", &another], 0);
    lose();
    for code in [&code, &another] {
        assert_eq!(license(&world, "alice", &["--voucher", code], 8)["code"], "lost-record");
    }
    // One that was never redeemed does.
    let code = world.voucher(&["--plays", "9"]);
    license(&world, "alice", &["--voucher", &code], 0);
}

#[cfg(unix)]
#[test]
fn a_copy_of_the_data_directory_is_noticed_and_renewed_a_few_times() {
    let world = World::with_tracker(100_000, &["--record-resets", "1"]);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--plays", "9"]);
    world.play("alice", &["--voucher", &code], 0);
    for who in ["copy", "another"] {
        copy(&world.path("alice"), &world.path(who));
        let refused = world.play(who, &[], 8);
        assert_eq!(refused["reason"], "record-copied", "{refused}");
    }
    // A restored backup, or a new disk: its plays go on from what was told.
    assert_eq!(license(&world, "copy", &[], 0)["plays_left"], 8);
    assert_eq!(world.play("copy", &[], 0)["plays_left"], 7);
    let refused = license(&world, "another", &[], 8);
    assert_eq!((&refused["kind"], &refused["code"]), (&"tampered".into(), &"lost-record".into()));
}

#[test]
fn processes_of_one_device_overtake_each_other_in_vain() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--plays", "9"]);
    world.play("alice", &["--voucher", &code], 0);
    // Each looks to the tracker like the next, and none like a record that was set back: three of those are refused.
    let torrent = world.torrent();
    for verb in [["license", &torrent], ["devices", &torrent]] {
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let mut call = program(&world.path("alice"), &verb);
                call.stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut call in calls {
            assert_eq!(call.wait().unwrap().code(), Some(0), "{verb:?}");
        }
    }
    assert_eq!(license(&world, "alice", &[], 0)["plays_left"], 8);
}

#[test]
fn without_the_tracker_it_plays_as_long_as_the_license_says() {
    let mut world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--offline-grace", "3s"]);
    world.play("alice", &["--voucher", &code], 0);
    world.tracker.take().unwrap().kill();
    let begun = Instant::now();
    let refused = loop {
        let (torrent, to) = (world.torrent(), world.file("alice/opened"));
        let args = ["play", &torrent, "--output", &to, "--force"];
        let played = program(&world.path("alice"), &args).output().unwrap();
        if played.status.code() != Some(0) {
            assert_eq!(played.status.code(), Some(6), "{}", String::from_utf8_lossy(&played.stderr));
            let text = String::from_utf8(played.stdout).unwrap();
            break serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap();
        }
        assert!(begun.elapsed() < DEADLINE, "it plays on and on");
    };
    assert_eq!((&refused["reason"], &refused["offline_grace"]), (&"offline-too-long".into(), &3.into()));
    assert!(refused["since"].as_u64().unwrap() > 1_700_000_000, "{refused}");
    // Once the tracker is there again, nobody has to do anything.
    world.start_tracker();
    world.play("alice", &[], 0);
    world.assert_opened("alice");
}

/// `play` of a subscriber whose clock is off by `shift`; its last line.
fn play_at(world: &World, who: &str, shift: &str, flags: &[&str], code: i32) -> Value {
    let (torrent, to, data) = (world.torrent(), world.file(&format!("{who}/opened")), world.file(who));
    let run = Command::new("faketime")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .args(["-f", shift, env!("CARGO_BIN_EXE_swarmseal"), "--json", "--data", &data])
        .args([&["play", &torrent, "--output", &to, "--force"], flags].concat())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(code), "{shift}: {}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout).unwrap();
    text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
}

#[test]
#[ignore = "needs faketime"]
fn a_clock_set_back_gives_nothing_back_and_the_tracker_sets_right_one_that_ran_ahead() {
    let mut world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    let code = world.voucher(&["--expires", "2d"]);
    world.play("alice", &["--voucher", &code], 0);
    play_at(&world, "alice", "+1d", &[], 0);
    world.tracker.take().unwrap().kill();
    assert_eq!(play_at(&world, "alice", "+3d", &[], 6)["reason"], "expired");
    // What the clock showed while it played counts: a day from now, and the license runs for two.
    world.play("alice", &[], 0);
    play_at(&world, "alice", "-30d", &[], 0);
    world.start_tracker();
    world.play("alice", &[], 0);
}

#[test]
#[ignore = "needs faketime"]
fn a_viewer_whose_clock_is_slow_plays_what_has_begun() {
    let mut world = World::new(100_000);
    let _seed = world.seed(&[]);
    world.fetch("alice");
    world.fetch("bob");
    let code = world.voucher(&[]);
    play_at(&world, "alice", "-1h", &["--voucher", &code], 0);
    let code = world.voucher(&["--expires", "30m", "--offline-grace", "1d"]);
    play_at(&world, "bob", "-1h", &["--voucher", &code], 0);
    // Without the tracker as well.
    world.tracker.take().unwrap().kill();
    for who in ["alice", "bob"] {
        play_at(&world, who, "-1h", &[], 0);
        world.assert_opened(who);
    }
}

#[test]
fn who_shares_an_older_grant_cannot_revoke_what_a_device_bought_later() {
    let world = World::new(100_000);
    let _seed = world.seed(&[]);
    let shared = world.voucher(&["--devices", "2"]);
    for who in ["alice", "mallory"] {
        world.fetch(who);
        world.play(who, &["--voucher", &shared], 0);
    }
    let own = world.voucher(&["--offline-grace", "1d"]);
    world.play("alice", &["--voucher", &own], 0);
    let shown = devices(&world, "mallory", &[]);
    let alice = shown[0]["subscriber"].as_str().unwrap();
    devices(&world, "mallory", &["--revoke", alice]);
    assert_eq!(devices(&world, "mallory", &[]).last().unwrap()["used"], 1);
    assert_eq!(license(&world, "alice", &[], 0)["offline_grace"], 86_400);
    world.play("alice", &[], 0);
}

#[test]
fn devices_share_a_grant_and_make_room_for_each_other() {
    let mut world = World::new(100_000);
    let _seed = world.seed(&[]);
    let code = world.voucher(&["--devices", "2"]);
    for who in ["phone", "laptop", "tablet"] {
        world.fetch(who);
    }
    for who in ["phone", "laptop"] {
        world.play(who, &["--voucher", &code], 0);
        devices(&world, who, &["--name", who]);
    }
    let shown = devices(&world, "laptop", &[]);
    let names: Vec<&Value> = shown.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&"phone".into(), &"laptop".into(), &Value::Null]);
    assert_eq!((&shown[0]["this"], &shown[1]["this"]), (&false.into(), &true.into()));
    assert_eq!(
        (&shown[2]["places"], &shown[2]["used"], &shown[2]["changes"]),
        (&2.into(), &2.into(), &3.into())
    );
    let refused = license(&world, "tablet", &["--voucher", &code], 4);
    let taken: Vec<&Value> = refused["devices"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(taken, [&Value::from("phone"), &Value::from("laptop")]);
    let phone = shown[0]["subscriber"].as_str().unwrap().to_owned();
    assert!(refused["error"].as_str().unwrap().contains(&phone[..8]), "{refused}");

    let torrent = world.torrent();
    world.expect("laptop", &["devices", &torrent, "--revoke", "00000000"], 2);
    let left = devices(&world, "laptop", &["--revoke", &phone[..10]]);
    assert_eq!((&left[0]["event"], &left[0]["id"]), (&"revoked".into(), &phone.as_str().into()));
    assert_eq!(left[1]["name"], "laptop");
    world.play("tablet", &["--voucher", &code], 0);
    assert_eq!(license(&world, "phone", &[], 15)["kind"], "revoked");
    world.expect("phone", &["devices", &torrent], 15);
    // The publisher frees a place, too.
    let (tracker, token) = (world.url(), world.token());
    let admin = ["--tracker", &tracker, "--admin-token-file", &token];
    let tablet = &devices(&world, "laptop", &[])[1]["subscriber"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grants = runtime.block_on(world.admin().read("grants")).unwrap();
    let grant = grants["grants"][0]["grant"].as_str().unwrap();
    let revoke = ["revoke", tablet.as_str().unwrap(), "--device-of", grant];
    world.expect("publisher", &[&revoke[..], &admin].concat(), 0);
    assert_eq!(devices(&world, "laptop", &[])[1]["used"], 1);
    world.expect("publisher", &[&revoke[..], &admin].concat(), 3);
    // What it has it has: its license sets no end.
    world.tracker.take().unwrap().kill();
    world.play("phone", &[], 0);
    world.assert_opened("phone");
}
