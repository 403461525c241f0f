//! What a replica knows of the fleet's log besides what its ledger says: in which entry each place was last told. By that
//! it can tell whether an answer which another replica has fetched, and which names the entry it knew of when its fetch
//! began, is older than a change.

use super::exchange::{Epoch, Micros};
use super::wire::Item;

/// How far a fetch knew the log when it began: whatever was told until then had happened before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The history of the log.
    pub epoch: Epoch,
    /// The last entry that was applied.
    pub seq: u64,
}

/// Why an answer of another replica is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is from another history of the log.
    Epoch,
    /// Something that it was made from has changed since its fetch began, or may have.
    Outdated,
}

/// What the entries of an epoch tell: each with its number.
pub type Told = Vec<(u64, Vec<Item>)>;

/// Bits of a place's number in its row; those above count epochs.
const SEQ_BITS: u32 = 48;
const SEQ: u64 = (1 << SEQ_BITS) - 1;

/// In which entry of the log each place was last told.
pub struct Known {
    epoch: Option<Epoch>,
    ordinal: u64,
    applied: u64,
    /// All entries after this one are known.
    complete: u64,
    /// The last entry that told of everything.
    everything: u64,
    /// The epoch's ordinal and the entry.
    places: Box<[u64]>,
}

impl Known {
    /// Nothing is known yet of so many places.
    pub fn new(places: usize) -> Self {
        Self { epoch: None, ordinal: 0, applied: 0, complete: 0, everything: 0, places: vec![0; places].into() }
    }

    /// All that is known is of this epoch from here on: the entries after `complete`, up to the last one. To be called
    /// before the ledger puts everything out of date.
    pub fn begin(&mut self, epoch: Epoch, complete: u64, last: u64, told: &Told) {
        if self.epoch != Some(epoch) {
            self.ordinal = (self.ordinal + 1) & (u64::MAX >> SEQ_BITS);
            if self.ordinal == 0 {
                // The ordinals come again.
                self.places.fill(0);
            }
            (self.epoch, self.everything) = (Some(epoch), 0);
        }
        self.complete = complete;
        for (seq, items) in told {
            self.note(*seq, items);
        }
        self.applied = last;
    }

    /// An entry tells of this. To be called before the ledger hears of it: whoever sees the change there sees this, too.
    pub fn note(&mut self, seq: u64, items: &[Item]) {
        let row = self.ordinal << SEQ_BITS | seq & SEQ;
        for item in items {
            match item {
                Item::Places { places, .. } => {
                    for place in places {
                        if let Some(told) = self.places.get_mut(*place as usize) {
                            *told = row.max(if *told >> SEQ_BITS == self.ordinal { *told } else { 0 });
                        }
                    }
                }
                Item::Everything { .. } => self.everything = self.everything.max(seq),
                // Of what may follow nothing has changed yet.
                Item::Heard | Item::Moves { .. } | Item::Moved { .. } => {}
            }
        }
    }

    /// The ledger has heard of all up to this entry.
    pub fn applied(&mut self, seq: u64) {
        self.applied = self.applied.max(seq);
    }

    /// What a fetch that begins now knows; none before the first exchange.
    pub fn stamp(&self) -> Option<Stamp> {
        Some(Stamp { epoch: self.epoch?, seq: self.applied })
    }

    /// An answer that is made from these places knows at least this entry, or it is of no use.
    pub fn least(&self, places: impl IntoIterator<Item = u32>) -> u64 {
        let of_place = |place: u32| match self.places.get(place as usize) {
            Some(told) if told >> SEQ_BITS == self.ordinal => told & SEQ,
            Some(_) => 0,
            // There is no such place: nothing is good enough.
            None => SEQ,
        };
        places.into_iter().map(of_place).max().unwrap_or(0).max(self.complete).max(self.everything)
    }

    /// Whether an answer whose fetch knew so much, and which is made from these places, is older than a change in the log.
    pub fn refuses(&self, stamp: Stamp, places: impl IntoIterator<Item = u32>) -> Option<Refused> {
        if self.epoch != Some(stamp.epoch) {
            return Some(Refused::Epoch);
        }
        (self.least(places) > stamp.seq).then_some(Refused::Outdated)
    }
}

/// What time Redis has, as far as the last exchange tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetTime {
    /// What it said, in milliseconds.
    pub said: u64,
    /// Which of its clocks that was: another one after it was set back.
    pub clock: u64,
    /// When it was asked and when the answer was there, on the clock of this machine.
    pub asked: Micros,
    /// The second.
    pub got: Micros,
}

impl FleetTime {
    /// No later than what it has at this moment, which is after the exchange: in milliseconds.
    pub fn earliest(&self, at: Micros) -> u64 {
        let since = at.saturating_sub(self.got);
        self.said + (since - since / 100) / 1000
    }

    /// No earlier.
    pub fn latest(&self, at: Micros) -> u64 {
        let since = at.saturating_sub(self.asked);
        self.said + (since + since / 100) / 1000 + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Epoch = [1; 16];

    fn places(places: &[u32]) -> Vec<Item> {
        vec![Item::Places { places: places.to_vec(), settle: 0, gone: false }]
    }

    fn at(epoch: Epoch, seq: u64) -> Stamp {
        Stamp { epoch, seq }
    }

    #[test]
    fn an_answer_is_good_if_its_fetch_knew_every_change_to_what_it_is_made_from() {
        let mut known = Known::new(8);
        assert!(known.stamp().is_none() && known.refuses(at(ONE, 5), [1]) == Some(Refused::Epoch));
        known.begin(ONE, 3, 5, &vec![(4, places(&[1])), (5, places(&[2]))]);
        assert_eq!(known.stamp(), Some(at(ONE, 5)));
        for (seq, of, refused) in [
            (2, vec![7], Some(Refused::Outdated)), // What came before 3 is not known.
            (3, vec![7], None),
            (3, vec![7, 1], Some(Refused::Outdated)),
            (4, vec![7, 1], None),
            (4, vec![1, 2], Some(Refused::Outdated)),
            (9, vec![1, 2], None),                 // Another one may be further.
            (5, vec![8], Some(Refused::Outdated)), // There is no such place.
        ] {
            assert_eq!(known.refuses(at(ONE, seq), of.clone()), refused, "{seq} {of:?}");
        }
        known.note(6, &[Item::Heard, Item::Everything { gone: false }]);
        assert_eq!((known.refuses(at(ONE, 5), [7]), known.refuses(at(ONE, 6), [7])), (Some(Refused::Outdated), None));
        known.note(9, &places(&[1]));
        known.note(8, &places(&[1]));
        assert_eq!(known.least([1]), 9, "they may come in any order");
    }

    #[test]
    fn of_another_epoch_nothing_counts() {
        let mut known = Known::new(4);
        known.begin(ONE, 0, 9, &vec![(9, places(&[1]))]);
        known.begin([2; 16], 0, 1, &vec![(1, places(&[2]))]);
        assert_eq!((known.least([1]), known.least([2])), (0, 1));
        assert_eq!(known.refuses(at(ONE, 99), [3]), Some(Refused::Epoch));
        // As many epochs as ordinals: the first row is not taken for one of the last.
        for _ in 0..(1 << 16) - 1 {
            let other = if known.stamp().is_some_and(|stamp| stamp.epoch == ONE) { [2; 16] } else { ONE };
            known.begin(other, 0, 0, &Told::new());
        }
        assert_eq!(known.least([0, 1, 2, 3]), 0);
    }

    #[test]
    fn the_time_of_redis_lies_between_what_it_may_be() {
        let time = FleetTime { said: 1_000, clock: 0, asked: 10_000, got: 14_000 };
        assert!(time.earliest(14_000) <= 1_000 && time.latest(14_000) >= 1_004);
        assert!(time.earliest(1_014_000) <= 1_990 && time.latest(1_014_000) >= 2_014);
    }
}
