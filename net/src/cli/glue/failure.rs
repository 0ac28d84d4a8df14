//! Errors of the libraries as failures of the program: what to say, and how to exit.

use std::net::SocketAddr;

use serde_json::json;

use crate::cli::{Exit, Failure};
use crate::peer::{AddError, StoreError};
use crate::publish::CacheError;
use crate::tracker::SecretFileError;
use crate::wire::api::ApiError;
use crate::wire::keyfile;
use crate::wire::license::LicenseError;
use crate::{player, publish, tracker, tracker_client};

/// A call to the tracker.
pub(crate) fn client_failure(error: tracker_client::Error) -> Failure {
    let exit = match error.code() {
        Some(ApiError::NotLicensed | ApiError::BadVoucher | ApiError::UsedVoucher) => Exit::NotLicensed,
        Some(ApiError::ExpiredLicense) => Exit::Expired,
        Some(ApiError::Revoked) => Exit::Revoked,
        Some(ApiError::LostRecord) => Exit::Tampered,
        _ if matches!(error, tracker_client::Error::PlainHttp { .. }) => Exit::Usage,
        _ => Exit::Tracker,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        tracker_client::Error::PlacesTaken { devices, .. } => {
            let devices: Vec<_> = devices.iter().map(super::device_json).collect();
            failure.with(json!({ "code": ApiError::UsedVoucher.word(), "devices": devices }))
        }
        tracker_client::Error::Refused { code, .. } => failure.with(json!({ "code": code.word() })),
        _ => failure,
    }
}

/// A license that does not open.
pub(crate) fn license_failure(error: LicenseError) -> Failure {
    player_failure(error.into())
}

/// A refusal of the player.
pub(crate) fn player_failure(error: player::Error) -> Failure {
    use player::Error;
    // What can be done about it.
    let help = match &error {
        Error::Expired { .. } => {
            "a newer one, if there is, comes with `swarmseal license`; another is bought with --voucher CODE"
        }
        Error::NotYet { .. } => "wait until then, and see that the clock is right",
        Error::NoPlaysLeft { .. } => "more are bought by `swarmseal license` with --voucher CODE",
        Error::OfflineTooLong { .. }
        | Error::TamperedPolicyState { .. }
        | Error::LostPolicyState { .. }
        | Error::OldPolicyState { .. }
        | Error::ElsewherePolicyState { .. } => "`swarmseal license` does so",
        Error::CorruptPiece { .. } => "`swarmseal play` without --no-fetch has it fetched again",
        Error::MissingPiece { .. } => "`swarmseal get` fetches it",
        _ => "",
    };
    let message = if help.is_empty() { error.to_string() } else { format!("{error}: {help}") };
    let details = match &error {
        Error::Expired { since } => json!({ "reason": "expired", "since": since }),
        Error::NotYet { until } => json!({ "reason": "not-yet", "until": until }),
        Error::NoPlaysLeft { allowed } => json!({ "reason": "no-plays-left", "plays": allowed }),
        Error::OfflineTooLong { grace, since } => {
            json!({ "reason": "offline-too-long", "offline_grace": grace, "since": since })
        }
        Error::TamperedPolicyState { path } => json!({ "reason": "record-changed", "path": path }),
        Error::LostPolicyState { path } => json!({ "reason": "record-lost", "path": path }),
        Error::OldPolicyState { path } => json!({ "reason": "record-put-back", "path": path }),
        Error::ElsewherePolicyState { path } => json!({ "reason": "record-copied", "path": path }),
        _ => serde_json::Value::Null,
    };
    let exit = match error {
        Error::WrongKey(_) => Exit::WrongKey,
        Error::WrongTorrent => Exit::WrongTorrent,
        Error::TamperedLicense
        | Error::MalformedLicense(_)
        | Error::TamperedPolicyState { .. }
        | Error::LostPolicyState { .. }
        | Error::OldPolicyState { .. }
        | Error::ElsewherePolicyState { .. } => Exit::Tampered,
        Error::NewerLicense { .. } | Error::NewerPolicyState { .. } => Exit::NewerVersion,
        Error::Expired { .. } | Error::NotYet { .. } | Error::OfflineTooLong { .. } => Exit::Expired,
        Error::NoPlaysLeft { .. } => Exit::NoPlaysLeft,
        Error::CorruptPiece { .. }
        | Error::WrongEpoch { .. }
        | Error::Content(_)
        | Error::WrongLength { .. } => Exit::CorruptPiece,
        Error::MissingPiece { .. } | Error::NotFetched { .. } => Exit::MissingPiece,
        Error::PieceIo { .. }
        | Error::Exists { .. }
        | Error::NotADirectory { .. }
        | Error::Io { .. }
        | Error::Output(_) => Exit::Storage,
        Error::NoSuchFile { .. } | Error::NoSuchPath { .. } | Error::NotSingleFile { .. } => Exit::Usage,
    };
    Failure { exit, message, details }
}

/// Something that cannot be published or seeded.
pub(crate) fn publish_failure(error: publish::Error) -> Failure {
    let exit = match error {
        publish::Error::Io { .. }
        | publish::Error::SizeChanged { .. }
        | publish::Error::ContentChanged { .. } => Exit::Storage,
        publish::Error::WrongTorrent => Exit::WrongTorrent,
        publish::Error::Cache(ref error) => match error {
            CacheError::Io { .. } => Exit::Storage,
            CacheError::NewerVersion { .. } => Exit::NewerVersion,
            CacheError::Foreign(_) => Exit::WrongTorrent,
            CacheError::Busy(_) => Exit::InUse,
        },
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// A piece store that cannot be used.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Busy(_) => Exit::InUse,
        StoreError::NewerVersion { .. } => Exit::NewerVersion,
        StoreError::Foreign(_) => Exit::WrongTorrent,
        StoreError::Missing(_) => Exit::MissingPiece,
        StoreError::Damaged(_) => Exit::CorruptPiece,
        StoreError::Full(_) | StoreError::Io { .. } => Exit::Storage,
    };
    Failure::new(exit, error.to_string())
}

/// A torrent that cannot be joined.
pub(crate) fn add_failure(error: AddError) -> Failure {
    let exit = match error {
        AddError::Store(error) => return store_failure(error),
        AddError::Duplicate => Exit::Usage,
        AddError::ForeignStore => Exit::WrongTorrent,
        AddError::Journal { .. } => Exit::Storage,
        AddError::BadShape { .. } => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

/// A download that ended for good: the disk's fault.
pub(crate) fn node_failure(reason: &str) -> Failure {
    Failure::new(Exit::Storage, reason)
}

/// An address that cannot be listened on.
pub(crate) fn listen_failure(address: SocketAddr, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::AddrInUse => Exit::InUse,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("cannot listen on {address}: {error}; --listen names another address"))
}

/// An address of this machine that cannot be served at.
pub(crate) fn serving_failure(address: SocketAddr, error: &std::io::Error) -> Failure {
    let Failure { exit, .. } = listen_failure(address, error);
    Failure::new(exit, format!("cannot listen on {address}: {error}; --serve=ADDRESS names another address"))
}

/// A tracker that does not start.
pub(crate) fn tracker_failure(error: tracker::Error) -> Failure {
    let exit = match &error {
        tracker::Error::InUse { .. } => Exit::InUse,
        tracker::Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            Exit::InUse
        }
        tracker::Error::Io { .. }
        | tracker::Error::StoreExists { .. }
        | tracker::Error::MissingKey { .. } => Exit::Storage,
        tracker::Error::OtherKey { .. } => Exit::WrongKey,
        tracker::Error::SecretFile(error) => match error {
            SecretFileError::Sealed { .. } => Exit::Usage,
            SecretFileError::OtherPassphrase { .. } => Exit::WrongKey,
            SecretFileError::KeyFile { source: keyfile::Error::NewerVersion { .. }, .. } => {
                Exit::NewerVersion
            }
            SecretFileError::Io { .. } => Exit::Storage,
            SecretFileError::NoMemory { .. }
            | SecretFileError::KeyFile { .. }
            | SecretFileError::Malformed { .. } => Exit::Failed,
        },
        tracker::Error::Store(
            tracker::StoreError::Full
            | tracker::StoreError::Io { .. }
            | tracker::StoreError::Unreadable { .. },
        ) => Exit::Storage,
        tracker::Error::Store(tracker::StoreError::InUse { .. }) => Exit::InUse,
        tracker::Error::PaperProfile { .. } | tracker::Error::PlainHttp { .. } | tracker::Error::Tls(_) => {
            Exit::Usage
        }
        tracker::Error::Store(tracker::StoreError::Newer { .. }) => Exit::NewerVersion,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
