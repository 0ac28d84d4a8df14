//! Devices that share a grant: enrolled, named, revoked by their users and by the publisher; what they played, and records of it that
//! were set back.

use serde_json::json;
use swarmseal::wire::api::{Devices, PlayRecord};

use super::*;

/// A tracker, a torrent, and a voucher for so many devices and plays.
async fn sold(config: Config, devices: u64, plays: Option<u64>) -> (Running, Published, CheckedCode) {
    let tracker = Running::start_with(config).await;
    let published = Published::new(&tracker).await;
    let terms = Terms { plays, devices, ..Terms::default() };
    let voucher = tracker.admin().create_voucher(published.seal(), terms).await.unwrap();
    (tracker, published, voucher)
}

fn ids(devices: &Devices) -> Vec<SubscriberId> {
    devices.devices.iter().map(|device| device.subscriber).collect()
}

#[tokio::test]
async fn a_device_makes_room_for_another_and_gets_nothing_more() {
    let directory = tempfile::tempdir().unwrap();
    let (tracker, published, voucher) = sold(Config::new(directory.path()), 2, None).await;
    let torrent = published.id();
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(Device::subscribed(&tracker, &published).await.0);
    }
    let client = |n: usize| devices[n].client(&tracker);
    assert_eq!(code(client(0).devices(torrent, None, None).await), ApiError::NotLicensed);
    for n in [0, 1] {
        client(n).license(torrent, Some(&voucher)).await.unwrap();
    }
    let listed = client(1).devices(torrent, Some("laptop"), None).await.unwrap();
    assert_eq!(ids(&listed), [devices[0].id, devices[1].id]);
    assert_eq!((listed.places, listed.changes, listed.next), (2, 3, None));
    assert_eq!(listed.devices[1].name.as_deref(), Some("laptop"));
    assert!(listed.devices[0].enrolled.abs_diff(listed.now) < 60, "{listed:?}");
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert_eq!(
            code(client(1).devices(torrent, Some(name), None).await),
            ApiError::BadRequest,
            "{name:?}"
        );
    }

    // Who comes third is told who is there, and what can be done.
    match client(2).license(torrent, Some(&voucher)).await.unwrap_err() {
        Error::PlacesTaken { reason, devices: taken } => {
            assert_eq!(taken, listed.devices);
            for part in ["`laptop`", "all 2 devices", "--revoke", "UTC", &devices[0].id.to_string()[..8]] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        other => panic!("{other}"),
    }
    // Nobody revokes what he has no part in, nor a stranger to the grant.
    assert_eq!(code(client(2).revoke_device(torrent, devices[0].id).await), ApiError::NotLicensed);
    assert_eq!(code(client(0).revoke_device(torrent, devices[2].id).await), ApiError::UnknownSubscriber);
    let left = client(1).revoke_device(torrent, devices[0].id).await.unwrap();
    assert_eq!((ids(&left), left.changes), (vec![devices[1].id], 2));

    // It is out: no license, no keys, no announce; what it has opens on until its license ends.
    assert_eq!(code(client(0).license(torrent, Some(&voucher)).await), ApiError::Revoked);
    assert_eq!(code(devices[0].subscribe(&tracker, &published).await), ApiError::Revoked);
    let ticket = devices[3].ticket(&published, devices[0].id, soon());
    assert_eq!(code(client(0).rekey(torrent, 1, &ticket, &[0]).await), ApiError::Revoked);
    let ticket = devices[0].ticket(&published, published.seed_id(), soon());
    assert_eq!(code(published.seed(&tracker).seed_keys(torrent, &ticket, &[0]).await), ApiError::Revoked);
    client(2).license(torrent, Some(&voucher)).await.unwrap();

    // Not more often than the tracker allows.
    client(2).revoke_device(torrent, devices[1].id).await.unwrap();
    client(3).license(torrent, Some(&voucher)).await.unwrap();
    let left = client(3).revoke_device(torrent, devices[2].id).await.unwrap();
    assert_eq!(left.changes, 0);
    let next = left.next.unwrap();
    assert!(next > left.now + 29 * 24 * 3600, "{left:?}");
    let refused = client(3).revoke_device(torrent, devices[3].id).await.unwrap_err();
    assert_eq!(refused.code(), Some(ApiError::TooManyChanges));
    assert!(refused.to_string().contains("wait until 20"), "{refused}");
    tracker.stop().await;
    // It is all there after a restart.
    let tracker = Running::start(directory.path()).await;
    let listed = devices[3].client(&tracker).devices(torrent, None, None).await.unwrap();
    assert_eq!((ids(&listed), listed.changes, listed.next), (vec![devices[3].id], 0, Some(next)));
    tracker.stop().await;
}

#[tokio::test]
async fn the_publisher_sees_and_revokes_devices_of_an_account() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { device_changes: 0, ..Config::new(directory.path()) };
    let (tracker, published, _) = sold(config, 1, None).await;
    let (torrent, admin) = (published.id(), tracker.admin());
    let (one, _) = Device::subscribed(&tracker, &published).await;
    let (other, _) = Device::subscribed(&tracker, &published).await;
    let (third, _) = Device::subscribed(&tracker, &published).await;
    let mut grant = [0; 32];
    let give = async |device: &Device| {
        let body = json!({
            "torrent_id": torrent.to_string(), "subscriber": device.id.to_string(), "account": "ann", "devices": 2,
        });
        let body = body.to_string();
        let request = format!(
            "POST /admin/grants HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            &tracker.token.token.to_hex(),
            body.len()
        );
        let answer = tracker.raw(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), serde_json::from_str::<serde_json::Value>(body).unwrap())
    };
    for device in [&one, &other] {
        let (status, answer) = give(device).await;
        assert_eq!(status, "200", "{answer}");
        hex::decode_to_slice(answer["grant"].as_str().unwrap(), &mut grant).unwrap();
    }
    assert_eq!(give(&third).await.1["code"], "used-voucher");
    one.client(&tracker).devices(torrent, Some("phone"), None).await.unwrap();
    // Its users may not, here.
    let refused = one.client(&tracker).revoke_device(torrent, other.id).await;
    assert_eq!(code(refused), ApiError::TooManyChanges);

    let id = hex::encode(grant);
    let shown = admin.read(&format!("grants/{id}/devices")).await.unwrap();
    let devices = shown["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &devices[0]["name"], &shown["places"]), (2, &"phone".into(), &2.into()));
    assert_eq!(devices[1]["subscriber"], other.id.to_string());
    let shown = admin.revoke_device(&grant, other.id).await.unwrap();
    assert_eq!((shown["devices"].as_array().unwrap().len(), &shown["freed"]), (1, &json!([])));
    assert_eq!(code(admin.revoke_device(&grant, other.id).await), ApiError::UnknownSubscriber);
    assert_eq!(code(admin.revoke_device(&[7; 32], one.id).await), ApiError::UnknownGrant);
    assert_eq!(code(admin.read(&format!("grants/{}/devices", "0".repeat(64))).await), ApiError::UnknownGrant);
    assert_eq!(code(admin.read("grants/none/devices").await), ApiError::BadRequest);
    assert_eq!(code(other.client(&tracker).license(torrent, None).await), ApiError::Revoked);
    assert_eq!(give(&third).await.0, "200");
    let audit = admin.audit(None, 10).await.unwrap().to_string();
    assert!(audit.contains(&format!("subscriber {} of grant {id}", other.id)), "{audit}");
    tracker.stop().await;
}

#[tokio::test]
async fn plays_are_told_and_stay_told() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { record_resets: 1, ..Config::new(directory.path()) };
    let (tracker, published, voucher) = sold(config, 1, Some(5)).await;
    let torrent = published.id();
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let client = device.client(&tracker);
    let told = |counter, plays| Some(PlayRecord { counter, lost: 0, plays });
    let license = async |voucher: Option<&CheckedCode>, record| {
        let envelope = client.license_with(torrent, None, voucher, record).await?;
        let key = published.license_key();
        Ok(License::open(&envelope, &device.identity, &key).unwrap())
    };
    let allowed = |license: &License| (license.policy.plays, license.played);
    let first: License = license(Some(&voucher), told(1, 0)).await.unwrap();
    assert_eq!(allowed(&first), (Some(5), 0));
    assert!(first.issued.unwrap().abs_diff(soon() - 3600) < 60);
    let listed = client.devices(torrent, None, told(4, 2)).await.unwrap();
    assert_eq!(listed.devices[0].plays, 2);
    let second = license(None, told(6, 3)).await.unwrap();
    assert_eq!(allowed(&second), (Some(5), 3));
    // All of the device's files put back, or lost: once, and the plays stay used.
    let third = license(None, told(2, 1)).await.unwrap();
    assert_eq!(allowed(&third), (Some(5), 3));
    let refused = license(None, told(1, 0)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { code: ApiError::LostRecord, reason } if reason.contains("before 20"))
    );
    let lost = Some(PlayRecord { counter: 9, lost: 1, plays: 0 });
    assert_eq!(code(license(None, lost).await), ApiError::LostRecord);
    // The same voucher again is no purchase.
    assert_eq!(code(license(Some(&voucher), lost).await), ApiError::LostRecord);
    let on = license(None, told(3, 4)).await.unwrap();
    assert_eq!(allowed(&on), (Some(5), 4));
    // Whoever buys again has what he bought, on top of what he had played.
    let terms = Terms { plays: Some(5), ..Terms::default() };
    let another = tracker.admin().create_voucher(published.seal(), terms).await.unwrap();
    let more = license(Some(&another), told(4, 5)).await.unwrap();
    assert_eq!(allowed(&more), (Some(10), 5));
    let again = license(Some(&another), told(5, 6)).await.unwrap();
    assert_eq!(allowed(&again), (Some(10), 6));
    // Nor does a record that was lost too often keep anybody from buying, or from what the publisher grants.
    assert_eq!(code(license(None, lost).await), ApiError::LostRecord);
    let third = tracker.admin().create_voucher(published.seal(), terms).await.unwrap();
    assert_eq!(allowed(&license(Some(&third), lost).await.unwrap()), (Some(11), 6));
    assert_eq!(code(license(None, lost).await), ApiError::LostRecord);
    tracker.admin().create_grant(torrent, device.id, Terms { plays: Some(2), ..terms }).await.unwrap();
    assert_eq!(allowed(&license(None, lost).await.unwrap()), (Some(8), 6));
    tracker.stop().await;
}
