//! What is remembered of the sources that were read last: whose each is, and what reads have last shown of it, so that one
//! read does not hide what another has shown.
//!
//! Neither is more than that: whether it still holds is asked of the ledger, the clock and the writes under way.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::clock;
use super::recent::Recent;
use crate::policy::coherence::beliefs::Belief;
use crate::policy::coherence::ledger::Tick;
use crate::policy::coherence::remembered::Remembered;
use crate::policy::coherence::shown::{AskedAt, Came, Difference, Fact, Shown};
use crate::policy::http::key::Key;
use crate::policy::payload::Marks;

/// Sources that are remembered, 130 to 150 bytes each.
const SOURCES: usize = 200_000;

/// A source as one upstream knows it: what was learned of another one says nothing.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Whose<'a> {
    /// The settings under which the upstream was asked.
    pub fingerprint: u64,
    /// The inbox identifier.
    pub inbox: &'a str,
    /// The contact identifier.
    pub source: &'a str,
}

/// What an answer shows otherwise than others have: which fact, of which conversation, and which is newer.
pub type Differences = Vec<(Fact, Option<u64>, Difference)>;

/// An answer, as far as it is compared with others of its source.
pub struct Compared<'a> {
    /// Of what it is one.
    pub key: &'a Key,
    /// The settings under which it was fetched.
    pub fingerprint: u64,
    /// What it shows.
    pub marks: &'a Marks,
    /// When it was asked for.
    pub asked: AskedAt,
    /// When it had come.
    pub arrived: Came,
}

/// What is remembered of sources. Identifiers are kept as keyed hashes only.
pub struct Sources {
    /// Each as [`Remembered::pack`] makes it.
    packed: Recent<Box<[u8]>>,
    /// The same for each host that was asked, where that is part of a key: whoever asks many makes room in here alone.
    packed_of_hosts: Recent<Box<[u8]>>,
    hasher: RandomState,
    start: Instant,
}

impl Sources {
    /// Nothing is known.
    pub fn new(hasher: RandomState) -> Self {
        Self::of_most(SOURCES, hasher)
    }

    fn of_most(sources: usize, hasher: RandomState) -> Self {
        Self { packed: Recent::new(sources), packed_of_hosts: Recent::new(sources), hasher, start: clock::now() }
    }

    /// Which contact was last shown behind a source, whether or not that still holds.
    pub fn belief(&self, whose: Whose<'_>) -> Option<Belief> {
        self.packed.get(self.hasher.hash_one(whose), |packed| Remembered::belief(packed, self.start))?
    }

    /// A source shows this contact.
    pub fn believe(&self, whose: Whose<'_>, belief: Belief) {
        self.change(whose, None, |known, _| Some(Remembered { belief: Some(belief), ..known.unwrap_or_default() }));
    }

    /// Whose this source is, is not known any more.
    pub fn forget(&self, whose: Whose<'_>) {
        self.change(whose, None, |known, _| Some(Remembered { belief: None, ..known? }));
    }

    /// In which way an answer differs from what other reads of its source have shown; see [`Shown::meet`]. What was shown
    /// under other settings, which have another fingerprint, says nothing. What was forgotten may be something else, if
    /// `others` of its source may be kept.
    pub fn meet(&self, answer: &Compared<'_>, others: impl FnOnce() -> bool) -> Differences {
        self.compare(answer, others, |_| true).unwrap_or_default()
    }

    /// The same of what another replica has fetched: none if it may be older than what was shown here. Then it shows nothing.
    pub fn adopt(&self, answer: &Compared<'_>, others: impl FnOnce() -> bool) -> Option<Differences> {
        let is_newer = |(.., difference): &(_, _, Difference)| *difference == Difference::Newer;
        self.compare(answer, others, |differences| differences.iter().all(is_newer))
    }

    /// None if an answer that differs like this may not be shown.
    fn compare(
        &self,
        answer: &Compared<'_>,
        others: impl FnOnce() -> bool,
        may_be_shown: impl FnOnce(&Differences) -> bool,
    ) -> Option<Differences> {
        let mut found = None;
        let (whose, host) = whose_of(answer.key, answer.fingerprint);
        self.change(whose, host, |known, may_be_forgotten| {
            let Remembered { belief, shown } = known.unwrap_or_default();
            let mut shown = shown.unwrap_or_else(|| unknown(may_be_forgotten, others));
            let differences = shown.meet(answer.marks, answer.key.resource(), answer.asked, answer.arrived);
            found = may_be_shown(&differences).then_some(differences);
            found.is_some().then_some(Remembered { belief, shown: Some(shown) })
        });
        found
    }

    /// An answer to this key still holds, as the upstream says; see [`Shown::holds`].
    pub fn holds(&self, key: &Key, fingerprint: u64, noted: Tick, arrived: Came) -> bool {
        let mut differs = false;
        let (whose, host) = whose_of(key, fingerprint);
        self.change(whose, host, |known, _| {
            let mut source = known?;
            differs = source.shown.as_mut()?.holds(noted, arrived);
            Some(source)
        });
        differs
    }

    /// Puts something in the place of what is known, unless `change` gives nothing. One after the other: of two answers that
    /// come at once one is the last. `change` is told whether other sources were forgotten; this one's facts may have been
    /// before anything else was learned of it.
    fn change(
        &self,
        whose: Whose<'_>,
        host: Option<&str>,
        change: impl FnOnce(Option<Remembered>, bool) -> Option<Remembered>,
    ) {
        let (records, name) = match host {
            None => (&self.packed, self.hasher.hash_one(whose)),
            Some(host) => (&self.packed_of_hosts, self.hasher.hash_one((whose, host))),
        };
        records.change(name, |packed, may_be_forgotten| {
            let known = packed.map(|packed| Remembered::unpack(packed, self.start));
            change(known, may_be_forgotten).map(|remembered| remembered.pack(self.start))
        });
    }
}

fn whose_of(key: &Key, fingerprint: u64) -> (Whose<'_>, Option<&str>) {
    (Whose { fingerprint, inbox: key.inbox(), source: key.contact() }, key.host())
}

/// What was shown of a source of which nothing is known: nothing, or something that was forgotten. That is no matter if none
/// of the `others` is kept; else each fetch would put out of date whoever shares a place with it in the ledger, for nothing.
fn unknown(may_be_forgotten: bool, others: impl FnOnce() -> bool) -> Shown {
    if may_be_forgotten && others() { Shown::forgotten() } else { Shown::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::coherence::ledger::{Ledger, Moment};

    /// Sources that are remembered here: more hosts are asked.
    const SOME: usize = 500;

    #[test]
    fn whose_a_source_is_and_what_it_has_shown_are_kept_apart() {
        let ledger = Ledger::new(1, [1, 2]);
        let sources = Sources::of_most(SOME, RandomState::new());
        let of_all = Key::new("inbox", "contact", None);
        let whose = Whose { fingerprint: 0, inbox: "inbox", source: "contact" };
        let meet_of = |key: &Key, card| {
            let marks = &Marks { card: Some(card), ..Marks::default() };
            let (asked, arrived) = (AskedAt::Here(ledger.own_tick()), Came { tick: ledger.own_tick(), at: Moment(0) });
            sources.meet(&Compared { key, fingerprint: 0, marks, asked, arrived }, || true)
        };
        let meet = |card| meet_of(&of_all, card);
        let belief = Belief { contact: 7, noted: ledger.own_tick(), began: clock::now() };
        let newer = [(Fact::Card, None, Difference::Newer)];
        assert_eq!(meet(1), []);
        sources.forget(whose);
        assert_eq!((sources.belief(whose), &*meet(2)), (None, &newer[..]));
        sources.believe(whose, belief);
        assert_eq!((&*meet(3), sources.belief(whose)), (&newer[..], Some(belief)));
        assert_eq!(sources.belief(Whose { fingerprint: 1, ..whose }), None);
        for host in 0..2 * SOME {
            meet_of(&of_all.for_host(&host.to_string()), 1);
        }
        assert_eq!((meet(3), sources.belief(whose)), (vec![], Some(belief)), "hosts make no room among sources");
        sources.forget(whose);
        assert_eq!((sources.belief(whose), &*meet(4)), (None, &newer[..]));
    }

    #[test]
    fn who_was_forgotten_has_been_shown_something_else_only_if_that_may_be_kept() {
        let ledger = Ledger::new(1, [1, 2]);
        let marks = Marks { card: Some(1), ..Marks::default() };
        let shown = Sources::of_most(1, RandomState::new());
        let meet = |contact: &str, others: bool| {
            let key = &Key::new("inbox", contact, None);
            let (asked, arrived) = (AskedAt::Here(ledger.own_tick()), Came { tick: ledger.own_tick(), at: Moment(0) });
            shown.meet(&Compared { key, fingerprint: 0, marks: &marks, asked, arrived }, || others)
        };
        assert_eq!(meet("first", true), []);
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        for contact in &many {
            assert_eq!(meet(contact, false), []);
        }
        assert_eq!(meet("second", false), []);
        assert_eq!(meet("third", true), [(Fact::Card, None, Difference::Newer)]);
        assert_eq!(meet("third", true), [], "it is known again");
        for contact in &many {
            assert_eq!(meet(contact, false), []);
        }
        // Whose it is, is learned again before what it shows.
        let whose = Whose { fingerprint: 0, inbox: "inbox", source: "third" };
        shown.believe(whose, Belief { contact: 7, noted: ledger.own_tick(), began: clock::now() });
        assert_eq!(meet("third", true), [(Fact::Card, None, Difference::Newer)]);
    }
}
