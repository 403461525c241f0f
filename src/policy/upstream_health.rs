//! When to tell that the upstream fails, and that it answers again: once when it begins, seldom while it lasts, once
//! when it is over. Everything is counted elsewhere; this decides what is worth a line.

use std::time::{Duration, Instant};

/// Time between two lines that tell of failures.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is known of the upstream's health. Every method takes the time.
#[derive(Debug, Default)]
pub struct UpstreamHealth {
    /// Since when it has failed, if it does.
    failing_since: Option<Instant>,
    /// When failures were last told of.
    told: Option<Instant>,
    /// Failures that were not told of yet.
    untold: u64,
    /// Failures since it began to fail.
    failures: u64,
    /// Whether this time of failing was told of.
    is_known: bool,
}

/// It answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// For how long it had failed.
    pub after: Duration,
    /// How often.
    pub failures: u64,
}

impl UpstreamHealth {
    /// It failed. If that is to be told of, gives how many failures the line stands for.
    pub fn failed(&mut self, now: Instant) -> Option<u64> {
        self.failing_since.get_or_insert(now);
        self.failures += 1;
        self.untold += 1;
        let is_due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if !is_due {
            return None;
        }
        (self.told, self.is_known) = (Some(now), true);
        Some(std::mem::take(&mut self.untold))
    }

    /// Since when it has failed, if it does.
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// It answered. Says so if it had failed, and that was told of.
    pub fn answered(&mut self, now: Instant) -> Option<Recovered> {
        let since = self.failing_since.take()?;
        let recovered = Recovered { after: now.saturating_duration_since(since), failures: self.failures };
        self.failures = 0;
        std::mem::take(&mut self.is_known).then_some(recovered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> impl Fn(u64) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        move |seconds| start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_failure_is_told_of_then_one_line_in_ten_seconds_has_them_all() {
        let (mut health, at) = (UpstreamHealth::default(), times());
        assert_eq!(health.failed(at(0)), Some(1));
        for second in 1..10 {
            assert_eq!(health.failed(at(second)), None);
        }
        assert_eq!(health.failed(at(10)), Some(10));
        assert_eq!(health.failed(at(11)), None);
        assert_eq!(health.failed(at(100)), Some(2));
    }

    #[test]
    fn its_recovery_is_told_of_once() {
        let (mut health, at) = (UpstreamHealth::default(), times());
        assert_eq!(health.answered(at(0)), None);
        health.failed(at(1));
        health.failed(at(2));
        assert_eq!(health.answered(at(31)), Some(Recovered { after: Duration::from_secs(30), failures: 2 }));
        assert_eq!(health.answered(at(32)), None);
        assert_eq!(health.failed(at(41)), Some(1 + 1), "the one that was not told of is not forgotten");
    }

    #[test]
    fn one_that_fails_now_and_then_fills_no_log() {
        let (mut health, at) = (UpstreamHealth::default(), times());
        let mut lines = 0;
        for second in 0..100 {
            lines += u32::from(health.failed(at(second)).is_some());
            lines += u32::from(health.answered(at(second)).is_some());
        }
        assert_eq!(lines, 20, "ten times both");
    }
}
