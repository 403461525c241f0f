//! The clocks, read here and nowhere else.

use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;

use crate::policy::coherence::ledger::Moment;

/// The monotonic clock; it follows tokio's, so a test that moves tokio's clock moves this one.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago an instant was.
pub fn since(instant: Instant) -> Duration {
    now().saturating_duration_since(instant)
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock as a `Date` field (RFC 9110 section 5.6.7).
pub fn http_date() -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(wall())).expect("a date is a header value")
}

/// The beginning of the process's time: instants as numbers that fit an atomic.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(Instant);

impl Epoch {
    /// Begins now.
    pub fn begin() -> Self {
        Self(now())
    }

    /// When an instant was, rounded down; what was before the beginning is the beginning.
    pub fn moment(&self, instant: Instant) -> Moment {
        let elapsed = instant.saturating_duration_since(self.0);
        Moment(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// A moment that lies this far after an instant, rounded up.
    pub fn moment_after(&self, instant: Instant, wait: Duration) -> Moment {
        let Moment(from) = self.moment(instant);
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Moment(from.saturating_add(wait).saturating_add(1))
    }

    /// How long before an instant a moment was.
    pub fn time_since(&self, Moment(moment): Moment, instant: Instant) -> Duration {
        let Moment(now) = self.moment(instant);
        Duration::from_millis(now.saturating_sub(moment))
    }
}
