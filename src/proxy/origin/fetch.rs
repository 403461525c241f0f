//! One request to the upstream, made of the client's end-to-end fields; a stored answer is asked about by its validator.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::response::Parts;
use http::{HeaderMap, Method, Request, StatusCode, header};

use super::asking::Asking;
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::flights::{FlightEnd, Interest, NewFlight};
use crate::engine::places::Place;
use crate::engine::responses::{Fetched, Stored};
use crate::engine::spans::FetchSpan;
use crate::engine::upstream::error::{UpstreamError, Why};
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::attempts::PAUSE;
use crate::policy::http::client::Client;
use crate::policy::http::headers::TRACEPARENT;
use crate::policy::http::key::Key;
use crate::policy::http::representation::is_made_from_body;
use crate::policy::http::route::{has_authorization, is_plain};
use crate::policy::rfc9111::freshness::Arrival;
use crate::policy::rfc9111::part::ask_for_rest;
use crate::policy::rfc9111::reuse::is_error;
use crate::policy::rfc9111::storable::Asked;
use crate::policy::rfc9111::validate::{ask_for_all, ask_whether, is_about, is_for_the_origin, wants_something_of_its_own};
use crate::proxy::fetch::{UnderWay, Waits, place_for};
use crate::proxy::request::ClientRequest;
use crate::state::State;
use crate::state::upstream::Active;

/// How a shared fetch begins.
type Fetching = Box<dyn FnOnce(Interest<Fetched>) -> Pin<Box<dyn Future<Output = Fetched> + Send>>>;
/// What follows from its end.
type Landing = Box<dyn FnOnce(FlightEnd, Option<&Fetched>) + Send>;

/// One fetch, and what was known when it was decided on.
pub(super) struct Fetch {
    pub(super) state: Arc<State>,
    /// The settings it is made under.
    pub(super) active: Arc<Active>,
    /// Whose answer it is.
    pub(super) key: Key,
    /// The tick noted before anything is sent.
    pub(super) noted: Tick,
    /// Whose its source was known to be then.
    pub(super) before: Option<u64>,
    /// The request; none if it cannot be written.
    head: Option<Request<()>>,
    pub(super) body: Body,
    /// What the upstream was shown of the client's fields: that chose the answer.
    pub(super) chosen_by: HeaderMap,
    /// What decides whether the answer may be stored; none if it is none to a plain `GET`.
    pub(super) storing: Option<Asked>,
    /// What is stored for this request.
    pub(super) stored: Option<Arc<Stored>>,
    /// The same, if an answer to `HEAD` may say something of it that holds for everybody.
    pub(super) told_of: Option<Arc<Stored>>,
    asks: Asks,
    /// The upstream was not asked what the client asked: its conditions, or the part that it wants, were left out, or only the
    /// rest is asked for.
    pub(super) asks_otherwise: bool,
    /// Others may wait for it.
    pub(super) interest: Option<Interest<Fetched>>,
    /// For whom.
    pub(super) peer: Client,
    client: IpAddr,
    waits: Waits,
    /// Its span, if others may wait for it and whoever began it has one.
    span: Option<FetchSpan>,
}

/// What the upstream is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// What the client asked.
    TheSame,
    /// Whether what is stored still holds.
    Whether,
    /// Only the rest of a stored part.
    TheRest,
}

/// When a request was sent and when the head of its answer came, by the wall clock, and by the one that does not jump.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) arrival: Arrival,
    pub(super) received_at: Instant,
    pub(super) began: Instant,
}

impl ClientRequest {
    /// Whether a stored answer has a validator that the upstream may be asked about it by, and would have changed with it: of
    /// what is known to be out of date, only one that is made from the body says so.
    pub(super) fn may_be_asked_about(&self, stored: &Stored) -> bool {
        let by_date = self.is_in_force(stored, clock::now());
        ask_whether(&stored.fields, &mut HeaderMap::new(), by_date)
            && (by_date || stored.fields.get(header::ETAG).is_some_and(is_made_from_body))
    }
}

impl Fetch {
    /// The fetch for a request.
    pub(super) fn of(request: &ClientRequest, asking: &Asking, waits: Waits) -> Self {
        // In this order: whoever still gets the settings from before a reload has noted a tick from before it.
        request.state.invalidation.asked_for(&asking.key);
        let noted = request.state.invalidation.ledger.own_tick();
        let active = request.state.active();
        let before = request.state.last_shown(&active, &asking.key);
        let (headers, key) = (&request.head.headers, &asking.key);
        let target = active.upstream.base().join(&key.path_and_query());
        let mut head = target.ok().map(|target| request.head_onward(target));
        // What the upstream was shown chooses: a client may have fields taken out on the way (`Connection`).
        let chosen_by = head.as_ref().map_or_else(HeaderMap::new, |head| head.headers().clone());
        let is_plain = is_plain(headers);
        let is_get = waits == Waits::Behind || request.head.method == Method::GET;
        let stored = asking.stored.clone().filter(|stored| stored.fingerprint == active.fingerprint);
        let asks_whether = is_get
            && is_plain
            && !is_for_the_origin(headers)
            && stored.as_ref().is_some_and(|stored| request.may_be_asked_about(stored));
        let part = request.may_be_completed(asking).filter(|(part, _)| part.fingerprint == active.fingerprint);
        if let (Some(head), Some(stored), true) = (&mut head, &stored, asks_whether) {
            ask_whether(&stored.fields, head.headers_mut(), request.is_in_force(stored, clock::now()));
        } else if let (Some(head), Some((part, extent))) = (&mut head, &part) {
            ask_for_rest(&part.fields, *extent, head.headers_mut());
        } else if let (Some(head), Waits::Behind) = (&mut head, waits) {
            // Whoever has been answered already wants nothing more of his own.
            ask_for_all(head.headers_mut());
        }
        if let (Some(head), Waits::Behind) = (&mut head, waits) {
            *head.method_mut() = Method::GET;
        }
        let asked = Asked {
            has_credentials: has_authorization(headers, request.head.uri.query()),
            no_store: asking.wants.no_store,
        };
        let storing = (is_get && is_plain).then_some(asked);
        // What a client says of himself decides nothing for others.
        let learns = is_plain && !asked.has_credentials && !asked.no_store && !is_for_the_origin(headers);
        let is_head = head.as_ref().is_some_and(|head| *head.method() == Method::HEAD);
        Self {
            state: request.state.clone(),
            active,
            key: key.clone(),
            noted,
            before,
            head,
            body: Body::empty(),
            chosen_by,
            storing,
            told_of: stored.clone().filter(|_| is_head && learns),
            stored,
            asks: match (asks_whether, &part) {
                (true, _) => Asks::Whether,
                (false, Some(_)) => Asks::TheRest,
                (false, None) => Asks::TheSame,
            },
            asks_otherwise: part.is_some() || (asks_whether && wants_something_of_its_own(headers)),
            interest: None,
            peer: request.client(),
            client: request.client_network(),
            waits,
            span: None,
        }
    }

    /// The fetch with a span of its own, as part of the request's, if that has one; others wait for it by this key.
    pub(super) fn traced(mut self, request: &ClientRequest, choice: &Key) -> Self {
        self.span = request.traced.as_ref().map(|traced| traced.fetch(choice));
        if let (Some(head), Some(span)) = (&mut self.head, &self.span) {
            head.headers_mut().insert(TRACEPARENT, span.context.field());
        }
        self
    }

    /// Waits for a place, and fetches.
    async fn run(mut self, interest: Interest<Fetched>) -> Fetched {
        let span = self.span.take();
        let fetched = self.run_to_its_end(interest).await;
        if let Some(mut span) = span {
            span.ended(fetched.label());
        }
        fetched
    }

    async fn run_to_its_end(mut self, interest: Interest<Fetched>) -> Fetched {
        let place = match place_for(&self.state, &self.active, self.client, self.waits, &interest).await {
            Ok(place) => place,
            Err(error) => return error.map_or(Fetched::NotSent, Fetched::Failed),
        };
        interest.sent();
        self.interest = Some(interest);
        self.run_with(place).await
    }

    /// Fetches, within the deadline of a fetch.
    pub(super) async fn run_with(mut self, place: Place) -> Fetched {
        let limit = self.active.config.fetch.timeout;
        let fetched = match tokio::time::timeout(limit, self.exchange(place)).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) => Fetched::Failed(error),
            Err(_) => {
                self.active.upstream.health().failed(UpstreamError::Timeout);
                Fetched::Failed(UpstreamError::Timeout)
            }
        };
        self.learn_from_end(&fetched);
        fetched
    }

    /// What stands in for an upstream that fails is not asked for again at once.
    fn learn_from_end(&self, fetched: &Fetched) {
        let has_failed = match fetched {
            Fetched::Answer { status, .. } => is_error(*status),
            Fetched::Failed(error) if !matches!(error, UpstreamError::Spared(_)) && !error.is_of_client() => true,
            _ => return,
        };
        let (upstream, epoch, now) = (&self.state.upstream, &self.state.invalidation.epoch, clock::now());
        if !has_failed {
            upstream.succeeded();
        } else if let Some(stored) = &self.stored {
            stored.failure.note(|before| upstream.failed(before, epoch.moment(now), epoch.moment_after(now, PAUSE)));
        }
    }

    async fn exchange(&mut self, place: Place) -> Result<Fetched, UpstreamError> {
        let (head, body, times) = self.send(place).await?;
        if head.status.is_informational() {
            return Err(UpstreamError::Malformed);
        }
        match (self.asks, head.status, self.stored.clone()) {
            (Asks::Whether, StatusCode::NOT_MODIFIED, Some(stored)) => {
                // Else it is about another answer than the one that was asked about (section 4.3.4).
                let is_about_it = is_about(&stored.fields, &head.headers);
                if is_about_it { Ok(self.still_holds(&stored, head, times).await) } else { self.once_more(body).await }
            }
            (Asks::TheRest, StatusCode::RANGE_NOT_SATISFIABLE, _) => self.once_more(body).await,
            (Asks::TheRest, StatusCode::PARTIAL_CONTENT, _) => match self.received(head, body, times).await? {
                Fetched::Answer { stored: Some(stored), first, .. } if stored.part.is_some() => self.once_more(first).await,
                Fetched::Answer { stored: None, first, .. } => self.once_more(first).await,
                whole => Ok(whole),
            },
            _ => self.received(head, body, times).await,
        }
    }

    /// Asks for the whole, after what came is of no use to whoever asked for it. `useless` is let go of first: it holds a place.
    async fn once_more<T>(&mut self, useless: T) -> Result<Fetched, UpstreamError> {
        drop(useless);
        let take = self.state.upstream.in_flight.take(self.client).await;
        let place = take.ok_or_else(|| self.active.upstream.health().spares(Why::Queue, Duration::from_secs(1)))?;
        self.asks = Asks::TheSame;
        self.asks_otherwise = wants_something_of_its_own(&self.chosen_by);
        if let Some(head) = &mut self.head {
            ask_for_all(head.headers_mut());
        }
        let (head, body, times) = self.send(place).await?;
        self.received(head, body, times).await
    }

    async fn send(&mut self, place: Place) -> Result<(Parts, Body, Times), UpstreamError> {
        let head = self.head.clone().ok_or(UpstreamError::Malformed)?;
        let request = head.map(|()| std::mem::replace(&mut self.body, Body::empty()));
        let (asked, began) = (since_1970(), clock::now());
        let under_way = UnderWay { exchange: self.active.upstream.exchange(), place };
        let response = self.active.upstream.send(request).await?;
        let arrival = Arrival { version: response.version(), asked, received: since_1970() };
        let times = Times { arrival, received_at: clock::now(), began };
        let (head, body) = response.into_parts();
        Ok((head, self.active.upstream.watch(body, under_way), times))
    }
}

/// The wall clock.
fn since_1970() -> Duration {
    clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A fetch that others may wait for.
pub(super) fn begin(fetch: Fetch) -> NewFlight<Fetching, Landing> {
    let (noted, state) = (fetch.noted, fetch.state.clone());
    let on_end = move |end: FlightEnd, fetched: Option<&Fetched>| {
        let label = match (end, fetched) {
            (FlightEnd::Arrived { .. }, Some(fetched)) => fetched.label(),
            _ => "dropped",
        };
        state.metrics.flight_ends.with_label_values(&[label]).inc();
    };
    let fetch: Fetching = Box::new(move |interest| Box::pin(fetch.run(interest)));
    NewFlight { noted, fetch, on_end: Box::new(on_end) }
}
