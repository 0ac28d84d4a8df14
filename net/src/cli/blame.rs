//! Bad pieces: those who find one accuse its sender, and `cases` shows who is to blame.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarmseal_core::{ReKey, SubscriberId, Ticket, re_encrypt_piece};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::glue::{self, AdminArgs};
use super::subscription::{Subscription, read_metainfo};
use super::{DataDir, Exit, Failure, Output};
use crate::peer::{Owner, read_statements, statements_by_entry};
use crate::tracker_client::Client;
use crate::wire::api::{Accuse, ApiError};
use crate::wire::identity::purpose;

/// Pieces of one sender, and of all, that are reported at once: each holds a whole piece in memory, the tracker looks into few at a
/// time, and a few are enough to find who is to blame.
const MOST_OF_ONE: usize = 4;
const MOST: usize = 16;
/// How long reports are waited for that are still on their way at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Bad pieces on their way to the tracker, with what proves who sent them, as far as there is proof. Nothing waits for them, and
/// what cannot be told is only noted: the pieces matter more.
pub(super) struct Accusations {
    subscription: Arc<Subscription>,
    output: Output,
    under_way: JoinSet<()>,
}

impl Accusations {
    pub(super) fn new(subscription: Arc<Subscription>, output: Output) -> Self {
        Accusations { subscription, output, under_way: JoinSet::new() }
    }

    /// Reads what proves who sent these pieces, and reports them from here on. To be called while what came is still there.
    pub(super) async fn make(&mut self, bad: BTreeSet<u32>) {
        if bad.is_empty() {
            return;
        }
        let (subscription, output) = (self.subscription.clone(), self.output);
        let read = tokio::task::spawn_blocking(move || {
            let evidence = evidence(&subscription, &bad, output)?;
            Ok((evidence, glue::client(&subscription)?))
        });
        let found = read.await.unwrap_or_else(|error| Err(Failure::new(Exit::Failed, error.to_string())));
        match found {
            Ok((evidence, client)) => {
                self.under_way.spawn(report(self.subscription.clone(), client, evidence, output));
            }
            Err(failure) => output.note(format!("Nobody is accused: {}", failure.message)),
        }
    }

    /// Gives those on their way some seconds.
    pub(super) async fn finish(&mut self) {
        let all = async { while self.under_way.join_next().await.is_some() {} };
        if timeout(LAST_WORDS, all).await.is_err() {
            self.output.note("The tracker was not told of every bad piece in time");
        }
    }
}

async fn report(subscription: Arc<Subscription>, client: Client, evidence: Vec<Evidence>, output: Output) {
    let mut left = evidence.len();
    for Evidence { mut accuse, moved } in evidence {
        let (piece, uploader) = (accuse.piece, accuse.uploader);
        left -= 1;
        if let Some(moved) = moved
            && let Err(why) = undo(&subscription, &client, &mut accuse, moved).await
        {
            output.note(format!("Piece {piece}: what its sender sent cannot be shown: {why}"));
            continue;
        }
        match client.accuse(&accuse).await {
            Ok(case) => {
                let case = hex::encode(case);
                output.note(format!(
                    "Piece {piece} came from {uploader}: the tracker looks into it (case {case})"
                ));
            }
            Err(error) if error.code() == Some(ApiError::NotBad) => {
                output.note(format!("Piece {piece}: the tracker finds nothing wrong with it"));
            }
            Err(error) if matches!(error.code(), Some(ApiError::Rate | ApiError::Busy)) => {
                return output.note(format!(
                    "Piece {piece} and {left} more are not reported: the tracker looks into enough of them"
                ));
            }
            Err(error) => output.note(format!("Piece {piece}: its sender could not be accused: {error}")),
        }
    }
}

/// What shows that somebody sent a bad piece.
struct Evidence {
    accuse: Accuse,
    /// Where the ciphertext is that of another epoch than came.
    moved: Option<Moved>,
}

/// From which epoch a piece moved to which, and what it was.
struct Moved {
    from: u64,
    to: u64,
    hash: [u8; 32],
}

/// Makes of a piece that has moved what came, by the re-key back.
async fn undo(
    subscription: &Subscription,
    client: &Client,
    accuse: &mut Accuse,
    Moved { from, to, hash }: Moved,
) -> Result<(), String> {
    let seal = &subscription.metainfo.info.seal;
    let mut ticket = Ticket {
        torrent_id: seal.torrent_id,
        uploader: subscription.id,
        downloader: subscription.id,
        epoch: from,
        expires: client.now() + 60,
        signature: [0; 64],
    };
    ticket.signature = subscription.identity.sign(purpose::TICKET, &ticket.signing_input());
    let keys = client.rekey(seal.torrent_id, to, &ticket, &[accuse.piece]).await;
    let keys = keys.map_err(|error| error.to_string())?;
    let key = ReKey::from_bytes(&seal.params, &keys.keys).map_err(|error| error.to_string())?;
    re_encrypt_piece(&seal.params, &key, &mut accuse.ciphertext).map_err(|error| error.to_string())?;
    if *blake3::hash(&accuse.ciphertext).as_bytes() == hash {
        Ok(())
    } else {
        Err("it was changed on this disk".to_owned())
    }
}

/// Bad pieces with the statements by which they came, a few of each sender. What changed on this device after it came is nobody
/// else's fault.
fn evidence(
    subscription: &Subscription,
    bad: &BTreeSet<u32>,
    output: Output,
) -> Result<Vec<Evidence>, Failure> {
    let torrent_id = subscription.metainfo.info.seal.torrent_id;
    let owner = Owner { torrent_id, subscriber: subscription.id };
    let words = read_statements(&subscription.dir.statements(), &owner).map_err(glue::store_failure)?;
    let statements = statements_by_entry(&words);
    let store = glue::open_store(subscription)?;
    let mut found: Vec<Evidence> = Vec::new();
    let mut counts: HashMap<SubscriberId, usize> = HashMap::new();
    let mut others = 0;
    for &piece in bad {
        if subscription.metainfo.info.seal.is_clear(piece) {
            output.note(format!("Piece {piece} is clear and was right when it came: nobody is accused"));
            continue;
        }
        let Some(stored) = store.piece(piece) else { continue };
        let origin = store.origin(piece).unwrap_or(stored);
        let count = origin.sender.map_or(0, |sender| counts.get(&sender).copied().unwrap_or_default());
        if count >= MOST_OF_ONE || found.len() >= MOST {
            others += 1;
            continue;
        }
        let mut ciphertext = vec![0; subscription.metainfo.info.piece_length as usize];
        store.read(piece, &mut ciphertext).map_err(glue::store_failure)?;
        if *blake3::hash(&ciphertext).as_bytes() != stored.hash {
            output.note(format!("Piece {piece} changed on this disk: nobody is accused"));
            continue;
        }
        let stated = origin.sender.and_then(|sender| {
            statements.get(&(piece, origin.hash, sender)).map(|statement| (sender, (*statement).clone()))
        });
        match stated {
            Some((uploader, statement)) => {
                let moved = (origin != stored).then_some(Moved {
                    from: origin.epoch,
                    to: stored.epoch,
                    hash: origin.hash,
                });
                let accuse = Accuse { torrent_id, piece, uploader, statement, ciphertext };
                found.push(Evidence { accuse, moved });
                *counts.entry(uploader).or_default() += 1;
            }
            None => output
                .note(format!("Piece {piece}: no statement says who sent it, so that nobody is accused")),
        }
    }
    if others > 0 {
        output.note(format!("{others} more bad pieces of the same kind are not reported"));
    }
    Ok(found)
}

/// Arguments of `cases`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal cases --tracker http://127.0.0.1:7000\n  swarmseal cases film.torrent"
)]
pub(super) struct Args {
    /// Only this torrent's
    torrent: Option<PathBuf>,
    /// Hold the cases that this subscriber lost no longer against it
    #[arg(long, env = "SWARMSEAL_PARDON", value_name = "SUBSCRIBER")]
    pardon: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Lists cases, or pardons.
pub(super) async fn cases(args: Args, data: DataDir, output: Output) -> Result<(), Failure> {
    let metainfo = args.torrent.as_deref().map(|path| read_metainfo(path, true)).transpose()?;
    let admin = args.admin.client(&data, metainfo.as_ref().map(|metainfo| metainfo.announce.as_str()))?;
    if let Some(subscriber) = &args.pardon {
        let mut id = [0; 32];
        hex::decode_to_slice(subscriber, &mut id).map_err(|_| {
            Failure::new(Exit::Usage, format!("--pardon {subscriber}: expected 64 hexadecimal digits"))
        })?;
        let pardoned = admin.pardon(SubscriberId(id)).await.map_err(glue::client_failure)?;
        let human = format!("Pardoned {subscriber}: {pardoned} cases");
        output.result(human, json!({ "event": "pardoned", "subscriber": subscriber, "cases": pardoned }));
        return Ok(());
    }
    let only = metainfo.map(|metainfo| metainfo.info.seal.torrent_id.to_string());
    let (mut after, mut shown) = (None, 0);
    loop {
        let page = admin.cases(after.as_deref()).await.map_err(glue::client_failure)?;
        for case in page["cases"].as_array().into_iter().flatten() {
            if only.as_deref().is_none_or(|only| case["torrent_id"] == only) {
                show(case, output);
                shown += 1;
            }
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if shown == 0 {
        output.note("Nobody has reported a bad piece");
    }
    Ok(())
}

fn show(case: &Value, output: Output) {
    let text = |field: &str| case[field].as_str().unwrap_or("?");
    let cleared = case["cleared"].as_array().map_or(0, Vec::len);
    let words = match text("outcome") {
        "open" => format!(
            "{} is asked until {}",
            text("suspect"),
            glue::date(case["deadline"].as_u64().unwrap_or(0))
        ),
        "blamed" => format!("{} sent it", text("suspect")),
        "lapsed" => "nobody can tell any more: its epoch is retired".to_owned(),
        _ => format!("it is good: {} accused {} of it", text("accuser"), text("suspect")),
    };
    let through = if cleared == 0 { String::new() } else { format!(", {cleared} handed it on") };
    let human = format!("piece {} of {}: {words}{through}", case["piece"], text("torrent_id"));
    let mut event = case.clone();
    event["event"] = "case".into();
    output.result(human, event);
}
