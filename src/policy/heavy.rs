//! Who asks most, within a fixed memory, however many ask: a Misra-Gries sketch that takes off many at once, as that of
//! Apache DataSketches does.

use std::collections::HashMap;
use std::hash::Hash;

/// What is counted of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests, at least; at most [`Heavy::too_few`] more.
    pub requests: u64,
    /// Bytes of their answers, since they are counted.
    pub bytes: u64,
    /// Those that were not from memory, since they are counted.
    pub misses: u64,
}

/// Those who ask most.
#[derive(Debug)]
pub struct Heavy<K> {
    /// So many are counted at most.
    most: usize,
    of: HashMap<K, Counted>,
    too_few: u64,
}

impl<K: Copy + Eq + Hash + Ord> Heavy<K> {
    /// Counts so many at most, two at least.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(2), of: HashMap::new(), too_few: 0 }
    }

    /// One has asked. Takes constant time on average: what makes room makes it for half of all.
    pub fn count(&mut self, who: K, bytes: u64, is_miss: bool) {
        if self.of.len() >= self.most && !self.of.contains_key(&who) {
            self.make_room();
        }
        let counted = self.of.entry(who).or_default();
        counted.requests += 1;
        counted.bytes += bytes;
        counted.misses += u64::from(is_miss);
    }

    /// Takes from everybody what the lesser half has: who has nothing left goes. Who has more than a share of all
    /// requests stays, whoever else comes.
    fn make_room(&mut self) {
        let mut requests: Vec<u64> = self.of.values().map(|counted| counted.requests).collect();
        let middle = requests.len() / 2;
        let (_, taken, _) = requests.select_nth_unstable(middle);
        let taken = *taken;
        self.too_few += taken;
        self.of.retain(|_, counted| {
            counted.requests = counted.requests.saturating_sub(taken);
            counted.requests > 0
        });
    }

    /// By how many the requests of anybody may be counted too few; of who is not there, how many there may have been.
    pub fn too_few(&self) -> u64 {
        self.too_few
    }

    /// How many are counted.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether nobody has asked.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The first of all by this, the greatest first.
    pub fn first(&self, lines: usize, by: impl Fn(&Counted) -> u64) -> Vec<(K, Counted)> {
        let mut all: Vec<(K, Counted)> = self.of.iter().map(|(who, counted)| (*who, *counted)).collect();
        // What is the same is in one order, so that lines do not change places.
        all.sort_unstable_by(|(who, one), (whom, other)| by(other).cmp(&by(one)).then(who.cmp(whom)));
        all.truncate(lines);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_room_is_counted_as_it_is() {
        let mut heavy = Heavy::new(8);
        assert!(heavy.is_empty());
        for (who, bytes, is_miss) in [(1, 10, true), (2, 500, false), (1, 10, false), (3, 5, true), (1, 10, false)] {
            heavy.count(who, bytes, is_miss);
        }
        assert_eq!((heavy.len(), heavy.too_few()), (3, 0));
        let first = heavy.first(2, |counted| counted.requests);
        assert_eq!(
            first,
            [(1, Counted { requests: 3, bytes: 30, misses: 1 }), (2, Counted { requests: 1, bytes: 500, misses: 0 })]
        );
        assert_eq!(heavy.first(1, |counted| counted.bytes)[0].0, 2);
        assert_eq!(heavy.first(9, |counted| counted.misses).iter().map(|(who, _)| *who).collect::<Vec<_>>(), [1, 3, 2]);
    }

    #[test]
    fn whoever_asks_much_is_found_among_any_number_who_ask_little() {
        let mut heavy = Heavy::new(64);
        let mut true_counts = HashMap::<u64, u64>::new();
        let mut ask = |who| {
            heavy.count(who, 1, false);
            *true_counts.entry(who).or_default() += 1;
            assert!(heavy.len() <= 64, "the memory is fixed");
        };
        // Two polls among 20,000 who come once each.
        for step in 0..20_000_u64 {
            ask(1_000 + step);
            if step % 10 == 0 {
                ask(1);
            }
            if step % 20 == 0 {
                ask(2);
            }
        }
        let first = heavy.first(2, |counted| counted.requests);
        assert_eq!(first.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [1, 2]);
        let all: u64 = true_counts.values().sum();
        assert!(heavy.too_few() <= all / 32, "{} of {all}", heavy.too_few());
        for (who, counted) in heavy.first(64, |counted| counted.requests) {
            let truth = true_counts[&who];
            assert!(
                counted.requests <= truth && truth <= counted.requests + heavy.too_few(),
                "{who}: {counted:?} of {truth}"
            );
        }
    }
}
