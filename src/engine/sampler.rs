//! A fixed share of things, evenly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::coherence::ledger::Moment;

/// Takes a fixed share of what it is asked about, evenly.
#[derive(Debug, Default)]
pub struct Sampler(AtomicU64);

impl Sampler {
    /// Whether this one is in the share.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 64 bits")]
    pub fn takes(&self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        let before = self.0.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * share).floor() > (before * share).floor()
    }
}

/// Takes one, and then none for a while.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Whether this one is taken; the next is not before `every` has passed.
    pub fn takes(&self, Moment(now): Moment, every: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || u128::from(now.saturating_sub(last)) >= every.as_millis();
        due && self.0.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// How many [`FewASecond`] takes of each second.
const FEW: u64 = 10;
/// Its count stands below its second.
const COUNT_BITS: u32 = 8;

/// Takes the first few of each second.
#[derive(Debug, Default)]
pub struct FewASecond(AtomicU64);

impl FewASecond {
    /// Whether this one is among them.
    pub fn takes(&self, Moment(now): Moment) -> bool {
        let second = (now / 1000) << COUNT_BITS;
        let counted = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            let count = if before >> COUNT_BITS == second >> COUNT_BITS { before } else { second };
            (count - second < FEW).then_some(count + 1)
        });
        counted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_one_there_is_none_for_a_while() {
        let seldom = Seldom::default();
        let every = Duration::from_secs(10);
        for (at, taken) in [(0, true), (1, false), (9_000, false), (10_001, true), (10_002, false), (90_000, true)] {
            assert_eq!(seldom.takes(Moment(at), every), taken, "{at}");
        }
    }

    #[test]
    fn of_each_second_the_first_few_are_taken() {
        let few = FewASecond::default();
        for second in [0, 1, 7] {
            let taken = (0..100).filter(|at| few.takes(Moment(second * 1000 + at * 10))).count();
            assert_eq!(taken as u64, FEW, "{second}");
        }
    }

    #[test]
    fn a_share_of_hits_is_logged_evenly() {
        for (share, expected) in [(0.0, 0), (0.25, 25), (1.0, 100)] {
            let sampler = Sampler::default();
            assert_eq!((0..100).filter(|_| sampler.takes(share)).count(), expected, "{share}");
        }
    }
}
