//! The upstream is asked: for several who want the same at once, or for one alone; and what each gets of its answer.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::asking::Asking;
use super::fetch::{Fetch, begin};
use crate::engine::clock;
use crate::engine::flights::{Joined, Lost, Ticket};
use crate::engine::metrics::{Ending, Limit, Raised};
use crate::engine::rates::Bucket;
use crate::engine::responses::{Fetched, Stored};
use crate::engine::upstream::error::{Spared, UpstreamError, Why};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::attempts::Attempt;
use crate::policy::http::headers::PROXY_STATUS;
use crate::policy::http::key::Key;
use crate::policy::http::route::{has_authorization, is_plain};
use crate::policy::rfc9111::cache_control::RequestDirectives;
use crate::policy::rfc9111::reuse::{Reuse, is_error, reuse, stands_in};
use crate::policy::rfc9111::validate::{is_for_the_origin, wants_something_of_its_own};
use crate::proxy::access_log::STANDS_IN;
use crate::proxy::fetch::Waits;
use crate::proxy::request::{Answered, ClientRequest};

impl ClientRequest {
    /// Asks the upstream, with others or alone.
    pub(super) async fn ask_upstream(mut self, asking: Asking) -> Answered {
        if asking.wants.only_if_cached {
            return self.only_if_cached();
        }
        if !self.may_ask(&asking)
            && let Some(instead) = self.stale_instead(&asking)
        {
            return self.asks_too_often(Bucket::Hits).unwrap_or(instead);
        }
        if let Some(refused) = self.asks_too_often(Bucket::Upstream) {
            return refused;
        }
        let deadline = asking.now + self.active.config.flights.wait;
        // What comes may show for the first time what answers differ by: those who want the same then wait for each other once
        // more.
        let mut waited_for = None;
        while self.may_share(&asking) {
            let choice = self.key_of_choice(&asking.key);
            if waited_for.as_ref() == Some(&choice) {
                break;
            }
            if let Some(answered) = self.share(&asking, &choice, deadline).await {
                return answered;
            }
            if waited_for.replace(choice).is_some() {
                break;
            }
        }
        self.ask_alone(&asking, deadline).await
    }

    /// Whether the upstream may be asked for what there is an answer of. If it failed the last time, and nothing has come from
    /// it since: at most once in a while, and for all together within the budget.
    fn may_ask(&self, asking: &Asking) -> bool {
        match self.attempt_of(asking) {
            Attempt::AsUsual => true,
            Attempt::Probe => self.state.upstream.may_probe(),
            Attempt::NotYet => false,
        }
    }

    /// The same, without taking anything of the budget.
    pub(super) fn attempt_of(&self, asking: &Asking) -> Attempt {
        let failed = asking.stored.as_ref().and_then(|stored| stored.failure.last());
        self.state.upstream.attempt(failed, self.state.invalidation.epoch.moment(asking.now))
    }

    /// Whether what this request asks for may be what others ask for (RFC 9111 section 4: requests may be collapsed if each of
    /// them may be answered with what comes).
    pub(super) fn may_share(&self, asking: &Asking) -> bool {
        let headers = &self.head.headers;
        let is_validation = asking.stored.as_ref().is_some_and(|stored| self.may_be_asked_about(stored));
        self.head.method == Method::GET
            && self.alone.is_none()
            && is_plain(headers)
            && !has_authorization(headers, self.head.uri.query())
            && !is_for_the_origin(headers)
            && (is_validation || !wants_something_of_its_own(headers))
            && asking.wants == RequestDirectives::default()
            && self.state.cache.unshareable.get(&asking.key).is_none()
    }

    /// Joins a fetch that is under way, or begins one. None if what it brought may not be given to this request.
    async fn share(&self, asking: &Asking, key: &Key, deadline: Instant) -> Option<Answered> {
        let settled = || self.found(asking).map(Fetched::Found);
        let begin = || begin(Fetch::of(self, asking, Waits::ForReaders).traced(self, key));
        let joined = self.state.cache.fetches.join(key, |_, noted| self.is_current_path(key, noted), settled, begin);
        match joined {
            Joined::Led(ticket) => {
                let landed = self.landing(ticket, deadline).await;
                Some(self.take_own(asking, landed))
            }
            Joined::Followed(ticket) => {
                if let Some(traced) = &self.traced {
                    traced.waits_for(key);
                }
                let noted = ticket.noted;
                let landed = self.landing(ticket, deadline).await;
                self.take_others(asking, noted, landed)
            }
            Joined::Settled(Fetched::Found(stored)) => Some(self.give_from_memory(Ending::Hit, &stored, clock::now())),
            Joined::Settled(_) => None,
            Joined::Crowded => Some(self.without_place_for(asking, Limit::MaxWaiters)),
        }
    }

    async fn landing(&self, mut ticket: Ticket<Fetched>, deadline: Instant) -> Result<Fetched, Lost> {
        let _is_waiting = Raised::new(&self.state.metrics.waiters);
        let left = deadline.saturating_duration_since(clock::now());
        self.tally.waiting(ticket.wait(left)).await
    }

    /// A key for each choice between answers, as far as it is known what they differ by: who is given another waits for another.
    pub(super) fn key_of_choice(&self, key: &Key) -> Key {
        let text = self.state.cache.responses.text_of(key, &self.head.headers);
        if text.is_empty() { key.clone() } else { key.for_origin(&text) }
    }

    /// What has come meanwhile and may be used.
    fn found(&self, asking: &Asking) -> Option<Arc<Stored>> {
        self.choose(&asking.key).ok().filter(|stored| self.reuse(stored, &asking.wants, clock::now()) == Reuse::Fresh)
    }

    /// Fetches behind what was sent stale, unless that is under way.
    pub(super) fn refresh(&self, key: &Key, stored: &Arc<Stored>) {
        if self.active.upstream.health().is_left_alone() {
            return;
        }
        let choice = self.key_of_choice(key);
        let asking = Asking {
            key: key.clone(),
            arrived: self.state.invalidation.ledger.now(),
            now: clock::now(),
            wants: RequestDirectives::default(),
            stored: Some(stored.clone()),
            part: None,
            reason: "stale",
        };
        let is_joinable = |_, noted| self.is_current_path(key, noted);
        let begin = || begin(Fetch::of(self, &asking, Waits::Behind).traced(self, &choice));
        drop(self.state.cache.fetches.join(&choice, is_joinable, || None, begin));
    }

    /// Asks for this request alone; no more at once than `upstream.max_in_flight`.
    async fn ask_alone(&mut self, asking: &Asking, deadline: Instant) -> Answered {
        let take = self.state.upstream.in_flight.take(self.client_network());
        let Ok(Some(place)) = tokio::time::timeout_at(deadline.into(), take).await else {
            return self.without_place_for(asking, Limit::MaxInFlight);
        };
        let mut fetch = Fetch::of(self, asking, Waits::ForReaders);
        fetch.body = self.body_onward();
        let tally = self.tally.clone();
        let fetched = tokio::time::timeout_at(deadline.into(), tally.waiting(fetch.run_with(place))).await;
        self.take_own(asking, fetched.map_err(|_| Lost::WaitedLongEnough))
    }

    /// The answer to whoever asked for it.
    fn take_own(&self, asking: &Asking, landed: Result<Fetched, Lost>) -> Answered {
        let Ok(Fetched::Answer { first, stored, status, kept, asked_otherwise }) = landed else {
            return self.after_no_answer(asking, landed);
        };
        if is_error(status)
            && let Some((response, outcome)) = self.stale_instead(asking)
        {
            return (response, outcome.after_asking(asking.reason, Some(status)));
        }
        let mut outcome = asking.outcome(Ending::Miss).status(status).stored(kept);
        if let Some(stored) = &stored {
            outcome = outcome.fresh_for(stored.terms.seconds_left(stored.age(clock::now())));
        }
        // Why it is nobody else's.
        outcome.detail = first.as_ref().filter(|_| stored.is_none()).map(|first| first.why);
        match (first.and_then(|first| first.take()), stored) {
            // Its own conditions are judged here, since the upstream was not told of them.
            (Some(_), Some(stored)) if asked_otherwise && stored.is_enough_for(&self.head.method, &self.head.headers) => (self.give(&stored, clock::now()), outcome),
            (Some(first), _) => (self.as_passed(first), outcome),
            (None, Some(stored)) => (self.give(&stored, clock::now()), outcome),
            (None, None) => self.after_no_answer(asking, Err(Lost::Dropped)),
        }
    }

    /// The answer to whoever waited for another's, if that may be used for his request, too.
    fn take_others(&self, asking: &Asking, noted: Tick, landed: Result<Fetched, Lost>) -> Option<Answered> {
        let now = clock::now();
        match landed {
            Ok(Fetched::Answer { status, .. }) if is_error(status) && asking.stored.is_some() => {
                let (response, outcome) = self.stale_instead(asking)?;
                Some((response, outcome.after_asking(asking.reason, Some(status)).collapsed(true)))
            }
            Ok(Fetched::Answer { stored: Some(stored), status, kept: true, .. }) => {
                let terms_allow = reuse(&stored.terms, stored.age(now), &asking.wants) == Reuse::Fresh;
                let is_in_force = asking.arrived <= noted || self.is_in_force(&stored, now);
                let Parts { method, headers, .. } = &self.head;
                let is_his = stored.chosen.matches(headers) && stored.is_enough_for(method, headers);
                let may_have = terms_allow && is_in_force && is_his;
                let left = stored.terms.seconds_left(stored.age(now));
                let outcome = asking.outcome(Ending::Joined).status(status).collapsed(true).fresh_for(left);
                may_have.then(|| (self.give(&stored, now), outcome))
            }
            Ok(Fetched::Answer { .. } | Fetched::Found(_) | Fetched::NotSent) | Err(Lost::ForItsLeader) => None,
            landed => Some(self.after_no_answer(asking, landed)),
        }
    }

    /// There is no answer of the upstream: what is stored, if it may stand in, else what went wrong.
    fn after_no_answer(&self, asking: &Asking, landed: Result<Fetched, Lost>) -> Answered {
        let error = match &landed {
            Ok(Fetched::Failed(UpstreamError::Spared(Spared { why: Why::Queue, .. })) | Fetched::NotSent) => {
                return self.without_place_for(asking, Limit::MaxQueued);
            }
            Ok(Fetched::Failed(error)) => Some(*error),
            _ => None,
        };
        if let Some((mut response, mut outcome)) = self.stale_instead(asking) {
            if !matches!(error, Some(UpstreamError::Spared(_))) {
                outcome = outcome.after_asking(asking.reason, None);
            }
            outcome.error = error.and_then(UpstreamError::proxy_error);
            if let Some(class) = outcome.error
                && let Ok(told) = HeaderValue::try_from(format!("anteroom; error={class}"))
            {
                response.headers_mut().insert(PROXY_STATUS, told);
            }
            return (response, outcome);
        }
        let failed = asking.outcome(Ending::Failed);
        match landed {
            Ok(Fetched::Failed(error)) => {
                let mut response = self.upstream_problem(error);
                // RFC 9111 section 5.2.2.2: what must be validated, and cannot be, is answered with this.
                if asking.stored.as_ref().is_some_and(|stored| stored.terms.forbids_stale) {
                    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                }
                (response, failed.failed(error))
            }
            Ok(Fetched::BreaksContract(first)) => {
                let detail = format!("the upstream's list breaks the published contract: {first}");
                (self.problem(StatusCode::BAD_GATEWAY, &detail), failed.detail("breaks-contract"))
            }
            Err(Lost::WaitedLongEnough) => {
                let problem = self.problem(StatusCode::GATEWAY_TIMEOUT, "the answer could not be fetched in time; try again");
                (problem, failed.detail("waited-too-long"))
            }
            Ok(Fetched::Answer { .. } | Fetched::Found(_) | Fetched::NotSent) | Err(Lost::Dropped | Lost::ForItsLeader) => {
                let problem = self.problem(StatusCode::INTERNAL_SERVER_ERROR, "the fetch ended without an answer; try again");
                (problem, failed.detail("fetch-ended"))
            }
        }
    }

    /// What is stored, if it may be sent because the upstream cannot be asked, or answers with an error.
    fn stale_instead(&self, asking: &Asking) -> Option<Answered> {
        let (stored, now) = (asking.stored.as_ref()?, clock::now());
        self.may_stand_in(stored, asking, now).then(|| {
            self.state.metrics.stale_if_error.inc();
            let (response, outcome) = self.give_from_memory(Ending::Stale, stored, now);
            (response, outcome.detail(STANDS_IN))
        })
    }

    /// The same, without sending it.
    pub(super) fn may_stand_in(&self, stored: &Stored, asking: &Asking, now: Instant) -> bool {
        // Clients wipe their storage on a 404: unless it says so itself, only a success stands in.
        let settings = self.active.config.origin.filter(|_| stored.status.is_success());
        let otherwise = settings.map(|settings| settings.stale_if_error).unwrap_or_default();
        // Whether it is what such a request is about, only the upstream can say (section 4.3.2).
        !is_for_the_origin(&self.head.headers)
            && self.is_in_force(stored, now)
            && !self.state.invalidation.has_purged(stored.noted, &stored.places)
            && stands_in(&stored.terms, stored.age(now), &asking.wants, otherwise)
            && self.alone.is_none()
    }

    /// There was no room for this reader: that is no error of the upstream.
    fn without_place_for(&self, asking: &Asking, limit: Limit) -> Answered {
        if self.active.upstream.health().is_left_alone()
            && let Some(instead) = self.stale_instead(asking)
        {
            return instead;
        }
        self.crowded("answers", limit)
    }
}
