//! The clocks, read here and nowhere else.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use nix::time::{ClockId, clock_gettime};

use crate::policy::coherence::ledger::Moment;

/// The monotonic clock; it follows tokio's, so a test that moves tokio's clock moves this one.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago an instant was.
pub fn since(instant: Instant) -> Duration {
    now().saturating_duration_since(instant)
}

/// A clock that goes on while the machine sleeps, in microseconds: what holds among machines is measured with it. A test
/// does not move it.
pub fn boot() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    // Elsewhere this one goes on, too.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let time = clock_gettime(CLOCK).map(Duration::from).expect("every system has this clock");
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The last second that a `Date` field can name: its year has four digits.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// The wall clock as a `Date` field (RFC 9110 section 5.6.7).
pub fn http_date() -> HeaderValue {
    date_of(wall())
}

/// A time as a `Date` field. One that the field cannot name is the nearest that it can: a clock that nobody has set
/// is no reason to have no answer.
fn date_of(time: SystemTime) -> HeaderValue {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST_DATE);
    HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + since)).expect("a date is a header value")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_far_off_has_a_date_all_the_same() {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        for (time, date) in [
            (UNIX_EPOCH, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH - year, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + Duration::from_secs(1 << 32), "Sun, 07 Feb 2106 06:28:16 GMT"),
            (UNIX_EPOCH + year * 9000, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(date_of(time), date);
        }
    }
}
