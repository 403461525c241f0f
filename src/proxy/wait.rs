//! A reader who waits for a flight, and for a second one if the first cannot serve him.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Response, StatusCode, header};

use super::fetch::Purpose;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::fetch_result::{ErrorAnswer, Failure, FetchResult, Private};
use crate::engine::flights::{Joined, Lost, Ticket};
use crate::engine::metrics::{Ending, Limit, Raised};
use crate::engine::store::Entry;
use crate::engine::upstream::error::{Spared, UpstreamError, Why};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::attempts::is_for_now;
use crate::policy::http::key::Key;
use crate::policy::http::representation::{Prepared, suit_origin};
use crate::policy::http::route::BypassReason;

/// So many others may be refused before a reader asks alone: then it is hardly about them, and each shall have his own
/// answer without waiting for all the others'.
const OTHERS_REFUSED: u32 = 3;

/// How long a reader waits, for whatever: a place, another's fetch, a second one, or to ask alone.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Then he begins another flight instead of one that has brought nothing: after two thirds, so that a third is left
    /// for it. With the defaults that is later than the API itself gives up, so what still works is not asked twice.
    patience: Instant,
    /// Then he gets something.
    pub(crate) deadline: Instant,
}

impl Limits {
    /// Those of a reader who arrived then.
    pub(crate) fn from(arrival: Instant, wait: Duration) -> Self {
        Self { patience: arrival + wait * 2 / 3, deadline: arrival + wait }
    }
}

/// What a waiting reader knows.
pub(crate) struct Waiting {
    pub(crate) key: Key,
    /// The tick of his arrival: what was acknowledged before it, he must see.
    arrived: Tick,
    /// Why his request is forwarded (RFC 9211 section 2.2).
    reason: &'static str,
    pub(crate) limits: Limits,
    /// The flight that he has given up on; what it may still bring first is as good.
    given_up: Option<Boarded>,
    /// A flight has brought him what was out of date: now only one that began after his arrival is good.
    was_outdated: bool,
    /// How many flights have brought an answer that was about somebody else.
    others_refused: u32,
}

/// A flight that a reader waits for.
struct Boarded {
    ticket: Ticket<FetchResult>,
    /// It was another who began it.
    collapsed: bool,
}

impl Waiting {
    pub(crate) fn new(key: Key, arrived: Tick, reason: &'static str, limits: Limits) -> Self {
        Self { key, arrived, reason, limits, given_up: None, was_outdated: false, others_refused: 0 }
    }

    /// Waits for a flight; and for the one given up on, if that brings an answer first. Gives the one that has landed.
    async fn landing(&mut self, mut boarded: Boarded) -> (Boarded, Result<FetchResult, Lost>) {
        let Limits { patience, deadline } = self.limits;
        let left = |until: Instant| until.saturating_duration_since(clock::now());
        let Some(mut first) = self.given_up.take() else {
            let mut landed = boarded.ticket.wait(left(patience)).await;
            // Another one would be sent no sooner.
            if matches!(landed, Err(Lost::WaitedLongEnough)) && !boarded.ticket.was_sent() {
                landed = boarded.ticket.wait(left(deadline)).await;
            }
            return (boarded, landed);
        };
        tokio::select! {
            landed = boarded.ticket.wait(left(deadline)) => {
                self.given_up = Some(first);
                (boarded, landed)
            }
            Ok(answer @ (FetchResult::Answer { .. } | FetchResult::Adopted(_))) = first.ticket.wait(left(deadline)) => (first, Ok(answer)),
        }
    }
}

/// The reader's answer, or another round.
type Next = ControlFlow<Answered>;

impl ClientRequest {
    /// Waits for flights until one has served this reader, or his limit has passed.
    pub(crate) async fn wait(mut self, mut waiting: Waiting) -> Answered {
        loop {
            if self.alone.is_some() {
                self.wait_for_earlier(&waiting).await;
            }
            let next = match self.join_as(&waiting) {
                Joined::Led(ticket) => self.await_flight(&mut waiting, Boarded { ticket, collapsed: false }).await,
                Joined::Followed(ticket) => {
                    if let Some(traced) = &self.traced {
                        traced.waits_for(&waiting.key);
                    }
                    self.await_flight(&mut waiting, Boarded { ticket, collapsed: true }).await
                }
                Joined::Settled(result) => self.take_settled(&mut waiting, result).await,
                Joined::Crowded => Break(self.without_place(&waiting.key, Limit::MaxWaiters).await),
            };
            if let Break(answered) = next {
                return answered;
            }
        }
    }

    /// Without a lease only a flight that begins after this reader came is good for him. One that is under way ends first, so
    /// that there is no more than one at a time: all who wait for its end share the next.
    async fn wait_for_earlier(&self, waiting: &Waiting) {
        let is_earlier = |noted: Tick| noted < waiting.arrived;
        if waiting.given_up.is_none()
            && let Some(mut ticket) = self.state.cache.flights.under_way_if(&waiting.key, is_earlier)
        {
            let _is_waiting = Raised::new(&self.state.metrics.waiters);
            let left = waiting.limits.patience.saturating_duration_since(clock::now());
            let _ = self.tally.waiting(ticket.wait(left)).await;
        }
    }

    fn join_as(&self, waiting: &Waiting) -> Joined<FetchResult> {
        let given_up = waiting.given_up.as_ref().map(|boarded| boarded.ticket.id);
        let only_later = waiting.was_outdated || self.alone.is_some();
        let purpose = if only_later { Purpose::ForReadersNow } else { Purpose::ForReaders };
        self.join_or_begin(&waiting.key, given_up.is_some(), purpose, |id, noted| {
            let good = if only_later { noted >= waiting.arrived } else { self.is_current_path(&waiting.key, noted) };
            good && given_up != Some(id)
        })
    }

    /// An answer had come meanwhile, fresh and current.
    async fn take_settled(&mut self, waiting: &mut Waiting, result: FetchResult) -> Next {
        match result {
            FetchResult::Answer { entry, .. } if entry.answer.serves(&self.head.headers) => {
                let now = clock::now();
                let lifetimes = self.state.lifetimes(&self.active, now);
                Break(self.serve_stored(&waiting.key, Ending::Hit, &entry, &lifetimes, now).await)
            }
            _ => self.ask_for_own_origin(waiting).await,
        }
    }

    async fn await_flight(&mut self, waiting: &mut Waiting, boarded: Boarded) -> Next {
        let is_waiting = Raised::new(&self.state.metrics.waiters);
        let tally = self.tally.clone();
        let (boarded, landed) = tally.waiting(waiting.landing(boarded)).await;
        drop(is_waiting);
        let Boarded { ref ticket, collapsed } = boarded;
        let ending = if collapsed { Ending::Joined } else { Ending::Miss };
        let outcome = Outcome::forwarded(ending, waiting.reason);
        match landed {
            Ok(FetchResult::Answer { entry, status, stored, only_early }) => {
                let outcome = outcome.status(status).stored(stored && !collapsed).collapsed(collapsed);
                self.take_answer(waiting, ticket.noted, &entry, only_early, outcome).await
            }
            Ok(FetchResult::Adopted(entry)) => self.take_adopted(waiting, &entry).await,
            Ok(FetchResult::Private(private)) => self.take_private(waiting, boarded.ticket, private, outcome).await,
            Ok(FetchResult::Failed(failure)) => self.take_failure(waiting, &failure).await,
            Ok(FetchResult::NotSent) if clock::now() < waiting.limits.deadline => Continue(()),
            Ok(FetchResult::NotSent) => Break(self.without_place(&waiting.key, Limit::MaxInFlight).await),
            Err(Lost::Dropped | Lost::ForItsLeader) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Break(self.without_answer(&waiting.key, "fetch-ended", status).await)
            }
            Err(Lost::WaitedLongEnough) => self.give_up(waiting, boarded).await,
        }
    }

    /// What the flight brought, if it is current for this reader, or he had come before its fetch began.
    async fn take_answer(
        &mut self,
        waiting: &mut Waiting,
        noted: Tick,
        entry: &Arc<Entry>,
        only_early: bool,
        outcome: Outcome,
    ) -> Next {
        let early = waiting.arrived <= noted;
        let is_his = early || self.alone.is_none() && !only_early && self.state.invalidation.is_current(entry);
        if !is_his && (self.alone.is_some() || !waiting.was_outdated) {
            waiting.was_outdated = true;
            return Continue(());
        }
        if !entry.answer.serves(&self.head.headers) {
            return self.ask_for_own_origin(waiting).await;
        }
        Break(self.respond(&waiting.key, entry, clock::now(), outcome).await)
    }

    /// What another replica had fetched: that this reader came before its fetch began nobody says.
    async fn take_adopted(&mut self, waiting: &mut Waiting, entry: &Arc<Entry>) -> Next {
        let now = clock::now();
        if self.alone.is_some() || !self.state.invalidation.is_current(entry) {
            waiting.was_outdated = true;
            if now < waiting.limits.deadline {
                return Continue(());
            }
            return Break(self.without_answer(&waiting.key, "waited-too-long", StatusCode::GATEWAY_TIMEOUT).await);
        }
        if !entry.answer.serves(&self.head.headers) {
            return self.ask_for_own_origin(waiting).await;
        }
        let lifetimes = self.state.lifetimes(&self.active, now);
        let (response, outcome) = self.serve_stored(&waiting.key, Ending::Joined, entry, &lifetimes, now).await;
        Break((response, outcome.detail("replica")))
    }

    /// An answer for one reader. What it was made from is not known: only for who came before its fetch began.
    async fn take_private(
        &mut self,
        waiting: &Waiting,
        ticket: Ticket<FetchResult>,
        private: Private,
        outcome: Outcome,
    ) -> Next {
        let taken = if waiting.arrived <= ticket.noted { private.take() } else { None };
        let for_one_origin = waiting.key.origin().is_some();
        let taken = taken.and_then(|mut response| {
            suit_origin(response.headers_mut(), &self.head.headers, for_one_origin).then_some(response)
        });
        let why = private.why;
        let Some(response) = taken else {
            // It holds a place among the fetches at once as long as anybody may still take it.
            drop((ticket, private));
            return Break(self.alone(&waiting.key, why, waiting.limits.deadline).await);
        };
        let outcome = outcome.status(response.status()).detail(why);
        Break((self.as_passed(response), outcome))
    }

    /// The upstream tells origins apart: this reader's has answers of its own.
    async fn ask_for_own_origin(&mut self, waiting: &mut Waiting) -> Next {
        if let Some(own) = self.key_of_origin(&waiting.key) {
            (waiting.key, waiting.given_up) = (own, None);
            return Continue(());
        }
        let bypass = self.bypass(&waiting.key, BypassReason::Origin);
        Break(match tokio::time::timeout_at(waiting.limits.deadline.into(), bypass).await {
            Ok(answered) => answered,
            Err(_) => self.failed(UpstreamError::Timeout),
        })
    }

    /// The reader has waited long enough for a flight: once more for another, unless something may be served instead.
    async fn give_up(&mut self, waiting: &mut Waiting, mut boarded: Boarded) -> Next {
        self.state.metrics.flight_ends.with_label_values(&["waiter_deadline"]).inc();
        if !boarded.ticket.was_sent() {
            return Break(self.without_place(&waiting.key, Limit::MaxInFlight).await);
        }
        let now = clock::now();
        let stands_in = self.stands_in(&waiting.key, now).is_some();
        if stands_in || waiting.given_up.is_some() || now >= waiting.limits.deadline {
            let status = StatusCode::GATEWAY_TIMEOUT;
            return Break(self.without_answer(&waiting.key, "waited-too-long", status).await);
        }
        // He shall not count twice.
        boarded.ticket.leave_place();
        waiting.given_up = Some(boarded);
        Continue(())
    }

    /// The flight has failed. What its answer says of somebody else is not for this reader: he asks on.
    async fn take_failure(&mut self, waiting: &mut Waiting, failure: &Failure) -> Next {
        match failure {
            Failure::Answered(ErrorAnswer { asker: Some(asker), .. }) if *asker != self.forwarded_for() => {
                waiting.others_refused += 1;
                if waiting.others_refused < OTHERS_REFUSED {
                    return Continue(());
                }
                Break(self.alone(&waiting.key, "others-refused", waiting.limits.deadline).await)
            }
            failure => Break(self.after_failure(&waiting.key, failure, waiting.reason).await),
        }
    }

    /// The upstream failed: the last good answer, if there is one that may stand in, else what went wrong.
    async fn after_failure(&self, key: &Key, failure: &Failure, reason: &'static str) -> Answered {
        let now = clock::now();
        if matches!(failure, Failure::Upstream(UpstreamError::Spared(Spared { why: Why::Queue, .. }))) {
            return self.without_place(key, Limit::MaxQueued).await;
        }
        if let Some(entry) =
            self.stands_in(key, now).filter(|_| !matches!(failure, Failure::Answered(error) if !is_for_now(error.answer.status)))
        {
            let (response, mut outcome) = self.serve_stale_if_error(key, &entry, now).await;
            outcome.error = failure.class();
            return (response, outcome);
        }
        let outcome = Outcome::forwarded(Ending::Failed, reason);
        match failure {
            Failure::Upstream(error) => {
                (self.upstream_problem(*error), outcome.failed(*error))
            }
            Failure::Answered(error) => (self.as_told(&error.answer), outcome.status(error.answer.status)),
            Failure::BreaksContract(first) => {
                let detail = format!("the upstream's list breaks the published contract: {first}");
                (self.problem(StatusCode::BAD_GATEWAY, &detail), outcome.detail("breaks-contract"))
            }
        }
    }

    /// No flight could serve this reader.
    async fn without_answer(&self, key: &Key, detail: &'static str, status: StatusCode) -> Answered {
        let now = clock::now();
        match self.stands_in(key, now) {
            Some(entry) => self.serve_stale_if_error(key, &entry, now).await,
            None => (
                self.problem(status, "the list could not be fetched in time; try again"),
                Outcome::own(Ending::Failed).detail(detail),
            ),
        }
    }

    /// There was no room for this reader. That is no error of the upstream, so nothing stands in while it works.
    async fn without_place(&self, key: &Key, limit: Limit) -> Answered {
        let now = clock::now();
        let is_down = self.state.upstream.is_down(self.state.invalidation.epoch.moment(now));
        if let Some(entry) = self.stands_in(key, now).filter(|_| is_down) {
            return self.serve_stale_if_error(key, &entry, now).await;
        }
        self.crowded("lists", limit)
    }

    /// The last good answer that this reader may have instead of an error.
    pub(super) fn stands_in(&self, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        let entry = self.state.stale_if_error(&self.active, key, now)?;
        let may = entry.answer.serves(&self.head.headers)
            && (self.may_have_kept(&entry, now) || self.active.config.serve_outdated_on_error);
        may.then_some(entry)
    }

    /// A refusal that still holds, without asking again.
    pub(crate) fn refuse_still(&self, answer: &Prepared, left: Duration) -> Answered {
        let mut response = self.as_told(answer);
        let seconds = left.as_millis().div_ceil(1000).to_string();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::try_from(seconds).expect("digits"));
        (response, Outcome::own(Ending::Failed).detail("retry-after"))
    }

    /// An error as the upstream told it. It is no older than this request.
    fn as_told(&self, answer: &Prepared) -> Response<Body> {
        let mut response = answer.respond(&self.head.method, &self.head.headers, None).map(Body::from);
        response.headers_mut().remove(header::AGE);
        response
    }
}
