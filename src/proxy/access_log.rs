//! A request from its head to the end of its answer: counted and logged once, on every way out.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::Entry;
use http::{HeaderValue, Method, Response, StatusCode};

use super::outcome::Outcome;
use crate::config::{LogClient, LogOnly, LogSettings};
use crate::engine::body::{Body, Guard, Watched};
use crate::engine::clock;
use crate::engine::metrics::{Ending, Metrics, method_label};
use crate::engine::top::{Asked, Top};
use crate::engine::spans::{Attribute, Traced};
use crate::policy::http::headers::{CACHE_STATUS, X_REQUEST_ID};
use crate::policy::http::key::Key;
use crate::policy::http::route_name::UNREAD;
use crate::policy::resource::ReadKind;
use crate::state::State;
use crate::state::observation::{Observation, Pseudonyms};

/// What of a request is known from its head.
#[derive(Clone)]
pub struct About {
    method: Method,
    /// From a closed set.
    route: &'static str,
    /// Which read it is, if it is one that may come from memory.
    read: Option<ReadKind>,
    request_id: HeaderValue,
    client: Option<Client>,
    contact: Option<Contact>,
    pseudonyms: Pseudonyms,
    /// Of the client's trace; in its closed form.
    trace_id: Option<Box<str>>,
}

/// Whom a request is about. The identifier is a credential, so the log has a keyed hash of it: made when there is a
/// line, since most hits have none.
#[derive(Clone)]
pub enum Contact {
    /// By the key of a read.
    Of(Key),
    /// As the log has it.
    Hash(u64),
}

impl Contact {
    fn told(&self, pseudonyms: &Pseudonyms) -> String {
        let hash = match self {
            Self::Of(key) => pseudonyms.contact(key.inbox(), key.contact()),
            Self::Hash(hash) => *hash,
        };
        format!("{hash:016x}")
    }
}

/// A client's address, as `log.client` wants it told.
#[derive(Clone, Copy)]
enum Client {
    Whole(IpAddr),
    Hash(u64),
}

impl Client {
    fn new(how: LogClient, address: IpAddr, observation: &Observation) -> Option<Self> {
        match how {
            LogClient::Off => None,
            LogClient::Whole => Some(Self::Whole(address.to_canonical())),
            LogClient::Hash => Some(Self::Hash(observation.pseudonyms.address(address.to_canonical()))),
        }
    }

    fn told(self) -> String {
        match self {
            Self::Whole(address) => address.to_string(),
            Self::Hash(hash) => format!("{hash:016x}"),
        }
    }
}

/// What is counted while a request is under way.
#[derive(Default)]
pub struct Tally {
    /// Bytes of the request's body, as they come.
    pub received: AtomicU64,
    /// How long it waited for the upstream, in microseconds.
    upstream: AtomicU64,
}

impl Tally {
    /// Awaits something of the upstream's: the head of an answer, or a fetch that others share.
    pub async fn waiting<T>(&self, waiting: impl Future<Output = T>) -> T {
        let began = clock::now();
        let result = waiting.await;
        let took = u64::try_from(clock::since(began).as_micros()).unwrap_or(u64::MAX);
        // Zero is for those who did not wait at all.
        self.upstream.fetch_add(took.max(1), Ordering::Relaxed);
        result
    }
}

/// Which access lines are written.
#[derive(Clone, Copy)]
struct Wanted {
    only: LogOnly,
    slow: Duration,
}

/// A request from its head to the end of its answer. Counts and logs it exactly once, on every way out.
pub struct Record {
    metrics: Arc<Metrics>,
    began: Instant,
    about: About,
    tally: Arc<Tally>,
    sent: u64,
    /// What is told if nobody says otherwise: the client left before there was an answer.
    ending: Ending,
    detail: Option<&'static str>,
    error: Option<&'static str>,
    status: StatusCode,
    wanted: Wanted,
    /// It is in the share of its kind that gets a line.
    sampled: bool,
    /// Somebody watches who asks most: hardly ever, so it takes no room here.
    source: Option<Box<OfSource>>,
    /// Its span, if it gets one.
    traced: Option<Arc<Traced>>,
}

/// What is counted of a request while somebody watches who asks most.
struct OfSource {
    top: Arc<Top>,
    inbox: u64,
    contact: u64,
}

impl Record {
    /// Begins with a request's head.
    pub fn begin(state: &State, settings: &LogSettings, method: Method, request_id: HeaderValue) -> Self {
        Self::begun(state, settings, method, request_id, clock::now())
    }

    /// The same for one that has begun.
    pub fn begun(
        state: &State,
        settings: &LogSettings,
        method: Method,
        request_id: HeaderValue,
        began: Instant,
    ) -> Self {
        let pseudonyms = state.observation.pseudonyms.clone();
        Self {
            began,
            about: About { method, route: UNREAD, read: None, request_id, client: None, contact: None, pseudonyms, trace_id: None },
            tally: Arc::default(),
            sent: 0,
            ending: Ending::Failed,
            detail: Some("client-left"),
            error: None,
            status: StatusCode::from_u16(499).expect("a status has three digits"),
            wanted: Wanted { only: settings.only, slow: settings.slow },
            sampled: true,
            source: None,
            traced: None,
            metrics: state.metrics.clone(),
        }
    }

    /// When its head had come.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// From where it came.
    pub fn came_from(&mut self, how: LogClient, address: IpAddr, observation: &Observation) {
        self.about.client = Client::new(how, address, observation);
    }

    /// What it asks for, by a name from a closed set, and whom it is about.
    pub fn asks_for(&mut self, route: &'static str, contact: Option<Contact>) {
        if let Some(Contact::Of(key)) = &contact {
            self.about.read = Some(key.read());
        }
        (self.about.route, self.about.contact) = (route, contact);
    }

    /// Somebody watches who asks most; it is of this inbox and this contact.
    pub fn is_watched_as(&mut self, observation: &Observation, (inbox, contact): (&str, &str)) {
        let Observation { top, pseudonyms, .. } = observation;
        let (inbox, contact) = (pseudonyms.inbox(inbox), pseudonyms.contact(inbox, contact));
        self.source = Some(Box::new(OfSource { top: top.clone(), inbox, contact }));
    }

    /// Which trace of the client's it belongs to.
    pub fn belongs_to(&mut self, trace_id: &str) {
        self.about.trace_id = Some(trace_id.into());
    }

    /// Its span, which ends with it.
    pub fn is_traced(&mut self, traced: Option<Arc<Traced>>) {
        self.traced = traced;
    }

    /// What its span tells: nothing that a client wrote.
    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let words = [("error.type", self.error), ("anteroom.detail", self.detail)];
        let known = [
            ("http.request.method", Attribute::Word(method_label(&self.about.method))),
            ("http.response.status_code", Attribute::Number(self.status.as_u16().into())),
            ("http.route", Attribute::Word(self.about.route)),
            ("anteroom.outcome", Attribute::Word(self.ending.label())),
        ];
        let words = words.into_iter().filter_map(|(name, word)| Some((name, Attribute::Word(word?))));
        known.into_iter().chain(words).collect()
    }

    /// Where bytes and waiting are counted.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// What its tunnel will be told of with, if it becomes one.
    pub fn about(&self) -> About {
        self.about.clone()
    }

    /// The answer is ready, and was sent with this body.
    pub fn sent(mut self, status: StatusCode, outcome: &Outcome, sampled: bool, bytes: usize) {
        self.answered(status, outcome, sampled);
        self.sent = bytes as u64;
    }

    fn answered(&mut self, status: StatusCode, outcome: &Outcome, sampled: bool) {
        (self.ending, self.detail, self.error) = (outcome.ending, outcome.detail, outcome.error);
        (self.status, self.sampled) = (status, sampled);
    }

    /// The answer is ready: marks it, and tells of it when its body has ended. `sampled`: it is in the share of its kind
    /// that gets a line.
    pub fn end(mut self, mut response: Response<Body>, outcome: &Outcome, sampled: bool) -> Response<Body> {
        self.answered(response.status(), outcome, sampled);
        let headers = response.headers_mut();
        // Ours comes last, after those of caches nearer to the origin (RFC 9211 section 2); a kept answer's is empty.
        match headers.entry(CACHE_STATUS) {
            Entry::Occupied(mut others) if !others.get().is_empty() => others.append(outcome.field()),
            Entry::Occupied(mut empty) => drop(empty.insert(outcome.field())),
            Entry::Vacant(place) => drop(place.insert(outcome.field())),
        }
        headers.insert(X_REQUEST_ID, self.about.request_id.clone());
        let in_memory = response.body().length_in_memory();
        self.sent = in_memory.unwrap_or(self.sent);
        // A body without a byte is not polled: it is whole.
        if in_memory.is_some() || response.body().is_empty() {
            return response;
        }
        // Until the body has ended, its client may leave.
        let detail = self.detail.replace("client-left");
        response.map(|body| Body::stream(Watched::guarded(body, Streamed { record: self, detail })))
    }

    /// Nobody's fault but the upstream's or this side's.
    fn has_failed(&self) -> bool {
        self.ending == Ending::Failed && !matches!(self.detail, Some("client-left" | "client" | "cut-short"))
    }

    fn gets_a_line(&self, took: Duration) -> bool {
        // A tunnel has its line when it ends.
        if self.status == StatusCode::SWITCHING_PROTOCOLS {
            return false;
        }
        let Wanted { only, slow } = self.wanted;
        let is_slow = !slow.is_zero() && took >= slow;
        let is_trouble = self.has_failed() || self.status.is_server_error() || self.detail == Some(STANDS_IN);
        is_slow || (self.sampled && (only == LogOnly::All || is_trouble))
    }
}

/// Why a kept answer stands in: the upstream fails.
pub(crate) const STANDS_IN: &str = "upstream-failing";

impl Drop for Record {
    fn drop(&mut self) {
        let took = clock::now().saturating_duration_since(self.began);
        self.metrics.request_ended(self.ending, &self.about.method, self.status, took);
        if let Some(read) = self.about.read {
            self.metrics.reads.ended(read, self.ending);
        }
        if matches!(self.ending, Ending::Hit | Ending::Stale | Ending::Miss | Ending::Joined) {
            self.metrics.payload_bytes_sent.inc_by(self.sent);
        }
        if let Some(OfSource { top, inbox, contact }) = self.source.as_deref() {
            let is_miss = matches!(self.ending, Ending::Miss | Ending::Joined | Ending::Bypass);
            top.count(Asked { inbox: *inbox, contact: *contact, bytes: self.sent, is_miss });
        }
        if let Some(traced) = self.traced.take() {
            traced.ended(took, self.has_failed() || self.status.is_server_error(), self.attributes());
        }
        if self.gets_a_line(took) {
            let upstream = self.tally.upstream.load(Ordering::Relaxed);
            Line {
                outcome: self.ending,
                status: self.status.as_u16(),
                detail: self.detail,
                error: self.error,
                took,
                upstream: (upstream > 0).then(|| Duration::from_micros(upstream)),
                received: self.tally.received.load(Ordering::Relaxed),
                sent: self.sent,
                warns: self.has_failed(),
            }
            .write(&self.about);
        }
    }
}

/// One access line.
struct Line {
    outcome: Ending,
    status: u16,
    detail: Option<&'static str>,
    error: Option<&'static str>,
    took: Duration,
    upstream: Option<Duration>,
    received: u64,
    sent: u64,
    warns: bool,
}

/// With three digits behind the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Line {
    fn write(self, about: &About) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "anteroom::access",
                    outcome = self.outcome.label(),
                    method = method_label(&about.method),
                    route = about.route,
                    status = self.status,
                    detail = self.detail,
                    error = self.error,
                    duration_ms = milliseconds(self.took),
                    upstream_ms = self.upstream.map(milliseconds),
                    received = self.received,
                    sent = self.sent,
                    client = about.client.map(Client::told),
                    contact = about.contact.as_ref().map(|contact| contact.told(&about.pseudonyms)),
                    request_id = about.request_id.to_str().ok().filter(|id| !id.is_empty()),
                    trace_id = about.trace_id.as_deref(),
                )
            };
        }
        if self.warns { line!(warn) } else { line!(info) }
    }
}

/// The record of a streamed answer, which ends with it.
struct Streamed {
    record: Record,
    /// What is told if it was whole.
    detail: Option<&'static str>,
}

impl Guard for Streamed {
    fn passed(&mut self, bytes: usize) {
        self.record.sent += bytes as u64;
    }

    fn whole(&mut self) {
        self.record.detail = self.detail;
    }

    fn broken(&mut self) {
        self.record.detail = Some("cut-short");
    }
}

/// A tunnel, from the switching of protocols to its end, when it gets its line.
pub struct TunnelRecord {
    about: About,
    began: Instant,
    only: LogOnly,
    /// Bytes from the client, and to it.
    passed: Arc<[AtomicU64; 2]>,
}

impl TunnelRecord {
    /// Begins when the protocols are switched.
    pub fn begin(about: About, settings: &LogSettings) -> Self {
        Self { about, began: clock::now(), only: settings.only, passed: Arc::default() }
    }

    /// Counts what comes from the client.
    pub fn received(&self) -> impl FnMut(&[u8]) + Send + 'static {
        self.counting(0)
    }

    /// Counts what goes to the client.
    pub fn sent(&self) -> impl FnMut(&[u8]) + Send + 'static {
        self.counting(1)
    }

    fn counting(&self, way: usize) -> impl FnMut(&[u8]) + Send + 'static {
        let passed = self.passed.clone();
        move |piece| {
            passed[way].fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Drop for TunnelRecord {
    fn drop(&mut self) {
        // One that lasts long is not slow.
        if self.only != LogOnly::All {
            return;
        }
        let [received, sent] = [0, 1].map(|way: usize| self.passed[way].load(Ordering::Relaxed));
        let (outcome, status) = (Ending::Pass, StatusCode::SWITCHING_PROTOCOLS.as_u16());
        let (took, detail) = (clock::since(self.began), Some("tunnel-ended"));
        let line = Line { outcome, status, detail, error: None, took, upstream: None, received, sent, warns: false };
        line.write(&self.about);
    }
}

/// What never became a request, since it could not be read: it has a line all the same, with the status that it was
/// given, if any.
pub fn log_unread(settings: &LogSettings, observation: &Observation, address: IpAddr, status: StatusCode, detail: &'static str) {
    if settings.only != LogOnly::All {
        return;
    }
    let client = Client::new(settings.client, address, observation);
    let method = Method::from_bytes(b"UNREAD").expect("a token");
    let request_id = HeaderValue::from_static("");
    let pseudonyms = observation.pseudonyms.clone();
    let about = About { method, route: UNREAD, read: None, request_id, client, contact: None, pseudonyms, trace_id: None };
    let (outcome, status, took) = (Ending::Refused, status.as_u16(), Duration::ZERO);
    let detail = Some(detail);
    Line { outcome, status, detail, error: None, took, upstream: None, received: 0, sent: 0, warns: false }.write(&about);
}
