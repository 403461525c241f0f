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
/// A probe of which nothing was heard for so long is given up, and another one is let through.
const PROBE_LOST: Duration = Duration::from_secs(60);

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

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As usual.
    Go,
    /// To see whether the upstream works again.
    Probe,
    /// Not now, but perhaps after this.
    Refused(Duration),
}

impl Breaker {
    /// Whether a request may be sent.
    pub fn ask(&mut self, now: Instant) -> Verdict {
        let Some(next) = self.open else { return Verdict::Go };
        if next > now {
            return Verdict::Refused(next.saturating_duration_since(now));
        }
        self.open = Some(now + PROBE_LOST);
        Verdict::Probe
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

    /// A probe ended without a verdict: its client left. The next may go at once.
    pub fn probe_lost(&mut self, now: Instant) {
        if let Some(next) = &mut self.open {
            *next = now;
        }
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
        assert_eq!(breaker.ask(at(5_000)), Verdict::Refused(Duration::from_secs(1)));
        assert_eq!(breaker.ask(at(5_999)), Verdict::Refused(Duration::from_millis(1)));
        // Many within a moment, or few for long, are no reason.
        let (mut burst, mut few) = (Breaker::default(), Breaker::default());
        assert!((0..1000).all(|_| !burst.failed(at(0), None)));
        assert!((0..9).all(|minute| !few.failed(at(minute * 60_000), None)));
        assert_eq!((burst.ask(at(0)), few.ask(at(9 * 60_000))), (Verdict::Go, Verdict::Go));
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
        assert_eq!(breaker.ask(at(100_000)), Verdict::Go);
    }

    #[test]
    fn one_probe_at_a_time_and_its_success_closes() {
        let at = times();
        let mut breaker = open(&at);
        assert_eq!(breaker.ask(at(6_000)), Verdict::Probe);
        assert!(matches!(breaker.ask(at(6_000)), Verdict::Refused(_)) && breaker.refuses(at(7_500)));
        assert!(!breaker.failed(at(8_000), None), "it was open before");
        assert_eq!(breaker.ask(at(9_000)), Verdict::Probe);
        assert!(breaker.succeeded() && !breaker.succeeded());
        assert_eq!(breaker.ask(at(9_000)), Verdict::Go);
    }

    #[test]
    fn any_success_closes_it_whoever_asked() {
        let at = times();
        let mut breaker = open(&at);
        assert!(breaker.succeeded());
        assert_eq!(breaker.ask(at(5_001)), Verdict::Go);
        assert!(!breaker.failed(at(5_002), None), "what was before is forgotten");
    }

    #[test]
    fn retry_after_is_heeded_within_a_bound() {
        let at = times();
        for (told, pause) in [(20, 20), (3600, 30), (0, 1)] {
            let mut breaker = open(&at);
            breaker.failed(at(6_000), Some(Duration::from_secs(told)));
            assert_eq!(breaker.ask(at(6_000)), Verdict::Refused(Duration::from_secs(pause)));
            assert_eq!(breaker.ask(at(6_000 + pause * 1000)), Verdict::Probe);
        }
    }

    #[test]
    fn a_lost_probe_makes_room_for_another() {
        let at = times();
        let mut breaker = open(&at);
        assert_eq!(breaker.ask(at(6_000)), Verdict::Probe);
        breaker.probe_lost(at(6_500));
        assert_eq!(breaker.ask(at(6_500)), Verdict::Probe);
        assert_eq!(breaker.ask(at(66_500)), Verdict::Probe, "nothing was heard of it");
    }
}
