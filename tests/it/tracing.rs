//! Traces, as a collector gets them that speaks OTLP over HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Options, Point, StandIn};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

use crate::support::child::Program;
use crate::support::{Proxy, get, get_with, reading, spawn};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PATIENCE: Duration = Duration::from_secs(20);

/// What came at a collector.
#[derive(Clone, Default)]
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    resources: Arc<Mutex<Vec<Resource>>>,
    /// The heads of what came.
    heads: Arc<Mutex<Vec<HeaderMap>>>,
    /// So often it says first that it has no time.
    busy: Arc<AtomicUsize>,
}

impl Collector {
    /// One that answers everything with this status.
    async fn start(status: StatusCode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let this = Self { url, ..Self::default() };
        let collector = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = collector.clone();
                let service = service_fn(move |request| collector.clone().take(request, status));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        this
    }

    async fn take(self, request: Request<Incoming>, status: StatusCode) -> hyper::Result<Response<Full<Bytes>>> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        self.heads.lock().unwrap().push(request.headers().clone());
        let is_busy =
            self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_ok();
        let status = if is_busy { StatusCode::SERVICE_UNAVAILABLE } else { status };
        let body = request.into_body().collect().await?.to_bytes();
        let sent = ExportTraceServiceRequest::decode(body).expect("OTLP");
        if status.is_success() {
            for spans in sent.resource_spans {
                self.resources.lock().unwrap().extend(spans.resource);
                let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
                self.spans.lock().unwrap().extend(spans);
            }
        }
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let answer =
            Response::builder().status(status).header("content-type", "application/x-protobuf").body(answer.into());
        Ok(answer.unwrap())
    }

    /// All spans, as soon as there are so many.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let there = async {
            while self.spans.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, there).await;
        let spans = self.spans.lock().unwrap().clone();
        assert!(in_time.is_ok(), "{count} spans never came, but {spans:?}");
        spans
    }

    fn settings(&self, sample: f64) -> String {
        format!("[tracing]\nendpoint = \"{}\"\nsample = {sample:?}\n", self.url)
    }
}

/// A word that is told of a span.
fn word<'a>(attributes: &'a [KeyValue], name: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.as_ref()) {
        Some(AnyValue { value: Some(Value::StringValue(word)), .. }) => word,
        _ => "",
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// `traceparent` as the upstream got it, without its version.
fn sent_on(stand_in: &StandIn, matcher: &Matcher) -> String {
    let asked = stand_in.requests().into_iter().find(|seen| matcher.matches(seen)).expect("it was asked");
    asked.headers.get("traceparent").map_or(String::new(), |field| field.to_str().unwrap().to_owned())
}

fn field(trace: &[u8], span: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("00-{}-{}-01", hex(trace), hex(span))
}

#[tokio::test]
async fn a_request_and_its_fetch_are_spans_of_the_clients_trace() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    // The client has decided: the share is for those who have not.
    let proxy = Proxy::start(&stand_in, &collector.settings(0.0)).await;
    let list = get_with(&proxy.list_url("visitor-a"), &[("traceparent", PARENT)]).await;
    assert_eq!(list.status, StatusCode::OK);
    let spans = collector.spans(2).await;
    let ([request], [fetch]) = (&named(&spans, "request")[..], &named(&spans, "fetch")[..]) else {
        panic!("{spans:?}")
    };
    assert_eq!(field(&request.trace_id, &request.parent_span_id), PARENT);
    assert_eq!((&fetch.trace_id, &fetch.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(word(&request.attributes, "anteroom.outcome"), "miss");
    assert_eq!(word(&request.attributes, "http.route"), "conversations");
    assert_eq!(word(&fetch.attributes, "anteroom.fetch.end"), "answered");
    assert!(request.start_time_unix_nano <= fetch.start_time_unix_nano);
    assert!(fetch.end_time_unix_nano > fetch.start_time_unix_nano && request.links.is_empty());
    assert_eq!(sent_on(&stand_in, &Matcher::lists()), field(&fetch.trace_id, &fetch.span_id));
    let resources = collector.resources.lock().unwrap();
    assert_eq!(word(&resources[0].attributes, "service.name"), "anteroom");
    assert!(!format!("{spans:?}").contains("visitor-a"), "a contact identifier is a credential");
}

#[tokio::test]
async fn who_waits_for_anothers_fetch_is_linked_to_it() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    let proxy = Proxy::start(&stand_in, &collector.settings(1.0)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::lists());
    let first = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    let url = proxy.list_url("visitor-a");
    let second = spawn(async move { get(&url).await });
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    assert!(first.await.unwrap().status == StatusCode::OK && second.await.unwrap().status == StatusCode::OK);
    let spans = collector.spans(3).await;
    let [fetch] = named(&spans, "fetch")[..] else { panic!("{spans:?}") };
    let of = |outcome: &str| spans.iter().find(|span| word(&span.attributes, "anteroom.outcome") == outcome).unwrap();
    let (led, joined) = (of("miss"), of("joined"));
    assert_eq!(fetch.parent_span_id, led.span_id);
    assert_ne!(joined.trace_id, led.trace_id);
    let [link] = &joined.links[..] else { panic!("{joined:?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&fetch.trace_id, &fetch.span_id));
}

#[tokio::test]
async fn what_passes_goes_on_under_its_span_and_a_failure_is_told() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    let proxy = Proxy::start(&stand_in, &collector.settings(0.0)).await;
    stand_in.fault_on(Fault::Reset, Matcher::any());
    let url = proxy.inbox_url();
    assert_eq!(get_with(&url, &[("traceparent", PARENT)]).await.status, StatusCode::BAD_GATEWAY);
    let spans = collector.spans(1).await;
    assert_eq!(field(&spans[0].trace_id, &spans[0].parent_span_id), PARENT);
    assert_eq!(sent_on(&stand_in, &Matcher::any()), field(&spans[0].trace_id, &spans[0].span_id));
    assert_eq!(spans[0].status.as_ref().map(|status| status.code), Some(2), "{spans:?}");
    assert_eq!(word(&spans[0].attributes, "anteroom.outcome"), "failed");
}

/// Whom the client does not record, and whom the share leaves out, has no span; a client's field goes on as it is.
#[tokio::test]
async fn nobody_else_is_traced() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    let proxy = Proxy::start(&stand_in, &collector.settings(1.0)).await;
    let unrecorded = PARENT.replace("-01", "-00");
    get_with(&proxy.inbox_url(), &[("traceparent", &unrecorded)]).await;
    assert_eq!(sent_on(&stand_in, &Matcher::any()), unrecorded);
    get(&proxy.list_url("visitor-b")).await;
    assert_eq!(collector.spans(2).await.len(), 2, "the list and its fetch");
    let half = Proxy::start(&stand_in, &collector.settings(0.5)).await;
    for _ in 0..4 {
        get(&half.inbox_url()).await;
    }
    assert_eq!(collector.spans(4).await.len(), 4, "two of four");
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_spans_and_nothing_else() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let refusing = Collector::start(StatusCode::BAD_REQUEST).await;
    let proxy = Proxy::start(&stand_in, &refusing.settings(1.0)).await;
    assert_eq!(get(&proxy.list_url("visitor-a")).await.status, StatusCode::OK);
    proxy.wait_for_metric("anteroom_spans_total{result=\"failed\"}", 2.0).await;
    // It takes connections and never answers: the queue fills, and nobody waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = format!("[tracing]\nendpoint = \"http://{}\"\nsample = 1.0\n", silent.local_addr().unwrap());
    let proxy = Proxy::start(&stand_in, &settings).await;
    let url = proxy.list_url("visitor-a");
    let mut asked = 0;
    while proxy.metric("anteroom_spans_total{result=\"dropped\"}").await < 1.0 {
        for _ in 0..500 {
            assert_eq!(get(&url).await.status, StatusCode::OK);
        }
        asked += 500;
        assert!(asked < 20_000, "the queue has no bound");
    }
}

#[tokio::test]
async fn the_last_spans_are_sent_when_it_ends() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    let settings = format!("drain.notice = \"0s\"\n{}", collector.settings(1.0));
    let mut program = Program::serve(&stand_in.url(), &settings).await;
    get(&format!("{}{}", program.url, StandIn::list_path("visitor-a"))).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
    assert_eq!(collector.spans.lock().unwrap().len(), 2);
}

/// A `tracestate` belongs to the trace that it came with.
#[tokio::test]
async fn a_new_trace_takes_no_state_of_another_along() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    let proxy = Proxy::start(&stand_in, &collector.settings(1.0)).await;
    let url = proxy.inbox_url();
    for (parent, kept) in [(None, false), (Some("00-nonsense"), false), (Some(PARENT), true)] {
        let fields: Vec<_> =
            parent.map(|parent| ("traceparent", parent)).into_iter().chain([("tracestate", "a=b")]).collect();
        get_with(&url, &fields).await;
        let asked = stand_in.requests().pop().expect("it was asked");
        assert_eq!(asked.headers.contains_key("tracestate"), kept, "{parent:?}");
    }
}

/// Where the answers say how they are cached, fetches that others may wait for have spans as well.
#[tokio::test]
async fn by_the_terms_of_the_answers_a_shared_fetch_is_a_span_and_who_waits_is_linked() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    stand_in.set_response_header("cdn-cache-control", "max-age=20");
    let proxy = Proxy::start(&stand_in, &format!("cache.ttl = \"origin\"\n{}", collector.settings(1.0))).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::lists());
    let first = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    let second = reading(&proxy, "visitor-a");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    assert!(first.await.unwrap().status == StatusCode::OK && second.await.unwrap().status == StatusCode::OK);
    let spans = collector.spans(3).await;
    let [fetch] = named(&spans, "fetch")[..] else { panic!("{spans:?}") };
    assert_eq!(word(&fetch.attributes, "anteroom.fetch.end"), "answered");
    let of = |outcome: &str| spans.iter().find(|span| word(&span.attributes, "anteroom.outcome") == outcome).unwrap();
    assert_eq!((&fetch.parent_span_id, &fetch.trace_id), (&of("miss").span_id, &of("miss").trace_id));
    assert_eq!(of("joined").links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&fetch.span_id]);
    assert_eq!(sent_on(&stand_in, &Matcher::lists()), field(&fetch.trace_id, &fetch.span_id));
}

#[tokio::test]
async fn a_collector_that_has_no_time_is_asked_again() {
    let (collector, stand_in) =
        (Collector::start(StatusCode::OK).await, StandIn::start(Options::default()).await.unwrap());
    collector.busy.store(2, Ordering::Relaxed);
    let proxy = Proxy::start(&stand_in, &collector.settings(1.0)).await;
    get(&proxy.inbox_url()).await;
    assert_eq!(collector.spans(1).await.len(), 1);
    assert_eq!(collector.heads.lock().unwrap().len(), 3);
    proxy.wait_for_metric("anteroom_spans_total{result=\"exported\"}", 1.0).await;
}

/// What is set for other programs on the machine decides nothing here, and goes to no collector of ours.
#[tokio::test]
async fn variables_of_other_programs_are_not_obeyed() {
    let (collector, elsewhere) = (Collector::start(StatusCode::OK).await, Collector::start(StatusCode::OK).await);
    let variables = [
        ("ANTEROOM_TRACING__ENDPOINT", collector.url.as_str()),
        ("ANTEROOM_TRACING__SAMPLE", "1.0"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hush"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", elsewhere.url.as_str()),
        ("OTEL_SERVICE_NAME", "another"),
    ];
    let program = Program::demo_with(&["--no-acts"], &variables).await;
    get(&format!("{}{}", program.url, StandIn::list_path("visitor-a"))).await;
    collector.spans(2).await;
    let heads = collector.heads.lock().unwrap();
    assert!(
        heads.iter().all(|head| !head.contains_key("x-token") && !head.contains_key("content-encoding")),
        "{heads:?}"
    );
    assert_eq!(word(&collector.resources.lock().unwrap()[0].attributes, "service.name"), "anteroom");
    assert!(elsewhere.heads.lock().unwrap().is_empty());
}
