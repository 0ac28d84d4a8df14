//! The store: backups while it is in use, what becomes of them, and keys that do not fit.

use swarmseal::tracker::{Restored, StoreError, restore};

use super::*;

/// The error of a tracker that does not start.
async fn refused(data: &Path) -> TrackerError {
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(data) };
    Server::bind(config).await.err().expect("it must not start")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_is_whole_and_has_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("first");
    let tracker = Running::start(&data).await;
    let published = Published::new(&tracker).await;
    let (before, subscribed) = Device::subscribed(&tracker, &published).await;
    let code = tracker.admin().create_voucher(published.seal(), Terms::default()).await.unwrap();
    before.client(&tracker).license(published.id(), Some(&code)).await.unwrap();

    let backup = directory.path().join("backup");
    let mut file = std::fs::File::create(&backup).unwrap();
    let admin = tracker.admin();
    let (left_out, during) = tokio::join!(admin.back_up(&mut file), async {
        let mut during = Vec::new();
        for _ in 0..8 {
            during.push(Device::subscribed(&tracker, &published).await.0.id);
        }
        during
    });
    assert_eq!(
        left_out.unwrap(),
        ["masters/1.key", "witnesses/*.key", "tracker.key", "license.key", "voucher.key", "admin.token"]
    );
    let bytes = std::fs::read(&backup).unwrap();
    let witness = format!("witnesses/{}.key", published.id());
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let names = ["masters/1.key", &witness, "tracker.key", "license.key", "voucher.key"];
    let secrets = names.map(|name| (name, hex::decode(read(name).trim()).unwrap()));
    let token = TokenFile::read(&data.join("admin.token")).unwrap().token.as_bytes().to_vec();
    for (name, secret) in secrets.into_iter().chain([("admin.token", token)]) {
        assert!(!bytes.windows(32).any(|window| window == secret), "{name} is in the backup");
    }
    // Nothing of it stays in the tracker's directory.
    let left = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".backup")));
    tracker.stop().await;

    // On another machine: a store without its keys does not start, nor with others.
    let other = directory.path().join("second");
    let Restored { made, torrents, subscribers, missing } = restore(&backup, &other).unwrap();
    assert!(made.is_some_and(|made| made + 600 > soon() - 3600), "{made:?}");
    assert_eq!(torrents, 1);
    assert!((1..=1 + during.len() as u64).contains(&subscribers), "{subscribers}");
    assert_eq!(
        missing,
        ["masters/1.key", "tracker.key", "license.key", "voucher.key", &witness].map(|name| other.join(name))
    );
    let again = restore(&backup, &other);
    assert!(matches!(again, Err(TrackerError::StoreExists { .. })), "{again:?}");
    assert!(matches!(refused(&other).await, TrackerError::MissingKey { path } if path == missing[0]));
    std::fs::copy(data.join("masters/1.key"), &missing[0]).unwrap();
    assert!(matches!(refused(&other).await, TrackerError::MissingKey { path } if path == missing[1]));
    let wrong = |path: &Path| std::fs::write(path, format!("{}\n", "07".repeat(32))).unwrap();
    wrong(&missing[1]);
    assert!(matches!(refused(&other).await, TrackerError::MissingKey { path } if path == missing[2]));
    wrong(&missing[2]);
    assert!(matches!(refused(&other).await, TrackerError::MissingKey { path } if path == missing[3]));
    wrong(&missing[3]);
    assert!(matches!(refused(&other).await, TrackerError::MissingKey { path } if path == missing[4]));
    wrong(&missing[4]);
    for (name, path) in [("tracker.key", 1), ("license.key", 2), ("voucher.key", 3)] {
        assert!(matches!(refused(&other).await, TrackerError::OtherKey { name: found } if found == name));
        std::fs::copy(data.join(name), &missing[path]).unwrap();
    }
    let name_of_it = format!("witness {}", published.id());
    assert!(matches!(refused(&other).await, TrackerError::OtherKey { name } if name == name_of_it));
    std::fs::copy(data.join(&witness), &missing[4]).unwrap();
    let tracker = Running::start(&other).await;
    let again = before.subscribe(&tracker, &published).await.unwrap();
    assert_eq!(again.passkey, subscribed.passkey);
    before.client(&tracker).license(published.id(), None).await.unwrap();
    let (late, _) = Device::subscribed(&tracker, &published).await;
    let used = late.client(&tracker).license(published.id(), Some(&code)).await;
    assert_eq!(super::code(used), ApiError::UsedVoucher);
    tracker.stop().await;
}

#[tokio::test]
async fn another_master_key_is_noticed_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    tracker.stop().await;
    std::fs::write(directory.path().join("masters/1.key"), format!("{}\n", "07".repeat(32))).unwrap();
    let error = refused(directory.path()).await;
    assert!(matches!(&error, TrackerError::OtherKey { name } if name == "master 1"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tracker.redb");
    std::fs::write(&path, vec![9; 70_000]).unwrap();
    let error = refused(directory.path()).await;
    assert!(matches!(error, TrackerError::Store(StoreError::Unreadable { .. })), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![9; 70_000]);
    let restored = restore(&path, &directory.path().join("other"));
    assert!(
        matches!(restored, Err(TrackerError::Store(StoreError::Unreadable { path: named, .. })) if named == path)
    );
    assert!(!directory.path().join("other/tracker.redb").exists());
}
