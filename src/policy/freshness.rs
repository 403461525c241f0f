//! Fresh, stale but usable, or too old.

use std::time::Duration;

/// How long an answer may be used, counted from the moment its fetch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// `cache.ttl`: served without asking anybody.
    pub ttl: Duration,
    /// `cache.stale_while_revalidate`: after the TTL, served while a refresh runs behind (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// `cache.stale_if_error`: the age up to which an answer may stand in for a failed fetch (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// `cache.negative_ttl`: the TTL of a 404; zero keeps none.
    pub negative_ttl: Duration,
}
