//! Flights of lists: joined, begun, and what follows from their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tower::retry::budget::Budget;

use super::fetch::Fetch;
use super::request::ClientRequest;
use super::staleness::Refetch;
use crate::engine::clock;
use crate::engine::fetch_result::FetchResult;
use crate::engine::flights::{FlightEnd, Joined, NewFlight};
use crate::engine::metrics::InvalidationSource;
use crate::engine::store::Entry;
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::freshness::{Freshness, judge};
use crate::policy::http::key::Key;
use crate::state::State;

/// A failing upstream is asked at most this often for one key that has an answer to stand in.
const BACK_OFF: Duration = Duration::from_secs(1);

impl ClientRequest {
    pub(crate) fn stored(&self, key: &Key) -> Option<Arc<Entry>> {
        self.state.cache.store.get(key).filter(|entry| entry.fingerprint == self.active.fingerprint)
    }

    /// Starts a flight nobody waits for, unless one is under way or the upstream is to be left alone.
    pub(crate) fn refresh_behind(&self, key: &Key, entry: &Arc<Entry>, now: Instant) {
        if self.may_ask_again(key, entry, now) {
            drop(self.join(key, false, |_, noted| self.is_current_path(key, noted)));
        }
    }

    /// Whether the upstream may be asked for what there is an answer of: if it failed the last time, at most once a
    /// second for this key, and for all keys together within the budget.
    pub(crate) fn may_ask_again(&self, key: &Key, entry: &Entry, now: Instant) -> bool {
        let Some(until) = entry.failed_until() else { return true };
        let waited = until <= self.state.invalidation.epoch.moment(now);
        waited && !self.state.cache.flights.is_under_way(key) && self.state.upstream.retries.withdraw()
    }

    pub(crate) fn is_current_path(&self, key: &Key, noted: Tick) -> bool {
        self.state.invalidation.ledger.is_current(noted, &self.state.invalidation.path_places(key))
    }

    /// Joins the flight of a key, or begins one: `instead` of one that this reader has given up on, which is out of
    /// date from then on. Only who begins says so, else each of those who gave up would do away with the new one.
    pub(crate) fn join(&self, key: &Key, instead: bool, is_joinable: impl FnOnce(u64, Tick) -> bool) -> Joined<FetchResult> {
        let settled = || {
            let entry = self.stored(key)?;
            let now = clock::now();
            let lifetimes = self.state.lifetimes(&self.active, now);
            let fresh = judge(entry.aging(now), &lifetimes) == Freshness::Fresh;
            let current = fresh && self.state.invalidation.is_current(&entry);
            let status = entry.answer.status;
            let result = FetchResult::Answer { entry, status, stored: true, only_early: false };
            current.then_some(result)
        };
        let begin = || {
            if instead {
                self.state.invalidation.invalidate_list(key, InvalidationSource::Flight);
            }
            self.begin(key, None)
        };
        self.state.cache.flights.join(key, is_joinable, settled, begin)
    }

    /// Begins a flight; an audit has its `permit` already.
    pub(crate) fn begin(
        &self,
        key: &Key,
        permit: Option<OwnedSemaphorePermit>,
    ) -> NewFlight<impl Future<Output = FetchResult> + Send + use<>, impl FnOnce(FlightEnd, Option<&FetchResult>) + Send + use<>>
    {
        // Its own: of two answers to one list it says which was asked for later.
        let noted = self.state.invalidation.ledger.own_tick();
        // In this order: whoever still gets the settings from before a reload has noted a tick from before it.
        let active = self.state.active();
        let captured = self.state.cache.store.get(key);
        let refetch = Refetch {
            state: self.state.clone(),
            active: active.clone(),
            key: key.clone(),
            captured: captured.clone(),
            audits: permit.is_some(),
        };
        let fetch = Fetch {
            state: self.state.clone(),
            active,
            key: key.clone(),
            noted,
            captured,
            peer: self.forwarded_for(),
            permit,
        };
        let on_end = move |on_end: FlightEnd, result: Option<&FetchResult>| {
            // A failed audit is no reason to spare the upstream a reader's fetch later.
            let to_be_spared = refetch.captured.as_deref().filter(|_| !refetch.audits);
            land(&refetch.state, &refetch.key, to_be_spared, on_end, result);
            refetch.result(result);
        };
        NewFlight { noted, fetch: fetch.run(), on_end }
    }
}

/// What follows from a flight's end, before anybody has what it brought. If it failed, the upstream is to be spared
/// another one for this entry for a while.
fn land(state: &State, key: &Key, to_be_spared: Option<&Entry>, on_end: FlightEnd, result: Option<&FetchResult>) {
    let label = match (on_end, result) {
        (FlightEnd::Arrived { superseded: true }, _) => "superseded",
        (FlightEnd::Arrived { superseded: false }, Some(result)) => result.label(),
        (FlightEnd::Arrived { .. } | FlightEnd::Dropped, _) => "dropped",
    };
    state.metrics.flight_ends.with_label_values(&[label]).inc();
    if on_end == (FlightEnd::Arrived { superseded: true }) {
        // Its readers may see something newer than what its successor brought, though it began earlier.
        state.invalidation.invalidate_list(key, InvalidationSource::Flight);
    }
    if !matches!(result, None | Some(FetchResult::Failed(_))) {
        state.upstream.retries.deposit();
    } else if let Some(entry) = to_be_spared {
        entry.failed(state.invalidation.epoch.moment_after(clock::now(), BACK_OFF));
    }
}
