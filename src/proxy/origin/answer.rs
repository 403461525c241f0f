//! The list's path where the answers themselves say how they may be cached (RFC 9111 section 4): from memory on the terms of what
//! is stored, else by asking the upstream.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::asking::Asking;
use crate::engine::metrics::Ending;
use crate::engine::rates::Bucket;
use crate::engine::responses::{Missing, Stored};
use crate::policy::http::key::Key;
use crate::policy::rfc9111::cache_control::RequestDirectives;
use crate::policy::rfc9111::reuse::{Reuse, Why, reuse};
use crate::policy::rfc9111::validate::is_for_the_origin;
use crate::proxy::outcome::Outcome;
use crate::proxy::request::{Answered, ClientRequest};

/// A request that memory does not answer.
pub(crate) struct Unanswered {
    /// What is stored for it.
    pub(crate) stored: Option<Arc<Stored>>,
    /// What is stored of it, if that is not all that it asks for.
    pub(crate) part: Option<Arc<Stored>>,
    /// Why the upstream is asked (RFC 9211 section 2.2).
    pub(crate) reason: &'static str,
}

impl ClientRequest {
    /// The answer, from memory if what is stored allows it. `now` is when the request came.
    pub(crate) async fn cached(mut self, key: Key, now: Instant) -> Answered {
        // Noted before anything is looked at: what was acknowledged before this reader came has an earlier tick.
        let arrived = self.arrives().await;
        let key = self.key_of_host(key);
        let wants = self.wants();
        let Unanswered { stored, part, reason } = match self.may_give(&key, &wants, now) {
            Ok((stored, reuse)) => {
                if let Some(refused) = self.asks_too_often(Bucket::Hits) {
                    return refused;
                }
                if reuse == Reuse::WhileRevalidating {
                    self.refresh(&key, &stored);
                }
                let ending = if reuse == Reuse::Fresh { Ending::Hit } else { Ending::Stale };
                return self.give_from_memory(ending, &stored, now);
            }
            Err(unanswered) => unanswered,
        };
        Box::pin(self.ask_upstream(Asking { key, arrived, now, wants, stored, part, reason })).await
    }

    /// What is given from memory, and how.
    pub(crate) fn may_give(
        &self,
        key: &Key,
        wants: &RequestDirectives,
        now: Instant,
    ) -> Result<(Arc<Stored>, Reuse), Unanswered> {
        let unanswered = |stored, reason| Unanswered { stored, part: None, reason };
        let stored = self.choose(key).map_err(|missing| match missing {
            Missing::Target => unanswered(None, "uri-miss"),
            Missing::Choice => unanswered(None, "vary-miss"),
            Missing::Rest(part) => Unanswered { stored: None, part: Some(part), reason: "partial" },
        })?;
        if self.alone.is_some() || is_for_the_origin(&self.head.headers) {
            return Err(unanswered(Some(stored), "request"));
        }
        match self.reuse(&stored, wants, now) {
            Reuse::No(Why::Request) => Err(unanswered(Some(stored), "request")),
            Reuse::No(Why::Stale) => Err(unanswered(Some(stored), "stale")),
            reuse => Ok((stored, reuse)),
        }
    }

    /// What is stored for this request.
    pub(super) fn choose(&self, key: &Key) -> Result<Arc<Stored>, Missing> {
        let asked = &self.head;
        self.state.cache.responses.choose(key, &asked.method, &asked.headers, self.active.fingerprint)
    }

    /// What the client wants of a cache, if that is obeyed.
    pub(crate) fn wants(&self) -> RequestDirectives {
        let obeys = self.active.config.origin.is_some_and(|settings| settings.obeys_clients);
        if obeys { RequestDirectives::of(&self.head.headers) } else { RequestDirectives::default() }
    }

    /// Whether a stored answer is sent as it is. One that is out of date is not, whatever it says of itself.
    pub(super) fn reuse(&self, stored: &Arc<Stored>, wants: &RequestDirectives, now: Instant) -> Reuse {
        if !self.is_in_force(stored, now) {
            return Reuse::No(Why::Stale);
        }
        reuse(&stored.terms, stored.age(now), wants)
    }

    /// Whether nothing that it was made from has changed since it was asked for, as far as that is known.
    pub(super) fn is_in_force(&self, stored: &Stored, now: Instant) -> bool {
        let is_settled = stored.unsettled.is_none_or(|until| now < until);
        is_settled && self.state.invalidation.ledger.is_current(stored.noted, &stored.places)
    }

    /// A stored answer, without asking anybody.
    pub(super) fn give_from_memory(&self, ending: Ending, stored: &Stored, now: Instant) -> Answered {
        let age = stored.age(now);
        self.state.metrics.answer_age.observe(age.as_secs_f64());
        (self.give(stored, now), Outcome::from_memory(ending, stored.terms.seconds_left(age)))
    }

    /// The client wants nothing that would have to be asked for (RFC 9111 section 5.2.1.7).
    pub(super) fn only_if_cached(&self) -> Answered {
        let problem = self.problem(StatusCode::GATEWAY_TIMEOUT, "nothing is stored that this request may be answered with");
        (problem, Outcome::own(Ending::Refused).detail("only-if-cached"))
    }
}
