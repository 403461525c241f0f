//! The list: from memory if it is there and good, else by a flight that others may share; or past the cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;
use tower::retry::budget::Budget;

use crate::engine::body::{Body, Watched};
use crate::engine::clock;
use crate::engine::flights::{Departure, Joined, Landing, Lost};
use crate::engine::metrics::{Ending, Raised, ToldBy};
use crate::engine::store::Entry;
use crate::fetch::Fetch;
use crate::landed::{Failure, Landed};
use crate::outcome::Outcome;
use crate::policy::encoding::{Coding, encode, negotiate};
use crate::policy::freshness::{Freshness, Lifetimes, judge, ttl};
use crate::policy::key::Key;
use crate::policy::ledger::Tick;
use crate::policy::representation::suit_origin;
use crate::policy::route::BypassReason;
use crate::proxy::{Answered, Asked, status_of};
use crate::room::Room;
use crate::staleness::Flown;

/// A failing upstream is asked at most this often for one key that has an answer to stand in.
const BACK_OFF: Duration = Duration::from_secs(1);
/// A body longer than this is not put into a coding by a thread that serves others.
const WORK_ASIDE: usize = 64 * 1024;

impl Asked {
    /// The list: from memory if it is there and good, else by a flight.
    pub(crate) async fn list(mut self, mut key: Key) -> Answered {
        // Noted before anything is looked at: what was acknowledged before this reader came has an earlier tick.
        let arrived = self.room.ledger.now();
        let now = clock::now();
        let mut kept = self.kept(&key);
        let mut missing = "uri-miss";
        if kept.as_ref().is_some_and(|entry| !entry.answer.serves(&self.head.headers)) {
            // The upstream tells origins apart: this reader's has answers of its own.
            match self.key_of_origin(&key) {
                Some(own) => (kept, key, missing) = (self.kept(&own), own, "vary-miss"),
                None => return self.bypass(&key, BypassReason::Origin).await,
            }
        }
        if let Some(entry) = &kept {
            let lifetimes = self.room.lifetimes(&self.live, now);
            if self.room.is_current(entry) {
                match judge(entry.aging(now), &lifetimes) {
                    Freshness::Fresh => {
                        self.audit(&key, entry);
                        return self.serve_kept(&key, Ending::Hit, entry, &lifetimes, now).await;
                    }
                    Freshness::Stale => {
                        self.refresh_behind(&key, entry, now);
                        return self.serve_kept(&key, Ending::Stale, entry, &lifetimes, now).await;
                    }
                    Freshness::OnlyOnError if !self.may_ask_again(&key, entry, now) => {
                        return self.stand_in(&key, entry, now).await;
                    }
                    Freshness::OnlyOnError | Freshness::TooOld => {}
                }
            } else if self.live.config.serve_outdated_on_error
                && judge(entry.aging(now), &lifetimes) != Freshness::TooOld
                && !self.may_ask_again(&key, entry, now)
            {
                return self.stand_in(&key, entry, now).await;
            }
        }
        if let Some(why) = self.room.unshareable.get(&key) {
            return self.alone(&key, why).await;
        }
        let reason = if kept.is_some() { "stale" } else { missing };
        self.wait(key, arrived, reason).await
    }

    fn kept(&self, key: &Key) -> Option<Arc<Entry>> {
        self.room.store.get(key).filter(|entry| entry.fingerprint == self.live.fingerprint)
    }

    /// The key of this reader's origin; none if it is not one that can be compared.
    fn key_of_origin(&self, key: &Key) -> Option<Key> {
        let origin = self.head.headers.get(header::ORIGIN)?.to_str().ok()?;
        (!origin.is_empty() && key.origin().is_none()).then(|| key.for_origin(origin))
    }

    async fn serve_kept(
        &self,
        key: &Key,
        ending: Ending,
        entry: &Arc<Entry>,
        lifetimes: &Lifetimes,
        now: Instant,
    ) -> Answered {
        let aging = entry.aging(now);
        self.room.metrics.answer_age.observe((entry.initial_age + aging.age).as_secs_f64());
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let left = seconds(ttl(&aging, lifetimes)).saturating_sub(seconds(aging.age));
        (self.respond(key, entry, now).await, Outcome::from_memory(ending, left))
    }

    async fn stand_in(&self, key: &Key, entry: &Arc<Entry>, now: Instant) -> Answered {
        let lifetimes = self.room.lifetimes(&self.live, now);
        let (response, outcome) = self.serve_kept(key, Ending::Stale, entry, &lifetimes, now).await;
        (response, outcome.detail("upstream-failing"))
    }

    async fn respond(&self, key: &Key, entry: &Arc<Entry>, now: Instant) -> Response<Body> {
        let coded = self.coded(key, entry).await;
        let mut response = entry.answer.respond(&self.head.method, &self.head.headers, coded);
        let age = entry.initial_age + now.saturating_duration_since(entry.began);
        response.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
        response.map(Body::from)
    }

    /// The body in the coding this reader gets: made once, when it is first asked for.
    async fn coded(&self, key: &Key, entry: &Arc<Entry>) -> Option<(Coding, Bytes)> {
        let settings = &self.live.config.encoding;
        let accepted = negotiate(&self.head.headers, &settings.offer);
        let coding = accepted.coding?;
        let body = &entry.answer.body;
        if (body.len() as u64) < settings.min_size && !accepted.refuses_identity {
            return None;
        }
        if entry.answer.is_held_by(&self.head.headers) {
            // The head of the form it stands for; there is no body to be made.
            return Some((coding, Bytes::new()));
        }
        let is_of_use =
            |coded: Bytes| (coded.len() < body.len() || accepted.refuses_identity).then_some((coding, coded));
        let cell = entry.coded(coding);
        if let Some(coded) = cell.get() {
            return is_of_use(coded.clone()?);
        }
        let mut is_new = false;
        let make = async {
            // Too many are being made: this reader gets the plain body. Held until the work ends, which goes on if
            // the reader leaves.
            let permit = self.room.encoding.clone().try_acquire_owned().map_err(drop)?;
            is_new = true;
            let (live, body) = (self.live.clone(), body.clone());
            let aside = body.len() >= WORK_ASIDE;
            let work = move || {
                let _permit = permit;
                encode(&body, coding, &live.config.encoding).ok()
            };
            let coded = if aside { tokio::task::spawn_blocking(work).await.ok().flatten() } else { work() };
            Ok::<_, ()>(coded.and_then(|coded| self.room.memory.adopt(coded.into()).ok()))
        };
        let coded = cell.get_or_try_init(|| make).await.ok()?.clone();
        if is_new {
            self.room.store.reweigh(key, entry);
        }
        is_of_use(coded?)
    }

    /// Starts a flight nobody waits for, unless one is under way or the upstream is to be left alone.
    fn refresh_behind(&self, key: &Key, entry: &Arc<Entry>, now: Instant) {
        if self.may_ask_again(key, entry, now) {
            drop(self.join(key, false, |_, noted| self.is_current_path(key, noted)));
        }
    }

    /// Whether the upstream may be asked for what there is an answer of: if it failed the last time, at most once a
    /// second for this key, and for all keys together within the budget.
    fn may_ask_again(&self, key: &Key, entry: &Entry, now: Instant) -> bool {
        let Some(until) = entry.failed_until() else { return true };
        let waited = until <= self.room.epoch.moment(now);
        waited && !self.room.flights.is_under_way(key) && self.room.retries.withdraw()
    }

    fn is_current_path(&self, key: &Key, noted: Tick) -> bool {
        self.room.ledger.is_current(noted, &self.room.path_places(key))
    }

    /// Joins the flight of a key, or begins one: `instead` of one that this reader has given up on, which is out of
    /// date from then on. Only who begins says so, else each of those who gave up would do away with the new one.
    fn join(&self, key: &Key, instead: bool, is_joinable: impl FnOnce(u64, Tick) -> bool) -> Joined<Landed> {
        let settled = || {
            let entry = self.kept(key)?;
            let now = clock::now();
            let lifetimes = self.room.lifetimes(&self.live, now);
            let fresh = judge(entry.aging(now), &lifetimes) == Freshness::Fresh;
            let current = fresh && self.room.is_current(&entry);
            let status = entry.answer.status;
            let landed = Landed::Answer { entry, status, kept: true, only_early: false };
            current.then_some(landed)
        };
        let depart = || {
            if instead {
                self.room.outdate_list(key, ToldBy::Flight);
            }
            self.depart(key, None)
        };
        self.room.flights.join(key, is_joinable, settled, depart)
    }

    /// Begins a flight; an audit has its `permit` already.
    pub(crate) fn depart(
        &self,
        key: &Key,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Departure<impl Future<Output = Landed> + Send + use<>, impl FnOnce(Landing, Option<&Landed>) + Send + use<>>
    {
        let noted = self.room.ledger.now();
        // In this order: whoever still gets the settings from before a reload has noted a tick from before it.
        let live = self.room.live();
        let captured = self.room.store.get(key);
        let flown = Flown {
            room: self.room.clone(),
            live: live.clone(),
            key: key.clone(),
            captured: captured.clone(),
            audits: permit.is_some(),
        };
        let fetch = Fetch {
            room: self.room.clone(),
            live,
            key: key.clone(),
            noted,
            captured,
            peer: self.forwarded_for(),
            permit,
        };
        let landing = move |landing: Landing, landed: Option<&Landed>| {
            // A failed audit is no reason to spare the upstream a reader's fetch later.
            let to_be_spared = flown.captured.as_deref().filter(|_| !flown.audits);
            land(&flown.room, &flown.key, to_be_spared, landing, landed);
            flown.landed(landed);
        };
        Departure { noted, fetch: fetch.run(), landing }
    }

    /// Waits for a flight, and for a second one if the first cannot serve this reader.
    async fn wait(mut self, mut key: Key, arrived: Tick, reason: &'static str) -> Answered {
        let wait = self.live.config.flights.wait;
        let mut given_up = None;
        let mut served_badly = false;
        loop {
            let joined = self.join(&key, given_up.is_some(), |id, noted| {
                let good = if served_badly { noted >= arrived } else { self.is_current_path(&key, noted) };
                good && given_up != Some(id)
            });
            let (mut ticket, collapsed) = match joined {
                Joined::Led(ticket) => (ticket, false),
                Joined::Followed(ticket) => (ticket, true),
                Joined::Settled(Landed::Answer { entry, .. }) if entry.answer.serves(&self.head.headers) => {
                    let now = clock::now();
                    let lifetimes = self.room.lifetimes(&self.live, now);
                    return self.serve_kept(&key, Ending::Hit, &entry, &lifetimes, now).await;
                }
                Joined::Settled(_) => {
                    let Some(own) = self.key_of_origin(&key) else {
                        return self.bypass(&key, BypassReason::Origin).await;
                    };
                    key = own;
                    continue;
                }
                Joined::Crowded => {
                    return self.without_answer(&key, "too-many-waiters", StatusCode::SERVICE_UNAVAILABLE).await;
                }
            };
            let waiting = Raised::new(&self.room.metrics.waiters);
            let landed = ticket.wait(wait).await;
            drop(waiting);
            let ending = if collapsed { Ending::Joined } else { Ending::Miss };
            let outcome = Outcome::forwarded(ending, reason);
            match landed {
                Ok(Landed::Answer { entry, status, kept, only_early }) => {
                    let early = arrived <= ticket.noted;
                    if !early && (only_early || !self.room.is_current(&entry)) && !served_badly {
                        served_badly = true;
                        continue;
                    }
                    if !entry.answer.serves(&self.head.headers) {
                        let Some(own) = self.key_of_origin(&key) else {
                            return self.bypass(&key, BypassReason::Origin).await;
                        };
                        key = own;
                        continue;
                    }
                    let outcome = outcome.status(status).stored(kept && !collapsed).collapsed(collapsed);
                    return (self.respond(&key, &entry, clock::now()).await, outcome);
                }
                Ok(Landed::Private(private)) => {
                    // What it was made from is not known: only for a reader who came before its fetch began.
                    let taken = if arrived <= ticket.noted { private.take() } else { None };
                    let for_one_origin = key.origin().is_some();
                    let taken = taken.and_then(|mut response| {
                        suit_origin(response.headers_mut(), &self.head.headers, for_one_origin).then_some(response)
                    });
                    let Some(response) = taken else {
                        let why = private.why;
                        // It holds a place among the fetches at once as long as anybody may still take it.
                        drop((ticket, private));
                        return self.alone(&key, why).await;
                    };
                    let outcome = outcome.status(response.status()).detail(private.why);
                    return (self.as_passed(response), outcome);
                }
                Ok(Landed::Failed(failure)) => return self.after_failure(&key, &failure, reason).await,
                Err(Lost::Dropped) => {
                    return self.without_answer(&key, "fetch-ended", StatusCode::INTERNAL_SERVER_ERROR).await;
                }
                Err(Lost::WaitedLongEnough) => {
                    self.room.metrics.flight_ends.with_label_values(&["waiter_deadline"]).inc();
                    let stands_in = self.room.stand_in(&self.live, &key, clock::now()).is_some();
                    if stands_in || given_up.is_some() {
                        return self.without_answer(&key, "waited-too-long", StatusCode::GATEWAY_TIMEOUT).await;
                    }
                    given_up = Some(ticket.id);
                }
            }
        }
    }

    /// The upstream failed: the last good answer, if there is one that may stand in, else what went wrong.
    async fn after_failure(&self, key: &Key, failure: &Failure, reason: &'static str) -> Answered {
        let now = clock::now();
        if let Some(entry) =
            self.room.stand_in(&self.live, key, now).filter(|entry| entry.answer.serves(&self.head.headers))
        {
            return self.stand_in(key, &entry, now).await;
        }
        let outcome = Outcome::forwarded(Ending::Failed, reason);
        match failure {
            Failure::Upstream(error) => {
                (self.problem(status_of(*error), &error.to_string()), outcome.detail(error.label()))
            }
            Failure::Answered(answer) => {
                let mut response = answer.respond(&self.head.method, &self.head.headers, None).map(Body::from);
                // It is no older than this request.
                response.headers_mut().remove(header::AGE);
                (response, outcome.status(answer.status))
            }
            Failure::BreaksContract(first) => {
                let detail = format!("the upstream's list breaks the published contract: {first}");
                (self.problem(StatusCode::BAD_GATEWAY, &detail), outcome.detail("breaks-contract"))
            }
        }
    }

    /// No flight could serve this reader.
    async fn without_answer(&self, key: &Key, detail: &'static str, status: StatusCode) -> Answered {
        let now = clock::now();
        match self.room.stand_in(&self.live, key, now).filter(|entry| entry.answer.serves(&self.head.headers)) {
            Some(entry) => self.stand_in(key, &entry, now).await,
            None => (
                self.problem(status, "the list could not be fetched in time; try again"),
                Outcome::own(Ending::Failed).detail(detail),
            ),
        }
    }

    /// A list whose answers cannot be shared: everyone asks alone, but no more at once than `upstream.max_in_flight`.
    async fn alone(&mut self, key: &Key, why: &'static str) -> Answered {
        let acquire = self.room.in_flight.clone().acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(self.live.config.flights.wait, acquire).await else {
            let problem =
                self.problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests for lists that cannot be shared");
            return (problem, Outcome::own(Ending::Failed).detail("too-many-in-flight"));
        };
        let outcome = Outcome::forwarded(Ending::Miss, "uri-miss").detail(why);
        match self.send_on(None).await {
            Ok(response) => {
                self.note_passing_list(key, &response);
                let outcome = outcome.status(response.status());
                let response = response.map(|body| Body::stream(Watched::guarded(body, permit)));
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// A list that may not be shared: passed on, and compared with what is kept.
    pub(crate) async fn bypass(&mut self, key: &Key, reason: BypassReason) -> Answered {
        self.room.metrics.bypass.with_label_values(&[reason.label()]).inc();
        let outcome = Outcome::forwarded(Ending::Bypass, "bypass").detail(reason.label());
        match self.send_on(None).await {
            Ok(response) => {
                self.note_passing_list(key, &response);
                let outcome = outcome.status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Whoever sees this list must not see an older one afterwards: if it differs from what is kept, or from what may
    /// be about to land, that is out of date.
    fn note_passing_list(&self, key: &Key, response: &Response<Body>) {
        // A 404 is an answer, too.
        if !matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED | StatusCode::NOT_FOUND) {
            return;
        }
        let seen = response.headers().get(header::ETAG);
        let outdates = |key: &Key| {
            // In this order: a flight stores its answer before it is no longer under way.
            let under_way = self.room.flights.is_under_way(key);
            let kept = self.room.store.get(key);
            under_way || kept.is_some_and(|kept| seen.is_none() || kept.answer.upstream_etag() != seen)
        };
        if outdates(key) || self.key_of_origin(key).is_some_and(|own| outdates(&own)) {
            self.room.outdate_list(key, ToldBy::Bypass);
        }
    }
}

/// What follows from a flight's end, before anybody has what it brought. If it failed, the upstream is to be spared
/// another one for this entry for a while.
fn land(room: &Room, key: &Key, to_be_spared: Option<&Entry>, landing: Landing, landed: Option<&Landed>) {
    let label = match (landing, landed) {
        (Landing::Arrived { superseded: true }, _) => "superseded",
        (Landing::Arrived { superseded: false }, Some(landed)) => landed.label(),
        (Landing::Arrived { .. } | Landing::Dropped, _) => "dropped",
    };
    room.metrics.flight_ends.with_label_values(&[label]).inc();
    if landing == (Landing::Arrived { superseded: true }) {
        // Its readers may see something newer than what its successor brought, though it began earlier.
        room.outdate_list(key, ToldBy::Flight);
    }
    if !matches!(landed, None | Some(Landed::Failed(_))) {
        room.retries.deposit();
    } else if let Some(entry) = to_be_spared {
        entry.failed(room.epoch.moment_after(clock::now(), BACK_OFF));
    }
}
