//! The command line: one binary, a verb for each thing that a subscriber, publisher or operator does.

mod authority;
mod backup;
mod channel;
mod completions;
mod cpu;
mod data_dir;
mod demo;
mod devices;
mod epochs;
mod exit;
mod get;
mod glue;
mod inspect;
mod key;
mod license;
mod license_server;
mod offload;
mod output;
mod play;
mod publish;
mod publisher;
mod seed;
mod subscribe;
mod subscription;
mod token;
mod trace;
mod tracker;
mod voucher;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::log::Log;
pub use data_dir::{DataDir, TorrentDir};
pub use exit::{Exit, Failure};
use glue::{size, size_or_none};
pub use output::Output;

/// Verbs in the order and groups of `--help`.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Subscriber", &["get", "play", "subscribe", "passkey", "license", "devices", "key"]),
    ("Publisher", &["publish", "authority", "seed", "voucher", "grant", "revoke", "trace"]),
    ("Operator", &["tracker", "token", "audit", "offload", "epochs", "backup", "restore", "license-server"]),
    ("Tools", &["inspect", "cpu", "completions", "demo"]),
];

/// Paid content through BitTorrent: any peer may carry it, only a licensed subscriber can open it.
#[derive(Debug, Parser)]
#[command(name = "swarmseal", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb takes.
#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// Directory for keys, pieces and databases [default: swarmseal in the XDG data directory]
    #[arg(long, global = true, env = "SWARMSEAL_DATA", value_name = "DIR", hide_env_values = true)]
    data: Option<PathBuf>,
    /// Print one JSON object a line on standard output
    #[arg(long, global = true, env = "SWARMSEAL_JSON")]
    json: bool,
    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as swarmseal::peer=debug
    #[arg(long, global = true, env = "SWARMSEAL_LOG", value_name = "FILTER", default_value = "warn")]
    log: String,
    /// How to write the log: text, or json for one object a line
    #[arg(long, global = true, env = "SWARMSEAL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// A PEM file with certificates that are trusted besides the system's, for trackers of an authority of one's own
    #[arg(long, global = true, env = "SWARMSEAL_TRACKER_CA", value_name = "FILE")]
    tracker_ca: Option<PathBuf>,
    /// The arithmetic to use instead of the fastest that this CPU runs; `swarmseal cpu` lists them
    #[arg(long, global = true, env = "SWARMSEAL_BACKEND", value_name = "NAME")]
    backend: Option<String>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch a torrent, and upload what has been fetched
    Get(get::Args),
    /// Open what has been fetched, to files or standard output
    Play(play::Args),
    /// Register this device for a torrent
    Subscribe(subscribe::Args),
    /// Replace the passkey that this device announces with
    Passkey(subscribe::PasskeyArgs),
    /// Fetch or renew the license of a torrent
    License(license::Args),
    /// List the devices that share a grant, name this one, or revoke one
    Devices(devices::Args),
    /// Keep a copy of this device's key, or move it to another device
    #[command(subcommand)]
    Key(key::Verb),
    /// Make a .torrent and a seed file, and register them with a tracker
    Publish(publish::Args),
    /// Say which tracker serves your torrents, and show what was said
    #[command(subcommand)]
    Authority(authority::Verb),
    /// Serve published torrents from their plaintext
    Seed(seed::Args),
    /// Issue vouchers, each of which buys one license
    Voucher(voucher::VoucherArgs),
    /// Grant a license to a subscriber directly
    Grant(voucher::GrantArgs),
    /// Run a tracker and license server
    Tracker(tracker::Args),
    /// Revoke a subscriber, a seed, a grant or a voucher
    Revoke(token::RevokeArgs),
    /// Name the subscriber whose ciphertext, license or personal torrent something is
    Trace(trace::Args),
    /// Issue, list or revoke tokens of the admin API
    #[command(subcommand)]
    Token(token::Verb),
    /// Run a license server apart from its tracker
    LicenseServer(license_server::Args),
    /// Show what was done by the admin API, and by whom
    Audit(token::AuditArgs),
    /// Show how much of a torrent comes from peers
    Offload(offload::Args),
    /// List the epochs of torrents, begin one, or retire old ones
    Epochs(epochs::Args),
    /// Copy a tracker's store while it runs
    Backup(backup::BackupArgs),
    /// Make a backup the store of a tracker that has none
    Restore(backup::RestoreArgs),
    /// Show what is in a .torrent, license, key file or stored piece
    Inspect(inspect::Args),
    /// Show the arithmetic that this CPU can run, which is chosen, and how fast it is
    Cpu(cpu::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Run a whole swarm on this machine, and attack it
    Demo(demo::Args),
    /// The demo's peer that never subscribed
    #[command(hide = true)]
    Stranger(demo::StrangerArgs),
    /// The demo's peer that borrows the seed's names
    #[command(hide = true)]
    Impostor(demo::ImpostorArgs),
}

/// The clap command with its grouped help, exit codes and examples.
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    let mut verbs = String::new();
    for (heading, names) in GROUPS {
        verbs += &format!("\n{heading}:\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(|c| c.get_about()).map(ToString::to_string);
            verbs += &format!("  {name:<12} {}\n", about.unwrap_or_default());
        }
    }
    let codes: String =
        Exit::ALL.iter().map(|(exit, meaning)| format!("  {:>2}  {meaning}\n", *exit as u8)).collect();
    let codes = format!("Exit codes:\n   0  done\n{codes}");
    command = command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n{verbs}\nOptions:\n{{options}}\n\n{{after-help}}"
    ));
    command = command.after_help(format!(
        "{codes}\nEvery flag has an environment variable; `swarmseal VERB --help` names it and shows an example.\n\n\
         Example:\n  swarmseal demo"
    ));
    command.mut_subcommands(|verb| {
        let example = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        verb.after_help(format!("{example}\n\n{codes}"))
    })
}

/// Runs the program on its command line.
pub fn main() -> ExitCode {
    let given = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match given {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let output = Output::new(cli.global.json);
    crate::platform::raise_descriptors();
    let Global { log, log_format, tracker_ca, backend, .. } = &cli.global;
    let failed = |failure: &Failure| {
        output.failure(failure);
        ExitCode::from(failure.exit as u8)
    };
    // Until the last word is written.
    let _log = match start_logging(log, *log_format) {
        Ok(log) => log,
        Err(failure) => return failed(&failure),
    };
    let started = choose_backend(backend.as_deref()).and_then(|()| trust(tracker_ca.as_deref()));
    match started.and_then(|()| run(cli, output)).and_then(|()| output.check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

/// Help, the version, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
    match error.print().and_then(|()| std::io::Write::flush(&mut std::io::stdout())) {
        Err(error) if code == 0 => {
            crate::log::line(format!("swarmseal: standard output: {error}"));
            ExitCode::from(Exit::Storage as u8)
        }
        _ => ExitCode::from(code),
    }
}

fn start_logging(filter: &str, format: LogFormat) -> Result<Log, Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Exit::Usage, format!("--log {filter}: {error}")))?;
    crate::log::start(filter, format == LogFormat::Json)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start the log: {error}")))
}

fn choose_backend(name: Option<&str>) -> Result<(), Failure> {
    name.map_or(Ok(()), crate::backend::force).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

fn trust(path: Option<&std::path::Path>) -> Result<(), Failure> {
    path.map_or(Ok(()), crate::tracker_client::trust)
        .map_err(|error| Failure::new(Exit::Usage, format!("--tracker-ca {error}")))
}

fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    let data = || DataDir::open(cli.global.data.clone());
    match cli.verb {
        Verb::Get(args) => block_on(get::run(args, data()?, output)),
        Verb::Play(args) => block_on(play::run(args, data()?, output)),
        Verb::Subscribe(args) => block_on(subscribe::run(args, data()?, output)),
        Verb::License(args) => block_on(license::run(args, data()?, output)),
        Verb::Devices(args) => block_on(devices::run(args, data()?, output)),
        Verb::Key(verb) => key::run(verb, data()?, output),
        Verb::Publish(args) => block_on(publish::run(args, data()?, output)),
        Verb::Authority(verb) => block_on(authority::run(verb, data()?, output)),
        Verb::Seed(args) => block_on(seed::run(args, data()?, output)),
        Verb::Voucher(args) => block_on(voucher::voucher(args, data()?, output)),
        Verb::Grant(args) => block_on(voucher::grant(args, data()?, output)),
        Verb::Tracker(args) => block_on(tracker::run(args, cli.global.data, output)),
        Verb::Passkey(args) => block_on(subscribe::passkey(args, data()?, output)),
        Verb::LicenseServer(args) => block_on(license_server::run(args, data()?, output)),
        Verb::Revoke(args) => block_on(token::revoke(args, data()?, output)),
        Verb::Trace(args) => block_on(trace::run(args, data()?, output)),
        Verb::Token(verb) => block_on(token::run(verb, data()?, output)),
        Verb::Audit(args) => block_on(token::audit(args, data()?, output)),
        Verb::Offload(args) => block_on(offload::run(args, data()?, output)),
        Verb::Epochs(args) => block_on(epochs::run(args, data()?, output)),
        Verb::Backup(args) => block_on(backup::backup(args, data()?, output)),
        Verb::Restore(args) => backup::restore(args, data()?, output),
        Verb::Inspect(args) => inspect::run(args, data()?, output),
        Verb::Cpu(args) => cpu::run(args, output),
        Verb::Completions(args) => completions::run(args, output),
        Verb::Demo(args) => block_on(demo::run(args, cli.global.data, output)),
        Verb::Stranger(args) => block_on(demo::stranger(args, output)),
        Verb::Impostor(args) => block_on(demo::impostor(args, output)),
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(future);
    // What still runs then would only hold up the end.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let id = arg.get_id().as_str();
                if !["help", "version"].contains(&id) {
                    let variable = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
                    assert!(variable.starts_with("SWARMSEAL_"), "{} --{id}", command.get_name());
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn every_verb_is_grouped_and_shows_an_example_and_the_exit_codes() {
        let command = command();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            assert!(GROUPS.iter().any(|(_, names)| names.contains(&name)), "{name} is in no group");
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  swarmseal "), "{name} has no example");
            assert!(help.contains("Exit codes:"), "{name} has no exit codes");
        }
    }
}
