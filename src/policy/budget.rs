//! How many requests the upstream gets within any minute. It counts by fixed minutes of its own clock; what stays below
//! the limit in every minute does so in those.

use std::time::{Duration, Instant};

const SECONDS: usize = 60;
/// One part of so many is kept for writes.
const KEPT_FOR_WRITES: usize = 10;

/// The requests of the last minute.
#[derive(Debug)]
pub struct Budget {
    /// Second zero.
    began: Instant,
    /// The second that was counted last.
    second: u64,
    /// How many in each of the last seconds, the present one among them.
    counts: [usize; SECONDS + 1],
    sum: usize,
}

impl Budget {
    /// Nothing has been sent yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, second: 0, counts: [0; SECONDS + 1], sum: 0 }
    }

    /// Counts a request, if there is room for it among so many a minute; else after how long there may be.
    pub fn take(&mut self, now: Instant, limit: usize, is_write: bool) -> Result<(), Duration> {
        if self.has_room(now, limit, is_write) {
            self.sum += 1;
            let here = self.place(self.second);
            self.counts[here] += 1;
            return Ok(());
        }
        // The oldest second in which anything was sent leaves first.
        let oldest = self.second.saturating_sub(SECONDS as u64);
        let first = (oldest..=self.second).find(|&second| self.counts[self.place(second)] > 0).unwrap_or(self.second);
        let free_at = self.began + Duration::from_secs(first + SECONDS as u64 + 1);
        Err(free_at.saturating_duration_since(now))
    }

    /// Whether there is room for one more now.
    pub fn has_room(&mut self, now: Instant, limit: usize, is_write: bool) -> bool {
        self.advance(now);
        self.left(limit, is_write) > 0
    }

    /// How many more may be sent now.
    pub fn left(&self, limit: usize, is_write: bool) -> usize {
        let room = if is_write { limit } else { limit - limit.div_ceil(KEPT_FOR_WRITES).min(limit - 1) };
        room.saturating_sub(self.sum)
    }

    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        let passed = second.saturating_sub(self.second).min(self.counts.len() as u64);
        for step in 1..=passed {
            let place = self.place(second - passed + step);
            self.sum -= std::mem::take(&mut self.counts[place]);
        }
        self.second = second.max(self.second);
    }

    fn place(&self, second: u64) -> usize {
        usize::try_from(second % self.counts.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Fn(u64) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    #[test]
    fn a_part_is_kept_for_writes() {
        let at = times();
        let mut budget = Budget::new(at(0));
        assert!((0..90).all(|_| budget.take(at(500), 100, false).is_ok()));
        let Err(wait) = budget.take(at(500), 100, false) else { panic!("the rest is for writes") };
        assert!((0..10).all(|_| budget.take(at(500), 100, true).is_ok()));
        assert!(budget.take(at(500), 100, true).is_err());
        assert_eq!(wait, Duration::from_millis(60_500));
        assert!(budget.take(at(60_999), 100, false).is_err());
        assert!(budget.take(at(61_000), 100, false).is_ok());
    }

    #[test]
    fn a_budget_of_one_is_one() {
        let at = times();
        let mut budget = Budget::new(at(0));
        assert!(budget.take(at(0), 1, false).is_ok() && budget.take(at(1), 1, true).is_err());
        assert!(budget.take(at(1_000_000), 1, false).is_ok());
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_limit(steps in proptest::collection::vec((0_u64..5_000, any::<bool>()), 1..400)) {
            let at = times();
            let (mut budget, mut now, mut sent) = (Budget::new(at(0)), 0, Vec::new());
            for (step, is_write) in steps {
                now += step;
                if budget.take(at(now), 20, is_write).is_ok() {
                    sent.push(now);
                }
            }
            for &from in &sent {
                prop_assert!(sent.iter().filter(|&&at| (from..from + 60_000).contains(&at)).count() <= 20);
            }
        }
    }
}
