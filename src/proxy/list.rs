//! The list: from memory if it is there and good, else by a flight that others may share; or past the cache.

use std::sync::Arc;
use std::time::Instant;

use super::request::{Answered, ClientRequest};
use super::wait::{Limits, Waiting};
use crate::engine::metrics::Ending;
use crate::engine::rates::Bucket;
use crate::engine::store::Entry;
use crate::policy::http::freshness::Use;
use crate::policy::http::key::Key;
use crate::policy::http::route::BypassReason;

/// What is stored for a reader.
pub(super) struct LookUp {
    /// Its key: his own if the upstream tells origins apart.
    pub(super) key: Key,
    pub(super) stored: Option<Arc<Entry>>,
    /// Why it is forwarded, if it is (RFC 9211 section 2.2).
    pub(super) reason: &'static str,
}

impl ClientRequest {
    /// The list: from memory if it is there and good, else by a flight. `now` is when the request came.
    pub(crate) async fn list(mut self, key: Key, now: Instant) -> Answered {
        // Noted before anything is looked at: what was acknowledged before this reader came has an earlier tick.
        let arrived = self.arrives().await;
        let key = self.key_of_host(key);
        let LookUp { key, stored, reason } = match self.look_up(key) {
            Ok(found) => found,
            Err(key) => {
                if let Some(refused) = self.asks_too_often(Bucket::Upstream) {
                    return refused;
                }
                return Box::pin(self.bypass(&key, BypassReason::Origin)).await;
            }
        };
        if let Some(entry) = stored.as_ref().filter(|entry| self.may_have_kept(entry, now)) {
            let (usable, lifetimes) = self.state.use_of(&self.active, entry, now);
            let stands_in = matches!(usable, Use::IfError) && !self.may_ask_again(&key, entry, now);
            if (stands_in || matches!(usable, Use::Hit | Use::WhileRevalidating))
                && let Some(refused) = self.asks_too_often(Bucket::Hits)
            {
                return refused;
            }
            match usable {
                Use::Hit => {
                    self.audit(&key, entry);
                    return self.serve_stored(&key, Ending::Hit, entry, &lifetimes, now).await;
                }
                Use::WhileRevalidating => {
                    self.refresh_behind(&key, entry, now);
                    return self.serve_stored(&key, Ending::Stale, entry, &lifetimes, now).await;
                }
                Use::IfError if stands_in => return Box::pin(self.serve_stale_if_error(&key, entry, now)).await,
                Use::IfError | Use::Not => {}
            }
        }
        let limits = Limits::from(now, self.active.config.flights.wait);
        Box::pin(self.fetched(Waiting::new(key, arrived, reason, limits), now)).await
    }

    /// What is not in memory, or not good: by a flight, unless the upstream is to be left alone.
    async fn fetched(mut self, waiting: Waiting, now: Instant) -> Answered {
        let key = &waiting.key;
        if let Some(refused) = self.asks_too_often(Bucket::Upstream) {
            return refused;
        }
        if let Some((answer, left)) = self.refused_already(key, now) {
            return self.refuse_still(&answer, left);
        }
        if let Some(why) = self.state.cache.unshareable.get(key) {
            return self.alone(key, why, waiting.limits.deadline).await;
        }
        self.wait(waiting).await
    }

    /// What is stored for this reader; the key alone if the upstream tells origins apart and his cannot be compared.
    pub(super) fn look_up(&self, key: Key) -> Result<LookUp, Key> {
        let found = |key: Key, stored: Option<Arc<Entry>>, missing| {
            let reason = if stored.is_some() { "stale" } else { missing };
            LookUp { key, stored, reason }
        };
        match self.stored(&key) {
            Some(entry) if !entry.answer.serves(&self.head.headers) => {
                // The upstream tells origins apart: this reader's has answers of its own.
                let Some(own) = self.key_of_origin(&key) else { return Err(key) };
                let stored = self.stored(&own);
                Ok(found(own, stored, "vary-miss"))
            }
            stored => Ok(found(key, stored, "uri-miss")),
        }
    }
}
