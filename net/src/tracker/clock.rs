//! The tracker's clock, by which tickets, sessions and grants expire.

pub(super) use crate::date::now;
