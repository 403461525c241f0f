//! Whether a stored answer is sent without asking the upstream (RFC 9111 section 4).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::cache_control::{RequestDirectives, Restriction};
use super::freshness::{Arrival, Control, initial_age};

/// On what terms an answer may be used again: read once from its head, when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For how long it is fresh.
    pub lifetime: Duration,
    /// How old it was when its head had come.
    pub initial_age: Duration,
    /// Never without validation (`no-cache`, section 5.2.2.4).
    pub needs_validation: bool,
    /// Never stale (section 4.2.4).
    pub forbids_stale: bool,
    /// So long after it became stale, while it is asked for behind (RFC 5861 section 3).
    pub while_revalidating: Duration,
    /// So long after it became stale, instead of an error (RFC 5861 section 4), if it says.
    pub if_error: Option<Duration>,
}

impl Terms {
    /// Those of an answer that came like this.
    pub fn of(status: StatusCode, head: &HeaderMap, control: &Control, arrival: Arrival) -> Self {
        let said = &control.directives;
        Self {
            lifetime: control.lifetime(status, head, arrival.received),
            initial_age: initial_age(head, arrival),
            needs_validation: said.no_cache == Restriction::Whole,
            forbids_stale: said.forbids_stale(),
            while_revalidating: said.stale_while_revalidate.unwrap_or_default(),
            if_error: said.stale_if_error,
        }
    }

    /// How old it is, so long after it came.
    pub fn age(&self, since: Duration) -> Duration {
        self.initial_age.saturating_add(since)
    }

    /// For how long it stays fresh at this age, in seconds: negative if it is stale (RFC 9211 section 2.4).
    pub fn seconds_left(&self, age: Duration) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime).saturating_sub(seconds(age))
    }

    /// How long after it came it may still be of use to somebody who does not ask the upstream; `if_error` is for answers that
    /// do not say themselves.
    pub fn of_use_for(&self, if_error: Duration) -> Duration {
        let stale = if self.forbids_stale {
            Duration::ZERO
        } else {
            self.while_revalidating.max(self.if_error.unwrap_or(if_error))
        };
        self.lifetime.saturating_add(stale).saturating_sub(self.initial_age)
    }
}

/// What a stored answer is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It is sent.
    Fresh,
    /// It is stale, and sent: the client takes it so (section 5.2.1.2).
    Stale,
    /// It is stale, and sent while it is asked for behind.
    WhileRevalidating,
    /// It is not sent before the upstream has been asked.
    No(Why),
}

/// Why the upstream is asked though there is an answer (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is stale, or must not be used without validation.
    Stale,
    /// The request wants so.
    Request,
}

/// Judges a stored answer of this age that is not out of date, for a request.
pub fn reuse(terms: &Terms, age: Duration, asked: &RequestDirectives) -> Reuse {
    let is_fresh = terms.lifetime > age;
    if terms.needs_validation {
        return Reuse::No(Why::Stale);
    }
    let is_too_old = asked.max_age.is_some_and(|most| age > most);
    let is_too_stale = asked.min_fresh.is_some_and(|least| terms.lifetime < age.saturating_add(least));
    if asked.no_cache || (is_fresh && (is_too_old || is_too_stale)) {
        return Reuse::No(Why::Request);
    }
    if is_fresh {
        return Reuse::Fresh;
    }
    let stale_for = age.saturating_sub(terms.lifetime);
    if terms.forbids_stale {
        Reuse::No(Why::Stale)
    } else if asked.max_stale.is_some_and(|most| stale_for <= most) && !is_too_old {
        Reuse::Stale
    } else if stale_for < terms.while_revalidating && !is_too_old && asked.min_fresh.is_none() && !asked.no_store {
        // Where what comes may not be stored, nothing would be revalidated.
        Reuse::WhileRevalidating
    } else {
        Reuse::No(Why::Stale)
    }
}

/// Whether a stored answer of this age that is not out of date may be sent because the upstream cannot be reached, or answers
/// with an error (section 4.2.4; RFC 5861 section 4). `otherwise`: so long after it became stale, if it does not say itself.
pub fn stands_in(terms: &Terms, age: Duration, asked: &RequestDirectives, otherwise: Duration) -> bool {
    let stale_for = age.saturating_sub(terms.lifetime);
    let is_stale = age >= terms.lifetime;
    let refuses = asked.no_cache || asked.max_age.is_some_and(|most| age > most) || asked.min_fresh.is_some();
    let within = stale_for < terms.if_error.unwrap_or(otherwise);
    !terms.needs_validation && !refuses && (!is_stale || (!terms.forbids_stale && within))
}

/// Whether an answer is an error of the upstream that a stored one may stand in for (RFC 5861 section 4).
pub fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests;
