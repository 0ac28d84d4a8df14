//! Backups of the store, handed out while the tracker runs, and what makes one a tracker's store again. Secrets of the tracker are
//! in none: master keys, witness secrets, the tracker's, the license and the voucher key and the admin token are files of their own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::masters::Masters;
use super::refusal::Refusal;
use super::state::Tracker;
use super::store::{Store, StoreError, examine};
use super::witnesses::Witnesses;
use super::{
    Error, LICENSE_KEY, MASTERS, STORE, TRACKER_KEY, VOUCHER_KEY, WITNESSES, admin, clock, keep_lock,
    secret_files,
};
use crate::platform::sync_directory;
use crate::wire::api::ApiError;

/// Names what is left out, separated by commas.
pub(super) const LEFT_OUT: HeaderName = HeaderName::from_static("swarmseal-left-out");

/// Bytes of the file that go out together, and how many such portions wait for the one who reads.
const PORTION: usize = 256 << 10;
const WAITING: usize = 4;
/// What directories of backups under way are called.
const UNDER_WAY: &str = ".backup-";

/// `POST /admin/backup`
pub(super) async fn back_up(State(tracker): State<Arc<Tracker>>) -> Response {
    match begin(&tracker).await {
        Ok(answer) => answer,
        Err(refusal) => admin::refuse(refusal),
    }
}

async fn begin(tracker: &Arc<Tracker>) -> Result<Response, Refusal> {
    let turn = Arc::clone(&tracker.backing_up).try_acquire_owned().map_err(|_| ApiError::Rate)?;
    let shared = Arc::clone(tracker);
    let made = tokio::task::spawn_blocking(move || make(&shared)).await.map_err(|_| ApiError::Internal)?;
    let (directory, file, length, left_out) = made?;
    let (portions, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        // Until the last byte is out.
        let _kept = (turn, directory);
        send(file, &portions);
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (LEFT_OUT, left_out.join(", ")),
    ];
    Ok((headers, Body::from_stream(Portions(receiver))).into_response())
}

type Made = (TempDir, File, u64, Vec<String>);

fn make(tracker: &Tracker) -> Result<Made, Refusal> {
    let io = |source| StoreError::Io { path: tracker.config.data.clone(), source };
    let directory =
        tempfile::Builder::new().prefix(UNDER_WAY).tempdir_in(&tracker.config.data).map_err(io)?;
    let path = directory.path().join(STORE);
    let records = tracker.store.back_up(&path, clock::now())?;
    let file = File::open(&path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    tracing::info!(records, length, "backed up");
    let masters = tracker.masters().epochs().into_iter().map(|epoch| format!("{MASTERS}/{epoch}.key"));
    // There is one for each torrent, and a header is no place for a list of them.
    let witnesses = format!("{WITNESSES}/*.key");
    let others = [TRACKER_KEY, LICENSE_KEY, VOUCHER_KEY, super::ADMIN_TOKEN].map(str::to_owned);
    let left_out = masters.chain([witnesses]).chain(others).collect();
    Ok((directory, file, length, left_out))
}

fn send(mut file: File, portions: &mpsc::Sender<std::io::Result<Bytes>>) {
    let mut more = true;
    while more {
        let mut portion = vec![0; PORTION];
        let portion = file.read(&mut portion).map(|length| {
            portion.truncate(length);
            Bytes::from(portion)
        });
        // The end, an error that is passed on, or nobody who reads on.
        more = matches!(&portion, Ok(portion) if !portion.is_empty());
        if more || portion.is_err() {
            more &= portions.blocking_send(portion).is_ok();
        }
    }
}

/// What the file's reader sends.
struct Portions(mpsc::Receiver<std::io::Result<Bytes>>);

impl Stream for Portions {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Takes away what a tracker that was killed had begun.
pub(super) fn clear(data: &Path) {
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNDER_WAY)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "a backup that was not finished stays");
        }
    }
}

/// What a restored store needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was made, in seconds since 1970; none where it is the store of a tracker that was stopped.
    pub made: Option<u64>,
    /// Torrents in it.
    pub torrents: u64,
    /// Subscriptions in it.
    pub subscribers: u64,
    /// Key files that must be put in their places before the tracker starts.
    pub missing: Vec<PathBuf>,
}

/// Makes a backup the store of the tracker on `data`, which has none yet. Errors: [`Error::StoreExists`], [`Error::InUse`], and
/// those of a file that is no backup.
pub fn restore(backup: &Path, data: &Path) -> Result<Restored, Error> {
    let _lock = keep_lock(data)?;
    let target = data.join(STORE);
    if target.symlink_metadata().is_ok() {
        return Err(Error::StoreExists { path: target });
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let directory = tempfile::Builder::new().prefix(UNDER_WAY).tempdir_in(data).map_err(io(data))?;
    let copy = directory.path().join(STORE);
    std::fs::copy(backup, &copy).map_err(io(backup))?;
    let made = examine(&copy).map_err(|error| named(error, &copy, backup))?;
    secret_files::create_directory(&data.join(MASTERS))?;
    secret_files::create_directory(&data.join(WITNESSES))?;
    let epochs = Masters::epochs_in(&data.join(MASTERS))?;
    let restored = {
        let store = Store::open(&copy, false)?;
        store.is_restored()?;
        let totals = store.totals()?;
        let missing = missing_keys(&store, &epochs, data)?;
        Restored { made, torrents: totals.torrents, subscribers: totals.subscribers, missing }
    };
    File::open(&copy).and_then(|file| file.sync_all()).map_err(io(&copy))?;
    std::fs::rename(&copy, &target).map_err(io(&target))?;
    sync_directory(data).map_err(io(data))?;
    Ok(restored)
}

/// An error about the copy, as one about the backup.
fn named(error: StoreError, copy: &Path, backup: &Path) -> StoreError {
    match error {
        StoreError::Unreadable { path, reason } if path == copy => {
            StoreError::Unreadable { path: backup.to_owned(), reason }
        }
        StoreError::Newer { path, found } if path == copy => {
            StoreError::Newer { path: backup.to_owned(), found }
        }
        other => other,
    }
}

/// Key files that a store was made with, and that are not there. `epochs`: those whose master keys are.
pub(super) fn missing_keys(store: &Store, epochs: &[u64], data: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut missing, mut witnesses) = (Vec::new(), Vec::new());
    for (torrent, record) in store.all_epochs()? {
        witnesses.push(Witnesses::path(&data.join(WITNESSES), &torrent));
        for epoch in record.oldest..=record.current {
            let path = Masters::path(&data.join(MASTERS), epoch);
            // An epoch that was passed over has neither key nor mark.
            let needed = epoch == record.current || store.has_mark(&Masters::mark_name(epoch))?;
            if needed && !epochs.contains(&epoch) && !missing.contains(&path) {
                missing.push(path);
            }
        }
    }
    for name in [TRACKER_KEY, LICENSE_KEY] {
        let path = data.join(name);
        if store.has_mark(name)? && secret_files::read(&path)?.is_none() {
            missing.push(path);
        }
    }
    let voucher = data.join(VOUCHER_KEY);
    if store.has_mark(VOUCHER_KEY)? && !voucher.exists() {
        missing.push(voucher);
    }
    missing.extend(witnesses.into_iter().filter(|path| !path.exists()));
    Ok(missing)
}
