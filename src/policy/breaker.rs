//! Whether the upstream is asked at all: a circuit breaker. It opens when nothing but failures has come for a while,
//! lets one request through now and then to see, and closes with the first success.

use std::time::{Duration, Instant};

/// So many failures in a row, at least, before it opens: a few are no sign.
const FAILURES: u32 = 10;
/// Nothing but failures for so long before it opens: what is sooner over is left to those who wait for a single list.
const FAILING_FOR: Duration = Duration::from_secs(5);
/// How often it lets a request through while it is open.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The longest that `Retry-After` is heeded for all: nobody else asks meanwhile, so a wrong one would cost much.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The breaker. Every method takes the time.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// When the first of them came.
    failing_since: Option<Instant>,
    /// When the next request may go, if it is open.
    open: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be sent; else after how long one may. While it is open that is one now and then; what became
    /// of the last one is not waited for, since it may be a long upload.
    pub fn ask(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(next) = self.open else { return Ok(()) };
        if next > now {
            return Err(next.saturating_duration_since(now));
        }
        self.open = Some(now + PROBE_EVERY);
        Ok(())
    }

    /// Whether it would refuse one now.
    pub fn refuses(&self, now: Instant) -> bool {
        self.open.is_some_and(|next| next > now)
    }

    /// An answer came. Whether it was open until now.
    pub fn succeeded(&mut self) -> bool {
        let was_open = self.open.is_some();
        *self = Self::default();
        was_open
    }

    /// The upstream could not be reached, did not answer in time, or said that it cannot; for how long, if it said that.
    /// Whether it has opened by this.
    pub fn failed(&mut self, now: Instant, told: Option<Duration>) -> bool {
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let was_open = self.open.is_some();
        let lasts = now.saturating_duration_since(since) >= FAILING_FOR;
        if was_open || self.failures >= FAILURES && lasts {
            let pause = told.map_or(PROBE_EVERY, |told| told.clamp(PROBE_EVERY, LONGEST_PAUSE));
            self.open = Some(now + pause);
            return !was_open;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> impl Fn(u64) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    /// Open since 5 s, with a probe due at 6 s.
    fn open(at: &impl Fn(u64) -> Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for second in 0..10 {
            assert!(!breaker.failed(at(second * 100), None));
        }
        assert!(breaker.failed(at(5_000), None), "nothing but failures for 5 s");
        breaker
    }

    #[test]
    fn it_opens_when_nothing_but_failures_has_come_for_a_while() {
        let at = times();
        let mut breaker = open(&at);
        assert_eq!(breaker.ask(at(5_000)), Err(Duration::from_secs(1)));
        assert_eq!(breaker.ask(at(5_999)), Err(Duration::from_millis(1)));
        // Many within a moment, or few for long, are no reason.
        let (mut burst, mut few) = (Breaker::default(), Breaker::default());
        assert!((0..1000).all(|_| !burst.failed(at(0), None)));
        assert!((0..9).all(|minute| !few.failed(at(minute * 60_000), None)));
        assert_eq!((burst.ask(at(0)), few.ask(at(9 * 60_000))), (Ok(()), Ok(())));
    }

    #[test]
    fn one_success_in_between_keeps_it_closed() {
        let (mut breaker, at) = (Breaker::default(), times());
        for second in 0..100 {
            assert!(!breaker.failed(at(second * 1000), None));
            if second % 4 == 0 {
                assert!(!breaker.succeeded());
            }
        }
        assert_eq!(breaker.ask(at(100_000)), Ok(()));
    }

    #[test]
    fn one_probe_a_second_and_its_success_closes() {
        let at = times();
        let mut breaker = open(&at);
        assert_eq!(breaker.ask(at(6_000)), Ok(()));
        assert!(breaker.ask(at(6_000)).is_err() && breaker.refuses(at(6_999)));
        assert_eq!(breaker.ask(at(7_000)), Ok(()), "nothing was heard of the first");
        assert!(!breaker.failed(at(8_000), None), "it was open before");
        assert_eq!(breaker.ask(at(9_000)), Ok(()));
        assert!(breaker.succeeded() && !breaker.succeeded());
        assert_eq!(breaker.ask(at(9_000)), Ok(()));
    }

    #[test]
    fn any_success_closes_it_whoever_asked() {
        let at = times();
        let mut breaker = open(&at);
        assert!(breaker.succeeded());
        assert_eq!(breaker.ask(at(5_001)), Ok(()));
        assert!(!breaker.failed(at(5_002), None), "what was before is forgotten");
    }

    #[test]
    fn retry_after_is_heeded_within_a_bound() {
        let at = times();
        for (told, pause) in [(20, 20), (3600, 30), (0, 1)] {
            let mut breaker = open(&at);
            breaker.failed(at(6_000), Some(Duration::from_secs(told)));
            assert_eq!(breaker.ask(at(6_000)), Err(Duration::from_secs(pause)));
            assert_eq!(breaker.ask(at(6_000 + pause * 1000)), Ok(()));
        }
    }
}
