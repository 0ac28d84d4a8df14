//! How a tracker runs: every setting with its default, its documentation, and its names in the file, as a flag and in the
//! environment. All of them come from the one list below.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::wire::api::LicenseServer;
use crate::wire::keyfile::Passphrase;
use crate::wire::origin::Origin;

/// Bytes of the longest file.
const MAX_FILE: u64 = 1 << 20;
/// How alike a name must be to be proposed for one that is unknown.
const ALIKE: f64 = 0.7;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected.
        reason: String,
    },
    /// There is no such setting.
    #[error("unknown setting `{name}`{}", nearest.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        name: String,
        /// One that is much like it.
        nearest: Option<&'static str>,
    },
    /// A value is of the wrong type or out of range.
    #[error("{0}")]
    Value(String),
}

/// What a setting is on the command line and in the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number,
    /// Seconds, on the command line also with a unit: `15m`.
    Seconds,
    /// Bytes, on the command line also with a unit: `256M`.
    Bytes,
    /// There or not.
    Switch,
    /// Text: an address, a path, a word.
    Text,
    /// Texts with commas between them.
    List,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file and in [`Config`].
    pub name: &'static str,
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
    /// What it is.
    pub kind: Kind,
    /// Its flag, without the dashes; none where it has no flag of its own.
    pub flag: Option<&'static str>,
    /// The variable that stands in for the flag.
    pub variable: Option<&'static str>,
    /// What the flag's value is called.
    pub value: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr,
       $kind:ident $flag:literal $variable:literal $value:literal;)+) => {
        /// How a tracker runs.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            /// Directory of everything that lasts; made, 0700, if it is not there.
            pub data: PathBuf,
            $($(#[doc = $doc])+ pub $name: $type,)+
            /// What master keys and witness secrets are sealed with, if they are: it stands in no file of settings.
            #[serde(skip)]
            pub master_passphrase: Option<Passphrase>,
            /// Keys that this start replaces by fresh ones. Their old files stay, under another name.
            #[serde(skip)]
            pub new_keys: Vec<OwnKey>,
        }

        impl Config {
            /// Every setting, in the order of the printed file.
            pub const SETTINGS: &'static [Setting] = &[
                Setting {
                    name: "data",
                    doc: &[" Directory of everything that lasts. `--data` and SWARMSEAL_DATA go before it: the tracker's",
                           " directory is then `tracker` below theirs."],
                    kind: Kind::Text,
                    flag: None,
                    variable: None,
                    value: "/var/lib/swarmseal",
                },
                $(Setting {
                    name: stringify!($name),
                    doc: &[$($doc),+],
                    kind: Kind::$kind,
                    flag: Some($flag),
                    variable: Some($variable),
                    value: $value,
                },)+
            ];

            /// The defaults, on this data directory.
            pub fn new(data: impl Into<PathBuf>) -> Self {
                Config { data: data.into(), $($name: $default,)+ master_passphrase: None, new_keys: Vec::new() }
            }
        }
    };
}

settings! {
    /// Where to listen; port 0 takes any.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7000)),
        Text "listen" "SWARMSEAL_LISTEN" "ADDRESS";
    /// Where clients reach the tracker, such as `https://tracker.example`: admin tokens name it. The address that it listens on if not
    /// given.
    origin: Option<Origin> = None,
        Text "origin" "SWARMSEAL_TRACKER_ORIGIN" "ORIGIN";
    /// Where to answer `/metrics`, by plain HTTP, which then is not answered where `listen` says; `/health` and `/ready` are on both.
    metrics_listen: Option<SocketAddr> = None,
        Text "metrics-listen" "SWARMSEAL_TRACKER_METRICS_LISTEN" "ADDRESS";
    /// PEM file with the certificate and those that lead from it to its root. With it the tracker speaks HTTPS and nothing
    /// else. SIGHUP reads it and its key again.
    tls_certificate: Option<PathBuf> = None,
        Text "tls-certificate" "SWARMSEAL_TRACKER_TLS_CERTIFICATE" "FILE";
    /// PEM file with the certificate's private key.
    tls_key: Option<PathBuf> = None,
        Text "tls-key" "SWARMSEAL_TRACKER_TLS_KEY" "FILE";
    /// Speak plain HTTP on an address that is not of this machine alone: keys and tokens then cross the network in clear.
    /// Only for a network that you trust, or behind a proxy that speaks TLS.
    insecure_http: bool = false,
        Switch "insecure-http" "SWARMSEAL_INSECURE_HTTP" "";
    /// Addresses of proxies whose word on whom they speak for is believed.
    trusted_proxies: Vec<IpAddr> = Vec::new(),
        List "trusted-proxy" "SWARMSEAL_TRUSTED_PROXY" "IP";
    /// The header in which they say so: `x-forwarded-for` or `forwarded` (RFC 7239). The other is not read: proxies pass
    /// on what they do not know.
    proxy_header: ProxyHeader = ProxyHeader::XForwardedFor,
        Text "proxy-header" "SWARMSEAL_TRACKER_PROXY_HEADER" "NAME";
    /// Register torrents of the profile `paper`, which protects nothing.
    insecure_paper_profile: bool = false,
        Switch "insecure-paper-profile" "SWARMSEAL_INSECURE_PAPER_PROFILE" "";
    /// Seconds between a peer's announces, 1 to 86400; a peer that is silent for twice as long and a minute is forgotten.
    announce_interval: u32 = 120,
        Seconds "announce-interval" "SWARMSEAL_ANNOUNCE_INTERVAL" "SECONDS";
    /// Seconds that a peer waits at least between announces.
    min_announce_interval: u32 = 60,
        Seconds "min-announce-interval" "SWARMSEAL_TRACKER_MIN_ANNOUNCE_INTERVAL" "SECONDS";
    /// Peers in one reply at most.
    max_peers: u32 = 200,
        Number "max-peers" "SWARMSEAL_TRACKER_MAX_PEERS" "COUNT";
    /// Seconds that a session lasts.
    session_seconds: u64 = 3600,
        Seconds "session-time" "SWARMSEAL_TRACKER_SESSION_TIME" "DURATION";
    /// Seconds that clients may refer to an answer of `/identify`.
    nonce_seconds: u64 = 60,
        Seconds "nonce-time" "SWARMSEAL_TRACKER_NONCE_TIME" "DURATION";
    /// Seconds from now until the latest expiry of a ticket that is accepted.
    max_ticket_seconds: u64 = 24 * 3600,
        Seconds "max-ticket-time" "SWARMSEAL_TRACKER_MAX_TICKET_TIME" "DURATION";
    /// Calls a second that one subscriber may make in its sessions, on average; 0: any number. Seeds are not limited.
    calls_per_second: u32 = 1000,
        Number "calls-per-second" "SWARMSEAL_TRACKER_CALLS_PER_SECOND" "COUNT";
    /// Calls that one subscriber may make at once, having been silent before.
    calls_burst: u32 = 5000,
        Number "calls-burst" "SWARMSEAL_TRACKER_CALLS_BURST" "COUNT";
    /// Requests a second from one address (of IPv6: one network of 64 bits) that have no session's token, passkey or admin token:
    /// identifications, subscriptions, openings of sessions, `/metrics`, wrong tokens; 0: any number. As for all bounds of one address,
    /// 127.0.0.1 and ::1 are not limited.
    address_calls_per_second: u32 = 50,
        Number "address-calls-per-second" "SWARMSEAL_TRACKER_ADDRESS_CALLS_PER_SECOND" "COUNT";
    /// Such requests at once, after silence.
    address_calls_burst: u32 = 1000,
        Number "address-calls-burst" "SWARMSEAL_TRACKER_ADDRESS_CALLS_BURST" "COUNT";
    /// New subscriptions of one address in a day; 0: any number.
    address_subscriptions_per_day: u32 = 1000,
        Number "address-subscriptions-per-day" "SWARMSEAL_TRACKER_ADDRESS_SUBSCRIPTIONS_PER_DAY" "COUNT";
    /// Subscriptions in all, some hundred bytes of memory each; 0: any number.
    max_subscribers: usize = 10_000_000,
        Number "max-subscribers" "SWARMSEAL_TRACKER_MAX_SUBSCRIBERS" "COUNT";
    /// Subscriptions and openings of sessions of one address that are checked or wait for it at once; 0: any number.
    max_checks_per_address: u32 = 4,
        Number "max-checks-per-address" "SWARMSEAL_TRACKER_MAX_CHECKS_PER_ADDRESS" "COUNT";
    /// Times a day that one uploader may have the key of one piece for one downloader, and one subscriber its witness key of one piece:
    /// they may have lost it, more than once; 0: any number.
    keys_per_day: u8 = 16,
        Number "keys-per-day" "SWARMSEAL_TRACKER_KEYS_PER_DAY" "COUNT";
    /// Announces and scrapes a second under one passkey; 0: any number. To refuse one costs as much as to answer it.
    announces_per_second: u32 = 0,
        Number "announces-per-second" "SWARMSEAL_TRACKER_ANNOUNCES_PER_SECOND" "COUNT";
    /// Announces and scrapes under one passkey at once, after silence.
    announces_burst: u32 = 100,
        Number "announces-burst" "SWARMSEAL_TRACKER_ANNOUNCES_BURST" "COUNT";
    /// Entries of one address in one swarm; the oldest gives way to another; 0: any number.
    max_announces_per_address: usize = 256,
        Number "max-announces-per-address" "SWARMSEAL_TRACKER_MAX_ANNOUNCES_PER_ADDRESS" "COUNT";
    /// Connections at once, less where the system gives fewer file descriptors; 0: as many as it gives. When they are all taken, an
    /// idle one of the address that has most gives way to the next.
    max_connections: usize = 4096,
        Number "max-connections" "SWARMSEAL_TRACKER_MAX_CONNECTIONS" "COUNT";
    /// Percent of them, 0 to 90, that are kept for members: a connection is one from its first request with a session's token, a
    /// passkey or an admin token on.
    reserved_percent: u8 = 25,
        Number "reserved-percent" "SWARMSEAL_TRACKER_RESERVED_PERCENT" "PERCENT";
    /// Connections at once of one address (of IPv6: one network of 64 bits); 0: any number. 127.0.0.1, ::1 and trusted
    /// proxies are not limited.
    max_connections_per_address: usize = 1024,
        Number "max-connections-per-address" "SWARMSEAL_TRACKER_MAX_CONNECTIONS_PER_ADDRESS" "COUNT";
    /// Connections a second that one address may open; 0: any number.
    address_connections_per_second: u32 = 100,
        Number "address-connections-per-second" "SWARMSEAL_TRACKER_ADDRESS_CONNECTIONS_PER_SECOND" "COUNT";
    /// Connections that one address may open at once, after silence.
    address_connections_burst: u32 = 2000,
        Number "address-connections-burst" "SWARMSEAL_TRACKER_ADDRESS_CONNECTIONS_BURST" "COUNT";
    /// TLS handshakes at once of one address, of which another drops one at random; 0: any number.
    max_handshakes_per_address: usize = 32,
        Number "max-handshakes-per-address" "SWARMSEAL_TRACKER_MAX_HANDSHAKES_PER_ADDRESS" "COUNT";
    /// Seconds for a TLS handshake.
    handshake_seconds: u64 = 10,
        Seconds "handshake-time" "SWARMSEAL_TRACKER_HANDSHAKE_TIME" "DURATION";
    /// Seconds for a request's headers, and for the next request on a connection that is kept alive.
    idle_seconds: u64 = 60,
        Seconds "idle-time" "SWARMSEAL_TRACKER_IDLE_TIME" "DURATION";
    /// Seconds for a request's body, and one more for each 16 KiB of it.
    body_seconds: u64 = 30,
        Seconds "body-time" "SWARMSEAL_TRACKER_BODY_TIME" "DURATION";
    /// Seconds that a client may leave an answer unread.
    unread_seconds: u64 = 30,
        Seconds "unread-time" "SWARMSEAL_TRACKER_UNREAD_TIME" "DURATION";
    /// Seconds for a request and the work on its answer: a license of a million pieces takes minutes.
    request_seconds: u64 = 600,
        Seconds "request-time" "SWARMSEAL_TRACKER_REQUEST_TIME" "DURATION";
    /// Seconds from the order to stop during which everything is still served, but `/ready` says no: for proxies to notice.
    drain_seconds: u64 = 0,
        Seconds "drain-time" "SWARMSEAL_TRACKER_DRAIN_TIME" "DURATION";
    /// Seconds that calls under way then have to end; new connections are refused.
    shutdown_seconds: u64 = 10,
        Seconds "shutdown-time" "SWARMSEAL_TRACKER_SHUTDOWN_TIME" "DURATION";
    /// Jobs of arithmetic at once; as many as there are cores if not given.
    workers: Option<usize> = None,
        Number "workers" "SWARMSEAL_TRACKER_WORKERS" "COUNT";
    /// Calls that may wait for a worker; more are told that the tracker is busy.
    max_waiting_calls: usize = 256,
        Number "max-waiting-calls" "SWARMSEAL_TRACKER_MAX_WAITING_CALLS" "COUNT";
    /// Bytes of tables that make re-keys fast, some 80 KiB for each active subscriber.
    table_cache_bytes: usize = 256 << 20,
        Bytes "table-cache" "SWARMSEAL_TRACKER_TABLE_CACHE" "SIZE";
    /// Devices of one grant that its users may revoke in `change_seconds`, each of which makes room for another; 0: none. Publishers
    /// may revoke any.
    device_changes: u32 = 3,
        Number "device-changes" "SWARMSEAL_TRACKER_DEVICE_CHANGES" "COUNT";
    /// Times in `change_seconds` that one device may begin its record of plays anew, where plays are limited: after a restored
    /// backup or a new disk; 0: never. What the tracker was told of is counted on.
    record_resets: u32 = 3,
        Number "record-resets" "SWARMSEAL_TRACKER_RECORD_RESETS" "COUNT";
    /// Seconds in which `device_changes` and `record_resets` count.
    change_seconds: u64 = 30 * 24 * 3600,
        Seconds "change-time" "SWARMSEAL_TRACKER_CHANGE_TIME" "DURATION";
    /// Who signs the licenses of new torrents, if not this tracker: the line that `swarmseal license-server` prints.
    license_server: Option<LicenseServer> = None,
        Text "license-server" "SWARMSEAL_TRACKER_LICENSE_SERVER" "URL#KEYS";
    /// A file with the passphrase that master keys are sealed with; those that lie in clear are sealed. SWARMSEAL_MASTER_PASSPHRASE
    /// has the passphrase itself instead, and `--ask-passphrase` asks for it.
    master_passphrase_file: Option<PathBuf> = None,
        Text "master-passphrase-file" "SWARMSEAL_MASTER_PASSPHRASE_FILE" "FILE";
    /// Read the whole store at the start and compare its checksums, as is done after a crash anyway.
    check_store: bool = false,
        Switch "check-store" "SWARMSEAL_CHECK_STORE" "";
    /// Entries of the audit log that are kept; the oldest go first.
    audit_entries: u64 = 100_000,
        Number "audit-entries" "SWARMSEAL_TRACKER_AUDIT_ENTRIES" "COUNT";
}

/// A key of the tracker's own, which another may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKey {
    /// Shows clients that they reached the tracker; their sessions end with it.
    Tracker,
    /// Signs licenses.
    License,
}

/// Where a proxy says for whom it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// What most proxies write.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl Default for Config {
    /// On no data directory: name one before a tracker starts.
    fn default() -> Self {
        Config::new(PathBuf::new())
    }
}

impl Config {
    /// The settings in a file.
    pub fn read_file(path: &Path) -> Result<Table, ConfigError> {
        let failed = |source| ConfigError::Io { path: path.to_owned(), source };
        let syntax = |reason| ConfigError::Syntax { path: path.to_owned(), reason };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
            return Err(syntax("too long for a configuration".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|error| syntax(error.to_string()))
    }

    /// The settings in the text of a file. Errors: it is no TOML, or names a setting that there is not.
    pub fn parse(text: &str) -> Result<Table, ConfigError> {
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| ConfigError::Value(error.to_string()))?;
        match table.keys().find(|key| Self::setting(key).is_none()) {
            None => Ok(table),
            Some(name) => Err(ConfigError::Unknown { name: name.clone(), nearest: nearest(name) }),
        }
    }

    /// The configuration of these settings, and the defaults of the others.
    pub fn from_table(table: Table) -> Result<Self, ConfigError> {
        let config: Config = table
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Value(error.to_string().trim().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    /// The setting of that name.
    pub fn setting(name: &str) -> Option<&'static Setting> {
        Self::SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// What types do not say.
    fn check(&self) -> Result<(), ConfigError> {
        let least_one = [
            ("announce_interval", u64::from(self.announce_interval)),
            ("max_peers", self.max_peers.into()),
            ("session_seconds", self.session_seconds),
            ("nonce_seconds", self.nonce_seconds),
            ("max_ticket_seconds", self.max_ticket_seconds),
            ("calls_burst", self.calls_burst.into()),
            ("address_calls_burst", self.address_calls_burst.into()),
            ("address_connections_burst", self.address_connections_burst.into()),
            ("announces_burst", self.announces_burst.into()),
            ("handshake_seconds", self.handshake_seconds),
            ("idle_seconds", self.idle_seconds),
            ("body_seconds", self.body_seconds),
            ("unread_seconds", self.unread_seconds),
            ("request_seconds", self.request_seconds),
            ("workers", self.workers.unwrap_or(1) as u64),
            ("audit_entries", self.audit_entries),
        ];
        // More is a slip, and would not fit what counts time.
        const MOST: u64 = 1 << 40;
        let refused =
            |name: &str, expected: &str| Err(ConfigError::Value(format!("{name}: expected {expected}")));
        if let Some((name, _)) = least_one.iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            return refused(name, "a number above 0, and not beyond all measure");
        }
        if self.announce_interval > 86_400 {
            return refused("announce_interval", "1 to 86400 seconds");
        }
        // A semaphore counts no further.
        const MOST_AT_ONCE: usize = 1 << 28;
        if self.max_connections > MOST_AT_ONCE
            || self.max_waiting_calls > MOST_AT_ONCE
            || self.workers.is_some_and(|workers| workers > 4096)
        {
            return refused(
                "max_connections, max_waiting_calls, workers",
                "numbers that a machine has room for",
            );
        }
        if self.reserved_percent > 90 {
            return refused("reserved_percent", "0 to 90");
        }
        if self.drain_seconds > MOST || self.shutdown_seconds > MOST {
            return refused("drain_seconds, shutdown_seconds", "times that somebody lives to see");
        }
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return refused("tls_certificate and tls_key", "both or neither");
        }
        Ok(())
    }

    /// The file that says what this configuration is, with every setting's documentation. What is not set stands in it as a
    /// comment.
    pub fn to_toml(&self) -> String {
        let values = Table::try_from(self).unwrap_or_default();
        let mut out = String::from(
            "# How a Swarmseal tracker runs: `swarmseal tracker --config FILE`. Flags go before variables of the environment,\n\
             # and those before this file.\n",
        );
        for setting in Self::SETTINGS {
            out.push('\n');
            for line in setting.doc {
                let _ = writeln!(out, "#{line}");
            }
            if let (Some(flag), Some(variable)) = (setting.flag, setting.variable) {
                let _ = writeln!(out, "# --{flag}, {variable}");
            }
            match values.get(setting.name).filter(|value| value.as_str() != Some("")) {
                Some(value) => {
                    let _ = writeln!(out, "{} = {value}", setting.name);
                }
                None => {
                    let example = match setting.kind {
                        Kind::Text => Value::String(setting.value.to_owned()),
                        _ => Value::Integer(1),
                    };
                    let _ = writeln!(out, "#{} = {example}", setting.name);
                }
            }
        }
        out
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let alike =
        Config::SETTINGS.iter().map(|setting| (strsim::jaro_winkler(&name, setting.name), setting.name));
    let (likeness, found) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= ALIKE).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncommented(text: &str) -> String {
        // The placeholders that are no values of their settings.
        let identity = crate::wire::identity::SigningKey::from_bytes(&[1; 32]).public();
        let server = LicenseServer { origin: "https://l".parse().unwrap(), identity, device: [2; 32] };
        let text = text
            .replace("URL#KEYS", &String::from(server))
            .replace("\"ORIGIN\"", "\"https://t\"")
            .replace("\"ADDRESS\"", "\"[::1]:9100\"");
        let lines = text.lines().map(|line| {
            let setting = |name: &str| Config::setting(name).is_some();
            match line.strip_prefix('#').and_then(|rest| rest.split_once(" = ").map(|(name, _)| (name, rest)))
            {
                Some((name, rest)) if setting(name) => rest,
                _ => line,
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_printed_file_gives_the_defaults_and_names_every_setting() {
        let text = Config::default().to_toml();
        assert_eq!(Config::from_table(Config::parse(&text).unwrap()).unwrap(), Config::default());
        // With what is not set by default set, every field of the struct appears, and nothing else.
        let all = Config::parse(&uncommented(&text)).unwrap();
        let set = Config::from_table(all.clone()).unwrap();
        let fields: Vec<String> = Table::try_from(&set).unwrap().keys().cloned().collect();
        assert_eq!(all.keys().cloned().collect::<Vec<_>>(), fields);
        assert_eq!(fields.len(), Config::SETTINGS.len());
        for setting in Config::SETTINGS {
            let printed = text
                .lines()
                .position(|line| line.trim_start_matches('#').starts_with(&format!("{} = ", setting.name)));
            let before = text.lines().nth(printed.unwrap() - 1).unwrap();
            assert!(before.starts_with("# "), "{} is not documented", setting.name);
        }
        // What is printed of another configuration is that one.
        let other =
            Config { listen: "[::1]:1".parse().unwrap(), proxy_header: ProxyHeader::Forwarded, ..set };
        assert_eq!(Config::from_table(Config::parse(&other.to_toml()).unwrap()).unwrap(), other);
    }

    #[test]
    fn flags_and_variables_are_of_one_setting_each() {
        let mut names: Vec<&str> =
            Config::SETTINGS.iter().flat_map(|setting| [setting.flag, setting.variable]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest() {
        let refused = |text| Config::parse(text).unwrap_err().to_string();
        assert_eq!(refused("lisen = 1"), "unknown setting `lisen`: did you mean `listen`?");
        assert_eq!(
            refused("announce-intervall = 5"),
            "unknown setting `announce-intervall`: did you mean `announce_interval`?"
        );
        assert_eq!(refused("zzz = 1"), "unknown setting `zzz`");
        assert!(refused("listen 5").contains("line 1"), "{}", refused("listen 5"));
    }

    #[test]
    fn values_are_checked() {
        let refused = |text| Config::from_table(Config::parse(text).unwrap()).unwrap_err().to_string();
        for (text, named) in [
            ("listen = \"nowhere\"", "listen"),
            ("max_peers = -1", "max_peers"),
            ("max_peers = 0", "max_peers"),
            ("workers = 0", "workers"),
            ("reserved_percent = 91", "reserved_percent"),
            ("announce_interval = 100000", "announce_interval"),
            ("session_seconds = 9000000000000000000", "session_seconds"),
            ("tls_key = \"a.pem\"", "tls_certificate"),
            ("proxy_header = \"via\"", "proxy_header"),
            ("trusted_proxies = [\"10.0.0.0/8\"]", "trusted_proxies"),
        ] {
            assert!(refused(text).contains(named), "{text}: {}", refused(text));
        }
    }
}
