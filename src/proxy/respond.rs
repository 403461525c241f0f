//! A stored answer, as this reader gets it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use super::access_log::STANDS_IN;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::aside::aside_if;
use crate::engine::body::Body;
use crate::engine::memory::Full;
use crate::engine::metrics::Ending;
use crate::engine::store::Entry;
use crate::policy::http::encoding::{Accepted, Coding, encode, negotiate};
use crate::policy::http::freshness::{Lifetimes, ttl};
use crate::policy::http::kept_body::KeptBody;
use crate::policy::http::key::Key;
use crate::policy::http::pieces::Pieces;

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
        let age = entry.age(now);
        self.state.metrics.answer_age.observe(age.as_secs_f64());
        let left = ttl_left(entry, lifetimes, now);
        self.respond(key, entry, now, Outcome::from_memory(ending, left)).await
    }

    pub(crate) async fn serve_stale_if_error(&self, key: &Key, entry: &Arc<Entry>, now: Instant) -> Answered {
        self.state.metrics.stale_if_error.inc();
        let lifetimes = self.state.lifetimes(&self.active, now);
        let (response, outcome) = self.serve_stored(key, Ending::Stale, entry, &lifetimes, now).await;
        (response, outcome.detail(STANDS_IN))
    }

    /// The answer, which ends as `outcome` says if there is memory for it.
    pub(crate) async fn respond(&self, key: &Key, entry: &Arc<Entry>, now: Instant, outcome: Outcome) -> Answered {
        let form = match self.form(entry) {
            Form::AsKept => None,
            Form::Made(coding, body) => Some((coding, body)),
            Form::ToBeMade(accepted, coding) => {
                let Ok(form) = Box::pin(self.make(key, entry, accepted, coding)).await else {
                    let response = self.busy("there is no memory to unpack this list; try again");
                    return (response, Outcome::own(Ending::Failed).detail("no-memory-to-unpack"));
                };
                form
            }
        };
        let mut response = entry.answer.respond(&self.head.method, &self.head.headers, form);
        let age = entry.age(now);
        response.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
        (response.map(Body::from), outcome)
    }

    /// The body in the form this reader gets, if it was made already or need not be.
    fn form(&self, entry: &Entry) -> Form {
        let (settings, asked) = (&self.active.config.encoding, &self.head.headers);
        let has_no_body =
            |coding: Option<Coding>| entry.answer.is_held_by(asked) || coding.is_none() && self.head.method == Method::HEAD;
        form_of(entry, negotiate(asked, &settings.offer), settings.min_size, has_no_body)
    }

    /// The body in a form in which it is not kept: in a coding if there is one and that can be had, else without.
    async fn make(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        accepted: Accepted,
        coding: Option<Coding>,
    ) -> Result<Option<(Option<Coding>, Pieces)>, Full> {
        let body = &entry.answer.body;
        if let Some(wanted) = coding
            && let Some(coded) = self.make_coded(key, entry, wanted).await
            && accepted.is_of_use(coded.len(), body.length())
        {
            return Ok(Some((coding, coded)));
        }
        if body.coding().is_none() {
            return Ok(None);
        }
        Ok(Some((None, self.unpack(body).await?.into())))
    }

    /// The body in a coding: made once, when it is first asked for.
    async fn make_coded(&self, key: &Key, entry: &Arc<Entry>, coding: Coding) -> Option<Pieces> {
        let (body, cell) = (&entry.answer.body, entry.coded(coding));
        let mut is_new = false;
        let make = async {
            // Too many are being made: this reader gets the plain body. Held until the work ends, which goes on if
            // the reader leaves.
            let permit = self.state.cache.encoding.clone().try_acquire_owned().map_err(drop)?;
            is_new = true;
            let (active, body) = (self.active.clone(), body.clone());
            let is_long = body.length() >= WORK_ASIDE;
            let work = move || {
                let _permit = permit;
                encode(&body.plain().ok()?, coding, &active.config.encoding).ok()
            };
            let coded = if is_long { tokio::task::spawn_blocking(work).await.ok().flatten() } else { work() };
            Ok::<_, ()>(coded.and_then(|coded| self.state.cache.memory.keep(&coded).ok()))
        };
        let coded = cell.get_or_try_init(|| make).await.ok()?.clone();
        if is_new {
            self.state.cache.store.reweigh(key, entry);
        }
        coded
    }

    /// A packed body without coding, for this reader alone: counted like every body until he has it.
    async fn unpack(&self, body: &KeptBody) -> Result<Bytes, Full> {
        let (memory, length) = (&self.state.cache.memory, body.length() as u64);
        // Readers who are slow leave half of their memory to fetches.
        let kept_free = self.active.config.fetch.memory / 2;
        if memory.free() < kept_free.saturating_add(length) {
            return Err(Full);
        }
        let mut plain = memory.room_at_once(body.length(), length)?;
        let packed = body.clone();
        let work = move || {
            // What this process has packed it can unpack.
            packed.unpack(|piece| plain.push(piece).is_ok()).is_ok_and(|whole| whole).then(|| plain.finish()).ok_or(Full)
        };
        aside_if(body.length() >= WORK_ASIDE, work).await
    }
}

/// For how many seconds an answer stays fresh; negative if it is stale.
pub(super) fn ttl_left(entry: &Entry, lifetimes: &Lifetimes, now: Instant) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let aging = entry.aging(now);
    seconds(ttl(&aging, lifetimes)).saturating_sub(seconds(aging.age))
}

/// The form for a reader who takes this; `has_no_body` says whether in a coding or in none he gets the head alone.
pub(super) fn form_of(
    entry: &Entry,
    accepted: Accepted,
    min_size: u64,
    has_no_body: impl FnOnce(Option<Coding>) -> bool,
) -> Form {
    let body = &entry.answer.body;
    let is_short = (body.length() as u64) < min_size && !accepted.refuses_identity;
    let coding = accepted.coding.filter(|_| !is_short);
    if coding == body.coding() {
        return Form::AsKept;
    }
    if has_no_body(coding) {
        // The head of the form it stands for; there is no body to be made.
        return Form::Made(coding, Pieces::default());
    }
    match coding.and_then(|coding| entry.coded(coding).get()) {
        Some(Some(coded)) if accepted.is_of_use(coded.len(), body.length()) => Form::Made(coding, coded.clone()),
        Some(_) if body.coding().is_none() => Form::AsKept,
        _ => Form::ToBeMade(accepted, coding),
    }
}

/// The body as a reader gets it.
pub(super) enum Form {
    /// In the form in which it is kept.
    AsKept,
    /// In a coding, or in none; there already.
    Made(Option<Coding>, Pieces),
    /// The same, to be made first.
    ToBeMade(Accepted, Option<Coding>),
}
