//! What reads have last shown of a source: whoever sees something newer in one of them shall not see less in another.
//!
//! Two answers that show the same thing differently were not made at the same time. The one that was asked for after the
//! other had come is the newer one; of two that were under way at once nobody knows which is.

use super::ledger::{Moment, Tick};
use crate::policy::payload::Marks;
use crate::policy::resource::Resource;

/// What more than one read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The newest message of a conversation.
    Newest,
    /// The status of a conversation, and who has seen it when.
    State,
    /// The contact's name and addresses.
    Card,
    /// When the contact last changed.
    Record,
}

/// How an answer stands to what was shown before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It shows something newer.
    Newer,
    /// It shows something else, which may be newer or older.
    Either,
}

/// When an answer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Came {
    /// In the order of what happens here.
    pub tick: Tick,
    /// By the clock: for what happens elsewhere.
    pub at: Moment,
}

/// When an answer was asked for.
#[derive(Clone, Copy, Debug)]
pub enum AskedAt {
    /// From here.
    Here(Tick),
    /// By another replica, at the earliest.
    Elsewhere(Moment),
}

impl AskedAt {
    /// Whether that was after another answer had come.
    fn is_after(self, came: Came) -> bool {
        match self {
            Self::Here(noted) => noted > came.tick,
            Self::Elsewhere(began) => began > came.at,
        }
    }
}

/// A fact that was shown, and when that answer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) about: About,
    pub(super) shows: u64,
    pub(super) arrived: Came,
}

/// Which fact, and of which conversation: 0 is the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About(pub(super) u64);

impl About {
    fn new(fact: Fact, conversation: Option<u64>) -> Self {
        Self(conversation.unwrap_or(0) << 2 | fact as u64)
    }

    fn is(self, fact: Fact) -> bool {
        self.0 & 3 == fact as u64
    }

    fn conversation(self) -> u64 {
        self.0 >> 2
    }
}

/// What is shown of a conversation that a list does not have.
const MISSING: u64 = u64::MAX;
/// Facts that are remembered of one source at most: those of 64 conversations.
const REMEMBERED: usize = 130;

/// What is known of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub(super) known: Vec<Known>,
    /// When the last list came: it shows all conversations.
    pub(super) listed: Option<Came>,
    /// When the last answer came that showed something else than one before it.
    pub(super) differed: Option<Tick>,
    /// When the upstream last said of an answer that it still holds: it may be any of those that are known.
    pub(super) confirmed: Option<Came>,
    /// Some of what was shown is not known any more.
    pub(super) is_partial: bool,
}

impl Shown {
    /// Of somebody of whom something was shown, and forgotten.
    pub fn forgotten() -> Self {
        Self { is_partial: true, ..Self::default() }
    }

    /// Compares an answer with what was shown before; what it shows is known from then on.
    pub fn meet(
        &mut self,
        marks: &Marks,
        resource: Resource,
        asked: AskedAt,
        arrived: Came,
    ) -> Vec<(Fact, Option<u64>, Difference)> {
        let mut differences = Vec::new();
        let of_contact = [(Fact::Card, marks.card), (Fact::Record, marks.record)];
        let of_contact = of_contact.into_iter().filter_map(|(fact, shows)| Some((fact, None, shows?)));
        let of_conversations = marks.conversations.iter().flat_map(|marks| {
            let conversation = marks.display.or(resource.conversation());
            [(Fact::Newest, Some(marks.newest)), (Fact::State, marks.state)]
                .into_iter()
                .filter_map(move |(fact, shows)| Some((fact, Some(conversation?), shows?)))
        });
        let is_list = resource == Resource::Conversations;
        let missing = if is_list && !marks.is_partial { self.not_in(marks) } else { Vec::new() };
        let missing = missing.into_iter().map(|display| (Fact::Newest, Some(display), MISSING));
        for (fact, conversation, shows) in of_contact.chain(of_conversations).chain(missing) {
            let difference = self.know(Known { about: About::new(fact, conversation), shows, arrived }, asked);
            differences.extend(difference.map(|difference| (fact, conversation, difference)));
        }
        if !differences.is_empty() {
            self.differed = Some(arrived.tick);
        }
        if is_list {
            self.listed = self.listed.max(Some(arrived));
        }
        differences
    }

    /// The conversations that were shown, and are not in this list.
    fn not_in(&self, list: &Marks) -> Vec<u64> {
        let known = self.known.iter().filter(|known| known.about.is(Fact::Newest) && known.shows != MISSING);
        let is_there = |display: &u64| list.conversations.iter().any(|marks| marks.display == Some(*display));
        known.map(|known| known.about.conversation()).filter(|display| !is_there(display)).collect()
    }

    /// The upstream says of a kept answer that it still holds (304): what it shows is not looked at. Whether something else
    /// was shown since it was asked: then nobody knows which is newer.
    pub fn holds(&mut self, noted: Tick, arrived: Came) -> bool {
        self.confirmed = Some(arrived);
        self.differed.is_some_and(|differed| differed >= noted)
    }

    fn know(&mut self, new: Known, asked: AskedAt) -> Option<Difference> {
        if let Some(known) = self.known.iter_mut().find(|known| known.about == new.about) {
            let before = std::mem::replace(known, new);
            known.arrived = before.arrived.max(new.arrived);
            let came = self.confirmed.map_or(before.arrived, |confirmed| confirmed.max(before.arrived));
            let difference = if asked.is_after(came) { Difference::Newer } else { Difference::Either };
            return (before.shows != new.shows).then_some(difference);
        }
        if self.known.len() < REMEMBERED {
            self.known.push(new);
        } else {
            self.is_partial = true;
        }
        // If all is known that was shown, nobody has been shown anything else; but a list without this conversation.
        let came = self.listed.filter(|_| new.about.is(Fact::Newest) || new.about.is(Fact::State));
        let of_list = came.map(|came| if asked.is_after(came) { Difference::Newer } else { Difference::Either });
        of_list.or(self.is_partial.then_some(Difference::Newer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::coherence::ledger::Ledger;
    use crate::policy::payload::ConversationMarks;

    const LIST: Resource = Resource::Conversations;

    fn came(ledger: &Ledger) -> Came {
        let tick = ledger.own_tick();
        Came { tick, at: Moment(0) }
    }

    fn asked(ledger: &Ledger) -> AskedAt {
        AskedAt::Here(ledger.own_tick())
    }

    fn marks(card: u64, newest: &[(Option<u64>, u64)]) -> Marks {
        let of = |(display, newest): &(Option<u64>, u64)| ConversationMarks {
            display: *display,
            state: None,
            newest: *newest,
        };
        Marks { card: Some(card), record: None, conversations: newest.iter().map(of).collect(), is_partial: false }
    }

    #[test]
    fn what_was_asked_for_later_is_newer_and_what_met_on_its_way_may_be_either() {
        let ledger = Ledger::new(1, [1, 2]);
        let mut shown = Shown::default();
        let early = ledger.own_tick();
        let list = marks(1, &[(Some(7), 70), (Some(8), 80)]);
        assert_eq!(shown.meet(&list, LIST, asked(&ledger), came(&ledger)), []);
        assert_eq!(
            shown.meet(&list, LIST, AskedAt::Here(early), came(&ledger)),
            [],
            "the same, whenever it was asked for"
        );
        // A page of messages does not name its conversation.
        let page = marks(1, &[(None, 71)]);
        let newest = |difference| vec![(Fact::Newest, Some(7), difference)];
        assert_eq!(shown.meet(&page, Resource::Messages(7), asked(&ledger), came(&ledger)), newest(Difference::Newer));
        assert_eq!(shown.meet(&page, Resource::Messages(7), asked(&ledger), came(&ledger)), []);
        assert_eq!(shown.meet(&list, LIST, AskedAt::Here(early), came(&ledger)), newest(Difference::Either));
        let renamed = marks(2, &[]);
        let card = [(Fact::Card, None, Difference::Newer)];
        assert_eq!(shown.meet(&renamed, Resource::Contact, asked(&ledger), came(&ledger)), card);
    }

    #[test]
    fn what_still_holds_may_be_older_than_what_was_shown_meanwhile() {
        let ledger = Ledger::new(1, [1, 2]);
        let mut shown = Shown::default();
        let (old, new) = (marks(1, &[(Some(7), 70)]), marks(1, &[(Some(7), 71)]));
        shown.meet(&old, LIST, asked(&ledger), came(&ledger));
        let noted = ledger.own_tick();
        assert!(!shown.holds(noted, came(&ledger)));
        assert_eq!(
            shown.meet(&new, LIST, AskedAt::Here(noted), came(&ledger))[0].2,
            Difference::Either,
            "both were under way"
        );
        assert!(shown.holds(noted, came(&ledger)));
        assert!(!shown.holds(ledger.own_tick(), came(&ledger)));
    }

    #[test]
    fn a_list_shows_all_conversations() {
        let ledger = Ledger::new(1, [1, 2]);
        let mut shown = Shown::default();
        let early = ledger.own_tick();
        let (empty, one) = (marks(1, &[]), marks(1, &[(Some(7), 70)]));
        assert_eq!(shown.meet(&empty, LIST, asked(&ledger), came(&ledger)), []);
        let newest = |difference| vec![(Fact::Newest, Some(7), difference)];
        let of_one = Resource::Conversation(7);
        assert_eq!(shown.meet(&one, of_one, asked(&ledger), came(&ledger)), newest(Difference::Newer));
        assert_eq!(
            shown.meet(&empty, LIST, AskedAt::Here(early), came(&ledger)),
            newest(Difference::Either),
            "both were under way"
        );
        assert_eq!(shown.meet(&empty, LIST, asked(&ledger), came(&ledger)), [], "it is gone");
        assert_eq!(shown.meet(&one, of_one, AskedAt::Here(early), came(&ledger)), newest(Difference::Either));
    }

    #[test]
    fn what_was_asked_for_elsewhere_is_newer_by_the_clock() {
        let ledger = Ledger::new(1, [1, 2]);
        let mut shown = Shown::default();
        let came = |at| Came { tick: ledger.own_tick(), at: Moment(at) };
        shown.meet(&marks(1, &[]), Resource::Contact, asked(&ledger), came(100));
        for (began, difference) in [(101, Difference::Newer), (100, Difference::Either), (99, Difference::Either)] {
            let mut shown = shown.clone();
            let differences =
                shown.meet(&marks(2, &[]), Resource::Contact, AskedAt::Elsewhere(Moment(began)), came(200));
            assert_eq!(differences, [(Fact::Card, None, difference)], "{began}");
        }
    }

    #[test]
    fn what_is_not_remembered_counts_as_something_else() {
        let ledger = Ledger::new(1, [1, 2]);
        let mut shown = Shown::default();
        let long: Vec<_> = (0..REMEMBERED as u64 + 5).map(|display| (Some(display), 1)).collect();
        shown.meet(&marks(1, &long), LIST, asked(&ledger), came(&ledger));
        assert_eq!(shown.known.len(), REMEMBERED);
        let last = marks(1, &long[REMEMBERED + 4..]);
        let differs = [(Fact::Newest, Some(REMEMBERED as u64 + 4), Difference::Newer)];
        assert_eq!(
            shown.meet(&last, Resource::Conversation(REMEMBERED as u64 + 4), asked(&ledger), came(&ledger)),
            differs
        );
        let forgotten = Shown::forgotten().meet(&marks(1, &[]), Resource::Contact, asked(&ledger), came(&ledger));
        assert_eq!(forgotten, [(Fact::Card, None, Difference::Newer)]);
    }
}
