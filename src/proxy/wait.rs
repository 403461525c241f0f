//! A reader who waits for a flight, and for a second one if the first cannot serve him.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use http::{StatusCode, header};

use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::fetch_result::{Failure, FetchResult, Private};
use crate::engine::flights::{Joined, Lost, Ticket};
use crate::engine::metrics::{Ending, Raised};
use crate::engine::store::Entry;
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::key::Key;
use crate::policy::http::representation::suit_origin;
use crate::policy::http::route::BypassReason;

/// What a waiting reader knows.
pub(crate) struct Waiting {
    key: Key,
    /// The tick of his arrival: what was acknowledged before it, he must see.
    arrived: Tick,
    /// Why his request is forwarded (RFC 9211 section 2.2).
    reason: &'static str,
    /// The flight that he has given up on.
    given_up: Option<u64>,
    /// A flight has brought him what was out of date: now only one that began after his arrival is good.
    was_outdated: bool,
}

impl Waiting {
    pub(crate) fn new(key: Key, arrived: Tick, reason: &'static str) -> Self {
        Self { key, arrived, reason, given_up: None, was_outdated: false }
    }
}

/// The reader's answer, or another round.
type Next = ControlFlow<Answered>;

impl ClientRequest {
    /// Waits for flights until one has served this reader, or his patience has ended.
    pub(crate) async fn wait(mut self, mut waiting: Waiting) -> Answered {
        loop {
            let next = match self.join_as(&waiting) {
                Joined::Led(ticket) => self.await_flight(&mut waiting, ticket, false).await,
                Joined::Followed(ticket) => self.await_flight(&mut waiting, ticket, true).await,
                Joined::Settled(result) => self.take_settled(&mut waiting, result).await,
                Joined::Crowded => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    Break(self.without_answer(&waiting.key, "too-many-waiters", status).await)
                }
            };
            if let Break(answered) = next {
                return answered;
            }
        }
    }

    fn join_as(&self, waiting: &Waiting) -> Joined<FetchResult> {
        self.join(&waiting.key, waiting.given_up.is_some(), |id, noted| {
            let good =
                if waiting.was_outdated { noted >= waiting.arrived } else { self.is_current_path(&waiting.key, noted) };
            good && waiting.given_up != Some(id)
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

    async fn await_flight(&mut self, waiting: &mut Waiting, mut ticket: Ticket<FetchResult>, collapsed: bool) -> Next {
        let is_waiting = Raised::new(&self.state.metrics.waiters);
        let result = self.tally.waiting(ticket.wait(self.active.config.flights.wait)).await;
        drop(is_waiting);
        let ending = if collapsed { Ending::Joined } else { Ending::Miss };
        let outcome = Outcome::forwarded(ending, waiting.reason);
        match result {
            Ok(FetchResult::Answer { entry, status, stored, only_early }) => {
                let outcome = outcome.status(status).stored(stored && !collapsed).collapsed(collapsed);
                self.take_answer(waiting, ticket.noted, &entry, only_early, outcome).await
            }
            Ok(FetchResult::Private(private)) => self.take_private(waiting, ticket, private, outcome).await,
            Ok(FetchResult::Failed(failure)) => {
                Break(self.after_failure(&waiting.key, &failure, waiting.reason).await)
            }
            Err(Lost::Dropped) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Break(self.without_answer(&waiting.key, "fetch-ended", status).await)
            }
            Err(Lost::WaitedLongEnough) => self.give_up(waiting, ticket.id).await,
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
        if !early && (only_early || !self.state.invalidation.is_current(entry)) && !waiting.was_outdated {
            waiting.was_outdated = true;
            return Continue(());
        }
        if !entry.answer.serves(&self.head.headers) {
            return self.ask_for_own_origin(waiting).await;
        }
        Break((self.respond(&waiting.key, entry, clock::now()).await, outcome))
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
            return Break(self.alone(&waiting.key, why).await);
        };
        let outcome = outcome.status(response.status()).detail(why);
        Break((self.as_passed(response), outcome))
    }

    /// The upstream tells origins apart: this reader's has answers of its own.
    async fn ask_for_own_origin(&mut self, waiting: &mut Waiting) -> Next {
        match self.key_of_origin(&waiting.key) {
            Some(own) => {
                waiting.key = own;
                Continue(())
            }
            None => Break(self.bypass(&waiting.key, BypassReason::Origin).await),
        }
    }

    /// The reader has waited long enough for a flight: once more for another, unless something may be served instead.
    async fn give_up(&mut self, waiting: &mut Waiting, flight: u64) -> Next {
        self.state.metrics.flight_ends.with_label_values(&["waiter_deadline"]).inc();
        let stands_in = self.state.stale_if_error(&self.active, &waiting.key, clock::now()).is_some();
        if stands_in || waiting.given_up.is_some() {
            let status = StatusCode::GATEWAY_TIMEOUT;
            return Break(self.without_answer(&waiting.key, "waited-too-long", status).await);
        }
        waiting.given_up = Some(flight);
        Continue(())
    }

    /// The upstream failed: the last good answer, if there is one that may stand in, else what went wrong.
    async fn after_failure(&self, key: &Key, failure: &Failure, reason: &'static str) -> Answered {
        let now = clock::now();
        if let Some(entry) =
            self.state.stale_if_error(&self.active, key, now).filter(|entry| entry.answer.serves(&self.head.headers))
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
        match self.state.stale_if_error(&self.active, key, now).filter(|entry| entry.answer.serves(&self.head.headers)) {
            Some(entry) => self.serve_stale_if_error(key, &entry, now).await,
            None => (
                self.problem(status, "the list could not be fetched in time; try again"),
                Outcome::own(Ending::Failed).detail(detail),
            ),
        }
    }
}
