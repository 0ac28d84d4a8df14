//! The admin API: roles, tokens, the audit log, and what is listed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

impl Running {
    async fn with_role(&self, role: &str) -> (AdminClient, String, String) {
        let (id, token) = self.admin().create_token("somebody", role, None).await.unwrap();
        (self.with_token(&token), id, token.to_hex())
    }

    /// Sends a call with a token or none; status and answer.
    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> (u16, String) {
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n\
             {authorization}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.raw(request.as_bytes()).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (answer[9..12].parse().unwrap(), body.to_owned())
    }
}

/// Everything in the directory, as bytes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn the_description_names_each_number_of_the_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (_, _, auditor) = tracker.with_role("auditor").await;
    let answer = async |path, token| {
        let (status, body) = tracker.ask("GET", path, token, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let description = answer("/admin/openapi.json", None).await;
    let stats = answer("/admin/stats", Some(&auditor)).await;
    let schema = &description["paths"]["/admin/stats"]["get"]["responses"]["200"]["content"]["application/json"]
        ["schema"];
    let given: BTreeSet<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    let described: BTreeSet<&str> =
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let required: BTreeSet<&str> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(described, given);
    assert_eq!(required, given);
}

#[tokio::test]
async fn every_call_of_the_description_is_there_and_asks_for_a_role() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (_, description) = tracker.ask("GET", "/admin/openapi.json", None, None).await;
    let description: Value = serde_json::from_str(&description).unwrap();
    let mut calls = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &"0".repeat(64));
        calls.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    assert!(calls.len() >= 20, "{calls:?}");
    let (_, _, auditor) = tracker.with_role("auditor").await;
    let (_, _, publisher) = tracker.with_role("publisher").await;
    let admins_own = ["/admin/tokens", "/admin/audit", "/admin/backup"];
    for (method, path) in &calls {
        let reads = method == "GET";
        assert_eq!(tracker.ask(method, path, None, None).await.0, 401, "{method} {path}");
        let unknown = "00".repeat(32);
        assert_eq!(tracker.ask(method, path, Some(&unknown), None).await.0, 401, "{method} {path}");
        // 403 is a role's; what is allowed goes on to other mistakes, if any.
        let refused = async |token: &str| {
            let (status, body) = tracker.ask(method, path, Some(token), None).await;
            assert!(status != 405 && status < 500, "{method} {path}: {status} {body}");
            status == 403 && body.contains("wrong-role")
        };
        assert_eq!(refused(&auditor).await, !reads, "auditor: {method} {path}");
        let own = admins_own.iter().any(|own| path.starts_with(own))
            || !reads && ["/admin/epochs", "/admin/retire"].contains(&path.as_str());
        assert_eq!(refused(&publisher).await, own, "publisher: {method} {path}");
        assert!(!refused(&tracker.token.token.to_hex()).await, "admin: {method} {path}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn what_is_not_said_in_full_does_not_mean_all() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let token = tracker.token.token.to_hex();
    let token = token.as_str();
    let epochs = async || tracker.ask("GET", "/admin/epochs", Some(token), None).await;
    let before = epochs().await;
    assert!(before.1.contains(&published.id().to_string()), "{}", before.1);
    for body in [json!([]), json!([null]), json!({ "torrent_id": null }), json!(null), json!("all")] {
        let (status, answer) = tracker.ask("POST", "/admin/epochs", Some(token), Some(body.clone())).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    assert_eq!(epochs().await, before);
    assert_eq!(tracker.ask("POST", "/admin/epochs", Some(token), Some(json!({}))).await.0, 200);
    assert_ne!(epochs().await, before);
    tracker.stop().await;
}

#[tokio::test]
async fn tokens_are_issued_listed_and_revoked_and_only_their_hashes_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let (publisher, id, token) = tracker.with_role("publisher").await;
    let (auditor, _, _) = tracker.with_role("auditor").await;
    let published = Published::new(&tracker).await;
    publisher.create_voucher(published.seal(), Terms::default()).await.unwrap();
    assert_eq!(code(auditor.create_voucher(published.seal(), Terms::default()).await), ApiError::WrongRole);
    assert_eq!(code(publisher.create_token("me", "admin", None).await), ApiError::WrongRole);
    assert_eq!(
        publisher.read("whoami").await.unwrap(),
        json!({ "id": id, "name": "somebody", "role": "publisher" })
    );

    let admin = tracker.admin();
    for (name, role, expires) in
        [("", "admin", None), ("x", "king", None), ("x", "admin", Some(1)), ("a\nb", "admin", None)]
    {
        assert_eq!(
            code(admin.create_token(name, role, expires).await),
            ApiError::BadRequest,
            "{name} {role}"
        );
    }
    let listed = admin.tokens().await.unwrap();
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(&token));
    tracker.stop().await;

    for (path, bytes) in files(directory.path()) {
        for secret in [token.as_bytes(), &hex::decode(&token).unwrap()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "the token is in {path}");
        }
    }
    let tracker = Running::start(directory.path()).await;
    let publisher = tracker.with_token(&Token::from_hex(&token).unwrap());
    publisher.create_voucher(published.seal(), Terms::default()).await.unwrap();
    tracker.admin().revoke_token(&id).await.unwrap();
    assert_eq!(code(publisher.create_voucher(published.seal(), Terms::default()).await), ApiError::NoSession);
    assert_eq!(code(tracker.admin().revoke_token(&id).await), ApiError::UnknownToken);
    tracker.stop().await;
    let tracker = Running::start(directory.path()).await;
    let publisher = tracker.with_token(&Token::from_hex(&token).unwrap());
    assert_eq!(code(publisher.stats().await), ApiError::NoSession);
    tracker.stop().await;
}

#[tokio::test]
async fn what_is_changed_is_audited_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start_with(Config { audit_entries: 6, ..Config::new(directory.path()) }).await;
    let published = Published::new(&tracker).await;
    let (device, _) = Device::subscribed(&tracker, &published).await;
    let (publisher, publisher_id, token) = tracker.with_role("publisher").await;
    let voucher = publisher.create_voucher(published.seal(), Terms::default()).await.unwrap();
    publisher.revoke(device.id).await.unwrap();
    assert_eq!(code(publisher.revoke(SubscriberId([3; 32])).await), ApiError::UnknownSubscriber);
    assert_eq!(code(publisher.revoke_token("00").await), ApiError::WrongRole);
    assert_eq!(code(publisher.audit(None, 10).await), ApiError::WrongRole);
    // Reading is not audited where it is allowed, nor is who has no token.
    publisher.stats().await.unwrap();
    let stranger = tracker.guessing();
    assert!(stranger.stats().await.is_err());

    let (auditor, ..) = tracker.with_role("auditor").await;
    let page = auditor.audit(None, 4).await.unwrap();
    let shown = |page: &Value| {
        let entries = page["entries"].as_array().unwrap().iter();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
        entries
            .map(|entry| ["role", "action", "outcome"].map(|name| text(entry, name)).join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&page),
        [
            "admin POST /admin/tokens 200",
            "publisher GET /admin/audit 403 wrong-role",
            "publisher DELETE /admin/tokens/{id} 403 wrong-role",
            "publisher POST /admin/revoke 404 unknown-subscriber",
        ]
    );
    let rest = auditor.audit(page["next"].as_u64(), 100).await.unwrap();
    // Of eight entries six are kept.
    assert_eq!(shown(&rest), ["publisher POST /admin/revoke 200", "publisher POST /admin/vouchers 200"]);
    assert_eq!(rest["next"], Value::Null);
    let revoked = &rest["entries"][0];
    assert_eq!(
        (&revoked["subject"], &revoked["token"]),
        (&device.id.to_string().into(), &publisher_id.into())
    );
    assert_eq!((&revoked["address"], &revoked["who"]), (&"127.0.0.1".into(), &"somebody".into()));
    for secret in [voucher.as_str(), voucher.to_text().as_str(), &token, &tracker.token.token.to_hex()] {
        assert!(!format!("{page}{rest}").contains(secret));
    }
    tracker.stop().await;
    // It is there after a restart, and goes on.
    let tracker = Running::start(directory.path()).await;
    let number = page["entries"][0]["number"].as_u64().unwrap();
    assert_eq!(tracker.admin().audit(None, 1).await.unwrap()["entries"][0]["number"], number);
    assert!(tracker.admin().revoke(SubscriberId([3; 32])).await.is_err());
    assert_eq!(tracker.admin().audit(None, 1).await.unwrap()["entries"][0]["number"], number + 1);
    tracker.stop().await;
}

#[tokio::test]
async fn grants_accounts_vouchers_and_revocations_are_listed_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let tracker = Running::start(directory.path()).await;
    let published = Published::new(&tracker).await;
    let (torrent, admin) = (published.id(), tracker.admin());
    let (one, _) = Device::subscribed(&tracker, &published).await;
    let (other, _) = Device::subscribed(&tracker, &published).await;
    let grant = json!({ "torrent_id": torrent.to_string(), "subscriber": one.id.to_string(), "account": "ann", "devices": 2 });
    let (status, answer) =
        tracker.ask("POST", "/admin/grants", Some(&tracker.token.token.to_hex()), Some(grant)).await;
    assert_eq!(status, 200, "{answer}");
    let (order, terms) = (
        Order { reference: Some("A-1001"), line: 2, count: 3 },
        Terms { plays: Some(3), ..Terms::default() },
    );
    let vouchers = admin.create_vouchers(published.seal(), &order, terms).await.unwrap().codes;
    other.client(&tracker).license(torrent, Some(&vouchers[0])).await.unwrap();

    let list = async |path: &str, name: &str| {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = admin.read(&format!("{path}{joint}limit=1{after}")).await.unwrap();
            found.extend(page[name].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return found,
            }
        }
    };
    let grants = list("grants", "grants").await;
    assert_eq!(grants.len(), 4);
    assert_eq!(list(&format!("grants?torrent_id={torrent}&account=ann"), "grants").await.len(), 1);
    assert_eq!(list("grants?account=bob", "grants").await.len(), 0);
    assert_eq!(list(&format!("grants?torrent_id={}", "0".repeat(64)), "grants").await.len(), 0);
    let accounts = list("accounts", "accounts").await;
    assert_eq!(accounts.len(), 1);
    assert_eq!(
        (&accounts[0]["account"], &accounts[0]["devices"], &accounts[0]["used"]),
        (&"ann".into(), &2.into(), &1.into())
    );
    let issued = list(&format!("vouchers?torrent_id={torrent}"), "vouchers").await;
    let redeemed =
        issued.iter().filter(|voucher| voucher["holders"] == json!([other.id.to_string()])).count();
    assert_eq!((issued.len(), redeemed), (3, 1));
    for voucher in &vouchers {
        let shown = json!(issued).to_string();
        assert!(!shown.contains(voucher.as_str()) && !shown.contains(voucher.to_text().as_str()));
    }
    let mut numbers: Vec<_> = issued.iter().map(|voucher| voucher["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(
        issued.iter().all(|voucher| (&voucher["order"], &voucher["line"]) == (&"A-1001".into(), &2.into()))
    );
    assert!(issued.iter().all(|voucher| voucher["voucher"].as_str().unwrap().len() == 64));
    let about = admin.read(&format!("subscribers/{}", one.id)).await.unwrap();
    assert_eq!(about["grant"]["account"], "ann");
    assert_eq!(
        code(admin.read(&format!("subscribers/{}", "0".repeat(64))).await),
        ApiError::UnknownSubscriber
    );
    assert_eq!(code(admin.read("subscribers/nobody").await), ApiError::BadRequest);
    for limit in ["0", "1001", "-1", "x"] {
        let of_account = format!("grants?torrent_id={torrent}&account=ann&limit={limit}");
        for path in [format!("grants?limit={limit}"), of_account] {
            assert_eq!(code(admin.read(&path).await), ApiError::BadRequest, "{path}");
        }
    }

    // A grant, a voucher that was redeemed, and one that was not.
    one.client(&tracker).license(torrent, None).await.unwrap();
    let mut id = [0; 32];
    hex::decode_to_slice(accounts[0]["grant"].as_str().unwrap(), &mut id).unwrap();
    assert_eq!(admin.revoke_grant(&id).await.unwrap(), 1);
    assert_eq!(code(one.client(&tracker).license(torrent, None).await), ApiError::ExpiredLicense);
    admin.revoke_voucher(&vouchers[0]).await.unwrap();
    assert_eq!(code(other.client(&tracker).license(torrent, None).await), ApiError::ExpiredLicense);
    admin.revoke_voucher(&vouchers[1]).await.unwrap();
    assert_eq!(
        code(one.client(&tracker).license(torrent, Some(&vouchers[1])).await),
        ApiError::ExpiredLicense
    );
    assert_eq!(code(admin.revoke_grant(&[1; 32]).await), ApiError::UnknownGrant);
    assert_eq!(code(admin.revoke_voucher(&published.unissued()).await), ApiError::BadVoucher);
    let typed = json!({ "voucher": "no such code" });
    let (status, answer) =
        tracker.ask("POST", "/admin/grants/revoke", Some(&tracker.token.token.to_hex()), Some(typed)).await;
    assert!(status == 403 && answer.contains("\"bad-voucher\""), "{answer}");
    // The third is as good as before.
    one.client(&tracker).license(torrent, Some(&vouchers[2])).await.unwrap();

    assert_eq!(list("revocations", "revocations").await.len(), 0);
    admin.revoke(one.id).await.unwrap();
    admin.revoke(published.seed_id()).await.unwrap();
    let revoked = list("revocations?of=subscribers", "revocations").await;
    assert_eq!(
        revoked,
        [json!({ "id": one.id.to_string(), "role": "subscriber", "torrent_id": torrent.to_string() })]
    );
    let seeds = list("revocations?of=seeds", "revocations").await;
    assert_eq!(seeds[0]["id"], published.seed_id().to_string());
    tracker.stop().await;
}
