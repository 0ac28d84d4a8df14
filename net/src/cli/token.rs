//! `token`, `audit` and `revoke`: who may use a tracker's admin API, what they did, and what is taken back.

use std::path::PathBuf;

use serde_json::{Value, json};
use swarmseal_core::SubscriberId;

use super::glue::{self, AdminArgs};
use super::subscription::at;
use super::{DataDir, Exit, Failure, Output};
use crate::atomic_file::Existing;
use crate::tracker_client::AdminClient;
use crate::wire::keyfile::TokenFile;

/// What to do about admin tokens.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Example:\n  swarmseal token create shop --role publisher --output shop.token --tracker http://127.0.0.1:7000"
)]
pub(super) enum Verb {
    /// Issue a token
    Create(Create),
    /// List the tokens that were issued
    List(List),
    /// Revoke a token
    Revoke(RevokeToken),
}

/// Arguments of `token create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal token create shop --role publisher --output shop.token")]
pub(super) struct Create {
    /// Whose it is, for lists and the audit log
    name: String,
    /// What it may do: auditor (read), publisher (register, sell, revoke) or admin
    #[arg(long, env = "SWARMSEAL_TOKEN_ROLE", value_name = "ROLE", value_parser = ["auditor", "publisher", "admin"])]
    role: String,
    /// Until when: seconds since 1970, or from now with a unit, such as 90d [default: until it is revoked]
    #[arg(long, env = "SWARMSEAL_EXPIRES", value_name = "TIME", value_parser = glue::time)]
    expires: Option<u64>,
    /// A file to write it to, for --admin-token-file [default: what belongs into one is printed]
    #[arg(long, short, env = "SWARMSEAL_OUTPUT", value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `token list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal token list --tracker http://127.0.0.1:7000")]
pub(super) struct List {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Arguments of `token revoke`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal token revoke 5be1a0…  (the id that `token list` shows)")]
pub(super) struct RevokeToken {
    /// Its id
    id: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Issues, lists or revokes.
pub(super) async fn run(verb: Verb, data: DataDir, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => create(args, &data, output).await,
        Verb::List(args) => list(args.admin.client(&data)?, output).await,
        Verb::Revoke(RevokeToken { id, admin }) => {
            admin.client(&data)?.revoke_token(&id).await.map_err(glue::client_failure)?;
            output.result(format!("Revoked {id}"), json!({ "event": "token-revoked", "id": id }));
            Ok(())
        }
    }
}

async fn create(args: Create, data: &DataDir, output: Output) -> Result<(), Failure> {
    let TokenFile { origin, tracker_key, .. } = args.admin.token(data)?;
    let client = args.admin.client(data)?;
    let issued = client.create_token(&args.name, &args.role, args.expires).await;
    let (id, token) = issued.map_err(glue::client_failure)?;
    let file = TokenFile { origin, tracker_key, token }.to_key_file();
    match args.output {
        Some(path) => {
            if let Err(error) = file.write(&path, Existing::Keep) {
                // Nobody can use it then.
                let _ = client.revoke_token(&id).await;
                return Err(at(&path)(error));
            }
            let path = path.display().to_string();
            output
                .result(format!("Token {id} in {path}"), json!({ "event": "token", "id": id, "path": path }));
        }
        None => {
            let text = file.to_text();
            output.result(text.trim_end(), json!({ "event": "token", "id": id, "file": *text }));
        }
    }
    Ok(())
}

async fn list(client: AdminClient, output: Output) -> Result<(), Failure> {
    let tokens = client.tokens().await.map_err(glue::client_failure)?;
    for token in tokens["tokens"].as_array().into_iter().flatten() {
        let text = |name: &str| token[name].as_str().unwrap_or_default();
        let until =
            token["expires"].as_u64().map(|time| format!(", until {}", glue::date(time))).unwrap_or_default();
        output.result(
            format!("{} {} ({}){until}", text("id"), text("name"), text("role")),
            json!({ "event": "token", "token": token }),
        );
    }
    Ok(())
}

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  swarmseal audit --tracker http://127.0.0.1:7000 --limit 20")]
pub(super) struct AuditArgs {
    /// Entries to show at most, newest first
    #[arg(long, env = "SWARMSEAL_LIMIT", value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Shows what was done with admin tokens.
pub(super) async fn audit(args: AuditArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let client = args.admin.client(&data)?;
    let (mut before, mut left) = (None, args.limit);
    while left > 0 {
        let page = client.audit(before, left.min(1000)).await.map_err(glue::client_failure)?;
        for entry in page["entries"].as_array().into_iter().flatten() {
            show(entry, output);
            left -= 1;
        }
        match page["next"].as_u64() {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn show(entry: &Value, output: Output) {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let time = glue::date(entry["time"].as_u64().unwrap_or_default());
    let human = format!(
        "{time} {} ({}) from {}: {} {}: {}",
        text("who"),
        text("role"),
        text("address"),
        text("action"),
        text("subject"),
        text("outcome")
    );
    output.result(human, json!({ "event": "audit", "entry": entry }));
}

/// Arguments of `revoke`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal revoke 5be1…e0 --tracker http://127.0.0.1:7000\n  swarmseal revoke --ask-voucher --tracker http://127.0.0.1:7000\n  swarmseal revoke 5be1…e0 --device-of 09ab…17 --tracker http://127.0.0.1:7000"
)]
pub(super) struct RevokeArgs {
    /// The id of a subscriber or seed, which gets no further key
    #[arg(required_unless_present_any = ["grant", "voucher", "voucher_file", "ask_voucher"])]
    subscriber: Option<String>,
    /// Revoke it as a device of this grant, and free its place there for another
    #[arg(
        long,
        env = "SWARMSEAL_DEVICE_OF",
        value_name = "GRANT",
        requires = "subscriber",
        conflicts_with = "grant"
    )]
    device_of: Option<String>,
    /// Revoke a grant instead: nobody gets a license of it any more
    #[arg(long, env = "SWARMSEAL_GRANT", value_name = "ID", conflicts_with = "subscriber")]
    grant: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    voucher: glue::VoucherSource,
}

/// Revokes a subscriber, a seed, a grant or a voucher.
pub(super) async fn revoke(args: RevokeArgs, data: DataDir, output: Output) -> Result<(), Failure> {
    let client = args.admin.client(&data)?;
    let bytes = |text: &str| {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id)
            .map_err(|_| Failure::new(Exit::Usage, format!("{text}: expected 64 hexadecimal digits")))?;
        Ok::<_, Failure>(id)
    };
    let named = [args.subscriber.is_some(), args.grant.is_some(), args.voucher.is_given()];
    if named.into_iter().filter(|&named| named).count() != 1 {
        return Err(Failure::new(
            Exit::Usage,
            "expected a subscriber, a grant or a voucher, and one of them",
        ));
    }
    let revoked = match (&args.subscriber, &args.grant, args.voucher.read_any()?) {
        (Some(subscriber), ..) => {
            let id = SubscriberId(bytes(subscriber)?);
            match &args.device_of {
                Some(grant) => client.revoke_device(&bytes(grant)?, id).await.map(drop),
                None => client.revoke(id).await,
            }
            .map_err(glue::client_failure)?;
            subscriber.clone()
        }
        (None, Some(grant), _) => {
            client.revoke_grant(&bytes(grant)?).await.map_err(glue::client_failure)?;
            grant.clone()
        }
        (None, None, Some(voucher)) => client.revoke_voucher(&voucher).await.map_err(glue::client_failure)?,
        (None, None, None) => return Err(Failure::new(Exit::Usage, "expected what to revoke")),
    };
    output.result(format!("Revoked {revoked}"), json!({ "event": "revoked", "id": revoked }));
    Ok(())
}
