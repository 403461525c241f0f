//! What the other replicas have not been told yet.

use std::collections::BTreeMap;

use super::wire::Item;

/// Places that wait at most; more are everything. They fill half a batch.
const MOST: usize = 8_000;

/// Beginnings and ends of writes that wait at most.
const MOST_MOVES: usize = 200;

/// How much was put into the queue until then: whoever waits until it is told waits for this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What waits to be told, each place once: bounded, however long nobody can be told.
#[derive(Debug, Default)]
pub struct Pending {
    ticket: Ticket,
    /// By place: for how many milliseconds it is unsettled, and whether it was purged.
    places: BTreeMap<u32, (u32, bool)>,
    /// Whether everything is, and whether it was purged.
    everything: Option<bool>,
    heard: bool,
    /// Beginnings and ends of writes that change whose sources are, in their order.
    moves: Vec<Item>,
    /// What was sent, and of which nobody knows yet where in the log it is.
    sent: Vec<Item>,
}

impl Pending {
    /// One more change.
    pub fn push(&mut self, item: Item) -> Ticket {
        self.add(item);
        self.ticket.0 += 1;
        self.ticket
    }

    /// All that was pushed until now.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && self.everything.is_none() && !self.heard && self.moves.is_empty()
    }

    /// Everything that waits, to be sent.
    pub fn take(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        if let Some(gone) = self.everything.take() {
            items.push(Item::Everything { gone });
        }
        let mut alike: BTreeMap<(u32, bool), Vec<u32>> = BTreeMap::new();
        for (place, how) in std::mem::take(&mut self.places) {
            alike.entry(how).or_default().push(place);
        }
        items.extend(alike.into_iter().map(|((settle, gone), places)| Item::Places { places, settle, gone }));
        if std::mem::take(&mut self.heard) {
            items.push(Item::Heard);
        }
        items.append(&mut self.moves);
        self.sent.clone_from(&items);
        items
    }

    /// It may not have arrived: it is to be told once more.
    pub fn put_back(&mut self, items: Vec<Item>) {
        self.sent.clear();
        // What has begun or ended since comes after it.
        let later = std::mem::take(&mut self.moves);
        for item in items.into_iter().chain(later) {
            self.add(item);
        }
    }

    /// Where in the log it is what was sent is known, to whoever asks what was told.
    pub fn entered(&mut self) {
        self.sent.clear();
    }

    /// Whether something has changed in these places that is not known to be in the log.
    pub fn is_untold(&self, places: &[u32]) -> bool {
        let is_sent = |item: &Item| match item {
            Item::Places { places: sent, .. } => sent.iter().any(|place| places.contains(place)),
            Item::Everything { .. } => true,
            Item::Heard | Item::Moves { .. } | Item::Moved { .. } => false,
        };
        self.everything.is_some()
            || places.iter().any(|place| self.places.contains_key(place))
            || self.sent.iter().any(is_sent)
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Places { places, settle, gone } => {
                for place in places {
                    let (unsettled, purged) = self.places.entry(place).or_default();
                    (*unsettled, *purged) = (settle.max(*unsettled), *purged || gone);
                }
                if self.places.len() > MOST {
                    // What is unsettled will be asked for as if it were not: a few seconds too early at most.
                    let gone = self.places.values().any(|(_, gone)| *gone);
                    self.places.clear();
                    self.add(Item::Everything { gone });
                }
            }
            Item::Everything { gone } => self.everything = Some(gone || self.everything.unwrap_or_default()),
            Item::Heard => self.heard = true,
            Item::Moves { .. } | Item::Moved { .. } if self.moves.len() < MOST_MOVES => self.moves.push(item),
            // Of whom nobody is told any more everything is out of date, and may be once more when it ends.
            Item::Moves { .. } | Item::Moved { .. } => self.add(Item::Everything { gone: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places: &[u32], settle: u32, gone: bool) -> Item {
        Item::Places { places: places.to_vec(), settle, gone }
    }

    #[test]
    fn a_place_is_told_once_with_the_most_that_was_said_of_it() {
        let mut pending = Pending::default();
        pending.push(places(&[3, 1], 500, false));
        pending.push(places(&[1], 0, true));
        assert_eq!(pending.push(Item::Heard), Ticket(3));
        let told = pending.take();
        assert_eq!(told, [places(&[3], 500, false), places(&[1], 500, true), Item::Heard]);
        assert!(pending.is_empty() && pending.take().is_empty());
        pending.put_back(told.clone());
        assert_eq!((pending.ticket(), pending.take()), (Ticket(3), told), "what comes back is no news");
    }

    #[test]
    fn what_was_sent_is_untold_until_its_place_in_the_log_is_known() {
        let mut pending = Pending::default();
        pending.push(places(&[3], 0, false));
        assert!(pending.is_untold(&[1, 3]) && !pending.is_untold(&[1]));
        let told = pending.take();
        assert!(pending.is_untold(&[3]) && !pending.is_untold(&[1]));
        pending.put_back(told);
        assert!(pending.is_untold(&[3]));
        pending.take();
        pending.push(places(&[4], 0, false));
        pending.entered();
        assert!(!pending.is_untold(&[3]) && pending.is_untold(&[4]), "what came meanwhile goes with the next");
        pending.push(Item::Everything { gone: false });
        assert!(pending.is_untold(&[1]));
        pending.take();
        assert!(pending.is_untold(&[1]));
    }

    #[test]
    fn beginnings_and_ends_stay_in_their_order_and_are_bounded() {
        let mut pending = Pending::default();
        let (begins, ends) =
            (Item::Moves { places: vec![1], at_most: 5, again: false }, Item::Moved { places: vec![1] });
        pending.push(begins.clone());
        let sent = pending.take();
        pending.push(ends.clone());
        assert!(!pending.is_untold(&[1]), "nothing has changed yet");
        pending.put_back(sent);
        assert_eq!(pending.take(), [begins.clone(), ends]);
        for _ in 0..1_000 {
            pending.push(begins.clone());
        }
        let told = pending.take();
        assert_eq!((&told[0], told.len()), (&Item::Everything { gone: false }, MOST_MOVES + 1));
    }

    #[test]
    fn more_than_it_holds_is_everything() {
        let mut pending = Pending::default();
        for place in 0..10_000 {
            pending.push(places(&[place], 0, place == 5));
        }
        let told = pending.take();
        assert_eq!(told[0], Item::Everything { gone: true });
        assert!(matches!(&told[1], Item::Places { places, .. } if places.len() < MOST));
    }
}
