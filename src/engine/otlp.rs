//! Spans to a collector, by the OpenTelemetry protocol over HTTP with protobuf. One task sends them, a batch at a time; a
//! collector that is slow or gone costs spans, and nothing else.
//!
//! Its own client sends them, and not that of `opentelemetry-otlp`, which reads variables (`OTEL_EXPORTER_OTLP_...`) that are
//! meant for other programs on the machine: fields with their tokens, and codings that end the program.

use std::time::Duration;

use bytes::Bytes;
use http::uri::InvalidUri;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prometheus::IntCounterVec;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::build_info::VERSION;
use super::spans::{Attribute, Kind, Queued, Span, traces_url};
use crate::policy::http::trace::TraceContext;

/// Spans that are sent together, at most.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch, however often it is tried.
const LIMIT: Duration = Duration::from_secs(10);
/// Between the first two tries; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
/// The most that is read of an answer, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where spans go.
pub struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    resource: ResourceAttributesWithSchema,
}

impl Collector {
    /// The collector at the URL of `tracing.endpoint`.
    ///
    /// # Errors
    /// The URL is none.
    pub fn new(endpoint: &str) -> Result<Self, InvalidUri> {
        let about = [KeyValue::new("service.name", "anteroom"), KeyValue::new("service.version", VERSION)];
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: traces_url(endpoint).parse()?,
            resource: (&Resource::builder_empty().with_attributes(about).build()).into(),
        })
    }

    /// Sends a batch, again if that may help; how many of it the collector did not want.
    async fn take(&self, batch: Vec<SpanData>) -> Result<u64, String> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let trying = async {
            let mut pause = PAUSE;
            loop {
                match self.post(body.clone()).await {
                    Ok((status, answer)) if status.is_success() => return Ok(rejected(&answer)),
                    Ok((status, _)) if !may_be_tried_again(status) => return Err(format!("it answers {status}")),
                    Ok(_) | Err(_) => sleep(pause).await,
                }
                pause *= 2;
            }
        };
        timeout(LIMIT, trying).await.unwrap_or_else(|_| Err(format!("it took nothing within {} s", LIMIT.as_secs())))
    }

    async fn post(&self, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::post(self.url.clone()).header(header::CONTENT_TYPE, "application/x-protobuf");
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let (head, body) = self.client.request(request).await.map_err(|error| error.to_string())?.into_parts();
        // The spans are taken, whatever becomes of the rest.
        let answer = Limited::new(body, LONGEST_ANSWER).collect().await.map(Collected::to_bytes);
        Ok((head.status, answer.unwrap_or_default()))
    }
}

/// Whether the protocol has a batch sent again that was answered so (OTLP specification, "Retryable Response Codes").
fn may_be_tried_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// How many spans the collector did not want of those that it took.
fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

/// Sends what comes out of the queue, until nobody puts anything in.
pub async fn export(collector: Collector, mut queue: mpsc::Receiver<Queued>, results: IntCounterVec) {
    while let Some(first) = queue.recv().await {
        let mut batch = Batch::default();
        let mut has_room = batch.takes(first);
        let until = Instant::now() + GATHERING;
        while has_room && let Ok(Some(next)) = timeout_at(until, queue.recv()).await {
            has_room = batch.takes(next);
        }
        batch.send(&collector, &results).await;
    }
}

/// What is sent together.
#[derive(Default)]
struct Batch {
    spans: Vec<SpanData>,
    /// Who waits for that.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Batch {
    /// Takes one more; whether it takes another after that.
    fn takes(&mut self, queued: Queued) -> bool {
        match queued {
            Queued::Span(span) => {
                self.spans.push(data(*span));
                self.spans.len() < BATCH
            }
            Queued::Flush(waiting) => {
                self.waiting.push(waiting);
                false
            }
        }
    }

    async fn send(self, collector: &Collector, results: &IntCounterVec) {
        let count = self.spans.len() as u64;
        if count > 0 {
            let failed = match collector.take(self.spans).await {
                Ok(rejected) => rejected.min(count),
                Err(error) => {
                    tracing::debug!(error, count, "spans that the collector has not taken");
                    count
                }
            };
            results.with_label_values(&["exported"]).inc_by(count - failed);
            results.with_label_values(&["failed"]).inc_by(failed);
        }
        for waiting in self.waiting {
            // Whoever asked may have gone.
            let _ = waiting.send(());
        }
    }
}

fn data(span: Span) -> SpanData {
    let context = context(span.context, false);
    let links = span.link.map(|link| Link::new(self::context(link, false), Vec::new(), 0));
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, |(parent, _)| SpanId::from(parent)),
        parent_span_is_remote: span.parent.is_some_and(|(_, remote)| remote),
        span_kind: match span.kind {
            Kind::Request => SpanKind::Server,
            Kind::Fetch => SpanKind::Client,
        },
        name: match span.kind {
            Kind::Request => "request",
            Kind::Fetch => "fetch",
        }
        .into(),
        start_time: span.began,
        end_time: span.began + span.took,
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: {
            let mut all = SpanLinks::default();
            all.links.extend(links);
            all
        },
        status: if span.failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder("anteroom").build(),
    }
}

fn context(of: TraceContext, remote: bool) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(of.sampled);
    SpanContext::new(TraceId::from(of.trace), SpanId::from(of.span), flags, remote, TraceState::NONE)
}

fn attribute((name, value): (&'static str, Attribute)) -> KeyValue {
    match value {
        Attribute::Word(word) => KeyValue::new(name, word),
        Attribute::Number(number) => KeyValue::new(name, number),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn what_the_collector_did_not_want_is_counted_and_nonsense_is_nothing() {
        let said = |rejected_spans| {
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, ..Default::default() });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!((rejected(&said(3)), rejected(&said(-3)), rejected(b"OK"), rejected(b"")), (3, 0, 0, 0));
        for (status, again) in [(200, false), (400, false), (429, true), (500, false), (503, true)] {
            assert_eq!(may_be_tried_again(StatusCode::from_u16(status).unwrap()), again, "{status}");
        }
    }
}
