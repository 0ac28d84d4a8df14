//! Counters, and their text form for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::store::Totals;

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
    /// Encryption keys issued to seeds.
    encryption_keys,
    /// Cipher hashes that seeds computed.
    cipher_hashes,
    /// Licenses issued.
    licenses,
    /// Bad pieces of which somebody was accused.
    accusations,
    /// Accusations of pieces that were good.
    false_accusations,
    /// Bad pieces whose first sender was found.
    blamed,
    /// Bytes credited to those who sent them.
    credited_bytes,
    /// Calls refused.
    calls_refused,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What there is at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Gauges {
    /// Peers in all swarms.
    pub(super) peers: u64,
    /// Open sessions.
    pub(super) sessions: u64,
    /// Bytes of the re-key tables.
    pub(super) table_bytes: u64,
    /// Seconds since the start.
    pub(super) uptime: u64,
}

/// Everything that is measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Stats {
    #[serde(flatten)]
    pub(super) counts: Counts,
    #[serde(flatten)]
    pub(super) gauges: Gauges,
    #[serde(flatten)]
    pub(super) totals: Totals,
}

impl Stats {
    /// The text exposition format.
    pub(super) fn to_prometheus(self) -> String {
        let mut out = String::with_capacity(4096);
        self.counts.write(&mut out);
        let Gauges { peers, sessions, table_bytes, uptime } = self.gauges;
        let Totals { torrents, seeds, subscribers, grants, vouchers, licensed } = self.totals;
        for (name, help, value) in [
            ("peers", "Peers in all swarms.", peers),
            ("sessions", "Open sessions.", sessions),
            ("table_bytes", "Bytes of the re-key tables.", table_bytes),
            ("uptime_seconds", "Seconds since the start.", uptime),
            ("torrents", "Torrents registered.", torrents),
            ("seeds", "Seed keys registered.", seeds),
            ("subscribers", "Subscriptions.", subscribers),
            ("grants", "Grants made, redeemed or not.", grants),
            ("vouchers", "Vouchers issued.", vouchers),
            ("licensed", "Subscribers that hold a grant.", licensed),
        ] {
            write_one(&mut out, "gauge", name, help, value);
        }
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
        let text = Stats { counts: counters.read(), ..Stats::default() }.to_prometheus();
        assert!(text.contains(
            "# HELP swarmseal_tracker_rekeys_total Re-keys issued.\n\
             # TYPE swarmseal_tracker_rekeys_total counter\nswarmseal_tracker_rekeys_total 512\n"
        ));
    }
}
