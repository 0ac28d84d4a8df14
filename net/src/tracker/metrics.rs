//! Counters, times of calls, what there is at one moment, and their text form for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::store::Totals;

/// Calls as metrics and the access log name them: never by their paths, which have passkeys in them.
pub(super) const CALLS: [(&str, &str); 24] = [
    ("announce", ""),
    ("scrape", ""),
    ("identify", "/identify"),
    ("subscribe", "/subscribe"),
    ("session", "/session"),
    ("passkey", "/passkey"),
    ("rekey", "/rekey"),
    ("witness", "/witness"),
    ("license", "/license"),
    ("license_order", "/license/order"),
    ("devices", "/devices"),
    ("devices_revoke", "/devices/revoke"),
    ("seed_keys", "/seed/keys"),
    ("seed_work", "/seed/work"),
    ("seed_hashes", "/seed/hashes"),
    ("seed_personal", "/seed/personal"),
    ("hashes", "/hashes"),
    ("personal", "/personal"),
    ("personal_clients", "/personal/clients"),
    ("personal_pull", "/personal/pull"),
    ("personal_rekey", "/personal/rekey"),
    ("admin", "/admin"),
    ("metrics", "/metrics"),
    ("other", ""),
];

/// One of [`CALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call(usize);

impl Call {
    pub(super) const ANNOUNCE: Call = Call(0);
    pub(super) const SCRAPE: Call = Call(1);
    const OTHER: Call = Call(CALLS.len() - 1);

    /// That of a route, with its placeholders as they are.
    pub(super) fn of_route(route: &str) -> Self {
        let route = if route.starts_with("/admin/") { "/admin" } else { route };
        CALLS.iter().position(|(_, known)| *known == route && !route.is_empty()).map_or(Self::OTHER, Call)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        CALLS[self.0].0
    }
}

/// Seconds up to which a call counts for a bucket; the rest counts for `+Inf`.
const BUCKETS: [f64; 12] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.016, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];
/// First digits of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How long answers of one call took, and what they were.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
    classes: [AtomicU64; CLASSES.len()],
}

/// The same of every call.
#[derive(Debug)]
pub(super) struct CallTimes([Times; CALLS.len()]);

impl Default for CallTimes {
    fn default() -> Self {
        CallTimes(std::array::from_fn(|_| Times::default()))
    }
}

impl CallTimes {
    /// Takes note of an answer.
    pub(super) fn observe(&self, call: Call, took: Duration, status: u16) {
        let times = &self.0[call.0];
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|&bound| seconds <= bound).unwrap_or(BUCKETS.len());
        count(&times.buckets[bucket], 1);
        count(&times.nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        count(&times.classes[usize::from(status / 100).clamp(1, CLASSES.len()) - 1], 1);
    }

    fn write(&self, out: &mut String) {
        const TIME: &str = "swarmseal_tracker_call_seconds";
        const ANSWERS: &str = "swarmseal_tracker_answers_total";
        let _ =
            writeln!(out, "# HELP {TIME} Time from a call's headers to its answer.\n# TYPE {TIME} histogram");
        for (times, (call, _)) in self.0.iter().zip(CALLS) {
            let mut sum = 0;
            let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bucket, bound) in times.buckets.iter().zip(bounds) {
                sum += bucket.load(Ordering::Relaxed);
                let _ = writeln!(out, "{TIME}_bucket{{call=\"{call}\",le=\"{bound}\"}} {sum}");
            }
            let seconds = times.nanos.load(Ordering::Relaxed) as f64 / 1e9;
            let _ = writeln!(
                out,
                "{TIME}_sum{{call=\"{call}\"}} {seconds}\n{TIME}_count{{call=\"{call}\"}} {sum}"
            );
        }
        let _ = writeln!(out, "# HELP {ANSWERS} Answers by call and status.\n# TYPE {ANSWERS} counter");
        for (times, (call, _)) in self.0.iter().zip(CALLS) {
            for (class, count) in CLASSES.iter().zip(&times.classes) {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(out, "{ANSWERS}{{call=\"{call}\",status=\"{class}\"}} {count}");
            }
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// What has happened since the start.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $($(#[doc = $help])+ pub(super) $name: AtomicU64,)+
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub(super) struct Counts {
            $(pub(super) $name: u64,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl Counts {
            fn write(&self, out: &mut String) {
                $(write_one(out, "counter", concat!(stringify!($name), "_total"), concat!($($help),+), self.$name);)+
            }
        }
    };
}

counters! {
    /// Announces answered with peers.
    announces,
    /// Announces and scrapes refused.
    announces_refused,
    /// Scrapes answered.
    scrapes,
    /// Subscriptions made or confirmed.
    subscriptions,
    /// Sessions opened.
    sessions_opened,
    /// Calls for re-keys answered.
    rekey_calls,
    /// Re-keys issued.
    rekeys,
    /// Calls for witness keys answered.
    witness_calls,
    /// Witness keys issued.
    witness_keys,
    /// Encryption keys issued to seeds.
    encryption_keys,
    /// Pieces that keys from seeds to subscribers were given out for, an estimate of what seeds sent.
    keyed_from_seeds,
    /// Pieces that keys from subscribers to others were given out for, an estimate of what peers sent.
    keyed_from_peers,
    /// Cipher hashes that seeds computed.
    cipher_hashes,
    /// Licenses issued.
    licenses,
    /// Calls refused.
    calls_refused,
    /// Calls, announces and wrong admin tokens refused because there were too many.
    rate_limited,
    /// Passkeys changed.
    passkeys_rotated,
    /// Admin calls with no token, or with one that is not known.
    admin_refused,
    /// Connections accepted.
    connections,
    /// Connections refused because their address had too many, or nobody was idle.
    connections_refused,
    /// Idle connections that gave way to others.
    connections_displaced,
    /// Connections cut because the client was too slow, or silent for too long.
    slow_clients,
    /// TLS handshakes that succeeded.
    tls_handshakes,
    /// TLS handshakes that failed.
    tls_handshakes_failed,
    /// Times that the certificate was read again.
    tls_reloads,
    /// Log lines that could not be written.
    log_lines_dropped,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

macro_rules! gauges {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// What there is at one moment.
        #[derive(Clone, Copy, Debug, Default, Serialize)]
        pub(super) struct Gauges {
            $($(#[doc = $help])+ pub(super) $name: u64,)+
        }

        impl Gauges {
            fn write(&self, out: &mut String) {
                $(write_one(out, "gauge", stringify!($name), concat!($($help),+), self.$name);)+
            }
        }
    };
}

gauges! {
    /// Peers in all swarms.
    peers,
    /// Peers that have everything.
    peers_complete,
    /// Swarms with a peer in them.
    swarms,
    /// Peers of the largest swarm.
    largest_swarm,
    /// Bytes of the re-key tables.
    table_bytes,
    /// Bytes that the re-key tables may take.
    table_bytes_limit,
    /// Jobs of calls in sessions and of the admin API that run.
    jobs_running,
    /// Jobs of calls in sessions and of the admin API that wait.
    jobs_waiting,
    /// Subscriptions that are being checked.
    verifications_running,
    /// Subscriptions that wait to be checked.
    verifications_waiting,
    /// Callers that the rate limits remember.
    limited_callers,
    /// Open connections.
    open_connections,
    /// Connections that there may be, fitted to the file descriptors.
    max_open_connections,
    /// Bytes of the store's file.
    store_bytes,
    /// Microseconds that the last look at the store took.
    store_read_micros,
    /// 1 while the tracker takes calls, 0 once it was told to stop.
    serving,
    /// Seconds since the start.
    uptime_seconds,
}

/// Swarms by their peers: how many have at most so many.
pub(super) const SWARM_SIZES: [u64; 6] = [0, 1, 10, 100, 1000, 10_000];

/// Everything that is measured but times.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Stats {
    #[serde(flatten)]
    pub(super) counts: Counts,
    #[serde(flatten)]
    pub(super) gauges: Gauges,
    #[serde(flatten)]
    pub(super) totals: Totals,
    /// By [`SWARM_SIZES`], and all.
    #[serde(skip)]
    pub(super) swarm_sizes: [u64; SWARM_SIZES.len() + 1],
}

impl Stats {
    /// The text exposition format.
    pub(super) fn to_prometheus(self, times: &CallTimes) -> String {
        let mut out = String::with_capacity(64 << 10);
        self.counts.write(&mut out);
        self.gauges.write(&mut out);
        let Totals { torrents, seeds, subscribers, grants, vouchers, licensed } = self.totals;
        for (name, help, value) in [
            ("torrents", "Torrents registered.", torrents),
            ("seeds", "Seed keys registered.", seeds),
            ("subscribers", "Subscriptions.", subscribers),
            ("grants", "Grants made, redeemed or not.", grants),
            ("vouchers", "Vouchers issued.", vouchers),
            ("licensed", "Subscribers that hold a grant.", licensed),
        ] {
            write_one(&mut out, "gauge", name, help, value);
        }
        const SIZES: &str = "swarmseal_tracker_swarms_by_peers";
        let _ = writeln!(out, "# HELP {SIZES} Swarms that have at most so many peers.\n# TYPE {SIZES} gauge");
        let bounds = SWARM_SIZES.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in self.swarm_sizes.iter().zip(bounds) {
            let _ = writeln!(out, "{SIZES}{{le=\"{bound}\"}} {count}");
        }
        const BUILD: &str = "swarmseal_tracker_build_info";
        let (version, backend) = (env!("CARGO_PKG_VERSION"), crate::backend::kernels().name);
        let _ = writeln!(
            out,
            "# HELP {BUILD} Version, and the arithmetic in use.\n# TYPE {BUILD} gauge\n\
             {BUILD}{{version=\"{version}\",backend=\"{backend}\"}} 1"
        );
        times.write(&mut out);
        out
    }
}

fn write_one(out: &mut String, kind: &str, name: &str, help: &str, value: u64) {
    let help = help.trim();
    let _ = writeln!(
        out,
        "# HELP swarmseal_tracker_{name} {help}\n# TYPE swarmseal_tracker_{name} {kind}\nswarmseal_tracker_{name} {value}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_kind_and_value() {
        let counters = Counters::default();
        count(&counters.rekeys, 512);
        let text = Stats { counts: counters.read(), ..Stats::default() }.to_prometheus(&CallTimes::default());
        assert!(text.contains(
            "# HELP swarmseal_tracker_rekeys_total Re-keys issued.\n\
             # TYPE swarmseal_tracker_rekeys_total counter\nswarmseal_tracker_rekeys_total 512\n"
        ));
    }

    #[test]
    fn buckets_add_up_and_calls_go_by_their_names() {
        let times = CallTimes::default();
        for (call, micros, status) in [
            (Call::ANNOUNCE, 50, 200),
            (Call::ANNOUNCE, 16_000, 200),
            (Call::of_route("/rekey"), 90_000_000, 503),
            (Call::of_route("/admin/tokens/{id}"), 3, 401),
            (Call::of_route("/made/up"), 3, 404),
        ] {
            times.observe(call, Duration::from_micros(micros), status);
        }
        let text = Stats::default().to_prometheus(&times);
        for line in [
            "call_seconds_bucket{call=\"announce\",le=\"0.0001\"} 1",
            "call_seconds_bucket{call=\"announce\",le=\"0.005\"} 1",
            "call_seconds_bucket{call=\"announce\",le=\"0.016\"} 2",
            "call_seconds_bucket{call=\"announce\",le=\"+Inf\"} 2",
            "call_seconds_sum{call=\"announce\"} 0.01605",
            "call_seconds_count{call=\"announce\"} 2",
            "call_seconds_bucket{call=\"rekey\",le=\"60\"} 0",
            "call_seconds_bucket{call=\"rekey\",le=\"+Inf\"} 1",
            "answers_total{call=\"rekey\",status=\"5xx\"} 1",
            "answers_total{call=\"admin\",status=\"4xx\"} 1",
            "answers_total{call=\"other\",status=\"4xx\"} 1",
        ] {
            assert!(text.contains(&format!("swarmseal_tracker_{line}\n")), "{line}\n{text}");
        }
    }
}
