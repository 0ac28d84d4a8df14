//! `trace`, as a publisher runs it.

// Public, for not every item in it serves here.
pub mod world;

use std::fs;

use serde_json::Value;
use swarmseal::publish::Packager;
use swarmseal::wire::keyfile::{KeyFile, SeedFile};
use swarmseal::wire::metainfo::Metainfo;
use swarmseal_accel::detect as kernels;
use swarmseal_core::{WitnessExponents, WitnessFactor, WitnessSecret, witness_hash};

use self::world::World;

const PIECE: usize = 64 << 10;

/// Traces with these flags, and checks the exit code.
fn trace(world: &World, flags: &[&str], code: i32) -> Value {
    let (torrent, token) = (world.torrent(), world.token());
    world.expect("publisher", &[&["trace", &torrent, "--admin-token-file", &token], flags].concat(), code)
}

fn subscriber(world: &World, who: &str) -> Value {
    let torrent = world.torrent();
    world.expect(who, &["subscribe", &torrent], 0)["subscriber"].clone()
}

/// The packaged piece times the witness's factor.
fn witness_form(world: &World, index: u32, piece: &mut [u8]) {
    let metainfo = Metainfo::from_bytes(&fs::read(world.torrent()).unwrap(), kernels()).unwrap();
    let seed = KeyFile::read(&world.path("film.seed"), SeedFile::KIND).unwrap();
    let seed = SeedFile::from_key_file(&seed).unwrap();
    let seal = &metainfo.info.seal;
    let secret = world.path("operator/tracker/witnesses").join(format!("{}.key", seal.torrent_id));
    let mut bytes = [0; 32];
    hex::decode_to_slice(fs::read_to_string(secret).unwrap().trim(), &mut bytes).unwrap();
    let secret = WitnessSecret::from_bytes(bytes);
    let w = WitnessExponents::derive(&seal.params, &secret, &seal.torrent_id).exponent(index);
    let packager = Packager::open(seed.content.as_ref().unwrap(), &seed, &metainfo).unwrap();
    packager.read_packaged(index, piece).unwrap();
    let hash = witness_hash(&seal.params, &WitnessFactor::derive(&seal.params, &w), piece).unwrap();
    assert_eq!(Some(&hash), seal.witness_hash(index));
}

#[test]
fn a_copy_is_traced_to_the_one_that_it_was_made_for() {
    let world = World::new(300_000);
    let seed = world.seed(&[]);
    world.fetch("alice");
    world.fetch("bob");
    let (seed_file, leaked) = (world.file("film.seed"), world.file("leaked"));
    let pieces = |who: &str| fs::read(world.torrent_dir(who).join("pieces.bin")).unwrap();
    let with_content = |more: &[&str], code| {
        trace(&world, &[&["--ciphertext", &leaked, "--seed-file", &seed_file], more].concat(), code)
    };
    for who in ["alice", "bob"] {
        fs::write(&leaked, &pieces(who)[2 * PIECE..3 * PIECE]).unwrap();
        let id = subscriber(&world, who);
        // The piece is found by the content, or told.
        for more in [&[][..], &["--index", "2"]] {
            let found = with_content(more, 0);
            assert_eq!((&found["subscriber"], &found["piece"], &found["epoch"]), (&id, &2.into(), &1.into()));
            assert_eq!((&found["changed_blocks"], &found["revoked"]), (&0.into(), &false.into()));
        }
        let refused = with_content(&["--index", "1"], 1);
        assert!(refused["error"].as_str().unwrap().contains("of piece 1"), "{refused}");
    }
    // Out of a whole store.
    fs::write(&leaked, pieces("bob")).unwrap();
    assert_eq!(with_content(&["--index", "3"], 0)["piece"], 3);
    let offset = (4 * PIECE).to_string();
    assert_eq!(with_content(&["--offset", &offset], 0)["piece"], 4);
    with_content(&["--offset", "999999999"], 2);
    with_content(&["--index", "999"], 2);

    // A byte of block 3 changed: it is said, and traced all the same. Every other block: it is not.
    let mut piece = pieces("alice")[PIECE..2 * PIECE].to_vec();
    piece[3 * 256 + 5] ^= 1;
    fs::write(&leaked, &piece).unwrap();
    let found = with_content(&[], 0);
    assert_eq!((&found["subscriber"], &found["piece"]), (&subscriber(&world, "alice"), &1.into()));
    assert_eq!((&found["changed_blocks"], &found["blocks"]), (&1.into(), &256.into()));
    piece.iter_mut().step_by(512).for_each(|byte| *byte ^= 1);
    fs::write(&leaked, &piece).unwrap();
    with_content(&["--index", "1"], 1);

    // The witness's form, made from the content and the tracker's secret.
    let mut piece = vec![0; PIECE];
    witness_form(&world, 2, &mut piece);
    fs::write(&leaked, &piece).unwrap();
    let refused = with_content(&[], 1);
    assert!(refused["error"].as_str().unwrap().starts_with("witness form: names nobody"), "{refused}");
    assert_eq!((&refused["witness"], &refused["piece"]), (&true.into(), &2.into()));

    // Plaintext, and another torrent's ciphertext.
    fs::write(&leaked, &fs::read(world.path("content.bin")).unwrap()[..PIECE]).unwrap();
    let refused = with_content(&[], 1);
    assert!(refused["error"].as_str().unwrap().contains("no subscriber's ciphertext"), "{refused}");
    let other = World::new(300_001);
    let other_seed = other.seed(&[]);
    other.fetch("carol");
    fs::write(&leaked, fs::read(other.torrent_dir("carol").join("pieces.bin")).unwrap()).unwrap();
    with_content(&[], 1);
    drop(other_seed);

    // Licenses, and personal torrents.
    let code = world.voucher(&[]);
    world.play("bob", &["--voucher", &code], 0);
    let license = world.torrent_dir("bob").join("license").display().to_string();
    assert_eq!(trace(&world, &["--license", &license], 0)["subscriber"], subscriber(&world, "bob"));
    let elsewhere = other.voucher(&[]);
    other.play("carol", &["--voucher", &elsewhere], 0);
    let license = other.torrent_dir("carol").join("license").display().to_string();
    trace(&world, &["--license", &license], 1);
    trace(&world, &["--license", &leaked], 8);
    let (torrent, personal) = (world.torrent(), world.file("alice.torrent"));
    world.expect("alice", &["subscribe", &torrent, "--personal", "--output", &personal], 0);
    assert_eq!(trace(&world, &["--personal", &personal], 0)["subscriber"], subscriber(&world, "alice"));
    trace(&world, &[], 2);
    drop(seed);
}
