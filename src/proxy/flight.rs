//! Flights of lists: joined, begun, and what follows from their end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetch::{Purpose, Fetch};
use super::request::ClientRequest;
use super::staleness::Refetch;
use crate::engine::clock;
use crate::engine::fetch_result::{ErrorAnswer, Failure, FetchResult};
use crate::engine::flights::{FlightEnd, Interest, Joined, NewFlight};
use crate::engine::metrics::InvalidationSource;
use crate::engine::refusals::Refusal;
use crate::engine::store::Entry;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::coherence::ledger::{Moment, Tick};
use crate::policy::http::attempts::{Attempt, Failed, PAUSE};
use crate::policy::http::freshness::{Freshness, judge};
use crate::policy::http::key::Key;
use crate::policy::http::representation::Prepared;
use crate::policy::http::via::chain;

/// How a fetch begins.
type Fetching = Box<dyn FnOnce(Interest<FetchResult>) -> Pin<Box<dyn Future<Output = FetchResult> + Send>>>;
/// What follows from its end.
type Landing = Box<dyn FnOnce(FlightEnd, Option<&FetchResult>) + Send>;

impl ClientRequest {
    pub(crate) fn stored(&self, key: &Key) -> Option<Arc<Entry>> {
        self.state.cache.store.get(key).filter(|entry| entry.fingerprint == self.active.fingerprint)
    }

    /// Starts a flight nobody waits for, unless one is under way or the upstream is to be left alone.
    pub(crate) fn refresh_behind(&self, key: &Key, entry: &Arc<Entry>, now: Instant) {
        if self.may_ask_again(key, entry, now) {
            drop(self.join_or_begin(key, false, Purpose::Behind, |_, noted| self.is_current_path(key, noted)));
        }
    }

    /// Whether the upstream may be asked for what there is an answer of. If it failed the last time, and nothing has
    /// come from it since: at most once in a while for this key, and for all keys together within the budget.
    pub(crate) fn may_ask_again(&self, key: &Key, entry: &Entry, now: Instant) -> bool {
        match self.attempt_again(key, entry, now) {
            Attempt::AsUsual => true,
            Attempt::Probe => !self.state.cache.flights.is_under_way(key) && self.state.upstream.may_probe(),
            Attempt::NotYet => false,
        }
    }

    /// The same, without taking anything of the budget.
    pub(super) fn attempt_again(&self, key: &Key, entry: &Entry, now: Instant) -> Attempt {
        if self.active.upstream.health().is_left_alone() {
            return Attempt::NotYet;
        }
        let upstream = &self.state.upstream;
        let now = self.state.invalidation.epoch.moment(now);
        let mut refusals = upstream.refusals.met(key, || self.forwarded_for());
        if refusals.any(|refusal| self.holds(&refusal, now)) {
            return Attempt::NotYet;
        }
        upstream.attempt(entry.failure(), now)
    }

    /// The refusal that this reader gets instead of a fetch, and how long it still holds: the upstream said for how long
    /// it cannot, or will not for him.
    pub(crate) fn refused_already(&self, key: &Key, now: Instant) -> Option<(Arc<Prepared>, Duration)> {
        let moment = self.state.invalidation.epoch.moment(now);
        let mut refusals = self.state.upstream.refusals.met(key, || self.forwarded_for());
        refusals.find_map(|refusal| {
            let answer = refusal.answer.as_ref().filter(|_| self.holds(&refusal, moment))?;
            let Moment(left) = refusal.failed.until();
            Some((answer.clone(), Duration::from_millis(left.saturating_sub(moment.0))))
        })
    }

    fn holds(&self, refusal: &Refusal, now: Moment) -> bool {
        let attempt = self.state.upstream.attempt(Some(refusal.failed), now);
        refusal.fingerprint == self.active.fingerprint && attempt == Attempt::NotYet
    }

    pub(crate) fn is_current_path(&self, key: &Key, noted: Tick) -> bool {
        self.state.invalidation.ledger.is_current(noted, &self.state.invalidation.path_places(key))
    }

    /// Joins the flight of a key, or begins one: `instead` of one that this reader has given up on, which is out of
    /// date from then on. Only who begins says so, else each of those who gave up would do away with the new one.
    pub(crate) fn join_or_begin(
        &self,
        key: &Key,
        instead: bool,
        purpose: Purpose,
        is_joinable: impl FnOnce(u64, Tick) -> bool,
    ) -> Joined<FetchResult> {
        let settled = || {
            let entry = self.stored(key)?;
            let now = clock::now();
            let lifetimes = self.state.lifetimes(&self.active, now);
            let fresh = judge(entry.aging(now), &lifetimes) == Freshness::Fresh;
            let current = fresh && self.state.invalidation.is_current(&entry) && self.may_have_kept(&entry, now);
            let status = entry.answer.status;
            let result = FetchResult::Answer { entry, status, stored: true, only_early: false };
            current.then_some(result)
        };
        let begin = || {
            if instead {
                self.state.invalidation.invalidate_list(key, InvalidationSource::Flight);
            }
            self.begin(key, purpose)
        };
        self.state.cache.flights.join(key, is_joinable, settled, begin)
    }

    /// Begins a flight.
    pub(crate) fn begin(&self, key: &Key, purpose: Purpose) -> NewFlight<Fetching, Landing> {
        self.state.invalidation.asked_for(key);
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
            audits: matches!(purpose, Purpose::Audit(_)),
        };
        let fetch = Fetch {
            state: self.state.clone(),
            active,
            key: key.clone(),
            noted,
            captured,
            peer: self.client(),
            chain: chain(&self.head.headers),
            client: self.client_network(),
            purpose,
            span: self.traced.as_ref().map(|traced| traced.fetch(key)),
        };
        let on_end = move |on_end: FlightEnd, result: Option<&FetchResult>| {
            land(&refetch, on_end, result);
            refetch.result(result);
        };
        let fetch: Fetching = Box::new(move |interest| Box::pin(fetch.run(interest)));
        NewFlight { noted, fetch, on_end: Box::new(on_end) }
    }
}

/// What follows from a flight's end, before anybody has what it brought.
fn land(flight: &Refetch, on_end: FlightEnd, result: Option<&FetchResult>) {
    let Refetch { state, key, .. } = flight;
    let superseded = on_end == FlightEnd::Arrived { superseded: true };
    let label = match (on_end, result) {
        (FlightEnd::Arrived { superseded }, Some(result)) if !superseded || matches!(result, FetchResult::NotSent) => {
            result.label()
        }
        (FlightEnd::Arrived { superseded: true }, _) => "superseded",
        (FlightEnd::Arrived { .. } | FlightEnd::Dropped, _) => "dropped",
    };
    state.metrics.flight_ends.with_label_values(&[label]).inc();
    if superseded && !matches!(result, Some(FetchResult::NotSent)) {
        // Its readers may see something newer than what its successor brought, though it began earlier.
        state.invalidation.invalidate_list(key, InvalidationSource::Flight);
    }
    match result {
        Some(FetchResult::Answer { .. } | FetchResult::Private(_)) => {
            state.upstream.succeeded();
            state.upstream.refusals.forget(key);
        }
        // Nothing was asked.
        Some(FetchResult::NotSent | FetchResult::Adopted(_) | FetchResult::Failed(Failure::Upstream(UpstreamError::Spared(_)))) => {}
        Some(FetchResult::Failed(Failure::Answered(error))) => spare_after(flight, error),
        Some(FetchResult::Failed(_)) | None => spare(flight),
    }
}

/// The upstream is to be spared another fetch for the captured entry for a while. A failed audit is no reason to spare it
/// a reader's fetch.
fn spare(Refetch { state, captured, audits, .. }: &Refetch) {
    if *audits {
        return;
    }
    let (epoch, now) = (&state.invalidation.epoch, clock::now());
    let judge = |earlier| state.upstream.failed(earlier, epoch.moment(now), epoch.moment_after(now, PAUSE));
    match captured {
        Some(entry) => entry.failed(judge),
        None => drop(judge(None)),
    }
}

/// The same after an answer that is an error: for as long as the upstream said, and for whom it was.
fn spare_after(flight: &Refetch, error: &ErrorAnswer) {
    let Refetch { state, active, key, captured, .. } = flight;
    if error.asker.is_none() {
        spare(flight);
    }
    // A refusal that says for how long it holds is for readers without another answer, too.
    let pause = match (error.retry_after, &error.asker) {
        (Some(told), _) => told,
        (None, Some(_)) if captured.is_some() => PAUSE,
        (None, _) => return,
    };
    let (epoch, now) = (&state.invalidation.epoch, clock::now());
    let until = epoch.moment_after(now, pause);
    let failed = if error.asker.is_some() {
        Failed::for_one_asker(until)
    } else {
        let earlier = state.upstream.refusals.of_all(key).map(|refusal| refusal.failed);
        state.upstream.failed(earlier, epoch.moment(now), until)
    };
    let answer = error.retry_after.map(|_| error.answer.clone());
    state.upstream.refusals.note(key, error.asker.clone(), Refusal { failed, fingerprint: active.fingerprint, answer });
}
