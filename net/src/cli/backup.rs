//! `backup` and `restore`: the tracker's store, copied while it runs and put back.

use std::path::PathBuf;

use serde_json::json;

use super::glue::{self, AdminArgs};
use super::{DataDir, Failure, Output};
use crate::atomic_file::{Access, Existing, PendingFile};
use crate::tracker::{Restored, restore as put_back};

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal backup tracker-2026-11-25.backup --tracker http://127.0.0.1:7000"
)]
pub(super) struct BackupArgs {
    /// The file to write; one that is there is not overwritten
    file: PathBuf,
    /// Overwrite a file that is there
    #[arg(long, env = "SWARMSEAL_FORCE")]
    force: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal restore tracker-2026-11-25.backup --data ./operator")]
pub(super) struct RestoreArgs {
    /// A file that `backup` wrote
    file: PathBuf,
}

/// Copies the store of a tracker that runs.
pub(super) async fn backup(args: BackupArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let admin = args.admin.client(&data)?;
    let failed = |error: std::io::Error| Failure::file(&args.file, &error);
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    if existing == Existing::Keep && args.file.symlink_metadata().is_ok() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut file = PendingFile::create(&args.file, Access::Private).map_err(failed)?;
    let left_out = admin.back_up(&mut file).await.map_err(glue::client_failure)?;
    file.commit(existing).map_err(failed)?;
    let path = args.file.display();
    let human = format!(
        "Backed up to {path}. No key is in it: keep these from the tracker's directory somewhere else: {}",
        left_out.join(", ")
    );
    output.result(human, json!({ "event": "backed-up", "file": path.to_string(), "left_out": left_out }));
    Ok(())
}

/// Makes a backup the store of a tracker that has none.
pub(super) fn restore(args: RestoreArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let directory = data.tracker()?;
    let Restored { made, torrents, subscribers, missing } =
        put_back(&args.file, &directory).map_err(glue::tracker_failure)?;
    let missing: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
    let made_at = made.map_or_else(
        || "of a tracker that was stopped".to_owned(),
        |made| format!("of {}", glue::date(made)),
    );
    let mut human = format!("Restored the store {made_at}: {torrents} torrents, {subscribers} subscribers");
    if !missing.is_empty() {
        human += &format!(
            "\nBefore the tracker starts, put these key files in their places: {}",
            missing.join(", ")
        );
    }
    let event = json!({
        "event": "restored", "made": made, "torrents": torrents, "subscribers": subscribers, "missing": missing,
    });
    output.result(human, event);
    Ok(())
}
