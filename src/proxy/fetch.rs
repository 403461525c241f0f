//! A shared fetch: one request to the upstream whose answer may be kept and given to anyone who asks for its key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};

use super::admission::Admission;
use crate::engine::body::{Body, Guard};
use crate::engine::clock;
use crate::engine::fetch_result::{Failure, FetchResult};
use crate::engine::flights::Interest;
use crate::engine::places::Place;
use crate::engine::replicas::tier::Turn;
use crate::engine::spans::FetchSpan;
use crate::engine::store::Entry;
use crate::engine::upstream::client::Exchange;
use crate::engine::upstream::error::{UpstreamError, Why};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::client::Client;
use crate::policy::http::attempts::is_about_the_asker;
use crate::policy::http::headers::TRACEPARENT;
use crate::policy::http::key::Key;
use crate::policy::http::representation::is_made_from_body;
use crate::state::State;
use crate::state::upstream::Active;

/// How long readers of an answer that shows an untold change wait for the other replicas to hear of it.
const NEWS: Duration = Duration::from_millis(50);

/// One fetch of one key, and what was known when it was decided on.
pub struct Fetch {
    /// Everything.
    pub state: Arc<State>,
    /// The settings it is made under.
    pub active: Arc<Active>,
    /// What is fetched.
    pub key: Key,
    /// The tick noted before anything is sent.
    pub noted: Tick,
    /// What was kept then: revalidated, if it has a validator that may be trusted.
    pub captured: Option<Arc<Entry>>,
    /// The reader who led; the upstream may limit rates by his address.
    pub peer: Client,
    /// The Anterooms that the leader's request has passed.
    pub chain: Option<HeaderValue>,
    /// Who that is where clients take turns.
    pub client: IpAddr,
    /// What it was begun for.
    pub purpose: Purpose,
    /// Its span, if the leader has one.
    pub span: Option<FetchSpan>,
}

/// What a fetch is begun for.
pub enum Purpose {
    /// Readers: it waits for a place as long as one of them waits for it.
    ForReaders,
    /// Readers who get only what the upstream says from now on.
    ForReadersNow,
    /// To be there before readers wait: it waits for a place as long as a reader would.
    Behind,
    /// An audit, only because there was a place.
    Audit(Place),
}

/// What there is instead of a fetch.
pub(super) enum Found {
    /// An answer that another replica has fetched.
    Adopted(Arc<Entry>),
    /// Nothing. The others wait for this one's fetch, if it has been given the turn.
    Nothing(Option<Turn>),
    /// Nothing, and nobody waits any more.
    Unwanted,
}

/// For what a fetch waits for its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// As long as a reader waits for it.
    ForReaders,
    /// As long as a reader would.
    Behind,
}

/// A place among the fetches at once, for a client. The error is of too many who wait for one; none if it is wanted no longer.
pub(super) async fn place_for<T>(
    state: &State,
    active: &Active,
    client: IpAddr,
    waits: Waits,
    interest: &Interest<T>,
) -> Result<Place, Option<UpstreamError>> {
    let take = state.upstream.in_flight.take(client);
    match waits {
        Waits::Behind => tokio::time::timeout(active.config.flights.wait, take).await.ok().flatten().ok_or(None),
        Waits::ForReaders => tokio::select! {
            biased;
            () = interest.gone() => Err(None),
            place = take => place.ok_or_else(|| Some(active.upstream.health().spares(Why::Queue, Duration::from_secs(1)))),
        },
    }
}

/// An exchange under way, with its place among the fetches at once: both end with the answer's body.
pub(super) struct UnderWay {
    pub(super) exchange: Exchange,
    #[expect(dead_code, reason = "it is held, and let go of at the end")]
    pub(super) place: Place,
}

impl Guard for UnderWay {
    fn passed(&mut self, bytes: usize) {
        self.exchange.passed(bytes);
    }

    fn whole(&mut self) {
        self.exchange.whole();
    }

    fn broken(&mut self) {
        self.exchange.broken();
    }
}

impl Fetch {
    /// Waits for a place and fetches, from then on within the deadline. Stores what may be stored.
    pub async fn run(mut self, interest: Interest<FetchResult>) -> FetchResult {
        let result = self.run_to_its_end(&interest).await;
        if let Some(span) = &mut self.span {
            span.ended(result.label());
        }
        result
    }

    async fn run_to_its_end(&mut self, interest: &Interest<FetchResult>) -> FetchResult {
        let turn = match Box::pin(self.of_others(interest)).await {
            Found::Adopted(entry) => return FetchResult::Adopted(entry),
            Found::Unwanted => return FetchResult::NotSent,
            Found::Nothing(turn) => turn,
        };
        let place = match self.place(interest).await {
            Ok(place) => place,
            Err(without) => return without,
        };
        interest.sent();
        let knows = self.knows();
        let result = match tokio::time::timeout(self.active.config.fetch.timeout, self.run_without_deadline(place)).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => FetchResult::Failed(Failure::Upstream(error)),
            Err(_) => {
                self.active.upstream.health().failed(UpstreamError::Timeout);
                FetchResult::Failed(Failure::Upstream(UpstreamError::Timeout))
            }
        };
        self.tell_of_news(&result).await;
        self.hand_on(knows, turn, &result);
        result
    }

    /// An answer that differs from what was kept here and current shows a change of which nobody told: what other replicas
    /// keep is out of date, too. They get a moment to hear it, so that the reader finds nothing older with them.
    async fn tell_of_news(&self, result: &FetchResult) {
        let invalidation = &self.state.invalidation;
        let is_news = |captured: &Arc<Entry>| {
            let FetchResult::Answer { entry, stored: true, .. } = result else { return false };
            let same_settings = captured.fingerprint == entry.fingerprint;
            same_settings && invalidation.is_untold(captured) && captured.answer.body.kept() != entry.answer.body.kept()
        };
        if invalidation.fleet.as_ref().is_some_and(|fleet| fleet.is_leased()) && self.captured.as_ref().is_some_and(is_news) {
            let before = invalidation.ticket();
            invalidation.tell_list(&self.key);
            let _ = tokio::time::timeout(NEWS, invalidation.told_since(before)).await;
        }
    }

    /// A place among the fetches at once; none if it is wanted no longer, or too many wait for one.
    async fn place(&mut self, interest: &Interest<FetchResult>) -> Result<Place, FetchResult> {
        let waits = match std::mem::replace(&mut self.purpose, Purpose::ForReaders) {
            Purpose::Audit(place) => return Ok(place),
            Purpose::Behind => Waits::Behind,
            Purpose::ForReaders | Purpose::ForReadersNow => Waits::ForReaders,
        };
        let place = place_for(&self.state, &self.active, self.client, waits, interest).await;
        place.map_err(|error| error.map_or(FetchResult::NotSent, |error| FetchResult::Failed(Failure::Upstream(error))))
    }

    async fn run_without_deadline(&self, place: Place) -> Result<FetchResult, UpstreamError> {
        let (began, before) = (clock::now(), self.state.last_shown(&self.active, &self.key));
        let asked_if = self.condition();
        let request = self.request(asked_if.as_ref()).ok_or(UpstreamError::Malformed)?;
        let under_way = UnderWay { exchange: self.active.upstream.exchange(), place };
        let response = self.active.upstream.send(request).await?;
        let (head, body) = response.into_parts();
        let body = self.active.upstream.watch(body, under_way);
        let Self { state, active, key, noted, peer, .. } = self;
        let admission = Admission { state, active, key, noted: *noted, before, peer, began };
        match head.status {
            StatusCode::NOT_MODIFIED if asked_if.is_some() => {
                let captured = self.captured.as_ref().ok_or(UpstreamError::Malformed)?;
                Ok(admission.refreshed(captured, head).await)
            }
            status if status.is_informational() || status == StatusCode::NOT_MODIFIED => Err(UpstreamError::Malformed),
            status if status.is_server_error() || is_about_the_asker(status) => {
                admission.failed(head, body).await
            }
            _ => admission.answered(head, body).await,
        }
    }

    /// The request, from the key and an allow-list; `None` if it cannot be written.
    fn request(&self, asked_if: Option<&HeaderValue>) -> Option<Request<Body>> {
        let request_id = self.state.observation.request_id();
        let mut request = self.active.own_request(&self.key.path_and_query(), &request_id, &self.peer)?;
        // An origin, so that the answer shows what readers with one may get: the upstream's own, which tells nothing,
        // unless it tells origins apart.
        let base = self.active.upstream.base();
        let origin = self.key.origin().map_or_else(|| format!("{}://{}", base.scheme, base.authority), str::to_owned);
        let fields = request.headers_mut();
        fields.insert(header::ORIGIN, HeaderValue::try_from(origin).ok()?);
        if let Some(chain) = &self.chain
            && let Some(own) = fields.insert(header::VIA, chain.clone())
        {
            fields.append(header::VIA, own);
        }
        if let Some(span) = &self.span {
            fields.insert(TRACEPARENT, span.context.field());
        }
        if let Some(etag) = asked_if {
            fields.insert(header::IF_NONE_MATCH, etag.clone());
        }
        Some(request)
    }

    /// The validator to ask with. An outdated answer is only revalidated with one made from its body: with another,
    /// the upstream might not know that it has changed.
    fn condition(&self) -> Option<HeaderValue> {
        let captured = self.captured.as_ref().filter(|captured| {
            captured.answer.status == StatusCode::OK && captured.fingerprint == self.active.fingerprint
        })?;
        let etag = &captured.answer.upstream_etag()?;
        (self.state.invalidation.is_current(captured) || is_made_from_body(etag)).then(|| etag.clone())
    }

}
