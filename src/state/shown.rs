//! What reads have last shown of each source, bounded: so that one does not hide what another has shown.

use std::hash::{BuildHasher, RandomState};

use crate::engine::recent::Recent;
use crate::policy::coherence::ledger::Tick;
use crate::policy::coherence::shown::{AskedAt, Came, Difference, Fact, Shown};
use crate::policy::http::key::Key;
use crate::policy::payload::Marks;

/// Sources that are remembered, a few hundred bytes each.
const SOURCES: usize = 100_000;

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

/// What reads have last shown of each source. Identifiers are kept as keyed hashes only.
pub struct LastShown {
    sources: Recent<Shown>,
    hasher: RandomState,
}

impl LastShown {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self::of_most(SOURCES, hasher)
    }

    fn of_most(sources: usize, hasher: RandomState) -> Self {
        Self { sources: Recent::new(sources), hasher }
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
        // One after the other: of two that come at once one is the last.
        self.sources.change(self.name(answer.key, answer.fingerprint), |known, may_be_forgotten| {
            let mut shown = known.unwrap_or_else(|| unknown(may_be_forgotten, others));
            let differences = shown.meet(answer.marks, answer.key.resource(), answer.asked, answer.arrived);
            found = may_be_shown(&differences).then_some(differences);
            found.is_some().then_some(shown)
        });
        found
    }

    /// An answer to this key still holds, as the upstream says; see [`Shown::holds`].
    pub fn holds(&self, key: &Key, fingerprint: u64, noted: Tick, arrived: Came) -> bool {
        let mut differs = false;
        self.sources.change(self.name(key, fingerprint), |known, _| {
            let mut shown = known?;
            differs = shown.holds(noted, arrived);
            Some(shown)
        });
        differs
    }

    fn name(&self, key: &Key, fingerprint: u64) -> u64 {
        self.hasher.hash_one((fingerprint, key.inbox(), key.contact(), key.host()))
    }
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

    #[test]
    fn who_was_forgotten_has_been_shown_something_else_only_if_that_may_be_kept() {
        let ledger = Ledger::new(1, [1, 2]);
        let marks = Marks { card: Some(1), ..Marks::default() };
        let shown = LastShown::of_most(1, RandomState::new());
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
    }
}
