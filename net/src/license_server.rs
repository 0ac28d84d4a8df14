//! A license server apart from the tracker: it signs the licenses of its torrents, and knows neither an r nor a master key.
//!
//! ```text
//! subscriber ── word: "I want a license", signed over the tracker's fresh nonce ──▶ license server
//!                        license server ── order: the word, signed ──▶ tracker
//!                        license server ◀── the license's keys, encrypted to it and signed by the tracker ── tracker
//! subscriber ◀── the license, signed by the server and encrypted to the device ── license server
//! ```
//!
//! The tracker takes an order from the one server that it was told of, on a word that the subscriber has just given to that very
//! server, once, and only where a grant or voucher covers it. The server takes an answer under the one tracker key that it was told of.
//! Either side thus knows the other whatever carries the calls; TLS keeps vouchers and who asks for what from the network.
//!
//! It keeps nothing but its key: any number of servers may share one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::Semaphore;

use crate::tracker::{Body, Refusal, answer, read};
use crate::tracker_client::{Client, Error};
use crate::wire::api::{self, ApiError, LicenseFilled, LicenseOrder, LicenseReply, LicenseServer, LicenseWord};
use crate::wire::identity::{self, Identity, purpose};
use crate::wire::license::License;

/// Licenses in the making at once: each has all its keys in memory.
const MAX_AT_ONCE: usize = 32;

/// Makes licenses.
struct Licenser {
    identity: Identity,
    tracker: Client,
    tracker_key: [u8; 32],
    at_once: Semaphore,
}
