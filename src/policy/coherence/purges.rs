//! What was purged: a change makes an answer out of date, a purge makes it gone. Nothing that was fetched before it is
//! kept afterwards, nor stands in for anything.

use std::collections::VecDeque;

use super::ledger::{Place, Tick};

/// Places remembered at most. Of older purges only the latest tick is known, which then counts for everything.
const REMEMBERED: usize = 4096;

/// The last purges.
#[derive(Debug, Default)]
pub struct Purges {
    /// Whatever was fetched before it is gone.
    everything: Option<Tick>,
    places: VecDeque<(Place, Tick)>,
}

impl Purges {
    /// What is made from any of these places is gone, if its fetch began before this tick.
    pub fn purge(&mut self, places: &[Place], tick: Tick) {
        self.places.extend(places.iter().map(|place| (*place, tick)));
        let surplus = self.places.len().saturating_sub(REMEMBERED);
        for (_, tick) in self.places.drain(..surplus) {
            self.everything = self.everything.max(Some(tick));
        }
    }

    /// Everything is gone whose fetch began before this tick.
    pub fn purge_all(&mut self, tick: Tick) {
        self.everything = self.everything.max(Some(tick));
        self.places.clear();
    }

    /// Whether what was fetched at this tick from these places is gone.
    pub fn has_purged(&self, noted: Tick, places: &[Place]) -> bool {
        self.everything > Some(noted) || self.places.iter().any(|(place, tick)| *tick > noted && places.contains(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::coherence::ledger::{Ledger, Scope};

    #[test]
    fn what_was_fetched_before_a_purge_is_gone_and_nothing_else() {
        let ledger = Ledger::new(1 << 10, [1, 2]);
        let [a, b] = ["a", "b"].map(|source| ledger.place(&Scope::Source(source)));
        let mut purges = Purges::default();
        let before = ledger.now();
        assert!(!purges.has_purged(before, &[a]));
        purges.purge(&[a], ledger.invalidate(a));
        assert!(purges.has_purged(before, &[b, a]) && !purges.has_purged(before, &[b]));
        assert!(!purges.has_purged(ledger.now(), &[a]));
        // A change is no purge.
        let later = ledger.now();
        ledger.invalidate(a);
        assert!(!purges.has_purged(later, &[a]));
        purges.purge_all(ledger.invalidate_all());
        assert!(purges.has_purged(later, &[b]) && !purges.has_purged(ledger.now(), &[b]));
    }

    #[test]
    fn a_purge_that_is_forgotten_counts_for_everything() {
        let ledger = Ledger::new(1 << 10, [1, 2]);
        let [a, b] = ["a", "b"].map(|source| ledger.place(&Scope::Source(source)));
        let mut purges = Purges::default();
        let before = ledger.now();
        purges.purge(&[a], ledger.invalidate(a));
        let between = ledger.now();
        for _ in 0..REMEMBERED {
            purges.purge(&[b], ledger.invalidate(b));
        }
        assert_eq!(purges.places.len(), REMEMBERED);
        assert!(purges.has_purged(before, &[a]));
        assert!(!purges.has_purged(between, &[a]));
    }
}
