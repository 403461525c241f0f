//! A shared fetch: one request to the upstream whose answer may be kept and given to anyone who asks for its key.

use std::time::Duration;

/// What a shared fetch obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// `upstream.fetch_timeout`: the whole fetch, from the first byte sent to the last one read.
    pub timeout: Duration,
    /// `upstream.max_in_flight`: shared fetches at once.
    pub max_in_flight: usize,
    /// `cache.max_body`, in bytes: a larger list passes through, unkept.
    pub max_body: u64,
    /// `cache.fetch_memory`, in bytes: bodies being collected, all together.
    pub memory: u64,
}
