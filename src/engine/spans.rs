//! Spans of requests and of shared fetches, for whoever traces: who has one, and the queue that they leave by. Nobody waits
//! for a span; what finds no room is counted and lost.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::{mpsc, oneshot};

use super::clock;
use super::sampler::Sampler;
use crate::policy::http::headers::{TRACEPARENT, TRACESTATE};
use crate::policy::http::key::Key;
use crate::policy::http::trace::TraceContext;

/// Spans that may wait to be sent: some megabytes.
const QUEUE: usize = 4096;

/// What is traced, and for whom.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// `tracing.endpoint`: the collector, which takes OTLP over HTTP; `None` traces nothing.
    pub endpoint: Option<String>,
    /// `tracing.sample`: the share of requests that get a span, where no `traceparent` has decided.
    pub sample: f64,
}

/// The URL for spans at a collector (OTLP specification, "OTLP/HTTP Request").
pub fn traces_url(endpoint: &str) -> String {
    format!("{}/v1/traces", endpoint.trim_end_matches('/'))
}

/// One span, ended.
#[derive(Debug)]
pub struct Span {
    /// Which it is.
    pub context: TraceContext,
    /// The span that it is part of, and whether that is another program's.
    pub parent: Option<(u64, bool)>,
    /// A fetch of another trace that it waited for.
    pub link: Option<TraceContext>,
    /// Whether it is a client's request, or one of ours to the upstream.
    pub kind: Kind,
    /// When it began, by the wall clock.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Whether that is anybody's fault but the client's.
    pub failed: bool,
    /// What is told of it: words from closed sets, and numbers. So no identifier can get there.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// What a span is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request of a client.
    Request,
    /// A shared fetch.
    Fetch,
}

/// What is told of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// From a closed set.
    Word(&'static str),
    /// Any number.
    Number(i64),
}

/// What is in the queue.
#[derive(Debug)]
pub enum Queued {
    /// A span to be sent.
    Span(Box<Span>),
    /// Somebody waits until all before it are sent.
    Flush(oneshot::Sender<()>),
}

/// Who gets a span, and where it goes.
pub struct Spans {
    queue: mpsc::Sender<Queued>,
    share: f64,
    sampler: Sampler,
    ids: (RandomState, AtomicU64),
    /// The fetches under way that have a span, for those who come to wait for them.
    fetches: Mutex<HashMap<Key, TraceContext>>,
    dropped: IntCounter,
}

impl Spans {
    /// Both ends of the queue.
    pub fn new(share: f64, results: &IntCounterVec) -> (Arc<Self>, mpsc::Receiver<Queued>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let this = Self {
            queue,
            share,
            sampler: Sampler::default(),
            ids: (RandomState::new(), AtomicU64::new(0)),
            fetches: Mutex::default(),
            dropped: results.with_label_values(&["dropped"]),
        };
        (Arc::new(this), receiver)
    }

    /// The span of a request, if it gets one: as the client's own trace has decided, else by the share. What is sent on of
    /// its head then names this span.
    pub fn begin(self: &Arc<Self>, headers: &mut HeaderMap) -> Option<Arc<Traced>> {
        let parent = TraceContext::of(headers);
        // A state belongs to the trace that it came with; without one it is nobody's (W3C Trace Context, section 3.3).
        if parent.is_none() {
            headers.remove(TRACESTATE);
        }
        if !parent.map_or_else(|| self.sampler.takes(self.share), |parent| parent.sampled) {
            return None;
        }
        let trace = parent.map_or_else(|| u128::from(self.id()) << 64 | u128::from(self.id()), |parent| parent.trace);
        let context = TraceContext { trace, span: self.id(), sampled: true };
        headers.insert(TRACEPARENT, context.field());
        let (spans, parent) = (self.clone(), parent.map(|parent| parent.span));
        Some(Arc::new(Traced { spans, context, parent, began: clock::wall(), waited_for: OnceLock::new() }))
    }

    /// A number that nobody can guess, and not zero.
    fn id(&self) -> u64 {
        let (key, count) = &self.ids;
        key.hash_one(count.fetch_add(1, Ordering::Relaxed)).max(1)
    }

    fn send(&self, span: Span) {
        if self.queue.try_send(Queued::Span(Box::new(span))).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until all spans so far are sent, at most so long.
    pub async fn flush(&self, limit: Duration) {
        let (sent, told) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Queued::Flush(sent)).await.is_ok() {
                // If it is dropped instead, nobody sends any more.
                let _ = told.await;
            }
        };
        // What is not sent by then is lost.
        let _ = tokio::time::timeout(limit, flushed).await;
    }

    fn fetches(&self) -> std::sync::MutexGuard<'_, HashMap<Key, TraceContext>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that gets a span when it has ended.
pub struct Traced {
    spans: Arc<Spans>,
    /// Which span that is.
    pub context: TraceContext,
    parent: Option<u64>,
    began: SystemTime,
    waited_for: OnceLock<TraceContext>,
}

impl Traced {
    /// It waits for the fetch of this key that is under way, another's.
    pub fn waits_for(&self, key: &Key) {
        if let Some(fetch) = self.spans.fetches().get(key) {
            // Who waits twice waited for the first one longer.
            let _ = self.waited_for.set(*fetch);
        }
    }

    /// The span of the fetch that it begins.
    pub fn fetch(&self, key: &Key) -> FetchSpan {
        let context = TraceContext { span: self.spans.id(), ..self.context };
        self.spans.fetches().insert(key.clone(), context);
        FetchSpan {
            spans: self.spans.clone(),
            key: key.clone(),
            context,
            parent: self.context.span,
            began: (clock::wall(), clock::now()),
            result: "dropped",
        }
    }

    /// Its end.
    pub fn ended(&self, took: Duration, failed: bool, attributes: Vec<(&'static str, Attribute)>) {
        self.spans.send(Span {
            context: self.context,
            parent: self.parent.map(|parent| (parent, true)),
            link: self.waited_for.get().copied(),
            kind: Kind::Request,
            began: self.began,
            took,
            failed,
            attributes,
        });
    }
}

/// A fetch that has a span: sent when this is dropped, however it ended.
pub struct FetchSpan {
    spans: Arc<Spans>,
    key: Key,
    /// Which span it is.
    pub context: TraceContext,
    parent: u64,
    began: (SystemTime, Instant),
    result: &'static str,
}

impl FetchSpan {
    /// How the fetch ended, by the label of its metric.
    pub fn ended(&mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for FetchSpan {
    fn drop(&mut self) {
        let mut fetches = self.spans.fetches();
        // A later one may have taken its place.
        if fetches.get(&self.key) == Some(&self.context) {
            fetches.remove(&self.key);
        }
        drop(fetches);
        self.spans.send(Span {
            context: self.context,
            parent: Some((self.parent, false)),
            link: None,
            kind: Kind::Fetch,
            began: self.began.0,
            took: clock::since(self.began.1),
            failed: !matches!(self.result, "answered" | "not_sent"),
            attributes: vec![("anteroom.fetch.end", Attribute::Word(self.result))],
        });
    }
}
