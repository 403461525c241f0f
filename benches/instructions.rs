//! One operation of the hit path, so many times, for a count of instructions: `benches/instructions.py` runs this below
//! callgrind twice, and the difference is the operations' own. Counts do not depend on what else a machine does.
#![expect(clippy::print_stderr, reason = "a wrong call is told of")]

#[path = "support/wire.rs"]
mod wire;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::engine::body::Body;
use anteroom::engine::clock;
use anteroom::engine::metrics::Metrics;
use anteroom::engine::responses::Stored;
use anteroom::engine::store::{Entry, Failure};
use anteroom::policy::coherence::ledger::Scope;
use anteroom::policy::http::headers::{CACHE_STATUS, X_REQUEST_ID};
use anteroom::policy::http::key::Key;
use anteroom::policy::http::representation::{Prepared, Received};
use anteroom::policy::payload::{PayloadSettings, apply};
use anteroom::policy::rfc9111::freshness::{Arrival, Control};
use anteroom::policy::rfc9111::reuse::Terms;
use anteroom::policy::rfc9111::vary::Chosen;
use anteroom::proxy::handle::handle;
use anteroom::state::State;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};

const LIST: &[u8] = include_bytes!("../tests/fixtures/payload/list-typical.json");
const INBOX: &str = "hmUxdYZ7nFu4KqJ8sT2vWbXc";
const CONTACT: &str = "9b9d46b9-8542-43f5-8077-3ad4a2b1c0d9";

/// Where nobody is, for who asks nothing of it.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A proxy in front of this upstream, with these settings.
fn proxy(upstream: &str, text: &str) -> Arc<State> {
    let flags = Flags { upstream: Some(upstream.into()), admin: Some("127.0.0.1:0".into()), ..Flags::default() };
    let none = std::iter::empty::<(String, String)>();
    let file = SettingsFile::Text("bench.toml".into(), text.to_owned());
    let config = config::load(file, &flags, none).expect("settings").config;
    State::new(config, Arc::new(Metrics::new())).expect("a proxy")
}

/// A proxy that holds one answer, which is as fresh as it says.
fn with_an_answer() -> Arc<State> {
    let state = proxy(NOWHERE, "cache.ttl = \"origin\"");
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    fields.insert(header::ETAG, HeaderValue::from_static("W/\"5c4f5a3b1f2e9d7c8b6a5f4e3d2c1b0a\""));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(header::DATE, clock::http_date());
    fields.insert(header::VIA, HeaderValue::from_static("1.1 anteroom"));
    for name in [header::AGE, CACHE_STATUS, X_REQUEST_ID] {
        fields.insert(name, HeaderValue::from_static(""));
    }
    let (key, since_1970) = (Key::new(INBOX, CONTACT, None), Duration::from_secs(1_800_000_000));
    let arrival = Arrival { version: Version::HTTP_11, asked: since_1970, received: since_1970 };
    let stored = Stored {
        status: StatusCode::OK,
        chosen: Chosen::of(&fields, &HeaderMap::new()).expect("fields that can be told"),
        terms: Terms::of(StatusCode::OK, &fields, &Control::of(&fields), arrival),
        fields,
        body: Bytes::from_static(LIST),
        part: None,
        made: since_1970,
        received: (clock::now(), since_1970),
        noted: state.invalidation.ledger.now(),
        places: state.invalidation.path_places(&key).into(),
        nameless: false,
        unsettled: None,
        fingerprint: state.active().fingerprint,
        failure: Failure::default(),
    };
    state.cache.responses.put(key, &Arc::new(stored), &HeaderMap::new());
    state
}

/// A proxy that holds one list, which is fresh; with more settings.
fn with_a_list(more: &str) -> Arc<State> {
    let state = proxy(NOWHERE, &format!("cache.ttl = \"1h\"\ncache.stale_if_error = \"2h\"\n{more}"));
    let mut head = HeaderMap::new();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    head.insert(header::ETAG, HeaderValue::from_static("W/\"5c4f5a3b1f2e9d7c8b6a5f4e3d2c1b0a\""));
    let received = Received {
        status: StatusCode::OK,
        head,
        body: state.cache.memory.kept(Bytes::from_static(LIST)).into(),
        version: Version::HTTP_11,
        date: clock::http_date(),
        for_one_origin: false,
        has_codings: true,
    };
    let key = Key::new(INBOX, CONTACT, None);
    let invalidation = &state.invalidation;
    let mut places = invalidation.path_places(&key).to_vec();
    places.extend(
        [Scope::Contact(42), Scope::AccountConversation(7, 131)].map(|scope| invalidation.ledger.place(&scope)),
    );
    let fingerprint = state.active().fingerprint;
    let entry =
        Entry::new(Prepared::new(received), clock::now(), invalidation.ledger.now(), places.into(), fingerprint);
    state.cache.store.put(key, Arc::new(entry));
    state
}

async fn read(state: &Arc<State>, field: Option<(&'static str, &'static str)>, expected: StatusCode) {
    let path = format!("/public/api/v1/inboxes/{INBOX}/contacts/{CONTACT}/conversations");
    let mut request = Request::get(path).header(header::HOST, "bench.test");
    if let Some((name, value)) = field {
        request = request.header(name, value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = handle(state.clone(), std::net::SocketAddr::from(([127, 0, 0, 1], 9)), request).await;
    assert_eq!(response.status(), expected);
    black_box(response);
}

/// The settings of a proxy that listens there, and says nothing.
fn listening(on: &Path) -> String {
    format!("listen.address = \"unix:{}\"\nlog.only = \"trouble\"", on.display())
}

/// Plain hits over a connection, from the first byte of each to the last of its answer.
async fn plain_hits(times: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    wire::serve(with_a_list(&listening(&socket)), &socket).await;
    let path = format!("/public/api/v1/inboxes/{INBOX}/contacts/{CONTACT}/conversations");
    wire::ask(&socket, &path, LIST, "anteroom; hit", times).await;
}

/// What nobody keeps, over a connection, the upstream's part included.
async fn passing(times: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let upstream = wire::answering(LIST).await;
    let state = proxy(&format!("http://{upstream}"), &listening(&socket));
    wire::serve(state, &socket).await;
    let path = "/api/v1/accounts/7/conversations/131/messages";
    wire::ask(&socket, path, LIST, "anteroom; fwd=bypass", times).await;
}

async fn run(case: &str, times: u32) -> bool {
    match case {
        "plain_hit" => plain_hits(times).await,
        "passing" => passing(times).await,
        _ => return run_call(case, times).await,
    }
    true
}

async fn run_call(case: &str, times: u32) -> bool {
    let (state, key) = (with_a_list(""), Key::new(INBOX, CONTACT, None));
    let as_it_says = with_an_answer();
    let entry = state.cache.store.get(&key).expect("the list is stored");
    let (body, settings) = (Bytes::from_static(LIST), PayloadSettings::default());
    for _ in 0..times {
        match case {
            "hit" => read(&state, None, StatusCode::OK).await,
            "as_it_says" => read(&as_it_says, None, StatusCode::OK).await,
            "not_modified" => read(&state, Some(("if-none-match", "*")), StatusCode::NOT_MODIFIED).await,
            "key" => drop(black_box(Key::new(black_box(INBOX), black_box(CONTACT), None))),
            "ledger" => drop(black_box(state.invalidation.is_current(black_box(&entry)))),
            "payload" => drop(black_box(apply(black_box(&body), &settings))),
            _ => return false,
        }
    }
    true
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let times = words.get(2).and_then(|times| times.parse().ok());
    let (Some(case), Some(times)) = (words.get(1), times) else {
        // `cargo bench` runs every benchmark; this one is run by its script.
        eprintln!("run by benches/instructions.py");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    assert!(runtime.block_on(run(case, times)), "there is no case {case}");
}
