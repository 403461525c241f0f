//! What the upstream's answers and failures leave behind: a count by class, a line now and then, and whether it is asked
//! at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};

use super::error::{Spared, UpstreamError, Why};
use super::settings::{BaseUrl, UpstreamSettings};
use crate::engine::clock;
use crate::engine::metrics::{ErrorClass, Metrics};
use crate::policy::breaker::Breaker;
use crate::policy::budget::Budget;
use crate::policy::http::attempts::retry_after;
use crate::policy::upstream_health::UpstreamHealth;

/// The last failure of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The cause in the words of the log, with the upstream's address.
    pub words: String,
    /// The class of RFC 9209, if there was no answer.
    pub class: Option<&'static str>,
    /// The status, if it answered with an error.
    pub status: Option<StatusCode>,
    /// When that was.
    pub at: Instant,
    /// Since when it has failed, if nothing better has come since.
    pub failing_since: Option<Instant>,
}

/// What the last failure was.
#[derive(Clone, Copy)]
enum Failure {
    NoAnswer(UpstreamError, ErrorClass),
    Status(StatusCode),
}

impl Failure {
    /// The cause in words.
    fn told_of(self, base: &BaseUrl) -> String {
        match self {
            Self::NoAnswer(error, _) => error.told_of(base),
            Self::Status(_) => format!("the upstream {} answers lists with an error", base.authority),
        }
    }
}

/// Told of every answer and every failure.
pub struct Health {
    /// Locked for a comparison of instants.
    state: Mutex<UpstreamHealth>,
    last: Arc<Mutex<Option<(Failure, Instant)>>>,
    /// None if it is switched off.
    breaker: Option<Mutex<Breaker>>,
    /// What was sent within the last minute, whatever the settings were.
    budget: Arc<Mutex<Budget>>,
    requests_per_minute: Option<usize>,
    base: BaseUrl,
    metrics: Arc<Metrics>,
}

impl Health {
    pub(super) fn new(settings: &UpstreamSettings, metrics: Arc<Metrics>) -> Self {
        metrics.ways.breaker_open.set(0);
        Self {
            state: Mutex::default(),
            last: Arc::default(),
            breaker: settings.breaker.then(Mutex::default),
            budget: Arc::new(Mutex::new(Budget::new(clock::now()))),
            requests_per_minute: settings.requests_per_minute,
            base: settings.base.clone(),
            metrics,
        }
    }

    /// The same, and what was before is not forgotten: what was sent, and the last failure of the same upstream.
    pub(super) fn after(mut self, before: &Self) -> Self {
        self.budget = before.budget.clone();
        if self.base == before.base {
            self.last = before.last.clone();
        }
        self
    }

    /// Whether a request may be sent now; it is counted.
    pub(super) fn admit(&self, method: &Method) -> Result<(), UpstreamError> {
        let now = clock::now();
        let asked = self.breaker().map_or(Ok(()), |mut breaker| breaker.ask(now));
        asked.map_err(|after| self.spares(Why::Failing, after))?;
        let Some(limit) = self.requests_per_minute else { return Ok(()) };
        let mut budget = lock(&self.budget);
        let taken = budget.take(now, limit, is_write(method));
        self.metrics.ways.budget_left.set(i64::try_from(budget.left(limit, true)).unwrap_or(i64::MAX));
        drop(budget);
        taken.map_err(|after| self.spares(Why::Budget, after))
    }

    /// Why a request would not be sent now, if it would not; nothing is counted.
    pub fn would_spare(&self, method: &Method) -> Option<Why> {
        if self.is_left_alone() {
            return Some(Why::Failing);
        }
        let limit = self.requests_per_minute?;
        (!lock(&self.budget).has_room(clock::now(), limit, is_write(method))).then_some(Why::Budget)
    }

    /// Whether it is left alone since it fails.
    pub fn is_left_alone(&self) -> bool {
        self.breaker().is_some_and(|breaker| breaker.refuses(clock::now()))
    }

    /// A request is not sent.
    pub fn spares(&self, why: Why, after: Duration) -> UpstreamError {
        self.metrics.ways.spared.with_label_values(&[why.label()]).inc();
        let seconds = u32::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        UpstreamError::Spared(Spared { why, seconds: seconds.max(1) })
    }

    /// The upstream gave no answer, or not the whole of it. A client's own fault says nothing of the upstream.
    pub fn failed(&self, error: UpstreamError) {
        let Some(class) = error.class() else { return };
        self.metrics.upstream_errors.with_label_values(&[class.label()]).inc();
        if matches!(error, UpstreamError::Connect(_) | UpstreamError::Timeout | UpstreamError::Reset)
            && class != ErrorClass::ProxyInternalError
        {
            self.count_failure(None);
        }
        let failure = Failure::NoAnswer(error, class);
        if let Some(count) = self.note_failure(failure) {
            tracing::warn!(error = class.label(), count, "{}", failure.told_of(&self.base));
        }
    }

    /// It answered a shared fetch that it cannot serve it.
    pub fn refused(&self, status: StatusCode) {
        if status.is_server_error() && !is_unavailable(status) {
            self.count_failure(None);
        }
        let failure = Failure::Status(status);
        if let Some(count) = self.note_failure(failure) {
            tracing::warn!(status = status.as_u16(), count, "{}", failure.told_of(&self.base));
        }
    }

    /// The head of an answer has come.
    pub(super) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        if is_unavailable(status) {
            let since_1970 = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.count_failure(retry_after(headers, since_1970));
        } else if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            self.works();
        }
        // Of the rest a shared fetch tells; for anything else it is the application's word, which whoever likes may
        // provoke: no reason to leave the upstream alone, and no recovery.
    }

    /// It answered as it should.
    fn works(&self) {
        if self.breaker().is_some_and(|mut breaker| breaker.succeeded()) {
            self.metrics.ways.breaker_open.set(0);
            tracing::info!("the upstream {} works again: it is asked as usual", self.base.authority);
        }
        let recovered = lock(&self.state).answered(clock::now());
        if let Some(recovered) = recovered {
            let failed_for_s = recovered.after.as_secs();
            tracing::info!(
                failed_for_s,
                count = recovered.failures,
                "the upstream {} answers again",
                self.base.authority
            );
        }
    }

    /// One more reason to leave it alone; for how long, if it said that.
    fn count_failure(&self, told: Option<Duration>) {
        if self.breaker().is_some_and(|mut breaker| breaker.failed(clock::now(), told)) {
            self.metrics.ways.breaker_open.set(1);
            tracing::warn!(
                "the upstream {} has given nothing but failures: it is left alone, but for one request a second",
                self.base.authority
            );
        }
    }

    /// The last failure, if there was one.
    pub fn trouble(&self) -> Option<Trouble> {
        let (failure, at) = (*lock(&self.last))?;
        let (class, status) = match failure {
            Failure::NoAnswer(_, class) => (Some(class.label()), None),
            Failure::Status(status) => (None, Some(status)),
        };
        let failing_since = lock(&self.state).failing_since();
        Some(Trouble { words: failure.told_of(&self.base), class, status, at, failing_since })
    }

    fn note_failure(&self, failure: Failure) -> Option<u64> {
        let now = clock::now();
        *lock(&self.last) = Some((failure, now));
        lock(&self.state).failed(now)
    }

    fn breaker(&self) -> Option<MutexGuard<'_, Breaker>> {
        self.breaker.as_ref().map(lock)
    }
}

/// For which a part of the budget is kept.
fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// It cannot answer anything, as it says itself or whoever stands before it.
fn is_unavailable(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Held briefly, never across an await; a panic while it is held leaves it whole.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
