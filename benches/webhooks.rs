//! What a webhook costs with one list in memory and with a million: its check, its reading, and what it puts out of
//! date. In one run, in rounds that take turns, by medians: absolute times mean little on shared machines.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark prints and measures")]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::engine::clock;
use anteroom::engine::metrics::{Metrics, WebhookResult};
use anteroom::engine::store::Entry;
use anteroom::policy::coherence::ledger::{Scope, Tick};
use anteroom::policy::coherence::webhook::{Claim, Untrusted, WebhookSettings, judge};
use anteroom::policy::http::key::Key;
use anteroom::policy::http::representation::{Prepared, Received};
use anteroom::state::State;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use support::median;

const MANY: u64 = 1_000_000;
/// Webhooks in one measurement.
const AT_ONCE: u64 = 10_000;
const ROUNDS: u64 = MANY / AT_ONCE;
const NOW: Duration = Duration::from_secs(1_781_182_960);

/// A room that keeps the empty lists of so many contacts.
fn room(lists: u64) -> Arc<State> {
    let flags = Flags { upstream: Some("http://127.0.0.1:9".into()), ..Flags::default() };
    let text = "cache.memory = \"8GiB\"\nwebhook.secrets = [\"secret\"]".to_owned();
    let none = std::iter::empty::<(String, String)>();
    let config = config::load(SettingsFile::Text("bench.toml".into(), text), &flags, none).expect("settings").config;
    let state = State::new(config, Arc::new(Metrics::new())).expect("a room");
    for contact in 0..lists {
        keep(&state, contact);
    }
    assert_eq!(state.cache.store.size().0, lists, "every list is kept");
    state
}

fn source(contact: u64) -> String {
    format!("9b9d46b9-8542-43f5-8077-{contact:012}")
}

fn key(contact: u64) -> Key {
    Key::new("hmUxdYZ7nFu4KqJ8sT2vWbXc", &source(contact), None)
}

fn keep(state: &State, contact: u64) {
    let received = Received {
        status: StatusCode::OK,
        head: HeaderMap::new(),
        body: Bytes::from_static(b"[]").into(),
        version: Version::HTTP_11,
        date: clock::http_date(),
        for_one_origin: false,
        has_codings: false,
    };
    let key = key(contact);
    let mut places = state.invalidation.path_places(&key).to_vec();
    places.push(state.invalidation.ledger.place(&Scope::Contact(contact)));
    let entry = Entry::new(Prepared::new(received), clock::now(), state.invalidation.ledger.now(), places.into(), 0);
    state.cache.store.put(key, Arc::new(entry));
}

/// A webhook as long as real ones are.
fn webhook(contact: u64) -> String {
    let sample = include_str!("../tests/fixtures/events/webhooks.json");
    let samples: serde_json::Value = serde_json::from_str(sample).expect("the samples are JSON");
    let mut body = samples["message_created"].clone();
    body["conversation"]["contact_inbox"]["source_id"] = source(contact).into();
    body["conversation"]["contact_inbox"]["contact_id"] = contact.into();
    body["conversation"]["meta"]["sender"]["id"] = contact.into();
    body.to_string()
}

/// Microseconds for each of these webhooks, from the signature to the ledger.
#[expect(clippy::cast_precision_loss, reason = "a few thousand webhooks")]
fn hear(state: &State, settings: &WebhookSettings, bodies: &[String]) -> f64 {
    let signature = format!("sha256={}", "0".repeat(64));
    let claim = Claim { timestamp: Some(b"1781182950"), signature: Some(signature.as_bytes()), token: None };
    let began = Instant::now();
    for body in bodies {
        // The signature is wrong, which takes as long to see as that it is right.
        let verdict = judge(settings, black_box(claim), body.as_bytes(), NOW.as_secs());
        assert_eq!(verdict, Err(Untrusted::BadSignature));
        let (_, result) = state.invalidation.hear(black_box(body.as_bytes()), NOW);
        assert_eq!(result, WebhookResult::Outdated);
    }
    began.elapsed().as_secs_f64() * 1e6 / bodies.len() as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let (one, many) = (room(1), room(MANY));
    let settings = one.active().config.webhook.clone();
    let before: Tick = many.invalidation.ledger.now();
    let (mut of_one, mut of_many) = (vec![], vec![]);
    let mut contact = 0;
    for _ in 0..ROUNDS {
        let same: Vec<String> = (0..AT_ONCE).map(|_| webhook(0)).collect();
        of_one.push(hear(&one, &settings, &same));
        // Another list each time, anywhere in memory.
        let different: Vec<String> = (0..AT_ONCE).map(|_| webhook((contact = next(contact), contact).1)).collect();
        of_many.push(hear(&many, &settings, &different));
    }
    let (of_one, of_many) = (median(of_one), median(of_many));
    println!("a webhook of {} bytes, from its signature to the ledger:", webhook(0).len());
    println!("  one list in memory           {of_one:8.2} us   1.00");
    println!("  a million, another each time {of_many:8.2} us   {:.2} of that", of_many / of_one);
    let kept = many.cache.store.get(&key(contact)).expect("it is kept");
    assert!(kept.noted == before && !many.invalidation.is_current(&kept), "it is kept, and out of date");
}

/// The next contact: all of them, far apart.
fn next(contact: u64) -> u64 {
    (contact + 618_033) % MANY
}
