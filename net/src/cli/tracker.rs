//! `tracker`: announces, re-keys and licenses.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use serde_json::json;
use toml::{Table, Value};

use super::glue::{self, PassphraseSource};
use super::{DataDir, Exit, Failure, Output};
use crate::platform::Hangups;
use crate::tracker::{Config, ConfigError, Kind, OwnKey, Reloader, Server, Setting};

/// Arguments of `tracker`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  swarmseal tracker --listen 127.0.0.1:7000\n  swarmseal tracker --print-config > tracker.toml\n  swarmseal tracker --config tracker.toml"
)]
pub(super) struct Args {
    /// A file of settings; flags go before variables of the environment, and those before the file
    #[arg(long, env = "SWARMSEAL_TRACKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print all settings as such a file, each with what it means, and do nothing else
    #[arg(long, env = "SWARMSEAL_TRACKER_PRINT_CONFIG")]
    print_config: bool,
    /// Start with a fresh key of this kind, and keep the old one aside: `tracker`, where it was lost or stolen, or `license`. Sign a new
    /// authority then
    #[arg(long, env = "SWARMSEAL_TRACKER_NEW_KEY", value_name = "KIND", value_parser = own_key)]
    new_key: Vec<OwnKey>,
    /// Ask for the passphrase of the master keys on the terminal
    #[arg(long, env = "SWARMSEAL_ASK_PASSPHRASE")]
    ask_passphrase: bool,
    #[command(flatten)]
    given: Given,
}

/// The settings that the command line or the environment gives: a flag for each of [`Config::SETTINGS`].
#[derive(Clone, Debug, Default)]
struct Given(Table);

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command.args(Config::SETTINGS.iter().filter_map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Option<Arg> {
    let (name, variable) = (setting.flag?, setting.variable?);
    let help = setting.doc.concat().trim().trim_end_matches('.').to_owned();
    let arg = Arg::new(setting.name).long(name).env(variable).help(help.clone());
    let arg = match setting.kind {
        Kind::Switch => return Some(arg.action(ArgAction::SetTrue)),
        Kind::Number => arg.value_parser(number),
        Kind::Seconds => arg.value_parser(|text: &str| integer(glue::duration(text)?)),
        Kind::Bytes => arg.value_parser(|text: &str| integer(glue::size(text)?)),
        Kind::Text => arg.value_parser(text),
        Kind::List => arg.value_parser(text).action(ArgAction::Append).value_delimiter(','),
    };
    let default = Table::try_from(Config::default()).ok()?.remove(setting.name);
    let help = match default {
        Some(Value::Array(_)) | None => help,
        Some(default) => {
            format!("{help} [default: {}]", default.as_str().map_or(default.to_string(), str::to_owned))
        }
    };
    Some(arg.value_name(setting.value).help(help))
}

fn own_key(text: &str) -> Result<OwnKey, String> {
    match text {
        "tracker" => Ok(OwnKey::Tracker),
        "license" => Ok(OwnKey::License),
        _ => Err("expected `tracker` or `license`".to_owned()),
    }
}

fn number(text: &str) -> Result<Value, String> {
    integer(text.parse().map_err(|_| "expected a whole number".to_owned())?)
}

fn integer(number: u64) -> Result<Value, String> {
    i64::try_from(number).map(Value::Integer).map_err(|_| "too large".to_owned())
}

fn text(text: &str) -> Result<Value, String> {
    Ok(Value::String(text.to_owned()))
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Table::new();
        for setting in Config::SETTINGS.iter().filter(|setting| setting.flag.is_some()) {
            let name = setting.name;
            if !matches!(
                matches.value_source(name),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            ) {
                continue;
            }
            let value = match setting.kind {
                Kind::Switch => Some(Value::Boolean(matches.get_flag(name))),
                Kind::List => {
                    matches.get_many::<Value>(name).map(|values| Value::Array(values.cloned().collect()))
                }
                _ => matches.get_one::<Value>(name).cloned(),
            };
            given.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(Given(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    /// The file's settings, and those that go before them.
    fn settings(self) -> Result<Config, Failure> {
        let refused = |error: ConfigError| Failure::new(Exit::Usage, error.to_string());
        let file = self.config.as_deref().map(Config::read_file).transpose().map_err(refused)?;
        let mut table = file.unwrap_or_default();
        table.extend(self.given.0);
        Config::from_table(table).map_err(refused)
    }
}

/// Runs until it is told to stop. `data`: the directory that was given, which goes before the file's.
pub(super) async fn run(args: Args, data: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let (print, ask, new_keys) = (args.print_config, args.ask_passphrase, args.new_key.clone());
    let mut config = args.settings()?;
    if print {
        output.text(&config.to_toml());
        return Ok(());
    }
    if data.is_some() || config.data.as_os_str().is_empty() {
        config.data = DataDir::open(data)?.tracker()?;
    }
    let passphrase = PassphraseSource {
        of: "master keys",
        variable: "SWARMSEAL_MASTER_PASSPHRASE",
        file: config.master_passphrase_file.as_deref(),
        ask,
    };
    config.master_passphrase = passphrase.read()?;
    config.new_keys = new_keys;
    let told = glue::told_to_stop();
    let hangups = Hangups::new();
    let server = Server::bind(config).await.map_err(glue::tracker_failure)?;
    let url = server.url();
    let token = server.admin_token_file();
    let key = hex::encode(server.tracker_key());
    output.result(
        format!("Tracker at {url}\nAdmin token in {}\nKey {key}", token.display()),
        json!({ "event": "listening", "url": url, "admin_token_file": token, "key": key }),
    );
    let reloading = tokio::spawn(reload(server.reloader(), hangups));
    let ended = server.run(told).await.map_err(glue::tracker_failure);
    reloading.abort();
    ended
}

/// Reads the certificate again whenever that is asked for.
pub(super) async fn reload(reloader: Reloader, mut hangups: Hangups) {
    loop {
        hangups.next().await;
        let reloader = reloader.clone();
        match tokio::task::spawn_blocking(move || reloader.reload()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the certificate in use stays in use"),
            Err(error) => tracing::error!(%error, "reading the certificate again failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        tracker: Args,
    }

    fn settings(flags: &[&str]) -> Result<Config, String> {
        let All { tracker } =
            All::try_parse_from([&["x"], flags].concat()).map_err(|error| error.to_string())?;
        tracker.settings().map_err(|failure| failure.message)
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tracker.toml");
        std::fs::write(&file, "max_peers = 7\nannounce_interval = 9\ndata = \"/srv/tracker\"\n").unwrap();
        let file = file.to_str().unwrap();
        let flags = ["--config", file, "--announce-interval", "15m", "--trusted-proxy", "10.0.0.1,10.0.0.2"];
        let config = settings(&flags).unwrap();
        let trusted_proxies = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let expected =
            Config { max_peers: 7, announce_interval: 900, trusted_proxies, ..Config::new("/srv/tracker") };
        assert_eq!(config, expected);
        assert_eq!(settings(&[]).unwrap(), Config::default());
        let all = ["--insecure-http", "--table-cache", "1M", "--workers", "3", "--proxy-header", "forwarded"];
        let config = settings(&all).unwrap();
        assert_eq!(
            (config.insecure_http, config.table_cache_bytes, config.workers),
            (true, 1 << 20, Some(3))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |flags: &[&str]| settings(flags).unwrap_err();
        assert!(
            refused(&["--listen", "nowhere"]).contains("listen"),
            "{}",
            refused(&["--listen", "nowhere"])
        );
        assert!(refused(&["--max-peers", "many"]).contains("max-peers"));
        assert!(refused(&["--announce-interval", "2d"]).contains("announce_interval"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tracker.toml");
        std::fs::write(&file, "max_peer = 7\n").unwrap();
        let message = refused(&["--config", file.to_str().unwrap()]);
        assert!(
            message.contains("tracker.toml") && message.contains("did you mean `max_peers`?"),
            "{message}"
        );
    }
}
