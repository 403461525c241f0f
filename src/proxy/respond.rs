//! A stored answer, as this reader gets it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::access_log::STANDS_IN;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::metrics::Ending;
use crate::engine::store::Entry;
use crate::policy::http::encoding::{Accepted, Coding, encode, negotiate};
use crate::policy::http::freshness::{Lifetimes, ttl};
use crate::policy::http::key::Key;

/// A body longer than this is not put into a coding by a thread that serves others.
const WORK_ASIDE: usize = 64 * 1024;

impl ClientRequest {
    pub(crate) async fn serve_stored(
        &self,
        key: &Key,
        ending: Ending,
        entry: &Arc<Entry>,
        lifetimes: &Lifetimes,
        now: Instant,
    ) -> Answered {
        let aging = entry.aging(now);
        self.state.metrics.answer_age.observe((entry.initial_age + aging.age).as_secs_f64());
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let left = seconds(ttl(&aging, lifetimes)).saturating_sub(seconds(aging.age));
        (self.respond(key, entry, now).await, Outcome::from_memory(ending, left))
    }

    pub(crate) async fn serve_stale_if_error(&self, key: &Key, entry: &Arc<Entry>, now: Instant) -> Answered {
        self.state.metrics.stale_if_error.inc();
        let lifetimes = self.state.lifetimes(&self.active, now);
        let (response, outcome) = self.serve_stored(key, Ending::Stale, entry, &lifetimes, now).await;
        (response, outcome.detail(STANDS_IN))
    }

    pub(crate) async fn respond(&self, key: &Key, entry: &Arc<Entry>, now: Instant) -> Response<Body> {
        let coded = match self.coded(entry) {
            Coded::Ready(coded) => coded,
            Coded::ToBeMade(accepted, coding) => Box::pin(self.make_coded(key, entry, accepted, coding)).await,
        };
        let mut response = entry.answer.respond(&self.head.method, &self.head.headers, coded);
        let age = entry.initial_age + now.saturating_duration_since(entry.began);
        response.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
        response.map(Body::from)
    }

    /// The body in the coding this reader gets, if it was made already or need not be.
    fn coded(&self, entry: &Arc<Entry>) -> Coded {
        let settings = &self.active.config.encoding;
        let accepted = negotiate(&self.head.headers, &settings.offer);
        let Some(coding) = accepted.coding else { return Coded::Ready(None) };
        let body = &entry.answer.body;
        if (body.len() as u64) < settings.min_size && !accepted.refuses_identity {
            return Coded::Ready(None);
        }
        if entry.answer.is_held_by(&self.head.headers) {
            // The head of the form it stands for; there is no body to be made.
            return Coded::Ready(Some((coding, Bytes::new())));
        }
        match entry.coded(coding).get() {
            Some(coded) => Coded::Ready(coded.clone().and_then(|coded| accepted.if_of_use(coding, coded, body))),
            None => Coded::ToBeMade(accepted, coding),
        }
    }

    /// The body in a coding: made once, when it is first asked for.
    async fn make_coded(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        accepted: Accepted,
        coding: Coding,
    ) -> Option<(Coding, Bytes)> {
        let (body, cell) = (&entry.answer.body, entry.coded(coding));
        let mut is_new = false;
        let make = async {
            // Too many are being made: this reader gets the plain body. Held until the work ends, which goes on if
            // the reader leaves.
            let permit = self.state.cache.encoding.clone().try_acquire_owned().map_err(drop)?;
            is_new = true;
            let (active, body) = (self.active.clone(), body.clone());
            let aside = body.len() >= WORK_ASIDE;
            let work = move || {
                let _permit = permit;
                encode(&body, coding, &active.config.encoding).ok()
            };
            let coded = if aside { tokio::task::spawn_blocking(work).await.ok().flatten() } else { work() };
            Ok::<_, ()>(coded.and_then(|coded| self.state.cache.memory.adopt(coded.into()).ok()))
        };
        let coded = cell.get_or_try_init(|| make).await.ok()?.clone();
        if is_new {
            self.state.cache.store.reweigh(key, entry);
        }
        accepted.if_of_use(coding, coded?, body)
    }
}

/// The body in the coding that a reader gets.
enum Coded {
    /// It is there, or the body has none.
    Ready(Option<(Coding, Bytes)>),
    /// It has to be made first.
    ToBeMade(Accepted, Coding),
}
