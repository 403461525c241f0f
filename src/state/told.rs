//! What other replicas tell is obeyed here, and they are told of what has changed here.

use std::time::Duration;

use super::invalidation::Invalidation;
use crate::engine::clock;
use crate::engine::metrics::InvalidationSource;
use crate::engine::replicas::fleet::Told;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::Place;
use crate::policy::replicas::known::Told as Entries;
use crate::policy::replicas::pending::Ticket;
use crate::policy::replicas::wire::Item;

/// The longest that another replica may say that something goes on changing.
const LONGEST_SETTLE: Duration = Duration::from_secs(600);
/// Time between two log lines that tell of changes which the others could not be told of.
const UNTOLD_EVERY: Duration = Duration::from_secs(10);

impl Invalidation {
    /// What was told before this replica came may go on changing: for as long as was said then, since nobody knows when that
    /// was.
    pub fn goes_on(&self, told: &Entries) {
        for item in told.iter().flat_map(|(_, items)| items) {
            if let Item::Places { places, settle, .. } = item {
                self.unsettle(places, *settle);
            }
        }
    }

    /// What is in these places may go on changing for so many milliseconds. Gives the places.
    fn unsettle(&self, places: &[u32], settle: u32) -> Vec<Place> {
        let places: Vec<Place> = places.iter().filter_map(|number| self.ledger.place_of(*number)).collect();
        let settle = Duration::from_millis(settle.into()).min(LONGEST_SETTLE);
        if !settle.is_zero() {
            let until = self.epoch.moment_after(clock::now(), settle);
            for place in &places {
                self.ledger.unsettle(*place, until);
            }
        }
        places
    }

    /// Obeys what another replica tells.
    pub fn obey(&self, item: Item) {
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
        }
        self.metrics.invalidated(InvalidationSource::Replica);
    }

    /// What the other replicas were to be told until now; none if there are no others.
    pub fn ticket(&self) -> Option<Ticket> {
        self.fleet.as_ref().map(|fleet| fleet.ticket())
    }

    /// Waits until the other replicas know of all that has changed since this ticket, so that it may be acknowledged. False
    /// if they could not be told in time.
    pub async fn told_since(&self, before: Option<Ticket>) -> bool {
        let Some(fleet) = &self.fleet else { return true };
        let ticket = fleet.ticket();
        if Some(ticket) == before {
            return true;
        }
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
