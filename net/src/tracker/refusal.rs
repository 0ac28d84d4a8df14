//! How a call is refused, and how an answer becomes HTTP.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::store::{ChangeError, StoreError};
use super::{Error, clock};
use crate::wire::api::{ApiError, Device, Failure};
use crate::wire::bencode;

/// A code, and a sentence for people.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: ApiError,
    pub(super) reason: String,
    /// Seconds after which it makes sense to try again.
    pub(super) retry_after: Option<u32>,
    /// Those that hold all the places of a grant, where that is why.
    pub(super) devices: Vec<Device>,
}

impl Refusal {
    pub(super) fn new(code: ApiError, reason: impl Into<String>) -> Self {
        let retry_after = matches!(code, ApiError::Rate | ApiError::Busy).then_some(1);
        Refusal { code, reason: reason.into(), retry_after, devices: Vec::new() }
    }

    /// One that will not be there after so many seconds.
    pub(super) fn wait(code: ApiError, seconds: u32) -> Self {
        Refusal { retry_after: Some(seconds), ..code.into() }
    }

    /// The answer, with this body.
    pub(super) fn answer(code: ApiError, retry_after: Option<u32>, body: impl IntoResponse) -> Response {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = (status, body).into_response();
        if let Some(seconds) = retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }
}

impl From<ApiError> for Refusal {
    fn from(code: ApiError) -> Self {
        Refusal::new(code, sentence(code))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        match error {
            StoreError::Full => ApiError::Full.into(),
            _ => ApiError::Internal.into(),
        }
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(code) => code.into(),
            ChangeError::Store(error) => error.into(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        tracing::error!(%error, "a call failed");
        ApiError::Internal.into()
    }
}

/// Only keys that were checked when they came reach the arithmetic.
impl From<swarmseal_core::Error> for Refusal {
    fn from(error: swarmseal_core::Error) -> Self {
        tracing::error!(%error, "the arithmetic failed");
        ApiError::Internal.into()
    }
}

impl From<bencode::Error> for Refusal {
    fn from(error: bencode::Error) -> Self {
        Refusal::new(ApiError::BadRequest, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let failure = Failure {
            code: self.code.word().to_owned(),
            reason: self.reason,
            now: Some(clock::now()),
            devices: self.devices,
        };
        Refusal::answer(self.code, self.retry_after, bencoded(bencode::to_bytes(&failure)))
    }
}

/// A bencoded answer; plain text, as BitTorrent trackers say.
pub(super) fn bencoded(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

fn sentence(code: ApiError) -> &'static str {
    match code {
        ApiError::BadRequest => "the body is not what this call takes",
        ApiError::TooLarge => "the body is too long",
        ApiError::UnknownTorrent => "no torrent of this id is registered here",
        ApiError::UnknownSubscriber => "no subscriber or seed of this id is registered here",
        ApiError::BadNonce => "the nonce is not this tracker's, has expired or was used",
        ApiError::BadSignature => "the signature does not verify",
        ApiError::BadPublicKey => "the public key is not a proper element of the torrent's group",
        ApiError::BadProof => "the proof of possession does not verify",
        ApiError::NoSession => "there is no such session, or it has expired",
        ApiError::WrongRole => "this session may not make this call",
        ApiError::WrongTorrent => "this belongs to another torrent",
        ApiError::BadTicket => "the ticket is not the downloader's word to this uploader",
        ApiError::ExpiredTicket => "the ticket has expired, or expires too late",
        ApiError::UnknownEpoch => "the tracker has no master key for this epoch",
        ApiError::RetiredEpoch => "the epoch of these pieces is retired",
        ApiError::BadPiece => "expected 1 to 512 pieces, each a sealed one of the torrent",
        ApiError::NotLicensed => "nothing is granted to this subscriber",
        ApiError::ExpiredLicense => "what was granted has expired",
        ApiError::BadVoucher => "there is no such voucher for this torrent",
        ApiError::UsedVoucher => "all devices that this covers are taken",
        ApiError::OtherTerms => {
            "this line of the order was issued with other terms: ask with the same ones, or name another line"
        }
        ApiError::TooManyChanges => "too many devices were revoked of late",
        ApiError::LostRecord => "this device's record of plays was lost, or set back, too often",
        ApiError::UnknownGrant => "there is no grant of this id",
        ApiError::UnknownToken => "there is no admin token of this id",
        ApiError::UnknownPersonal => "there is no such personal torrent, or nobody announces it",
        ApiError::BadHashes => "the hashes do not follow those that there are",
        ApiError::Revoked => "this subscription was revoked",
        ApiError::Rate => "too many calls: wait",
        ApiError::Full => "the tracker's disk is full",
        ApiError::Busy => "the tracker has too much to do: try again",
        _ => "the tracker failed",
    }
}
