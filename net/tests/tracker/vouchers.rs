//! Vouchers: orders that are repeated, what the store has of their codes, and codes that a client keeps to itself.

use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use swarmseal::wire::origin::Origin;

use super::*;

fn order(reference: &str, line: u32, count: u32) -> Order<'_> {
    Order { reference: Some(reference), line, count }
}

#[tokio::test]
async fn an_order_that_is_repeated_gives_the_same_codes_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let elsewhere = Published::new(&tracker).await;
    let (seal, terms) = (published.seal(), Terms { plays: Some(3), ..Terms::default() });
    let issue = async |tracker: &Running, order: Order<'_>, terms| {
        tracker.admin().create_vouchers(seal, &order, terms).await
    };
    let first = issue(&tracker, order("A 1001", 0, 2), terms).await.unwrap();
    assert_eq!((first.order.as_str(), first.codes.len()), ("A 1001", 2));
    let (device, _) = Device::subscribed(&tracker, &published).await;
    device.client(&tracker).license(published.id(), Some(&first.codes[0])).await.unwrap();
    tracker.stop().await;

    // After a restart, with more, with fewer, and once a code was redeemed.
    let tracker = Running::start(directory.path()).await;
    for count in [2, 3, 1, 3] {
        let again = issue(&tracker, order("A 1001", 0, count), terms).await.unwrap();
        let kept = first.codes.len().min(count as usize);
        assert_eq!(again.codes.len(), count as usize);
        assert_eq!(again.codes[..kept], first.codes[..kept]);
    }
    let stats = tracker.admin().stats().await.unwrap();
    assert_eq!((&stats["vouchers"], &stats["grants"]), (&3.into(), &3.into()));
    // The first voucher is still redeemed, by the same device.
    let (other, _) = Device::subscribed(&tracker, &published).await;
    let used = other.client(&tracker).license(published.id(), Some(&first.codes[0])).await;
    assert_eq!(code(used), ApiError::UsedVoucher);

    // Other terms, or another torrent, are refused with a sentence that says so; another line takes them.
    let more = Terms { plays: Some(4), ..terms };
    let refused = issue(&tracker, order("A 1001", 0, 1), more).await.unwrap_err();
    assert!(refused.to_string().contains("issued with other terms"), "{refused}");
    for (seal, terms) in [
        (seal, more),
        (seal, Terms { devices: 2, ..terms }),
        (seal, Terms { expires: Some(soon()), ..terms }),
        (elsewhere.seal(), terms),
    ] {
        let refused = tracker.admin().create_vouchers(seal, &order("A 1001", 0, 5), terms).await;
        assert_eq!(code(refused.map(drop)), ApiError::OtherTerms);
    }
    let line = issue(&tracker, order("A 1001", 1, 1), more).await.unwrap();
    let another = issue(&tracker, order("A 1002", 0, 1), terms).await.unwrap();
    // An order without a reference gets one, which gives its codes again.
    let drawn = issue(&tracker, Order { count: 2, ..Order::default() }, terms).await.unwrap();
    assert_eq!(issue(&tracker, order(&drawn.order, 0, 2), terms).await.unwrap(), drawn);
    let unnamed = issue(&tracker, Order::default(), terms).await.unwrap();
    assert_ne!(unnamed.order, drawn.order);
    let mut all: Vec<&str> = [&first, &line, &another, &drawn, &unnamed]
        .iter()
        .flat_map(|issued| issued.codes.iter().map(|code| code.as_str()))
        .collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 7);

    for reference in ["", "a\nb", "Käse", &"x".repeat(65)] {
        let refused = issue(&tracker, order(reference, 0, 1), terms).await;
        assert_eq!(code(refused.map(drop)), ApiError::BadRequest, "{reference:?}");
    }
    for count in [0, 1001] {
        let refused = issue(&tracker, order("A 1003", 0, count), terms).await;
        assert_eq!(code(refused.map(drop)), ApiError::BadRequest, "{count}");
    }
    issue(&tracker, order(&"~".repeat(64), u32::MAX, 1000), terms).await.unwrap();
    tracker.stop().await;
}

#[tokio::test]
async fn neither_the_store_nor_a_backup_has_a_code() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let tracker = Running::start(&data).await;
    let published = Published::new(&tracker).await;
    let (seal, admin) = (published.seal(), tracker.admin());
    let issued = admin.create_vouchers(seal, &order("A-1001", 0, 20), Terms::default()).await.unwrap();
    let (device, _) = Device::subscribed(&tracker, &published).await;
    device.client(&tracker).license(published.id(), Some(&issued.codes[0])).await.unwrap();
    admin.revoke_voucher(&issued.codes[1]).await.unwrap();
    let backup = directory.path().join("backup");
    admin.back_up(&mut File::create(&backup).unwrap()).await.unwrap();
    tracker.stop().await;

    let key = std::fs::read_to_string(data.join("voucher.key")).unwrap();
    let key: [u8; 32] = hex::decode(key.trim()).unwrap().try_into().unwrap();
    let voucher_key = VoucherKey::from_bytes(&key);
    for path in [data.join("tracker.redb"), backup] {
        let bytes = std::fs::read(&path).unwrap();
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(has(b"A-1001"), "the search would find what is there");
        assert!(!has(&key) && !has(hex::encode(key).as_bytes()));
        for code in &issued.codes {
            assert!(has(&voucher_key.mac(code)), "the voucher is in {}", path.display());
            let canonical = &code.as_str()[..20];
            for text in [canonical, code.as_str(), &code.to_text()[..24], &code.to_text()] {
                for text in [text.to_owned(), text.to_lowercase()] {
                    assert!(!has(text.as_bytes()), "{text} is in {}", path.display());
                    assert!(!has(blake3::hash(text.as_bytes()).as_bytes()), "the hash of {text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn another_voucher_key_is_noticed_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    Running::start(directory.path()).await.stop().await;
    let path = directory.path().join("voucher.key");
    let refused = async || {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(directory.path()) };
        Server::bind(config).await.err().expect("it must not start")
    };
    std::fs::write(&path, format!("{}\n", "07".repeat(32))).unwrap();
    let error = refused().await;
    assert!(matches!(&error, TrackerError::OtherKey { name } if name == "voucher.key"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = refused().await;
    assert!(matches!(&error, TrackerError::MissingKey { path: named } if *named == path), "{error}");
    assert!(!path.exists(), "no key is made for a store that had one");
}

/// The program refuses a code of another publisher, a mistyped one, and a good one with a forged .torrent before it sends anything,
/// wherever the code comes from.
#[tokio::test]
async fn a_code_that_does_not_fit_the_seller_never_leaves_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin: Origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let key = |seed| SigningKey::from_bytes(&[seed; 32]);
    let authority = |signer: &SigningKey| {
        let (license_key, origins) = (key(3).public(), vec![origin.clone()]);
        let authority = Authority { license_key, origins, serial: 1, tracker_key: key(3).public() };
        SignedAuthority::sign(authority, signer).unwrap()
    };
    let info = metainfo(authority(&publisher()), Profile::Sealed).info;
    let (seller, other) = (info.seal.publisher_key, key(9).public());
    let forged = Info {
        seal: Seal {
            publisher_key: other,
            torrent_id: TorrentId::of(&other, &info.seal.random),
            ..info.seal.clone()
        },
        ..info.clone()
    };
    let write = |name: &str, info: Info, signer: &SigningKey| {
        let path = directory.path().join(name);
        std::fs::write(&path, Metainfo::new(Some(authority(signer)), info).unwrap().to_bytes()).unwrap();
        path
    };
    let torrent = write("film.torrent", info, &publisher());
    let forged = write("forged.torrent", forged, &key(9));
    let key = VoucherKey::from_bytes(&[1; 32]);
    let good = key.code("1", 0, 0, &seller).to_text();
    let theirs = key.code("1", 0, 0, &other).to_text();
    let mistyped = good.replacen(&good[5..6], if &good[5..6] == "7" { "8" } else { "7" }, 1);

    let file = directory.path().join("code");
    for verb in [&["get", "--exit", "--listen", "127.0.0.1:0"][..], &["license"], &["play"]] {
        for (torrent, code) in [(&torrent, theirs.as_str()), (&torrent, &mistyped), (&forged, &good)] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_swarmseal"));
            program.args(["--json", "--data"]).arg(directory.path().join("data")).args(verb).arg(torrent);
            std::fs::write(&file, code).unwrap();
            match verb[0] {
                "get" => program.args(["--voucher", code]),
                "license" => program.args(["--voucher-file", "-"]).stdin(File::open(&file).unwrap()),
                _ => program.env("SWARMSEAL_VOUCHER", code),
            };
            let running = tokio::task::spawn_blocking(move || program.output().unwrap());
            let output = ended(running, &listener).await;
            let (out, err) =
                (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
            assert_eq!(output.status.code(), Some(4), "{verb:?}\n{out}{err}");
            let failure: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
            assert_eq!(failure["reason"], "other-seller", "{out}");
            assert!(
                err.contains(&format!("voucher {}-… is not for this torrent's seller", &code[..4])),
                "{err}"
            );
            assert!(!format!("{out}{err}").contains(&code[..6]), "{out}{err}");
        }
    }
}

/// The output of a program that must not call the tracker.
async fn ended(running: JoinHandle<std::process::Output>, listener: &TcpListener) -> std::process::Output {
    let listener = listener.try_clone().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::select! {
        called = listener.accept() => panic!("the program called the tracker: {called:?}"),
        output = running => {
            let late = listener.into_std().unwrap().accept().map(drop);
            assert_eq!(late.unwrap_err().kind(), ErrorKind::WouldBlock);
            output.unwrap()
        }
    }
}
