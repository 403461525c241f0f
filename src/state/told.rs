//! What other replicas tell is obeyed here, and they are told of what has changed here.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::invalidation::Invalidation;
use crate::engine::clock;
use crate::engine::metrics::InvalidationSource;
use crate::engine::replicas::fleet::{Fleet, Told};
use crate::engine::replicas::settings::CutOff;
use crate::policy::coherence::beliefs::Elsewhere;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Of, Place};
use crate::policy::coherence::reach::Reach;
use crate::policy::replicas::known::Told as Entries;
use crate::policy::replicas::pending::Ticket;
use crate::policy::replicas::wire::Item;

/// The longest that another replica may say that something goes on changing.
const LONGEST_SETTLE: Duration = Duration::from_secs(600);
/// Time between two log lines that tell of changes which the others could not be told of.
const UNTOLD_EVERY: Duration = Duration::from_secs(10);

/// For how long a write that may change whose sources are is believed to be under way if nobody tells of its end.
const MOVING: Duration = Duration::from_secs(60);

/// Where the telling stood when something began that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    ticket: Ticket,
    /// How many writes in other replicas were known that may change whose sources are.
    heard: u64,
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl Invalidation {
    /// A part of the log was missed, or lost with all that was told before (`anew`): everything is out of date once.
    pub fn lost(&self, anew: bool, told: &Entries) {
        if anew {
            self.elsewhere().begin_anew();
        }
        self.goes_on(told);
        if anew {
            self.tell_moves_again();
        }
        self.outdate_all(Cause::Replica);
        // After that: a write that begins just now sees the one or is known to the other.
        self.identities.missed(anew);
    }

    /// What was told before this replica came may go on changing: for as long as was said then, since nobody knows when that
    /// was.
    fn goes_on(&self, told: &Entries) {
        // The last one comes first.
        for (seq, item) in told.iter().rev().flat_map(|(seq, items)| items.iter().map(move |item| (*seq, item))) {
            match item {
                Item::Places { places, settle, .. } => drop(self.unsettle(places, *settle)),
                Item::Moves { .. } | Item::Moved { .. } => self.obey(seq, item.clone()),
                Item::Everything { .. } | Item::Heard => {}
            }
        }
    }

    /// A write begins that may change whose sources these are: until it ends others, too, reach with a change of one of them
    /// all of them, and believe nothing new of whose they are.
    pub fn tell_moves(&self, write: u64, identities: &[Place], contacts: &[u64]) {
        if self.fleet.is_none() {
            return;
        }
        let scopes = contacts.iter().flat_map(|contact| Reach::EVERYTHING.scopes(Of::Contact(*contact), None));
        let made_from = scopes.map(|scope| self.ledger.place(&scope));
        let places: Vec<u32> = identities.iter().copied().chain(made_from).map(Place::number).collect();
        self.identities.write_tells(write, &places);
        self.tell_move(places, false);
    }

    /// And has ended.
    pub fn tell_moved(&self, places: Vec<u32>) {
        if !places.is_empty() {
            self.tell_item(Cause::Write, || Item::Moved { places });
        }
    }

    /// The log has lost what was told of writes that are still under way.
    fn tell_moves_again(&self) {
        for places in self.identities.told() {
            self.tell_move(places, true);
        }
    }

    fn tell_move(&self, places: Vec<u32>, again: bool) {
        self.tell_item(Cause::Write, || Item::Moves { places, at_most: millis(MOVING), again });
    }

    /// None: it goes on from a log that was lost.
    fn moves_elsewhere(&self, seq: Option<u64>, places: &[u32], at_most: u32) {
        let at_most = Duration::from_millis(at_most.into()).min(LONGEST_SETTLE);
        let now = clock::now();
        let until = self.epoch.moment_after(now, at_most);
        let (places, now) = (self.known_places(places), self.epoch.moment(now));
        match seq {
            Some(seq) => self.elsewhere().begins(places, seq, now, until),
            None => self.elsewhere().goes_on(places, now, until),
        }
    }

    fn known_places(&self, numbers: &[u32]) -> Vec<Place> {
        numbers.iter().filter_map(|number| self.ledger.place_of(*number)).collect()
    }

    /// What writes under way in other replicas may change.
    pub fn moving_elsewhere(&self) -> Vec<Place> {
        if self.fleet.is_none() { Vec::new() } else { self.elsewhere().places(self.epoch.moment(clock::now())) }
    }

    /// Whether one is under way that may change one of these.
    pub fn is_moving_elsewhere(&self, places: &[Place]) -> bool {
        self.fleet.is_some() && self.elsewhere().is_moving(places, self.epoch.moment(clock::now()))
    }

    /// An own entry of the log has come: which writes under way it tells of.
    pub fn entered(&self, seq: u64, items: &[Item]) {
        for item in items {
            if let Item::Moves { places, .. } = item {
                self.identities.entered(places, seq);
            }
        }
    }

    /// Whether it is another replica's turn that may change the same as this write, which the others were told of.
    pub fn is_behind(&self, write: u64) -> bool {
        let now = self.epoch.moment(clock::now());
        self.fleet.is_some() && self.identities.is_behind(write, &self.elsewhere(), now)
    }

    /// Waits until no write is under way, here or elsewhere, that may change one of these.
    pub async fn come_to_rest(&self, identities: &[Place]) {
        self.identities.come_to_rest(|| self.is_moving(identities)).await;
    }

    /// Waits until all those writes have ended, here and elsewhere, which are under way now and merge contacts into ones whom
    /// only their answers name.
    pub async fn merges_end(&self) {
        let here = self.identities.to_unknown();
        let elsewhere = self.merging_elsewhere();
        let is_under_way = || {
            let still = self.merging_elsewhere();
            self.identities.is_under_way(&here) || elsewhere.iter().any(|number| still.contains(number))
        };
        self.identities.come_to_rest(is_under_way).await;
    }

    /// The writes under way in other replicas that may do so: they do not tell who is merged into whom.
    fn merging_elsewhere(&self) -> Vec<u64> {
        if self.fleet.is_none() { Vec::new() } else { self.elsewhere().numbers(self.epoch.moment(clock::now())) }
    }

    fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in these places may go on changing for so many milliseconds. Gives the places.
    fn unsettle(&self, places: &[u32], settle: u32) -> Vec<Place> {
        let places = self.known_places(places);
        let settle = Duration::from_millis(settle.into()).min(LONGEST_SETTLE);
        if !settle.is_zero() {
            let until = self.epoch.moment_after(clock::now(), settle);
            for place in &places {
                self.ledger.unsettle(*place, until);
            }
        }
        places
    }

    /// Obeys what another replica tells in this entry of the log.
    pub fn obey(&self, seq: u64, item: Item) {
        match item {
            Item::Places { places, settle, gone } => {
                let places = self.unsettle(&places, settle);
                if gone {
                    self.purge(&places, Cause::Replica);
                } else {
                    for place in places {
                        self.outdate_here(place, Cause::Replica);
                    }
                }
            }
            Item::Everything { gone: true } => self.purge_all(Cause::Replica),
            Item::Everything { gone: false } => {
                self.outdate_all(Cause::Replica);
            }
            Item::Heard => return self.watermark.heard(self.epoch.moment(clock::now())),
            Item::Moves { places, at_most, again } => {
                return self.moves_elsewhere((!again).then_some(seq), &places, at_most);
            }
            Item::Moved { places } => {
                let places = self.known_places(&places);
                let began = self.elsewhere().ends(&places);
                return self.identities.ended_elsewhere(&places, began);
            }
        }
        self.metrics.invalidated(InvalidationSource::Replica);
    }

    /// What the other replicas were to be told until now, and had told; none if there are no others.
    pub fn ticket(&self) -> Option<Before> {
        self.fleet.as_ref().map(|fleet| Before { ticket: fleet.ticket(), heard: self.elsewhere().heard() })
    }

    /// Whether what the others could not be told of is not acknowledged.
    pub fn refuses_untold(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.settings.cut_off == CutOff::Refuse)
    }

    /// Waits until the other replicas know of all that has changed since then, so that it may be acknowledged. False if they
    /// could not be told in time.
    pub async fn told_since(&self, before: Option<Before>) -> bool {
        let Some(fleet) = &self.fleet else { return true };
        let ticket = fleet.ticket();
        if before.is_some_and(|before| before.ticket == ticket) {
            return true;
        }
        if !self.told(fleet, ticket).await {
            return false;
        }
        // By now all is known that came before it in the log: who was about to be merged, and may be whom it was about.
        let missed = before.map(|before| self.elsewhere().heard_since(before.heard)).unwrap_or_default();
        if missed.is_empty() {
            return true;
        }
        for place in missed {
            self.outdate(place, Cause::Write);
        }
        self.told(fleet, fleet.ticket()).await
    }

    async fn told(&self, fleet: &Fleet, ticket: Ticket) -> bool {
        let began = clock::now();
        let told = fleet.told(ticket).await;
        let metrics = &self.metrics.replicas;
        let waited = clock::since(began).as_secs_f64();
        match told {
            Told::Settled => metrics.waits[0].observe(waited),
            Told::Timer => metrics.waits[1].observe(waited),
            Told::CutOff => {
                metrics.untold.inc();
                if self.untold.takes(self.epoch.moment(clock::now()), UNTOLD_EVERY) {
                    tracing::warn!(
                        "acknowledged what the other replicas could not be told of; they are told as soon as Redis answers"
                    );
                }
            }
        }
        told != Told::CutOff
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;
    use std::sync::Arc;

    use super::*;
    use crate::engine::clock::Epoch;
    use crate::engine::metrics::Metrics;
    use crate::engine::replicas::settings::ReplicasSettings;

    #[test]
    fn when_the_log_begins_anew_a_write_that_waits_for_its_turn_begins_anew() {
        let fleet = Arc::new(Fleet::new(ReplicasSettings::of_nobody("a secret", "anteroom")));
        let invalidation =
            Invalidation::new(Epoch::begin(), &RandomState::new(), Some(fleet), Arc::new(Metrics::new()));
        let places = invalidation.identity_places("a", 7);
        let numbers = places.map(Place::number).to_vec();
        let moves = |again| Item::Moves { places: numbers.clone(), at_most: 60_000, again };
        let begins = |seq| {
            let write = invalidation.identities.move_begins(&places, &[], true).expect("it is its turn here");
            invalidation.tell_moves(write, &places, &[]);
            invalidation.entered(seq, &[moves(false)]);
            write
        };
        let first = begins(20);
        invalidation.obey(21, moves(false));
        assert!(!invalidation.is_behind(first));
        invalidation.lost(false, &Entries::new());
        assert!(invalidation.is_behind(first), "it missed what came before it");
        invalidation.identities.write_ends(first, &[]);
        let noted = invalidation.ledger.now();
        let second = begins(22);
        invalidation.lost(true, &Entries::new());
        assert!(invalidation.is_behind(second) && !invalidation.ledger.is_current(noted, &[]));
        invalidation.identities.write_ends(second, &[]);
        let third = begins(1);
        assert!(invalidation.is_behind(third), "the other one is not known to have ended");
        invalidation.obey(2, moves(true));
        assert!(invalidation.is_behind(third), "it goes on, and began before");
        invalidation.obey(3, Item::Moved { places: numbers.clone() });
        assert!(invalidation.is_behind(third), "it ended meanwhile");
        invalidation.identities.write_ends(third, &[]);
        assert!(!invalidation.is_behind(begins(4)) && invalidation.moving_elsewhere().is_empty());
    }
}
