//! How shared fetches end, each end with its metric label, and what readers get who waited; what is served stale,
//! and when the upstream is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anteroom::engine::clock;
use anteroom::engine::flights::{FlightEnd, FlightSettings, Flights, Joined, Lost, NewFlight};
use anteroom::engine::metrics::Metrics;
use anteroom::engine::store::{Entry, Store, StoreSettings};
use anteroom::policy::coherence::ledger::{Ledger, Scope, Tick};
use anteroom::policy::http::key::Key;
use anteroom::policy::http::representation::{Prepared, Received};
use anteroom_stand_in::{Fault, INBOX, Matcher, Point, Shape, StandIn};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::support::raw::Scripted;
use crate::support::script::{Script, json};
use crate::support::{Answer, Proxy, both, get, get_with, jump, post, reading, spawn};

const A: &str = "visitor-a";

async fn readers(proxy: &Proxy, count: u32) -> Vec<JoinHandle<Answer>> {
    let readers = (0..count).map(|_| reading(proxy, A)).collect();
    proxy.wait_for_metric("anteroom_waiters", f64::from(count)).await;
    readers
}

async fn write(stand_in: &StandIn, proxy: &Proxy, source: &str) -> Answer {
    let conversation = *stand_in.conversation_ids(source).last().unwrap();
    let url = format!("{}/conversations/{conversation}/messages", proxy.contact_url(source));
    post(&url, r#"{"content":"written"}"#).await
}

/// So many flights ended like this, and nobody waits and nothing flies any more.
async fn ended(proxy: &Proxy, how: &str, times: f64) {
    proxy.wait_for_metric("anteroom_flights", 0.0).await;
    proxy.wait_for_metric("anteroom_waiters", 0.0).await;
    let ends = proxy.metric(&format!("anteroom_flight_ends_total{{end=\"{how}\"}}")).await;
    assert!((ends - times).abs() < 0.1, "{how}: {ends}");
}

#[tokio::test]
async fn an_answer_is_for_everyone_who_waited() {
    let (stand_in, proxy) = both("").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let waiting = readers(&proxy, 5).await;
    gate.release_all();
    for reader in waiting {
        assert!(reader.await.unwrap().body == stand_in.list_body(A));
    }
    assert_eq!(stand_in.list_requests(A), 1);
    ended(&proxy, "answered", 1.0).await;
}

#[tokio::test]
async fn an_error_is_shared_and_the_next_reader_starts_clean() {
    let (stand_in, proxy) = both("").await;
    stand_in.fault_times(Fault::ErrorAfter, Matcher::list_of(A), 1);
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let waiting = readers(&proxy, 3).await;
    gate.release_all();
    for reader in waiting {
        assert_eq!(reader.await.unwrap().status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(stand_in.list_requests(A), 1);
    ended(&proxy, "upstream_error", 1.0).await;
    assert_eq!(proxy.list(A).await.status, StatusCode::OK);
}

#[tokio::test]
async fn readers_of_what_cannot_be_shared_ask_alone_and_not_all_at_once() {
    let (stand_in, proxy) = both("upstream.max_in_flight = 2").await;
    stand_in.set_response_header("vary", "x-odd");
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let waiting = readers(&proxy, 6).await;
    gate.release_one();
    gate.arrived(3).await;
    proxy.wait_for_metric("anteroom_waiters", 0.0).await;
    assert!(proxy.metric("anteroom_upstream_in_flight").await < 2.1);
    assert_eq!(gate.arrivals(), 3, "one flight, and two who ask alone");
    gate.release_all();
    for reader in waiting {
        assert!(reader.await.unwrap().body == stand_in.list_body(A));
    }
    ended(&proxy, "not_storable", 1.0).await;
    let next = proxy.list(A).await;
    assert!(next.cache_status().contains("detail=not_storable"), "{}", next.cache_status());
    ended(&proxy, "not_storable", 1.0).await;
}

#[tokio::test]
async fn a_list_too_large_to_keep_passes_and_no_late_reader_gets_it() {
    let (stand_in, proxy) = both("cache.max_body = \"64KiB\"\nupstream.max_in_flight = 1").await;
    stand_in.seed(A, Shape { conversations: 1, messages: 100, bytes: 1000 });
    stand_in.attach(A, "phone");
    stand_in.verify("phone");
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("phone"));
    let early = reading(&proxy, "phone");
    gate.arrived(1).await;
    assert_eq!(write(&stand_in, &proxy, A).await.status, StatusCode::OK);
    let late = reading(&proxy, "phone");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    assert!(late.await.unwrap().body == stand_in.list_body("phone"), "one from before the write");
    early.await.unwrap();
    ended(&proxy, "too_large", 1.0).await;
}

#[tokio::test]
async fn a_private_answer_that_nobody_may_have_gives_its_place_back() {
    let (stand_in, proxy) = both("cache.max_body = \"64KiB\"\nupstream.max_in_flight = 1").await;
    stand_in.seed(A, Shape { conversations: 1, messages: 100, bytes: 1000 });
    stand_in.attach(A, "phone");
    stand_in.verify("phone");
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("phone"));
    let early = reading(&proxy, "phone");
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    let late = reading(&proxy, "phone");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    early.abort();
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    gate.release_all();
    // There is but one place, and the answer that was not for it held it.
    assert!(late.await.unwrap().body == stand_in.list_body("phone"));
    ended(&proxy, "too_large", 1.0).await;
}

#[tokio::test]
async fn a_flight_ends_at_its_deadline() {
    let (stand_in, proxy) = both("upstream.fetch_timeout = \"3s\"").await;
    stand_in.fault(Fault::Hang);
    let waiting = readers(&proxy, 2).await;
    stand_in.wait_for("the list", |seen| seen.iter().any(|seen| seen.is_list)).await;
    jump(Duration::from_secs(4)).await;
    for reader in waiting {
        assert_eq!(reader.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    }
    ended(&proxy, "deadline", 1.0).await;
}

#[tokio::test]
async fn a_reader_waits_for_two_flights_at_most_and_both_fit_into_his_limit() {
    let (stand_in, proxy) = both("cache.wait = \"3s\"").await;
    stand_in.fault(Fault::Hang);
    let reader = reading(&proxy, A);
    for flights in 1..=2_u32 {
        proxy.wait_for_metric("anteroom_flights", f64::from(flights)).await;
        let asked = usize::try_from(flights).unwrap();
        stand_in.wait_for("the list", |seen| seen.iter().filter(|seen| seen.is_list).count() == asked).await;
        jump(Duration::from_millis(if flights == 1 { 2_100 } else { 1_000 })).await;
    }
    assert_eq!(reader.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    jump(Duration::from_secs(31)).await;
    ended(&proxy, "waiter_deadline", 2.0).await;
}

#[tokio::test]
async fn a_reader_whose_wait_is_over_gets_the_last_good_current_answer() {
    let (stand_in, proxy) = both("cache.wait = \"2s\"").await;
    proxy.list(A).await;
    jump(Duration::from_secs(31)).await;
    stand_in.fault(Fault::Hang);
    let reader = reading(&proxy, A);
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    jump(Duration::from_secs(3)).await;
    let answer = reader.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.cache_status().contains("upstream-failing"), "{}", answer.cache_status());
}

fn key() -> Key {
    Key::new("in", "someone", None)
}

/// Joins by hand; what the landing says goes to `told`.
fn join(
    flights: &Flights<u32>,
    noted: Tick,
    fetch: impl Future<Output = u32> + Send + 'static,
    told: Arc<std::sync::Mutex<Vec<FlightEnd>>>,
) -> Joined<u32> {
    let on_end = move |on_end, _: Option<&u32>| told.lock().unwrap().push(on_end);
    flights.join(&key(), |_, _| true, || None, || NewFlight { noted, fetch: move |_| fetch, on_end })
}

#[tokio::test]
async fn a_flight_that_panics_leaves_nobody_waiting() {
    let flights = Flights::new(FlightSettings { wait: Duration::from_secs(1), max_waiters: 10 });
    let (noted, told) = (Ledger::new(1, [0, 0]).now(), Arc::default());
    let Joined::Led(mut leader) = join(&flights, noted, async { panic!("on purpose") }, Arc::clone(&told)) else {
        panic!("nobody else is there");
    };
    let Joined::Followed(mut follower) = join(&flights, noted, async { 1 }, Arc::clone(&told)) else {
        panic!("the flight has not run yet");
    };
    for ticket in [&mut leader, &mut follower] {
        assert_eq!(ticket.wait(Duration::from_secs(60)).await, Err(Lost::Dropped));
    }
    assert_eq!(*told.lock().unwrap(), [FlightEnd::Dropped]);
    assert!(!flights.is_under_way(&key()));
    let Joined::Led(mut next) = join(&flights, noted, async { 2 }, told) else { panic!("it starts clean") };
    assert_eq!(next.wait(Duration::from_secs(60)).await, Ok(2));
    assert_eq!(flights.under_way(), 0);
}

#[tokio::test]
async fn the_end_of_a_superseded_flight_does_not_end_its_successor() {
    let (stand_in, proxy) = both("").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    let late = reading(&proxy, A);
    gate.arrived(2).await;
    gate.release_one();
    early.await.unwrap();
    assert!(proxy.state.cache.flights.is_under_way(&Key::new(INBOX, A, None)));
    gate.release_all();
    assert!(late.await.unwrap().body == stand_in.list_body(A));
    ended(&proxy, "superseded", 1.0).await;
}

#[tokio::test]
async fn more_readers_than_may_wait_are_told_so() {
    let (stand_in, proxy) = both("cache.max_waiters = 2").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let waiting = readers(&proxy, 2).await;
    assert_eq!(proxy.list(A).await.status, StatusCode::SERVICE_UNAVAILABLE);
    gate.release_all();
    for reader in waiting {
        assert_eq!(reader.await.unwrap().status, StatusCode::OK);
    }
    assert!(proxy.list(A).await.is_hit());
    ended(&proxy, "answered", 1.0).await;
}

#[tokio::test]
async fn a_stale_list_is_served_at_once_and_refreshed_once() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    jump(Duration::from_secs(16)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    for _ in 0..5 {
        assert!(proxy.list(A).await.is_hit());
    }
    gate.arrived(1).await;
    assert_eq!(gate.arrivals(), 1);
    let refresh = stand_in.requests().into_iter().rfind(|seen| seen.is_list).unwrap();
    assert!(refresh.headers.contains_key("if-none-match"));
    gate.release_all();
    ended(&proxy, "answered", 2.0).await;
    let fresh = proxy.list(A).await;
    assert_eq!((fresh.is_hit(), fresh.header("age")), (true, Some("0")), "a 304 makes it new");
    assert!(fresh.body == stand_in.list_body(A));
}

#[tokio::test]
async fn a_failing_upstream_is_asked_once_a_second_for_what_there_is_an_answer_of() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    jump(Duration::from_secs(31)).await;
    stand_in.fault(Fault::Error);
    for asked in 2..5 {
        for _ in 0..5 {
            let answer = proxy.list(A).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert!(answer.cache_status().contains("upstream-failing"), "{}", answer.cache_status());
        }
        assert_eq!(stand_in.list_requests(A), asked);
        jump(Duration::from_millis(1_100)).await;
    }
    stand_in.clear_faults();
    assert_eq!(proxy.list(A).await.header("age"), Some("0"));
}

#[tokio::test]
async fn an_outdated_list_does_not_stand_in_for_an_error_unless_that_is_wanted() {
    for (more, expected) in
        [("", StatusCode::INTERNAL_SERVER_ERROR), ("cache.serve_outdated_on_error = true", StatusCode::OK)]
    {
        let (stand_in, proxy) = both(more).await;
        proxy.list(A).await;
        write(&stand_in, &proxy, A).await;
        stand_in.fault(Fault::Error);
        assert_eq!(proxy.list(A).await.status, expected);
    }
}

#[tokio::test]
async fn after_a_404_no_older_list_stands_in() {
    for more in ["", "cache.negative_ttl = \"2s\""] {
        let (stand_in, proxy) = both(more).await;
        proxy.list(A).await;
        stand_in.delete_contact(A);
        jump(Duration::from_secs(31)).await;
        assert_eq!(proxy.list(A).await.status, StatusCode::NOT_FOUND);
        assert_eq!(proxy.list(A).await.is_hit(), !more.is_empty());
        jump(Duration::from_secs(3)).await;
        stand_in.fault(Fault::Error);
        assert_eq!(proxy.list(A).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn after_a_write_whose_end_is_unclear_the_list_is_soon_fetched_again_for_a_while() {
    let (stand_in, proxy) = both("").await;
    stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
    assert_eq!(write(&stand_in, &proxy, A).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(proxy.list(A).await.body == stand_in.list_body(A));
    jump(Duration::from_secs(20)).await;
    assert!(!proxy.list(A).await.is_hit());
    stand_in.agent_message(A, "an effect of the write");
    jump(Duration::from_secs(2)).await;
    assert!(proxy.list(A).await.body == stand_in.list_body(A));
}

#[tokio::test]
async fn a_verification_said_again_outdates_nothing() {
    let (_stand_in, proxy) = both("").await;
    let verify = format!("{}?identifier_hash=valid-hash", proxy.contact_url(A));
    assert_eq!(get(&verify).await.status, StatusCode::OK);
    proxy.list(A).await;
    assert_eq!(get(&verify).await.status, StatusCode::OK);
    assert!(proxy.list(A).await.is_hit());
}

#[tokio::test]
async fn an_outdated_list_is_not_revalidated_with_a_validator_that_may_lie() {
    let (written, conditional) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (state, asked) = (written.clone(), conditional.clone());
    let upstream = Script::start(move |request| {
        if request.method() == http::Method::POST {
            state.store(true, Ordering::SeqCst);
        }
        if request.headers().contains_key(header::IF_NONE_MATCH) {
            asked.fetch_add(1, Ordering::SeqCst);
            return crate::support::script::answer(304, "application/json", "");
        }
        let mut answer = json(if state.load(Ordering::SeqCst) {
            r#"[{"id":2,"contact":{"id":7}}]"#
        } else {
            r#"[{"id":1,"contact":{"id":7}}]"#
        });
        answer.headers_mut().insert(header::ETAG, HeaderValue::from_static("W/\"always\""));
        answer
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    let before = proxy.list("someone").await;
    assert_eq!(post(&format!("{}/conversations/1/messages", proxy.contact_url("someone")), "{}").await.status, 200);
    assert_ne!(proxy.list("someone").await.body, before.body);
    assert_eq!(conditional.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_store_keeps_the_answer_of_the_later_fetch() {
    let metrics = Metrics::new();
    let store = Store::new(StoreSettings { memory: 1 << 20 }, Duration::from_secs(60), &metrics);
    let ledger = Ledger::new(1, [0, 0]);
    let entry = || {
        let answer = Prepared::new(Received {
            status: StatusCode::OK,
            head: HeaderMap::new(),
            body: Bytes::from_static(b"[]").into(),
            version: http::Version::HTTP_11,
            date: HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"),
            for_one_origin: false,
            has_codings: false,
        });
        Arc::new(Entry::new(answer, clock::now(), ledger.now(), Box::default(), 0))
    };
    let older = entry();
    ledger.invalidate(ledger.place(&Scope::Contact(1)));
    let newer = entry();
    store.put(key(), newer.clone());
    store.put(key(), older.clone());
    store.forget(&key(), older.noted);
    assert_eq!(store.get(&key()).map(|kept| kept.noted), Some(newer.noted));
    store.forget(&key(), newer.noted);
    assert!(store.get(&key()).is_none());
}

/// A list that the upstream was asked for: whether for readers of [`ORIGIN`], and which version it is to be.
struct Asked {
    own: bool,
    tell: oneshot::Sender<u32>,
}

const ORIGIN: &str = "https://a.test";

/// An upstream that tells origins apart. All sources are one contact's, whom its answers name; lists wait to be told. A version
/// is nothing that answers are compared by.
async fn by_origin() -> (Scripted, mpsc::UnboundedReceiver<Asked>) {
    let (ask, asked) = mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let ask = ask.clone();
        async move {
            while let Some(head) = talk.head().await {
                let mut origins = String::new();
                let body = if head.starts_with("POST") {
                    r#"{"id":1,"message_type":0,"sender":{"id":7,"type":"contact"}}"#.to_owned()
                } else {
                    let own = head.contains(ORIGIN);
                    let (tell, told) = oneshot::channel();
                    let _ = ask.send(Asked { own, tell });
                    let Ok(version) = told.await else { return };
                    let origin = if own { ORIGIN } else { "https://other.test" };
                    origins = format!("vary: Origin\r\naccess-control-allow-origin: {origin}\r\n");
                    format!(r#"[{{"id":1,"contact_last_seen_at":0,"version":{version},"contact":{{"id":7,"account_id":1}}}}]"#)
                };
                let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n{origins}", body.len());
                talk.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")).await;
            }
        }
    })
    .await;
    (upstream, asked)
}

#[tokio::test]
async fn who_was_brought_an_outdated_list_joins_no_fetch_from_before_he_came_for_his_origin_either() {
    let (upstream, mut asked) = by_origin().await;
    // Nobody gives up while the test waits.
    let upstream_waits = "upstream.fetch_timeout = \"2m\"\nupstream.head_timeout = \"2m\"\n";
    let settings = format!("cache.ttl = \"60s\"\ncache.settle = \"0s\"\ncache.wait = \"2m\"\n{upstream_waits}");
    let proxy = Proxy::in_front_of(&upstream.url(), &settings).await;
    let url = proxy.list_url(A);
    let from = |origin: &'static str| {
        let url = url.clone();
        spawn(async move { get_with(&url, &[("origin", origin)]).await })
    };
    let mut next = async |own: bool| {
        let asked = tokio::time::timeout(Duration::from_secs(20), asked.recv()).await;
        let asked = asked.expect("the upstream is asked").expect("it lives");
        assert_eq!(asked.own, own);
        asked.tell
    };
    // A fetch for the origin is under way, and one for everybody, which is not kept any more.
    let early = from(ORIGIN);
    next(false).await.send(2).unwrap();
    let before = next(true).await;
    let ledger = &proxy.state.invalidation.ledger;
    proxy.state.cache.store.forget(&Key::new(INBOX, A, None), ledger.now());
    let other = reading(&proxy, A);
    let shared = next(false).await;
    // Acknowledged before the late one comes: only what the answers show tells that it was about this list.
    let written = post(&format!("{}/conversations/9/messages", proxy.contact_url("sibling")), "").await;
    assert_eq!(written.status, StatusCode::OK);
    let late = from(ORIGIN);
    proxy.wait_for_metric("anteroom_waiters", 3.0).await;
    shared.send(2).unwrap();
    next(false).await.send(3).unwrap();
    next(true).await.send(3).unwrap();
    assert!(late.await.unwrap().text().contains(r#""version":3"#));
    before.send(2).unwrap();
    assert_eq!(early.await.unwrap().status, StatusCode::OK);
    assert_eq!(other.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn of_two_fetches_at_once_for_two_origins_neither_is_taken_for_the_newer() {
    let (upstream, mut asked) = by_origin().await;
    let waits = "cache.wait = \"2m\"\nupstream.fetch_timeout = \"2m\"\nupstream.head_timeout = \"2m\"\n";
    let proxy = Proxy::in_front_of(&upstream.url(), &format!("cache.ttl = \"60s\"\n{waits}")).await;
    let url = proxy.list_url(A);
    let mut next = async |own: bool| {
        let asked = tokio::time::timeout(Duration::from_secs(20), asked.recv()).await;
        let asked = asked.expect("the upstream is asked").expect("it lives");
        assert_eq!(asked.own, own);
        asked.tell
    };
    let one = spawn(async move { get_with(&url, &[("origin", ORIGIN)]).await });
    next(false).await.send(1).unwrap();
    let earlier = next(true).await;
    let ledger = &proxy.state.invalidation.ledger;
    proxy.state.cache.store.forget(&Key::new(INBOX, A, None), ledger.now());
    let other = reading(&proxy, A);
    // Asked for later, and read by the upstream sooner.
    next(false).await.send(2).unwrap();
    assert!(other.await.unwrap().text().contains(r#""version":2"#));
    earlier.send(3).unwrap();
    assert!(one.await.unwrap().text().contains(r#""version":3"#));
    // Somebody has seen the third: nobody is shown the second.
    let again = reading(&proxy, A);
    next(false).await.send(3).unwrap();
    assert!(again.await.unwrap().text().contains(r#""version":3"#));
}
