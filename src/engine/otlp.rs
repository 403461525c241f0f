//! Spans to a collector, by the OpenTelemetry protocol over HTTP with protobuf. One task sends them, a batch at a time; a
//! collector that is slow or gone costs spans, and nothing else.

use std::time::Duration;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use prometheus::IntCounterVec;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::build_info::VERSION;
use super::spans::{Attribute, Kind, Queued, Span};
use crate::policy::http::trace::TraceContext;

/// Spans that are sent together, at most.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const LIMIT: Duration = Duration::from_secs(10);

/// What sends spans to the collector at this URL.
///
/// # Errors
/// In words, if the URL is of no use.
pub fn exporter(endpoint: &str) -> Result<SpanExporter, String> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(HyperClient::with_default_connector(LIMIT, None))
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(LIMIT)
        .build();
    let mut exporter = exporter.map_err(|error| error.to_string())?;
    let about = [KeyValue::new("service.name", "anteroom"), KeyValue::new("service.version", VERSION)];
    exporter.set_resource(&Resource::builder_empty().with_attributes(about).build());
    Ok(exporter)
}

/// Sends what comes out of the queue, until nobody puts anything in.
pub async fn export(exporter: SpanExporter, mut queue: mpsc::Receiver<Queued>, results: IntCounterVec) {
    while let Some(first) = queue.recv().await {
        let mut batch = Batch::default();
        let mut has_room = batch.takes(first);
        let until = Instant::now() + GATHERING;
        while has_room && let Ok(Some(next)) = timeout_at(until, queue.recv()).await {
            has_room = batch.takes(next);
        }
        batch.send(&exporter, &results).await;
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

    async fn send(self, exporter: &SpanExporter, results: &IntCounterVec) {
        let count = self.spans.len() as u64;
        if count > 0 {
            let sent = exporter.export(self.spans).await;
            results.with_label_values(&[if sent.is_ok() { "exported" } else { "failed" }]).inc_by(count);
            if let Err(error) = sent {
                tracing::debug!(%error, count, "spans that the collector has not taken");
            }
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
