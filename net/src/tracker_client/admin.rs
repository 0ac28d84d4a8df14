//! The admin API, for publishers.

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use swarmseal_core::{SubscriberId, TorrentId, WitnessSecret};
use zeroize::Zeroizing;

use super::{Client, Error, Service, http_client, read};
use crate::wire::api::{ApiError, Passkey, Token};
use crate::wire::authority::SignedAuthority;
use crate::wire::keyfile::TokenFile;
use crate::wire::metainfo::{Metainfo, Seal};
use crate::wire::voucher::{self, CheckedCode, VoucherCode};

/// Bytes of the longest answer.
const MAX_ANSWER: usize = 16 << 20;

/// What a voucher or grant allows. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// How often it may be played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plays: Option<u64>,
    /// Not to be played before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// Not to be played from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Seconds that the player may do without the tracker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_grace: Option<u64>,
    /// Devices that it covers: 1 to 1,000.
    pub devices: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Terms { plays: None, not_before: None, expires: None, offline_grace: None, devices: 1 }
    }
}

/// Which vouchers to issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// The shop's own reference: 1 to 64 printable ASCII characters. The tracker draws one where there is none.
    pub reference: Option<&'a str>,
    /// A line of the order, for other terms or another torrent.
    pub line: u32,
    /// Vouchers of the line: 1 to 1,000.
    pub count: u32,
}

impl Default for Order<'_> {
    fn default() -> Self {
        Order { reference: None, line: 0, count: 1 }
    }
}

/// Vouchers of a line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The order's reference: the given one, or the one that the tracker drew.
    pub order: String,
    /// The codes, by their numbers from 0. The store has none of them; the same order asks for them again.
    pub codes: Vec<CheckedCode>,
}

/// What the registration of a torrent gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id of the seed whose key was registered.
    pub seed: SubscriberId,
    /// Its passkey, for announces.
    pub seed_passkey: Passkey,
}

/// Whose something is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traced {
    /// Those that it is of, as the tracker's JSON has them.
    pub matches: Vec<Value>,
    /// It is the witness's form of a piece, which is nobody's.
    pub witness: bool,
    /// Keys, or subscribers, that were compared.
    pub tried: u64,
    /// Epochs whose keys were compared.
    pub epochs: Vec<u64>,
    /// Epochs whose master keys the tracker has not any more.
    pub missing: Vec<u64>,
    /// How long it took, the network included.
    pub seconds: f64,
}

/// What an authority for a tracker names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnKeys {
    /// The tracker's.
    pub tracker_key: [u8; 32],
    /// What licenses are signed with: the tracker's, or that of its license server.
    pub license_key: [u8; 32],
}

/// A tracker's admin API. The token goes to its own tracker, after that tracker has proved its identity.
#[derive(Clone)]
pub struct AdminClient {
    http: reqwest::Client,
    client: Client,
    token: Zeroizing<String>,
}

impl AdminClient {
    /// With that token. `insecure_http`: plain HTTP may be spoken to other machines. Errors: [`Error::Unreachable`] where no HTTP client
    /// can be made.
    pub fn new(file: &TokenFile, insecure_http: bool) -> Result<Self, Error> {
        let service =
            Service::fixed(file.origin.clone(), file.tracker_key).allow_insecure_http(insecure_http);
        let token = Zeroizing::new(file.token.to_hex());
        Ok(AdminClient { http: http_client().build()?, client: Client::new(service)?, token })
    }

    /// What an authority for this tracker names.
    pub async fn keys(&self) -> Result<OwnKeys, Error> {
        #[derive(Deserialize)]
        struct Answer {
            tracker_key: String,
            license_key: String,
        }
        let answer: Answer = self.get("admin/keys").await?;
        Ok(OwnKeys { tracker_key: bytes(&answer.tracker_key)?, license_key: bytes(&answer.license_key)? })
    }

    /// A publisher's newest authority, if the tracker knows one.
    pub async fn authority(&self, publisher_key: &[u8; 32]) -> Result<Option<SignedAuthority>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            authority: Option<String>,
        }
        let path = format!("admin/authority?publisher_key={}", hex::encode(publisher_key));
        let answer: Answer = self.get(&path).await?;
        answer.authority.map(|authority| signed(&authority, publisher_key)).transpose()
    }

    /// Has the tracker serve an authority from now on, if it is newer than the one that it serves; the newest.
    pub async fn put_authority(&self, authority: &SignedAuthority) -> Result<SignedAuthority, Error> {
        #[derive(Deserialize)]
        struct Answer {
            authority: String,
        }
        let publisher = authority.publisher_key();
        let body = json!({
            "publisher_key": hex::encode(publisher),
            "authority": hex::encode(authority.as_bytes()),
        });
        let answer: Answer = self.post("admin/authority", &body).await?;
        signed(&answer.authority, publisher)
    }

    /// Registers a torrent, the public key of its seeds, and the witness secret that it was published with. The same again changes
    /// nothing; another key adds a seed.
    pub async fn register_torrent(
        &self,
        metainfo: &Metainfo,
        seed_key: &[u8; 32],
        witness: &WitnessSecret,
    ) -> Result<Registered, Error> {
        #[derive(Serialize)]
        struct Body<'b> {
            metainfo: String,
            seed_key: String,
            witness: &'b str,
            name: &'b str,
        }
        #[derive(Deserialize)]
        struct Answer {
            seed: String,
            seed_passkey: String,
        }
        let witness = Zeroizing::new(hex::encode(witness.as_bytes()));
        let body = Body {
            metainfo: hex::encode(metainfo.to_bytes()),
            seed_key: hex::encode(seed_key),
            witness: &witness,
            name: &metainfo.info.name,
        };
        let answer: Answer = self.post("admin/torrents", &body).await?;
        Ok(Registered {
            seed: SubscriberId(bytes(&answer.seed)?),
            seed_passkey: Passkey::new(bytes(&answer.seed_passkey)?),
        })
    }

    /// Issues one voucher of an order of its own; gives its code.
    pub async fn create_voucher(&self, seal: &Seal, terms: Terms) -> Result<CheckedCode, Error> {
        let mut issued = self.create_vouchers(seal, &Order::default(), terms).await?;
        issued.codes.pop().ok_or_else(|| Error::BadAnswer("no voucher".to_owned()))
    }

    /// Issues vouchers of the same terms for a line of an order, or gives the codes of those that were issued before: the same order, line
    /// and number always have the same code. `seal`: the torrent's. Errors: [`ApiError::OtherTerms`] where the line was issued with other
    /// terms; [`Error::BadAnswer`] where a code is missing, or does not fit the torrent's publisher, so that no client would send it.
    pub async fn create_vouchers(
        &self,
        seal: &Seal,
        order: &Order<'_>,
        terms: Terms,
    ) -> Result<Issued, Error> {
        #[derive(Serialize)]
        struct Body<'b> {
            torrent_id: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            order: Option<&'b str>,
            line: u32,
            count: u32,
            #[serde(flatten)]
            terms: Terms,
        }
        #[derive(Deserialize)]
        struct Answer {
            order: String,
            vouchers: Vec<String>,
        }
        let &Order { reference, line, count } = order;
        let body = Body { torrent_id: seal.torrent_id.to_string(), order: reference, line, count, terms };
        let Answer { order, vouchers } = self.post("admin/vouchers", &body).await?;
        let checked = |text: String| VoucherCode::parse(&Zeroizing::new(text))?.checked(&seal.publisher_key);
        let codes: Result<Vec<_>, voucher::Error> = vouchers.into_iter().map(checked).collect();
        let codes = codes.map_err(|error| Error::BadAnswer(error.to_string()))?;
        if codes.len() != count as usize {
            return Err(Error::BadAnswer(format!("{} vouchers for {count}", codes.len())));
        }
        Ok(Issued { order, codes })
    }

    /// Grants a license to a subscriber.
    pub async fn create_grant(
        &self,
        torrent: TorrentId,
        subscriber: SubscriberId,
        terms: Terms,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Body {
            torrent_id: String,
            subscriber: String,
            #[serde(flatten)]
            terms: Terms,
        }
        let (torrent_id, subscriber) = (torrent.to_string(), subscriber.to_string());
        let _: Value = self.post("admin/grants", &Body { torrent_id, subscriber, terms }).await?;
        Ok(())
    }

    /// Revokes a subscriber or a seed.
    pub async fn revoke(&self, id: SubscriberId) -> Result<(), Error> {
        let _: Value = self.post("admin/revoke", &json!({ "subscriber": id.to_string() })).await?;
        Ok(())
    }

    /// Replaces the passkey of a subscriber or a seed, whose owner asks for the new one by [`super::Client::passkey`].
    pub async fn rotate_passkey(&self, id: SubscriberId) -> Result<(), Error> {
        let _: Value = self.post("admin/passkey", &json!({ "subscriber": id.to_string() })).await?;
        Ok(())
    }

    /// Revokes a device of a grant and frees its place; the grant's devices then, as the tracker's JSON has them.
    pub async fn revoke_device(&self, grant: &[u8; 32], subscriber: SubscriberId) -> Result<Value, Error> {
        let body = json!({ "grant": hex::encode(grant), "subscriber": subscriber.to_string() });
        self.post("admin/grants/devices/revoke", &body).await
    }

    /// Lets a grant expire now; how many subscribers hold it.
    pub async fn revoke_grant(&self, id: &[u8; 32]) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Answer {
            holders: u64,
        }
        let answer: Answer = self.post("admin/grants/revoke", &json!({ "grant": hex::encode(id) })).await?;
        Ok(answer.holders)
    }

    /// The same of the grant behind a voucher; the grant's id. Errors: [`ApiError::BadVoucher`].
    pub async fn revoke_voucher(&self, code: &VoucherCode) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            revoked: String,
        }
        let answer: Answer = self.post("admin/grants/revoke", &json!({ "voucher": code.as_str() })).await?;
        Ok(answer.revoked)
    }

    /// Issues an admin token of the role `auditor`, `publisher` or `admin`; its id, and the token, which the tracker does
    /// not show again.
    pub async fn create_token(
        &self,
        name: &str,
        role: &str,
        expires: Option<u64>,
    ) -> Result<(String, Token), Error> {
        #[derive(Deserialize)]
        struct Answer {
            id: String,
            token: String,
        }
        let body = json!({ "name": name, "role": role, "expires": expires });
        let Answer { id, token } = self.post("admin/tokens", &body).await?;
        let token = Zeroizing::new(token);
        let token = Token::from_hex(&token).ok_or_else(|| Error::BadAnswer("no token".to_owned()))?;
        Ok((id, token))
    }

    /// The admin tokens that were issued, as the tracker's JSON has them.
    pub async fn tokens(&self) -> Result<Value, Error> {
        self.get("admin/tokens").await
    }

    /// Revokes an admin token.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        if id.is_empty() || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Error::BadId);
        }
        let _: Value = self.send(self.request(Method::DELETE, &format!("admin/tokens/{id}")).await?).await?;
        Ok(())
    }

    /// The audit log before an entry, newest first, as the tracker's JSON has it.
    pub async fn audit(&self, before: Option<u64>, limit: usize) -> Result<Value, Error> {
        let before = before.map(|number| format!("&before={number}")).unwrap_or_default();
        self.get(&format!("admin/audit?limit={limit}{before}")).await
    }

    /// Whose the encryption key of a piece is: W bytes, big-endian.
    pub async fn trace_key(&self, torrent: TorrentId, piece: u32, key: &[u8]) -> Result<Traced, Error> {
        #[derive(Serialize)]
        struct Body<'k> {
            torrent_id: String,
            piece: u32,
            key: &'k str,
            #[serde(skip_serializing_if = "Option::is_none")]
            after: Option<String>,
        }
        let (torrent_id, key) = (torrent.to_string(), Zeroizing::new(hex::encode(key)));
        self.trace(|after| Body { torrent_id: torrent_id.clone(), piece, key: &key, after }).await
    }

    /// Whose device a license is for.
    pub async fn trace_device(&self, torrent: TorrentId, device: &[u8; 32]) -> Result<Traced, Error> {
        let (torrent, device) = (torrent.to_string(), hex::encode(device));
        self.trace(|after| json!({ "torrent_id": torrent, "device": device, "after": after })).await
    }

    /// Whose personal torrent an info-hash is of.
    pub async fn trace_personal(&self, torrent: TorrentId, info_hash: &[u8; 20]) -> Result<Traced, Error> {
        let (torrent, info_hash) = (torrent.to_string(), hex::encode(info_hash));
        self.trace(|_| json!({ "torrent_id": torrent, "info_hash": info_hash })).await
    }

    async fn trace<B: Serialize>(&self, body: impl Fn(Option<String>) -> B) -> Result<Traced, Error> {
        #[derive(Deserialize)]
        struct Answer {
            matches: Vec<Value>,
            witness: bool,
            tried: u64,
            epochs: Vec<u64>,
            missing: Vec<u64>,
            next: Option<String>,
        }
        let begun = std::time::Instant::now();
        let (mut traced, mut after) = (Traced::default(), None);
        loop {
            let answer: Answer = self.post("admin/trace", &body(after)).await?;
            traced.matches.extend(answer.matches);
            traced.witness = answer.witness;
            traced.tried += answer.tried;
            (traced.epochs, traced.missing) = (answer.epochs, answer.missing);
            after = answer.next;
            if after.is_none() {
                traced.seconds = begun.elapsed().as_secs_f64();
                return Ok(traced);
            }
        }
    }

    /// Any list or record of the admin API, as its JSON has it. `path`: below `/admin/`, with its query.
    pub async fn read(&self, path: &str) -> Result<Value, Error> {
        self.get(&format!("admin/{path}")).await
    }

    /// Registered torrents, as the tracker's JSON has them.
    pub async fn torrents(&self) -> Result<Value, Error> {
        self.get("admin/torrents").await
    }

    /// A page of a torrent's subscribers, as the tracker's JSON has them.
    pub async fn subscribers(&self, torrent: TorrentId, after: Option<SubscriberId>) -> Result<Value, Error> {
        let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
        self.get(&format!("admin/subscribers?torrent_id={torrent}{after}")).await
    }

    /// A page of a torrent's hours, after one that began then: pieces keyed from seeds and from peers, which are estimates, as the
    /// tracker's JSON has them.
    pub async fn offload(&self, torrent: TorrentId, after: Option<u64>) -> Result<Value, Error> {
        let after = after.map(|hour| format!("&after={hour}")).unwrap_or_default();
        self.get(&format!("admin/offload?torrent_id={torrent}&limit=1000{after}")).await
    }

    /// The epochs of every torrent, as the tracker's JSON has them.
    pub async fn epochs(&self) -> Result<Value, Error> {
        self.get("admin/epochs").await
    }

    /// Begins the next epoch of a torrent, or of all; how their epochs stand then.
    pub async fn begin_epoch(&self, torrent: Option<TorrentId>) -> Result<Value, Error> {
        self.post("admin/epochs", &one_or_all(torrent)).await
    }

    /// Serves no epoch of a torrent, or of any, that is before `oldest`; how their epochs stand then.
    pub async fn retire_epochs(&self, torrent: Option<TorrentId>, oldest: u64) -> Result<Value, Error> {
        let mut body = one_or_all(torrent);
        body["oldest"] = oldest.into();
        self.post("admin/retire", &body).await
    }

    /// Writes a copy of the tracker's store as it is now to `to`, for [`restore`](crate::tracker::restore); names the key files
    /// that are not in it. Errors: as other calls, and [`Error::Write`].
    pub async fn back_up(&self, to: &mut impl std::io::Write) -> Result<Vec<String>, Error> {
        let mut answer = self.request(Method::POST, "admin/backup").await?.send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            return Err(refused(status, &read(answer, MAX_ANSWER).await?));
        }
        let left_out = answer.headers().get("swarmseal-left-out").and_then(|value| value.to_str().ok());
        let left_out = left_out.map(|names| names.split(", ").map(str::to_owned).collect());
        let left_out = left_out.ok_or_else(|| Error::BadAnswer("no list of what is left out".to_owned()))?;
        while let Some(portion) = answer.chunk().await? {
            to.write_all(&portion).map_err(Error::Write)?;
        }
        Ok(left_out)
    }

    /// Counters and totals, as the tracker's JSON has them.
    pub async fn stats(&self) -> Result<Value, Error> {
        self.get("admin/stats").await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(self.request(Method::GET, path).await?).await
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::BadAnswer(error.to_string()))?;
        let request = self.request(Method::POST, path).await?;
        self.send(request.header("content-type", "application/json").body(body)).await
    }

    /// A request with the token, for the tracker after it has proved its identity. `path`: with its query.
    async fn request(&self, method: Method, path: &str) -> Result<reqwest::RequestBuilder, Error> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.client.origin().await?.join(path);
        url.set_query(query);
        Ok(self.http.request(method, url).bearer_auth(self.token.as_str()))
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Error> {
        let answer = request.send().await?;
        let status = answer.status();
        let body = read(answer, MAX_ANSWER).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| Error::BadAnswer(error.to_string()));
        }
        Err(refused(status, &body))
    }
}

fn one_or_all(torrent: Option<TorrentId>) -> Value {
    match torrent {
        Some(torrent) => json!({ "torrent_id": torrent.to_string() }),
        None => json!({}),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        error: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { code, error }) => Error::Refused { code: ApiError::by_word(&code), reason: error },
        Err(_) => Error::BadAnswer(format!("HTTP status {}", status.as_u16())),
    }
}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminClient").field("service", self.client.service()).finish_non_exhaustive()
    }
}

fn signed(authority: &str, publisher_key: &[u8; 32]) -> Result<SignedAuthority, Error> {
    let bytes = hex::decode(authority).map_err(|_| Error::BadAnswer("no authority".to_owned()))?;
    SignedAuthority::from_bytes(&bytes, publisher_key).map_err(|error| Error::BadAnswer(error.to_string()))
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], Error> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out)
        .map_err(|_| Error::BadAnswer(format!("expected {} hexadecimal digits", 2 * N)))?;
    Ok(out)
}
