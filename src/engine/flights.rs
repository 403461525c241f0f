//! One fetch per key; everyone else waits for it.

use std::time::Duration;

/// What the flights obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightSettings {
    /// `cache.wait`: how long one reader waits in all.
    pub wait: Duration,
    /// `cache.max_waiters`: readers waiting at once, over all flights.
    pub max_waiters: usize,
}
